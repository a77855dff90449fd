//! `redgrease show`: all about an execution, a registration or a session.

use std::process::ExitCode;

use anyhow::Result;
use redgrease::{Error, ExecutionId, GearsCommands, Registration, SessionQuery, ShardExecution};
use redis::Connection;
use serde_json::json;

use crate::connection::ConnectionOptions;
use crate::failure::{Class, Failure};
use crate::gears;
use crate::ids;
use crate::listing::{self, millis};
use crate::output::{lines, one_line, print};
use crate::table::Table;

/// Show an execution with its steps, a registration or a session
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 redgrease show 7\n\
    \x20 redgrease show --json 0000000000000000000000000000000000000000-7\n\n\
    Steps are timed while ProfileExecutions is 1: redgrease call CONFIG SET rg.ProfileExecutions 1")]
pub struct Show {
    /// Its id, as `redgrease ls` shows it
    #[arg(value_name = "ID")]
    pub id: String,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

pub fn run(args: &Show) -> Result<ExitCode> {
    let mut connection = gears::connect(&args.connection)?;
    print(&text(args, &mut connection)?)?;
    Ok(ExitCode::SUCCESS)
}

fn text(args: &Show, connection: &mut Connection) -> Result<String> {
    let registrations = connection.rg_dump_registrations().map_err(gears::failed)?;
    if let Ok(id) = ids::find(&args.id, registrations.iter().map(|row| &row.id)) {
        let row = registrations.iter().find(|row| row.id == *id).expect("the id is one of theirs");
        return Ok(if args.json { format!("{}\n", listing::registration_json(row)) } else { registration(row) });
    }
    if let Some(shards) = execution_of(&args.id, connection)? {
        return Ok(if args.json { execution_json(&args.id, &shards) } else { execution(&args.id, &shards) });
    }
    let sessions = connection.rg_py_dump_sessions(&SessionQuery::all()).map_err(gears::failed)?;
    let mut meant = sessions.iter().filter(|session| session.id.starts_with(&args.id));
    match (meant.next(), meant.next()) {
        (Some(session), None) if args.json => Ok(format!("{}\n", listing::session_json(session))),
        (Some(session), None) => Ok(listing::sessions(std::slice::from_ref(session))),
        (Some(_), Some(_)) => {
            let what = format!("several sessions begin with '{}'", args.id);
            Err(Failure::new(Class::Failed, what, "write more of the id").into())
        }
        (None, _) => {
            let what = format!("there is no execution, registration or session '{}'", args.id);
            Err(Failure::new(
                Class::Failed,
                what,
                "list them with `redgrease ls`; ended executions are kept for a while only",
            )
            .into())
        }
    }
}

/// The execution on its shards. It is looked up by its whole id, and by the list if that is abbreviated.
fn execution_of(typed: &str, connection: &mut Connection) -> Result<Option<Vec<ShardExecution>>> {
    let listed = connection.rg_dump_executions().map_err(gears::failed)?;
    let found = ids::find(typed, listed.iter().map(|row| &row.id)).ok().cloned();
    let Some(id) = found.or_else(|| typed.parse::<ExecutionId>().ok()) else { return Ok(None) };
    match connection.rg_get_execution(&id, None) {
        Ok(shards) => Ok(Some(shards)),
        Err(Error::Server(error)) if error.is_not_found() => Ok(None),
        Err(error) => Err(gears::failed(error).into()),
    }
}

fn registration(row: &Registration) -> String {
    let millis = |duration: Option<_>| duration.map_or("-".to_owned(), |duration| format!("{} ms", millis(duration)));
    let mut fields = vec![
        ("registration", row.id.to_string()),
        ("reader", row.reader.clone()),
        ("fires for", listing::source(&row.source)),
        ("mode", listing::mode(row)),
        (
            "runs",
            format!("{} ({} succeeded, {} failed, {} aborted)", row.triggered, row.succeeded, row.failed, row.aborted),
        ),
        ("last run", millis(row.last_run)),
        ("mean run", millis(row.mean_run)),
    ];
    if let Some(description) = &row.description {
        fields.insert(1, ("description", description.clone()));
    }
    if row.mean_lag.is_some() {
        fields.push(("lag", format!("last {}, mean {}", millis(row.last_lag), millis(row.mean_lag))));
    }
    let mut text = shown(&fields);
    if let Some(error) = &row.last_error {
        text += &format!("\nlast error\n{}\n", lines(listing::error_lines(error).trim_end()));
    }
    text
}

/// Names and values in two columns.
fn shown(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    fields.iter().map(|(name, value)| format!("{name:<width$}  {}\n", one_line(value))).collect()
}

fn execution(id: &str, shards: &[ShardExecution]) -> String {
    let mut text = String::new();
    for shard in shards {
        let plan = &shard.plan;
        let mut fields = vec![
            ("execution", id.to_owned()),
            ("state", plan.state.name().to_owned()),
            ("time", format!("{} ms, reading {} ms", millis(plan.total_time), millis(plan.read_time))),
        ];
        if shards.len() > 1 {
            fields.insert(1, ("shard", shard.shard.clone()));
        }
        if let Some(results) = plan.results {
            fields.push(("results", results.to_string()));
            fields.push(("errors", plan.errors.len().to_string()));
        }
        text += &shown(&fields);
        let mut table = Table::new(&["STEP", "FUNCTION", "ARGUMENT", "TIME ms"], &[3]);
        for step in plan.steps.iter().rev() {
            table.add(vec![step.kind.clone(), step.name.clone(), step.argument.clone(), millis(step.time)]);
        }
        text += &format!("\n{}", table.text());
        for error in &plan.errors {
            text += &format!("\n{}\n", lines(error.to_string().trim_end()));
        }
    }
    text
}

fn execution_json(id: &str, shards: &[ShardExecution]) -> String {
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    let shards: Vec<_> = shards
        .iter()
        .map(|shard| {
            let plan = &shard.plan;
            let steps: Vec<_> = plan
                .steps
                .iter()
                .rev()
                .map(|step| {
                    json!({ "type": step.kind, "name": step.name, "argument": step.argument, "ms": ms(step.time) })
                })
                .collect();
            json!({
                "shard": shard.shard,
                "state": plan.state.name(),
                "results": plan.results,
                "errors": plan.errors.iter().map(redgrease::PythonError::text).collect::<Vec<_>>(),
                "total_ms": ms(plan.total_time),
                "read_ms": ms(plan.read_time),
                "steps": steps,
            })
        })
        .collect();
    format!("{}\n", json!({ "id": id, "shards": shards }))
}
