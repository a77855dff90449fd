//! The report: first exactly in the format of the proof of concept, so that runs can be compared, then further results.

use std::time::Duration;

use serde_json::{Value, json};

use super::check::Check;
use super::counters::{Count, Counters, Kind, Tally};
use super::supervisor::{ExitState, Outcome};
use crate::output::counted;
use crate::units::{show_bytes, show_duration};

const HEADING: &str = "=== Per-process stats ===";
const SUM_HEADING: &str = "=== Aggregate ===";
const EXISTS_NOTE: &str = "Note: Create-only semantics exercised (writes_exits > 0).";
const BUSY_NOTE: &str = "Note: Lock contention observed (busy counters > 0).";
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// A run that has ended.
#[derive(Debug)]
pub struct Run {
    pub seed: u64,
    pub keyspace: String,
    pub requested: Duration,
    pub elapsed: Duration,
    pub is_interrupted: bool,
    pub killed: u32,
    pub stopped: u32,
    pub stopped_for: Duration,
    pub peak_bytes: u64,
    /// The excess over the limit of the run, if any.
    pub peak_over: Option<u64>,
    /// In the order in which the results arrived.
    pub outcomes: Vec<Outcome>,
}

impl Run {
    pub fn sum(&self) -> Tally {
        let mut sum = Tally::default();
        self.outcomes.iter().for_each(|outcome| sum.add(&outcome.tally));
        sum
    }

    /// Workers without a result, with the reason.
    pub fn missing(&self) -> impl Iterator<Item = (u32, &str)> {
        self.outcomes.iter().filter_map(|outcome| match &outcome.exit {
            ExitState::Missing(reason) => Some((outcome.number, reason.as_str())),
            ExitState::Done => None,
        })
    }

    /// The report in the format of the proof of concept.
    pub fn seed_report(&self) -> String {
        let mut text = format!("\n{HEADING}\n");
        for outcome in &self.outcomes {
            text += &block(&format!("worker-{} (pid={})", outcome.number, outcome.pid), &outcome.tally.counters);
        }
        let sum = self.sum().counters;
        text += &format!("{SUM_HEADING}\n{}", block("aggregate (pid=0)", &sum));
        for note in notes(&sum) {
            text += &format!("{note}\n");
        }
        text
    }

    /// The further results, before the checks.
    pub fn further(&self) -> String {
        let sum = self.sum();
        let mut sections = vec![self.about(), self.rates(&sum.counters), latencies(&sum)];
        let errors = sum.counters.errors();
        if !errors.is_empty() {
            let lines = errors.iter().map(|(name, count)| format!("  {name:<15}: {count}\n"));
            sections.push(format!("=== Errors ===\n{}", lines.collect::<String>()));
        }
        let gap = if notes(&sum.counters).is_empty() { "" } else { "\n" };
        format!("{gap}{}", sections.join("\n"))
    }

    fn about(&self) -> String {
        let early = if self.is_interrupted { ", interrupted" } else { "" };
        let mut lines = vec![
            ("elapsed", format!("{:.1} s of {:.1} s{early}", self.elapsed.as_secs_f64(), self.requested.as_secs_f64())),
            ("workers", self.outcomes.len().to_string()),
            ("keys", self.keyspace.clone()),
            ("seed", self.seed.to_string()),
        ];
        if self.killed + self.stopped > 0 {
            let stopped = format!("{} stopped for {}", self.stopped, show_duration(self.stopped_for));
            lines.push(("chaos", format!("{} killed, {stopped}", self.killed)));
        }
        if self.peak_bytes > 0 {
            lines.push(("peak seen", format!("{} bytes", self.peak_bytes)));
        }
        for (number, reason) in self.missing() {
            lines.push(("MISSING", format!("worker-{number}: {reason}")));
        }
        section("Run", &lines)
    }

    fn rates(&self, counters: &Counters) -> String {
        let seconds = self.elapsed.as_secs_f64().max(1e-6);
        let rate = |count: u64| count as f64 / seconds;
        let bytes = |count: Count| show_bytes(rate(counters[count]) as u64);
        let all = rate(counters.iterations());
        section(
            "Rates",
            &[
                ("operations", format!("{all:.1}/s, {:.1}/s per worker", all / self.outcomes.len().max(1) as f64)),
                ("reads ok", format!("{:.1}/s, {}/s", rate(counters[Count::ReadOk]), bytes(Count::ReadBytes))),
                ("writes ok", format!("{:.1}/s, {}/s", rate(counters[Count::WriteOk]), bytes(Count::WriteBytes))),
                ("sleep share", format!("{:.1} %", 100.0 * self.sleep_share(counters))),
            ],
        )
    }

