//! Executions: from their creation over their worker to their end.

use std::collections::HashSet;
use std::rc::Rc;

use redgrease_core::codec::Writer;
use redgrease_core::error_text::cut_error;
use redgrease_core::execution::Status;
use redgrease_core::frame::{Records, StartFlags, ToWorker};
use redgrease_core::id::{Database, ExecutionNo, PlanNo, RegistrationNo, SessionNo, WorkerNo};
use redgrease_core::plan::{NativePlan, PlanSpec, RunReader, Trigger};
use redgrease_core::render::Style;
use redgrease_core::schedule::Decision;

use crate::engine::{Actor, Engine, UserName, engine};
use crate::readers::{Reader, Scan, StreamRange};
use crate::stream_groups::Part;
use crate::streams::StreamRun;
use crate::supervisor::Chain;
use crate::worker::Worker;

/// Executions that one session may have waiting for its worker to come back.
const HELD_MAX: usize = 100_000;

/// Time between two ticks of the schedule while a worker waits, in milliseconds.
const TICK_MS: u64 = 100;

/// The deepest nesting of sync executions.
const SYNC_DEPTH_MAX: usize = 16;

/// How an execution ended, for those who wait for it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Done or aborted.
    pub status: Status,
    /// Encoded results.
    pub results: Vec<u8>,
    /// Error texts.
    pub errors: Vec<Vec<u8>>,
    /// How results are rendered.
    pub style: Style,
}

type EndFn = Box<dyn FnOnce(&Engine, Outcome)>;

/// Where an execution's records come from.
pub enum Input {
    /// The worker makes them.
    Worker,
    /// They are here, encoded.
    Records {
        /// Their number.
        count: u64,
        /// Their encoded form.
        bytes: Vec<u8>,
    },
    /// One key, read when the execution starts.
    Event {
        /// The key.
        key: Box<[u8]>,
        /// Name of the event.
        event: Rc<str>,
        /// Whether type and value are read.
        read_value: bool,
    },
    /// Read in slices.
    Reader(Reader),
    /// Entries of a stream, read when the execution starts.
    Stream(StreamRun),
}

/// What is needed to run an execution that has not ended.
pub struct Live {
    /// Its session.
    pub session: SessionNo,
    /// Whom its code acts as.
    pub user: UserName,
    /// The database that its reader and its code act in.
    pub database: Database,
    /// The plan's number in the session's worker.
    pub plan: PlanNo,
    /// The plan.
    pub spec: Rc<PlanSpec>,
    /// Executions of the same lane run one after the other; 0: none.
    pub lane: u64,
    /// Bytes of records that its worker has not consumed.
    pub unconsumed: u64,
    /// Where it runs.
    pub worker: Option<WorkerNo>,
    /// Its records.
    pub input: Input,
    native: Option<NativePlan>,
    flags: StartFlags,
    step: Option<u64>,
    started_ms: Option<u64>,
    drop_at_end: bool,
    from_pending: bool,
    ends: Vec<EndFn>,
    stream_run: Option<StreamRun>,
}

impl Live {
    /// As which user and in which database its reader reads.
    pub fn actor(&self) -> Actor {
        Actor { user: Rc::clone(&self.user), database: self.database }
    }

    /// Whether it runs over entries of a stream for that registration.
    pub fn reads_for(&self, registration: RegistrationNo) -> bool {
        let waiting = if let Input::Stream(run) = &self.input { Some(run) } else { None };
        self.stream_run.as_ref().or(waiting).is_some_and(|run| run.source.registration == registration)
    }

    /// The data of two databases changed places: entries of a stream that were read are in the other one.
    pub fn stream_moved(&mut self, one: Database, other: Database) {
        if let Some(run) = &mut self.stream_run {
            run.moved(one, other);
        }
    }
}

