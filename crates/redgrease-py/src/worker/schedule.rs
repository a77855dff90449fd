//! The schedule: which thread reads, which threads run which tasks, and which have nothing to do.
//!
//! It decides under its lock. What has to be done afterwards, such as waking a thread, is collected in [`Actions`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use redgrease_core::frame::StartFlags;
use redgrease_core::id::ExecutionNo;

use super::calls::Calls;
use super::executions::{Abort, Executions};
use super::task::{Job, Task};
use super::thread::{Order, WorkerThread};

/// Period of the watcher, and how long a queued execution waits for a running one before another thread is activated.
pub const TICK: Duration = Duration::from_millis(1);
/// Ticks without anything running before the watcher parks.
const QUIET_TICKS: u32 = 20;
/// Run time after which an execution sends progress frames.
const PROGRESS_AFTER: Duration = Duration::from_millis(4);
/// Shortest time between two progress frames of an execution.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);
/// Maximum number of threads; nested sync executions beyond it wait.
const THREADS_MAX: usize = 256;
/// A queue whose first entry has waited this long gets another runner even if it moves.
const STALLED: Duration = Duration::from_millis(10);

/// Actions to perform after the lock of the schedule is released.
#[derive(Default)]
pub struct Actions {
    /// Threads with an order.
    pub wake: Vec<Arc<WorkerThread>>,
    /// Threads that wait for an answer.
    pub unpark: Vec<Thread>,
    /// Threads to start.
    pub spawn: Vec<(Arc<WorkerThread>, Option<Task>)>,
    /// Threads whose code is to be interrupted.
    pub interrupt: Vec<(Arc<WorkerThread>, ExecutionNo)>,
    /// Whether to wake the watcher.
    pub watch: bool,
}

enum Chosen {
    Execution(ExecutionNo),
    Job(Job),
}

/// What a thread counts as that runs something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    /// Nothing: it runs a request, or a sync execution.
    Nothing,
    /// A runner.
    Runner,
    /// A runner of executions of several shards. There may be as many of them in addition, and more if their queue stalls: the
    /// other shards wait for them.
    RoutedRunner,
}

#[derive(Debug)]
struct Running {
    thread: Arc<WorkerThread>,
    exec: Option<ExecutionNo>,
    counts_as: Counts,
    since: Instant,
    reported: Option<(Instant, u32)>,
}

/// What the watcher saw at its last tick.
#[derive(Default)]
pub struct Seen {
    quiet: u32,
    reads: u64,
    takes: u64,
}

/// What the watcher does after a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// It ticks again.
    Continue,
    /// It parks: nothing runs.
    Park,
    /// It ends, with the worker.
    End,
}

/// What the threads do and are to do.
#[derive(Debug, Default)]
pub struct Schedule {
    /// Executions.
    pub executions: Executions,
    /// Calls to the server.
    pub calls: Calls,
    jobs: VecDeque<(Job, Instant)>,
    /// Whether a thread has the role of the reader, and how often the role was taken.
    reader: bool,
    reads: u64,
    /// Number of tasks taken from the queues.
    takes: u64,
    idle: Vec<Arc<WorkerThread>>,
    threads: usize,
    running: Vec<Running>,
    runners: usize,
    routed_runners: usize,
    runners_max: usize,
    watching: bool,
    ending: bool,
}

impl Schedule {
    /// A schedule of one runner, without threads.
    pub fn new() -> Schedule {
        Schedule { runners_max: 1, ..Schedule::default() }
    }

    /// Sets how many executions may run at once.
    pub fn set_runners_max(&mut self, runners: u64) {
        self.runners_max = (runners as usize).max(1);
    }

    /// Counts a thread that was not started by an action.
    pub fn add_thread(&mut self) {
        self.threads += 1;
    }

    /// Queues a request to a session.
    pub fn add_job(&mut self, job: Job) {
        self.jobs.push_back((job, Instant::now()));
    }

    /// Ends the worker: threads do not get tasks any more.
    pub fn end(&mut self) {
        self.ending = true;
    }

    /// Whether the worker ends.
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// Lets idle threads see that the worker ends.
    pub fn wake_idle(&mut self, actions: &mut Actions) {
        for thread in self.idle.drain(..) {
            thread.order(Order::Check);
            actions.wake.push(thread);
        }
    }

    /// Aborts an execution; returns whether it had not begun and was removed.
    pub fn abort(&mut self, id: ExecutionNo, begun: bool, actions: &mut Actions) -> bool {
        match self.executions.abort(id, begun) {
            Abort::Nothing => false,
            Abort::Removed => true,
            Abort::Interrupt => {
                if let Some(running) = self.running.iter().find(|running| running.exec == Some(id)) {
                    running.thread.code().abort();
                    actions.unpark.extend(self.calls.abort(id));
                    actions.interrupt.push((running.thread.clone(), id));
                }
                false
            }
        }
    }

