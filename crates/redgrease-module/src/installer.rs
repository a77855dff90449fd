//! Installs requirements of scripts: one directory for each set of requirements.
//!
//! The work is done by the package's own `redgrease.worker.install` in a separate process, outside the main thread.
//! What the workers' interpreter can import already is not installed again. Checks do not wait for installations.

use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redgrease_engine::effect::Install;
use redgrease_engine::id::InstallNo;
use redgrease_engine::input::Found;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::background::Background;

/// Jobs that may wait for each thread: more than the engine requests.
const JOBS_MAX: usize = 1000;

struct Job {
    install: InstallNo,
    python: PathBuf,
    target: PathBuf,
    requirements: Vec<String>,
    force: bool,
    /// Only checks whether the requirements are present.
    check: bool,
    time_max: Duration,
}

/// The result of a job.
pub type Answer = (InstallNo, Result<Found, String>);

/// A thread that checks whether requirements are present, and one that installs them.
pub struct Installer {
    checks: Background<Job, Answer>,
    installs: Background<Job, Answer>,
    runtime: Option<PathBuf>,
    directory: PathBuf,
    time_max: Duration,
}

impl Installer {
    /// Starts the threads. Requirements are installed for this interpreter, below this directory.
    pub fn start(runtime: Option<PathBuf>, directory: &str, time_max: Duration) -> Result<Installer, String> {
        let thread = |name| Background::start(name, JOBS_MAX, |job: Job| (job.install, install(&job)));
        Ok(Installer {
            checks: thread("rg-requirements")?,
            installs: thread("rg-installer")?,
            runtime,
            directory: directory.into(),
            time_max,
        })
    }

    /// Queues a job.
    ///
    /// # Errors
    /// There is no interpreter, or too many jobs wait.
    pub fn submit(&self, install: &Install) -> Result<(), String> {
        let Some(python) = self.runtime.clone() else {
            return Err("Could not satisfy requirements: there is no interpreter".to_owned());
        };
        let base = std::env::current_dir().unwrap_or_default().join(&self.directory);
        let job = Job {
            install: install.install,
            python,
            target: base.join(directory_name(&install.environment)),
            requirements: install.requirements.to_vec(),
            force: install.force,
            check: install.check,
            time_max: self.time_max,
        };
        let thread = if install.check { &self.checks } else { &self.installs };
        if thread.submit(job) {
            return Ok(());
        }
        Err(format!("Could not satisfy requirements: more than {JOBS_MAX} installations are waiting"))
    }

    /// Readable when there are results.
    pub fn ready_fds(&self) -> [RawFd; 2] {
        [self.checks.ready_fd(), self.installs.ready_fd()]
    }

    /// Results of jobs since the last call.
    pub fn answers(&self) -> Vec<Answer> {
        let mut answers = self.checks.answers();
        answers.extend(self.installs.answers());
        answers
    }
}

/// A name for the directory of a set: readable, and different for different sets.
fn directory_name(environment: &str) -> String {
    // All users trust the contents of the directory to match its name: collisions must be infeasible.
    let hash = blake3::hash(environment.as_bytes()).to_hex();
    let readable: String =
        environment.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    format!("{readable}-{hash}")
}

fn install(job: &Job) -> Result<Found, String> {
    let failed = |what: &str| {
        format!(
            "Could not satisfy requirements (look at redis log file for more information): {}: {what}",
            job.requirements.join(", ")
        )
    };
    let mut command = Command::new(&job.python);
    command.args(["-I", "-m", "redgrease.worker.install", "--target"]).arg(&job.target);
    if job.force {
        command.arg("--force");
    }
    if job.check {
        command.arg("--check");
    }
    // Its own process group: pip and its children are ended together.
    command.process_group(0);
    command.arg("--").args(&job.requirements).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&format!("{}: {error}", job.python.display())))?;
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("no output"));
    };
    let deadline = Instant::now() + job.time_max;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            if let Some(group) = Pid::from_raw(child.id() as i32) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(&format!("not done within InstallMax ({} ms)", job.time_max.as_millis())));
        }
        let time = rustix::time::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
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
    // Another wait of this process (the server's, for its own children) may have taken the status: the output tells the
    // result, too.
    let status = child.wait();
    let answer = String::from_utf8_lossy(&out).trim().to_owned();
    let success = status.map_or(true, |status| status.success());
    match answer.lines().last() {
        Some("importable") if success => Ok(Found::Ready(Vec::new())),
        Some("missing") if success => Ok(Found::Missing),
        Some("installed") if success => Ok(Found::Ready(vec![job.target.display().to_string()])),
        _ => {
            let text = String::from_utf8_lossy(&err);
            let tail: Vec<&str> = text.lines().rev().take(5).collect();
            Err(failed(&tail.into_iter().rev().collect::<Vec<_>>().join(" | ")))
        }
    }
}

/// Reads once; `false` at the end.
fn read_more(from: &mut impl std::io::Read, into: &mut Vec<u8>) -> bool {
    const KEPT_BYTES_MAX: usize = 1 << 20;
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
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn different_sets_have_different_directories() {
        assert_ne!(directory_name("a>1"), directory_name("a<1"));
    }

    /// Runs a job with a program in place of the interpreter.
    fn run(name: &str, program: &str, time_max: Duration) -> Result<Found, String> {
        let directory = std::env::temp_dir().join(format!("rg-installer-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let python = directory.join("python3");
        std::fs::write(&python, format!("#!/bin/sh\n{program}\n")).unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = install(&Job {
            install: InstallNo(1),
            python,
            target: directory.join("set"),
            requirements: vec!["first>=1".to_owned(), "second".to_owned()],
            force: false,
            check: true,
            time_max,
        });
        std::fs::remove_dir_all(&directory).unwrap();
        found
    }

    #[test]
    fn the_last_line_of_the_installer_says_what_was_found() {
        let minute = Duration::from_secs(60);
        assert_eq!(run("ready", "echo noise; echo importable", minute), Ok(Found::Ready(Vec::new())));
        assert_eq!(run("missing", "echo missing", minute), Ok(Found::Missing));
        let error = run("failed", "echo installed; echo no such package >&2; exit 1", minute).unwrap_err();
        assert!(error.ends_with("first>=1, second: no such package"), "{error}");
    }

    #[test]
    fn an_installer_that_takes_too_long_is_ended_with_all_that_it_started() {
        let begin = Instant::now();
        let error = run("slow", "sleep 60 & sleep 60", Duration::from_millis(100)).unwrap_err();
        assert!(error.ends_with("not done within InstallMax (100 ms)"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}
