//! Executions on several shards: see [`Shared`].

use redgrease_core::error_text::cut_error;
use redgrease_core::frame::{Records, StartFlags, ToWorker};
use redgrease_core::id::{Database, ExecutionNo, Identifier, PlanNo, RegistrationNo, SessionNo, ShardId, WorkerNo};
use redgrease_core::peer::{Job, PeerMessage, Route, SharedFunction};
use redgrease_core::plan::{Mode, PlanSpec, Trigger};
use redgrease_core::render::Style;
use redgrease_core::saved::{ByteBuf, SavedFunction, SavedSession};

use crate::calls::caller::Requester;
use crate::cluster::functions::{Digest, SharedJob};
use crate::engine::Engine;
use crate::error::Error;
use crate::executions::execution::Status;
use crate::executions::live::{Live, Source};
use crate::executions::shared::{Phase, Shared};
use crate::input::UserName;
use crate::planted::Bug;
use crate::prelude::*;
use crate::reader::Reader;

impl Engine {
    /// An execution of this shard becomes one of all shards.
    pub(crate) fn share_execution(&mut self, number: ExecutionNo, job: SharedJob) {
        let (id, route) = (self.execution_id(number), self.topology.route());
        let Some(live) = self.live.get_mut(&number) else { return };
        if let Source::Reader(reader) = &mut live.source {
            *reader = reader.take().map(|reader| reader.of_shard(&route, 0));
        }
        let mut shared = Shared::new(id, route, 0, Phase::Preparing, &live.spec);
        shared.job = Some(job);
        live.native = None;
        live.shared = Some(Box::new(shared));
    }

    /// What other shards need to run a plan; an error if the plan's worker did not send it.
    pub(crate) fn job_of_run(
        &self,
        requester: Requester,
        plan: PlanNo,
        spec: &[u8],
        pickle: &[u8],
    ) -> Result<SharedJob, Error> {
        let session = self.sessions.get(requester.caller().session).ok_or(Error::SessionEnded)?;
        let of_client = matches!(requester, Requester::Client(_));
        if pickle.is_empty() && !of_client {
            return Err(Error::ShardsAppeared);
        }
        let worker = session.worker().and_then(|worker| self.workers.links.get(&worker));
        let python = match of_client {
            true => session.stored.python.as_str(),
            false => worker.map(|link| link.python.as_str()).unwrap_or_default(),
        };
        let function = SharedFunction {
            spec,
            plan: plan.in_data_of(requester.caller().session).0,
            pickle,
            of_client,
            session: &session.name,
            python,
            requirements: session.stored.requirements.iter().map(String::as_str).collect(),
            environment: &session.stored.environment,
        };
        let function: Rc<[u8]> = function.encode().into();
        Ok(SharedJob::Plan { digest: Digest::of(&function), function })
    }

    /// Whether executions of a registration run on all shards: what is triggered by a name does; events do if their records
    /// move to the shards of their keys.
    pub(crate) fn is_for_all_shards(&self, registration: RegistrationNo) -> bool {
        self.topology.has_several()
            && self.registrations.get(registration).is_some_and(|found| {
                let moves = match &found.trigger {
                    Trigger::Command { .. } => true,
                    Trigger::Keys { commands: None, .. } | Trigger::Stream { .. } => found.moves,
                    Trigger::Keys { .. } | Trigger::Hook { .. } => false,
                };
                moves && found.spec.mode == Mode::Async
            })
    }

    /// What other shards need to run an execution of a registration: the arguments that it was triggered with.
    pub(crate) fn job_of_registration(&self, registration: RegistrationNo, source: &Source) -> Option<SharedJob> {
        let id = self.registrations.get(registration)?.id;
        Some(match source {
            Source::Records { count, bytes } => {
                SharedJob::Registration { id, count: *count, bytes: bytes.as_slice().into() }
            }
            _ => SharedJob::Registration { id, count: 0, bytes: Rc::new([]) },
        })
    }

