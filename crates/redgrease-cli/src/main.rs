//! The command `redgrease`: loads scripts, starts a local server with the module in it, sends calls to any server, and
//! maintains file caches.
//!
//! Data goes to stdout, messages to stderr; the exit code is 0, 1 (failure) or 2 (usage error); errors of the file
//! cache have their own codes. One file per subcommand, `load` is what runs without one; `places` finds what a server needs, `launch` starts it,
//! `records` stores its record. `cache` is a folder with a file for each of its subcommands.

mod args;
mod cache;
mod call;
mod detach;
mod launch;
mod load;
mod logs;
mod misuse;
mod places;
mod process;
mod records;
mod reply;
mod serve;
mod shutdown;
mod stop;
mod tail;
mod wire;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{Args, Subcommand};
use crate::misuse::Misuse;

fn main() -> ExitCode {
    if let Some(failure) = detach::run_if_asked() {
        eprintln!("redgrease: {failure:#}");
        return ExitCode::FAILURE;
    }
    match run(Args::of(std::env::args_os()).unwrap_or_else(|error| error.exit())) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("redgrease: {error:#}");
            if error.is::<Misuse>() {
                ExitCode::from(2)
            } else if let Some(error) = error.downcast_ref::<redgrease_loader::error::Error>() {
                ExitCode::from(error.class.exit_code())
            } else {
                cache::exit_status(&error).unwrap_or(ExitCode::FAILURE)
            }
        }
    }
}

fn run(args: Args) -> Result<ExitCode> {
    match args.subcommand {
        Some(Subcommand::Serve(args)) => serve::run(args),
        Some(Subcommand::Stop(args)) => stop::run(&args),
        Some(Subcommand::Logs(args)) => logs::run(&args),
        Some(Subcommand::Call(args)) => call::run(&args),
        Some(Subcommand::Cache(args)) => cache::run(args),
        None => load::run(&args.load),
    }
}

/// The reader of stdout has closed it (`| head`): not an error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
