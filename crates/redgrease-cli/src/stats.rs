//! `redgrease stats`: counters of the module.

use std::process::ExitCode;

use anyhow::Result;
use redgrease::{GearsCommands, Registration};
use redis::Connection;
use serde_json::json;

use crate::connection::ConnectionOptions;
use crate::gears;
use crate::info::Info;
use crate::output::{print, say};
use crate::units::show_bytes;

/// Show counters of executions, registrations, events and workers
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\x20 redgrease stats\n\x20 redgrease stats --json\n\x20 redgrease stats --reset")]
pub struct StatsArgs {
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Set the statistics of all registrations to zero, after they were printed
    #[arg(long)]
    pub reset: bool,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

pub fn run(args: &StatsArgs) -> Result<ExitCode> {
    let mut connection = gears::connect(&args.connection)?;
    let stats = Stats::read(&mut connection)?;
    print(&if args.json { stats.json() } else { stats.text() })?;
    if args.reset {
        connection.rg_clear_registrations_stats().map_err(gears::failed)?;
        say("redgrease: the statistics of all registrations are zero now");
    }
    Ok(ExitCode::SUCCESS)
}

struct Stats {
    info: Info,
    registrations: Vec<Registration>,
    waiting: usize,
    running: usize,
    ended: usize,
}

impl Stats {
    fn read(connection: &mut Connection) -> Result<Self> {
        let executions = connection.rg_dump_executions().map_err(gears::failed)?;
        let count = |name: &str| executions.iter().filter(|row| row.state.name() == name).count();
        Ok(Self {
            registrations: connection.rg_dump_registrations().map_err(gears::failed)?,
            info: Info::parse(&gears::info(connection, &["server", "rg"])?),
            waiting: count("created"),
            running: count("running"),
            ended: executions.iter().filter(|row| row.state.is_final()).count(),
        })
    }

    fn sum(&self, of: fn(&Registration) -> u64) -> u64 {
        self.registrations.iter().map(of).fold(0, u64::saturating_add)
    }

    fn text(&self) -> String {
        let info = &self.info;
        let bytes = |name: &str| show_bytes(info.number(name));
        let rows = [
            ("server", format!("{}, up {} s", info.server(), info.number("uptime_in_seconds"))),
            ("registrations", self.registrations.len().to_string()),
            (
                "runs",
                format!(
                    "{} ({} succeeded, {} failed, {} aborted)",
                    self.sum(|row| row.triggered),
                    self.sum(|row| row.succeeded),
                    self.sum(|row| row.failed),
                    self.sum(|row| row.aborted)
                ),
            ),
            (
                "executions",
                format!("{} wait, {} run, {} have ended and are kept", self.waiting, self.running, self.ended),
            ),
            ("events", format!("{} wait ({})", info.number("rg_events_pending"), bytes("rg_events_pending_bytes"))),
            (
                "sessions",
                format!("{}; {} wait for a worker", info.number("rg_sessions"), info.number("rg_sessions_waiting")),
            ),
            (
                "workers",
                format!(
                    "{}; {} spare, {} with several sessions, {} have died",
                    info.number("rg_workers"),
                    info.number("rg_workers_spare"),
                    info.number("rg_workers_shared"),
                    info.number("rg_workers_died")
                ),
            ),
            ("memory", format!("{} now, {} at most", bytes("rg_CurrAllocated"), bytes("rg_PeakAllocated"))),
        ];
        rows.iter().map(|(name, value)| format!("{name:<13}  {value}\n")).collect()
    }

    fn json(&self) -> String {
        let info = &self.info;
        let told = json!({
            "server": info.server(),
            "uptime_seconds": info.number("uptime_in_seconds"),
            "registrations": self.registrations.len(),
            "triggered": self.sum(|row| row.triggered),
            "succeeded": self.sum(|row| row.succeeded),
            "failed": self.sum(|row| row.failed),
            "aborted": self.sum(|row| row.aborted),
            "executions_waiting": self.waiting,
            "executions_running": self.running,
            "executions_ended": self.ended,
            "events_pending": info.number("rg_events_pending"),
            "events_pending_bytes": info.number("rg_events_pending_bytes"),
            "sessions": info.number("rg_sessions"),
            "sessions_waiting": info.number("rg_sessions_waiting"),
            "workers": info.number("rg_workers"),
            "workers_spare": info.number("rg_workers_spare"),
            "workers_shared": info.number("rg_workers_shared"),
            "workers_died": info.number("rg_workers_died"),
            "bytes_now": info.number("rg_CurrAllocated"),
            "bytes_peak": info.number("rg_PeakAllocated"),
        });
        format!("{told}\n")
    }
}
