//! The program `redgrease`: scripts to load, local servers and clusters with the module, functions and what a server runs, and the file cache.
//!
//! Data goes to stdout, messages to stderr; the exit code is the class of the failure (`failure`); errors of the file
//! cache have their own codes. One file per subcommand, `load` is what runs without one; `connection` has the options that name a server, `places` finds
//! what a server needs, `launch` starts it, `records` stores its record. `cache` is a folder with a file for each of its
//! subcommands.

// A reader that has closed its end of a pipe is no reason to panic: `output` prints.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod bench;
mod cache;
mod call;
mod cluster;
mod connection;
mod detach;
mod doctor;
mod failure;
mod gears;
mod ids;
mod info;
mod launch;
mod listing;
mod load;
mod logs;
mod ls;
mod manage;
mod manual;
mod misuse;
mod output;
mod places;
mod process;
mod records;
mod reply;
mod results;
mod run;
mod serve;
mod show;
mod shutdown;
mod signals;
mod stats;
mod stop;
mod table;
mod tail;
mod terminal;
mod top;
mod trigger;
mod units;
mod values;

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Args, Subcommand};
use crate::failure::Failure;
use crate::misuse::Misuse;
use crate::output::say;

fn main() -> ExitCode {
    if let Some(failure) = detach::run_if_asked() {
        say(format_args!("redgrease: {failure:#}"));
        return ExitCode::FAILURE;
    }
    match dispatch(Args::of(std::env::args_os()).unwrap_or_else(|error| error.exit())) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("redgrease: {error:#}"));
            exit_code(&error)
        }
    }
}

fn dispatch(args: Args) -> Result<ExitCode> {
    match args.subcommand {
        Some(Subcommand::Serve(args)) => serve::run(args),
        Some(Subcommand::Stop(args)) => stop::run(&args),
        Some(Subcommand::Logs(args)) => logs::run(&args),
        Some(Subcommand::Run(args)) => run::run(&args),
        Some(Subcommand::Trigger(args)) => trigger::run(&args),
        Some(Subcommand::Ls(args)) => ls::run(&args),
        Some(Subcommand::Show(args)) => show::run(&args),
        Some(Subcommand::Abort(args)) => manage::abort(&args),
        Some(Subcommand::Drop(args)) => manage::drop(&args),
        Some(Subcommand::Unregister(args)) => manage::unregister(&args),
        Some(Subcommand::Pause(args)) => manage::pause(&args),
        Some(Subcommand::Resume(args)) => manage::resume(&args),
        Some(Subcommand::Stats(args)) => stats::run(&args),
        Some(Subcommand::Top(args)) => top::run(&args),
        Some(Subcommand::Bench(args)) => bench::run(&args),
        Some(Subcommand::Doctor(args)) => doctor::run(&args),
        Some(Subcommand::Call(args)) => call::run(&args),
        Some(Subcommand::Cache(args)) => cache::run(args),
        Some(Subcommand::Completions(args)) => manual::completions(&args, Args::command()),
        Some(Subcommand::Man(args)) => manual::man(&args, Args::command()),
        None => load::run(&args.load),
    }
}

/// The class of an error, as documented in docs/cli.md.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Misuse>() {
        return ExitCode::from(2);
    }
    match error.downcast_ref::<Failure>() {
        Some(failure) => ExitCode::from(failure.class.exit_code()),
        None => cache::exit_status(error).unwrap_or(ExitCode::FAILURE),
    }
}

/// The reader of stdout has closed it (`| head`): not an error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