    // ---- tasks ------------------------------------------------------------------------------------------------

    /// The next task of a thread that has just run something (`ran`), or of an additional runner.
    pub fn take(&mut self, thread: &Arc<WorkerThread>, ran: bool, actions: &mut Actions) -> Option<Task> {
        let chosen = self.choose(ran)?;
        Some(self.begin(thread, chosen, actions))
    }

    fn choose(&mut self, ran: bool) -> Option<Chosen> {
        if let Some(exec) = self.executions.pop_sync() {
            return Some(Chosen::Execution(exec));
        }
        let eager = ran || self.running.is_empty();
        let may = |since: Instant| eager || since.elapsed() >= TICK;
        if self.jobs.front().is_some_and(|(_, since)| may(*since)) {
            return self.jobs.pop_front().map(|(job, _)| Chosen::Job(job));
        }
        if self.routed_runners < self.runners_max && self.executions.routed_queued_since().is_some_and(may) {
            return self.executions.pop_routed().map(Chosen::Execution);
        }
        if self.runners < self.runners_max && self.executions.queued_since().is_some_and(may) {
            return self.executions.pop_queued().map(Chosen::Execution);
        }
        None
    }

    /// Assigns a chosen task to `thread`.
    fn begin(&mut self, thread: &Arc<WorkerThread>, chosen: Chosen, actions: &mut Actions) -> Task {
        self.takes += 1;
        let (task, exec, counts_as) = match chosen {
            Chosen::Job(job) => {
                thread.code().assign(None, false);
                (Task::Job(job), None, Counts::Nothing)
            }
            Chosen::Execution(id) => {
                let (turn, abort) = self.executions.begin_turn(id);
                thread.code().assign(Some(id), abort);
                let counts_as = match &turn.routed {
                    _ if turn.flags.has(StartFlags::SYNC) => Counts::Nothing,
                    None => Counts::Runner,
                    Some(_) => Counts::RoutedRunner,
                };
                (Task::Turn(turn), Some(id), counts_as)
            }
        };
        if let Some(number) = self.number_of(counts_as) {
            *number += 1;
        }
        self.running.push(Running { thread: thread.clone(), exec, counts_as, since: Instant::now(), reported: None });
        if !self.watching {
            self.watching = true;
            actions.watch = true;
        }
        task
    }

    /// Ends or suspends the task of `thread`.
    pub fn finish(&mut self, thread: &Arc<WorkerThread>) {
        if let Some(at) = self.running.iter().position(|running| Arc::ptr_eq(&running.thread, thread)) {
            let running = self.running.swap_remove(at);
            thread.code().assign(None, false);
            if let Some(number) = self.number_of(running.counts_as) {
                *number -= 1;
            }
        }
    }

    fn number_of(&mut self, counts_as: Counts) -> Option<&mut usize> {
        match counts_as {
            Counts::Nothing => None,
            Counts::Runner => Some(&mut self.runners),
            Counts::RoutedRunner => Some(&mut self.routed_runners),
        }
    }

    /// Whether an execution is queued that may run now.
    fn has_runnable(&self) -> bool {
        (self.executions.queued_since().is_some() && self.runners < self.runners_max)
            || (self.executions.routed_queued_since().is_some() && self.routed_runners < self.runners_max)
    }

    // ---- the role of the reader -------------------------------------------------------------------------------

    /// Takes the role of the reader if no thread has it.
    pub fn take_reader(&mut self) -> bool {
        let is_free = !self.reader;
        if is_free {
            self.reader = true;
            self.reads += 1;
        }
        is_free
    }

    /// Gives up the role of the reader.
    pub fn release_reader(&mut self) {
        self.reader = false;
    }

    /// Hands over the role of the reader if it is free, preferably to a thread that waits for an answer.
    pub fn hand_over(&mut self, actions: &mut Actions) {
        if self.reader {
            return;
        }
        if let Some(thread) = self.calls.waiting_thread() {
            actions.unpark.push(thread.clone());
        } else if self.running.is_empty() {
            // Only a thread of user code was reading, and it will not continue to read.
            self.wake_one(None, actions);
        }
    }

    /// Whether code is running and no sync execution waits for a thread.
    pub fn only_runs(&self) -> bool {
        !self.running.is_empty() && !self.executions.has_sync()
    }

