//! The operations: how a read, a write and a sweep are made of steps, in any environment (see [`edge`](crate::edge)).

mod building;
mod chores;
mod hold;
mod read;
mod sidecar;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_listener::EventListener;
use redgrease_cache_rules::MAX_KEY_BYTES;
use redgrease_cache_rules::name::file_name;
use redgrease_cache_rules::protocol::{Answer, Bounds, Choice, Doomed, Info, Op, Reply, Request};
use redgrease_cache_rules::retries::Retries;

use crate::edge::{Disk, Edge, Outage};
use crate::error::{Cause, Error, Result};
use crate::flights::Flights;
use crate::options::{Check, OnOutage};
use crate::report::Stats;
use crate::session::Sessions;

pub(crate) use building::Building;
pub(crate) use hold::{Chores, Hold};
pub(crate) use read::Opened;
pub(crate) use sidecar::sidecar_of;
pub(crate) use write::{Begun, Draft, Made, check_ttl};

/// Settings of the operations.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub lease: Duration,
    pub check: Check,
    pub on_outage: OnOutage,
    pub owner: String,
    pub namespace: String,
    /// Bounds for a new index.
    pub bounds: Bounds,
    /// Change nothing, not even the time of last use.
    pub read_only: bool,
    /// How long an operation without its own timeout is repeated if the index is lost repeatedly.
    pub patience: Duration,
}

/// How long to wait while an index is being built.
pub(crate) const REBUILD_PATIENCE: Duration = Duration::from_secs(300);

/// Longest pause between polls for another process.
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// Number of entries in one request to restore, and of files in one request to judge.
pub(crate) const BATCH: usize = 256;

/// A cache in an environment.
pub(crate) struct Engine<E: Edge> {
    pub edge: E,
    pub rules: Rules,
    pub cache: u64,
    pub sessions: Arc<Sessions>,
    pub flights: Arc<Flights>,
    pub counters: Counters,
    pub chores: Arc<Chores>,
    /// Whether this process builds the index, and how its claim is kept alive.
    pub building: Building,
    /// The bounds as last seen by this process; only hints.
    pub known_largest: AtomicU64,
    pub known_min_free: AtomicU64,
}

macro_rules! counters {
    ($($name:ident),*) => {
        /// Counters.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub $name: AtomicU64),* }
        impl Counters {
            pub fn read(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed)),*, ..Stats::default() }
            }
            pub fn reset(&self) {
                $(self.$name.store(0, Ordering::Relaxed);)*
            }
        }
    };
}
counters!(
    hits,
    misses,
    waits,
    creates,
    busy,
    timeouts,
    unlinked,
    bytes_read,
    bytes_written,
    lease_losses,
    corrupt,
    rebuilds,
    index_errors
);

/// Increments a counter.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// The operation of a caller, for errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doing<'a> {
    pub operation: &'static str,
    pub key: Option<&'a [u8]>,
    /// Until when the caller waits, by the process's clock; `None`: as long as a command may take.
    pub until: Option<Duration>,
}

impl<'a> Doing<'a> {
    pub fn to(operation: &'static str, key: &'a [u8]) -> Self {
        Self { operation, key: Some(key), until: None }
    }

    pub fn all(operation: &'static str) -> Self {
        Self { operation, key: None, until: None }
    }

    /// The same operation with this deadline.
    pub fn until(self, until: Duration) -> Self {
        Self { until: Some(until), ..self }
    }

    pub fn failed(self, cause: Cause) -> Error {
        Error::new(self.operation, self.key, cause)
    }

    fn io(self, error: std::io::Error) -> Error {
        Error::io(self.operation, self.key, error)
    }

    fn key(self) -> &'a [u8] {
        self.key.unwrap_or_default()
    }
}

/// Refuses an invalid key.
pub(crate) fn check_key(operation: &'static str, key: &[u8]) -> Result<()> {
    let problem = match key.len() {
        0 => "it is empty".to_owned(),
        length if length > MAX_KEY_BYTES => format!("it has {length} bytes"),
        _ => return Ok(()),
    };
    Err(Error::new(operation, Some(key), Cause::BadKey(problem)))
}

