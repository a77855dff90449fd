//! `redgrease abort`, `drop`, `unregister`, `pause` and `resume`: changing executions and registrations.

use std::process::ExitCode;

use anyhow::Result;
use redgrease::{ExecutionId, ExecutionInfo, GearsCommands, Pending, Registration, RegistrationId};
use redis::Connection;
use serde_json::json;

use crate::connection::ConnectionOptions;
use crate::failure::{Class, Failure};
use crate::gears;
use crate::ids::{self, Id};
use crate::misuse::misuse;
use crate::output::print;

/// Abort executions that wait or run
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\x20 redgrease abort 7\n\x20 redgrease abort --all --json")]
pub struct Abort {
    /// Ids of executions, as `redgrease ls executions` shows them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub ids: Vec<String>,
    /// All executions that have not ended
    #[arg(long)]
    pub all: bool,
    /// Print one line of JSON, with whole ids: {"aborted": [...]}
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

/// Remove executions that have ended, with their results
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\x20 redgrease drop 7\n\x20 redgrease drop --all")]
pub struct Drop {
    /// Ids of executions, as `redgrease ls executions` shows them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub ids: Vec<String>,
    /// All executions that have ended
    #[arg(long)]
    pub all: bool,
    /// Print one line of JSON, with whole ids: {"dropped": [...]}
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

/// Remove registrations: nothing fires them any more
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\x20 redgrease unregister 3\n\x20 redgrease unregister visit --abort")]
pub struct Unregister {
    /// Ids of registrations, as `redgrease ls registrations` shows them, or names of their triggers
    #[arg(value_name = "ID|NAME", required = true)]
    pub ids: Vec<String>,
    /// Abort the executions that wait [default: they still run]
    #[arg(long)]
    pub abort: bool,
    /// Print one line of JSON, with whole ids: {"removed": [...]}
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

/// Pause registrations of streams: entries stay in the stream
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\x20 redgrease pause 3\n\x20 redgrease resume 3")]
pub struct Pause {
    /// Ids of registrations, as `redgrease ls registrations` shows them
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// Abort the executions that wait [default: they still run]
    #[arg(long)]
    pub abort: bool,
    /// Print one line of JSON, with whole ids: {"paused": [...]}
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

/// Continue registrations of streams that were paused
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n\x20 redgrease resume 3")]
pub struct Resume {
    /// Ids of registrations, as `redgrease ls registrations` shows them
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// Print one line of JSON, with whole ids: {"resumed": [...]}
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

pub fn abort(args: &Abort) -> Result<ExitCode> {
    let mut connection = gears::connect(&args.connection)?;
    let ids = executions(&mut connection, &args.ids, args.all, |row| !row.state.is_final())?;
    each("aborted", &ids, args.json, |id| connection.rg_abort_execution(id))
}

pub fn drop(args: &Drop) -> Result<ExitCode> {
    let mut connection = gears::connect(&args.connection)?;
    let ids = executions(&mut connection, &args.ids, args.all, |row| row.state.is_final())?;
    each("dropped", &ids, args.json, |id| connection.rg_drop_execution(id))
}

pub fn unregister(args: &Unregister) -> Result<ExitCode> {
    let mut connection = gears::connect(&args.connection)?;
    let rows = registrations(&mut connection, &args.ids)?;
    let ids: Vec<_> = rows.into_iter().map(|row| row.id).collect();
    each("removed", &ids, args.json, |id| connection.rg_unregister(id, pending(args.abort)))
}

pub fn pause(args: &Pause) -> Result<ExitCode> {
    let mut connection = gears::connect(&args.connection)?;
    let ids = streams(&mut connection, &args.ids)?;
    connection.rg_pause_registrations(&ids, pending(args.abort)).map_err(gears::failed)?;
    each("paused", &ids, args.json, |_| Ok(()))
}

pub fn resume(args: &Resume) -> Result<ExitCode> {
    let mut connection = gears::connect(&args.connection)?;
    let ids = streams(&mut connection, &args.ids)?;
    connection.rg_unpause_registrations(&ids).map_err(gears::failed)?;
    each("resumed", &ids, args.json, |_| Ok(()))
}

/// Changes one after the other, and tells which were changed, also if one of them cannot be.
fn each<I: Id>(
    changed: &str,
    ids: &[I],
    as_json: bool,
    mut change: impl FnMut(&I) -> redgrease::Result<()>,
) -> Result<ExitCode> {
    let mut done = Vec::new();
    // All are changed, also if nobody reads that.
    let mut printed = Ok(());
    let result = ids.iter().try_for_each(|id| {
        change(id).map_err(gears::failed)?;
        if as_json {
            done.push(id.to_string());
        } else {
            let line = format!("{changed} {} {}\n", I::KIND, ids::short(id));
            printed = std::mem::replace(&mut printed, Ok(())).and_then(|()| print(&line));
        }
        Ok(())
    });
    if as_json {
        printed = print(&format!("{}\n", json!({ changed: done })));
    }
    result.and(printed).map(|()| ExitCode::SUCCESS)
}

fn pending(abort: bool) -> Pending {
    if abort { Pending::Abort } else { Pending::Run }
}

/// The executions that are named, or all that fit.
fn executions(
    connection: &mut Connection,
    typed: &[String],
    all: bool,
    fits: impl Fn(&ExecutionInfo) -> bool,
) -> Result<Vec<ExecutionId>> {
    let rows = connection.rg_dump_executions().map_err(gears::failed)?;
    if all {
        return Ok(rows.into_iter().filter(fits).map(|row| row.id).collect());
    }
    typed.iter().map(|typed| Ok(ids::find(typed, rows.iter().map(|row| &row.id))?.clone())).collect()
}

/// The registrations that are named by ids or triggers.
fn registrations(connection: &mut Connection, typed: &[String]) -> Result<Vec<Registration>> {
    let rows = connection.rg_dump_registrations().map_err(gears::failed)?;
    let find = |typed: &String| {
        let meant = rows.iter().find(|row| row.trigger() == Some(typed));
        if let Some(row) = meant {
            return Ok(row.clone());
        }
        let id = ids::find(typed, rows.iter().map(|row| &row.id))?;
        Ok(rows.iter().find(|row| row.id == *id).expect("the id is one of theirs").clone())
    };
    typed.iter().map(find).collect()
}

/// The ids of registrations, all of which are of streams: only these can be paused.
fn streams(connection: &mut Connection, typed: &[String]) -> Result<Vec<RegistrationId>> {
    let rows = registrations(connection, typed)?;
    if typed.is_empty() {
        return Err(misuse("name the registrations"));
    }
    match rows.iter().find(|row| row.reader != "StreamReader") {
        Some(row) => {
            let what =
                format!("registration {} has a {}: only a StreamReader can be paused", ids::short(&row.id), row.reader);
            Err(Failure::new(Class::Failed, what, "remove it with `redgrease unregister`, and register it again later")
                .into())
        }
        None => Ok(rows.into_iter().map(|row| row.id).collect()),
    }
}