    // ---- threads ----------------------------------------------------------------------------------------------

    /// Adds a thread to the idle ones; it has to wait for an order.
    pub fn add_idle(&mut self, thread: &Arc<WorkerThread>) {
        self.idle.push(thread.clone());
    }

    /// Wakes an idle thread, or starts a new one, with a task or to check the schedule.
    fn wake_one(&mut self, chosen: Option<Chosen>, actions: &mut Actions) {
        let (thread, is_new) = match self.idle.pop() {
            Some(thread) => (thread, false),
            None => {
                self.threads += 1;
                (WorkerThread::new(), true)
            }
        };
        let task = chosen.map(|chosen| self.begin(&thread, chosen, actions));
        if is_new {
            actions.spawn.push((thread, task));
        } else {
            thread.order(task.map_or(Order::Check, Order::Run));
            actions.wake.push(thread);
        }
    }

    fn has_free_thread(&self) -> bool {
        !self.idle.is_empty() || self.threads < THREADS_MAX
    }

    /// Starts sync executions at once, each on its own thread: the server's main thread waits for them.
    pub fn activate_sync(&mut self, actions: &mut Actions) {
        while self.has_free_thread()
            && let Some(exec) = self.executions.pop_sync()
        {
            self.wake_one(Some(Chosen::Execution(exec)), actions);
        }
    }

    /// Starts an execution that was woken, unless the threads that run take it soon.
    pub fn run_woken(&mut self, actions: &mut Actions) {
        if self.running.is_empty()
            && self.has_free_thread()
            && let Some(chosen) = self.choose(true)
        {
            self.wake_one(Some(chosen), actions);
        }
        if !std::mem::replace(&mut self.watching, true) {
            actions.watch = true;
        }
    }

    /// Starts a queued execution while another one waits for an answer.
    pub fn start_beside_wait(&mut self, actions: &mut Actions) {
        if self.has_runnable()
            && self.has_free_thread()
            && let Some(chosen) = self.choose(true)
        {
            self.wake_one(Some(chosen), actions);
        }
    }

    // ---- the watcher ------------------------------------------------------------------------------------------

    /// Keeps reading and queues going; `report` gets the step of each execution for which a progress frame is due.
    pub fn tick(&mut self, seen: &mut Seen, actions: &mut Actions, mut report: impl FnMut(ExecutionNo, u32)) -> Tick {
        if self.ending {
            return Tick::End;
        }
        let is_active = self.is_active();
        seen.quiet = if is_active { 0 } else { seen.quiet + 1 };
        if seen.quiet > QUIET_TICKS {
            self.watching = false;
            seen.quiet = 0;
            return Tick::Park;
        }
        self.watching = true;
        let now = Instant::now();
        if !self.reader && self.reads == seen.reads && is_active {
            self.wake_one(None, actions);
        }
        self.activate_stalled(now, self.takes != seen.takes, actions);
        (seen.reads, seen.takes) = (self.reads, self.takes);
        for running in &mut self.running {
            if let Some((exec, step)) = running.progress(now) {
                report(exec, step);
            }
        }
        Tick::Continue
    }

    fn is_active(&self) -> bool {
        !(self.running.is_empty()
            && self.executions.queued_since().is_none()
            && self.executions.routed_queued_since().is_none()
            && self.jobs.is_empty()
            && !self.executions.has_sync()
            && self.calls.is_empty())
    }

    /// Starts an additional runner if the queue does not move.
    fn activate_stalled(&mut self, now: Instant, moves: bool, actions: &mut Actions) {
        self.activate_sync(actions);
        let stalled = if moves { STALLED } else { TICK };
        let is_stalled = |since: Option<Instant>| since.is_some_and(|since| now.duration_since(since) >= stalled);
        let is_stuck = is_stalled(self.jobs.front().map(|(_, since)| *since))
            || is_stalled(self.executions.queued_since())
            || is_stalled(self.executions.routed_queued_since());
        if is_stuck && self.has_free_thread() {
            let has_waited = |since: Instant| now.duration_since(since) >= STALLED;
            let chosen = match self.choose(true) {
                None if self.executions.routed_queued_since().is_some_and(has_waited) => {
                    self.executions.pop_routed().map(Chosen::Execution)
                }
                chosen => chosen,
            };
            if let Some(chosen) = chosen {
                self.wake_one(Some(chosen), actions);
            }
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
        let step = self.thread.code().step();
        match self.reported {
            Some((at, reported)) if reported == step || now.duration_since(at) < PROGRESS_EVERY => None,
            _ => {
                self.reported = Some((now, step));
                Some((exec, step))
            }
        }
    }
}