    /// Asks all other shards to take part.
    pub(crate) fn begin_shared(&mut self, number: ExecutionNo) {
        self.executions.set_phase(number, Status::PendingReceive);
        let Some(others) = self.live.get(&number).and_then(|live| live.shared.as_ref()).map(|shared| shared.others())
        else {
            return;
        };
        for shard in others {
            self.send_prepare(number, shard, false);
        }
    }

    fn send_prepare(&mut self, number: ExecutionNo, shard: ShardId, again: bool) {
        let Some(live) = self.live.get(&number) else { return };
        let Some(shared) = &live.shared else { return };
        let Some(job) = shared.job.clone() else { return };
        let (execution, user, database) = (shared.id, Rc::clone(&live.user), live.database.0);
        let (flags, route) = (live.flags, shared.route.clone());
        let job = match &job {
            SharedJob::Registration { id, count, bytes } => {
                Job::Registration { registration: *id, records: Records { count: *count, bytes } }
            }
            SharedJob::Plan { digest, function } => {
                let known = !again && self.functions.is_known_to(shard, *digest);
                Job::Plan { digest: digest.0, function: if known { &[] } else { function } }
            }
        };
        self.send_to(shard, &PeerMessage::Prepare { execution, job, user: &user, database, flags, route });
    }

    /// Another shard asks this one to take part.
    pub(crate) fn peer_prepare(
        &mut self,
        from: ShardId,
        execution: Identifier,
        job: &Job<'_>,
        (user, database): (&str, u32),
        (flags, route): (StartFlags, Route),
    ) {
        let prepared = match self.at.server.refuses_writes() {
            true => Err(Error::ScriptOnReplica.into()),
            false if self.executions.find(execution).is_some() => {
                let reason = format!("there is an execution {execution} already");
                Err(Error::FunctionNotReadable { shard: from, reason }.into())
            }
            false => self.prepare_part(from, execution, job, (user, Database(database)), (flags, route)),
        };
        match prepared {
            Ok(true) => {}
            Ok(false) => self.send_to(from, &PeerMessage::NeedFunction { execution }),
            Err(reason) => {
                let errors = vec![reason.as_bytes()];
                self.send_to(from, &PeerMessage::Ended { execution, failed: true, aborted: false, errors });
            }
        }
    }

    /// Creates the part of this shard; returns whether its function is here.
    fn prepare_part(
        &mut self,
        from: ShardId,
        execution: Identifier,
        job: &Job<'_>,
        (user, database): (&str, Database),
        (flags, route): (StartFlags, Route),
    ) -> Result<bool, String> {
        let me = self.topology.me;
        let here = route.shards.iter().position(|shard| *shard == me).filter(|position| *position > 0);
        let unreadable = |reason: String| String::from(Error::FunctionNotReadable { shard: from, reason });
        let here = here.ok_or_else(|| unreadable(format!("{me} is not among its shards")))? as u64;
        let mut registration = None;
        let mut made = None;
        let (session, plan, spec, source, reads, user) = match job {
            Job::Registration { registration: id, records } => {
                let missing = || Error::RegistrationNotOnShard { shard: me, registration: *id };
                let number = self.registrations.find(*id).ok_or_else(missing)?;
                let found = self.registrations.get(number).ok_or_else(missing)?;
                registration = Some(number);
                let user = self.sessions.get(found.session).map(|session| Rc::clone(&session.user));
                let source = Source::Records { count: records.count, bytes: records.bytes.to_vec() };
                let user = user.ok_or_else(missing)?;
                (found.session, found.plan, Rc::clone(&found.spec), source, records.count > 0, user)
            }
            Job::Plan { digest, function } => {
                let Some(function) = self.functions.learn(Digest(*digest), function) else { return Ok(false) };
                let function = SharedFunction::decode(&function).map_err(|error| unreadable(error.to_string()))?;
                let spec = PlanSpec::decode(function.spec).map_err(|error| unreadable(error.to_string()))?;
                let reader = spec.run_reader().map_err(|error| unreadable(error.to_string()))?;
                let reader = Reader::of_run(reader).map(|reader| reader.of_shard(&route, here));
                let source = reader.map_or(Source::Worker, |reader| Source::Reader(Some(reader)));
                let user = UserName::from(user);
                let (session, plan) = self.add_shared_session(&function, &user, database);
                made = Some(session);
                (session, plan, Rc::new(spec), source, true, user)
            }
        };
        let number = self.executions.create_part(execution, registration, Style::Compat);
        let mut shared = Shared::new(execution, route, here, Phase::Starting, &spec);
        shared.reads = reads;
        shared.of_registration = registration.is_some();
        let live = self.live_of((session, plan), (user, database), spec, Style::Compat, source);
        let flags = StartFlags(flags.0 & !(StartFlags::LAST.0 | StartFlags::SYNC.0));
        self.add_live(number, Live { flags, shared: Some(Box::new(shared)), ..live });
        // One with a new session is held until that has a worker.
        self.enqueue(number);
        if let Some(session) = made {
            self.prepare_session(session);
        }
        Ok(true)
    }

