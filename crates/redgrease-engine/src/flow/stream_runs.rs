//! Running stream registrations: finding streams, running over their entries, and the end of a run.

use redgrease_core::id::{Database, ExecutionNo, RegistrationNo};
use redgrease_core::plan::{Mode, Trigger};

use crate::asked::Asked;
use crate::effect::{Effect, GroupPosition, GroupRead, Question};
use crate::engine::Engine;
use crate::error::Error;
use crate::executions::execution::Status;
use crate::executions::live::{GroupStep, Interruption, Launch, Source};
use crate::executions::outcome::Outcome;
use crate::input::{Actor, GroupPart, StreamChange};
use crate::limits::{ENTRIES_PER_COMMAND, PAUSED_RETRY_MS, STEP_MS};
use crate::planted::Bug;
use crate::prelude::*;
use crate::reader::Reader;
use crate::streams::batch::Batch;
use crate::streams::run::{Followed, StreamRun, StreamSource};
use crate::streams::runs::{Action, End, Left, RunKind, StreamRuns, StreamStatus};
use crate::timers::Timer;
use redgrease_core::codec::KeyType;

impl Engine {
    /// New stream registrations: searches for existing streams.
    pub(crate) fn follow_streams(&mut self, registrations: &[RegistrationNo]) {
        for number in registrations {
            let Some(registration) = self.registrations.get(*number) else { continue };
            let Trigger::Stream { batch, duration_ms, on_failed, retry_interval_s, trim, .. } = &registration.trigger
            else {
                continue;
            };
            let Some(session) = self.sessions.get(registration.session) else { continue };
            let source = StreamSource {
                registration: *number,
                actor: Actor { user: Rc::clone(&session.user), database: registration.database },
                group: registration.group.clone().into_bytes(),
                trim: *trim,
            };
            let runs = StreamRuns::new(*batch, *duration_ms, *on_failed, *retry_interval_s);
            self.streams.insert(*number, Followed { source: Rc::new(source), runs });
            self.search_streams(*number, b"0".to_vec());
        }
    }

    /// The server became a master or a replica: a new master reads what the old one had not processed.
    pub(crate) fn role_changed(&mut self) {
        let numbers: Vec<RegistrationNo> = self.streams.keys().copied().collect();
        self.streams.values_mut().for_each(|followed| followed.runs.reset());
        self.follow_again(&numbers);
    }

    /// The data of two databases was swapped: the registrations of both search for streams again. A
    /// batch that was read is acknowledged in the database where its entries are now.
    pub(crate) fn databases_swapped(&mut self, one: Database, other: Database) {
        if one == other {
            return;
        }
        for live in self.live.values_mut() {
            if let Some(run) = &mut live.stream_run {
                run.swapped(one, other);
            }
        }
        self.held.swapped(one, other);
        let mut changed = Vec::new();
        for (number, followed) in &mut self.streams {
            if [one, other].contains(&followed.source.actor.database) {
                followed.runs.reset_if_ok();
                changed.push(*number);
            }
        }
        // Nothing is read inside a command.
        self.after_ms(0, Timer::StreamsRevived(changed));
    }

    /// Entries that were not acknowledged are read again.
    pub(crate) fn follow_again(&mut self, registrations: &[RegistrationNo]) {
        for number in registrations {
            if self.streams.contains_key(number) {
                self.search_streams(*number, b"0".to_vec());
            }
        }
    }

    /// One step of the search for streams that a registration watches; each further step runs in a later turn.
    pub(crate) fn search_streams(&mut self, number: RegistrationNo, cursor: Vec<u8>) {
        let Some(database) = self.streams.get(&number).map(|followed| followed.source.actor.database) else { return };
        if self.at.server.replica {
            return;
        }
        if !Engine::may_work(&self.at) {
            return self.after_ms(STEP_MS, Timer::StreamSearch(number, cursor));
        }
        self.out.push(Effect::SearchStreams { registration: number, database, cursor });
    }

    /// A step of a search found keys.
    pub(crate) fn streams_found(&mut self, number: RegistrationNo, keys: &[Vec<u8>], next: Option<Vec<u8>>) {
        let Some(database) = self.streams.get(&number).map(|followed| followed.source.actor.database) else { return };
        for key in keys {
            self.stream_found(number, database, key, false);
        }
        if let Some(next) = next {
            self.after_ms(STEP_MS, Timer::StreamSearch(number, next));
        }
    }

