//! Simulated workers: processes that read frames, run scripts and functions operation by operation, and send frames.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use redgrease_core::codec::{CODEC_VERSION, Reader, Value};
use redgrease_core::frame::{Call, FromWorker, LogLevel, PROTOCOL_VERSION, Records, StartFlags, ToWorker, split};
use redgrease_core::id::{ExecutionNo, PlanNo, SessionNo, WorkerNo};

use crate::invariants::{Seen, violated};
use crate::plans::{Command, FORBIDDEN, FunctionNo, LEVEL_MAX, Misfortune, Op, Programs};
use crate::random::Random;

/// What workers share.
pub struct Context<'a> {
    /// Random numbers.
    pub random: &'a mut Random,
    /// The time.
    pub now_ms: u64,
    /// Nothing goes wrong any more.
    pub calm: bool,
    /// What scripts and functions do.
    pub programs: &'a Programs,
    /// What was seen.
    pub seen: &'a mut Seen,
    /// Numbers that are given out once: of plans, of keys, of calls in order.
    pub counters: &'a mut Counters,
}

/// Numbers that are given out once.
#[derive(Debug, Default)]
pub struct Counters {
    /// Plans.
    pub plans: u64,
    /// Keys that are written.
    pub keys: u64,
    /// Triggers.
    pub triggers: u64,
}

impl Counters {
    /// The next key of a level.
    pub fn key(&mut self, level: u64) -> Vec<u8> {
        self.keys += 1;
        format!("k{level}:{}", self.keys).into_bytes()
    }

    /// The next call of a function.
    pub fn trigger(&mut self) -> u64 {
        self.triggers += 1;
        self.triggers
    }
}

/// What became of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Process {
    /// It runs.
    Alive,
    /// A signal stopped it.
    Stopped,
    /// It has ended.
    Ended(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Script {
        request: u64,
    },
    Load {
        request: u64,
        fails: bool,
    },
    Restore {
        request: u64,
        fails: bool,
    },
    Callback,
    Execution {
        exec: ExecutionNo,
        lane: u64,
        sync: bool,
    },
    /// An execution that waits for coroutines: it keeps nothing from others.
    Parked {
        exec: ExecutionNo,
    },
}

#[derive(Debug)]
struct Task {
    kind: Kind,
    session: SessionNo,
    ops: Vec<Op>,
    at: usize,
    level: u64,
    /// The call that it waits for.
    waits: Option<u64>,
    wake_ms: u64,
    hangs: bool,
    interrupted: bool,
    /// Bytes of records that were received and not consumed.
    unconsumed: u64,
    consumes_slowly: bool,
    last: bool,
    /// Its caller cannot be blocked.
    no_async: bool,
    error: Option<String>,
    atomic: bool,
    registered: Vec<(PlanNo, FunctionNo)>,
    /// Functions that are registered when their calls succeed.
    registering: BTreeMap<u64, (PlanNo, FunctionNo)>,
}

#[derive(Debug)]
struct Queued {
    exec: ExecutionNo,
    plan: PlanNo,
    lane: u64,
    bytes: u64,
    level: u64,
    last: bool,
    /// Number of the event that it was started for.
    number: Option<u64>,
}

/// A worker.
#[derive(Debug)]
pub struct Worker {
    /// Its number.
    pub number: WorkerNo,
    /// Version of its interpreter.
    pub python: &'static str,
    /// Its process.
    pub process: Process,
    /// The server has asked for its end.
    pub killed: bool,
    /// The server reads nothing from it any more.
    pub disconnected: bool,
    /// The server has handed in the end of the process.
    pub ended: bool,
    /// The server does not want its frames for now.
    pub paused: bool,
    /// What the server has read and not cut into frames.
    pub incoming: Vec<u8>,
    /// What the server has not written.
    pub out: Vec<u8>,
    /// On its way to the worker.
    pub to_worker: Vec<u8>,
    /// On its way to the server.
    pub from_worker: Vec<u8>,
    /// What it wrote to its outputs.
    pub outputs: [Vec<u8>; 2],
    /// Bytes that the connection holds.
    pub capacity: usize,
    /// Its end of the connection is closed.
    pub closed: bool,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    greeted: bool,
    ready_at_ms: u64,
    ready: bool,
    reads: bool,
    mute: bool,
    threads: u64,
    tasks: BTreeMap<u64, Task>,
    next_task: u64,
    next_call: u64,
    queue: VecDeque<Queued>,
    /// Sync executions of a lane that wait for the one before them.
    sync_queue: VecDeque<Queued>,
    /// What it had not begun of those when it ended.
    pub not_begun: Vec<ExecutionNo>,
    plans: BTreeMap<PlanNo, (FunctionNo, SessionNo)>,
    /// Sessions whose function is being loaded: what is started waits for that.
    loading: BTreeSet<SessionNo>,
    calls: BTreeMap<u64, Option<u64>>,
}

