//! The threads of a worker: who reads the socket, who runs what, and who waits.
//!
//! # Leader and followers
//! One thread holds the role of the *reader*. When what it read can be run, it gives the role up and runs it itself, so that a
//! trigger costs no switch of threads; its own `execute` calls are answered to itself in the same way. Nobody
//! need hold the role for a moment. The *watcher* (a tick of a millisecond, parked while nothing runs) makes another thread the reader when
//! nobody has read for a whole tick, and activates another runner when the queue has not moved for one.
//! Sync starts do not wait for a tick and do not count.
//!
//! # Locks
//! `state` guards the queues; the transport's locks may be taken under it. No lock of this crate is ever held while
//! Python's lock is waited for, no Python object is made, called or dropped under one, and so it may be taken with or without Python's.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use redgrease_core::error_text::cut_error;
use redgrease_core::frame::{Call, FromWorker, LogLevel, Records, StartFlags, ToWorker};
use redgrease_core::id::{ExecutionNo, SessionNo};
use redgrease_core::{codec, frame};

use crate::api;
use crate::codec::bytes_of_text;
use crate::plan::{Plan, unknown_plan};
use crate::run::{Ctx, Run, plain_error};
use crate::seat::{Order, Seat};
use crate::transport::{Broken, Transport, lock};

/// Period of the watcher, and how long a queued execution waits for a running one before another thread is activated.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without anything running before the watcher parks.
const QUIET_TICKS: u32 = 20;
/// An execution is worth a progress frame when it has run so long.
const PROGRESS_AFTER: Duration = Duration::from_millis(4);
/// Shortest time between two progress frames of an execution.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);
/// Where answers take longer than this, a queued execution is begun while another one waits for its answer: waking a
/// thread and passing Python's lock to it costs about 15 us, an answer of an idle server about 20.
const SLOW_ANSWER: Duration = Duration::from_micros(45);
/// Threads that a worker may come to have: nested sync executions above it wait.
const SEATS_MAX: usize = 256;
/// Stack of a thread: deep Python recursion and deep pickles need as much as in the main thread.
const STACK_BYTES: usize = 16 << 20;
/// A queue in which the first has waited so long gets another runner even if it moves.
const STALLED: Duration = Duration::from_millis(10);

static WORKER: OnceLock<Arc<Worker>> = OnceLock::new();

thread_local! {
    static CONTEXT: Cell<Context> = const { Cell::new(Context { exec: None, session: 0 }) };
    static IN_ATOMIC: Cell<bool> = const { Cell::new(false) };
}

/// On whose behalf this thread runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Execution; 0 when none.
    pub exec: Option<ExecutionNo>,
    /// Session; 0 when none.
    pub session: u64,
}

impl Context {
    /// That of the calling thread.
    pub fn current() -> Context {
        CONTEXT.get()
    }

    /// Changes that of the calling thread.
    pub fn enter(self) {
        CONTEXT.set(self);
    }
}

/// Whether the calling thread is inside an atomic block.
pub fn in_atomic() -> bool {
    IN_ATOMIC.get()
}

/// Notes that the calling thread entered or left an atomic block.
pub fn set_in_atomic(inside: bool) {
    IN_ATOMIC.set(inside);
}

/// Encoded records of one frame.
#[derive(Debug)]
struct Batch {
    count: u64,
    bytes: Vec<u8>,
}

impl Batch {
    fn of(records: Records<'_>) -> Option<Batch> {
        (records.count > 0 || !records.bytes.is_empty())
            .then(|| Batch { count: records.count, bytes: records.bytes.to_vec() })
    }
}

/// What the server asks of a session.
#[derive(Debug)]
pub enum Job {
    Script { request: u64, session: u64, name: String, source: Vec<u8>, paths: Vec<String>, traceback: bool },
    Restore { request: u64, session: u64, name: String, blobs: Vec<Vec<u8>>, paths: Vec<String> },
    Registered { plan: u64 },
    ForgetPlans { plans: Vec<u64> },
    ForgetSession { session: u64 },
}

/// One go at an execution: what there is of its input now.
#[derive(Debug)]
pub struct Turn {
    exec: ExecutionNo,
    plan: u64,
    flags: StartFlags,
    first_step: u64,
    run: Option<Box<Run>>,
    input: VecDeque<Batch>,
    last: bool,
}

/// What a thread is given to run.
#[derive(Debug)]
pub enum Task {
    /// An execution.
    Turn(Turn),
    /// Something of a session.
    Job(Job),
}

enum What {
    Exec(ExecutionNo),
    Job(Job),
}

#[derive(Debug, Clone)]
enum Phase {
    /// Behind another execution of its lane.
    InLane,
    Queued,
    Running(Arc<Seat>),
    /// Its input is worked off, more will come.
    Waiting,
}