    fn stream_found(&mut self, number: RegistrationNo, database: Database, key: &[u8], by_entry: bool) {
        if self.registrations.for_stream(database, key).contains(&number) {
            let asked = Asked::StreamFound { registration: number, key: key.to_vec(), by_entry };
            self.ask(Question::Key { database, key: key.to_vec() }, asked);
        }
    }

    /// A key that may be a stream was examined.
    pub(crate) fn found_stream_seen(
        &mut self,
        number: RegistrationNo,
        key: &[u8],
        by_entry: bool,
        (kind, len): (KeyType, u64),
    ) {
        let now = self.now_ms();
        if kind == KeyType::Stream {
            self.change_runs(number, |runs| runs.found(key, len, by_entry, now));
        }
    }

    /// The same, for a key that was replaced.
    pub(crate) fn replaced_stream_seen(&mut self, number: RegistrationNo, key: &[u8], (kind, len): (KeyType, u64)) {
        let now = self.now_ms();
        if kind == KeyType::Stream {
            self.change_runs(number, |runs| runs.replaced(key, len, now));
        }
    }

    /// Updates the runs of a registration, and carries out their decisions.
    fn change_runs(&mut self, number: RegistrationNo, change: impl FnOnce(&mut StreamRuns) -> Option<Action>) {
        let action = self.streams.get_mut(&number).and_then(|followed| change(&mut followed.runs));
        self.act(number, action);
    }

    /// An entry was added to a stream, or a key may have become another stream.
    pub(crate) fn stream_changed(&mut self, database: Database, key: &[u8], change: StreamChange) {
        if !self.hears_events() {
            return;
        }
        let now = self.now_ms();
        for number in self.registrations.for_stream(database, key) {
            // Entries that a sync stream function adds are read with a later event by registrations of its kind.
            if self.sync.streams_running && self.is_sync(number) {
                continue;
            }
            let known = self.streams.get(&number).is_some_and(|followed| followed.runs.knows(key));
            match change {
                StreamChange::Replaced => {
                    let asked = Asked::StreamReplaced { registration: number, key: key.to_vec() };
                    self.ask(Question::Key { database, key: key.to_vec() }, asked);
                }
                StreamChange::Added if known => self.change_runs(number, |runs| runs.entry(key, now)),
                StreamChange::Added => self.stream_found(number, database, key, true),
            }
        }
    }

    fn can_run(&self, number: RegistrationNo) -> bool {
        let session = self.registrations.get(number).and_then(|registration| self.sessions.get(registration.session));
        session.is_some_and(|session| session.up_in().is_some())
    }

    fn is_sync(&self, number: RegistrationNo) -> bool {
        self.registrations.get(number).is_some_and(|registration| registration.spec.mode == Mode::Sync)
    }

    /// Carries out the decision of a registration's runs.
    pub(crate) fn act(&mut self, number: RegistrationNo, action: Option<Action>) {
        match action {
            None => {}
            Some(run @ Action::Run { .. }) if self.at.server.paused => {
                // Reading through a group is a write: it waits until clients are no longer paused.
                self.after_ms(PAUSED_RETRY_MS, Timer::StreamAction(number, run));
            }
            Some(Action::Run { stream, kind, epoch }) => self.run_over_stream(number, stream, kind, epoch),
            Some(Action::Timer { stream, at_ms, epoch }) => {
                let ms = at_ms.saturating_sub(self.now_ms());
                self.after_ms(ms, Timer::StreamDuration { registration: number, stream, epoch });
            }
            Some(Action::Rescan { at_ms, epoch }) => {
                let ms = at_ms.saturating_sub(self.now_ms());
                self.after_ms(ms, Timer::StreamRetry { registration: number, epoch });
            }
        }
    }

    /// The time to wait for further entries has passed.
    pub(crate) fn stream_duration_expired(&mut self, number: RegistrationNo, stream: &[u8], epoch: u64) {
        let now = self.now_ms();
        self.change_runs(number, |runs| runs.timer(stream, epoch, now));
    }

    /// A failed batch is retried.
    pub(crate) fn stream_retry(&mut self, number: RegistrationNo, epoch: u64) {
        if self.streams.get_mut(&number).is_some_and(|followed| followed.runs.retry(epoch)) {
            self.search_streams(number, b"0".to_vec());
        }
    }