impl Engine {
    /// An execution that was run at once by a script or function.
    pub fn new_run(
        &self,
        session: SessionNo,
        plan: PlanNo,
        spec: PlanSpec,
        reader: RunReader,
        (user, database): (UserName, Database),
        style: Style,
    ) -> ExecutionNo {
        let native = spec.native();
        let (input, native) = match reader {
            RunReader::Worker => (Input::Worker, None),
            RunReader::Keys { pattern, no_scan, read_value } => {
                (Input::Reader(Reader::Scan(Scan::new(pattern, no_scan, read_value && native.is_none()))), native)
            }
            RunReader::Stream { key, from_id } => {
                (Input::Reader(Reader::Range(StreamRange::new(key, from_id))), native)
            }
        };
        let number = self.executions.borrow_mut().create(None, style);
        self.add_live(
            number,
            Live { native, ..self.live_of(session, (user, database), plan, Rc::new(spec), style, input) },
        );
        number
    }

    /// An execution of a registration; `None` when the registration or its session is gone. It acts in the database of
    /// the registration, unless its caller has one.
    pub fn new_triggered(
        &self,
        registration: RegistrationNo,
        database: Option<Database>,
        input: Input,
        tagged: bool,
    ) -> Option<ExecutionNo> {
        let (session, database, plan, spec, in_order) = {
            let registrations = self.registrations.borrow();
            let found = registrations.get(registration)?;
            let in_order = !matches!(found.trigger, Trigger::Command { in_order: false, .. });
            (found.session, database.unwrap_or(found.database), found.plan, Rc::clone(&found.spec), in_order)
        };
        let user = Rc::clone(&self.sessions.borrow().get(&session)?.user);
        let style = if tagged { spec.style.tagged() } else { spec.style };
        let number = self.executions.borrow_mut().create(Some(registration), style);
        let lane = if in_order { registration.0 + 1 } else { 0 };
        self.add_live(number, Live { lane, ..self.live_of(session, (user, database), plan, spec, style, input) });
        Some(number)
    }

    /// Counts something that fires a registration.
    pub fn count_triggered(&self, registration: RegistrationNo) {
        if let Some(registration) = self.registrations.borrow_mut().get_mut(registration) {
            registration.statistics.triggered += 1;
        }
    }

    /// The execution was taken from the events that wait: at its end the next one may be.
    pub fn mark_pending(&self, number: ExecutionNo) {
        if let Some(live) = self.live.borrow_mut().get_mut(&number) {
            live.from_pending = true;
        }
    }

    fn live_of(
        &self,
        session: SessionNo,
        (user, database): (UserName, Database),
        plan: PlanNo,
        spec: Rc<PlanSpec>,
        style: Style,
        input: Input,
    ) -> Live {
        let mut flags = StartFlags::default();
        if self.config.traceback {
            flags = flags.with(StartFlags::TRACEBACK);
        }
        if style.is_tagged() {
            flags = flags.with(StartFlags::TAGGED);
        }
        Live {
            session,
            user,
            database,
            plan,
            spec,
            lane: 0,
            unconsumed: 0,
            worker: None,
            input,
            native: None,
            flags,
            step: None,
            started_ms: None,
            drop_at_end: false,
            from_pending: false,
            ends: Vec::new(),
            stream_run: None,
        }
    }

    fn add_live(&self, number: ExecutionNo, live: Live) {
        self.session_use(live.session, 1);
        if let Some(execution) = self.executions.borrow_mut().get_mut(number) {
            execution.owner = Some(Rc::clone(&live.user));
        }
        self.live.borrow_mut().insert(number, live);
    }

    /// Has `end` called when the execution ends.
    pub fn on_end(&self, number: ExecutionNo, end: impl FnOnce(&Engine, Outcome) + 'static) {
        if let Some(live) = self.live.borrow_mut().get_mut(&number) {
            live.ends.push(Box::new(end));
        }
    }

    /// Nobody looks at the execution after its end.
    pub fn drop_at_end(&self, number: ExecutionNo) {
        if let Some(live) = self.live.borrow_mut().get_mut(&number) {
            live.drop_at_end = true;
        }
    }

    /// Takes the run over entries of a stream out of an execution, to read for it.
    pub fn take_stream_run(&self, number: ExecutionNo) -> Option<StreamRun> {
        self.live.borrow_mut().get_mut(&number)?.stream_run.take()
    }

    /// Puts it back.
    pub fn put_stream_run(&self, number: ExecutionNo, run: StreamRun) {
        if let Some(live) = self.live.borrow_mut().get_mut(&number) {
            live.stream_run = Some(run);
        }
    }