#[derive(Debug)]
struct Exec {
    plan: u64,
    lane: u64,
    flags: StartFlags,
    first_step: u64,
    input: VecDeque<Batch>,
    last: bool,
    begun: bool,
    abort: bool,
    phase: Phase,
    run: Option<Box<Run>>,
}

#[derive(Debug)]
struct Waiter {
    thread: Thread,
    since: Instant,
    exec: Option<ExecutionNo>,
    interruptible: bool,
    result: Option<Result<Vec<u8>, CallError>>,
}

/// Why a call has no value.
#[derive(Debug)]
pub enum CallError {
    /// The server says so.
    Text(String),
    /// The execution that called is being aborted.
    Aborted,
}

#[derive(Debug)]
struct Running {
    seat: Arc<Seat>,
    exec: Option<ExecutionNo>,
    counted: bool,
    since: Instant,
    said: Option<(Instant, u32)>,
}

#[derive(Debug, Default)]
struct State {
    execs: HashMap<ExecutionNo, Exec>,
    sync: VecDeque<ExecutionNo>,
    queue: VecDeque<(ExecutionNo, Instant)>,
    jobs: VecDeque<(Job, Instant)>,
    lanes: HashMap<u64, VecDeque<ExecutionNo>>,
    calls: HashMap<u64, Waiter>,
    calls_made: u64,
    /// How long answers took of late (a moving average).
    answer_nanos: u64,
    /// Whether a thread holds the role of the reader, and how often it was taken.
    reader: bool,
    reads: u64,
    /// How often something was taken from the queues.
    takes: u64,
    idle: Vec<Arc<Seat>>,
    seats: usize,
    running: Vec<Running>,
    counted: usize,
    threads: usize,
    watching: bool,
    ending: bool,
}

/// What is to be done when the lock of the state is released.
#[derive(Default)]
struct Todo {
    wake: Vec<Arc<Seat>>,
    unpark: Vec<Thread>,
    spawn: Vec<(Arc<Seat>, Option<Task>)>,
    interrupt: Vec<(Arc<Seat>, ExecutionNo)>,
    watch: bool,
}

/// Facts of the Python side.
#[derive(Debug)]
pub struct Hooks {
    /// Object with the methods `script`, `restore`, `registered`, `forget_plans`, `forget_session`, `exit`.
    pub sessions: Py<PyAny>,
    /// `describe(exception, traceback) -> str`.
    pub describe: Py<PyAny>,
    /// Version of the interpreter.
    pub python: String,
    /// Version of the package.
    pub package: String,
}

/// The process.
#[derive(Debug)]
pub struct Worker {
    transport: Transport,
    state: Mutex<State>,
    plans: Mutex<HashMap<u64, Arc<Plan>>>,
    hooks: Hooks,
    record_bytes_max: AtomicUsize,
    watcher: OnceLock<Thread>,
}