    /// A session for one execution that another shard began.
    fn add_shared_session(
        &mut self,
        function: &SharedFunction<'_>,
        user: &UserName,
        database: Database,
    ) -> (SessionNo, PlanNo) {
        let of_client = function.of_client.then(|| SavedFunction {
            plan: function.plan as i64,
            spec: ByteBuf::from(function.spec.to_vec()),
            callbacks: ByteBuf::from(function.pickle.to_vec()),
        });
        let pickle = (!function.of_client).then(|| ByteBuf::from(function.pickle.to_vec()));
        let saved = SavedSession {
            name: function.session.to_owned(),
            description: None,
            user: user.to_string(),
            database: database.0.into(),
            source: ByteBuf::new(),
            function: of_client,
            functions: pickle.into_iter().collect(),
            python: function.python.to_owned(),
            requirements: function.requirements.iter().map(|text| (*text).to_owned()).collect(),
            environment: function.environment.to_owned(),
            version: None,
            registrations: Vec::new(),
        };
        let session = self.add_saved_session(saved, false);
        (session, PlanNo(function.plan).in_data_of(session))
    }

    /// Starts the part of an execution that another shard began: it needs no permit of the schedule, because it is one of
    /// those of its initiator, and nothing waits here for a permit that another shard has.
    pub(crate) fn start_part(&mut self, number: ExecutionNo, worker: WorkerNo) {
        let now = self.now_ms();
        self.executions.set_phase(number, Status::PendingRun);
        let Some(live) = self.live.get_mut(&number) else { return };
        live.worker = Some(worker);
        live.started_ms = Some(now);
        live.started = true;
        let (plan, flags) = (live.plan, live.flags);
        let Some(shared) = &mut live.shared else { return };
        shared.phase = Phase::Ready;
        let (execution, initiator) = (shared.id, shared.initiator());
        self.send_route(number, worker);
        let records = Records::default();
        self.send(worker, &ToWorker::Start { exec: number, plan, lane: 0, flags, first_step: 0, records });
        self.started_shared(number);
        self.send_to(initiator, &PeerMessage::Ready { execution });
    }

    /// Tells a worker where the records of an execution go.
    pub(crate) fn send_route(&mut self, number: ExecutionNo, worker: WorkerNo) {
        let Some(shared) = self.live.get(&number).and_then(|live| live.shared.as_ref()) else { return };
        let (here, shards, window) = (shared.here, shared.route.shards.len() as u64, shared.window());
        let mut slots = shared.route.slots.clone();
        if self.planted(Bug::SlotOwnerWrong)
            && let Some(range) = slots.first_mut()
        {
            range.shard = here;
        }
        self.send(worker, &ToWorker::Route { exec: number, here, shards, slots, window });
    }

