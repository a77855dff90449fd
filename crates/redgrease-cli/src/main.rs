//! The program `redgrease`: local servers and clusters with the module, functions and what a server runs, and the file cache.
//!
//! Data goes to stdout, messages to stderr; the exit code is the class of the failure (`failure`); errors of the file
//! cache have their own codes. One file per subcommand; `connection` has the options that name a server, `places` finds
//! what a server needs, `launch` starts it, `records` stores its record. `cache` is a folder with a file for each of its
//! subcommands.

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
mod literal;
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
use clap::{CommandFactory, Parser};

use crate::args::{Args, Subcommand};
use crate::failure::Failure;
use crate::misuse::Misuse;

fn main() -> ExitCode {
    if let Some(failure) = detach::run_if_asked() {
        eprintln!("redgrease: {failure:#}");
        return ExitCode::FAILURE;
    }
    match dispatch(Args::parse()) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("redgrease: {error:#}");
            exit_code(&error)
        }
    }
}

fn dispatch(args: Args) -> Result<ExitCode> {
    match args.subcommand {
        Subcommand::Serve(args) => serve::run(args),
        Subcommand::Stop(args) => stop::run(&args),
        Subcommand::Logs(args) => logs::run(&args),
        Subcommand::Run(args) => run::run(&args),
        Subcommand::Trigger(args) => trigger::run(&args),
        Subcommand::Ls(args) => ls::run(&args),
        Subcommand::Show(args) => show::run(&args),
        Subcommand::Abort(args) => manage::abort(&args),
        Subcommand::Drop(args) => manage::drop(&args),
        Subcommand::Unregister(args) => manage::unregister(&args),
        Subcommand::Pause(args) => manage::pause(&args),
        Subcommand::Resume(args) => manage::resume(&args),
        Subcommand::Stats(args) => stats::run(&args),
        Subcommand::Top(args) => top::run(&args),
        Subcommand::Bench(args) => bench::run(&args),
        Subcommand::Doctor(args) => doctor::run(&args),
        Subcommand::Call(args) => call::run(&args),
        Subcommand::Cache(args) => cache::run(args),
        Subcommand::Completions(args) => manual::completions(&args, Args::command()),
        Subcommand::Man(args) => manual::man(&args, Args::command()),
    }
}

/// The class of an error, as documented in docs/cli.md.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Misuse>() {
        return ExitCode::from(2);
    }
    match error.downcast_ref::<Failure>() {
        Some(failure) => ExitCode::from(failure.code()),
        None => cache::exit_status(error).unwrap_or(ExitCode::FAILURE),
    }
}

/// The reader of stdout has closed it (`| head`): not an error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
