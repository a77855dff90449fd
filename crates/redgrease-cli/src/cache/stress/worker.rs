//! One worker: creates and reads until it is asked to stop, and verifies all contents that it reads.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;
use redgrease_filecache::{Code, Error, FileCache, Options, Outcome, Put, Stat};

use super::args::{Load, Stress};
use super::control::{Control, Message};
use super::counters::{Count, Kind, Record, Tally};
use super::journal::{self, Created, Entry, Follower, Journal};
use super::keyspace::KeySpace;
use super::known::Known;
use super::payload;
use crate::cache::keys;

/// Deadlines of the proof of concept's polling calls.
const READ_BUDGET: Duration = Duration::from_millis(1000);
const WRITE_BUDGET: Duration = Duration::from_millis(1500);
/// Interval at which the counters are recorded and the other workers' journals are read.
const RECORD_EVERY: Duration = Duration::from_millis(50);
/// Every this many intervals the latencies are recorded too.
const LATENCY_ROUNDS: u32 = 4;
/// One read of this many uses a handle, which has the generation; the others use the short call.
const HANDLE_EVERY: u64 = 8;
/// Pause after a failure of the server, doubled each time.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// Pause when there is nothing to read.
const NOTHING_KNOWN: Duration = Duration::from_millis(1);
/// Further violations are counted, but not described.
const FAULTS_DESCRIBED: u32 = 20;

/// Identity of a worker.
#[derive(Debug, Clone)]
pub struct Identity {
    pub number: u32,
    /// Number of killed predecessors with this number.
    pub generation: u32,
    pub seed: u64,
    pub folder: PathBuf,
}

/// Where a process records its counters.
pub fn record_path(folder: &Path, number: u32, generation: u32) -> PathBuf {
    folder.join(format!("record-{number}-{generation}"))
}

/// Works until it is asked to stop.
pub fn run(stress: &Stress, identity: &Identity, control: &Control, say: impl Fn(Message)) -> Result<()> {
    let Identity { number, generation, folder, .. } = identity;
    let record = Record::create(&record_path(folder, *number, *generation)).context("the record cannot be written")?;
    let journal = Journal::open(&journal::path(folder, *number)).context("the journal cannot be written")?;
    let Some(cache) = open(stress, control)? else { return Ok(()) };
    // The journal of this number is read as well: it has the creates of killed predecessors.
    let siblings = (0..=stress.processes.max(1)).map(|number| Follower::new(journal::path(folder, number))).collect();
    say(Message::Ready);
    if !control.wait_to_go() {
        return Ok(());
    }
    let is_unlimited = stress.load.max_bytes == 0 && {
        let limits = cache.info()?.limits;
        limits.max_bytes == 0 && limits.max_entries == 0 && limits.max_age.is_zero() && limits.max_idle.is_zero()
    };
    let mut worker = Worker {
        load: &stress.load,
        keyspace: stress.load.keyspace(),
        pid: std::process::id(),
        rng: Rng::with_seed(stream(identity)),
        known: Known::default(),
        key: Vec::new(),
        content: Vec::new(),
        tally: Tally::default(),
        record,
        record_each: stress.kill_every.is_some(),
        rounds: 0,
        journal,
        siblings,
        reads: 0,
        faults: 0,
        back_off: BACK_OFF.0,
        is_unlimited,
        cache,
        control,
    };
    worker.work()?;
    Ok(worker.record.write_all(&worker.tally)?)
}

