//! The threads of a worker: which one reads the socket, which ones run code, and which ones wait.
//!
//! # Leader and followers
//! One thread has the role of the *reader*. If it reads something that can run, it gives up the role and runs it itself, so
//! that a trigger costs no thread switch. It reads the replies to its own `execute` calls in the same way. For a moment no
//! thread may have the role. The *watcher* (a tick of a millisecond, parked while nothing runs) makes another thread the
//! reader when no thread has read for a whole tick, and activates another runner when the queue has not moved for one.
//! Sync starts do not wait for a tick and do not count as runners.
//!
//! # Locks
//! `state` guards the queues; the transport's locks may be taken under it. No lock of this crate is held while waiting for
//! the GIL, and no Python object is made, called or dropped under one. So they may be taken with or without the GIL.

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
use crate::transport::{Broken, Transport, lock};
use crate::worker_thread::{Order, WorkerThread};

/// Period of the watcher, and how long a queued execution waits for a running one before another thread is activated.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without anything running before the watcher parks.
const QUIET_TICKS: u32 = 20;
/// Run time after which an execution sends progress frames.
const PROGRESS_AFTER: Duration = Duration::from_millis(4);
/// Shortest time between two progress frames of an execution.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);
/// If answers take longer than this, a queued execution is started while another one waits for its answer. Waking a
/// thread and passing the GIL to it costs about 15 us, an answer of an idle server about 20.
const SLOW_ANSWER: Duration = Duration::from_micros(45);
/// Maximum number of threads; nested sync executions beyond it wait.
const THREADS_MAX: usize = 256;
/// Stack of a thread: deep Python recursion and deep pickles need as much as in the main thread.
const STACK_BYTES: usize = 16 << 20;
/// A queue whose first entry has waited this long gets another runner even if it moves.
const STALLED: Duration = Duration::from_millis(10);

static WORKER: OnceLock<Arc<Worker>> = OnceLock::new();

thread_local! {
    static CONTEXT: Cell<Context> = const { Cell::new(Context { exec: None, session: 0 }) };
    static IN_ATOMIC: Cell<bool> = const { Cell::new(false) };
}

/// The execution and session for which a thread runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Execution.
    pub exec: Option<ExecutionNo>,
    /// Session; 0: none.
    pub session: u64,
}

impl Context {
    /// The context of the calling thread.
    pub fn current() -> Context {
        CONTEXT.get()
    }

    /// Makes this the context of the calling thread.
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

/// A function that a client sent as plan and callbacks.
#[derive(Debug)]
pub struct Function {
    plan: u64,
    spec: Vec<u8>,
    callbacks: Vec<u8>,
}

impl Function {
    fn of(function: frame::Function<'_>) -> Function {
        let frame::Function { plan, spec, callbacks } = function;
        Function { plan: plan.0, spec: spec.to_vec(), callbacks: callbacks.to_vec() }
    }

    fn arguments<'py>(&self, py: Python<'py>) -> (u64, Bound<'py, PyBytes>, Bound<'py, PyBytes>) {
        (self.plan, PyBytes::new(py, &self.spec), PyBytes::new(py, &self.callbacks))
    }
}

/// A request of the server to a session.
#[derive(Debug)]
pub enum Job {
    Script {
        request: u64,
        session: u64,
        name: String,
        source: Vec<u8>,
        paths: Vec<String>,
        traceback: bool,
    },
    Load {
        request: u64,
        session: u64,
        name: String,
        function: Function,
        paths: Vec<String>,
        traceback: bool,
    },
    Restore {
        request: u64,
        session: u64,
        name: String,
        function: Option<Function>,
        blobs: Vec<Vec<u8>>,
        paths: Vec<String>,
    },
    Registered {
        plan: u64,
    },
    ForgetPlans {
        plans: Vec<u64>,
    },
    ForgetSession {
        session: u64,
    },
}

/// One turn of an execution: the input that is available now.
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