impl Worker {
    /// The worker of this process.
    pub fn get() -> Option<&'static Arc<Worker>> {
        WORKER.get()
    }

    /// Makes the worker of this process; `None` if there is one already.
    pub fn install(transport: Transport, hooks: Hooks) -> Option<&'static Arc<Worker>> {
        let worker = Arc::new(Worker {
            transport,
            state: Mutex::new(State { threads: 1, ..State::default() }),
            plans: Mutex::default(),
            hooks,
            record_bytes_max: AtomicUsize::new(64 << 20),
            watcher: OnceLock::new(),
        });
        crate::child::set_worker();
        WORKER.set(worker).ok()?;
        WORKER.get()
    }

    /// Longest result, in bytes.
    pub fn record_bytes_max(&self) -> usize {
        self.record_bytes_max.load(Relaxed)
    }

    /// Appends a frame; it leaves with the next flush, at the latest at the watcher's next tick.
    pub fn append(&self, frame: &FromWorker<'_>) {
        // Another thread of the worker may have held the lock when it was forked.
        if crate::child::is_marked() {
            return;
        }
        self.transport.append(frame);
    }

    /// Writes what waits. Blocks: without Python's lock only.
    pub fn flush(&self) {
        if crate::child::is_marked() {
            return;
        }
        self.transport.flush().unwrap_or_else(|broken| fatal(&broken));
    }

    /// The text of an exception.
    pub fn describe(&self, py: Python<'_>, error: PyErr, traceback: bool) -> Vec<u8> {
        // Only this puts the traceback into the exception.
        let error = error.into_value(py).into_bound(py);
        let text = self.hooks.describe.bind(py).call1((&error, traceback));
        match text.and_then(|text| bytes_of_text(&text.cast_into::<PyString>()?)) {
            Ok(text) => text.as_bytes().to_vec(),
            Err(_) => plain_error(&error),
        }
    }

    /// Adds a plan under a number that is not in use.
    pub fn add_plan(&self, number: u64, plan: Plan) -> bool {
        // A refused plan is dropped only when the lock is free.
        let plan = Arc::new(plan);
        let mut plans = lock(&self.plans);
        match plans.entry(number) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(plan.clone());
                true
            }
        }
    }

    /// Forgets plans.
    pub fn remove_plans(&self, numbers: &[u64]) {
        let removed: Vec<_> = {
            let mut plans = lock(&self.plans);
            numbers.iter().filter_map(|number| plans.remove(number)).collect()
        };
        drop(removed);
    }

    /// Serves on the calling thread until the server ends the worker.
    pub fn serve(self: &Arc<Worker>, py: Python<'_>) -> PyResult<()> {
        let worker = self.clone();
        let watcher = std::thread::Builder::new()
            .name("redgrease-watch".to_owned())
            .stack_size(256 << 10)
            .spawn(move || worker.watch())?;
        // Only set here, and only once.
        let _ = self.watcher.set(watcher.thread().clone());
        let seat = Seat::new();
        lock(&self.state).seats += 1;
        seat.sit();
        self.work(py, &seat, None)
    }

    /// A thread's life beside the interpreter.
    fn work(self: &Arc<Worker>, py: Python<'_>, seat: &Arc<Seat>, first: Option<Task>) -> PyResult<()> {
        seat.meet(py)?;
        let mut task = first;
        let mut ran = false;
        loop {
            let next = match task.take() {
                Some(task) => Some(task),
                None => self.take_quickly(ran, seat).or_else(|| py.detach(|| self.next(seat, ran))),
            };
            match next {
                None => return Ok(()),
                Some(Task::Job(job)) => self.run_job(py, seat, job),
                Some(Task::Turn(turn)) => self.run_turn(py, seat, turn),
            }
            ran = true;
            if self.transport.is_due() {
                py.detach(|| self.flush());
            }
        }
    }

    // ---- which thread does what -------------------------------------------------------------------------------

    /// The next task if there is one in the queues already.
    fn take_quickly(self: &Arc<Worker>, ran: bool, seat: &Arc<Seat>) -> Option<Task> {
        let mut state = lock(&self.state);
        let what = state.pick(ran)?;
        let mut todo = Todo::default();
        let task = state.begin(seat, what, &mut todo);
        drop(state);
        self.do_all(todo);
        Some(task)
    }

    /// The next task of this thread; reads or parks until there is one. `None`: the worker ends.
    fn next(self: &Arc<Worker>, seat: &Arc<Seat>, mut ran: bool) -> Option<Task> {
        loop {
            let mut todo = Todo::default();
            let mut state = lock(&self.state);
            if state.ending {
                return None;
            }
            if let Some(what) = state.pick(ran) {
                let task = state.begin(seat, what, &mut todo);
                state.activate_sync(&mut todo);
                drop(state);
                self.do_all(todo);
                return Some(task);
            }
            if !state.reader {
                state.take_reader();
                drop(state);
                let answered = self.read(true);
                let mut state = lock(&self.state);
                state.reader = false;
                // Whoever got its answer will go on asking: let it read for itself.
                if !(answered && !state.running.is_empty() && state.sync.is_empty()) {
                    ran = false;
                    continue;
                }
                state.hand_over(&mut todo);
                state.idle.push(seat.clone());
                drop(state);
                self.do_all(todo);
            } else {
                state.idle.push(seat.clone());
                drop(state);
                self.flush();
            }
            if let Order::Run(task) = seat.wait() {
                return Some(task);
            }
            ran = false;
        }
    }

    /// Reads once, as the reader, and handles every whole frame. Whether a call of another thread was answered.
    fn read(self: &Arc<Worker>, may_run: bool) -> bool {
        let mut inbox = self.transport.receive().unwrap_or_else(|broken| fatal(&broken));
        let mut answered = false;
        let mut todo = Todo::default();
        {
            let mut state = lock(&self.state);
            while let Some(body) = inbox.frame().unwrap_or_else(|broken| fatal(&broken)) {
                let frame = ToWorker::parse(body).unwrap_or_else(|error| fatal(&Broken::Protocol(error)));
                answered |= self.handle(&mut state, frame, &mut todo);
            }
            if !may_run {
                state.activate_sync(&mut todo);
            }
            if state.ending {
                for seat in std::mem::take(&mut state.idle) {
                    seat.order(Order::Look);
                    todo.wake.push(seat);
                }
            }
        }
        drop(inbox);
        self.do_all(todo);
        answered
    }

    fn do_all(self: &Arc<Worker>, todo: Todo) {
        if todo.watch
            && let Some(watcher) = self.watcher.get()
        {
            watcher.unpark();
        }
        todo.wake.iter().for_each(|seat| seat.wake());
        todo.unpark.iter().for_each(Thread::unpark);
        for (seat, task) in todo.spawn {
            self.spawn(seat, task);
        }
        for (seat, exec) in todo.interrupt {
            let spawned = std::thread::Builder::new()
                .name("redgrease-abort".to_owned())
                .spawn(move || seat.interrupt(exec, api::force_stopped));
            // Without it the code ends at its next record, or the server ends the worker.
            drop(spawned);
        }
    }

    fn spawn(self: &Arc<Worker>, seat: Arc<Seat>, task: Option<Task>) {
        let worker = self.clone();
        let spawned =
            std::thread::Builder::new().name("redgrease-run".to_owned()).stack_size(STACK_BYTES).spawn(move || {
                seat.sit();
                // A thread that only reads never has to meet the interpreter.
                if let Some(task) = task.or_else(|| worker.next(&seat, false)) {
                    let result = Python::attach(|py| worker.work(py, &seat, Some(task)));
                    if let Err(error) = result {
                        fatal_text(&format!("a thread could not begin: {error}"));
                    }
                }
            });
        if let Err(error) = spawned {
            fatal_text(&format!("no thread could be started: {error}"));
        }
    }

    /// The watcher's life.
    fn watch(self: &Arc<Worker>) {
        let mut quiet = 0;
        let mut seen = (0, 0);
        loop {
            std::thread::sleep(TICK);
            let mut todo = Todo::default();
            let mut state = lock(&self.state);
            if state.ending {
                return;
            }
            quiet = if state.is_active() { 0 } else { quiet + 1 };
            if quiet > QUIET_TICKS {
                state.watching = false;
                drop(state);
                std::thread::park();
                quiet = 0;
                continue;
            }
            state.watching = true;
            let now = Instant::now();
            if !state.reader && state.reads == seen.0 && state.is_active() {
                state.wake_one(None, &mut todo);
            }
            let moves = state.takes != seen.1;
            state.activate_stalled(now, moves, &mut todo);
            seen = (state.reads, state.takes);
            for running in &mut state.running {
                if let Some((exec, step)) = running.progress(now) {
                    self.append(&FromWorker::Progress { exec, step: u64::from(step) });
                }
            }
            drop(state);
            self.do_all(todo);
            self.transport.try_flush().unwrap_or_else(|broken| fatal(&broken));
        }
    }

    // ---- what the server says ---------------------------------------------------------------------------------

    /// Handles a frame; whether it answered a call of a thread.
    fn handle(self: &Arc<Worker>, state: &mut State, frame: ToWorker<'_>, todo: &mut Todo) -> bool {
        match frame {
            ToWorker::Hello { protocol, threads, record_bytes_max, .. } => {
                if protocol != frame::PROTOCOL_VERSION {
                    fatal_text(&format!(
                        "the server speaks version {protocol} of the worker protocol and this package {}: install the package that belongs to the module",
                        frame::PROTOCOL_VERSION
                    ));
                }
                state.threads = (threads as usize).max(1);
                self.record_bytes_max.store(record_bytes_max as usize, Relaxed);
                self.append(&FromWorker::Ready {
                    protocol: frame::PROTOCOL_VERSION,
                    codec: codec::CODEC_VERSION,
                    pid: u64::from(std::process::id()),
                    python: &self.hooks.python,
                    package: &self.hooks.package,
                });
            }
            ToWorker::Script { request, session, name, source, paths, traceback } => state.job(Job::Script {
                request,
                session: session.0,
                name: name.to_owned(),
                source: source.to_vec(),
                paths: owned(paths),
                traceback,
            }),
            ToWorker::Restore { request, session, name, blobs, paths } => state.job(Job::Restore {
                request,
                session: session.0,
                name: name.to_owned(),
                blobs: blobs.into_iter().map(<[u8]>::to_vec).collect(),
                paths: owned(paths),
            }),
            ToWorker::Registered { plan } => state.job(Job::Registered { plan: plan.0 }),
            ToWorker::ForgetPlans { plans } => {
                state.job(Job::ForgetPlans { plans: plans.iter().map(|plan| plan.0).collect() })
            }
            ToWorker::ForgetSession { session } => state.job(Job::ForgetSession { session: session.0 }),
            ToWorker::Start { exec, plan, lane, flags, first_step, records } => {
                state.start(
                    exec,
                    Exec {
                        plan: plan.0,
                        lane,
                        flags,
                        first_step,
                        input: Batch::of(records).into_iter().collect(),
                        last: flags.has(StartFlags::LAST),
                        begun: false,
                        abort: false,
                        phase: Phase::Queued,
                        run: None,
                    },
                );
            }
            ToWorker::Feed { exec, last, records } => state.feed(exec, last, Batch::of(records)),
            ToWorker::Abort { exec, begun } => {
                if state.abort(exec, begun, todo) {
                    self.append(&FromWorker::Done {
                        exec,
                        aborted: true,
                        records: Records::default(),
                        errors: Vec::new(),
                        step_micros: Vec::new(),
                    });
                }
            }
            ToWorker::Reply { call, result } => {
                if let Some(waiter) = state.calls.get_mut(&call) {
                    let result = result.map(<[u8]>::to_vec).map_err(|text| CallError::Text(text.to_owned()));
                    waiter.result = Some(result);
                    todo.unpark.push(waiter.thread.clone());
                    return true;
                }
            }
            ToWorker::Threads { threads } => state.threads = (threads as usize).max(1),
            ToWorker::Shutdown => {
                state.ending = true;
                self.end();
            }
        }
        false
    }

    /// Ends the process from a thread of its own, whatever user code does.
    fn end(self: &Arc<Worker>) {
        let worker = self.clone();
        let polite = std::thread::Builder::new().spawn(move || {
            worker.flush();
            Python::attach(|py| worker.hooks.sessions.call_method0(py, "exit").map(drop))
        });
        let strict = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            kill_self();
        });
        if polite.is_err() || strict.is_err() {
            kill_self();
        }
    }

    // ---- what user code asks ----------------------------------------------------------------------------------

    /// Asks the server something; [`Worker::finish_call`] follows on the same thread.
    pub fn begin_call(&self, context: Context, op: Call<'_>) -> u64 {
        // Who waits for the server's lock must know whether he got it.
        let interruptible = !matches!(op, Call::AtomicEnter | Call::AtomicExit);
        let mut state = lock(&self.state);
        state.calls_made += 1;
        let call = state.calls_made;
        let (thread, since) = (std::thread::current(), Instant::now());
        state.calls.insert(call, Waiter { thread, since, exec: context.exec, interruptible, result: None });
        drop(state);
        self.append(&FromWorker::Call { call, exec: context.exec, session: SessionNo(context.session), op });
        call
    }

    /// Waits for the answer to a call. Blocks: without Python's lock only.
    pub fn finish_call(self: &Arc<Worker>, call: u64) -> Result<Vec<u8>, CallError> {
        let mut is_sent = false;
        loop {
            let mut todo = Todo::default();
            let mut state = lock(&self.state);
            if state.calls.get(&call).is_none_or(|waiter| waiter.result.is_some()) {
                let answered = state.calls.remove(&call);
                if let Some(waiter) = &answered {
                    let nanos = waiter.since.elapsed().as_nanos() as u64;
                    state.answer_nanos = (7 * state.answer_nanos + nanos) / 8;
                }
                if !state.reader {
                    state.hand_over(&mut todo);
                }
                drop(state);
                self.do_all(todo);
                return answered.and_then(|waiter| waiter.result).unwrap_or(Err(CallError::Aborted));
            }
            if !is_sent && state.answer_nanos > SLOW_ANSWER.as_nanos() as u64 {
                state.use_the_wait(&mut todo);
            }
            if !state.reader {
                state.take_reader();
                drop(state);
                self.do_all(todo);
                is_sent = true;
                self.read(false);
                lock(&self.state).reader = false;
                continue;
            }
            drop(state);
            self.do_all(todo);
            if is_sent {
                std::thread::park();
            } else {
                self.flush();
                is_sent = true;
            }
        }
    }

    // ---- running ----------------------------------------------------------------------------------------------

    fn run_turn(self: &Arc<Worker>, py: Python<'_>, seat: &Arc<Seat>, mut turn: Turn) {
        let exec = turn.exec;
        seat.arm(py, exec);
        let ctx = Ctx { py, worker: self, seat };
        let mut run = match turn.run.take() {
            Some(run) => run,
            None => match self.plan(turn.plan) {
                Some(plan) => Box::new(Run::new(exec, plan, turn.flags, turn.first_step)),
                None => return self.refuse_turn(py, seat, &turn),
            },
        };
        Context { exec: Some(exec), session: run.session() }.enter();
        loop {
            while let Some(batch) = turn.input.pop_front() {
                run.feed(ctx, batch.count, &batch.bytes);
                if crate::child::is_child() {
                    crate::child::end(py, None);
                }
                if !batch.bytes.is_empty() {
                    self.append(&FromWorker::Consumed { exec, bytes: batch.bytes.len() as u64 });
                }
                if self.transport.is_due() {
                    py.detach(|| self.flush());
                }
            }
            if seat.is_aborted() {
                run.abort(ctx);
            }
            if run.is_closed() || turn.last {
                break;
            }
            let mut guard = lock(&self.state);
            let state = &mut *guard;
            let Some(known) = state.execs.get_mut(&exec) else { break };
            if known.abort {
                drop(guard);
                seat.ask_to_end();
                continue;
            }
            if known.input.is_empty() && !known.last {
                known.phase = Phase::Waiting;
            } else if state.queue.is_empty() {
                turn.input = std::mem::take(&mut known.input);
                turn.last = known.last;
                continue;
            } else {
                // Others wait: let them have a turn between two batches.
                known.phase = Phase::Queued;
                state.queue.push_back((exec, Instant::now()));
            }
            known.run = Some(run);
            state.finish(seat);
            drop(guard);
            return self.leave(py, seat);
        }
        if run.is_closed() && !turn.last {
            self.append(&FromWorker::Stop { exec });
        }
        run.finish(ctx);
        // From here on nothing of the user's runs but what his objects do when they go.
        run.clear(py);
        let mut state = {
            self.leave(py, seat);
            lock(&self.state)
        };
        run.done(|frame| self.append(frame));
        state.end(exec);
        state.finish(seat);
        drop(state);
        if turn.flags.has(StartFlags::SYNC) {
            py.detach(|| self.flush());
        }
    }

    fn refuse_turn(&self, py: Python<'_>, seat: &Arc<Seat>, turn: &Turn) {
        let error = unknown_plan(py, turn.plan);
        let text = self.describe(py, error, false);
        self.leave(py, seat);
        let mut state = lock(&self.state);
        self.append(&FromWorker::Done {
            exec: turn.exec,
            aborted: false,
            records: Records::default(),
            errors: vec![&text],
            step_micros: Vec::new(),
        });
        state.end(turn.exec);
        state.finish(seat);
    }

    /// User code has ended on this thread.
    fn leave(&self, py: Python<'_>, seat: &Seat) {
        seat.disarm(py);
        if in_atomic() {
            // It forgot to leave its block. Nobody waits for the answer.
            set_in_atomic(false);
            let Context { exec, session } = Context::current();
            let call = {
                let mut state = lock(&self.state);
                state.calls_made += 1;
                state.calls_made
            };
            self.append(&FromWorker::Call { call, exec, session: SessionNo(session), op: Call::AtomicExit });
        }
        Context { exec: None, session: 0 }.enter();
    }

    fn plan(&self, number: u64) -> Option<Arc<Plan>> {
        lock(&self.plans).get(&number).cloned()
    }

    fn run_job(self: &Arc<Worker>, py: Python<'_>, seat: &Arc<Seat>, job: Job) {
        let sessions = self.hooks.sessions.bind(py);
        let session = match &job {
            Job::Script { session, .. } | Job::Restore { session, .. } | Job::ForgetSession { session } => *session,
            Job::Registered { plan } => self.plan(*plan).map_or(0, |plan| plan.session),
            Job::ForgetPlans { .. } => 0,
        };
        Context { exec: None, session }.enter();
        let (request, result) = match job {
            Job::Script { request, session, name, source, paths, traceback } => {
                let args = (session, name, PyBytes::new(py, &source), paths, traceback);
                (Some(request), sessions.call_method1("script", args))
            }
            Job::Restore { request, session, name, blobs, paths } => {
                let blobs: Vec<_> = blobs.iter().map(|blob| PyBytes::new(py, blob)).collect();
                (Some(request), sessions.call_method1("restore", (session, name, blobs, paths)))
            }
            Job::Registered { plan } => (None, sessions.call_method1("registered", (plan,))),
            Job::ForgetPlans { plans } => {
                self.remove_plans(&plans);
                (None, sessions.call_method1("forget_plans", (plans,)))
            }
            Job::ForgetSession { session } => (None, sessions.call_method1("forget_session", (session,))),
        };
        if crate::child::is_child() {
            crate::child::end(py, result.err());
        }
        let result = result.and_then(|done| match request {
            Some(_) => done.extract::<(Option<String>, Vec<u8>)>(),
            None => Ok((None, Vec::new())),
        });
        let (error, blob) = result.unwrap_or_else(|error| (Some(lossy(self.describe(py, error, true))), Vec::new()));
        let error = error.map(|error| lossy(cut_error(error.as_bytes()).into_owned()));
        match request {
            Some(request) => {
                self.append(&FromWorker::ScriptDone { request, error: error.as_deref(), blob: &blob });
            }
            None => {
                if let Some(error) = error {
                    let message = error.as_bytes();
                    self.append(&FromWorker::Log {
                        session: Some(SessionNo(session)),
                        level: LogLevel::Warning,
                        message,
                    });
                }
            }
        }
        self.leave(py, seat);
        lock(&self.state).finish(seat);
    }
}