    fn run_over_stream(&mut self, number: RegistrationNo, stream: Vec<u8>, kind: RunKind, epoch: u64) {
        let Some(source) = self.streams.get(&number).map(|followed| Rc::clone(&followed.source)) else { return };
        let database = source.actor.database;
        let run = StreamRun { database, source, stream, kind, epoch, ids: Vec::new(), gone: 0, moved: false };
        self.count_triggered(number);
        let Some(execution) = self.new_triggered(number, None, Source::Stream(run), false) else { return };
        if self.is_sync(number) {
            self.sync_stream_execution(execution);
        } else {
            self.fired.push_back(execution);
        }
    }

    /// Reads a part of the entries that an execution runs over.
    pub(crate) fn read_group(&mut self, number: ExecutionNo) {
        let (replica, paused) = (self.at.server.replica, self.at.server.paused);
        let reads_stale = self.planted(Bug::StaleRunReads);
        let Some(live) = self.live.get_mut(&number) else { return };
        let Some(run) = &live.stream_run else { return };
        let most = ENTRIES_PER_COMMAND as u64;
        let wanted = match run.kind {
            RunKind::Pending => most,
            RunKind::Batch(batch) => batch.saturating_sub(run.ids.len() as u64).min(most),
        };
        let position = match run.kind {
            RunKind::Batch(_) => GroupPosition::New,
            RunKind::Pending => GroupPosition::Pending(run.ids.last().copied()),
        };
        let actor = Actor { user: Rc::clone(&run.source.actor.user), database: run.database };
        let read =
            GroupRead { actor, stream: run.stream.clone(), group: run.source.group.clone(), position, count: wanted };
        live.group_step = Some(GroupStep { wanted, read: 0, count: 0 });
        let (registration, epoch) = (run.source.registration, run.epoch);
        // A new search for streams has started: a run of that search may have read the pending entries, and would
        // miss those that this one reads now.
        let is_stale = self.streams.get(&registration).is_some_and(|followed| !followed.runs.is_current(epoch));
        if replica || (is_stale && !reads_stale) {
            return self.group_part_done(number, 0, false);
        }
        if paused {
            live.interruption = Some(Interruption::ServerPaused);
            return self.group_failed(number, Error::Paused.into());
        }
        self.out.push(Effect::ReadGroup { execution: number, read });
    }

    /// A part was read.
    pub(crate) fn group_read(&mut self, number: ExecutionNo, part: Result<Option<GroupPart>, String>) {
        let part = match part {
            Ok(Some(part)) => part,
            Ok(None) => return self.group_part_done(number, 0, false),
            Err(reason) => return self.group_failed(number, reason),
        };
        let gone = match self.planted(Bug::DeletedEntriesCounted) {
            true => 0,
            false => part.read.saturating_sub(part.count + part.errors.len() as u64),
        };
        // Only the first error is recorded: one per entry may be too many.
        if let Some(reason) = part.errors.into_iter().next() {
            self.add_error(number, reason.into_bytes());
        }
        let Some(live) = self.live.get_mut(&number) else { return };
        let (Some(run), Some(step)) = (&mut live.stream_run, &mut live.group_step) else { return };
        run.ids.extend(part.ids);
        run.gone += gone;
        (step.read, step.count) = (part.read, part.count);
        live.gathered.count += part.count;
        live.gathered.bytes.extend_from_slice(&part.records);
        let full = step.read == step.wanted && step.wanted > 0;
        let complete = run.is_complete();
        let (read, registration) = (step.read, run.source.registration);
        if full && complete {
            let followed = self.streams.get(&registration);
            let look = followed.and_then(|followed| followed.runs.look_ahead(&run.stream, read));
            if let (Some(look), Some(after)) = (look, run.ids.last().copied()) {
                let (database, stream) = (run.database, run.stream.clone());
                let about =
                    Question::EntriesAfter { database, stream, after, max: look.min(ENTRIES_PER_COMMAND as u64) };
                return self.ask(about, Asked::EntriesBehind(number));
            }
        }
        let left = if full { Left::Unknown } else { Left::Exactly(0) };
        self.part_is_known(number, left);
    }

    /// The entries after a batch were counted, up to a number.
    pub(crate) fn entries_behind_known(&mut self, number: ExecutionNo, found: Option<u64>) {
        let Some(run) = self.live.get(&number).and_then(|live| live.stream_run.as_ref()) else { return };
        let read = self.live.get(&number).and_then(|live| live.group_step).map_or(0, |step| step.read);
        let followed = self.streams.get(&run.source.registration);
        let look = followed.and_then(|followed| followed.runs.look_ahead(&run.stream, read)).unwrap_or(0);
        let look = look.min(ENTRIES_PER_COMMAND as u64);
        let left = match found {
            Some(found) if found < look => Left::Exactly(found),
            Some(found) => Left::AtLeast(found),
            None => Left::Unknown,
        };
        self.part_is_known(number, left);
    }