impl Worker {
    /// A process that was started.
    pub fn new(number: WorkerNo, python: &'static str, random: &mut Random, now_ms: u64) -> Worker {
        Worker {
            number,
            python,
            process: Process::Alive,
            killed: false,
            disconnected: false,
            ended: false,
            paused: false,
            incoming: Vec::new(),
            out: Vec::new(),
            to_worker: Vec::new(),
            from_worker: Vec::new(),
            outputs: [Vec::new(), Vec::new()],
            capacity: random.pick(&[32 << 10, 200 << 10, 8 << 20]),
            closed: false,
            inbox: Vec::new(),
            outbox: Vec::new(),
            greeted: false,
            ready_at_ms: now_ms + random.between(0, 50),
            ready: false,
            reads: true,
            mute: false,
            threads: 1,
            tasks: BTreeMap::new(),
            next_task: 0,
            next_call: 0,
            queue: VecDeque::new(),
            sync_queue: VecDeque::new(),
            not_begun: Vec::new(),
            plans: BTreeMap::new(),
            loading: BTreeSet::new(),
            calls: BTreeMap::new(),
        }
    }

    /// Whether its process runs or could run again.
    pub fn lives(&self) -> bool {
        !matches!(self.process, Process::Ended(_))
    }

    /// Its process ends.
    pub fn end(&mut self, how: &str) {
        if self.lives() {
            self.process = Process::Ended(how.to_owned());
            self.closed = true;
            self.outbox.clear();
            // The first one may be taken for begun, if the end of the one before it is on its way.
            let first_is_unsure = !self.runs_of_group();
            let queued = std::mem::take(&mut self.sync_queue);
            self.not_begun.extend(queued.iter().skip(usize::from(first_is_unsure)).map(|queued| queued.exec));
            self.tasks.clear();
            self.queue.clear();
        }
    }

    /// Whether it runs an execution of a group of sync executions.
    fn runs_of_group(&self) -> bool {
        self.tasks.values().any(|task| matches!(task.kind, Kind::Execution { lane, sync: true, .. } if lane != 0))
    }

    /// Executions that are running and for which the main thread does not wait.
    pub fn running(&self) -> usize {
        self.tasks.values().filter(|task| matches!(task.kind, Kind::Execution { sync: false, .. })).count()
    }

    /// Whether the server finds something to read.
    pub fn is_readable(&self) -> bool {
        !self.disconnected && (!self.from_worker.is_empty() || self.closed)
    }

    /// When it continues by itself; `None`: never.
    pub fn wakes_ms(&self, now_ms: u64) -> Option<u64> {
        if self.process != Process::Alive {
            return None;
        }
        let busy = (!self.outbox.is_empty() && !self.closed) || (self.reads && !self.to_worker.is_empty());
        let handshake = (self.greeted && !self.ready).then_some(self.ready_at_ms);
        let tasks = self.tasks.values().filter(|task| task.can_go_on()).map(|task| task.wake_ms);
        let earliest = tasks.chain(handshake).min();
        if busy { Some(now_ms) } else { earliest.map(|at| at.max(now_ms)) }
    }

    /// Calls that were not answered.
    pub fn unanswered(&self) -> Vec<u64> {
        if self.lives() { self.calls.keys().copied().collect() } else { Vec::new() }
    }

    /// Advances its code and its socket by a moment. Returns whether something happened.
    pub fn go_on(&mut self, context: &mut Context<'_>) -> bool {
        if context.calm {
            self.reads = true;
            if self.process == Process::Stopped {
                self.process = Process::Alive;
            }
        }
        if self.process != Process::Alive {
            return false;
        }
        let mut moved = self.read(context);
        moved |= self.finish_handshake(context);
        moved |= self.start_queued(context);
        moved |= self.start_sync_queued(context);
        let tasks: Vec<u64> = self.tasks.keys().copied().collect();
        for task in tasks {
            if context.calm || context.random.chance(60) {
                moved |= self.step(task, context);
            }
            if self.process != Process::Alive {
                return true;
            }
        }
        moved | self.write(context)
    }

    fn write(&mut self, context: &mut Context<'_>) -> bool {
        if self.closed {
            self.outbox.clear();
        }
        if self.outbox.is_empty() || self.from_worker.len() >= self.capacity {
            return false;
        }
        let most = self.outbox.len();
        let piece = if context.calm || context.random.chance(60) {
            most
        } else {
            context.random.between(1, most as u64) as usize
        };
        self.from_worker.extend(self.outbox.drain(..piece));
        true
    }

    fn send(&mut self, frame: &FromWorker<'_>) {
        if !self.mute {
            frame.write(&mut self.outbox);
        }
    }