    /// Starts an execution as soon as may be.
    pub fn begin(&self, number: ExecutionNo) {
        let native = self.live.borrow().get(&number).is_some_and(|live| live.native.is_some());
        if native { self.begin_native(number) } else { self.enqueue(number) }
    }

    fn begin_native(&self, number: ExecutionNo) {
        self.executions.borrow_mut().start(number);
        let now = self.now_ms();
        let (size_asked, database) = {
            let mut live = self.live.borrow_mut();
            let Some(live) = live.get_mut(&number) else { return };
            live.started_ms = Some(now);
            (matches!(&live.input, Input::Reader(Reader::Scan(scan)) if scan.is_everything()), live.database)
        };
        if size_asked {
            match self.database_size(database) {
                Some(size) => self.finish_native(number, size),
                None => self.add_reader(number),
            }
        } else {
            self.add_reader(number);
        }
    }

    /// Ends a native count.
    pub fn finish_native(&self, number: ExecutionNo, count: u64) {
        let native = self.live.borrow().get(&number).and_then(|live| live.native);
        if let Some(execution) = self.executions.borrow_mut().get_mut(number)
            && let Some(native) = native
            && count > 0
        {
            execution.add_result(|writer| match native.as_text {
                true => writer.str(&count.to_string()),
                false => writer.int(count as i64),
            });
        }
        self.finish(number, Status::Done);
    }

    /// Whether the server itself does all that the plan asks for.
    pub fn is_native(&self, number: ExecutionNo) -> bool {
        self.live.borrow().get(&number).is_some_and(|live| live.native.is_some())
    }

    /// Queues an execution for its session's worker.
    pub fn enqueue(&self, number: ExecutionNo) {
        let Some(session_number) = self.live.borrow().get(&number).map(|live| live.session) else { return };
        let worker = {
            let mut sessions = self.sessions.borrow_mut();
            let Some(session) = sessions.get_mut(&session_number) else {
                drop(sessions);
                return self.end_with_error(number, "NOSESSION the session has ended");
            };
            match (session.worker, &session.broken) {
                (_, Some(reason)) => Err(reason.clone()),
                (Some(worker), None) if session.is_up() => Ok(worker),
                _ if session.held.len() < HELD_MAX => {
                    session.held.push(number);
                    return;
                }
                _ => Err(format!("WORKERDOWN more than {HELD_MAX} executions wait for the session's worker")),
            }
        };
        match worker {
            Ok(worker) => self.schedule(|schedule, decisions| schedule.enqueue(number, worker, decisions)),
            Err(reason) => self.end_with_error(number, &reason),
        }
    }

    fn tick_later(&self) {
        self.server.after_ms(TICK_MS, || {
            let Some(engine) = engine() else { return };
            engine.ticking.set(false);
            engine.schedule(|schedule, decisions| schedule.tick(decisions));
        });
    }

    fn schedule<T>(&self, change: impl FnOnce(&mut redgrease_core::schedule::Schedule, &mut Vec<Decision>) -> T) -> T {
        let mut decisions = Vec::new();
        let value = change(&mut self.schedule.borrow_mut(), &mut decisions);
        if self.schedule.borrow().wants_ticks() && !self.ticking.replace(true) {
            self.tick_later();
        }
        for decision in decisions {
            match decision {
                Decision::Start(number, worker) => self.start(number, worker),
                Decision::Threads(worker, threads) => {
                    if let Some(worker) = self.worker(worker) {
                        self.send(&worker, &ToWorker::Threads { threads: threads as u64 });
                    }
                }
            }
        }
        value
    }

    /// Sends an execution to its worker.
    fn start(&self, number: ExecutionNo, worker_number: WorkerNo) {
        let Some(worker) = self.worker(worker_number) else { return };
        let now = self.now_ms();
        let input = {
            let mut live = self.live.borrow_mut();
            let Some(live) = live.get_mut(&number) else { return };
            live.worker = Some(worker_number);
            live.started_ms = Some(now);
            match &mut live.input {
                // Stays where it is: slices are read from there.
                Input::Reader(_) => None,
                input => Some(std::mem::replace(input, Input::Worker)),
            }
        };
        match self.first_records(number, input, false) {
            Ok(Some((last, count, bytes))) => {
                self.send_start(&worker, number, last, StartFlags::default(), Records { count, bytes: &bytes });
                if !last {
                    self.add_reader(number);
                }
            }
            Ok(None) => self.finish(number, Status::Done),
            Err(reason) => self.end_with_error(number, &reason),
        }
    }

