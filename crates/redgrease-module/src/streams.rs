//! Stream registrations at work: reading through the consumer group, acknowledging, trimming.

use std::collections::VecDeque;
use std::rc::Rc;

use redgrease_core::id::{Database, ExecutionNo, RegistrationNo};
use redgrease_core::plan::{Mode, Trigger};
use redgrease_core::stream::{Action, End, EntryId, RunKind, StreamRuns};
use redgrease_ffi::keyspace::KeyKind;

use crate::engine::{Actor, Engine, engine};
use crate::events::{SyncRun, Walk};
use crate::runs::{Input, Outcome};
use crate::stream_groups::{Acknowledgement, RETRY_MS, Source};

/// Keys that one step of the search for streams looks at.
const SEARCH_STEP: &[u8] = b"500";

/// Time that one go at sync stream executions takes before others have their turn.
pub const SYNC_SLICE: std::time::Duration = std::time::Duration::from_millis(5);

/// The streams of one registration.
pub struct Streams {
    /// How they are read.
    pub source: Rc<Source>,
    /// When.
    pub runs: StreamRuns,
}

/// One run over entries of a stream.
#[derive(Debug, Clone)]
pub struct StreamRun {
    /// The registration that reads.
    pub source: Rc<Source>,
    /// The database where the entries are.
    pub database: Database,
    /// The stream.
    pub stream: Vec<u8>,
    /// How it reads.
    pub kind: RunKind,
    /// To be given back with its end.
    pub epoch: u64,
    /// Entries that it has read.
    pub ids: Vec<EntryId>,
    /// It ended because its worker did: its entries are still to be processed.
    pub worker_died: bool,
    /// Its entries changed to another database after they were read.
    moved: bool,
}

impl StreamRun {
    /// The data of two databases changed places after the entries were read.
    pub fn moved(&mut self, one: Database, other: Database) {
        let database = self.database.after_swap(one, other);
        self.moved |= database != self.database;
        self.database = database;
    }
}

impl Engine {
    /// New stream registrations: looks for streams that exist.
    pub fn streams_registered(&self, registrations: &[RegistrationNo]) {
        for number in registrations {
            let streams = {
                let registrations = self.registrations.borrow();
                let Some(registration) = registrations.get(*number) else { continue };
                let Trigger::Stream { batch, duration_ms, on_failed, retry_interval_s, trim, .. } =
                    &registration.trigger
                else {
                    continue;
                };
                let sessions = self.sessions.borrow();
                let Some(session) = sessions.get(&registration.session) else { continue };
                let source = Source {
                    registration: *number,
                    actor: Actor { user: Rc::clone(&session.user), database: registration.database },
                    group: registration.group.clone().into_bytes(),
                    trim: *trim,
                };
                let runs = StreamRuns::new(*batch, *duration_ms, *on_failed, *retry_interval_s);
                Streams { source: Rc::new(source), runs }
            };
            self.streams.borrow_mut().insert(*number, streams);
            self.search_streams(*number, b"0".to_vec());
        }
    }

    /// The server became a master or a replica: a new master reads what the old one left.
    pub fn role_changed(&self) {
        let numbers: Vec<RegistrationNo> = self.streams.borrow().keys().copied().collect();
        for streams in self.streams.borrow_mut().values_mut() {
            streams.runs.reset();
        }
        self.streams_revived(&numbers);
    }

    /// The data of two databases changed places: the registrations of both look for the streams that are there now. A
    /// batch that was read is acknowledged where its entries are now.
    pub fn databases_swapped(&self, one: Database, other: Database) {
        if one == other {
            return;
        }
        for live in self.live.borrow_mut().values_mut() {
            live.stream_moved(one, other);
        }
        self.held.borrow_mut().swapped(one, other);
        let mut changed = Vec::new();
        for (number, streams) in &mut *self.streams.borrow_mut() {
            if [one, other].contains(&streams.source.actor.database) {
                streams.runs.reset_if_ok();
                changed.push(*number);
            }
        }
        // Inside a command nothing is read.
        self.server.after_ms(0, move || {
            if let Some(engine) = engine() {
                engine.streams_revived(&changed);
            }
        });
    }

    /// The worker of these registrations is back: what was not acknowledged is read again.
    pub fn streams_revived(&self, registrations: &[RegistrationNo]) {
        for number in registrations {
            if self.streams.borrow().contains_key(number) {
                self.search_streams(*number, b"0".to_vec());
            }
        }
    }

