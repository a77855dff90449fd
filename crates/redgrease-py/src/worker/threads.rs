//! The threads of a worker: which one reads the socket, which ones run code, and which ones wait.
//!
//! # Leader and followers
//! One thread has the role of the *reader*. If it reads something that can run, it gives up the role and runs it itself, so
//! that a trigger costs no thread switch. It reads the replies to its own `execute` calls in the same way. For a moment no
//! thread may have the role. The *watcher* (a tick of a millisecond, parked while nothing runs) makes another thread the
//! reader when no thread has read for a whole tick, and activates another runner when the queue has not moved for one.
//! Sync starts do not wait for a tick and do not count as runners.

use std::sync::Arc;
use std::thread::{Builder, Thread};

use pyo3::prelude::*;
use redgrease_core::frame::{Call, FromWorker};
use redgrease_core::id::SessionNo;

use crate::context::Context;
use crate::exit::fatal;

use super::calls::Answer;
use super::schedule::{Actions, Seen, TICK, Tick};
use super::shared::Worker;
use super::task::Task;
use super::thread::{Order, WorkerThread};

/// Stack of a thread: deep Python recursion and deep pickles need as much as in the main thread.
const STACK_BYTES: usize = 16 << 20;
/// Stack of the watcher.
const WATCHER_STACK_BYTES: usize = 256 << 10;

impl Worker {
    /// Serves on the calling thread until the server ends the worker.
    pub fn serve(&'static self, py: Python<'_>) -> PyResult<()> {
        let builder = Builder::new().name("redgrease-watch".to_owned()).stack_size(WATCHER_STACK_BYTES);
        self.set_watcher(builder.spawn(|| self.watch())?.thread().clone());
        let thread = WorkerThread::new();
        self.schedule().add_thread();
        thread.bind_current();
        self.work(py, &thread, None)
    }

