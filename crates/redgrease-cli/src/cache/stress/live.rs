//! Output during a run: a status line on a terminal, a line per interval on request, and reports of the cache's contents
//! for debugging.

use std::collections::HashSet;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use redgrease_filecache::{FileCache, Stat};

use super::counters::{Count, Counters};
use super::journal::{self, Entry, Journal};
use super::keyspace::KeySpace;
use super::lock::lock;
use super::supervisor::Event;
use crate::cache::keys;
use crate::cache::open::each_entry;
use crate::terminal::{bar, bar_of};
use crate::units::{ago, show_bytes, show_count, show_duration};

/// Interval at which the sizes of the cache are requested.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Shortest interval between listings of foreign keys; a listing takes at most a fiftieth of the time.
const LIST_EVERY: Duration = Duration::from_secs(10);
const LIST_SHARE: u32 = 50;

/// Lists the cache's keys into the parent's journal, from which the workers read them.
pub struct Lister {
    keyspace: KeySpace,
    journal: Journal,
    known: HashSet<u64>,
}

impl Lister {
    pub fn new(keyspace: KeySpace, folder: &Path) -> Result<Self> {
        let journal = Journal::open(&journal::path(folder, 0)).context("the journal cannot be written")?;
        Ok(Self { keyspace, journal, known: HashSet::new() })
    }

    /// Lists all keys of the key space that were not listed before.
    pub fn list(&mut self, cache: &FileCache) -> Result<()> {
        let mut new = Vec::new();
        each_entry(cache, |entry| {
            if let Some(number) = self.keyspace.number(&entry.key)
                && self.known.insert(number)
            {
                new.push(number);
            }
        })?;
        Ok(self.journal.add_all(new.into_iter().map(Entry::Listed))?)
    }
}

/// A thread that observes the cache, so that a slow server delays nothing else.
pub struct Watcher {
    seen: Arc<Mutex<Seen>>,
    /// Requests a report of the contents: elapsed time and number of items. Closing it ends the thread.
    looks: Option<Sender<(Duration, usize)>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// `None` if the cache does not answer.
    pub sizes: Option<Sizes>,
    pub peak_bytes: u64,
    /// The excess over the limit of the run, if it lasted longer than allowed.
    pub peak_over: Option<u64>,
}

/// Size of the cache; a cap of 0 means none.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    entries: u64,
    bytes: u64,
    cap: u64,
    evicted: u64,
}

impl Watcher {
    /// Starts the thread; `limit` is that of the run, or 0.
    pub fn start(cache: FileCache, lister: Lister, events: Sender<Event>, limit: u64) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (looks, requested) = channel();
        let shared = seen.clone();
        let thread = std::thread::spawn(move || watch(&cache, lister, &shared, &requested, &events, limit));
        Self { seen, looks: Some(looks), thread: Some(thread) }
    }

    /// Requests a report of the contents, which is sent as an event.
    pub fn look(&self, elapsed: Duration, top: usize) {
        if let Some(looks) = &self.looks {
            let _run_has_ended = looks.send((elapsed, top));
        }
    }

    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.looks = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Whether the cache stays within a limit.
///
/// It may exceed the limit at the start, and briefly when a lost index is rebuilt: files then count that were evicted and
/// not yet unlinked.
#[derive(Debug, Default)]
struct Excess {
    /// In bytes; 0: none.
    limit: u64,
    was_within: bool,
    /// Whether the last sample was above.
    is_above: bool,
    peak: Option<u64>,
}

impl Excess {
    fn look(&mut self, bytes: u64) {
        let is_above = self.limit > 0 && bytes > self.limit;
        self.was_within |= !is_above;
        if is_above && self.is_above && self.was_within {
            self.peak = self.peak.max(Some(bytes));
        }
        self.is_above = is_above;
    }
}