impl State {
    fn is_active(&self) -> bool {
        !(self.running.is_empty()
            && self.queue.is_empty()
            && self.jobs.is_empty()
            && self.sync.is_empty()
            && self.calls.is_empty())
    }

    fn job(&mut self, job: Job) {
        self.jobs.push_back((job, Instant::now()));
    }

    fn start(&mut self, id: ExecutionNo, mut exec: Exec) {
        if self.execs.contains_key(&id) {
            fatal_text(&format!("the server started execution {id} twice"));
        }
        if exec.lane != 0 {
            let lane = self.lanes.entry(exec.lane).or_default();
            lane.push_back(id);
            if lane.len() > 1 {
                exec.phase = Phase::InLane;
            }
        }
        let (is_queued, flags) = (matches!(exec.phase, Phase::Queued), exec.flags);
        self.execs.insert(id, exec);
        if is_queued {
            self.enqueue(id, flags);
        }
    }

    fn enqueue(&mut self, exec: ExecutionNo, flags: StartFlags) {
        if flags.has(StartFlags::SYNC) {
            self.sync.push_back(exec);
        } else {
            self.queue.push_back((exec, Instant::now()));
        }
    }

    fn feed(&mut self, id: ExecutionNo, last: bool, batch: Option<Batch>) {
        // An execution that stopped early may be gone while its input is still under way.
        let Some(exec) = self.execs.get_mut(&id) else { return };
        exec.input.extend(batch);
        exec.last |= last;
        if matches!(exec.phase, Phase::Waiting) {
            exec.phase = Phase::Queued;
            let flags = exec.flags;
            self.enqueue(id, flags);
        }
    }