    fn finish_handshake(&mut self, context: &mut Context<'_>) -> bool {
        if !self.greeted || self.ready || self.ready_at_ms > context.now_ms {
            return false;
        }
        self.ready = true;
        let protocol = if !context.calm && context.random.below(300) == 0 { 99 } else { PROTOCOL_VERSION };
        let pid = self.number.0 + 1000;
        self.send(&FromWorker::Ready {
            protocol,
            codec: CODEC_VERSION,
            pid,
            python: self.python,
            package: "1.0.0",
            isolation: "off",
        });
        true
    }

    fn read(&mut self, context: &mut Context<'_>) -> bool {
        if !self.reads || self.to_worker.is_empty() {
            return false;
        }
        self.inbox.append(&mut self.to_worker);
        let inbox = std::mem::take(&mut self.inbox);
        let mut at = 0;
        loop {
            match split(&inbox[at..]) {
                Ok(Some((body, taken))) => {
                    at += taken;
                    match ToWorker::parse(body) {
                        Ok(frame) => self.receive(frame, context),
                        Err(error) => violated("workers are sent frames", format!("{error}: {body:?}")),
                    }
                }
                Ok(None) => break,
                Err(error) => violated("workers are sent frames", error.to_string()),
            }
        }
        if self.lives() {
            self.inbox = inbox[at..].to_vec();
        }
        true
    }

    fn receive(&mut self, frame: ToWorker<'_>, context: &mut Context<'_>) {
        match frame {
            ToWorker::Hello { .. } => self.greeted = true,
            ToWorker::Script { request, session, source, .. } => {
                let ops = context.programs.of_source(source).to_vec();
                self.add(Kind::Script { request }, session, ops, 0);
            }
            ToWorker::Load { request, session, function, .. } => {
                let fails = !context.calm && context.random.chance(3);
                if let Some(number) = function_of(function.callbacks) {
                    self.check_version(number, context);
                    self.plans.insert(function.plan, (number, session));
                }
                self.loading.insert(session);
                self.add(Kind::Load { request, fails }, session, vec![Op::Sleep(2)], 0);
            }
            ToWorker::Restore { request, session, function, blobs, .. } => {
                let fails = !context.calm && context.random.chance(3);
                if !fails {
                    let own = function.and_then(|function| Some((function.plan, function_of(function.callbacks)?)));
                    own.iter().for_each(|(_, number)| self.check_version(*number, context));
                    for (plan, function) in
                        own.into_iter().chain(blobs.iter().flat_map(|blob| functions_of(blob, session)))
                    {
                        let other = self.plans.insert(plan, (function, session));
                        assert!(other.is_none_or(|(_, of)| of == session), "plan {plan} belongs to two sessions");
                    }
                }
                self.add(Kind::Restore { request, fails }, session, vec![Op::Sleep(2)], 0);
            }
            ToWorker::Registered { plan } => {
                let session = self.plans.get(&plan).map(|(_, session)| *session);
                if let Some(session) = session
                    && context.random.chance(5)
                {
                    self.add(Kind::Callback, session, vec![Op::Sleep(1), Op::Execute(Command::Set)], 0);
                }
            }
            ToWorker::Start { exec, plan, lane, flags, records, .. } => {
                self.start(exec, plan, lane, flags, records, context)
            }
            ToWorker::Feed { exec, last, records } => {
                let bytes = records.bytes.len() as u64;
                if let Some(task) = self.tasks.values_mut().find(|task| task.exec() == Some(exec)) {
                    task.unconsumed += bytes;
                    task.last |= last;
                } else if let Some(queued) = self.queue.iter_mut().find(|queued| queued.exec == exec) {
                    queued.bytes += bytes;
                    queued.last |= last;
                }
            }
            ToWorker::Abort { exec, begun } => self.abort(exec, begun, context),
            ToWorker::Reply { call, result } => self.answered(call, result),
            ToWorker::ForgetPlans { plans } => plans.iter().for_each(|plan| {
                self.plans.remove(plan);
            }),
            ToWorker::ForgetSession { session } => self.forget(session, context),
            ToWorker::Threads { threads } => self.threads = threads,
            ToWorker::Profile { request, .. } => self.send(&FromWorker::Answered { request, result: Ok("") }),
            ToWorker::Route { .. }
            | ToWorker::Arrived { .. }
            | ToWorker::Room { .. }
            | ToWorker::CloseStage { .. }
            | ToWorker::Cluster { .. } => unreachable!("there is one shard"),
            ToWorker::Shutdown => self.end("exited with status 0"),
        }
    }

    /// Compiled code can be loaded by its own version only.
    fn check_version(&self, function: usize, context: &Context<'_>) {
        let wanted = context.programs.compiled.get(&function);
        if wanted.is_some_and(|wanted| !self.python.starts_with(&format!("{wanted}."))) {
            violated("compiled code is loaded by its own version", format!("{wanted:?} in {}", self.python));
        }
    }