    /// Share of the workers' time that was requested pauses.
    fn sleep_share(&self, counters: &Counters) -> f64 {
        let time = self.elapsed.as_secs_f64() * self.outcomes.len() as f64;
        if time > 0.0 { counters[Count::Slept] as f64 / 1e9 / time } else { 0.0 }
    }

    /// The report as a JSON object.
    pub fn json(&self, checks: &[Check]) -> Value {
        let sum = self.sum();
        let seconds = self.elapsed.as_secs_f64().max(1e-6);
        let workers: Vec<Value> = self
            .outcomes
            .iter()
            .map(|outcome| {
                let mut worker = counters_json(&outcome.tally.counters);
                worker["worker"] = json!(outcome.number);
                worker["pid"] = json!(outcome.pid);
                worker["killed"] = json!(outcome.killed);
                worker["missing"] = match &outcome.exit {
                    ExitState::Done => Value::Null,
                    ExitState::Missing(reason) => json!(reason),
                };
                worker
            })
            .collect();
        let checks: Vec<Value> = checks
            .iter()
            .map(|check| {
                json!({
                    "name": check.name,
                    "about": check.about,
                    "ok": check.holds(),
                    "broken": check.broken,
                    "faults": check.faults,
                })
            })
            .collect();
        let latency = |kind: Kind| {
            let latency = sum.latency_of(kind);
            let mut told = json!({ "count": latency.count(), "max": latency.max().as_secs_f64() });
            for (name, share) in QUANTILES {
                told[name] = json!(latency.quantile(share).as_secs_f64());
            }
            told
        };
        json!({
            "seed": self.seed,
            "keys": self.keyspace,
            "duration": self.requested.as_secs_f64(),
            "elapsed": self.elapsed.as_secs_f64(),
            "interrupted": self.is_interrupted,
            "workers": workers,
            "aggregate": counters_json(&sum.counters),
            "notes": notes(&sum.counters),
            "operations_per_second": sum.counters.iterations() as f64 / seconds,
            "reads_per_second": sum.counters[Count::ReadOk] as f64 / seconds,
            "writes_per_second": sum.counters[Count::WriteOk] as f64 / seconds,
            "sleep_share": self.sleep_share(&sum.counters),
            "latency_seconds": {
                "read": latency(Kind::Read),
                "write": latency(Kind::Write),
                "refused": latency(Kind::Refused),
            },
            "chaos": { "killed": self.killed, "stopped": self.stopped },
            "peak_bytes": self.peak_bytes,
            "invariants": checks,
        })
    }
}

fn block(heading: &str, counters: &Counters) -> String {
    let triple = |a: Count, b: Count, c: Count| format!("{}/{}/{}", counters[a], counters[b], counters[c]);
    let reads = triple(Count::ReadOk, Count::ReadBusy, Count::ReadMissing);
    let writes = triple(Count::WriteOk, Count::WriteBusy, Count::WriteExists);
    format!(
        "{heading}\n  iterations     : {}\n  READS  ok/busy/missing : {reads}  bytes={}\n  \
         WRITES ok/busy/exists  : {writes} bytes={}\n  other_errors   : {}\n\n",
        counters.iterations(),
        counters[Count::ReadBytes],
        counters[Count::WriteBytes],
        counters[Count::Other],
    )
}

fn notes(counters: &Counters) -> Vec<&'static str> {
    let mut notes = Vec::new();
    if counters[Count::WriteOk] > 0 && counters[Count::WriteExists] > 0 {
        notes.push(EXISTS_NOTE);
    }
    if counters[Count::ReadBusy] + counters[Count::WriteBusy] > 0 {
        notes.push(BUSY_NOTE);
    }
    notes
}

fn section(heading: &str, lines: &[(&str, String)]) -> String {
    let lines: String = lines.iter().map(|(name, value)| format!("  {name:<15}: {value}\n")).collect();
    format!("=== {heading} ===\n{lines}")
}