    /// The records that an execution starts with, and whether they are all, which they are when `whole` is asked for;
    /// `None` when it has nothing to do.
    fn first_records(
        &self,
        number: ExecutionNo,
        input: Option<Input>,
        whole: bool,
    ) -> Result<Option<(bool, u64, Vec<u8>)>, String> {
        match input {
            None => Ok(Some((false, 0, Vec::new()))),
            Some(Input::Worker | Input::Reader(_)) => Ok(Some((true, 0, Vec::new()))),
            Some(Input::Records { count, bytes }) => Ok(Some((true, count, bytes))),
            Some(Input::Event { key, event, read_value }) => {
                let mut writer = Writer::new();
                let actor = self.live.borrow().get(&number).map(Live::actor).ok_or("ERR the execution has ended")?;
                self.write_event_record(&mut writer, &actor, &key, event.as_bytes(), read_value)?;
                Ok(Some((true, 1, writer.into_bytes())))
            }
            Some(Input::Stream(run)) => {
                self.put_stream_run(number, run);
                let mut writer = Writer::new();
                let mut records = 0;
                let more = loop {
                    let part = self.read_stream_part(number, &mut writer)?;
                    records += part.records;
                    if !part.more || !whole {
                        break part.more;
                    }
                };
                if more && let Some(live) = self.live.borrow_mut().get_mut(&number) {
                    live.input = Input::Reader(Reader::Group);
                }
                // Entries that were deleted while they waited are no records.
                Ok((more || records > 0)
                    .then(|| (!more, records, if records > 0 { writer.into_bytes() } else { Vec::new() })))
            }
        }
    }

    /// Reads a part of the entries that an execution runs over; entries that cannot become records are errors of it.
    pub fn read_stream_part(&self, number: ExecutionNo, writer: &mut Writer) -> Result<Part, String> {
        let Some(mut run) = self.take_stream_run(number) else { return Ok(Part { records: 0, more: false }) };
        let mut errors = Vec::new();
        let part = self.read_part(&mut run, writer, &mut errors);
        self.put_stream_run(number, run);
        if let Some(execution) = self.executions.borrow_mut().get_mut(number) {
            // The first one counts, and one per entry may be too many.
            execution.errors.extend(errors.into_iter().take(1).map(String::into_bytes));
        }
        part
    }

    fn send_start(&self, worker: &Worker, number: ExecutionNo, last: bool, more: StartFlags, records: Records<'_>) {
        let mut live = self.live.borrow_mut();
        let Some(live) = live.get_mut(&number) else { return };
        live.unconsumed += records.bytes.len() as u64;
        let flags = live.flags.with(more).with(if last { StartFlags::LAST } else { StartFlags::default() });
        let frame =
            ToWorker::Start { exec: number.0 + 1, plan: live.plan.0, lane: live.lane, flags, first_step: 0, records };
        self.send(worker, &frame);
    }

    /// Sends records that a reader read; `last`: there are no more.
    pub fn feed(&self, number: ExecutionNo, last: bool, count: u64, bytes: &[u8]) {
        let worker = {
            let mut live = self.live.borrow_mut();
            let Some(live) = live.get_mut(&number) else { return };
            live.unconsumed += bytes.len() as u64;
            live.worker
        };
        if let Some(worker) = worker.and_then(|worker| self.worker(worker)) {
            self.send(&worker, &ToWorker::Feed { exec: number.0 + 1, last, records: Records { count, bytes } });
        }
    }