impl<E: Edge> Engine<E> {
    pub fn new(edge: E, rules: Rules, cache: u64) -> Self {
        let sessions = Arc::new(Sessions::new(edge.random(), rules.lease, rules.owner.clone()));
        Self {
            edge,
            cache,
            sessions,
            flights: Arc::default(),
            counters: Counters::default(),
            chores: Arc::default(),
            building: Building::default(),
            known_largest: AtomicU64::new(rules.bounds.largest_entry()),
            known_min_free: AtomicU64::new(rules.bounds.min_free_bytes),
            rules,
        }
    }

    pub fn outage(&self, doing: Doing<'_>, outage: Outage) -> Error {
        count(&self.counters.index_errors, 1);
        doing.failed(match outage {
            Outage::Unavailable(message) => Cause::Unavailable(message),
            Outage::Refused(message) => Cause::NoSpace(format!("the server refuses writes: {message}")),
            Outage::Denied(message) => Cause::Denied(message),
            Outage::Misnamed(message) => Cause::BadConfig(message),
        })
    }

    /// Sends a request to the index: a lost index is rebuilt first, one that is being built is waited for. Unlinks the
    /// files that the reply names.
    pub async fn ask(&self, doing: Doing<'_>, op: Op) -> Result<Reply> {
        let answer = self.ask_index(doing, op).await?;
        self.unlink(answer.doomed).await;
        Ok(answer.reply)
    }

    pub async fn ask_index(&self, doing: Doing<'_>, op: Op) -> Result<Answer> {
        let began = self.edge.elapsed();
        let mut retries = self.retries(doing, began);
        loop {
            let session = self.sessions.id();
            let answer = self
                .edge
                .ask(Request { cache: self.cache, op: op.clone() })
                .await
                .map_err(|outage| self.outage(doing, outage))?;
            match answer.reply {
                Reply::Lost | Reply::Changed => {
                    if matches!(answer.reply, Reply::Lost) {
                        // All sessions are lost with the index.
                        self.sessions.lost(session, self.edge.random());
                    }
                    self.pause_after_loss(doing, &mut retries, began).await?;
                    self.recover(doing, retries.deadline()).await?;
                    self.go_on(doing)?;
                }
                // The process that rebuilds it may have died: then this one takes over.
                Reply::Rebuilding => {
                    let passed = self.edge.elapsed() - began;
                    let is_late = retries.deadline().is_some_and(|until| self.edge.elapsed() >= until);
                    if is_late || passed >= REBUILD_PATIENCE {
                        let message = format!("it is being rebuilt, and was not ready after {passed:.1?}");
                        return Err(doing.failed(Cause::Unavailable(message)));
                    }
                    self.recover(doing, retries.deadline()).await?;
                    self.go_on(doing)?;
                }
                Reply::Foreign { cache } => return Err(doing.failed(Cause::BadConfig(self.foreign(cache)))),
                _ => return Ok(answer),
            }
        }
    }

    /// How long an operation with this start is repeated if the index is lost.
    pub(crate) fn retries(&self, doing: Doing<'_>, began: Duration) -> Retries {
        Retries::until(doing.until.unwrap_or_else(|| began.saturating_add(self.rules.patience)))
    }

    /// After the loss of the index or of the session: pauses, or at the caller's deadline returns an error with the reason.
    pub(crate) async fn pause_after_loss(
        &self,
        doing: Doing<'_>,
        retries: &mut Retries,
        began: Duration,
    ) -> Result<()> {
        let now = self.edge.elapsed();
        match retries.lost(now) {
            Some(Duration::ZERO) => Ok(()),
            Some(pause) => {
                self.edge.pause(self.flights.listen(b"\0lost"), pause).await;
                self.go_on(doing)
            }
            None => {
                count(&self.counters.index_errors, 1);
                let why = match self.edge.memory().await {
                    Some(memory) if memory.evicts_index() => {
                        format!(
                            "the server evicts its keys ({memory}); set maxmemory-policy noeviction, or raise maxmemory"
                        )
                    }
                    _ => "something deletes its keys, by FLUSHALL or DEL, for example; use a server that keeps them"
                        .to_owned(),
                };
                let (losses, passed) = (retries.losses(), now - began);
                Err(doing.failed(Cause::Unavailable(format!("it was lost {losses} times within {passed:.1?}: {why}"))))
            }
        }
    }

