//! `redgrease ls`: registrations, sessions, executions and workers of a server.

use std::process::ExitCode;

use anyhow::Result;
use redgrease::{GearsCommands, SessionQuery};
use redis::Connection;
use serde_json::{Map, Value as Json};

use crate::connection::ConnectionOptions;
use crate::gears;
use crate::info::Info;
use crate::listing;
use crate::output::print;

/// List registrations, sessions, executions and workers of a server
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 redgrease ls\n\
    \x20 redgrease ls registrations executions\n\
    \x20 redgrease ls --json | jq '.registrations[].id'")]
pub struct Ls {
    /// What to list [default: everything]
    #[arg(value_enum, value_name = "WHAT")]
    pub what: Vec<What>,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    Registrations,
    Sessions,
    Executions,
    Workers,
}

const ALL: [What; 4] = [What::Registrations, What::Sessions, What::Executions, What::Workers];

pub fn run(args: &Ls) -> Result<ExitCode> {
    let mut connection = gears::connect(&args.connection)?;
    let wanted = if args.what.is_empty() { &ALL[..] } else { &args.what };
    let mut lists = Vec::new();
    for &what in wanted {
        lists.push((what, List::read(what, &mut connection)?));
    }
    if args.json {
        let lists = lists.into_iter().map(|(what, list)| (what.name().to_owned(), list.json));
        return print_all(&format!("{}\n", Json::Object(lists.collect::<Map<_, _>>())));
    }
    let parts: Vec<String> = lists
        .into_iter()
        .map(|(what, list)| match list.count {
            0 => format!("no {}\n", what.name()),
            count if wanted.len() > 1 => format!("{count} {}\n{}", what.counted(count), list.table),
            _ => list.table,
        })
        .collect();
    print_all(&parts.join(if wanted.len() > 1 { "\n" } else { "" }))
}

fn print_all(text: &str) -> Result<ExitCode> {
    print(text)?;
    Ok(ExitCode::SUCCESS)
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Registrations => "registrations",
            What::Sessions => "sessions",
            What::Executions => "executions",
            What::Workers => "workers",
        }
    }

    fn counted(self, count: usize) -> &'static str {
        if count == 1 { self.name().trim_end_matches('s') } else { self.name() }
    }
}

/// A list, for people and programs.
struct List {
    count: usize,
    table: String,
    json: Json,
}

impl List {
    fn read(what: What, connection: &mut Connection) -> Result<Self> {
        Ok(match what {
            What::Registrations => {
                let rows = connection.rg_dump_registrations().map_err(gears::failed)?;
                Self::new(&rows, listing::registrations, listing::registration_json)
            }
            What::Sessions => {
                let rows = connection.rg_py_dump_sessions(&SessionQuery::all()).map_err(gears::failed)?;
                Self::new(&rows, listing::sessions, listing::session_json)
            }
            What::Executions => {
                let rows = connection.rg_dump_executions().map_err(gears::failed)?;
                Self::new(&rows, listing::executions, listing::execution_json)
            }
            What::Workers => {
                let rows = Info::parse(&gears::info(connection, &["rg"])?).workers();
                Self::new(&rows, listing::workers, listing::worker_json)
            }
        })
    }

    fn new<T>(rows: &[T], table: fn(&[T]) -> String, json: fn(&T) -> Json) -> Self {
        Self { count: rows.len(), table: table(rows), json: rows.iter().map(json).collect() }
    }
}
