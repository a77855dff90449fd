//! Executions: creation, start, results and end.

use redgrease_core::error_text::cut_error;
use redgrease_core::frame::{Records, StartFlags, ToWorker};
use redgrease_core::id::{Database, ExecutionNo, Identifier, PlanNo, RegistrationNo, SessionNo, WorkerNo};
use redgrease_core::plan::{PlanSpec, RunReader, Trigger};
use redgrease_core::render::Style;

use crate::calls::caller::Caller;
use crate::calls::stack::Until;
use crate::effect::{Answer, Effect};
use crate::engine::Engine;
use crate::error::Error;
use crate::executions::execution::{Execution, Status};
use crate::executions::live::{Gathered, Interruption, Launch, Live, Source, Waiter};
use crate::executions::outcome::Outcome;
use crate::executions::schedule::{Decision, Schedule};
use crate::input::UserName;
use crate::limits::{HELD_PER_SESSION_MAX, SYNC_DEPTH_MAX, TICK_MS};
use crate::planted::Bug;
use crate::prelude::*;
use crate::reader::Reader;
use crate::sessions::session::Place;
use crate::step::Next;
use crate::timers::Timer;
use redgrease_core::render::Reply;

/// The lane of the groups of sync executions: a worker runs a group in order. Other lanes are those of registrations.
const GROUP_LANE: u64 = u64::MAX;

impl Engine {
    /// An execution that was created by a script or function; it is started later.
    pub(crate) fn new_run(
        &mut self,
        (session, plan): (SessionNo, PlanNo),
        spec: PlanSpec,
        reader: RunReader,
        (user, database): (UserName, Database),
        style: Style,
    ) -> ExecutionNo {
        let reader = Reader::of_run(reader);
        let native = spec.native_prefix().filter(|_| reader.is_some());
        let source = reader.map_or(Source::Worker, |reader| Source::Reader(Some(reader)));
        let number = self.executions.create(self.shard, None, style);
        let live = self.live_of((session, plan), (user, database), Rc::new(spec), style, source);
        self.add_live(number, Live { native, ..live });
        number
    }

    /// An execution of a registration; `None` if the registration or its session was removed. It uses the database of
    /// the registration, unless its caller has one.
    pub(crate) fn new_triggered(
        &mut self,
        registration: RegistrationNo,
        database: Option<Database>,
        source: Source,
        tagged: bool,
    ) -> Option<ExecutionNo> {
        let found = self.registrations.get(registration)?;
        let in_order =
            !matches!(found.trigger, Trigger::Command { in_order: false, .. } | Trigger::Hook { in_order: false, .. });
        let (session, plan, spec) = (found.session, found.plan, Rc::clone(&found.spec));
        let database = database.unwrap_or(found.database);
        let user = Rc::clone(&self.sessions.get(session)?.user);
        let style = if tagged { spec.style.tagged() } else { spec.style };
        let number = self.executions.create(self.shard, Some(registration), style);
        let lane = if in_order { registration.0 + 1 } else { 0 };
        let job = self.is_for_all_shards(registration).then(|| self.job_of_registration(registration, &source));
        let live = self.live_of((session, plan), (user, database), spec, style, source);
        self.add_live(number, Live { lane, registration: Some(registration), ..live });
        if let Some(Some(job)) = job {
            self.share_execution(number, job);
        }
        Some(number)
    }

    pub(crate) fn live_of(
        &self,
        (session, plan): (SessionNo, PlanNo),
        (user, database): (UserName, Database),
        spec: Rc<PlanSpec>,
        style: Style,
        source: Source,
    ) -> Live {
        let mut flags = StartFlags::default();
        if self.config.traceback {
            flags = flags.with(StartFlags::TRACEBACK);
        }
        if style.is_tagged() {
            flags = flags.with(StartFlags::TAGGED);
        }
        if style == Style::Pickled {
            flags = flags.with(StartFlags::PICKLED);
        }
        if self.config.profile {
            flags = flags.with(StartFlags::PROFILE);
        }
        Live {
            session,
            user,
            database,
            registration: None,
            plan,
            spec,
            lane: 0,
            unconsumed: 0,
            worker: None,
            source,
            launch: Launch::Async,
            native: None,
            first_step: 0,
            flags,
            started: false,
            parked: false,
            hooked: None,
            intercepts: None,
            time_event: None,
            nested: false,
            step: None,
            started_ms: None,
            drop_at_end: false,
            from_pending: false,
            waiters: Vec::new(),
            stream_run: None,
            gathered: Gathered::default(),
            group_step: None,
            interruption: None,
            shared: None,
        }
    }