    /// The `Start` of an execution on several shards was sent to its worker.
    pub(crate) fn started_shared(&mut self, number: ExecutionNo) {
        let Some(shared) = self.live.get_mut(&number).and_then(|live| live.shared.as_mut()) else { return };
        shared.started = true;
        if shared.is_initiator() {
            shared.phase = Phase::Running;
            shared.wait_for_all();
            let (execution, others) = (shared.id, shared.others());
            for shard in others {
                self.send_to(shard, &PeerMessage::Run { execution });
            }
        }
        self.close_stages(number);
    }

    /// Another shard is ready.
    pub(crate) fn peer_is_ready(&mut self, from: ShardId, execution: Identifier) {
        let Some((number, shared)) = self.shared_mut(execution) else { return };
        if shared.phase != Phase::Preparing || !shared.is_initiator() {
            return;
        }
        if shared.answered(from) && shared.waits_for.is_empty() {
            self.enqueue(number);
        }
        let digest = self.live.get(&number).and_then(|live| live.shared.as_ref()?.job.as_ref()?.digest());
        if let Some(digest) = digest {
            self.functions.is_at(from, digest);
        }
    }

    /// Another shard does not have the function.
    pub(crate) fn peer_needs_function(&mut self, from: ShardId, execution: Identifier) {
        if let Some((number, shared)) = self.shared_mut(execution)
            && shared.phase == Phase::Preparing
        {
            self.send_prepare(number, from, true);
        }
    }

    /// All shards are ready.
    pub(crate) fn peer_runs(&mut self, from: ShardId, execution: Identifier) {
        let Some((number, shared)) = self.shared_mut(execution) else { return };
        if shared.phase != Phase::Ready || shared.initiator() != from {
            return;
        }
        shared.phase = Phase::Running;
        let reads = shared.reads;
        self.executions.start(number);
        let Some(live) = self.live.get_mut(&number) else { return };
        match core::mem::replace(&mut live.source, Source::Worker) {
            reader @ Source::Reader(_) => {
                live.source = reader;
                self.readers.add(number);
            }
            Source::Records { count, bytes } if reads => self.feed(number, true, count, &bytes),
            _ => self.feed(number, true, 0, &[]),
        }
    }

    /// The part of another shard has ended.
    pub(crate) fn peer_ended(
        &mut self,
        from: ShardId,
        execution: Identifier,
        (failed, aborted): (bool, bool),
        errors: &[&[u8]],
    ) {
        let Some((number, shared)) = self.shared_mut(execution) else { return };
        // One that ends before all are ready may have been ready before.
        let is_early = shared.phase == Phase::Preparing && shared.position(from).is_some();
        if !shared.is_initiator() || !(shared.answered(from) || is_early) {
            return;
        }
        shared.parts_ended += 1;
        for error in errors {
            self.add_error(number, cut_error(error).into_owned());
        }
        if failed || aborted || is_early {
            return self.fail_shared(number);
        }
        self.end_shared_if_complete(number);
    }

    /// The own part of an execution has ended in its worker; returns whether the execution has ended here.
    pub(crate) fn own_part_ended(&mut self, number: ExecutionNo) -> bool {
        let Some(live) = self.live.get_mut(&number) else { return true };
        let Some(shared) = &mut live.shared else { return true };
        shared.own_ended = true;
        if !shared.is_initiator() || shared.failed || shared.waits_for.is_empty() {
            return true;
        }
        shared.phase = Phase::Waiting;
        live.worker = None;
        self.executions.set_phase(number, Status::PendingCluster);
        self.schedule(|schedule, decisions| schedule.ended(number, decisions));
        false
    }

    fn end_shared_if_complete(&mut self, number: ExecutionNo) {
        let complete = |shared: &Shared| shared.own_ended && shared.waits_for.is_empty();
        if self.live.get(&number).and_then(|live| live.shared.as_ref()).is_some_and(|shared| complete(shared)) {
            self.finish(number, Status::Done);
        }
    }