fn latencies(sum: &Tally) -> String {
    let mut text = format!("=== Latency ===\n{:>27}{:>10}{:>10}{:>10}{:>12}\n", "p50", "p99", "p99.9", "max", "n");
    for kind in Kind::ALL {
        let name = match kind {
            Kind::Read => "reads ok",
            Kind::Write => "writes ok",
            Kind::Refused => "all others",
        };
        let latency = sum.latency_of(kind);
        text += &format!("  {name:<15}");
        for (_, share) in QUANTILES {
            text += &format!("{:>10}", show_latency(latency.quantile(share)));
        }
        text += &format!("{:>10}{:>12}\n", show_latency(latency.max()), latency.count());
    }
    let lost = |kind, count| sum.counters[count].saturating_sub(sum.latency_of(kind).count());
    let (reads, writes) = (lost(Kind::Read, Count::ReadOk), lost(Kind::Write, Count::WriteOk));
    if reads + writes > 0 {
        let (reads, writes) = (counted(reads, "read", "reads"), counted(writes, "write", "writes"));
        text += &format!("  n lacks {reads} ok and {writes} ok: times that killed workers had not recorded yet\n");
    }
    text
}

/// Three digits, in a suitable unit.
fn show_latency(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    let (value, unit) = match micros {
        ..1e3 => (micros, "µs"),
        ..1e6 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    let decimals = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.decimals$} {unit}")
}

/// The checks, one line each, followed by their violations.
pub fn invariants(checks: &[Check]) -> String {
    let mut text = "\n=== Invariants ===\n".to_owned();
    for check in checks {
        let about = if check.about.is_empty() { String::new() } else { format!(" ({})", check.about) };
        text += &match check.broken {
            0 => format!("  ok     {}{about}\n", check.name),
            count => format!("  BROKEN {}{about}: {count} times\n", check.name),
        };
        for fault in &check.faults {
            text += &format!("           {fault}\n");
        }
        let more = check.broken.saturating_sub(check.faults.len() as u64);
        if more > 0 && !check.faults.is_empty() {
            text += &format!("           and {more} more\n");
        }
    }
    text
}