    pub(crate) fn add_live(&mut self, number: ExecutionNo, live: Live) {
        self.session_used(live.session);
        if let Some(execution) = self.executions.get_mut(number) {
            execution.owner = Some(Rc::clone(&live.user));
            execution.spec = Some(Rc::clone(&live.spec));
        }
        self.live.insert(number, Box::new(live));
    }

    /// A registration was triggered.
    pub(crate) fn count_triggered(&mut self, registration: RegistrationNo) {
        if let Some(registration) = self.registrations.get_mut(registration) {
            registration.statistics.triggered += 1;
        }
    }

    /// An event of a registration was dropped.
    pub(crate) fn count_aborted(&mut self, registration: RegistrationNo) {
        if let Some(registration) = self.registrations.get_mut(registration) {
            registration.statistics.aborted += 1;
        }
    }

    /// A client, or the current command, waits for the end of an execution.
    pub(crate) fn on_end(&mut self, number: ExecutionNo, waiter: Waiter) {
        if let Some(live) = self.live.get_mut(&number) {
            live.waiters.push(waiter);
        }
    }

    /// The results of the execution are discarded at its end.
    pub(crate) fn drop_at_end(&mut self, number: ExecutionNo) {
        if let Some(live) = self.live.get_mut(&number) {
            live.drop_at_end = true;
        }
    }

    /// Starts an execution as soon as possible.
    pub(crate) fn begin(&mut self, number: ExecutionNo) {
        let Some(live) = self.live.get(&number) else { return };
        match (live.shared.is_some(), live.native.is_some()) {
            (true, _) => self.begin_shared(number),
            (false, true) => self.begin_native(number),
            (false, false) => self.enqueue(number),
        }
    }

    /// Queues an execution for its session's worker.
    pub(crate) fn enqueue(&mut self, number: ExecutionNo) {
        let Some(live) = self.live.get(&number) else { return };
        let (session, live_in_group) = (live.session, live.launch == Launch::Group);
        let is_part = live.shared.as_ref().is_some_and(|shared| !shared.is_initiator());
        let Some(session) = self.sessions.get_mut(session) else {
            return self.end_with_error(number, Error::SessionEnded);
        };
        match &session.place {
            Place::Broken { reason, .. } => {
                let reason = reason.clone();
                self.end_with_error(number, reason);
            }
            Place::Running(_) | Place::Up(_) if live_in_group => self.sync_triggers.push(number),
            Place::Running(worker) | Place::Up(worker) if is_part => {
                let worker = *worker;
                self.start_part(number, worker);
            }
            Place::Running(worker) | Place::Up(worker) => {
                let worker = *worker;
                self.schedule(|schedule, decisions| schedule.enqueue(number, worker, decisions));
            }
            Place::Waiting | Place::Restoring(_) => self.hold(number),
        }
    }

    /// Keeps an execution until its session has a worker again.
    fn hold(&mut self, number: ExecutionNo) {
        let session = self.live.get(&number).map(|live| live.session);
        match session.and_then(|session| self.sessions.get_mut(session)) {
            Some(session) if session.held.len() < HELD_PER_SESSION_MAX => session.held.push(number),
            Some(_) => self.end_with_error(number, Error::TooManyHeld),
            None => self.end_with_error(number, Error::SessionEnded),
        }
    }

