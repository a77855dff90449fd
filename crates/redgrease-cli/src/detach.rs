//! An intermediate process that starts a new session and then becomes the server.
//!
//! A new session needs a call between fork and exec. This program runs itself once more to make it, in safe code, and then
//! replaces itself by the server; the process number does not change.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::Signal;

const STEP: &str = "__become-server";

/// Whether the server outlives the command that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It ends with this command, also if the command is killed.
    Tied,
    /// It keeps running.
    Own,
}

/// The command that runs `program` in a new session.
pub fn command(program: &Path, arguments: &[OsString], life: Life) -> Result<Command> {
    let ourselves = std::env::current_exe().context("the path of this program is not known")?;
    let mut command = Command::new(ourselves);
    command.arg(STEP).arg(if life == Life::Tied { "tied" } else { "own" }).arg(program).args(arguments);
    Ok(command)
}

/// In the intermediate process: becomes the server, and returns only the error. Otherwise returns `None`.
pub fn run_if_asked() -> Option<anyhow::Error> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != STEP {
        return None;
    }
    let (life, program) = (arguments.next()?, arguments.next()?);
    Some(become_server(&program, arguments.collect(), life == "tied"))
}

fn become_server(program: &OsString, arguments: Vec<OsString>, tied: bool) -> anyhow::Error {
    let parent = rustix::process::getppid();
    if let Err(error) = rustix::process::setsid() {
        return anyhow::Error::new(error).context("no session of its own");
    }
    // Where the kernel does not support this, a server survives a killed `redgrease serve`; `redgrease stop` still
    // finds it.
    #[cfg(target_os = "linux")]
    if tied {
        let _best_effort = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
        if rustix::process::getppid() != parent {
            return anyhow::anyhow!("the command that starts the server has ended");
        }
    }
    let error = Command::new(program).args(arguments).exec();
    anyhow::Error::new(error).context(format!("{} cannot be run", program.display()))
}
