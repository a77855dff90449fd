//! Helper processes with a deadline, outside the main thread.

use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::time::Timespec;

/// Seconds in which a process must have ended that was asked to.
const END_S_MAX: i64 = 10;

/// Bytes that are kept of each output.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// What a process has left.
pub struct Output {
    /// Its status; an error if another wait of this process (the server's, for its own children) has taken it.
    pub status: io::Result<ExitStatus>,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error.
    pub err: Vec<u8>,
}

/// Why there is no output.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The process could not be started.
    NotStarted(String),
    /// It did not end in time, and was ended.
    TooLong,
}

/// Why an interpreter could not be started, with the remedy where one is known.
pub fn not_started(error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ": let the server's user execute it; if its unit of systemd has NoExecPaths, name the interpreter in ExecPaths"
        }
        _ => "",
    };
    format!("{error}{remedy}")
}

/// Runs a program without input until it ends.
///
/// # Errors
/// See [`Failure`].
pub fn run(command: &mut Command, time_max: Duration) -> Result<Output, Failure> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::NotStarted(not_started(&error)))?;
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Failure::NotStarted("no output".to_owned()));
    };
    let deadline = Instant::now() + time_max;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            end(&mut child);
            return Err(Failure::TooLong);
        }
        let time = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let (out_ready, err_ready) = {
            let mut fds = [PollFd::new(&stdout, PollFlags::IN), PollFd::new(&stderr, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&time));
            (!fds[0].revents().is_empty() && out_open, !fds[1].revents().is_empty() && err_open)
        };
        if out_ready {
            out_open = read_more(&mut stdout, &mut out);
        }
        if err_ready {
            err_open = read_more(&mut stderr, &mut err);
        }
    }
    Ok(Output { status: child.wait(), out, err })
}

/// Ends a process with all that it started: it waits for all of it.
fn end(child: &mut Child) {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty());
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    if let Ok(pidfd) = pidfd {
        let time = Timespec { tv_sec: END_S_MAX, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Reads once; `false` at the end.
fn read_more(from: &mut impl std::io::Read, into: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 4096];
    match from.read(&mut chunk) {
        Ok(0) | Err(_) => false,
        Ok(count) => {
            if into.len() < KEPT_BYTES_MAX {
                into.extend_from_slice(&chunk[..count]);
            }
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_may_not_be_executed_comes_with_the_remedy() {
        let text = |kind: io::ErrorKind| not_started(&kind.into());
        assert_eq!(
            text(io::ErrorKind::PermissionDenied),
            "permission denied: let the server's user execute it; if its unit of systemd has NoExecPaths, name the interpreter in \
             ExecPaths"
        );
        assert_eq!(text(io::ErrorKind::NotFound), "entity not found");
    }
}