    /// A sync execution whose session's worker is being replaced: it runs when there is a new one, unless somebody needs the
    /// result now. Entries of streams are read again then anyway.
    fn run_sync_later(&mut self, number: ExecutionNo) {
        let Some(live) = self.live.get(&number) else { return };
        let needed = live.waiters.iter().any(|waiter| matches!(waiter, Waiter::Command | Waiter::HookOf(_)));
        let needed = needed || matches!(live.source, Source::Stream(_));
        let session = live.session;
        if needed || !self.is_being_rebuilt(session) {
            return self.end_with_error(number, Error::WorkerDown);
        }
        if let Some(live) = self.live.get_mut(&number) {
            live.launch = Launch::Group;
        }
        self.hold(number);
    }

    /// Whether the worker of a session is gone, and its functions are about to be in another one.
    pub(crate) fn is_being_rebuilt(&self, session: SessionNo) -> bool {
        let Some(session) = self.sessions.get(session) else { return false };
        // Without registrations no worker is requested for it.
        session.registered
            && match session.place {
                Place::Waiting | Place::Restoring(_) => true,
                Place::Running(worker) | Place::Up(worker) => {
                    self.workers.links.get(&worker).is_none_or(|link| link.closing)
                }
                Place::Broken { .. } => false,
            }
    }

    /// Changes the schedule, and carries out its decisions.
    pub(crate) fn schedule<T>(&mut self, change: impl FnOnce(&mut Schedule, &mut Vec<Decision>) -> T) -> T {
        let mut decisions = Vec::new();
        let value = change(&mut self.schedule, &mut decisions);
        if self.schedule.wants_ticks() && !core::mem::replace(&mut self.ticking, true) {
            self.after_ms(TICK_MS, Timer::ScheduleTick);
        }
        for decision in decisions {
            match decision {
                Decision::Start(number, worker) => self.start(number, worker),
                Decision::Threads(worker, threads) => {
                    self.send(worker, &ToWorker::Threads { threads: threads as u64 });
                }
            }
        }
        value
    }

    /// A worker waits for a permit while others run for long.
    pub(crate) fn schedule_tick(&mut self) {
        self.ticking = false;
        self.schedule(Schedule::tick);
    }

    /// Starts an execution in its worker, in its turn.
    fn start(&mut self, number: ExecutionNo, worker: WorkerNo) {
        let now = self.now_ms();
        let Some(live) = self.live.get_mut(&number) else { return };
        live.worker = Some(worker);
        live.started_ms = Some(now);
        if matches!(live.source, Source::Event { .. } | Source::Stream(_)) && !self.planted(Bug::StartedOutOfOrder) {
            // One that is started while another one reads, because that has nothing to run, starts after those that were
            // started before it.
            self.starting.push_back(number);
            return self.then(Next::ReadFirst);
        }
        self.read_first(number);
    }

    /// Runs an execution now, while everything else waits. It has ended when the effects of this were performed.
    pub(crate) fn run_sync(&mut self, number: ExecutionNo, no_async: bool) {
        let Some(session) = self.live.get(&number).map(|live| live.session) else { return };
        let Some(worker) = self.worker_for_sync(session) else {
            return self.run_sync_later(number);
        };
        if self.stack.waits.len() >= SYNC_DEPTH_MAX {
            return self.end_with_error(number, Error::TooDeep);
        }
        let now = self.now_ms();
        let Some(live) = self.live.get_mut(&number) else { return };
        live.worker = Some(worker);
        live.started_ms = Some(now);
        live.lane = 0;
        live.launch = Launch::Sync { no_async };
        self.executions.start(number);
        self.read_first(number);
    }

    /// Sends a group of sync executions that clients triggered to their worker, then waits for one after the other. Those of
    /// another worker are the next group.
    pub(crate) fn run_sync_triggers(&mut self) {
        let now = self.now_ms();
        let mut group_worker = None;
        while !self.sync_triggers.is_running() || self.sync_triggers.has_space() {
            let Some(number) = self.sync_triggers.next() else { break };
            let Some(live) = self.live.get(&number) else { continue };
            let session = live.session;
            let Some(worker) = self.worker_for_sync(session) else {
                self.run_sync_later(number);
                continue;
            };
            // What has to be read first would be started behind those that come after it.
            let reads = !matches!(live.source, Source::Worker | Source::Records { .. });
            if *group_worker.get_or_insert(worker) != worker || (reads && self.sync_triggers.is_running()) {
                self.sync_triggers.put_back(number);
                break;
            }
            if let Some(live) = self.live.get_mut(&number) {
                live.worker = Some(worker);
                live.lane = GROUP_LANE;
            }
            self.sync_triggers.add_sent(number, now);
            self.read_first(number);
            if reads {
                break;
            }
        }
        self.serve_group();
    }