fn counters_json(counters: &Counters) -> Value {
    let errors: serde_json::Map<String, Value> =
        counters.errors().into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
    json!({
        "iterations": counters.iterations(),
        "reads": {
            "ok": counters[Count::ReadOk],
            "busy": counters[Count::ReadBusy],
            "missing": counters[Count::ReadMissing],
            "bytes": counters[Count::ReadBytes],
        },
        "writes": {
            "ok": counters[Count::WriteOk],
            "busy": counters[Count::WriteBusy],
            "exists": counters[Count::WriteExists],
            "waited": counters[Count::Waited],
            "bytes": counters[Count::WriteBytes],
        },
        "other_errors": counters[Count::Other],
        "errors": errors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: &str = "
=== Per-process stats ===
worker-2 (pid=41002)
  iterations     : 118
  READS  ok/busy/missing : 93/1/2  bytes=198433
  WRITES ok/busy/exists  : 21/0/1 bytes=45120
  other_errors   : 0

worker-1 (pid=41001)
  iterations     : 121
  READS  ok/busy/missing : 97/0/0  bytes=207115
  WRITES ok/busy/exists  : 24/0/0 bytes=50877
  other_errors   : 0

=== Aggregate ===
aggregate (pid=0)
  iterations     : 239
  READS  ok/busy/missing : 190/1/2  bytes=405548
  WRITES ok/busy/exists  : 45/0/1 bytes=95997
  other_errors   : 0

Note: Create-only semantics exercised (writes_exits > 0).
Note: Lock contention observed (busy counters > 0).
";

    fn outcome(number: u32, reads: [u64; 4], writes: [u64; 4]) -> Outcome {
        let mut tally = Tally::default();
        let names = [
            [Count::ReadOk, Count::ReadBusy, Count::ReadMissing, Count::ReadBytes],
            [Count::WriteOk, Count::WriteBusy, Count::WriteExists, Count::WriteBytes],
        ];
        for (names, values) in names.into_iter().zip([reads, writes]) {
            for (name, value) in names.into_iter().zip(values) {
                tally.counters[name] = value;
            }
        }
        Outcome { number, pid: 41000 + number, killed: 0, tally, exit: ExitState::Done }
    }

    fn run(outcomes: Vec<Outcome>) -> Run {
        Run {
            seed: 7,
            keyspace: "65536 shared keys".to_owned(),
            requested: Duration::from_secs(20),
            elapsed: Duration::from_secs(20),
            is_interrupted: false,
            killed: 0,
            stopped: 0,
            stopped_for: Duration::ZERO,
            peak_bytes: 0,
            peak_over: None,
            outcomes,
        }
    }

    fn seed_run() -> Run {
        run(vec![
            outcome(2, [93, 1, 2, 198_433], [21, 0, 1, 45_120]),
            outcome(1, [97, 0, 0, 207_115], [24, 0, 0, 50_877]),
        ])
    }

    #[test]
    fn the_report_is_the_seeds_to_the_letter() {
        assert_eq!(seed_run().seed_report(), LAYOUT);
    }

    #[test]
    fn notes_are_only_there_for_what_happened() {
        let calm = run(vec![outcome(1, [5, 0, 1, 50], [0, 0, 3, 0])]).seed_report();
        assert!(calm.ends_with("  other_errors   : 0\n\n"), "{calm}");
        let busy = run(vec![outcome(1, [5, 0, 0, 50], [1, 1, 0, 9])]).seed_report();
        assert!(busy.ends_with("\n\nNote: Lock contention observed (busy counters > 0).\n"), "{busy}");
    }

    #[test]
    fn one_blank_line_separates_the_seeds_report_from_the_rest() {
        for run in [seed_run(), run(vec![outcome(1, [5, 0, 0, 50], [1, 0, 0, 9])])] {
            let whole = run.seed_report() + &run.further();
            let (before, _) = whole.split_once("=== Run ===").unwrap();
            assert!(before.ends_with("\n\n") && !before.ends_with("\n\n\n"), "{whole}");
        }
    }

    #[test]
    fn what_the_seed_did_not_tell_follows() {
        let mut run = seed_run();
        run.killed = 3;
        run.is_interrupted = true;
        run.outcomes[0].exit = ExitState::Missing("it ended unexpectedly".to_owned());
        run.outcomes[1].tally.counters.note_error(redgrease_filecache::Code::Unavailable);
        run.outcomes[1].tally.counters[Count::Slept] = 20_000_000_000;
        let text = run.further();
        for part in [
            "20.0 s of 20.0 s, interrupted",
            "chaos          : 3 killed, 0 stopped",
            "MISSING        : worker-2: it ended unexpectedly",
            "operations     : 11.9/s, 6.0/s per worker",
            "sleep share    : 50.0 %",
            "=== Errors ===",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn times_that_were_lost_are_owned_up_to() {
        let mut run = run(vec![outcome(1, [2, 0, 5, 9], [1, 0, 0, 9])]);
        let tally = &mut run.outcomes[0].tally;
        tally.latency(Kind::Read).add(Duration::from_millis(1));
        assert!(run.further().contains("\n  n lacks 1 read ok and 1 write ok: "), "{}", run.further());
        let tally = &mut run.outcomes[0].tally;
        tally.latency(Kind::Read).add(Duration::from_millis(1));
        tally.latency(Kind::Write).add(Duration::from_millis(1));
        assert!(!run.further().contains("lacks"), "{}", run.further());
    }

    #[test]
    fn broken_invariants_stand_out() {
        let check = |broken, faults: &[&str]| Check {
            name: "no acknowledged create is lost",
            about: "45 acknowledged creates".to_owned(),
            broken,
            faults: faults.iter().map(|&fault| fault.to_owned()).collect(),
        };
        let text = invariants(&[check(0, &[]), check(3, &["0a.bin: gone"])]);
        assert_eq!(
            text,
            "\n=== Invariants ===\n  ok     no acknowledged create is lost (45 acknowledged creates)\n  \
             BROKEN no acknowledged create is lost (45 acknowledged creates): 3 times\n           0a.bin: gone\n           \
             and 2 more\n"
        );
    }

    #[test]
    fn json_has_the_same_numbers() {
        let told = seed_run().json(&[]);
        assert_eq!(told["aggregate"]["reads"]["ok"], 190);
        assert_eq!(told["workers"][0]["worker"], 2);
        assert_eq!(told["notes"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn latencies_have_three_digits() {
        for (nanoseconds, expected) in
            [(0, "0.00 µs"), (1_234, "1.23 µs"), (12_345, "12.3 µs"), (999_400, "999 µs"), (1_500_000_000, "1.50 s")]
        {
            assert_eq!(show_latency(Duration::from_nanos(nanoseconds)), expected);
        }
    }
}