    /// Asks an execution to end; whether it had not begun and is gone.
    fn abort(&mut self, id: ExecutionNo, begun: bool, todo: &mut Todo) -> bool {
        let Some(exec) = self.execs.get_mut(&id) else { return false };
        let has_begun = exec.begun || matches!(exec.phase, Phase::Running(_) | Phase::Waiting);
        if has_begun && !begun {
            return false;
        }
        exec.abort = true;
        match exec.phase.clone() {
            Phase::Running(seat) => {
                seat.ask_to_end();
                for waiter in self.calls.values_mut() {
                    if waiter.exec == Some(id) && waiter.interruptible && waiter.result.is_none() {
                        waiter.result = Some(Err(CallError::Aborted));
                        todo.unpark.push(waiter.thread.clone());
                    }
                }
                todo.interrupt.push((seat, id));
                false
            }
            Phase::Waiting => {
                exec.phase = Phase::Queued;
                let flags = exec.flags;
                self.enqueue(id, flags);
                false
            }
            Phase::Queued | Phase::InLane if exec.begun => false,
            Phase::Queued | Phase::InLane => {
                self.queue.retain(|(queued, _)| *queued != id);
                self.sync.retain(|queued| *queued != id);
                self.end(id);
                true
            }
        }
    }

    /// An execution is over: the next one of its lane may begin.
    fn end(&mut self, id: ExecutionNo) {
        let Some(exec) = self.execs.remove(&id) else { return };
        let Some(lane) = self.lanes.get_mut(&exec.lane) else { return };
        let was_first = lane.front() == Some(&id);
        lane.retain(|queued| *queued != id);
        match lane.front().copied() {
            None => {
                self.lanes.remove(&exec.lane);
            }
            Some(next) if was_first => {
                if let Some(next_exec) = self.execs.get_mut(&next) {
                    next_exec.phase = Phase::Queued;
                    let flags = next_exec.flags;
                    self.enqueue(next, flags);
                }
            }
            Some(_) => {}
        }
    }