    /// The worker in which sync executions of a session run now. One that is being ended has its last frames handled, and takes no
    /// further ones.
    fn worker_for_sync(&self, session: SessionNo) -> Option<WorkerNo> {
        let worker = self.sessions.get(session)?.up_in()?;
        self.workers.links.get(&worker).filter(|link| !link.closing).map(|_| worker)
    }

    /// Waits for the first one of the group that has not ended.
    pub(crate) fn serve_group(&mut self) {
        let now = self.now_ms();
        let Some((number, worker)) = self.first_of_group() else { return };
        let Some(live) = self.live.get_mut(&number) else { return };
        live.started_ms = Some(now);
        let caller = Caller { exec: Some(number), session: live.session };
        self.executions.start(number);
        self.wait_for_end(number, worker, caller);
        self.then(Next::ServeGroup);
    }

    /// The first one of the group that has not ended, and its worker.
    fn first_of_group(&mut self) -> Option<(ExecutionNo, WorkerNo)> {
        let now = self.now_ms();
        loop {
            let number = self.sync_triggers.first_sent()?;
            match self.live.get(&number).filter(|live| !live.parked).and_then(|live| live.worker) {
                Some(worker) => return Some((number, worker)),
                None => self.sync_triggers.pop_sent(now),
            }
        }
    }

    fn wait_for_end(&mut self, number: ExecutionNo, worker: WorkerNo, caller: Caller) {
        let limit_ms = match self.planted(Bug::WaitWithoutDeadline) {
            true => u64::from(u32::MAX),
            false => self.config.sync_time_max.as_millis() as u64,
        };
        let wait = self.stack.wait(worker, caller, Until::Ended(number), self.now_ms().saturating_add(limit_ms));
        self.out.push(Effect::Serve { wait, worker });
    }

    /// Reads the first records of an execution, then launches it.
    pub(crate) fn read_first(&mut self, number: ExecutionNo) {
        let Some(live) = self.live.get_mut(&number) else { return };
        match core::mem::replace(&mut live.source, Source::Worker) {
            Source::Worker => self.launch(number, true),
            Source::Records { count, bytes } => {
                live.gathered = Gathered { count, bytes };
                self.launch(number, true);
            }
            reader @ Source::Reader(_) => {
                // Stays in place: slices are read from it.
                live.source = reader;
                self.launch(number, false);
            }
            Source::Event { key, event, read_value } => {
                let actor = live.actor();
                self.out.push(Effect::ReadKey { execution: number, actor, key, event, read_value });
            }
            Source::Stream(run) => {
                live.stream_run = Some(run);
                self.read_group(number);
            }
        }
    }

    /// The record of a key was read.
    pub(crate) fn key_read(&mut self, number: ExecutionNo, record: Result<Vec<u8>, String>) {
        match record {
            Ok(bytes) => {
                if let Some(live) = self.live.get_mut(&number) {
                    live.gathered = Gathered { count: 1, bytes };
                    self.launch(number, true);
                }
            }
            Err(reason) => self.end_with_error(number, reason),
        }
    }