    pub fn foreign(&self, cache: u64) -> String {
        format!(
            "the namespace {} of this server belongs to cache {cache:016x}, the directory to {:016x}; choose another \
             namespace or directory, or take the namespace over with adopt",
            self.rules.namespace, self.cache
        )
    }

    /// Waits for another process, with growing pauses.
    async fn pause(&self, key: &[u8], turn: u32) {
        self.pause_on(self.flights.listen(key), turn, MAX_PAUSE).await;
    }

    async fn pause_on(&self, event: EventListener, turn: u32, longest: Duration) {
        let pause = Duration::from_millis(2 << turn.min(8)).min(MAX_PAUSE);
        let share = 0.5 + (self.edge.random() % 1000) as f64 / 2000.0;
        self.edge.pause(event, pause.mul_f64(share).min(longest)).await;
    }

    /// Unlinks files that no process uses.
    pub async fn unlink(&self, doomed: Vec<Doomed>) {
        if doomed.is_empty() {
            return;
        }
        let unlinked = self
            .edge
            .on_disk(move |disk| {
                let mut stuck = Vec::new();
                let mut unlinked = Vec::new();
                for Doomed { key, entry } in doomed {
                    // What cannot be unlinked now stays garbage, together with newer files of the key: the next sweep
                    // tries again.
                    if !stuck.contains(&key) && disk.unlink(&file_name(&key, &entry)).is_ok() {
                        unlinked.push((key, entry.fence));
                    } else {
                        stuck.push(key);
                    }
                }
                unlinked
            })
            .await;
        count(&self.counters.unlinked, unlinked.len() as u64);
        self.chores.list().unlinked.extend(unlinked);
    }

    pub fn unexpected(&self, doing: Doing<'_>, reply: &Reply) -> Error {
        doing.failed(Cause::Unavailable(format!("the index answered {reply:?}; is its version different?")))
    }

    /// Fails if the waiting call was asked to stop.
    fn go_on(&self, doing: Doing<'_>) -> Result<()> {
        if self.edge.is_interrupted() { Err(doing.failed(Cause::Interrupted)) } else { Ok(()) }
    }

    /// Evicts about this many bytes, least recently used first; returns the number of evicted entries.
    pub async fn evict_bytes(&self, doing: Doing<'_>, bytes: u64) -> Result<usize> {
        let info = self.info(doing).await?;
        let choice = Choice::ToBytes(info.bytes.saturating_sub(bytes));
        let answer = self.ask_index(doing, Op::Evict { choice }).await?;
        let gone = answer.doomed.len();
        self.unlink(answer.doomed).await;
        Ok(gone)
    }

    pub async fn info(&self, doing: Doing<'_>) -> Result<Info> {
        match self.ask(doing, Op::Info).await? {
            Reply::Info(info) => {
                self.known_largest.store(info.bounds.largest_entry(), Ordering::Relaxed);
                self.known_min_free.store(info.bounds.min_free_bytes, Ordering::Relaxed);
                Ok(*info)
            }
            reply => Err(self.unexpected(doing, &reply)),
        }
    }

    /// Sends a request that either applies or has nothing to apply to.
    pub async fn done_or_missing(&self, doing: Doing<'_>, op: Op) -> Result<bool> {
        match self.ask(doing, op).await? {
            Reply::Done => Ok(true),
            Reply::Missing => Ok(false),
            reply => Err(self.unexpected(doing, &reply)),
        }
    }
}