    fn part_is_known(&mut self, number: ExecutionNo, left: Left) {
        let Some(live) = self.live.get(&number) else { return };
        let (Some(run), Some(step)) = (&live.stream_run, live.group_step) else { return };
        let complete = run.is_complete();
        let more = step.read == step.wanted && step.wanted > 0 && !complete;
        let (stream, epoch) = (run.stream.clone(), run.epoch);
        if let Some(followed) = self.streams.get_mut(&run.source.registration) {
            followed.runs.read(&stream, epoch, step.read, left);
        }
        self.group_part_done(number, step.count, more);
    }

    /// A part of the entries is available: it starts the execution, or is sent to it. Sync executions start with all of
    /// them.
    fn group_part_done(&mut self, number: ExecutionNo, count: u64, more: bool) {
        let Some(live) = self.live.get_mut(&number) else { return };
        if live.started {
            let gathered = core::mem::take(&mut live.gathered);
            if !more || count > 0 {
                self.feed(number, !more, gathered.count, &gathered.bytes);
            }
            if more {
                self.readers.add(number);
            }
            return;
        }
        if more && live.launch != Launch::Async {
            return self.read_group(number);
        }
        if more {
            live.source = Source::Reader(Some(Reader::Group));
        }
        if more || live.gathered.count > 0 {
            self.launch(number, !more);
        } else {
            // Entries that were deleted while they waited become no records.
            self.finish(number, Status::Done);
        }
    }

    fn group_failed(&mut self, number: ExecutionNo, reason: String) {
        let Some(live) = self.live.get(&number) else { return };
        if live.started {
            // The reader ends; what it read before is processed.
            self.add_error(number, reason.into_bytes());
            self.feed(number, true, 0, &[]);
        } else {
            self.end_with_error(number, reason);
        }
    }

    /// A run ended: acknowledges, and starts what comes next.
    pub(crate) fn stream_run_ended(&mut self, run: StreamRun, outcome: &Outcome, interruption: Option<Interruption>) {
        let number = run.source.registration;
        if interruption == Some(Interruption::NotRun) && self.planted(Bug::UnreadStreamForgotten) {
            return;
        }
        if let Some(interruption) = interruption {
            // The entries are still to be processed: the streams are searched for again.
            let kept = interruption == Interruption::WorkerDied && self.planted(Bug::StreamsNotReset);
            if let Some(followed) = self.streams.get_mut(&number).filter(|_| !kept) {
                followed.runs.reset();
            }
            // A session without worker searches again when it is rebuilt.
            if interruption == Interruption::ServerPaused
                || (interruption == Interruption::NotRun && self.can_run(number))
            {
                self.after_ms(PAUSED_RETRY_MS, Timer::StreamSearch(number, b"0".to_vec()));
            }
            return;
        }
        let end = match outcome.errors.first() {
            // A function can pause its registration with such an error.
            Some(error) if error.starts_with(b"PAUSE ") || error == b"PAUSE" => End::Pause,
            Some(_) => End::Failure,
            None if outcome.status == Status::Aborted => End::Aborted,
            None => End::Success,
        };
        if run.moved {
            if end == End::Success && !run.ids.is_empty() {
                self.acknowledge(Batch::new(run, None));
            }
            return;
        }
        // Deleted entries were not among those that were counted in the stream.
        let (read, now) = ((run.ids.len() as u64).saturating_sub(run.gone), self.now_ms());
        let ended =
            self.streams.get_mut(&number).map(|followed| followed.runs.ended(&run.stream, run.epoch, end, read, now));
        // The last batch of a removed registration is acknowledged like any other.
        let acknowledge = ended.as_ref().map_or(end == End::Success, |(verdict, _)| verdict.acknowledge);
        if let Some(lag) = ended.as_ref().and_then(|(verdict, _)| verdict.lag_ms)
            && let Some(registration) = self.registrations.get_mut(number)
        {
            registration.statistics.lagged(lag);
        }
        if self.streams.get(&number).is_some_and(|followed| followed.runs.status() != StreamStatus::Ok) {
            // It was stopped: runs over other streams do not begin.
            self.abort_pending(number);
        }
        let next = ended.and_then(|(_, action)| action);
        if acknowledge && !run.ids.is_empty() {
            self.acknowledge(Batch::new(run, next));
        } else {
            self.act(number, next);
        }
    }
}