    /// Sends an execution to its worker with the collected records; `last`: there are no more.
    pub(crate) fn launch(&mut self, number: ExecutionNo, last: bool) {
        let Some(live) = self.live.get_mut(&number) else { return };
        let Some(worker) = live.worker else { return };
        let Gathered { count, bytes } = core::mem::take(&mut live.gathered);
        live.unconsumed += bytes.len() as u64;
        live.started = true;
        let mut flags = live.flags;
        if last {
            flags = flags.with(StartFlags::LAST);
        }
        let launch = live.launch;
        if launch != Launch::Async {
            flags = flags.with(StartFlags::SYNC);
        }
        if launch == (Launch::Sync { no_async: true }) {
            flags = flags.with(StartFlags::NO_ASYNC);
        }
        let (plan, lane, session, first_step) = (live.plan, live.lane, live.session, live.first_step);
        let is_shared = live.shared.is_some();
        if is_shared {
            self.send_route(number, worker);
        }
        let records = Records { count, bytes: &bytes };
        self.send(worker, &ToWorker::Start { exec: number, plan, lane, flags, first_step, records });
        if is_shared {
            self.started_shared(number);
        }
        if !last {
            self.readers.add(number);
        }
        match launch {
            Launch::Async => {}
            Launch::Sync { .. } => self.wait_for_end(number, worker, Caller { exec: Some(number), session }),
            // Its records are kept until it begins: its worker may end before.
            Launch::Group => {
                if let Some(live) = self.live.get_mut(&number) {
                    live.source = Source::Records { count, bytes };
                }
            }
        }
    }

    /// Whether an execution runs in a worker; logs a worker that names an execution of another one.
    pub(crate) fn runs_in(&mut self, number: ExecutionNo, worker: WorkerNo) -> bool {
        let Some(live) = self.live.get(&number) else { return false };
        let here = live.worker == Some(worker);
        if !here {
            let caller = Caller { exec: Some(number), session: live.session };
            self.report_foreign(worker, caller);
        }
        here
    }

    /// An execution has been running for a while, or has reached another step.
    pub(crate) fn progress(&mut self, worker: WorkerNo, number: ExecutionNo, step: u64) {
        if !self.runs_in(number, worker) {
            return;
        }
        self.executions.start(number);
        let is_first = self.live.get_mut(&number).is_some_and(|live| live.step.replace(step).is_none());
        let limit = self.config.execution_time_max.as_millis() as u64;
        if is_first && limit > 0 {
            self.after_ms(limit, Timer::ExecutionLimit(number));
        }
        self.schedule(|schedule, decisions| schedule.turned_slow(number, decisions));
    }

    /// An execution has run for longer than `ExecutionMaxTime`.
    pub(crate) fn execution_limit_reached(&mut self, number: ExecutionNo) {
        if !self.live.contains_key(&number) {
            return;
        }
        let limit = self.config.execution_time_max.as_millis() as u64;
        self.add_error(number, Error::TooLong(limit).to_string().into_bytes());
        self.abort(number);
    }

    /// The identifier of an execution, the same on all shards.
    pub(crate) fn execution_id(&self, number: ExecutionNo) -> Identifier {
        let listed = self.executions.get(number).map(|execution| execution.id);
        listed.unwrap_or(Identifier { shard: self.shard, counter: number.0 })
    }

    /// Appends an error to those of an execution.
    pub(crate) fn add_error(&mut self, number: ExecutionNo, text: Vec<u8>) {
        if let Some(execution) = self.executions.get_mut(number) {
            execution.errors.push(text);
        }
    }

    /// Results so far.
    pub(crate) fn results(&mut self, worker: WorkerNo, number: ExecutionNo, records: &Records<'_>) {
        if !self.runs_in(number, worker) {
            return;
        }
        let max = self.config.result_bytes_max;
        let Some(execution) = self.executions.get_mut(number) else { return };
        if execution.results.len() + records.bytes.len() <= max {
            execution.add_results(records);
        } else if execution.errors.is_empty() {
            execution.errors.push(Error::ResultsTooBig(max).to_string().into_bytes());
            self.abort(number);
        }
        // Otherwise it was already asked to end.
    }

    /// A worker reports the end of an execution.
    pub(crate) fn done(
        &mut self,
        worker: WorkerNo,
        number: ExecutionNo,
        aborted: bool,
        records: &Records<'_>,
        errors: &[&[u8]],
        step_micros: Vec<u64>,
    ) {
        if !self.runs_in(number, worker) {
            return;
        }
        self.results(worker, number, records);
        if let Some(execution) = self.executions.get_mut(number) {
            execution.errors.extend(errors.iter().map(|error| cut_error(error).into_owned()));
            execution.step_micros = step_micros;
        }
        let session = self.live.get(&number).map(|live| live.session);
        if let Some(session) = session.and_then(|session| self.sessions.get_mut(session)) {
            session.deaths.forget();
        }
        if self.own_part_ended(number) {
            self.finish(number, if aborted { Status::Aborted } else { Status::Done });
        }
    }

