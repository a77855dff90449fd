//! Installing what scripts require: one directory per set of requirements.
//!
//! The work is done by the package's own `redgrease.worker.install` in a process of its own, away from the main thread.
//! What the workers' interpreter can import already is not installed again.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redgrease_core::fair::FairQueue;
use redgrease_core::id::SessionNo;
use redgrease_ffi::LogLevel;
use redgrease_ffi::event_loop::Readiness;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::background::Background;
use crate::engine::{Engine, engine};

/// Installations that may be waiting.
const JOBS_MAX: usize = 1000;

/// Sets of requirements that are remembered as present.
const SATISFIED_MAX: usize = 1000;

#[derive(Clone)]
struct Job {
    session: SessionNo,
    environment: String,
    python: PathBuf,
    target: PathBuf,
    requirements: Vec<String>,
    force: bool,
    /// Only looks whether the requirements are there.
    check: bool,
    time_max: Duration,
}

/// What a look or an installation found.
enum Found {
    /// Directories to be put on the path.
    Ready(Vec<String>),
    /// The requirements have to be installed.
    Missing,
}

type Answer = (Job, Result<Found, String>);

/// A thread that does one job after the other, and the jobs that wait for it.
struct Lane {
    thread: Background<Job, Answer>,
    waiting: RefCell<FairQueue<Job>>,
    busy: Cell<bool>,
}

impl Lane {
    fn start(name: &str) -> Result<Lane, String> {
        let thread = Background::start(name, 1, |job: Job| {
            let found = install(&job);
            (job, found)
        })?;
        Ok(Lane { thread, waiting: RefCell::new(FairQueue::new(JOBS_MAX)), busy: Cell::new(false) })
    }
}

/// Looks whether requirements are there, and installs them: looks do not wait for installations.
pub struct Installer {
    looks: Lane,
    installs: Lane,
    /// Sets of requirements that were there, and their directories.
    satisfied: RefCell<HashMap<String, Vec<String>>>,
}

impl Installer {
    /// Starts the threads.
    pub fn start() -> Result<Installer, String> {
        Ok(Installer {
            looks: Lane::start("rg-requirements")?,
            installs: Lane::start("rg-installer")?,
            satisfied: RefCell::default(),
        })
    }

    fn lane(&self, check: bool) -> &Lane {
        if check { &self.looks } else { &self.installs }
    }

    /// The directories of a set of requirements that was there when it was last looked at.
    fn known(&self, environment: &str) -> Option<Vec<String>> {
        let satisfied = self.satisfied.borrow();
        satisfied.get(environment).filter(|paths| paths.iter().all(|path| Path::new(path).is_dir())).cloned()
    }
}

impl Engine {
    /// Has the loop look for finished jobs.
    pub fn watch_installer(&self) -> Result<(), String> {
        for check in [true, false] {
            self.server.watch(self.installer.lane(check).thread.bell_fd(), Readiness::Readable, move || {
                if let Some(engine) = engine() {
                    engine.requirements_found(check);
                }
            })?;
        }
        Ok(())
    }

    /// Looks for the requirements of a session, and installs them if need be; [`Engine::installed`] follows.
    pub fn install_requirements(&self, session: SessionNo, environment: &str, requirements: &[String], force: bool) {
        let Ok(python) = &self.python else { return };
        if !force && let Some(paths) = self.installer.known(environment) {
            return self.installed(session, Ok(paths));
        }
        let base = std::env::current_dir().unwrap_or_default().join(&self.config.requirements_dir);
        let job = Job {
            session,
            environment: environment.to_owned(),
            python: python.clone(),
            target: base.join(directory_name(environment)),
            requirements: requirements.to_vec(),
            force,
            check: !force,
            time_max: self.config.install_time_max,
        };
        self.queue_job(job);
        let limit = self.config.install_time_max.as_millis() as u64;
        self.server.after_ms(limit, move || {
            let Some(engine) = engine() else { return };
            let taken = |check| engine.installer.lane(check).waiting.borrow_mut().retain(|job| job.session != session);
            if taken(true) + taken(false) > 0 {
                let reason = format!(
                    "Could not satisfy requirements: other installations took longer than InstallMax ({limit} ms)"
                );
                engine.installed(session, Err(reason));
            }
        });
    }

    fn queue_job(&self, job: Job) {
        let (session, check) = (job.session, job.check);
        let user = self.sessions.borrow().get(&session).map(|session| session.user.to_string()).unwrap_or_default();
        if !self.installer.lane(check).waiting.borrow_mut().push(&user, job) {
            let reason = format!("Could not satisfy requirements: more than {JOBS_MAX} installations are waiting");
            self.installed(session, Err(reason));
        }
        self.next_job(check);
    }

    /// Gives the next job to a thread that has none. A job without a waiting client, or with packages that were found meanwhile, needs none.
    fn next_job(&self, check: bool) {
        let lane = self.installer.lane(check);
        while !lane.busy.get() {
            let Some(job) = lane.waiting.borrow_mut().pop() else { return };
            let session = job.session;
            let is_gone = self.sessions.borrow().get(&session).is_none_or(|session| session.client_is_gone());
            if is_gone {
                self.installed(session, Err("the client has left".into()));
            } else if let Some(paths) = self.installer.known(&job.environment).filter(|_| !job.force) {
                self.installed(session, Ok(paths));
            } else if lane.thread.submit(job) {
                lane.busy.set(true);
            } else {
                self.installed(session, Err("Could not satisfy requirements: the installer does not answer".into()));
            }
        }
    }

    fn requirements_found(&self, check: bool) {
        for (job, found) in self.installer.lane(check).thread.answers() {
            self.installer.lane(check).busy.set(false);
            match found {
                Ok(Found::Ready(paths)) => {
                    let mut satisfied = self.installer.satisfied.borrow_mut();
                    if satisfied.len() < SATISFIED_MAX || satisfied.contains_key(&job.environment) {
                        satisfied.insert(job.environment, paths.clone());
                    }
                    drop(satisfied);
                    self.installed(job.session, Ok(paths));
                }
                Ok(Found::Missing) => self.queue_job(Job { check: false, ..job }),
                Err(reason) => {
                    self.server.log(LogLevel::Warning, &format!("rg: {reason}"));
                    self.installed(job.session, Err(reason));
                }
            }
        }
        self.next_job(check);
    }
}

/// What workers of a session must share: the sorted set of its requirements without our own package, which is always there.
pub fn environment(requirements: &[String]) -> String {
    let own = |text: &&String| {
        let name: String =
            text.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect();
        name.eq_ignore_ascii_case("redgrease")
    };
    let set: BTreeSet<&str> = requirements.iter().filter(|text| !own(text)).map(|text| text.trim()).collect();
    set.into_iter().collect::<Vec<_>>().join("\n")
}

/// A name for the directory of a set: readable, and different for different sets.
fn directory_name(environment: &str) -> String {
    // The directory is trusted to hold what its name says, for all users: collisions must not be found.
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
    // A group of its own: pip and what it starts are ended together.
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
    // Another wait of this process (the server's, for its own children) may have taken the status: the answer tells too.
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
    use super::*;

    fn set(requirements: &[&str]) -> String {
        environment(&requirements.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_order_of_requirements_and_our_own_package_make_no_difference() {
        assert_eq!(set(&["b", "a", "redgrease[runtime]>=1", "a"]), "a\nb");
        assert_eq!(set(&["RedGrease"]), "");
        assert_eq!(set(&["redgrease-other"]), "redgrease-other");
    }

    #[test]
    fn different_sets_have_different_directories() {
        assert_ne!(directory_name("a>1"), directory_name("a<1"));
    }
}
