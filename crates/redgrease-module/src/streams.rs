//! Stream registrations at work: reading through the consumer group, acknowledging, trimming.

use std::collections::VecDeque;

use redgrease_core::codec::Writer;
use redgrease_core::id::{Database, ExecutionNo, RegistrationNo};
use redgrease_core::plan::{Mode, Trigger};
use redgrease_core::stream::{Action, End, RunKind, StreamRuns};
use redgrease_ffi::call::ReplyKind;
use redgrease_ffi::keyspace::KeyKind;
use redgrease_ffi::{CallOptions, CallReply, LogLevel};

use crate::engine::{Engine, engine};
use crate::events::{SyncRun, Walk};
use crate::runs::{Input, Outcome};

/// Names that RedisGears gave its group and consumer: data files hold them (`RDR-STREAM-13`).
const GROUP: &[u8] = b"__gears_consumer_group__";
const CONSUMER: &[u8] = b"__gears_client__";

/// Keys that one step of the search for streams looks at.
const SEARCH_STEP: &[u8] = b"500";

/// Time that one go at sync stream executions takes before others have their turn.
pub const SYNC_SLICE: std::time::Duration = std::time::Duration::from_millis(5);

/// Pause before an acknowledgement is tried again while clients are paused, in milliseconds.
const ACK_RETRY_MS: u64 = 20;

/// Times that an acknowledgement is tried while clients are paused: ten minutes.
const ACK_RETRIES_MAX: u32 = 30_000;

/// The streams of one registration.
pub struct Streams {
    database: Database,
    runs: StreamRuns,
}