    fn start(
        &mut self,
        exec: ExecutionNo,
        plan: PlanNo,
        lane: u64,
        flags: StartFlags,
        records: Records<'_>,
        context: &mut Context<'_>,
    ) {
        context.seen.executions = context.seen.executions.max(exec.0);
        let Some((function, session)) = self.plans.get(&plan).copied() else {
            // That of a client is started before it is known whether it can be loaded.
            let of_client = plan.0 > u64::from(u32::MAX);
            if !context.seen.hostile && !of_client {
                violated(
                    "a function is started where it is known",
                    format!("{exec} of plan {plan} in {}", self.number),
                );
            }
            return self.send(&done(exec, false, unknown_plan(context.calm)));
        };
        let function = &context.programs.functions[function];
        let (level, number) = origin(records.bytes, function.name.is_some());
        let (bytes, last) = (records.bytes.len() as u64, flags.has(StartFlags::LAST));
        let queued = Queued { exec, plan, lane, bytes, level, last, number };
        context.seen.not_begun.remove(&exec);
        if flags.has(StartFlags::SYNC) && lane != 0 {
            // It begins when the one before it has ended.
            return self.sync_queue.push_back(queued);
        }
        if let Some(number) = number {
            context.seen.start(plan, number, function.in_order && !function.sync);
        }
        if flags.has(StartFlags::SYNC) {
            let no_async = flags.has(StartFlags::NO_ASYNC);
            let task = self.add(Kind::Execution { exec, lane: 0, sync: true }, session, function.ops.clone(), level);
            (task.unconsumed, task.last, task.no_async) = (bytes, last, no_async);
        } else {
            self.queue.push_back(queued);
        }
    }

    fn start_sync_queued(&mut self, context: &mut Context<'_>) -> bool {
        if self.sync_queue.is_empty() || self.runs_of_group() || self.mute {
            return false;
        }
        // The end of the one before is on its way, whatever happens to this process, which ends where that is not possible.
        if self.closed {
            self.end("exited with status 1");
            return true;
        }
        self.from_worker.append(&mut self.outbox);
        let Some(queued) = self.sync_queue.pop_front() else { return false };
        let Some((function, session)) = self.plans.get(&queued.plan).copied() else {
            self.send(&done(queued.exec, false, unknown_plan(context.calm)));
            return true;
        };
        if let Some(number) = queued.number {
            context.seen.start(queued.plan, number, false);
        }
        let ops = context.programs.functions[function].ops.clone();
        let kind = Kind::Execution { exec: queued.exec, lane: queued.lane, sync: true };
        let task = self.add(kind, session, ops, queued.level);
        (task.unconsumed, task.last, task.no_async) = (queued.bytes, queued.last, false);
        true
    }

    fn start_queued(&mut self, context: &mut Context<'_>) -> bool {
        let mut moved = false;
        while (self.running() as u64) < self.threads {
            let busy: BTreeSet<u64> = self.tasks.values().filter_map(Task::lane).collect();
            let mut passed = BTreeSet::new();
            let next = self.queue.iter().position(|queued| {
                let free = queued.lane == 0 || (!busy.contains(&queued.lane) && !passed.contains(&queued.lane));
                passed.insert(queued.lane);
                let session = self.plans.get(&queued.plan).map(|(_, session)| *session);
                free && session.is_none_or(|session| !self.loading.contains(&session))
            });
            let Some(queued) = next.and_then(|next| self.queue.remove(next)) else { break };
            let Some((function, session)) = self.plans.get(&queued.plan).copied() else {
                self.send(&done(queued.exec, false, unknown_plan(context.calm)));
                continue;
            };
            let slowly = !context.calm && context.random.chance(20);
            let ops = context.programs.functions[function].ops.clone();
            let kind = Kind::Execution { exec: queued.exec, lane: queued.lane, sync: false };
            let task = self.add(kind, session, ops, queued.level);
            (task.unconsumed, task.last, task.consumes_slowly) = (queued.bytes, queued.last, slowly);
            task.no_async = false;
            moved = true;
        }
        moved
    }

    fn add(&mut self, kind: Kind, session: SessionNo, ops: Vec<Op>, level: u64) -> &mut Task {
        self.next_task += 1;
        self.tasks.entry(self.next_task).or_insert(Task {
            kind,
            session,
            ops,
            at: 0,
            level,
            waits: None,
            wake_ms: 0,
            hangs: false,
            interrupted: false,
            unconsumed: 0,
            consumes_slowly: false,
            last: true,
            no_async: true,
            error: None,
            atomic: false,
            registered: Vec::new(),
            registering: BTreeMap::new(),
        })
    }

