//! Processes other than children: whether one still runs, and ending it.
//!
//! Process numbers are reused, so a process is identified by its number and its start time.

use std::fs::File;

use procfs_core::FromRead;
use procfs_core::process::Stat;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A process, distinguished from a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// The kernel's start time in clock ticks; `None` where there is no /proc.
    pub started: Option<u64>,
}

impl Process {
    /// The process that has this number now.
    pub fn now(pid: u32) -> Self {
        Self { pid, started: stat(pid).map(|stat| stat.starttime) }
    }

    /// Whether it still runs; false for a zombie.
    pub fn is_alive(&self) -> bool {
        match (self.started, stat(self.pid)) {
            (Some(started), Some(now)) => now.starttime == started && now.state != 'Z',
            (Some(_), None) => false,
            (None, _) => number(self.pid).is_some_and(|pid| test_kill_process(pid).is_ok()),
        }
    }

    /// Sends a signal; ignores a process that has ended.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = number(self.pid)
        {
            let _gone = kill_process(pid, signal);
        }
    }
}

fn number(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// The kernel's data about a process; `None` if there is none with this number, or no /proc.
fn stat(pid: u32) -> Option<Stat> {
    Stat::from_read(File::open(format!("/proc/{pid}/stat")).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_alive_and_a_later_process_with_our_number_is_not_us() {
        let ourselves = Process::now(std::process::id());
        assert!(ourselves.is_alive());
        if let Some(started) = ourselves.started {
            assert!(!Process { started: Some(started + 1), ..ourselves }.is_alive());
        }
    }

    #[test]
    fn an_ended_child_is_not_alive_even_before_it_is_waited_for() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let process = Process::now(child.id());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while process.is_alive() && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(process.started.is_none() || !process.is_alive());
        child.wait().unwrap();
    }
}