    /// Runs an execution now, while everything else waits; it has ended when this returns.
    pub fn run_sync(&self, number: ExecutionNo, no_async: bool) {
        let Some(session) = self.live.borrow().get(&number).map(|live| live.session) else { return };
        let place = {
            let sessions = self.sessions.borrow();
            sessions.get(&session).and_then(|session| if session.is_up() { session.worker } else { None })
        };
        let Some(worker) = place.and_then(|worker| self.worker(worker)) else {
            return self.end_with_error(number, "WORKERDOWN the session's worker is being replaced: try again");
        };
        if self.sync_chain.borrow().len() >= SYNC_DEPTH_MAX {
            return self
                .end_with_error(number, &format!("SYNCDEPTH sync executions are nested deeper than {SYNC_DEPTH_MAX}"));
        }
        let now = self.now_ms();
        let input = {
            let mut live = self.live.borrow_mut();
            let Some(live) = live.get_mut(&number) else { return };
            live.worker = Some(worker.number);
            live.started_ms = Some(now);
            live.lane = 0;
            std::mem::replace(&mut live.input, Input::Worker)
        };
        self.executions.borrow_mut().start(number);
        let (count, bytes) = match self.first_records(number, Some(input), true) {
            Ok(Some((_, count, bytes))) => (count, bytes),
            Ok(None) => return self.finish(number, Status::Done),
            Err(reason) => return self.end_with_error(number, &reason),
        };
        let more = if no_async { StartFlags::SYNC.with(StartFlags::NO_ASYNC) } else { StartFlags::SYNC };
        self.send_start(&worker, number, true, more, Records { count, bytes: &bytes });
        let me = Chain { exec: Some(number), session };
        self.sync_chain.borrow_mut().push(me);
        // An error ends the execution through the end of its worker.
        let _ = self.wait_for(&worker, &[me], || !self.live.borrow().contains_key(&number), self.config.sync_time_max);
        self.sync_chain.borrow_mut().pop();
        self.revive_backlog(&worker);
    }

    fn runs_in(&self, number: ExecutionNo, worker: &Worker) -> bool {
        let found = self.live.borrow().get(&number).map(|live| (live.worker == Some(worker.number), live.session));
        if let Some((false, session)) = found {
            self.report_foreign(worker, Chain { exec: Some(number), session });
        }
        found.is_some_and(|(here, _)| here)
    }

    /// An execution has been running for a while, or has reached another step.
    pub fn progress(&self, worker: &Worker, number: ExecutionNo, step: u64) {
        if !self.runs_in(number, worker) {
            return;
        }
        self.executions.borrow_mut().start(number);
        let is_first = match self.live.borrow_mut().get_mut(&number) {
            Some(live) => live.step.replace(step).is_none(),
            None => false,
        };
        if is_first {
            self.limit_execution(number);
        }
        self.schedule(|schedule, decisions| schedule.turned_slow(number, decisions));
    }

    /// An execution that runs for longer than `ExecutionMaxTime` is aborted. Called when it has been running for a few
    /// milliseconds.
    fn limit_execution(&self, number: ExecutionNo) {
        let limit = self.config.execution_time_max.as_millis() as u64;
        if limit == 0 {
            return;
        }
        self.server.after_ms(limit, move || {
            let Some(engine) = engine() else { return };
            if !engine.live.borrow().contains_key(&number) {
                return;
            }
            if let Some(execution) = engine.executions.borrow_mut().get_mut(number) {
                let text =
                    format!("TOOLONG the execution ran longer than ExecutionMaxTime ({limit} ms) and was aborted");
                execution.errors.push(text.into_bytes());
            }
            engine.abort(number);
        });
    }

    /// Results so far.
    pub fn output(&self, worker: &Worker, number: ExecutionNo, records: &Records<'_>) {
        if !self.runs_in(number, worker) {
            return;
        }
        let max = self.config.result_bytes_max;
        let too_many = {
            let mut executions = self.executions.borrow_mut();
            let Some(execution) = executions.get_mut(number) else { return };
            let too_many = execution.results.len() + records.bytes.len() > max;
            if !too_many {
                execution.add_results(records);
            } else if execution.errors.is_empty() {
                let text = format!(
                    "RESULTTOOBIG the results are longer than ResultBytesMax ({max} bytes): raise it, or aggregate, or \
                     write them to keys"
                );
                execution.errors.push(text.into_bytes());
            } else {
                // It was told to end already.
                return;
            }
            too_many
        };
        if too_many {
            self.abort(number);
        }
    }