    fn abort(&mut self, exec: ExecutionNo, begun: bool, context: &mut Context<'_>) {
        if let Some(position) = self.queue.iter().position(|queued| queued.exec == exec) {
            self.queue.remove(position);
            context.seen.done(exec);
            return self.send(&done(exec, true, &[]));
        }
        if let Some(position) = self.sync_queue.iter().position(|queued| queued.exec == exec) {
            self.sync_queue.remove(position);
            return self.send(&done(exec, true, &[]));
        }
        let parked = self.tasks.iter().find(|(_, task)| task.kind == Kind::Parked { exec });
        if let Some(number) = parked.map(|(number, _)| *number).filter(|_| begun) {
            self.tasks.remove(&number);
            context.seen.done(exec);
            return self.send(&done(exec, true, &[]));
        }
        let ignores = !context.calm && context.random.chance(10);
        if let Some(task) = self.tasks.values_mut().find(|task| task.exec() == Some(exec))
            && begun
            && !ignores
        {
            task.interrupted = true;
        }
    }

    fn answered(&mut self, call: u64, result: Result<&[u8], &str>) {
        let Some(task) = self.calls.remove(&call) else {
            violated("a call is answered once", format!("call {call} of worker {}: {result:?}", self.number));
        };
        let Some(task) = task.and_then(|task| self.tasks.get_mut(&task)) else { return };
        if let (Some(plan), true) = (task.registering.remove(&call), result.is_ok()) {
            task.registered.push(plan);
        }
        if task.waits == Some(call) {
            task.waits = None;
        }
    }

    fn forget(&mut self, session: SessionNo, context: &mut Context<'_>) {
        let own = |task: &Task| task.session == session && task.exec().is_some();
        if let Some(task) = self.tasks.values().find(|task| own(task))
            && !context.seen.hostile
        {
            violated("a session ends after its executions", format!("session {session}: {:?}", task.kind));
        }
        // Threads of a script may outlive it.
        if context.calm || context.random.chance(90) {
            self.tasks.retain(|_, task| task.session != session);
        }
        self.plans.retain(|_, (_, of)| *of != session);
        self.loading.remove(&session);
    }

    /// One operation of a task; returns whether something happened.
    fn step(&mut self, number: u64, context: &mut Context<'_>) -> bool {
        let Some(task) = self.tasks.get_mut(&number) else { return false };
        if task.interrupted && (task.waits.is_none() || context.random.chance(50)) {
            return self.interrupt(number, context);
        }
        if context.calm {
            task.hangs = false;
        }
        if !task.can_go_on() || task.wake_ms > context.now_ms {
            return false;
        }
        if let Some(exec) = task.exec()
            && task.unconsumed > 0
        {
            let all = !task.consumes_slowly || context.calm;
            let bytes = if all { task.unconsumed } else { context.random.between(1, task.unconsumed) };
            task.unconsumed -= bytes;
            self.send(&FromWorker::Consumed { exec, bytes });
            return true;
        }
        if let (Some(Op::Sleep(_)), Kind::Execution { exec, .. }) = (task.ops.get(task.at), task.kind)
            && !task.no_async
            && !task.atomic
            && context.random.chance(20)
        {
            task.kind = Kind::Parked { exec };
            self.send(&FromWorker::Parked { exec });
            return true;
        }
        if let Some(op) = task.ops.get(task.at).cloned() {
            task.at += 1;
            self.perform(number, op, context);
            return true;
        }
        if task.last {
            self.finish(number, context);
            return true;
        }
        false
    }

    fn interrupt(&mut self, number: u64, context: &mut Context<'_>) -> bool {
        let Some(task) = self.tasks.get_mut(&number) else { return false };
        task.interrupted = false;
        if std::mem::take(&mut task.atomic) && task.waits.is_none() {
            // `with atomic()` leaves the block.
            task.interrupted = true;
            self.call(number, Call::AtomicExit);
            return true;
        }
        task.error = Some("AbortError the execution was aborted".to_owned());
        task.last = true;
        self.finish(number, context);
        true
    }

    fn finish(&mut self, number: u64, context: &mut Context<'_>) {
        let Some(task) = self.tasks.remove(&number) else { return };
        match task.kind {
            Kind::Script { request } => {
                let blob = blob_of(&task.registered, task.session);
                self.send(&FromWorker::ScriptDone { request, error: task.error.as_deref(), blob: &blob });
            }
            Kind::Load { request, fails } => {
                self.loading.remove(&task.session);
                let error = fails.then_some("TypeError not a plan");
                self.send(&FromWorker::ScriptDone { request, error, blob: b"" });
                if fails {
                    self.plans.retain(|_, (_, session)| *session != task.session);
                }
            }
            Kind::Restore { request, fails } => {
                let error = fails.then_some("ImportError no such module");
                self.send(&FromWorker::ScriptDone { request, error, blob: b"" });
            }
            Kind::Callback => {}
            Kind::Execution { exec, .. } | Kind::Parked { exec } => {
                context.seen.done(exec);
                let errors: Vec<&[u8]> = task.error.iter().map(String::as_bytes).collect();
                let record = Value::Int(7).encode();
                let records = if errors.is_empty() { Records { count: 1, bytes: &record } } else { Records::default() };
                self.send(&FromWorker::Done { exec, aborted: false, records, errors, step_micros: vec![] });
            }
        }
    }