    /// An execution cannot be completed: it ends on all shards, with the errors that it has.
    pub(crate) fn fail_shared(&mut self, number: ExecutionNo) {
        let Some(live) = self.live.get_mut(&number) else { return };
        let Some(shared) = &mut live.shared else { return };
        if core::mem::replace(&mut shared.failed, true) {
            return;
        }
        let in_worker = live.worker.is_some();
        self.abort_others(number);
        if in_worker {
            self.abort(number);
        } else {
            self.finish(number, Status::Done);
        }
    }

    /// Has the other shards end their parts.
    pub(crate) fn abort_others(&mut self, number: ExecutionNo) {
        let Some(shared) = self.live.get_mut(&number).and_then(|live| live.shared.as_mut()) else { return };
        if !shared.is_initiator() || core::mem::replace(&mut shared.aborted_others, true) {
            return;
        }
        shared.failed = true;
        let (execution, others) = (shared.id, shared.unended());
        for shard in others {
            self.send_to(shard, &PeerMessage::Abort { execution, reason: None });
        }
    }

    /// The end of an execution with a part on this shard.
    pub(crate) fn tell_shards_of_end(&mut self, shared: &Shared, status: Status, errors: &[Vec<u8>], dropped: bool) {
        let execution = shared.id;
        if !shared.is_initiator() {
            let failed = shared.failed || !shared.own_ended;
            let errors = errors.iter().map(Vec::as_slice).collect();
            let aborted = status == Status::Aborted;
            return self.send_to(shared.initiator(), &PeerMessage::Ended { execution, failed, aborted, errors });
        }
        if !shared.aborted_others {
            for shard in shared.unended() {
                self.send_to(shard, &PeerMessage::Abort { execution, reason: None });
            }
        }
        if dropped {
            for shard in shared.others() {
                self.send_to(shard, &PeerMessage::Drop { execution });
            }
        }
    }

    /// The initiator ends an execution.
    pub(crate) fn peer_aborts(&mut self, from: ShardId, execution: Identifier) {
        let Some((number, shared)) = self.shared_mut(execution) else { return };
        if shared.initiator() == from {
            shared.failed = true;
            self.abort(number);
        }
    }

    /// Nobody needs what is left of an execution.
    pub(crate) fn peer_drops(&mut self, execution: Identifier) {
        let Some(number) = self.executions.find(execution) else { return };
        self.drop_at_end(number);
        // One that has not ended is dropped at its end.
        let _ = self.executions.drop_finished(number);
    }

    /// A shard was lost: executions that it takes part in cannot be completed.
    pub(crate) fn executions_lost(&mut self, shard: ShardId, reason: &str) {
        let takes_part = |live: &Live| live.shared.as_ref().is_some_and(|shared| shared.position(shard).is_some());
        let lost: Vec<ExecutionNo> =
            self.live.iter().filter(|(_, live)| takes_part(live)).map(|(number, _)| *number).collect();
        for number in lost {
            let Some(shared) = self.live.get_mut(&number).and_then(|live| live.shared.as_mut()) else { continue };
            if shared.failed || shared.has_ended(shard) {
                continue;
            }
            let (is_initiator, initiator) = (shared.is_initiator(), shared.initiator());
            if initiator != shard {
                let error = Error::ShardLost { shard, reason: reason.to_owned() };
                self.add_error(number, error.to_string().into_bytes());
            }
            if is_initiator {
                self.fail_shared(number);
            } else if let Some(shared) = self.live.get_mut(&number).and_then(|live| live.shared.as_mut()) {
                shared.failed = true;
                self.abort(number);
            }
        }
    }

    /// The part of this shard in an execution.
    pub(crate) fn shared_mut(&mut self, execution: Identifier) -> Option<(ExecutionNo, &mut Shared)> {
        let number = self.executions.find(execution)?;
        self.live.get_mut(&number)?.shared.as_mut().map(|shared| (number, &mut **shared))
    }
}
