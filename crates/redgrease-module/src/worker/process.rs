//! The process of a worker, and the supervisor that is its parent.
//!
//! Signals go to processes that cannot be others: a child of ours that was not reaped, or what a pidfd stands for. The
//! number of a process that its supervisor has reaped may belong to another process by now.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, pidfd_send_signal, waitpid};
use rustix::time::Timespec;

/// Seconds in which a supervisor must have ended everything that its worker started; then it is killed itself.
const SUPERVISOR_END_S_MAX: i64 = 10;

/// The process.
pub struct Process {
    /// The supervisor.
    child: RefCell<Child>,
    /// Stands for the supervisor; absent on kernels without pidfds.
    pidfd: Option<OwnedFd>,
    /// The process that runs user code, once it was adopted; the supervisor until then.
    pid: Cell<u32>,
    adopted: Cell<bool>,
    /// Stands for the process that runs user code, once it was adopted and where the kernel has pidfds.
    main_pidfd: RefCell<Option<OwnedFd>>,
}

impl Process {
    pub(super) fn new(child: Child, pidfd: Option<OwnedFd>) -> Process {
        Process {
            pid: Cell::new(child.id()),
            child: RefCell::new(child),
            pidfd,
            adopted: Cell::new(false),
            main_pidfd: RefCell::default(),
        }
    }

    /// The process id: that of the supervisor until the handshake.
    pub fn pid(&self) -> u32 {
        self.pid.get()
    }

    /// The process id of the supervisor.
    pub fn supervisor_pid(&self) -> u32 {
        self.child.borrow().id()
    }

    /// Readable once the process has ended.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Takes the process id that the worker names in its handshake, before any user code runs in it.
    ///
    /// # Errors
    /// That process is no child of the supervisor.
    pub fn adopt(&self, pid: u64) -> Result<(), String> {
        let named = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // Opened before the look at its parent, so that both concern the same process.
        let pidfd = named.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if named.is_none() || !self.is_child_of_supervisor(pid) {
            let supervisor = self.supervisor_pid();
            return Err(format!("it names the process id {pid}, whose parent is not its supervisor {supervisor}"));
        }
        self.pid.set(pid as u32);
        self.adopted.set(true);
        *self.main_pidfd.borrow_mut() = pidfd;
        Ok(())
    }

    fn is_child_of_supervisor(&self, pid: u64) -> bool {
        crate::memory::parent_of(pid) == Some(u64::from(self.supervisor_pid()))
    }

    /// Ends the process; its supervisor then ends everything that it started.
    pub fn kill(&self) {
        if self.has_ended() {
            return;
        }
        if !self.adopted.get() {
            // No user code has run, and a worker without a supervisor is ended by the kernel.
            let _ = self.child.borrow_mut().kill();
        } else if let Some(pidfd) = &*self.main_pidfd.borrow() {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        } else if let Some(pid) = Pid::from_raw(self.pid() as i32)
            && self.is_child_of_supervisor(u64::from(self.pid()))
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        match self.child.borrow_mut().try_wait() {
            Ok(status) => status.is_some(),
            // The server's own wait for its children took the status.
            Err(_) => true,
        }
    }

    /// How the process ended, such as `was killed by signal 9 (SIGKILL)`; `None` when it is not known.
    pub fn exit_reason(&self) -> Option<String> {
        let status = self.child.borrow_mut().try_wait().ok()?;
        status.map(describe)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if self.has_ended() {
            return;
        }
        // Killed, but not gone yet: its status must be taken, and the main thread must not wait for it.
        let (pid, pidfd) = (self.child.borrow().id(), self.pidfd.take());
        let reap = move || {
            if let Some(pidfd) = pidfd {
                let time = Timespec { tv_sec: SUPERVISOR_END_S_MAX, tv_nsec: 0 };
                let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time));
                if !matches!(ended, Ok(count) if count > 0) {
                    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                }
            }
            if let Some(pid) = Pid::from_raw(pid as i32) {
                let _ = waitpid(Some(pid), WaitOptions::empty());
            }
        };
        let _ = std::thread::Builder::new().name("rg-reaper".into()).spawn(reap);
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}{}", signal_name(signal)),
        (None, Some(code)) => format!("exited with status {code}"),
        (None, None) => "ended".to_owned(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        31 => " (SIGSYS: a filter of system calls, such as SystemCallFilter of systemd, forbids one that it made)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn start(script: &str) -> Process {
        let child = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok();
        Process::new(child, pidfd)
    }

    fn wait(process: &Process) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !process.has_ended() {
            assert!(std::time::Instant::now() < deadline, "the process has not ended within 10 s");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    #[test]
    fn the_reason_names_signal_or_status() {
        let killed = start("sleep 60");
        assert_eq!(killed.exit_reason(), None, "it runs");
        killed.kill();
        wait(&killed);
        assert_eq!(killed.exit_reason().as_deref(), Some("was killed by signal 9 (SIGKILL)"));
        let filtered = start("kill -SYS $$");
        wait(&filtered);
        let reason = filtered.exit_reason().unwrap();
        assert!(reason.starts_with("was killed by signal 31 (SIGSYS: a filter of system calls"), "{reason}");
        let exited = start("exit 3");
        wait(&exited);
        assert_eq!(exited.exit_reason().as_deref(), Some("exited with status 3"));
    }

    #[test]
    fn a_process_that_is_no_child_of_the_supervisor_is_not_adopted() {
        let process = start("sleep 60");
        let own = std::process::id();
        let error = process.adopt(u64::from(own)).unwrap_err();
        assert!(error.starts_with(&format!("it names the process id {own}, whose parent is not")), "{error}");
        assert!(process.adopt(0).is_err() && process.adopt(u64::MAX).is_err());
    }
}