    /// Sends a call of a task, which waits for its answer.
    fn call(&mut self, number: u64, op: Call<'_>) {
        self.next_call += 1;
        let call = self.next_call;
        let Some(task) = self.tasks.get_mut(&number) else { return };
        task.waits = Some(call);
        let (exec, session) = (task.exec(), task.session);
        if !self.mute {
            self.calls.insert(call, Some(number));
        }
        self.send(&FromWorker::Call { call, exec, session, op });
    }

    fn perform(&mut self, number: u64, op: Op, context: &mut Context<'_>) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        let (exec, session) = (task.exec(), task.session);
        match op {
            Op::Sleep(ms) => task.wake_ms = context.now_ms + if context.calm { ms.min(5) } else { ms },
            Op::Execute(command) => {
                if let Some(argv) = argv_of(&command, task.level, context) {
                    self.call(number, Call::Execute { argv: argv.iter().map(Vec::as_slice).collect() });
                }
            }
            Op::Enter => {
                task.atomic = true;
                self.call(number, Call::AtomicEnter);
            }
            Op::Exit => {
                if std::mem::take(&mut task.atomic) {
                    self.call(number, Call::AtomicExit);
                }
            }
            Op::Run(function) => {
                context.counters.plans += 1;
                let plan = PlanNo(context.counters.plans);
                self.plans.insert(plan, (function, session));
                self.call(number, Call::Run { plan, spec: &context.programs.functions[function].spec, blob: b"" });
            }
            Op::Register(function, times) => {
                // Those before the last one are called by threads of the script.
                for _ in 0..times {
                    context.counters.plans += 1;
                    let plan = PlanNo(context.counters.plans);
                    self.plans.insert(plan, (function, session));
                    let blob = blob_of(&[(plan, function)], session);
                    let spec = &context.programs.functions[function].spec;
                    self.call(number, Call::Register { plan, spec, blob: &blob });
                    if let Some(task) = self.tasks.get_mut(&number) {
                        task.registering.insert(self.next_call, (plan, function));
                    }
                }
            }
            Op::ConfigGet => self.call(number, Call::ConfigGet { key: b"key" }),
            Op::HashTag => self.call(number, Call::HashTag),
            Op::Log(bytes) => {
                let message = vec![b'x'; bytes as usize];
                self.send(&FromWorker::Log { session: Some(session), level: LogLevel::Notice, message: &message });
            }
            Op::Print(bytes) => {
                let output = &mut self.outputs[context.random.below(2) as usize];
                output.extend(std::iter::repeat_n(b'p', bytes as usize));
                if context.random.chance(50) {
                    output.push(b'\n');
                }
            }
            Op::Output(bytes) => {
                if let Some(exec) = exec.filter(|_| !context.calm) {
                    let record = Value::Bytes(vec![b'r'; bytes as usize]).encode();
                    self.send(&FromWorker::Output { exec, records: Records { count: 1, bytes: &record } });
                }
            }
            Op::Progress => {
                if let Some(exec) = exec {
                    self.send(&FromWorker::Progress { exec, step: context.random.below(3) });
                }
            }
            Op::Stop => {
                if let Some(exec) = exec {
                    self.send(&FromWorker::Stop { exec });
                }
            }
            Op::Fail(_) if context.calm => {}
            Op::Fail(text) => {
                task.error = Some(text.to_owned());
                task.at = task.ops.len();
                if std::mem::take(&mut task.atomic) {
                    self.call(number, Call::AtomicExit);
                }
            }
            Op::Misfortune(_) if context.calm => {}
            Op::Misfortune(misfortune) => self.suffer(number, misfortune, context),
        }
    }

