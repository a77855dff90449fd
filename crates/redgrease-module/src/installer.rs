//! Installs requirements of scripts: one directory for each set of requirements.
//!
//! The work is done by the package's own `redgrease.worker.install` in a separate process, outside the main thread.
//! What the workers' interpreter can import already is not installed again. Checks do not wait for installations.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use redgrease_core::saved::SavedWheel;
use redgrease_engine::effect::Install;
use redgrease_engine::id::InstallNo;
use redgrease_engine::input::{Found, Installed, Wheel};

use crate::background::Background;
use crate::helper::{self, Failure};
use crate::os_user::OsUser;
use crate::program::Program;

/// Jobs that may wait for each thread: more than the engine requests.
const JOBS_MAX: usize = 1000;

struct Job {
    install: InstallNo,
    program: Program,
    target: PathBuf,
    requirements: Vec<String>,
    force: bool,
    /// Only checks whether the requirements are present.
    check: bool,
    time_max: Duration,
    /// The user that it runs as; `None`: the server's.
    user: Option<OsUser>,
    /// The variables of the server's environment.
    environment: Vec<(OsString, OsString)>,
}

/// The result of a job.
pub type Answer = (InstallNo, Result<Found, String>);

/// A thread that checks whether requirements are present, and one that installs them.
pub struct Installer {
    checks: Background<Job, Answer>,
    installs: Background<Job, Answer>,
    time_max: Duration,
    environment: Vec<(OsString, OsString)>,
}

impl Installer {
    /// Starts the threads.
    pub fn start(time_max: Duration, environment: Vec<(OsString, OsString)>) -> Result<Installer, String> {
        let thread = |name| Background::start(name, JOBS_MAX, |job: Job| (job.install, install(&job)));
        Ok(Installer { checks: thread("rg-requirements")?, installs: thread("rg-installer")?, time_max, environment })
    }

    /// Queues a job that installs into a directory, for an interpreter, as a user.
    ///
    /// # Errors
    /// Too many jobs wait.
    pub fn submit(
        &self,
        install: &Install,
        program: Program,
        target: PathBuf,
        user: Option<OsUser>,
    ) -> Result<(), String> {
        let job = Job {
            install: install.install,
            program,
            target,
            requirements: install.requirements.to_vec(),
            force: install.force,
            check: install.check,
            time_max: self.time_max,
            user,
            environment: self.environment.clone(),
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

fn install(job: &Job) -> Result<Found, String> {
    let failed = |what: &str| {
        format!(
            "Could not satisfy requirements (look at redis log file for more information): {}: {what}",
            job.requirements.join(", ")
        )
    };
    if let (Some(user), Some(base)) = (&job.user, job.target.parent()) {
        let made = std::fs::create_dir_all(base).and_then(|()| user.own(base));
        made.map_err(|error| failed(&format!("{}: {error}", base.display())))?;
    }
    let mut command = job.program.command("redgrease.worker.install");
    command.env_clear().envs(job.environment.iter().cloned());
    command.arg("--target").arg(&job.target);
    if let Some(user) = &job.user {
        user.apply(&mut command);
    }
    if job.force {
        command.arg("--force");
    }
    if job.check {
        command.arg("--check");
    }
    // Its own process group: signals to the server's group do not reach it.
    command.process_group(0).arg("--").args(&job.requirements);
    let output = helper::run(&mut command, job.time_max).map_err(|failure| match failure {
        Failure::NotStarted(reason) => failed(&format!("{}: {reason}", job.program.python.display())),
        Failure::TooLong => failed(&format!("not done within InstallMax ({} ms)", job.time_max.as_millis())),
    })?;
    // The status may be missing; the output tells the result, too.
    let success = output.status.map_or(true, |status| status.success());
    let answer = String::from_utf8_lossy(&output.out).trim().to_owned();
    match answer.lines().last() {
        Some("importable") if success => Ok(Found::Ready(Installed::default())),
        Some("missing") if success => Ok(Found::Missing),
        Some("installed") if success => Ok(Found::Ready(Installed {
            paths: vec![job.target.join("packages").display().to_string()],
            wheels: answer.lines().filter_map(wheel).collect(),
        })),
        _ => {
            let text = String::from_utf8_lossy(&output.err);
            let tail: Vec<&str> = text.lines().rev().take(5).collect();
            Err(failed(&tail.into_iter().rev().collect::<Vec<_>>().join(" | ")))
        }
    }
}

/// A wheel from the installer's line `wheel FILE BYTES SHA256 INDEXES`.
fn wheel(line: &str) -> Option<Wheel> {
    let mut words = line.strip_prefix("wheel ")?.split(' ');
    let (file, bytes, sha256, indexes) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let file = SavedWheel { file: file.to_owned(), bytes: bytes.parse().ok()?, sha256: sha256.to_owned() };
    Some(Wheel { file, needed_by: indexes.split(',').filter_map(|index| index.parse().ok()).collect() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use super::*;

    /// Runs a job with a program in place of the interpreter.
    fn run(name: &str, program: &str, time_max: Duration) -> Result<Found, String> {
        let directory = std::env::temp_dir().join(format!("rg-installer-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let python = directory.join("python3");
        std::fs::write(&python, format!("#!/bin/sh\n{program}\n")).unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = install(&Job {
            install: InstallNo(1),
            program: Program::installed(&python),
            target: directory.join("set"),
            requirements: vec!["first>=1".to_owned(), "second".to_owned()],
            force: false,
            check: true,
            time_max,
            user: None,
            environment: std::env::vars_os().collect(),
        });
        std::fs::remove_dir_all(&directory).unwrap();
        found
    }

    #[test]
    fn the_last_line_of_the_installer_says_what_was_found() {
        let minute = Duration::from_secs(60);
        assert_eq!(run("ready", "echo noise; echo importable", minute), Ok(Found::Ready(Installed::default())));
        assert_eq!(run("missing", "echo missing", minute), Ok(Found::Missing));
        let lines = "echo wheel a-1.whl 3 0f 0,1; echo wheel b-1.whl 4 0e -; echo installed";
        let Ok(Found::Ready(installed)) = run("installed", lines, minute) else { panic!("not installed") };
        assert!(installed.paths[0].ends_with("/set/packages"));
        assert_eq!(installed.wheels[0].needed_by, [0, 1]);
        assert_eq!((installed.wheels[1].file.bytes, installed.wheels[1].needed_by.len()), (4, 0));
        let error = run("failed", "echo installed; echo no such package >&2; exit 1", minute).unwrap_err();
        assert!(error.ends_with("first>=1, second: no such package"), "{error}");
    }

    #[test]
    fn an_installer_that_takes_too_long_is_ended() {
        let begin = Instant::now();
        let error = run("slow", "exec sleep 60", Duration::from_millis(100)).unwrap_err();
        assert!(error.ends_with("not done within InstallMax (100 ms)"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}
