//! `redgrease cache`: inspects and maintains a file cache.
//!
//! The library does the work; this module has only what the command line adds. One file per
//! subcommand; `stress` is a folder.

pub mod args;
mod clear;
mod codes;
mod configure;
mod doctor;
mod evict;
mod get;
mod keys;
mod locks;
mod ls;
mod open;
mod put;
mod refusal;
mod rm;
mod stat;
mod stress;
mod top;
mod verify;

use std::io::{Write, stderr};
use std::process::ExitCode;

use anyhow::Result;
use redgrease_filecache::Error;

use args::{Cache, Command};
use refusal::Refusal;

pub fn run(args: Cache) -> Result<ExitCode> {
    let (name, is_json) = name_and_format(&args.command);
    let told = dispatch(args.command).map_err(|error| match error.downcast_ref::<Error>() {
        Some(refused) => Refusal::of(name, refused).into(),
        None => error,
    });
    match told {
        Err(error) if is_json => print_error_as_json(&error).ok_or(error),
        other => other,
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Ls(args) => ls::run(&args),
        Command::Stat(args) => stat::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Put(args) => put::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Evict(args) => evict::run(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Repair(args) => verify::repair(&args),
        Command::Clear(args) => clear::run(&args),
        Command::Configure(args) => configure::run(&args),
        Command::Locks(args) => locks::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Codes(args) => codes::run(&args),
        Command::Stress(args) => stress::run(&args),
        Command::StressWorker(args) => stress::work(&args),
    }
}

/// Name of the subcommand, and whether its output is JSON.
fn name_and_format(command: &Command) -> (&'static str, bool) {
    match command {
        Command::Ls(args) => ("ls", args.place.json),
        Command::Stat(args) => ("stat", args.place.json),
        Command::Get(args) => ("get", args.place.json),
        Command::Put(args) => ("put", args.place.json),
        Command::Rm(args) => ("rm", args.place.json),
        Command::Evict(args) => ("evict", args.place.json),
        Command::Verify(args) => ("verify", args.place.json),
        Command::Repair(args) => ("repair", args.place.json),
        Command::Clear(args) => ("clear", args.place.json),
        Command::Configure(args) => ("configure", args.place.json),
        Command::Locks(args) => ("locks", args.place.json),
        Command::Top(args) => ("top", args.place.json),
        Command::Doctor(args) => ("doctor", args.place.json),
        Command::Codes(args) => ("codes", args.json),
        Command::Stress(args) => ("stress", args.json),
        Command::StressWorker(_) => ("stress-worker", false),
    }
}

/// The exit code of an error of the cache; `None` for other errors.
pub fn exit_status(error: &anyhow::Error) -> Option<ExitCode> {
    error.downcast_ref::<Refusal>().map(Refusal::status)
}

/// Prints an error of the cache as JSON on stderr; `None` for other errors.
fn print_error_as_json(error: &anyhow::Error) -> Option<ExitCode> {
    let refusal = error.downcast_ref::<Refusal>()?;
    let _nobody_listens = writeln!(stderr(), "{}", refusal.json());
    Some(refusal.status())
}
