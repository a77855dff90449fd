//! `redgrease PATH...`: loads scripts, and with `--watch` loads them again when they change.

use std::io::{Write, stderr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::CommandFactory;
use jiff::Timestamp;
use redgrease_loader::arguments::Arguments;
use redgrease_loader::error::{Class, Error};
use redgrease_loader::log::Log;
use redgrease_loader::log_lines;
use redgrease_loader::program;
use redgrease_loader::settings::{Settings, default_config_files};
use redgrease_loader::watch::Control;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::Args;
use crate::places::Python;

/// After a signal what is being loaded may end in this time.
const GRACE: Duration = Duration::from_secs(2);

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let directory = std::env::current_dir().context("the current directory cannot be found")?;
    let variable = |name: &str| std::env::var(name).ok();
    let settings = Settings::resolve(arguments.layer(), variable, &default_config_files(&directory))?;
    if settings.log_config.is_some() {
        return run_in_python();
    }
    let (least, format) = (settings.log_level, settings.log_format);
    let log: Log = Arc::new(move |level, message| {
        if level >= least {
            // Nothing can be told to the user if stderr is closed.
            let _is_closed = stderr().write_all(log_lines::line(format, level, message, Timestamp::now()).as_bytes());
        }
    });
    let signals = settings.watch.map(|_| Signals::new([SIGINT, SIGTERM, SIGHUP])).transpose();
    let signals = signals.context("signals cannot be received")?;
    let on_watch = |control: Control| {
        if let Some(mut signals) = signals {
            std::thread::spawn(move || stop_on_signal(&mut signals, &control));
        }
    };
    // The kernel delivers signals to the main thread, where they interrupt no reply of the server.
    let paths = arguments.paths.clone();
    let program = std::thread::spawn(move || program::run(settings, &paths, log, on_watch));
    let code = program.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Ok(ExitCode::from(code.map_err(|error| with_subcommand(error, &arguments.paths))?))
}

/// Ends the watch, or the process if that does not help in time or is asked for again.
fn stop_on_signal(signals: &mut Signals, control: &Control) {
    let mut received = signals.forever();
    if received.next().is_none() {
        return;
    }
    control.stop();
    std::thread::spawn(|| {
        std::thread::sleep(GRACE);
        std::process::exit(Class::Failed.exit_code().into());
    });
    if received.next().is_some() {
        std::process::exit(Class::Failed.exit_code().into());
    }
}

/// Python's logging is configured in Python: runs the same command line there.
fn run_in_python() -> Result<ExitCode> {
    let python = Python::find(None)?;
    let words = std::env::args_os().skip(1);
    let error = Command::new(&python.executable).args(["-m", "redgrease.cli"]).args(words).exec();
    Err(error).with_context(|| format!("{} (for --log-config) cannot be run", python.executable.display()))
}

/// A path that does not exist may be a misspelt subcommand.
fn with_subcommand(error: Error, paths: &[std::path::PathBuf]) -> Error {
    let (Class::Path, [path, ..]) = (error.class, paths) else { return error };
    match nearest_subcommand(path) {
        Some(name) => Error::new(error.class, error.what, format!("write redgrease {name}, or name scripts to load")),
        None => error,
    }
}

fn nearest_subcommand(path: &Path) -> Option<String> {
    let word = path.to_str().filter(|word| !word.contains(['/', '.']))?;
    let command = Args::command();
    let names = command.get_subcommands().filter(|each| !each.is_hide_set()).map(clap::Command::get_name);
    let likeness = names.map(|name| (strsim::jaro_winkler(name, word), name));
    likeness.filter(|(likeness, _)| *likeness > 0.7).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_subcommand_is_recognised() {
        assert_eq!(nearest_subcommand(Path::new("sevre")).as_deref(), Some("serve"));
        assert_eq!(nearest_subcommand(Path::new("scripts")), None);
        assert_eq!(nearest_subcommand(Path::new("./sevre")), None);
    }
}