    /// Something goes wrong.
    pub fn suffer(&mut self, number: u64, misfortune: Misfortune, context: &mut Context<'_>) {
        match misfortune {
            Misfortune::Hang => {
                if let Some(task) = self.tasks.get_mut(&number) {
                    task.hangs = true;
                }
            }
            Misfortune::Crash => {
                self.write(context);
                self.end("was killed by signal 11 (SIGSEGV)");
            }
            Misfortune::CloseAndCrash => {
                self.write(context);
                self.closed = true;
                if context.random.chance(50) {
                    self.end("exited with status 1");
                }
            }
            Misfortune::Close => self.closed = true,
            Misfortune::Stopped => self.process = Process::Stopped,
            Misfortune::Flood => {
                let exec = ExecutionNo(context.random.below(context.seen.executions + 2));
                let frames = if context.random.chance(10) { 10_100 } else { context.random.between(10, 600) };
                for _ in 0..frames {
                    self.send(&FromWorker::Progress { exec, step: 0 });
                }
            }
            Misfortune::Garbage => {
                let garbage: [&[u8]; 4] = [&[0xff; 9], &[0, 0, 0, 0], &[2, 0, 0, 0, 99, 1], &[1, 0, 0, 0, 67]];
                self.outbox.extend_from_slice(garbage[context.random.below(4) as usize]);
            }
            Misfortune::Foreign => self.name_others(context),
            Misfortune::Unfinished => {
                self.outbox.extend_from_slice(&[40, 0, 0, 0, 73]);
                self.mute = true;
            }
            Misfortune::Unread => self.reads = false,
            Misfortune::EndWithoutAnswer => {
                // No execution ends before its input has ended.
                if let Some(task) = self.tasks.get_mut(&number)
                    && task.exec().is_some()
                    && task.last
                {
                    self.call(number, Call::Execute { argv: vec![b"GET", b"k0:1"] });
                    self.finish(number, context);
                }
            }
            Misfortune::EndAndCrash => {
                if self.tasks.get(&number).is_some_and(|task| task.last) {
                    self.finish(number, context);
                }
                self.from_worker.append(&mut self.outbox);
                self.end("was killed by signal 6 (SIGABRT)");
            }
            Misfortune::WrongFrame => match context.random.below(2) {
                0 => self.send(&FromWorker::Ready {
                    isolation: "off",
                    protocol: PROTOCOL_VERSION,
                    codec: CODEC_VERSION,
                    pid: 1,
                    python: self.python,
                    package: "1.0.0",
                }),
                _ => self.send(&FromWorker::ScriptDone { request: 77_777, error: None, blob: b"" }),
            },
        }
    }

    /// Frames that name what lives in other workers, has ended, or never was.
    fn name_others(&mut self, context: &mut Context<'_>) {
        context.seen.hostile = true;
        for _ in 0..context.random.between(1, 8) {
            let exec = ExecutionNo(context.random.below(context.seen.executions + 2));
            let session = SessionNo(context.random.between(1, 12));
            match context.random.below(8) {
                0 => self.send(&FromWorker::Consumed { exec, bytes: context.random.below(1 << 20) }),
                1 => self.send(&FromWorker::Stop { exec }),
                2 => self.send(&done(exec, context.random.chance(50), &[])),
                3 => self.send(&FromWorker::Output { exec, records: Records::default() }),
                4 => self.send(&FromWorker::ScriptDone { request: session.0, error: None, blob: b"" }),
                choice => {
                    self.next_call += 1;
                    let (call, exec) = (self.next_call, Some(exec).filter(|_| choice != 7));
                    if !self.mute {
                        self.calls.insert(call, None);
                    }
                    let op = match context.random.below(3) {
                        0 => Call::AtomicExit,
                        1 => Call::AtomicEnter,
                        _ => Call::Execute { argv: vec![b"SET", b"x", b"x"] },
                    };
                    self.send(&FromWorker::Call { call, exec, session, op });
                }
            }
        }
    }

    /// One of the tasks.
    pub fn some_task(&self, random: &mut Random) -> Option<u64> {
        let tasks: Vec<u64> = self.tasks.keys().copied().collect();
        (!tasks.is_empty()).then(|| random.pick(&tasks))
    }

    /// What it is doing, for a trace.
    pub fn summary(&self) -> String {
        let tasks: Vec<String> = self
            .tasks
            .values()
            .map(|task| format!("{:?} at {} of {}, waits for {:?}", task.kind, task.at, task.ops.len(), task.waits))
            .collect();
        format!(
            "worker {} {:?}: {tasks:?}, {} queued, reads {}",
            self.number,
            self.process,
            self.queue.len(),
            self.reads
        )
    }
}

impl Task {
    fn exec(&self) -> Option<ExecutionNo> {
        if let Kind::Execution { exec, .. } | Kind::Parked { exec } = self.kind { Some(exec) } else { None }
    }

    fn lane(&self) -> Option<u64> {
        if let Kind::Execution { lane, sync: false, .. } = self.kind { Some(lane) } else { None }
    }

    fn can_go_on(&self) -> bool {
        let idle = self.at >= self.ops.len() && !self.last && self.unconsumed == 0;
        self.waits.is_none() && (self.interrupted || (!self.hangs && !idle))
    }
}

fn done<'a>(exec: ExecutionNo, aborted: bool, errors: &[&'a [u8]]) -> FromWorker<'a> {
    FromWorker::Done { exec, aborted, records: Records::default(), errors: errors.to_vec(), step_micros: Vec::new() }
}

/// The errors of an execution whose plan is not known. Retried ones have to end.
fn unknown_plan(calm: bool) -> &'static [&'static [u8]] {
    if calm { &[] } else { &[b"BADPLAN the plan is not known here"] }
}

