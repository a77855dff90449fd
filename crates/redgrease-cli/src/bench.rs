//! `redgrease bench`: quick numbers about the health of a server.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use redgrease::{GearsCommands, PyExecute};
use redis::Connection;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::connection::ConnectionOptions;
use crate::failure;
use crate::gears;
use crate::output::print;
use crate::table::Table;

const PINGS: u32 = 1000;
const SCRIPTS: u32 = 30;
const TRIGGERS: u32 = 300;
/// Longer ones count as this long: a reply that takes so long is an error.
const LATENCY_MAX: Duration = Duration::from_secs(60);
const NO_ARGUMENTS: &[&str] = &[];
const RECORDS: u32 = 100_000;
/// Executions in a worker on the shard that is asked, also in a cluster.
const ONE_RECORD: &str = "GB('PythonReader').map(lambda x: x).run(lambda: iter([1]), mode='async_local')";

/// Measure round trips, scripts, triggers and records
///
/// That takes a second or two if the server is near and idle. It registers a command for that time, and reads or writes no key. Numbers depend on what else the server does: compare them
/// with those of the same server on another day, and measure changes with benchmarks of your own.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\x20 redgrease bench\n\x20 redgrease bench --json >> numbers.jsonl")]
pub struct Bench {
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

pub fn run(args: &Bench) -> Result<ExitCode> {
    let mut connection = gears::connect(&args.connection)?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals cannot be watched")?;
    let mut interrupted = || signals.pending().next().is_some();
    let mut rows = vec![
        measure("ping", PINGS, &mut interrupted, || ping(&mut connection))?,
        measure("script", SCRIPTS, &mut interrupted, || script(&mut connection, ONE_RECORD))?,
    ];
    let name = register(&mut connection)?;
    let triggered = measure("trigger", TRIGGERS, &mut interrupted, || trigger(&mut connection, &name));
    // Also after Ctrl-C or an error.
    let removed = unregister(&mut connection, &name);
    rows.push(triggered?);
    removed?;
    let records = records_per_second(&mut connection)?;
    print(&if args.json { as_json(&rows, records) } else { as_text(&rows, records) })?;
    Ok(ExitCode::SUCCESS)
}

/// Latencies of one operation.
struct Row {
    name: &'static str,
    /// Microseconds.
    latencies: Histogram<u64>,
    took: Duration,
}

impl Row {
    fn millis_at(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }

    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }
}

fn measure(
    name: &'static str,
    count: u32,
    interrupted: &mut impl FnMut() -> bool,
    mut operation: impl FnMut() -> Result<()>,
) -> Result<Row> {
    let mut latencies = Histogram::new_with_bounds(1, LATENCY_MAX.as_micros() as u64, 3).context("no histogram")?;
    // The first one may start a worker.
    operation()?;
    let began = Instant::now();
    for _ in 0..count {
        let asked = Instant::now();
        operation()?;
        latencies.saturating_record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
        if interrupted() {
            bail!("interrupted");
        }
    }
    Ok(Row { name, latencies, took: began.elapsed() })
}

fn ping(connection: &mut Connection) -> Result<()> {
    redis::cmd("PING").exec(connection).map_err(|error| failure::of_command(error, "the server").into())
}

fn script(connection: &mut Connection, source: &str) -> Result<()> {
    let executed = connection.rg_py_execute(PyExecute::script(source)).map_err(gears::failed)?;
    executed.into_results().get::<Vec<String>>().map_err(gears::failed)?;
    Ok(())
}

/// Registers a command under a name that nothing else has.
fn register(connection: &mut Connection) -> Result<String> {
    let name = format!("redgrease-bench-{:016x}", fastrand::u64(..));
    let source = format!("GB('CommandReader').map(lambda x: x[0]).register(trigger='{name}', mode='async_local')");
    connection.rg_py_execute(PyExecute::script(source)).map_err(gears::failed)?;
    Ok(name)
}

fn trigger(connection: &mut Connection, name: &str) -> Result<()> {
    connection.rg_trigger(name, NO_ARGUMENTS).map_err(gears::failed)?;
    Ok(())
}

fn unregister(connection: &mut Connection, name: &str) -> Result<()> {
    let rows = connection.rg_dump_registrations().map_err(gears::failed)?;
    for row in rows.iter().filter(|row| row.trigger() == Some(name)) {
        connection.rg_unregister(&row.id, redgrease::Pending::Abort).map_err(gears::failed)?;
    }
    Ok(())
}

fn records_per_second(connection: &mut Connection) -> Result<f64> {
    let source = format!(
        "GB('PythonReader').map(lambda x: x + 1).count().run(lambda: iter(range({RECORDS})), mode='async_local')"
    );
    let began = Instant::now();
    script(connection, &source)?;
    Ok(f64::from(RECORDS) / began.elapsed().as_secs_f64())
}

fn as_text(rows: &[Row], records_per_second: f64) -> String {
    let mut table = Table::new(&["WHAT", "COUNT", "P50 ms", "P99 ms", "PER SECOND"], &[1, 2, 3, 4]);
    for row in rows {
        table.add(vec![
            row.name.to_owned(),
            row.latencies.len().to_string(),
            format!("{:.2}", row.millis_at(0.5)),
            format!("{:.2}", row.millis_at(0.99)),
            format!("{:.0}", row.per_second()),
        ]);
    }
    table.add(vec![
        "records".to_owned(),
        RECORDS.to_string(),
        String::new(),
        String::new(),
        format!("{records_per_second:.0}"),
    ]);
    table.text()
}

fn as_json(rows: &[Row], records_per_second: f64) -> String {
    let mut told = json!({ "records": { "count": RECORDS, "per_second": records_per_second } });
    for row in rows {
        told[row.name] = json!({
            "count": row.latencies.len(),
            "p50_ms": row.millis_at(0.5),
            "p99_ms": row.millis_at(0.99),
            "per_second": row.per_second(),
        });
    }
    format!("{told}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_those_of_the_operation() {
        let wait = Duration::from_millis(4);
        let operation = || {
            std::thread::sleep(wait);
            Ok(())
        };
        let row = measure("wait", 3, &mut || false, operation).unwrap();
        assert!(row.millis_at(0.5) > 3.99, "{} ms", row.millis_at(0.5));
        assert_eq!(row.latencies.len(), 3);
    }
}