/// A task for a thread.
#[derive(Debug)]
pub enum Task {
    /// An execution.
    Turn(Turn),
    /// A request to a session.
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
    /// Its plan is being loaded.
    Loading,
    Queued,
    Running(Arc<WorkerThread>),
    /// Its input is consumed, more will come.
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

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// The server's error.
    Text(String),
    /// The execution that called is being aborted.
    Aborted,
}

#[derive(Debug)]
struct Running {
    thread: Arc<WorkerThread>,
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
    /// Plans that are being loaded, and the executions that wait for them.
    loading: HashMap<u64, Vec<ExecutionNo>>,
    calls: HashMap<u64, Waiter>,
    calls_made: u64,
    /// Moving average of the time to an answer.
    answer_nanos: u64,
    /// Whether a thread has the role of the reader, and how often the role was taken.
    reader: bool,
    reads: u64,
    /// Number of tasks taken from the queues.
    takes: u64,
    idle: Vec<Arc<WorkerThread>>,
    threads: usize,
    running: Vec<Running>,
    counted: usize,
    runners_max: usize,
    watching: bool,
    ending: bool,
}

/// Actions to perform after the lock of the state is released.
#[derive(Default)]
struct Todo {
    wake: Vec<Arc<WorkerThread>>,
    unpark: Vec<Thread>,
    spawn: Vec<(Arc<WorkerThread>, Option<Task>)>,
    interrupt: Vec<(Arc<WorkerThread>, ExecutionNo)>,
    watch: bool,
}

/// Python objects and versions of the worker.
#[derive(Debug)]
pub struct Hooks {
    /// Object with the methods `script`, `load`, `restore`, `registered`, `forget_plans`, `forget_session`, `exit`.
    pub sessions: Py<PyAny>,
    /// `describe(exception, traceback) -> str`.
    pub describe: Py<PyAny>,
    /// Version of the interpreter.
    pub python: String,
    /// Version of the package.
    pub package: String,
}