    /// Ends an execution with an error of the engine.
    pub(crate) fn end_with_error(&mut self, number: ExecutionNo, reason: impl Into<String>) {
        self.add_error(number, reason.into().into_bytes());
        self.finish(number, Status::Done);
    }

    /// Removes an execution that never started.
    pub(crate) fn discard(&mut self, number: ExecutionNo) {
        self.drop_at_end(number);
        self.finish(number, Status::Aborted);
    }

    /// The outcome of an execution.
    pub(crate) fn outcome_of(execution: Execution) -> Outcome {
        let status = execution.status();
        Outcome { status, results: execution.results, errors: execution.errors, style: execution.style }
    }

    /// The end of an execution: answers waiting clients, updates statistics, frees its place.
    pub(crate) fn finish(&mut self, number: ExecutionNo, status: Status) {
        let Some(live) = self.live.remove(&number) else { return };
        let live = *live;
        let run_ms = live.started_ms.map_or(0, |start| self.now_ms().saturating_sub(start));
        self.readers.remove(number);
        if let Some(execution) = self.executions.get_mut(number) {
            execution.run_ms = run_ms;
        }
        self.executions.finish(number, status);
        let outcome = if live.drop_at_end {
            self.executions.take(number).map(Self::outcome_of)
        } else {
            // Results are copied only if a client waits.
            self.executions.get(number).map(|execution| Outcome {
                status,
                results: if live.waiters.is_empty() { Vec::new() } else { execution.results.clone() },
                errors: execution.errors.clone(),
                style: execution.style,
            })
        };
        let nothing = || Outcome { status, results: Vec::new(), errors: Vec::new(), style: Style::Compat };
        let outcome = outcome.unwrap_or_else(nothing);
        self.executions.settle(number);
        if let Some(shared) = &live.shared {
            self.tell_shards_of_end(shared, status, &outcome.errors, live.drop_at_end);
        }
        if let Some(registration) = live.registration {
            if live.from_pending && !self.planted(Bug::PendingPlaceKept) {
                self.pending.ended(registration);
            }
            self.count_end(registration, number, &outcome, run_ms, live.drop_at_end);
        }
        if let Source::Stream(run) = live.source {
            // It ended before it began.
            let interruption = if status == Status::Aborted { None } else { Some(Interruption::NotRun) };
            self.stream_run_ended(run, &outcome, interruption);
        } else if let Some(run) = live.stream_run {
            self.stream_run_ended(run, &outcome, live.interruption);
        }
        if let Some(event) = live.time_event {
            self.time_event_called(event, number, &outcome);
        }
        let waited_for = live.waiters.iter().any(|waiter| matches!(waiter, Waiter::Call(_)));
        if live.nested && !waited_for {
            self.nested.keep(number, outcome.clone());
        }
        self.tell(number, live.waiters, outcome);
        if let Some(intercepts) = live.intercepts {
            self.intercepted_ended(intercepts, number);
        }
        self.schedule(|schedule, decisions| schedule.ended(number, decisions));
        self.session_released(live.session);
        let of_registration = live.shared.as_ref().is_some_and(|shared| shared.of_registration);
        if live.registration.is_none() && live.time_event.is_none() && !of_registration {
            self.forget_run(live.session, live.plan);
        }
    }

    /// The plan of a run is used once: the worker of a session that is kept forgets it.
    fn forget_run(&mut self, session: SessionNo, plan: PlanNo) {
        let Some(session) = self.sessions.get(session) else { return };
        let is_its_own = session.stored.function.as_ref().is_some_and(|function| function.plan == plan);
        if let Some(worker) = session.worker().filter(|_| !is_its_own) {
            self.send(worker, &ToWorker::ForgetPlans { plans: vec![plan] });
        }
    }

    fn tell(&mut self, number: ExecutionNo, mut waiters: Vec<Waiter>, outcome: Outcome) {
        let last = waiters.pop();
        for waiter in waiters {
            self.tell_one(number, waiter, outcome.clone());
        }
        if let Some(last) = last {
            self.tell_one(number, last, outcome);
        }
    }