    /// What may be run now by a thread that has just run something (`ran`), or by one that would be a further runner.
    fn pick(&mut self, ran: bool) -> Option<What> {
        if let Some(exec) = self.sync.pop_front() {
            return Some(What::Exec(exec));
        }
        let eager = ran || self.running.is_empty();
        let may = |since: &Instant| eager || since.elapsed() >= TICK;
        if self.jobs.front().is_some_and(|(_, since)| may(since)) {
            return self.jobs.pop_front().map(|(job, _)| What::Job(job));
        }
        if self.counted < self.threads && self.queue.front().is_some_and(|(_, since)| may(since)) {
            return self.queue.pop_front().map(|(exec, _)| What::Exec(exec));
        }
        None
    }

    /// `seat` begins with something that was picked.
    fn begin(&mut self, seat: &Arc<Seat>, what: What, todo: &mut Todo) -> Task {
        self.takes += 1;
        let (task, exec, counted) = match what {
            What::Job(job) => {
                seat.give(None, false);
                (Task::Job(job), None, false)
            }
            What::Exec(id) => {
                let exec = self.execs.get_mut(&id).expect("what is queued is known");
                exec.phase = Phase::Running(seat.clone());
                exec.begun = true;
                let turn = Turn {
                    exec: id,
                    plan: exec.plan,
                    flags: exec.flags,
                    first_step: exec.first_step,
                    run: exec.run.take(),
                    input: std::mem::take(&mut exec.input),
                    last: exec.last,
                };
                seat.give(Some(id), exec.abort);
                let counted = !turn.flags.has(StartFlags::SYNC);
                (Task::Turn(turn), Some(id), counted)
            }
        };
        self.counted += usize::from(counted);
        self.running.push(Running { seat: seat.clone(), exec, counted, since: Instant::now(), said: None });
        if !self.watching {
            self.watching = true;
            todo.watch = true;
        }
        task
    }