/// One run over entries of a stream.
#[derive(Debug, Clone)]
pub struct StreamRun {
    registration: RegistrationNo,
    database: Database,
    stream: Vec<u8>,
    kind: RunKind,
    epoch: u64,
    ids: Vec<Vec<u8>>,
    /// Why an entry of it could not become a record.
    pub refused: Option<String>,
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
                let Trigger::Stream { batch, duration_ms, on_failed, retry_interval_s, .. } = &registration.trigger
                else {
                    continue;
                };
                let runs = StreamRuns::new(*batch, *duration_ms, *on_failed, *retry_interval_s);
                Streams { database: registration.database, runs }
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
        let mut changed = Vec::new();
        for (number, streams) in &mut *self.streams.borrow_mut() {
            if streams.database == one || streams.database == other {
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
        let Some(database) = self.streams.borrow().get(&number).map(|streams| streams.database) else { return };
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
        if !watched {
            return;
        }
        let (kind, len) = self.key_kind(database, key);
        if kind != KeyKind::Stream {
            return;
        }
        let now = self.now_ms();
        let action = self
            .streams
            .borrow_mut()
            .get_mut(&number)
            .and_then(|streams| streams.runs.found(key, len as u64, by_entry, now));
        self.stream_act(number, action);
    }

    /// An entry was added to a stream.
    pub fn stream_entry(&self, database: Database, key: &[u8]) {
        let watching = self.registrations.borrow().for_stream(database, key);
        let now = self.now_ms();
        for number in watching {
            let known = self.streams.borrow().get(&number).is_some_and(|streams| streams.runs.knows(key));
            if known {
                let action =
                    self.streams.borrow_mut().get_mut(&number).and_then(|streams| streams.runs.entry(key, now));
                self.stream_act(number, action);
            } else {
                self.stream_found(number, database, key, true);
            }
        }
    }

    fn stream_act(&self, number: RegistrationNo, action: Option<Action>) {
        match action {
            None => {}
            Some(run @ Action::Run { .. }) if self.server.must_not_replicate() => {
                // Reading through a group is a write: it waits until clients are not paused any more.
                self.server.after_ms(ACK_RETRY_MS, move || {
                    if let Some(engine) = engine() {
                        engine.stream_act(number, Some(run));
                    }
                });
            }
            Some(Action::Run { stream, kind, epoch }) => {
                let Some(database) = self.streams.borrow().get(&number).map(|streams| streams.database) else { return };
                let run = StreamRun {
                    registration: number,
                    database,
                    stream,
                    kind,
                    epoch,
                    ids: Vec::new(),
                    refused: None,
                    worker_died: false,
                    moved: false,
                };
                self.count_triggered(number);
                let Some(execution) = self.new_triggered(number, None, Input::Stream(run), false) else { return };
                let sync = self
                    .registrations
                    .borrow()
                    .get(number)
                    .is_some_and(|registration| registration.spec.mode == Mode::Sync);
                if sync { self.run_stream_sync(execution) } else { self.fire(execution) }
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

    /// Reads the entries of a run: their number and encoded records.
    pub fn read_stream_run(&self, run: &mut StreamRun) -> Result<(u64, Vec<u8>), String> {
        if self.server.flags().replica() {
            return Ok((0, Vec::new()));
        }
        let mut groups_made = 0;
        let reply = loop {
            let reply = match run.kind {
                RunKind::Pending => self.group_read(run, &[], b"0"),
                RunKind::Batch(count) => self.group_read(run, &[b"count", count.to_string().as_bytes()], b">"),
            };
            match reply {
                Ok(reply) => break reply,
                Err(error) if error.starts_with("NOGROUP") && groups_made == 0 => {
                    groups_made += 1;
                    if !self.make_group(run.database, &run.stream) {
                        return Ok((0, Vec::new()));
                    }
                }
                Err(error) => return Err(error),
            }
        };
        let mut writer = Writer::new();
        let mut count = 0;
        let entries = reply.view().element(0).and_then(|stream| stream.element(1));
        let mut refused = None;
        for entry in entries.iter().flat_map(|entries| entries.elements()) {
            run.ids.push(entry.element(0).map(|id| id.bytes().to_vec()).unwrap_or_default());
            match self.write_entry(&mut writer, &run.stream, entry) {
                // Deleted while it waited: nothing to run, but to acknowledge.
                Ok(written) => count += u64::from(written.is_some()),
                Err(reason) => refused = refused.or(Some(reason)),
            }
        }
        // Entries that cannot become records are errors of the run; the others are processed.
        if let Some(reason) = refused {
            if count == 0 {
                return Err(reason);
            }
            run.refused = Some(reason);
        }
        Ok((count, writer.into_bytes()))
    }

    fn group_read(&self, run: &StreamRun, options: &[&[u8]], from: &[u8]) -> Result<CallReply, String> {
        let mut argv: Vec<&[u8]> = vec![b"xreadgroup", b"group", GROUP, CONSUMER];
        argv.extend(options);
        argv.extend([b"streams".as_slice(), &run.stream, from]);
        self.write_command(run.database, &argv)
    }

    /// Makes the group; `false` when the stream is gone.
    fn make_group(&self, database: Database, stream: &[u8]) -> bool {
        self.write_command(database, &[b"xgroup", b"create", stream, GROUP, b"0"]).is_ok()
    }

    /// Runs a command of the engine's own that changes data.
    fn write_command(&self, database: Database, argv: &[&[u8]]) -> Result<CallReply, String> {
        if self.server.must_not_replicate() {
            return Err("PAUSED clients are paused".into());
        }
        let options = CallOptions { database: database.0, replicate: true, ..CallOptions::default() };
        let reply = self.muted(|| self.server.call(argv, options));
        let reply = reply.map_err(|_| "ERR the server did not run a command of the stream reader".to_owned())?;
        if reply.view().kind() == ReplyKind::Error {
            return Err(String::from_utf8_lossy(reply.view().bytes()).into_owned());
        }
        Ok(reply)
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
        if run.moved {
            if end == End::Success && !run.ids.is_empty() {
                self.acknowledge(run.database, run.stream, run.ids, false, 0);
            }
            return;
        }
        let read = run.ids.len() as u64;
        let now = self.now_ms();
        let ended = self
            .streams
            .borrow_mut()
            .get_mut(&run.registration)
            .map(|streams| streams.runs.ended(&run.stream, run.epoch, end, read, now));
        // An unregistered stream's last batch is acknowledged like any other (`RDR-STREAM-27`).
        let acknowledge = ended.as_ref().map_or(end == End::Success, |(verdict, _)| verdict.acknowledge);
        if let Some(lag) = ended.as_ref().and_then(|(verdict, _)| verdict.lag_ms)
            && let Some(registration) = self.registrations.borrow_mut().get_mut(run.registration)
        {
            registration.statistics.lagged(lag);
        }
        if acknowledge && !run.ids.is_empty() {
            let trim = match self.registrations.borrow().get(run.registration).map(|registration| &registration.trigger)
            {
                Some(Trigger::Stream { trim, .. }) => *trim,
                _ => false,
            };
            self.acknowledge(run.database, run.stream.clone(), run.ids, trim, 0);
        }
        self.stream_act(run.registration, ended.and_then(|(_, action)| action));
    }

    /// The entries of a run are still to be processed: all is looked at anew.
    fn stream_interrupted(&self, run: &StreamRun, search: bool) {
        if let Some(streams) = self.streams.borrow_mut().get_mut(&run.registration) {
            streams.runs.reset();
        }
        if search {
            let number = run.registration;
            self.server.after_ms(ACK_RETRY_MS, move || {
                if let Some(engine) = engine() {
                    engine.search_streams(number, b"0".to_vec());
                }
            });
        }
    }

    fn acknowledge(&self, database: Database, stream: Vec<u8>, ids: Vec<Vec<u8>>, trim: bool, tries: u32) {
        if self.server.flags().replica() {
            return;
        }
        if self.server.must_not_replicate() {
            if tries >= ACK_RETRIES_MAX {
                self.server.log(LogLevel::Warning, "rg: a batch was not acknowledged: clients are paused for too long");
                return;
            }
            return self.server.after_ms(ACK_RETRY_MS, move || {
                if let Some(engine) = engine() {
                    engine.acknowledge(database, stream, ids, trim, tries + 1);
                }
            });
        }
        let acknowledge: [&[u8]; 3] = [b"xack", &stream, GROUP];
        // Entries are removed by their ids: trimming by length would take what others added (`RDR-STREAM-19`).
        let remove: [&[u8]; 2] = [b"xdel", &stream];
        let commands = [Some(acknowledge.as_slice()), trim.then_some(remove.as_slice())];
        for head in commands.into_iter().flatten() {
            let mut argv = head.to_vec();
            argv.extend(ids.iter().map(Vec::as_slice));
            if let Err(reason) = self.write_command(database, &argv) {
                let name = String::from_utf8_lossy(head[0]).into_owned();
                self.server.log(
                    LogLevel::Warning,
                    &format!("rg: {name} on stream '{}': {reason}", String::from_utf8_lossy(&stream)),
                );
            }
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