    fn tell_one(&mut self, number: ExecutionNo, waiter: Waiter, mut outcome: Outcome) {
        match waiter {
            Waiter::Results { client, tagged } => {
                if tagged {
                    outcome.style = outcome.style.tagged();
                }
                self.answer(client, Answer::Run(outcome));
            }
            Waiter::Trigger(client) => {
                if self.planted(Bug::ClientAnsweredTwice) {
                    self.out.push(Effect::Reply { client: client.number(), answer: Answer::Trigger(outcome.clone()) });
                }
                self.answer(client, Answer::Trigger(outcome));
            }
            Waiter::End(client) if self.planted(Bug::AbortRacesWithEnd) && outcome.status == Status::Done => {
                let _ = client;
            }
            Waiter::End(client) => self.reply(client, Reply::Simple("OK".into())),
            Waiter::Call(call) => self.answer_results(&call, &outcome),
            Waiter::Hook(client) => self.answer(client, Answer::Hook(outcome)),
            Waiter::HookOf(call) => self.answer_hook_of(&call, &outcome),
            Waiter::Command => {
                self.outcomes.insert(number, outcome);
            }
        }
    }

    fn count_end(
        &mut self,
        registration: RegistrationNo,
        number: ExecutionNo,
        outcome: &Outcome,
        run_ms: u64,
        dropped: bool,
    ) {
        let Some(registration) = self.registrations.get_mut(registration) else {
            // Unregistered meanwhile: its executions are removed with it.
            let _ = self.executions.drop_finished(number);
            return;
        };
        registration.statistics.ended(outcome.status, outcome.errors.first().map(Vec::as_slice), run_ms);
        if dropped {
            return;
        }
        for old in registration.keep_finished(number, self.config.executions_per_registration_max) {
            let _ = self.executions.drop_finished(old);
        }
    }

    /// Aborts the waiting events of a registration, and its executions that have not begun.
    pub(crate) fn abort_pending(&mut self, number: RegistrationNo) {
        let waiting = self.pending.remove(number) as u64;
        if let Some(registration) = self.registrations.get_mut(number) {
            registration.statistics.aborted += waiting;
        }
        let mine: Vec<(ExecutionNo, Option<WorkerNo>)> = self
            .live
            .iter()
            .filter(|(_, live)| live.registration == Some(number))
            .map(|(execution, live)| (*execution, live.worker))
            .collect();
        let here: BTreeSet<ExecutionNo> =
            mine.iter().filter(|(_, worker)| worker.is_none()).map(|(execution, _)| *execution).collect();
        // All at once: each removal would search the queue.
        self.schedule.forget_waiting(&here);
        for (execution, worker) in mine {
            match worker.filter(|worker| self.workers.links.contains_key(worker)) {
                // Whether it has begun is not known here: the worker decides.
                Some(worker) => self.send(worker, &ToWorker::Abort { exec: execution, begun: false }),
                None => self.finish(execution, Status::Aborted),
            }
        }
    }

    /// Aborts an execution: at once if its code does not run, else by an exception, else by ending its worker.
    pub(crate) fn abort(&mut self, number: ExecutionNo) {
        self.abort_others(number);
        let Some(live) = self.live.get(&number) else { return };
        let session = live.session;
        let Some(worker) = live.worker.filter(|worker| self.workers.links.contains_key(worker)) else {
            if let Some(session) = self.sessions.get_mut(session) {
                session.held.retain(|other| *other != number);
            }
            return self.finish(number, Status::Aborted);
        };
        self.readers.remove(number);
        self.workers.pool.wear_out(worker);
        self.send(worker, &ToWorker::Abort { exec: number, begun: true });
        self.after_ms(self.config.abort_grace.as_millis() as u64, Timer::AbortGrace(number));
    }

    /// The grace period of an aborted execution has ended.
    pub(crate) fn abort_grace_expired(&mut self, number: ExecutionNo) {
        if let Some(worker) = self.live.get(&number).and_then(|live| live.worker) {
            let grace = self.config.abort_grace.as_millis();
            self.end_worker(
                worker,
                format!("was killed: an aborted execution did not end within AbortGrace ({grace} ms)"),
            );
        }
    }