    /// What `seat` ran is over, or rests.
    fn finish(&mut self, seat: &Arc<Seat>) {
        if let Some(at) = self.running.iter().position(|running| Arc::ptr_eq(&running.seat, seat)) {
            let running = self.running.swap_remove(at);
            seat.give(None, false);
            self.counted -= usize::from(running.counted);
        }
    }

    fn take_reader(&mut self) {
        self.reader = true;
        self.reads += 1;
    }

    /// The role of the reader is free: a thread that waits for an answer needs it most.
    fn hand_over(&mut self, todo: &mut Todo) {
        if let Some(waiter) = self.calls.values().find(|waiter| waiter.result.is_none()) {
            todo.unpark.push(waiter.thread.clone());
        } else if self.running.is_empty() {
            // Only a thread of the user's was here, and it will not come back to read.
            self.wake_one(None, todo);
        }
    }

    /// Gives a thread that has nothing to do, or a new one, something to run or a look around.
    fn wake_one(&mut self, what: Option<What>, todo: &mut Todo) {
        let (seat, is_new) = match self.idle.pop() {
            Some(seat) => (seat, false),
            None => {
                self.seats += 1;
                (Seat::new(), true)
            }
        };
        let task = what.map(|what| self.begin(&seat, what, todo));
        if is_new {
            todo.spawn.push((seat, task));
        } else {
            seat.order(task.map_or(Order::Look, Order::Run));
            todo.wake.push(seat);
        }
    }