/// What rebuilds functions: their plans and numbers.
fn blob_of(functions: &[(PlanNo, FunctionNo)], session: SessionNo) -> Vec<u8> {
    let pairs: Vec<String> =
        functions.iter().map(|(plan, function)| format!("{}:{function}", plan.in_data_of(session))).collect();
    pairs.join(",").into_bytes()
}

fn function_of(callbacks: &[u8]) -> Option<FunctionNo> {
    std::str::from_utf8(callbacks).ok()?.parse().ok()
}

fn functions_of(blob: &[u8], session: SessionNo) -> Vec<(PlanNo, FunctionNo)> {
    let text = String::from_utf8_lossy(blob);
    let pair = |text: &str| {
        let (plan, function) = text.split_once(':')?;
        Some((PlanNo(plan.parse().ok()?).in_data_of(session), function.parse().ok()?))
    };
    text.split(',').filter_map(pair).collect()
}

/// The level of what started an execution, and its number where that started it alone.
fn origin(records: &[u8], called: bool) -> (u64, Option<u64>) {
    let Ok(first) = Reader::new(records).value() else { return (0, None) };
    let level_of = |name: &[u8]| name.get(1).map_or(0, |digit| u64::from(digit.saturating_sub(b'0')));
    let number_of = |name: &[u8]| std::str::from_utf8(name).ok()?.split(':').nth(1)?.parse::<u64>().ok();
    let field = |pairs: &[(Value, Value)], name: &str| {
        let found = pairs.iter().find(|(key, _)| key.as_bytes() == Some(name.as_bytes()));
        found.and_then(|(_, value)| value.as_bytes().map(<[u8]>::to_vec))
    };
    match first {
        Value::List(args) if called => {
            let number = |index: usize| {
                let text = args.get(index).and_then(Value::as_bytes)?;
                std::str::from_utf8(text).ok()?.parse::<u64>().ok()
            };
            (number(1).unwrap_or(0), number(2))
        }
        Value::Dict(pairs) => {
            let key = field(&pairs, "key").unwrap_or_default();
            let set = field(&pairs, "event").as_deref() == Some(b"set") && key.starts_with(b"k");
            (level_of(&key), number_of(&key).filter(|_| set))
        }
        _ => (0, None),
    }
}

fn argv_of(command: &Command, level: u64, context: &mut Context<'_>) -> Option<Vec<Vec<u8>>> {
    let random = &mut *context.random;
    let writes = level < LEVEL_MAX && (!context.calm || random.chance(30));
    let words: Vec<Vec<u8>> = match command {
        // A key that does not exist makes an event, too.
        Command::Get if writes => {
            vec![b"GET".to_vec(), format!("k{}:{}", level + 1, random.between(1, 40)).into_bytes()]
        }
        Command::Set if writes => {
            let key = format!("k{}:?", level + 1).into_bytes();
            let mut words = vec![b"SET".to_vec(), key, b"v".to_vec()];
            if random.chance(20) {
                words.push(random.between(1, 200).to_string().into_bytes());
            }
            words
        }
        Command::Del if writes => {
            let (level, key) = (random.between(level + 1, LEVEL_MAX), random.between(1, context.counters.keys.max(1)));
            vec![b"DEL".to_vec(), format!("k{level}:{key}").into_bytes()]
        }
        Command::Add if writes => {
            let name = random.pick(&["a", "b", FORBIDDEN]);
            vec![b"XADD".to_vec(), format!("s{}:{name}", level + 1).into_bytes(), b"v".to_vec()]
        }
        Command::Trigger(name) => vec![
            b"RG.TRIGGER".to_vec(),
            format!("t{name}").into_bytes(),
            level.to_string().into_bytes(),
            context.counters.trigger().to_string().into_bytes(),
        ],
        Command::Unregister => vec![b"RG.UNREGISTER".to_vec(), random.below(60).to_string().into_bytes()],
        Command::Abort => {
            vec![b"RG.ABORTEXECUTION".to_vec(), random.below(context.seen.executions + 1).to_string().into_bytes()]
        }
        Command::Dump => vec![b"RG.DUMPREGISTRATIONS".to_vec()],
        Command::PyExecute => vec![b"RG.PYEXECUTE".to_vec(), b"0".to_vec()],
        Command::Pause(ms) if !context.calm => {
            vec![b"CLIENT".to_vec(), b"PAUSE".to_vec(), ms.to_string().into_bytes()]
        }
        Command::Unknown => vec![b"NOSUCH".to_vec()],
        Command::Foreign => vec![b"OTHER.COMMAND".to_vec(), b"x".to_vec()],
        Command::Forbidden => vec![random.pick(&["SHUTDOWN", "WAIT", "MULTI", "DEBUG"]).as_bytes().to_vec()],
        Command::Get | Command::Set | Command::Del | Command::Add | Command::Pause(_) => return None,
    };
    Some(words)
}