/// Opens the cache; waits for a server that is not available. `None` if the run ended before.
fn open(stress: &Stress, control: &Control) -> Result<Option<FileCache>> {
    loop {
        match open_cache(stress) {
            Ok(cache) => return Ok(Some(cache)),
            Err(error) if is_outage(&error) && !control.is_stopped() => control.sleep(BACK_OFF.1),
            Err(_) if control.is_stopped() => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_outage(error: &Error) -> bool {
    error.code() == Code::Unavailable
}

/// Seed of a worker's random numbers: the run's, changed for each number and generation.
fn stream(identity: &Identity) -> u64 {
    let mut mixed = identity.seed ^ (u64::from(identity.number) << 32 | u64::from(identity.generation));
    // The finaliser of splitmix64: similar inputs give unrelated seeds.
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

struct Worker<'a> {
    load: &'a Load,
    keyspace: KeySpace,
    pid: u32,
    rng: Rng,
    known: Known,
    /// The key of the operation, as bytes.
    key: Vec<u8>,
    /// The content to write.
    content: Vec<u8>,
    tally: Tally,
    record: Record,
    /// Whether the record is written after each operation, because any may be the last.
    record_each: bool,
    rounds: u32,
    journal: Journal,
    siblings: Vec<Follower>,
    reads: u64,
    faults: u32,
    back_off: Duration,
    /// Whether no entry may disappear from the cache.
    is_unlimited: bool,
    cache: FileCache,
    control: &'a Control,
}

/// The outcome of an operation.
struct Done {
    outcome: Count,
    bytes: usize,
    /// Time that the cache took, without the worker's own work.
    took: Duration,
}

impl Worker<'_> {
    fn work(&mut self) -> Result<()> {
        self.read_journals()?;
        let mut recorded = Instant::now();
        while !self.control.is_stopped() {
            if self.control.begins_to_count() {
                self.tally.clear();
            }
            let writes = self.rng.f64() < self.load.write_prob;
            let done = if writes { self.write()? } else { self.read()? };
            self.count(&done);
            let ended = Instant::now();
            if self.record_each {
                self.record.write_counters(&self.tally.counters)?;
            }
            if ended - recorded >= RECORD_EVERY {
                recorded = ended;
                self.report()?;
            }
            self.pause(if writes { self.load.write_sleep } else { self.load.read_sleep }, ended);
        }
        Ok(())
    }

    fn count(&mut self, done: &Done) {
        self.tally.counters[done.outcome] += 1;
        let kind = match done.outcome {
            Count::ReadOk => Kind::Read,
            Count::WriteOk => Kind::Write,
            _ => Kind::Refused,
        };
        let bytes = if kind == Kind::Write { Count::WriteBytes } else { Count::ReadBytes };
        self.tally.counters[bytes] += done.bytes as u64;
        if !done.took.is_zero() {
            self.tally.latency(kind).add(done.took);
        }
        if done.outcome != Count::Other {
            self.back_off = BACK_OFF.0;
        }
    }

    fn report(&mut self) -> Result<()> {
        self.rounds += 1;
        if self.rounds.is_multiple_of(LATENCY_ROUNDS) {
            self.record.write_all(&self.tally)?;
        } else {
            self.record.write_counters(&self.tally.counters)?;
        }
        self.read_journals()
    }

    /// Reads the creates of the other workers.
    fn read_journals(&mut self) -> Result<()> {
        let known = &mut self.known;
        for sibling in &mut self.siblings {
            sibling
                .read_new(|entry| match entry {
                    Entry::Created(created) => known.learn_created(created),
                    Entry::Listed(number) => drop(known.learn(number)),
                    Entry::Fault(_) => {}
                })
                .context("a journal cannot be read")?;
        }
        Ok(())
    }

    fn pause(&mut self, time: Duration, since: Instant) {
        if !time.is_zero() {
            self.control.sleep(time);
            self.tally.counters[Count::Slept] += since.elapsed().as_nanos() as u64;
        }
    }

    // -- writing

    fn write(&mut self) -> Result<Done> {
        let number = self.keyspace.draw(&mut self.rng, self.pid);
        self.keyspace.write(number, &mut self.key);
        let (least, most) = self.load.value_size;
        let size = self.rng.usize(least..=most);
        payload::make(&mut self.content, &mut self.rng, self.pid, &self.key, size);
        if self.load.fill {
            return self.fill(number);
        }
        let (put, began) = (self.put(), Instant::now());
        let written = self.cache.write(&self.key, &self.content, &put);
        let took = began.elapsed();
        match written {
            Ok(stat) => self.created(number, &stat, took),
            Err(error) => Ok(self.not_written(&error, took)),
        }
    }

    fn put(&self) -> Put {
        let timeout = if self.load.blocking { WRITE_BUDGET } else { Duration::ZERO };
        Put { timeout, size: Some(self.content.len() as u64), ..Put::default() }
    }

    /// Creates through the call that lets one process produce while the others wait.
    fn fill(&mut self, number: u64) -> Result<Done> {
        let (content, put, began) = (&self.content, self.put(), Instant::now());
        let filled = self.cache.get_or_create(&self.key, &put, |writer| {
            io::Write::write_all(writer, content)?;
            Ok(())
        });
        // Content of another process is read, as a user would.
        let found = filled.and_then(|(handle, outcome)| {
            let stat = handle.stat();
            let content = if outcome == Outcome::Created { None } else { Some(handle.into_bytes()?) };
            Ok((stat, outcome, content))
        });
        let took = began.elapsed();
        match found {
            Ok((stat, outcome, Some(content))) => {
                self.tally.counters[Count::Waited] += u64::from(outcome == Outcome::Waited);
                self.verify(number, &content, Some(&stat))?;
                Ok(Done { outcome: Count::WriteExists, bytes: content.len(), took })
            }
            Ok((stat, _, None)) => self.created(number, &stat, took),
            Err(error) => Ok(self.not_written(&error, took)),
        }
    }

    /// Records that the cache acknowledged a create, before anything else can happen.
    fn created(&mut self, number: u64, stat: &Stat, took: Duration) -> Result<Done> {
        let created = Created { number, fence: stat.fence, digest: stat.digest };
        self.journal.add(&Entry::Created(created)).context("the journal cannot be written")?;
        self.known.learn_created(created);
        Ok(Done { outcome: Count::WriteOk, bytes: self.content.len(), took })
    }

    fn not_written(&mut self, error: &Error, took: Duration) -> Done {
        let outcome = match error.code() {
            Code::Exists => Count::WriteExists,
            Code::Busy | Code::Timeout => Count::WriteBusy,
            _ => self.failed(error),
        };
        Done { outcome, bytes: 0, took }
    }

    // -- reading

    fn read(&mut self) -> Result<Done> {
        let Some(number) = self.known.pick(&mut self.rng) else {
            self.control.sleep(NOTHING_KNOWN);
            return Ok(Done { outcome: Count::ReadMissing, bytes: 0, took: Duration::ZERO });
        };
        self.keyspace.write(number, &mut self.key);
        let timeout = if self.load.blocking { READ_BUDGET } else { Duration::ZERO };
        self.reads += 1;
        let began = Instant::now();
        let found = if self.reads.is_multiple_of(HANDLE_EVERY) {
            self.cache.open_read(&self.key, timeout).and_then(|handle| {
                let stat = handle.stat();
                Ok((handle.into_bytes()?, Some(stat)))
            })
        } else {
            self.cache.read(&self.key, timeout).map(|content| (content, None))
        };
        let took = began.elapsed();
        match found {
            Ok((content, stat)) => {
                self.verify(number, &content, stat.as_ref())?;
                Ok(Done { outcome: Count::ReadOk, bytes: content.len(), took })
            }
            Err(error) => self.not_read(number, &error, took),
        }
    }

    fn not_read(&mut self, number: u64, error: &Error, took: Duration) -> Result<Done> {
        let outcome = match error.code() {
            Code::Missing => {
                self.missed(number)?;
                Count::ReadMissing
            }
            Code::Busy | Code::Timeout => Count::ReadBusy,
            Code::Corrupt => {
                self.fault(Count::Torn, &error.to_string())?;
                self.failed(error)
            }
            _ => self.failed(error),
        };
        Ok(Done { outcome, bytes: 0, took })
    }

    /// A known entry is missing. Without limits, no process may have removed an acknowledged entry.
    fn missed(&mut self, number: u64) -> Result<()> {
        let must_be_there = self.is_unlimited && self.known.entry(number).is_some_and(|entry| entry.created.is_some());
        if must_be_there {
            let words = format!("{} was acknowledged, and a read found nothing", keys::shown(&self.key));
            return self.fault(Count::Vanished, &words);
        }
        self.known.forget(number);
        Ok(())
    }

    /// Verifies content: complete, of this key, unchanged, and no older than the acknowledged generation.
    fn verify(&mut self, number: u64, content: &[u8], stat: Option<&Stat>) -> Result<()> {
        let entry = self.known.learn(number);
        match payload::check(content, &self.key) {
            Ok(()) => {}
            // A file of another program, which existed before this run.
            Err(payload::Fault::NotOurs) if entry.created.is_none() => {
                self.known.forget(number);
                return Ok(());
            }
            Err(fault) => {
                let words = format!("{}: {} bytes are damaged: {fault:?}", keys::shown(&self.key), content.len());
                return self.fault(Count::Torn, &words);
            }
        }
        let fingerprint = payload::fingerprint(content);
        let fence = stat.map_or(0, |stat| stat.fence);
        let before = entry.read.replace((fence, fingerprint));
        let acknowledged = entry.created;
        // The short call does not return the generation; without limits there is only one.
        let is_same = |then: u64| if fence == 0 || then == 0 { self.is_unlimited } else { fence == then };
        if before.is_some_and(|(then, content)| is_same(then) && content != fingerprint) {
            let words = format!("{}: generation {fence} was read with two contents", keys::shown(&self.key));
            self.fault(Count::Changed, &words)?;
        }
        let Some((stat, acknowledged)) = stat.zip(acknowledged) else { return Ok(()) };
        if stat.fence == acknowledged.fence && stat.digest != acknowledged.digest {
            let words = format!("{}: generation {fence} has another digest than acknowledged", keys::shown(&self.key));
            self.fault(Count::Changed, &words)?;
        }
        if stat.fence < acknowledged.fence {
            let (key, newer) = (keys::shown(&self.key), acknowledged.fence);
            self.fault(Count::Stale, &format!("{key}: generation {fence} was read after {newer} was acknowledged"))?;
        }
        Ok(())
    }

    // -- failures

    /// A check failed.
    fn fault(&mut self, count: Count, words: &str) -> Result<()> {
        self.tally.counters[count] += 1;
        self.faults += 1;
        if self.faults <= FAULTS_DESCRIBED {
            self.journal.add(&Entry::Fault(words.to_owned())).context("the journal cannot be written")?;
        }
        Ok(())
    }

    /// The cache refused for an unexpected reason. A server that is not available gets time to return.
    fn failed(&mut self, error: &Error) -> Count {
        self.tally.counters.note_error(error.code());
        if is_outage(error) {
            // Between half and all of it, so that workers do not return at the same time.
            self.control.sleep(self.back_off.mul_f64(0.5 + self.rng.f64() / 2.0));
            self.back_off = (self.back_off * 2).min(BACK_OFF.1);
        }
        Count::Other
    }
}

/// Opens the cache under test, as each process does.
pub fn open_cache(args: &Stress) -> redgrease_filecache::Result<FileCache> {
    let mut options = Options::new(&args.place.cache_dir);
    options.url = args.place.url();
    options.namespace = args.place.namespace.clone();
    options.adopt = args.place.adopt;
    options.lease = args.load.lease.unwrap_or(options.lease);
    options.durability = args.load.durability.unwrap_or(options.durability);
    FileCache::open(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_workers_run_the_same_random_numbers() {
        let mut streams = std::collections::BTreeSet::new();
        for seed in 0..8 {
            for number in 1..8 {
                for generation in 0..8 {
                    let identity = Identity { number, generation, seed: seed << 40, folder: PathBuf::new() };
                    streams.insert(stream(&identity));
                }
            }
        }
        assert_eq!(streams.len(), 8 * 7 * 8);
    }
}