    /// Runs tasks on a thread that is attached to the interpreter.
    fn work(&'static self, py: Python<'_>, thread: &Arc<WorkerThread>, first: Option<Task>) -> PyResult<()> {
        thread.code().attach_python(py)?;
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
            if self.connection.is_due() {
                py.detach(|| self.connection.flush());
            }
        }
    }

    /// The next task, if one is queued already.
    fn take_quickly(&'static self, ran: bool, thread: &Arc<WorkerThread>) -> Option<Task> {
        let mut actions = Actions::default();
        let task = self.schedule().take(thread, ran, &mut actions)?;
        self.perform(actions);
        Some(task)
    }

    /// The next task of this thread; reads or parks until there is one. `None`: the worker ends.
    fn next(&'static self, thread: &Arc<WorkerThread>, mut ran: bool) -> Option<Task> {
        loop {
            let mut actions = Actions::default();
            let mut schedule = self.schedule();
            if schedule.is_ending() {
                return None;
            }
            if let Some(task) = schedule.take(thread, ran, &mut actions) {
                schedule.activate_sync(&mut actions);
                drop(schedule);
                self.perform(actions);
                return Some(task);
            }
            if schedule.take_reader() {
                drop(schedule);
                let answered = self.read(true);
                let mut schedule = self.schedule();
                schedule.release_reader();
                // The thread that got its answer is likely to call again: let it read for itself.
                if !(answered && schedule.only_runs()) {
                    ran = false;
                    continue;
                }
                schedule.hand_over(&mut actions);
                schedule.add_idle(thread);
                drop(schedule);
                self.perform(actions);
            } else {
                schedule.add_idle(thread);
                drop(schedule);
                self.connection.flush();
            }
            if let Order::Run(task) = thread.wait() {
                return Some(task);
            }
            ran = false;
        }
    }

    /// Reads once, as the reader, and handles all complete frames. Returns whether it answered a call of another thread.
    fn read(&'static self, may_run: bool) -> bool {
        let mut received = self.connection.receive();
        let mut answered = false;
        let mut actions = Actions::default();
        {
            let mut schedule = self.schedule();
            while let Some(frame) = received.frame() {
                answered |= self.handle(&mut schedule, frame, &mut actions);
            }
            if !may_run {
                schedule.activate_sync(&mut actions);
            }
            if schedule.is_ending() {
                schedule.wake_idle(&mut actions);
            }
        }
        drop(received);
        self.perform(actions);
        answered
    }

    pub(super) fn perform(&'static self, actions: Actions) {
        if actions.watch {
            self.wake_watcher();
        }
        actions.wake.iter().for_each(|thread| thread.wake());
        actions.unpark.iter().for_each(Thread::unpark);
        for (thread, task) in actions.spawn {
            self.spawn(thread, task);
        }
        for (thread, exec) in actions.interrupt {
            let spawned =
                Builder::new().name("redgrease-abort".to_owned()).spawn(move || thread.code().interrupt(exec));
            // Without this thread the code ends at its next record, or the server kills the worker.
            drop(spawned);
        }
    }

    fn spawn(&'static self, thread: Arc<WorkerThread>, task: Option<Task>) {
        let spawned = Builder::new().name("redgrease-run".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            thread.bind_current();
            // A thread that only reads never attaches to the interpreter.
            if let Some(task) = task.or_else(|| self.next(&thread, false)) {
                let result = Python::attach(|py| self.work(py, &thread, Some(task)));
                if let Err(error) = result {
                    fatal(&format!("a thread could not begin: {error}"));
                }
            }
        });
        if let Err(error) = spawned {
            fatal(&format!("no thread could be started: {error}"));
        }
    }

    /// The loop of the watcher.
    fn watch(&'static self) {
        let mut seen = Seen::default();
        loop {
            std::thread::sleep(TICK);
            let mut actions = Actions::default();
            let report = |exec, step| {
                self.connection.append(&FromWorker::Progress { exec, step: u64::from(step) });
            };
            let tick = self.schedule().tick(&mut seen, &mut actions, report);
            match tick {
                Tick::End => return,
                Tick::Park => std::thread::park(),
                Tick::Continue => {
                    self.perform(actions);
                    self.connection.try_flush();
                }
            }
        }
    }

    /// Sends a call to the server; call [`Worker::finish_call`] afterwards on the same thread.
    pub fn begin_call(&self, context: Context, op: Call<'_>) -> u64 {
        // A caller that waits for the server's lock must know whether it has it.
        let interruptible = !matches!(op, Call::AtomicEnter | Call::AtomicExit);
        let call = self.schedule().calls.begin(context.exec, interruptible);
        let session = SessionNo(context.session);
        self.connection.append(&FromWorker::Call { call, exec: context.exec, session, op });
        call
    }

    /// A number for a call that a coroutine awaits.
    pub fn number_awaited(&self) -> u64 {
        self.schedule().calls.begin_awaited()
    }

    /// Sends a call that a coroutine awaits.
    pub fn send_awaited(&self, call: u64, context: Context, op: Call<'_>) {
        let session = SessionNo(context.session);
        self.connection.append(&FromWorker::Call { call, exec: context.exec, session, op });
        self.connection.flush();
    }

    /// Waits for the answer to a call. Blocks: call it only without the GIL.
    pub fn finish_call(&'static self, call: u64) -> Answer {
        let mut is_sent = false;
        loop {
            let mut actions = Actions::default();
            let mut schedule = self.schedule();
            if let Some(answer) = schedule.calls.take_answer(call) {
                schedule.hand_over(&mut actions);
                drop(schedule);
                self.perform(actions);
                return answer;
            }
            if !is_sent && schedule.calls.are_slow() {
                schedule.start_beside_wait(&mut actions);
            }
            let reads = schedule.take_reader();
            drop(schedule);
            self.perform(actions);
            if reads {
                is_sent = true;
                self.read(false);
                self.schedule().release_reader();
            } else if is_sent {
                std::thread::park();
            } else {
                self.connection.flush();
                is_sent = true;
            }
        }
    }
}
