//! What `top` shows of a server at one moment, and how it is read.

use std::time::{Duration, Instant};

use anyhow::Result;
use redgrease::{ExecutionInfo, GearsCommands, Registration};
use redis::Connection;

use crate::gears;
use crate::ids;
use crate::info::{Info, Worker};
use crate::listing;

/// A server at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Time since the program began.
    pub at: Duration,
    /// Its address.
    pub place: String,
    /// Its name and version.
    pub server: String,
    pub uptime_s: u64,
    pub sessions: u64,
    pub sessions_waiting: u64,
    pub workers_died: u64,
    pub events_pending: u64,
    pub events_bytes: u64,
    /// Memory of the workers.
    pub bytes_now: u64,
    pub bytes_peak: u64,
    pub workers: Vec<Worker>,
    /// Those that run first, then those that wait, then those that ended, the newest first.
    pub executions: Vec<Execution>,
    pub registrations: Vec<Row>,
}

/// An execution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Execution {
    pub id: String,
    pub state: String,
    pub started_by: String,
}

/// A registration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    pub id: String,
    pub source: String,
    pub mode: String,
    pub triggered: u64,
    pub failed: u64,
    pub total_run: Duration,
    pub last_run: Option<Duration>,
    pub lag: Option<Duration>,
    pub last_error: String,
}

impl Snapshot {
    pub fn read(connection: &mut Connection, place: &str, began: Instant) -> Result<Self> {
        let info = Info::parse(&gears::info(connection, &["server", "rg"])?);
        let stats = connection.rg_py_stats().map_err(gears::failed)?;
        let mut executions = connection.rg_dump_executions().map_err(gears::failed)?;
        executions.sort_by_key(|row| {
            (row.state.is_final(), row.state.name() == "created", std::cmp::Reverse(row.id.sequence()))
        });
        let registrations = connection.rg_dump_registrations().map_err(gears::failed)?;
        Ok(Self {
            at: began.elapsed(),
            place: place.to_owned(),
            server: info.server(),
            uptime_s: info.number("uptime_in_seconds"),
            sessions: info.number("rg_sessions"),
            sessions_waiting: info.number("rg_sessions_waiting"),
            workers_died: info.number("rg_workers_died"),
            events_pending: info.number("rg_events_pending"),
            events_bytes: info.number("rg_events_pending_bytes"),
            bytes_now: stats.current_bytes,
            bytes_peak: stats.peak_bytes,
            workers: info.workers(),
            executions: executions.iter().map(Execution::of).collect(),
            registrations: registrations.iter().map(Row::of).collect(),
        })
    }
}

impl Execution {
    fn of(row: &ExecutionInfo) -> Self {
        Self {
            id: ids::short(&row.id),
            state: row.state.name().to_owned(),
            started_by: listing::started_by(row).to_owned(),
        }
    }
}

impl Row {
    fn of(row: &Registration) -> Self {
        Self {
            id: ids::short(&row.id),
            source: listing::source(&row.source),
            mode: listing::mode(row),
            triggered: row.triggered,
            failed: row.failed,
            total_run: row.total_run.unwrap_or_default(),
            last_run: row.last_run.filter(|_| row.triggered > 0),
            lag: row.last_lag.filter(|_| row.triggered > 0),
            last_error: row.last_error.as_deref().map_or(String::new(), listing::short_error),
        }
    }

    /// Runs per second since an earlier snapshot, and how long they took on average; `None` without an earlier one, and
    /// after statistics were set to zero.
    pub fn since(&self, before: &Row, elapsed: Duration) -> Option<(f64, Option<Duration>)> {
        let runs = self.triggered.checked_sub(before.triggered)?;
        let spent = self.total_run.checked_sub(before.total_run)?;
        let mean = (runs > 0).then(|| spent.div_f64(runs as f64));
        Some((runs as f64 / elapsed.max(Duration::from_millis(1)).as_secs_f64(), mean))
    }
}