    /// A worker says that an execution ended.
    pub fn done(&self, worker: &Worker, number: ExecutionNo, aborted: bool, records: &Records<'_>, errors: &[&[u8]]) {
        if !self.runs_in(number, worker) {
            return;
        }
        self.output(worker, number, records);
        if let Some(execution) = self.executions.borrow_mut().get_mut(number) {
            execution.errors.extend(errors.iter().map(|error| cut_error(error).into_owned()));
        }
        let session = self.live.borrow().get(&number).map(|live| live.session);
        if let Some(session) = session
            && let Some(session) = self.sessions.borrow_mut().get_mut(&session)
        {
            session.deaths = 0;
        }
        self.finish(number, if aborted { Status::Aborted } else { Status::Done });
    }

    /// Input was consumed.
    pub fn consumed(&self, worker: &Worker, number: ExecutionNo, bytes: u64) {
        if !self.runs_in(number, worker) {
            return;
        }
        if let Some(live) = self.live.borrow_mut().get_mut(&number) {
            live.unconsumed = live.unconsumed.saturating_sub(bytes);
        }
        self.wake_readers();
    }

    /// Ends an execution with an error of ours.
    pub fn end_with_error(&self, number: ExecutionNo, reason: &str) {
        if let Some(execution) = self.executions.borrow_mut().get_mut(number) {
            execution.errors.push(reason.as_bytes().to_vec());
        }
        self.finish(number, Status::Done);
    }

    /// Forgets an execution that never began.
    pub fn discard(&self, number: ExecutionNo) {
        self.drop_at_end(number);
        self.finish(number, Status::Aborted);
    }

    /// The end of an execution: tells all who wait, counts it, frees its place.
    pub fn finish(&self, number: ExecutionNo, status: Status) {
        let Some(live) = self.live.borrow_mut().remove(&number) else { return };
        let run_ms = live.started_ms.map_or(0, |start| self.now_ms().saturating_sub(start));
        let (outcome, registration) = {
            let mut executions = self.executions.borrow_mut();
            executions.finish(number, status);
            if live.drop_at_end {
                match executions.take(number) {
                    None => return,
                    Some(execution) => (
                        Outcome {
                            status,
                            results: execution.results,
                            errors: execution.errors,
                            style: execution.style,
                        },
                        execution.registration,
                    ),
                }
            } else {
                match executions.get(number) {
                    None => return,
                    Some(execution) => (
                        Outcome {
                            status,
                            results: if live.ends.is_empty() { Vec::new() } else { execution.results.clone() },
                            errors: execution.errors.clone(),
                            style: execution.style,
                        },
                        execution.registration,
                    ),
                }
            }
        };
        self.executions.borrow_mut().settle(number);
        if let (Some(registration), true) = (registration, live.from_pending) {
            self.pending.borrow_mut().ended(registration);
        }
        if let Some(registration) = registration {
            self.count_end(registration, number, &outcome, run_ms, live.drop_at_end);
        }
        if let Some(run) = live.stream_run {
            self.stream_run_ended(run, &outcome);
        }
        let mut ends = live.ends;
        let last = ends.pop();
        for end in ends {
            end(self, outcome.clone());
        }
        if let Some(end) = last {
            end(self, outcome);
        }
        self.schedule(|schedule, decisions| schedule.ended(number, decisions));
        self.session_use(live.session, -1);
    }

    fn count_end(
        &self,
        registration: RegistrationNo,
        number: ExecutionNo,
        outcome: &Outcome,
        run_ms: u64,
        dropped: bool,
    ) {
        let out = {
            let mut registrations = self.registrations.borrow_mut();
            let Some(registration) = registrations.get_mut(registration) else {
                // Unregistered meanwhile: its executions leave the list with it.
                let _ = self.executions.borrow_mut().drop_finished(number);
                return;
            };
            registration.statistics.ended(outcome.status, outcome.errors.first().map(Vec::as_slice), run_ms);
            if dropped {
                return;
            }
            registration.keep_finished(number, self.config.executions_per_registration_max)
        };
        for old in out {
            let _ = self.executions.borrow_mut().drop_finished(old);
        }
    }

    /// Whether an execution of that plan has not ended.
    pub fn plan_in_use(&self, plan: PlanNo) -> bool {
        self.live.borrow().values().any(|live| live.plan == plan)
    }

