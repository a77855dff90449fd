//! Installing what scripts require: one directory per set of requirements.
//!
//! The work is done by the package's own `redgrease.worker.install` in a process of its own, away from the main thread.
//! What the workers' interpreter can import already is not installed again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redgrease_core::id::SessionNo;
use redgrease_ffi::LogLevel;
use redgrease_ffi::event_loop::Readiness;
use rustix::event::{PollFd, PollFlags, poll};

use crate::background::Background;
use crate::engine::{Engine, engine};

/// Installations that may be waiting.
const JOBS_MAX: usize = 1000;

struct Job {
    session: SessionNo,
    python: PathBuf,
    target: PathBuf,
    requirements: Vec<String>,
    force: bool,
    time_max: Duration,
}

/// Directories to be put on the path, or why the requirements are not to be had.
type Answer = (SessionNo, Result<Vec<String>, String>);

/// The thread that installs, one set at a time.
pub struct Installer(Background<Job, Answer>);

impl Installer {
    /// Starts the thread.
    pub fn start() -> Result<Installer, String> {
        Background::start("rg-installer", JOBS_MAX, |job: Job| (job.session, install(&job))).map(Installer)
    }
}

impl Engine {
    /// Has the loop look for finished installations.
    pub fn watch_installer(&self) -> Result<(), String> {
        self.server.watch(self.installer.0.bell_fd(), Readiness::Readable, || {
            let Some(engine) = engine() else { return };
            for (session, result) in engine.installer.0.answers() {
                if let Err(reason) = &result {
                    engine.server.log(LogLevel::Warning, &format!("rg: {reason}"));
                }
                engine.installed(session, result);
            }
        })
    }

    /// Installs the requirements of a session; [`Engine::installed`] follows.
    pub fn install_requirements(&self, session: SessionNo, environment: &str, requirements: &[String], force: bool) {
        let Ok(python) = &self.python else { return };
        let base = std::env::current_dir().unwrap_or_default().join(&self.config.requirements_dir);
        let job = Job {
            session,
            python: python.clone(),
            target: base.join(directory_name(environment)),
            requirements: requirements.to_vec(),
            force,
            time_max: self.config.install_time_max,
        };
        if !self.installer.0.submit(job) {
            let reason = format!("Could not satisfy requirements: more than {JOBS_MAX} installations are waiting");
            self.installed(session, Err(reason));
        }
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
    // FNV-1a: stable over versions, and nobody attacks his own requirements.
    let hash = environment
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let readable: String =
        environment.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    format!("{readable}-{hash:016x}")
}

fn install(job: &Job) -> Result<Vec<String>, String> {
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
        Some("importable") if success => Ok(Vec::new()),
        Some("installed") if success => Ok(vec![job.target.display().to_string()]),
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