/// The worker of this process.
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

    /// Creates the worker of this process; `None` if there is one already.
    pub fn install(transport: Transport, hooks: Hooks) -> Option<&'static Arc<Worker>> {
        let worker = Arc::new(Worker {
            transport,
            state: Mutex::new(State { runners_max: 1, ..State::default() }),
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

    /// Writes appended frames. Blocks: call it only without the GIL.
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

    /// Removes plans.
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
        // Set only here, and only once.
        let _ = self.watcher.set(watcher.thread().clone());
        let thread = WorkerThread::new();
        lock(&self.state).threads += 1;
        thread.bind_current();
        self.work(py, &thread, None)
    }

    /// Runs tasks on a thread that is attached to the interpreter.
    fn work(self: &Arc<Worker>, py: Python<'_>, thread: &Arc<WorkerThread>, first: Option<Task>) -> PyResult<()> {
        thread.attach_python(py)?;
        let mut task = first;
        let mut ran = false;
        loop {
            let next = match task.take() {
                Some(task) => Some(task),
                None => self.take_quickly(ran, thread).or_else(|| py.detach(|| self.next(thread, ran))),
            };
            match next {
                None => return Ok(()),
                Some(Task::Job(job)) => self.run_job(py, thread, job),
                Some(Task::Turn(turn)) => self.run_turn(py, thread, turn),
            }
            ran = true;
            if self.transport.is_due() {
                py.detach(|| self.flush());
            }
        }
    }

    // ---- scheduling of threads -------------------------------------------------------------------------------

    /// The next task, if one is queued already.
    fn take_quickly(self: &Arc<Worker>, ran: bool, thread: &Arc<WorkerThread>) -> Option<Task> {
        let mut state = lock(&self.state);
        let what = state.pick(ran)?;
        let mut todo = Todo::default();
        let task = state.begin(thread, what, &mut todo);
        drop(state);
        self.do_all(todo);
        Some(task)
    }

    /// The next task of this thread; reads or parks until there is one. `None`: the worker ends.
    fn next(self: &Arc<Worker>, thread: &Arc<WorkerThread>, mut ran: bool) -> Option<Task> {
        loop {
            let mut todo = Todo::default();
            let mut state = lock(&self.state);
            if state.ending {
                return None;
            }
            if let Some(what) = state.pick(ran) {
                let task = state.begin(thread, what, &mut todo);
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
                // The thread that got its answer is likely to call again: let it read for itself.
                if !(answered && !state.running.is_empty() && state.sync.is_empty()) {
                    ran = false;
                    continue;
                }
                state.hand_over(&mut todo);
                state.idle.push(thread.clone());
                drop(state);
                self.do_all(todo);
            } else {
                state.idle.push(thread.clone());
                drop(state);
                self.flush();
            }
            if let Order::Run(task) = thread.wait() {
                return Some(task);
            }
            ran = false;
        }
    }

    /// Reads once, as the reader, and handles all complete frames. Returns whether it answered a call of another thread.
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
                for thread in std::mem::take(&mut state.idle) {
                    thread.order(Order::Check);
                    todo.wake.push(thread);
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
        todo.wake.iter().for_each(|thread| thread.wake());
        todo.unpark.iter().for_each(Thread::unpark);
        for (thread, task) in todo.spawn {
            self.spawn(thread, task);
        }
        for (thread, exec) in todo.interrupt {
            let spawned = std::thread::Builder::new()
                .name("redgrease-abort".to_owned())
                .spawn(move || thread.interrupt(exec, api::force_stopped));
            // Without this thread the code ends at its next record, or the server kills the worker.
            drop(spawned);
        }
    }

    fn spawn(self: &Arc<Worker>, thread: Arc<WorkerThread>, task: Option<Task>) {
        let worker = self.clone();
        let spawned =
            std::thread::Builder::new().name("redgrease-run".to_owned()).stack_size(STACK_BYTES).spawn(move || {
                thread.bind_current();
                // A thread that only reads never attaches to the interpreter.
                if let Some(task) = task.or_else(|| worker.next(&thread, false)) {
                    let result = Python::attach(|py| worker.work(py, &thread, Some(task)));
                    if let Err(error) = result {
                        fatal_text(&format!("a thread could not begin: {error}"));
                    }
                }
            });
        if let Err(error) = spawned {
            fatal_text(&format!("no thread could be started: {error}"));
        }
    }

    /// The loop of the watcher.
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

    // ---- frames of the server ---------------------------------------------------------------------------------

    /// Handles a frame; returns whether it answered a call of a thread.
    fn handle(self: &Arc<Worker>, state: &mut State, frame: ToWorker<'_>, todo: &mut Todo) -> bool {
        match frame {
            ToWorker::Hello { protocol, threads, record_bytes_max, .. } => {
                if protocol != frame::PROTOCOL_VERSION {
                    fatal_text(&format!(
                        "the server speaks version {protocol} of the worker protocol and this package {}: install the package that belongs to the module",
                        frame::PROTOCOL_VERSION
                    ));
                }
                state.runners_max = (threads as usize).max(1);
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
            ToWorker::Load { request, session, name, function, paths, traceback } => {
                state.loading.insert(function.plan.0, Vec::new());
                state.job(Job::Load {
                    request,
                    session: session.0,
                    name: name.to_owned(),
                    function: Function::of(function),
                    paths: owned(paths),
                    traceback,
                });
            }
            ToWorker::Restore { request, session, name, function, blobs, paths } => state.job(Job::Restore {
                request,
                session: session.0,
                name: name.to_owned(),
                function: function.map(Function::of),
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
            ToWorker::Threads { threads } => state.runners_max = (threads as usize).max(1),
            ToWorker::Shutdown => {
                state.ending = true;
                self.end();
            }
        }
        false
    }

    /// Exits the process from a separate thread, whatever user code does.
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

    // ---- calls of user code ----------------------------------------------------------------------------------

    /// Sends a call to the server; call [`Worker::finish_call`] afterwards on the same thread.
    pub fn begin_call(&self, context: Context, op: Call<'_>) -> u64 {
        // A caller that waits for the server's lock must know whether it has it.
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

    /// Waits for the answer to a call. Blocks: call it only without the GIL.
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
                state.start_beside_wait(&mut todo);
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

    fn run_turn(self: &Arc<Worker>, py: Python<'_>, thread: &Arc<WorkerThread>, mut turn: Turn) {
        let exec = turn.exec;
        thread.arm(py, exec);
        let ctx = Ctx { py, worker: self, thread };
        let mut run = match turn.run.take() {
            Some(run) => run,
            None => match self.plan(turn.plan) {
                Some(plan) => Box::new(Run::new(exec, plan, turn.flags, turn.first_step)),
                None => return self.refuse_turn(py, thread, &turn),
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
            if thread.is_aborted() {
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
                thread.abort();
                continue;
            }
            if known.input.is_empty() && !known.last {
                known.phase = Phase::Waiting;
            } else if state.queue.is_empty() {
                turn.input = std::mem::take(&mut known.input);
                turn.last = known.last;
                continue;
            } else {
                // Other executions wait: let them run between two batches.
                known.phase = Phase::Queued;
                state.queue.push_back((exec, Instant::now()));
            }
            known.run = Some(run);
            state.finish(thread);
            drop(guard);
            return self.leave(py, thread);
        }
        if run.is_closed() && !turn.last {
            self.append(&FromWorker::Stop { exec });
        }
        run.finish(ctx);
        // From here on only destructors of the user's objects run user code.
        run.clear(py);
        let mut state = {
            self.leave(py, thread);
            lock(&self.state)
        };
        run.done(|frame| self.append(frame));
        state.end(exec);
        state.finish(thread);
        drop(state);
        if turn.flags.has(StartFlags::SYNC) {
            py.detach(|| self.flush());
        }
    }

    fn refuse_turn(&self, py: Python<'_>, thread: &Arc<WorkerThread>, turn: &Turn) {
        let error = unknown_plan(py, turn.plan);
        let text = self.describe(py, error, false);
        self.leave(py, thread);
        let mut state = lock(&self.state);
        self.append(&FromWorker::Done {
            exec: turn.exec,
            aborted: false,
            records: Records::default(),
            errors: vec![&text],
            step_micros: Vec::new(),
        });
        state.end(turn.exec);
        state.finish(thread);
    }

    /// User code has ended on this thread.
    fn leave(&self, py: Python<'_>, thread: &WorkerThread) {
        thread.disarm(py);
        if in_atomic() {
            // The code has not left its block. The answer is not awaited.
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

    fn run_job(self: &Arc<Worker>, py: Python<'_>, thread: &Arc<WorkerThread>, job: Job) {
        let sessions = self.hooks.sessions.bind(py);
        let session = match &job {
            Job::Script { session, .. }
            | Job::Load { session, .. }
            | Job::Restore { session, .. }
            | Job::ForgetSession { session } => *session,
            Job::Registered { plan } => self.plan(*plan).map_or(0, |plan| plan.session),
            Job::ForgetPlans { .. } => 0,
        };
        let loaded = if let Job::Load { function, .. } = &job { Some(function.plan) } else { None };
        Context { exec: None, session }.enter();
        let (request, result) = match job {
            Job::Script { request, session, name, source, paths, traceback } => {
                let args = (session, name, PyBytes::new(py, &source), paths, traceback);
                (Some(request), sessions.call_method1("script", args))
            }
            Job::Load { request, session, name, function, paths, traceback } => {
                let args = (session, name, function.arguments(py), paths, traceback);
                (Some(request), sessions.call_method1("load", args))
            }
            Job::Restore { request, session, name, function, blobs, paths } => {
                let function = function.map(|function| function.arguments(py));
                let blobs: Vec<_> = blobs.iter().map(|blob| PyBytes::new(py, blob)).collect();
                (Some(request), sessions.call_method1("restore", (session, name, function, blobs, paths)))
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
        self.leave(py, thread);
        let mut state = lock(&self.state);
        if let Some(plan) = loaded {
            state.loaded(plan);
        }
        state.finish(thread);
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
        if let Some(waiting) = self.loading.get_mut(&exec.plan)
            && matches!(exec.phase, Phase::Queued)
        {
            exec.phase = Phase::Loading;
            waiting.push(id);
        }
        let (is_queued, flags) = (matches!(exec.phase, Phase::Queued), exec.flags);
        self.execs.insert(id, exec);
        if is_queued {
            self.enqueue(id, flags);
        }
    }

    /// A plan was loaded, or cannot be: its executions find that out.
    fn loaded(&mut self, plan: u64) {
        for id in self.loading.remove(&plan).unwrap_or_default() {
            let Some(exec) = self.execs.get_mut(&id).filter(|exec| matches!(exec.phase, Phase::Loading)) else {
                continue;
            };
            exec.phase = Phase::Queued;
            let flags = exec.flags;
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
        // An execution that stopped early may have ended while its input is still being sent.
        let Some(exec) = self.execs.get_mut(&id) else { return };
        exec.input.extend(batch);
        exec.last |= last;
        if matches!(exec.phase, Phase::Waiting) {
            exec.phase = Phase::Queued;
            let flags = exec.flags;
            self.enqueue(id, flags);
        }
    }

    /// Aborts an execution; returns whether it had not begun and was removed.
    fn abort(&mut self, id: ExecutionNo, begun: bool, todo: &mut Todo) -> bool {
        let Some(exec) = self.execs.get_mut(&id) else { return false };
        let has_begun = exec.begun || matches!(exec.phase, Phase::Running(_) | Phase::Waiting);
        if has_begun && !begun {
            return false;
        }
        exec.abort = true;
        match exec.phase.clone() {
            Phase::Running(thread) => {
                thread.abort();
                for waiter in self.calls.values_mut() {
                    if waiter.exec == Some(id) && waiter.interruptible && waiter.result.is_none() {
                        waiter.result = Some(Err(CallError::Aborted));
                        todo.unpark.push(waiter.thread.clone());
                    }
                }
                todo.interrupt.push((thread, id));
                false
            }
            Phase::Waiting => {
                exec.phase = Phase::Queued;
                let flags = exec.flags;
                self.enqueue(id, flags);
                false
            }
            Phase::Queued | Phase::InLane | Phase::Loading if exec.begun => false,
            Phase::Queued | Phase::InLane | Phase::Loading => {
                self.queue.retain(|(queued, _)| *queued != id);
                self.sync.retain(|queued| *queued != id);
                self.end(id);
                true
            }
        }
    }

    /// Ends an execution: the next one of its lane may begin.
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

    /// Chooses the next task for a thread that has just run something (`ran`), or for an additional runner.
    fn pick(&mut self, ran: bool) -> Option<What> {
        if let Some(exec) = self.sync.pop_front() {
            return Some(What::Exec(exec));
        }
        let eager = ran || self.running.is_empty();
        let may = |since: &Instant| eager || since.elapsed() >= TICK;
        if self.jobs.front().is_some_and(|(_, since)| may(since)) {
            return self.jobs.pop_front().map(|(job, _)| What::Job(job));
        }
        if self.counted < self.runners_max && self.queue.front().is_some_and(|(_, since)| may(since)) {
            return self.queue.pop_front().map(|(exec, _)| What::Exec(exec));
        }
        None
    }

    /// Assigns a chosen task to `thread`.
    fn begin(&mut self, thread: &Arc<WorkerThread>, what: What, todo: &mut Todo) -> Task {
        self.takes += 1;
        let (task, exec, counted) = match what {
            What::Job(job) => {
                thread.assign(None, false);
                (Task::Job(job), None, false)
            }
            What::Exec(id) => {
                let exec = self.execs.get_mut(&id).expect("what is queued is known");
                exec.phase = Phase::Running(thread.clone());
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
                thread.assign(Some(id), exec.abort);
                let counted = !turn.flags.has(StartFlags::SYNC);
                (Task::Turn(turn), Some(id), counted)
            }
        };
        self.counted += usize::from(counted);
        self.running.push(Running { thread: thread.clone(), exec, counted, since: Instant::now(), said: None });
        if !self.watching {
            self.watching = true;
            todo.watch = true;
        }
        task
    }

    /// Ends or suspends the task of `thread`.
    fn finish(&mut self, thread: &Arc<WorkerThread>) {
        if let Some(at) = self.running.iter().position(|running| Arc::ptr_eq(&running.thread, thread)) {
            let running = self.running.swap_remove(at);
            thread.assign(None, false);
            self.counted -= usize::from(running.counted);
        }
    }

    fn take_reader(&mut self) {
        self.reader = true;
        self.reads += 1;
    }

    /// Hands over the role of the reader, preferably to a thread that waits for an answer.
    fn hand_over(&mut self, todo: &mut Todo) {
        if let Some(waiter) = self.calls.values().find(|waiter| waiter.result.is_none()) {
            todo.unpark.push(waiter.thread.clone());
        } else if self.running.is_empty() {
            // Only a thread of user code was reading, and it will not continue to read.
            self.wake_one(None, todo);
        }
    }

    /// Wakes an idle thread, or starts a new one, with a task or to check the state.
    fn wake_one(&mut self, what: Option<What>, todo: &mut Todo) {
        let (thread, is_new) = match self.idle.pop() {
            Some(thread) => (thread, false),
            None => {
                self.threads += 1;
                (WorkerThread::new(), true)
            }
        };
        let task = what.map(|what| self.begin(&thread, what, todo));
        if is_new {
            todo.spawn.push((thread, task));
        } else {
            thread.order(task.map_or(Order::Check, Order::Run));
            todo.wake.push(thread);
        }
    }

    fn has_free_thread(&self) -> bool {
        !self.idle.is_empty() || self.threads < THREADS_MAX
    }

    /// Starts sync executions at once, each on its own thread: the server's main thread waits for them.
    fn activate_sync(&mut self, todo: &mut Todo) {
        while !self.sync.is_empty() && self.has_free_thread() {
            if let Some(exec) = self.sync.pop_front() {
                self.wake_one(Some(What::Exec(exec)), todo);
            }
        }
    }

    /// Starts a queued execution while another one waits for an answer.
    fn start_beside_wait(&mut self, todo: &mut Todo) {
        if !self.queue.is_empty()
            && self.counted < self.runners_max
            && self.has_free_thread()
            && let Some(what) = self.pick(true)
        {
            self.wake_one(Some(what), todo);
        }
    }

    /// Starts an additional runner if the queue does not move.
    fn activate_stalled(&mut self, now: Instant, moves: bool, todo: &mut Todo) {
        self.activate_sync(todo);
        let stalled = if moves { STALLED } else { TICK };
        let is_stalled = |since: Option<Instant>| since.is_some_and(|since| now.duration_since(since) >= stalled);
        let is_stuck = is_stalled(self.jobs.front().map(|(_, since)| *since))
            || is_stalled(self.queue.front().map(|(_, since)| *since));
        if is_stuck
            && self.has_free_thread()
            && let Some(what) = self.pick(true)
        {
            self.wake_one(Some(what), todo);
        }
    }
}

impl Running {
    /// The step for a progress frame, if one is due.
    fn progress(&mut self, now: Instant) -> Option<(ExecutionNo, u32)> {
        let exec = self.exec?;
        if now.duration_since(self.since) < PROGRESS_AFTER {
            return None;
        }
        let step = self.thread.step();
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

/// Exits: a worker without a connection to its server has no purpose.
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

/// Kills the process at once: a destructor could wait for a thread that runs user code.
pub fn kill_self() -> ! {
    loop {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::thread::park_timeout(Duration::from_secs(1));
    }
}