    /// The name of what a stream registration is doing.
    pub fn stream_status(&self, number: RegistrationNo) -> &'static str {
        self.streams.borrow().get(&number).map_or("OK", |streams| streams.runs.status().name())
    }

    /// One step of the search for streams that a registration watches, and the following ones a turn later each.
    fn search_streams(&self, number: RegistrationNo, cursor: Vec<u8>) {
        let Some(database) = self.streams.borrow().get(&number).map(|streams| streams.source.actor.database) else {
            return;
        };
        if self.server.flags().replica() {
            return;
        }
        let step = || {
            if !self.may_work() {
                return Some(cursor.clone());
            }
            let reply = self.read(database, &[b"scan", &cursor, b"count", SEARCH_STEP, b"type", b"stream"]).ok()?;
            let view = reply.view();
            let next = view.element(0)?.bytes().to_vec();
            let keys: Vec<Vec<u8>> = view.element(1)?.elements().map(|key| key.bytes().to_vec()).collect();
            for key in keys {
                self.stream_found(number, database, &key, false);
            }
            (next != b"0").then_some(next)
        };
        if let Some(next) = step() {
            self.server.after_ms(1, move || {
                if let Some(engine) = engine() {
                    engine.search_streams(number, next);
                }
            });
        }
    }

    fn stream_found(&self, number: RegistrationNo, database: Database, key: &[u8], by_entry: bool) {
        let watched = self.registrations.borrow().for_stream(database, key).contains(&number);
        let (kind, len) = if watched { self.key_kind(database, key) } else { return };
        if kind != KeyKind::Stream {
            return;
        }
        let now = self.now_ms();
        self.stream_change(number, |runs| runs.found(key, len as u64, by_entry, now));
    }

    /// Tells the runs of a registration of something, and does what they decide.
    fn stream_change(&self, number: RegistrationNo, change: impl FnOnce(&mut StreamRuns) -> Option<Action>) {
        let action = self.streams.borrow_mut().get_mut(&number).and_then(|streams| change(&mut streams.runs));
        self.stream_act(number, action);
    }

    /// An entry was added to a stream, or a key may have become another stream.
    pub fn stream_event(&self, database: Database, key: &[u8], added: bool) {
        let watching = self.registrations.borrow().for_stream(database, key);
        let now = self.now_ms();
        for number in watching {
            // What a sync stream function adds is read with a later event by registrations of its kind.
            if self.in_sync_streams.get() && self.is_sync(number) {
                continue;
            }
            let known = self.streams.borrow().get(&number).is_some_and(|streams| streams.runs.knows(key));
            if !added {
                let (kind, len) = self.key_kind(database, key);
                if kind == KeyKind::Stream {
                    self.stream_change(number, |runs| runs.replaced(key, len as u64, now));
                }
            } else if known {
                self.stream_change(number, |runs| runs.entry(key, now));
            } else {
                self.stream_found(number, database, key, true);
            }
        }
    }

    fn is_sync(&self, number: RegistrationNo) -> bool {
        let registrations = self.registrations.borrow();
        registrations.get(number).is_some_and(|registration| registration.spec.mode == Mode::Sync)
    }

    /// Does what the runs of a registration decided.
    pub fn stream_act(&self, number: RegistrationNo, action: Option<Action>) {
        match action {
            None => {}
            Some(run @ Action::Run { .. }) if self.server.must_not_replicate() => {
                // Reading through a group is a write: it waits until clients are not paused any more.
                self.server.after_ms(RETRY_MS, move || {
                    if let Some(engine) = engine() {
                        engine.stream_act(number, Some(run));
                    }
                });
            }
            Some(Action::Run { stream, kind, epoch }) => {
                let source = self.streams.borrow().get(&number).map(|streams| Rc::clone(&streams.source));
                let Some(source) = source else { return };
                let run = StreamRun {
                    database: source.actor.database,
                    source,
                    stream,
                    kind,
                    epoch,
                    ids: Vec::new(),
                    worker_died: false,
                    moved: false,
                };
                self.count_triggered(number);
                let Some(execution) = self.new_triggered(number, None, Input::Stream(run), false) else { return };
                if self.is_sync(number) { self.run_stream_sync(execution) } else { self.fire(execution) }
            }
            Some(Action::Timer { stream, at_ms, epoch }) => {
                self.server.after_ms(at_ms.saturating_sub(self.now_ms()), move || {
                    let Some(engine) = engine() else { return };
                    let now = engine.now_ms();
                    let action = engine
                        .streams
                        .borrow_mut()
                        .get_mut(&number)
                        .and_then(|streams| streams.runs.timer(&stream, epoch, now));
                    engine.stream_act(number, action);
                });
            }
            Some(Action::Rescan { at_ms, epoch }) => {
                self.server.after_ms(at_ms.saturating_sub(self.now_ms()), move || {
                    let Some(engine) = engine() else { return };
                    let due =
                        engine.streams.borrow_mut().get_mut(&number).is_some_and(|streams| streams.runs.retry(epoch));
                    if due {
                        engine.search_streams(number, b"0".to_vec());
                    }
                });
            }
        }
    }

    /// Runs a sync stream execution: behind the command that fired it, so that replicas see its effects after the entry
    /// itself. What a run starts in its turn waits for its end.
    fn run_stream_sync(&self, execution: ExecutionNo) {
        self.sync_streams.borrow_mut().push_back(execution);
        if self.in_notification.get() {
            self.run_after_command(SyncRun::Streams, Walk::No);
        } else {
            self.run_sync_streams();
        }
    }

    /// Runs sync stream executions that wait, one after the other.
    pub fn run_sync_streams(&self) {
        if self.in_sync_streams.replace(true) {
            return;
        }
        let deadline = std::time::Instant::now() + SYNC_SLICE;
        loop {
            let Some(execution) = self.sync_streams.borrow_mut().pop_front() else { break };
            self.run_sync(execution, true);
            // What an entry caused is done at once; a backlog leaves others their turn.
            if std::time::Instant::now() >= deadline {
                self.server.after_ms(0, || {
                    if let Some(engine) = engine() {
                        engine.run_sync_streams();
                    }
                });
                break;
            }
        }
        self.in_sync_streams.set(false);
    }

    /// A run ended: acknowledges, and starts what comes next.
    pub fn stream_run_ended(&self, run: StreamRun, outcome: &Outcome) {
        let first_error = outcome.errors.first();
        let end = match first_error {
            Some(error) if error.starts_with(b"PAUSE ") || error == b"PAUSE" => End::Pause,
            Some(_) => End::Failure,
            None if outcome.status == redgrease_core::execution::Status::Aborted => End::Aborted,
            None => End::Success,
        };
        let paused_server = first_error.is_some_and(|error| error.starts_with(b"PAUSED "));
        if run.worker_died || paused_server {
            return self.stream_interrupted(&run, paused_server);
        }
        let number = run.source.registration;
        if run.moved {
            if end == End::Success && !run.ids.is_empty() {
                self.acknowledge(Acknowledgement::new(run, None));
            }
            return;
        }
        let read = run.ids.len() as u64;
        let now = self.now_ms();
        let ended = self
            .streams
            .borrow_mut()
            .get_mut(&number)
            .map(|streams| streams.runs.ended(&run.stream, run.epoch, end, read, now));
        // An unregistered stream's last batch is acknowledged like any other (`RDR-STREAM-27`).
        let acknowledge = ended.as_ref().map_or(end == End::Success, |(verdict, _)| verdict.acknowledge);
        if let Some(lag) = ended.as_ref().and_then(|(verdict, _)| verdict.lag_ms)
            && let Some(registration) = self.registrations.borrow_mut().get_mut(number)
        {
            registration.statistics.lagged(lag);
        }
        let next = ended.and_then(|(_, action)| action);
        if acknowledge && !run.ids.is_empty() {
            self.acknowledge(Acknowledgement::new(run, next));
        } else {
            self.stream_act(number, next);
        }
    }

    /// The entries of a run are still to be processed: all is read again.
    fn stream_interrupted(&self, run: &StreamRun, search: bool) {
        if let Some(streams) = self.streams.borrow_mut().get_mut(&run.source.registration) {
            streams.runs.reset();
        }
        if search {
            let number = run.source.registration;
            self.server.after_ms(RETRY_MS, move || {
                if let Some(engine) = engine() {
                    engine.search_streams(number, b"0".to_vec());
                }
            });
        }
    }

    /// Starts executions that notifications asked for.
    pub fn start_fired(&self) {
        let fired: VecDeque<ExecutionNo> = std::mem::take(&mut *self.fired.borrow_mut());
        for execution in fired {
            self.begin(execution);
        }
    }
}