    /// Aborts what a registration has waiting: events, and executions that have not begun.
    pub fn abort_pending(&self, number: RegistrationNo) {
        let waiting = self.pending.borrow_mut().remove(number);
        if let Some(registration) = self.registrations.borrow_mut().get_mut(number) {
            registration.statistics.aborted += waiting as u64;
        }
        let mut mine: Vec<(ExecutionNo, Option<WorkerNo>)> = {
            let (live, executions) = (self.live.borrow(), self.executions.borrow());
            let of = |number: &ExecutionNo| executions.get(*number).and_then(|execution| execution.registration);
            live.iter()
                .filter(|(execution, _)| of(execution) == Some(number))
                .map(|(execution, live)| (*execution, live.worker))
                .collect()
        };
        mine.sort_unstable();
        let here: HashSet<ExecutionNo> =
            mine.iter().filter(|(_, worker)| worker.is_none()).map(|(execution, _)| *execution).collect();
        // All at once: one by one, each would be searched for in the queue.
        self.schedule.borrow_mut().forget_waiting(&here);
        for (execution, worker) in mine {
            match worker.and_then(|worker| self.worker(worker)) {
                // It is not known here whether it has begun: the worker decides.
                Some(worker) => self.send(&worker, &ToWorker::Abort { exec: execution.0 + 1, begun: false }),
                None => self.finish(execution, Status::Aborted),
            }
        }
    }

    /// Aborts an execution: at once if its code does not run, else by an exception, else with its worker.
    pub fn abort(&self, number: ExecutionNo) {
        let Some(worker) = self.live.borrow().get(&number).map(|live| live.worker) else { return };
        let Some(worker) = worker.and_then(|worker| self.worker(worker)) else {
            self.readers.borrow_mut().retain(|other| *other != number);
            if let Some(session) = self.live.borrow().get(&number).map(|live| live.session)
                && let Some(session) = self.sessions.borrow_mut().get_mut(&session)
            {
                session.held.retain(|other| *other != number);
            }
            return self.finish(number, Status::Aborted);
        };
        self.stop_reading(number);
        self.send(&worker, &ToWorker::Abort { exec: number.0 + 1, begun: true });
        let grace = self.config.abort_grace.as_millis() as u64;
        self.server.after_ms(grace, move || {
            let Some(engine) = engine() else { return };
            let worker = engine.live.borrow().get(&number).and_then(|live| live.worker);
            if let Some(worker) = worker.and_then(|worker| engine.worker(worker)) {
                let reason = format!("was killed: an aborted execution did not end within AbortGrace ({grace} ms)");
                engine.end_worker(&worker, Some(&reason));
            }
        });
    }

    /// What a worker had when it ended: what was sent ends with an error, the rest waits for the next worker.
    pub fn lost_worker(&self, worker: WorkerNo, head: &str, sessions: &[SessionNo]) {
        let (mut sent, queued) = self.schedule(|schedule, decisions| schedule.worker_gone(worker, decisions));
        let in_worker = |live: &Live| live.worker == Some(worker);
        let unscheduled: Vec<_> =
            self.live.borrow().iter().filter(|(_, live)| in_worker(live)).map(|(number, _)| *number).collect();
        sent.extend(unscheduled);
        sent.sort_unstable();
        sent.dedup();
        for number in sent {
            let place = self.place(number);
            if let Some(live) = self.live.borrow_mut().get_mut(&number)
                && let Some(run) = &mut live.stream_run
            {
                run.worker_died = true;
            }
            let id = self.shard.identifier(number.0);
            self.end_with_error(number, &format!("WORKERDIED {head} in {place} of execution {id}"));
        }
        self.sessions_lost(sessions, head);
        for number in queued {
            self.enqueue(number);
        }
    }

    /// The step that an execution was in, as far as it is known.
    fn place(&self, number: ExecutionNo) -> String {
        let live = self.live.borrow();
        let Some(live) = live.get(&number) else { return "an unknown step".into() };
        if let Some(step) = live.step
            && let Some(name) = live.spec.step_name(step)
        {
            return format!("step {} '{name}'", step + 1);
        }
        match live.spec.steps.as_slice() {
            [] => "its reader".into(),
            [only] => format!("step 1 '{}'", only.kind.name()),
            steps => {
                let names: Vec<_> = steps.iter().map(|step| format!("'{}'", step.kind.name())).collect();
                format!("one of the steps {}", names.join(", "))
            }
        }
    }
}