fn watch(
    cache: &FileCache,
    mut lister: Lister,
    seen: &Mutex<Seen>,
    requested: &Receiver<(Duration, usize)>,
    events: &Sender<Event>,
    limit: u64,
) {
    let mut excess = Excess { limit, ..Excess::default() };
    let mut list_at = Instant::now() + LIST_EVERY;
    loop {
        let sizes = cache.info().ok().map(|info| Sizes {
            entries: info.entries,
            bytes: info.bytes,
            cap: info.limits.max_bytes,
            evicted: info.evicted,
        });
        let mut shared = lock(seen);
        if let Some(Sizes { bytes, .. }) = sizes {
            excess.look(bytes);
            shared.peak_bytes = shared.peak_bytes.max(bytes);
        }
        shared.peak_over = excess.peak;
        shared.sizes = sizes;
        drop(shared);
        match requested.recv_timeout(LOOK_EVERY) {
            Ok((elapsed, top)) => drop(events.send(Event::Note(debug_look(cache, elapsed, top)))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= list_at {
            let began = Instant::now();
            // A failed listing is repeated next time.
            let _server_is_away = lister.list(cache);
            list_at = Instant::now() + LIST_EVERY.max(began.elapsed() * LIST_SHARE);
        }
    }
}

/// Samples the counters.
pub struct Pulse {
    began: Instant,
    duration: Duration,
    last: (Instant, Counters),
}

impl Pulse {
    pub fn new(duration: Duration) -> Self {
        let now = Instant::now();
        Self { began: now, duration, last: (now, Counters::default()) }
    }

    /// The current state; rates since the last sample.
    pub fn beat(&mut self, counters: Counters, seen: &Seen, chaos: Chaos) -> Beat {
        let now = Instant::now();
        let (then, before) = std::mem::replace(&mut self.last, (now, counters.clone()));
        let seconds = (now - then).as_secs_f64().max(1e-6);
        let rate = |count: Count| (counters[count].saturating_sub(before[count]) as f64 / seconds).round() as u64;
        let found = counters[Count::ReadOk] as f64;
        Beat {
            elapsed: now - self.began,
            duration: self.duration,
            reads: rate(Count::ReadOk),
            writes: rate(Count::WriteOk),
            hits: 100.0 * found / (found + counters[Count::ReadMissing] as f64).max(1.0),
            busy: counters[Count::ReadBusy] + counters[Count::WriteBusy],
            errors: counters[Count::Other],
            sizes: seen.sizes,
            chaos,
        }
    }
}

/// Numbers of killed and stopped workers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chaos {
    pub killed: u32,
    pub stopped: u32,
}

/// The state at one moment.
#[derive(Debug, Clone)]
pub struct Beat {
    elapsed: Duration,
    duration: Duration,
    /// Per second.
    reads: u64,
    writes: u64,
    /// In percent.
    hits: f64,
    busy: u64,
    errors: u64,
    sizes: Option<Sizes>,
    chaos: Chaos,
}

/// Width of the bar on a narrow terminal, in cells.
const SHORT_BAR: usize = 8;

impl Beat {
    /// The status line, shortened to the width of the terminal: first the bar is shortened, then words, then the faults
    /// and the bar are left out.
    pub fn line(&self, width: usize) -> String {
        let share = self.elapsed.as_secs_f64() / self.duration.as_secs_f64();
        let (bar, short_bar) = (bar(share), bar_of(SHORT_BAR, share));
        let (long, short, chaos) = (self.long(), self.short(), self.chaos());
        [
            format!("{bar} {long}{chaos}"),
            format!("{short_bar} {long}{chaos}"),
            format!("{short_bar} {short}{chaos}"),
            format!("{short_bar} {short}"),
        ]
        .into_iter()
        .find(|line| line.chars().count() <= width)
        .unwrap_or(short)
    }

    /// A complete line, for logs.
    pub fn plain(&self) -> String {
        format!("[stress] {}{}", self.long(), self.chaos())
    }

    fn long(&self) -> String {
        let size = self.sizes.map_or("no answer".to_owned(), |sizes| {
            let cap = if sizes.cap == 0 { String::new() } else { format!(" of {}", show_bytes(sizes.cap)) };
            format!("{}{cap}, {} evicted", show_bytes(sizes.bytes), sizes.evicted)
        });
        format!(
            "{:.0}/{}  reads {}/s  writes {}/s  hits {:.1} %  busy {}  errors {}  {size}",
            self.elapsed.as_secs_f64(),
            show_duration(self.duration),
            self.reads,
            self.writes,
            self.hits,
            self.busy,
            self.errors,
        )
    }

    /// The same in less than 80 characters.
    fn short(&self) -> String {
        let bytes = |bytes| show_bytes(bytes).replace(' ', "");
        let size = self.sizes.map_or("no answer".to_owned(), |sizes| {
            let cap = if sizes.cap == 0 { String::new() } else { format!("/{}", bytes(sizes.cap)) };
            format!("{}{cap} ev {}", bytes(sizes.bytes), show_count(sizes.evicted))
        });
        format!(
            "{:.0}/{} r {}/s w {}/s hit {:.1}% busy {} err {} {size}",
            self.elapsed.as_secs_f64(),
            show_duration(self.duration),
            show_count(self.reads),
            show_count(self.writes),
            self.hits,
            show_count(self.busy),
            show_count(self.errors),
        )
    }

    fn chaos(&self) -> String {
        match self.chaos {
            Chaos { killed: 0, stopped: 0 } => String::new(),
            Chaos { killed, stopped } => format!("  killed {killed} stopped {stopped}"),
        }
    }
}

/// The monitor line of the proof of concept.
pub fn monitor_line(elapsed: Duration, seen: &Seen) -> String {
    let seconds = elapsed.as_secs();
    let Some(Sizes { entries, bytes, cap, .. }) = seen.sizes else {
        return format!("[monitor t={seconds}s] no answer");
    };
    let cap = if cap == 0 { String::new() } else { format!(" cap={cap}") };
    format!("[monitor t={seconds}s] total_bytes={bytes} keys={entries}{cap}")
}

/// A report of the contents: least and most recently used entries, and locks.
fn debug_look(cache: &FileCache, elapsed: Duration, top: usize) -> String {
    look(cache, elapsed, top).unwrap_or_else(|error| format!("[debug t={}s] {error}", elapsed.as_secs()))
}

fn look(cache: &FileCache, elapsed: Duration, top: usize) -> redgrease_filecache::Result<String> {
    let mut entries: Vec<Stat> = Vec::new();
    each_entry(cache, |entry| entries.push(entry))?;
    let used = |entry: &Stat| entry.last_used.unwrap_or(entry.created);
    entries.sort_by_key(used);
    let total: u64 = entries.iter().map(|entry| entry.size).sum();
    let mut lines = vec![format!("[debug t={}s] total_bytes={total} keys={}", elapsed.as_secs(), entries.len())];
    let line = |name: &str, entry: &Stat| {
        let (key, size) = (keys::shown(&entry.key), entry.size);
        format!("  {name} {key} size={size} fence={} used={} ago", entry.fence, show_duration(ago(used(entry))))
    };
    lines.extend(entries.iter().take(top).map(|entry| line("oldest", entry)));
    lines.extend(entries.iter().rev().take(top).map(|entry| line("newest", entry)));
    let locks = cache.locks()?;
    lines.extend(locks.iter().take(top).map(|lock| {
        let (kind, key, owner) = (lock.kind.as_str(), keys::shown(&lock.key), &lock.owner);
        format!("  {kind} {key} owner={} left={}", keys::shown(owner.as_bytes()), show_duration(lock.left))
    }));
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(cap: u64) -> Seen {
        Seen { sizes: Some(Sizes { entries: 190, bytes: 412_345, cap, evicted: 5 }), ..Seen::default() }
    }

    #[test]
    fn a_limit_may_be_exceeded_in_the_beginning_and_for_a_moment() {
        let peak = |limit, looks: &[u64]| {
            let mut excess = Excess { limit, ..Excess::default() };
            looks.iter().for_each(|&bytes| excess.look(bytes));
            excess.peak
        };
        assert_eq!(peak(10, &[50, 40, 30, 10, 9, 10]), None);
        assert_eq!(peak(10, &[0, 11, 9, 12, 10]), None);
        assert_eq!(peak(10, &[0, 11, 12, 11, 9]), Some(12));
        assert_eq!(peak(0, &[0, 11, 12]), None);
    }

    #[test]
    fn the_monitor_prints_as_the_proof_of_concept_does() {
        let time = Duration::from_millis(3900);
        assert_eq!(monitor_line(time, &seen(1_000_000)), "[monitor t=3s] total_bytes=412345 keys=190 cap=1000000");
        assert_eq!(monitor_line(time, &seen(0)), "[monitor t=3s] total_bytes=412345 keys=190");
        assert_eq!(monitor_line(time, &Seen::default()), "[monitor t=3s] no answer");
    }

    #[test]
    fn the_pulse_tells_rates_since_the_last_look() {
        let mut pulse = Pulse::new(Duration::from_secs(20));
        let mut counters = Counters::default();
        counters[Count::ReadOk] = 3;
        counters[Count::ReadMissing] = 1;
        let beat = pulse.beat(counters, &seen(1_000_000), Chaos { killed: 2, stopped: 1 });
        for line in [beat.line(200), beat.plain()] {
            for part in ["/20.0s", "hits 75.0 %", "412 kB of 1.0 MB, 5 evicted", "killed 2 stopped 1"] {
                assert!(line.contains(part), "{line}");
            }
        }
    }

    /// A status line of a small run, and one with the longest numbers.
    fn beats() -> [Beat; 3] {
        let sizes = |entries, bytes, cap, evicted| Some(Sizes { entries, bytes, cap, evicted });
        let small = Beat {
            elapsed: Duration::from_secs(12),
            duration: Duration::from_secs(20),
            reads: 812,
            writes: 104,
            hits: 97.1,
            busy: 12,
            errors: 0,
            sizes: sizes(190, 412_345, 1_000_000, 5),
            chaos: Chaos { killed: 3, stopped: 1 },
        };
        let large = Beat {
            elapsed: Duration::from_secs(86_399),
            duration: Duration::from_secs(86_000),
            reads: 999_499,
            writes: 123_456,
            hits: 99.9,
            busy: 123_456_789,
            errors: 999_499_999,
            sizes: sizes(1, 999_499_999_999, 999_499_999_999, 123_456_789),
            chaos: Chaos { killed: 1234, stopped: 1234 },
        };
        let unlimited = Beat { sizes: sizes(190, 412_345, 0, 7), ..small.clone() };
        [small, large, unlimited]
    }

    #[test]
    fn on_80_columns_nothing_that_matters_is_missing() {
        for beat in beats() {
            for columns in 80..200 {
                let line = beat.line(columns - 1);
                assert!(line.chars().count() < columns, "{columns}: {line}");
                for (long, short) in [
                    ("reads ", "r "),
                    ("writes ", "w "),
                    ("hits ", "hit "),
                    ("busy ", "busy "),
                    ("errors ", "err "),
                    ("B", "B"),
                    (" evicted", "ev "),
                ] {
                    assert!(line.contains(long) || line.contains(short), "{columns}: {short} is not in {line}");
                }
                let elapsed = format!("{}/", beat.elapsed.as_secs());
                assert!(line.contains(&elapsed), "{columns}: {line}");
            }
        }
    }

    #[test]
    fn what_matters_least_goes_first() {
        let [small, large, _] = beats();
        let long = "12/20.0s  reads 812/s  writes 104/s  hits 97.1 %  busy 12  errors 0  412 kB of 1.0 MB, 5 evicted";
        let short = "12/20.0s r 812/s w 104/s hit 97.1% busy 12 err 0 412kB/1.0MB ev 5";
        let chaos = "  killed 3 stopped 1";
        assert_eq!(small.line(160), format!("[############········] {long}{chaos}"));
        assert_eq!(small.line(130), format!("[####····] {long}{chaos}"));
        assert_eq!(small.line(100), format!("[####····] {short}{chaos}"));
        assert_eq!(small.line(79), format!("[####····] {short}"));
        assert_eq!(small.line(70), short);
        assert_eq!(large.line(79), "86399/23.9h r 999k/s w 123k/s hit 99.9% busy 123M err 999M 999GB/999GB ev 123M");
    }
}
