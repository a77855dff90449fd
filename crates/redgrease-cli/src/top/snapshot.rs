//! What `top` shows of a server at one moment, and how it is read.

use std::time::{Duration, Instant, SystemTime};

use redgrease::{ExecutionInfo, GearsCommands, PyStats, Registration};
use redis::Connection;
use serde_json::{Value as Json, json};

use crate::failure::Failure;
use crate::gears;
use crate::ids;
use crate::info::{Info, Worker};
use crate::listing;
use crate::units::show_time;

/// What was read of a server at one moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Time since the program began.
    at: Duration,
    time: SystemTime,
    /// The server's address.
    place: String,
    info: Info,
    memory: PyStats,
    /// Those that run first, then those that wait, then those that ended, the newest first.
    executions: Vec<ExecutionInfo>,
    registrations: Vec<Registration>,
}

impl Sample {
    pub fn read(connection: &mut Connection, place: &str, began: Instant) -> Result<Self, Failure> {
        let info = Info::parse(&gears::info(connection, &["server", "rg"])?);
        let memory = connection.rg_py_stats().map_err(gears::failed)?;
        let mut executions = connection.rg_dump_executions().map_err(gears::failed)?;
        executions.sort_by_key(|row| {
            (row.state.is_final(), row.state.name() == "created", std::cmp::Reverse(row.id.sequence()))
        });
        let registrations = connection.rg_dump_registrations().map_err(gears::failed)?;
        let (at, time) = (began.elapsed(), SystemTime::now());
        Ok(Self { at, time, place: place.to_owned(), info, memory, executions, registrations })
    }

    /// One line of JSON, with rates since an earlier sample.
    pub fn json(&self, before: Option<&Sample>) -> String {
        let (info, number) = (&self.info, |name: &str| self.info.number(name));
        let told = json!({
            "time": show_time(self.time),
            "address": self.place,
            "server": info.server(),
            "uptime_seconds": number("uptime_in_seconds"),
            "sessions": number("rg_sessions"),
            "sessions_waiting": number("rg_sessions_waiting"),
            "events_pending": number("rg_events_pending"),
            "events_pending_bytes": number("rg_events_pending_bytes"),
            "workers_died": number("rg_workers_died"),
            "bytes_now": self.memory.current_bytes,
            "bytes_peak": self.memory.peak_bytes,
            "workers": info.workers().iter().map(listing::worker_json).collect::<Vec<_>>(),
            "executions": self.executions.iter().map(listing::execution_json).collect::<Vec<_>>(),
            "registrations": self.registrations.iter().map(|row| self.registration(row, before)).collect::<Vec<_>>(),
        });
        format!("{told}\n")
    }

    fn registration(&self, row: &Registration, before: Option<&Sample>) -> Json {
        let recent = before.and_then(|before| {
            let earlier = before.registrations.iter().find(|earlier| earlier.id == row.id)?;
            Row::of(row).since(&Row::of(earlier), self.at.saturating_sub(before.at))
        });
        let mut told = listing::registration_json(row);
        told["runs_per_second"] = json!(recent.map(|(rate, _)| rate));
        told["recent_mean_run_ms"] = json!(recent.and_then(|(_, mean)| mean).map(|mean| mean.as_secs_f64() * 1e3));
        told
    }
}

/// A server at one moment, as it is shown.
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
    pub fn of(sample: &Sample) -> Self {
        let Sample { info, memory, .. } = sample;
        Self {
            at: sample.at,
            place: sample.place.clone(),
            server: info.server(),
            uptime_s: info.number("uptime_in_seconds"),
            sessions: info.number("rg_sessions"),
            sessions_waiting: info.number("rg_sessions_waiting"),
            workers_died: info.number("rg_workers_died"),
            events_pending: info.number("rg_events_pending"),
            events_bytes: info.number("rg_events_pending_bytes"),
            bytes_now: memory.current_bytes,
            bytes_peak: memory.peak_bytes,
            workers: info.workers(),
            executions: sample.executions.iter().map(Execution::of).collect(),
            registrations: sample.registrations.iter().map(Row::of).collect(),
        }
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
            source: listing::short_source(&row.source),
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