    /// The executions of a worker that has ended: those that were sent end with an error, the others wait for the next
    /// worker.
    pub(crate) fn worker_lost(&mut self, worker: WorkerNo, head: &str, sessions: &[SessionNo]) {
        let (sent, queued) = self.schedule(|schedule, decisions| schedule.worker_gone(worker, decisions));
        let in_worker = self.live.iter().filter(|(_, live)| live.worker == Some(worker)).map(|(number, _)| *number);
        let mut lost: BTreeSet<ExecutionNo> = sent.into_iter().chain(in_worker).collect();
        let not_begun = self.take_not_begun(worker);
        not_begun.iter().for_each(|number| {
            lost.remove(number);
        });
        let suspects = self.suspects(worker, sessions, &lost);
        for number in lost {
            let place = self.live.get(&number).map_or_else(|| "an unknown step".into(), |live| live.place());
            if let Some(live) = self.live.get_mut(&number) {
                live.interruption = Some(Interruption::WorkerDied);
            }
            let id = self.execution_id(number).to_string();
            self.end_with_error(number, Error::Died { head: head.to_owned(), place, execution: id });
        }
        for number in self.in_native_steps(sessions) {
            self.end_with_error(number, Error::DiedBefore(head.to_owned()));
        }
        self.profiles_lost(worker, head);
        self.sessions_lost(sessions, &suspects, head);
        for number in queued {
            self.move_execution(number, head);
        }
        if self.planted(Bug::SyncGroupForgotten) {
            return;
        }
        for number in not_begun {
            self.enqueue(number);
        }
    }

    /// The sessions that may have caused the end of a worker: those whose code ran, else all of them.
    fn suspects(
        &self,
        worker: WorkerNo,
        sessions: &[SessionNo],
        running: &BTreeSet<ExecutionNo>,
    ) -> BTreeSet<SessionNo> {
        let mut suspects: BTreeSet<SessionNo> =
            running.iter().filter_map(|number| self.live.get(number)).map(|live| live.session).collect();
        suspects.extend(sessions.iter().filter(|number| {
            self.sessions.get(**number).is_some_and(|session| session.place == Place::Restoring(worker))
        }));
        if suspects.is_empty() { sessions.iter().copied().collect() } else { suspects }
    }

    /// Sync executions that were sent to a worker that is gone, in a group, and that it had not begun.
    fn take_not_begun(&mut self, worker: WorkerNo) -> Vec<ExecutionNo> {
        // The worker may have ended one, and begun the next one, before the main thread has gone on to that.
        if self.first_of_group().is_none_or(|(_, of_first)| of_first != worker) {
            return Vec::new();
        }
        let mut not_begun = self.sync_triggers.take_not_begun();
        if self.planted(Bug::SyncGroupRunTwice) {
            not_begun.extend(self.sync_triggers.first_sent());
        }
        for number in &not_begun {
            if let Some(live) = self.live.get_mut(number) {
                live.worker = None;
                live.started = false;
                live.unconsumed = 0;
            }
        }
        not_begun
    }

    /// Executions of sessions whose first steps the engine is running, and whose next step needs the session's worker.
    fn in_native_steps(&self, sessions: &[SessionNo]) -> Vec<ExecutionNo> {
        let needs_worker = |live: &Live| live.native.as_ref().is_some_and(|native| native.next_step().is_some());
        let all = self.live.iter().filter(|(_, live)| sessions.contains(&live.session) && needs_worker(live));
        all.map(|(number, _)| *number).collect()
    }

    /// An execution that was not sent before its worker ended waits for the next one, if that can run it: plans that a
    /// script or a function ran are not part of a rebuilt session.
    pub(crate) fn move_execution(&mut self, number: ExecutionNo, head: &str) {
        match self.live.get(&number) {
            Some(live) if live.registration.is_none() && !self.planted(Bug::RunMovedToNewWorker) => {
                self.end_with_error(number, Error::DiedBefore(head.to_owned()));
            }
            _ => self.enqueue(number),
        }
    }
}