    fn has_seat(&self) -> bool {
        !self.idle.is_empty() || self.seats < SEATS_MAX
    }

    /// The server's main thread waits for these: each gets a thread at once.
    fn activate_sync(&mut self, todo: &mut Todo) {
        while !self.sync.is_empty() && self.has_seat() {
            if let Some(exec) = self.sync.pop_front() {
                self.wake_one(Some(What::Exec(exec)), todo);
            }
        }
    }

    /// Begins a queued execution beside one that is about to wait for an answer.
    fn use_the_wait(&mut self, todo: &mut Todo) {
        if !self.queue.is_empty()
            && self.counted < self.threads
            && self.has_seat()
            && let Some(what) = self.pick(true)
        {
            self.wake_one(Some(what), todo);
        }
    }

    /// A further runner where the queue does not move.
    fn activate_stalled(&mut self, now: Instant, moves: bool, todo: &mut Todo) {
        self.activate_sync(todo);
        let stalled = if moves { STALLED } else { TICK };
        let is_stalled = |since: Option<Instant>| since.is_some_and(|since| now.duration_since(since) >= stalled);
        let is_stuck = is_stalled(self.jobs.front().map(|(_, since)| *since))
            || is_stalled(self.queue.front().map(|(_, since)| *since));
        if is_stuck
            && self.has_seat()
            && let Some(what) = self.pick(true)
        {
            self.wake_one(Some(what), todo);
        }
    }
}

impl Running {
    /// The step to tell the server, if it is time.
    fn progress(&mut self, now: Instant) -> Option<(ExecutionNo, u32)> {
        let exec = self.exec?;
        if now.duration_since(self.since) < PROGRESS_AFTER {
            return None;
        }
        let step = self.seat.step();
        match self.said {
            Some((at, said)) if said == step || now.duration_since(at) < PROGRESS_EVERY => None,
            _ => {
                self.said = Some((now, step));
                Some((exec, step))
            }
        }
    }
}

fn owned(texts: Vec<&str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}

/// Text of bytes that are nearly always UTF-8.
pub fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Nothing more can be read or written: a worker without a server has no purpose.
fn fatal(broken: &Broken) -> ! {
    match broken {
        Broken::Closed => kill_self(),
        Broken::Io(error) => fatal_text(&format!("the connection to the server failed: {error}")),
        Broken::Protocol(error) => fatal_text(&format!("the server sent what is no frame: {error}")),
    }
}

fn fatal_text(text: &str) -> ! {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "redgrease worker: {text}");
    kill_self()
}

/// Ends the process at once: no destructor of it may wait for a thread that runs user code.
pub fn kill_self() -> ! {
    loop {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::thread::park_timeout(Duration::from_secs(1));
    }
}
