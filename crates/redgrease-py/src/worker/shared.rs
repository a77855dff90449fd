//! What the threads of the worker share.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread::Thread;

use pyo3::prelude::*;
use redgrease_core::frame::{Call, FromWorker};
use redgrease_core::id::{ExecutionNo, SessionNo};

use crate::connection::Connection;
use crate::context::{Context, in_atomic, set_in_atomic};
use crate::hooks::{Hooks, Identity};
use crate::lock::lock;

use super::plans::Plans;
use super::schedule::{Actions, Schedule};
use super::thread::WorkerThread;

static WORKER: OnceLock<Worker> = OnceLock::new();

/// The worker of this process.
#[derive(Debug)]
pub struct Worker {
    /// The connection to the server.
    pub connection: Connection,
    /// What Python gave.
    pub hooks: Hooks,
    /// What it tells the server about itself.
    pub identity: Identity,
    /// Plans of its sessions.
    pub plans: Plans,
    schedule: Mutex<Schedule>,
    watcher: OnceLock<Thread>,
}

impl Worker {
    /// The worker of this process.
    pub fn get() -> Option<&'static Worker> {
        WORKER.get()
    }

    /// The descriptor of its connection.
    pub fn connection_fd(&self) -> i32 {
        self.connection.as_fd().as_raw_fd()
    }

    /// Creates the worker of this process; `None` if there is one already.
    pub fn install(connection: Connection, hooks: Hooks, identity: Identity) -> Option<&'static Worker> {
        let worker = Worker {
            connection,
            hooks,
            identity,
            plans: Plans::default(),
            schedule: Mutex::new(Schedule::new()),
            watcher: OnceLock::new(),
        };
        crate::child::set_worker();
        WORKER.set(worker).ok()?;
        WORKER.get()
    }

    /// Locks the schedule.
    pub(super) fn schedule(&self) -> MutexGuard<'_, Schedule> {
        lock(&self.schedule)
    }

    /// Sets the thread of the watcher.
    pub(super) fn set_watcher(&self, thread: Thread) {
        // Set only by `serve`, and only once.
        let _ = self.watcher.set(thread);
    }

    /// Wakes the watcher.
    pub(super) fn wake_watcher(&self) {
        if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
    }

    /// A result has come that an execution waits for. Called by any thread, with the GIL or without.
    pub fn wake(&'static self, exec: ExecutionNo) {
        let mut actions = Actions::default();
        {
            let mut schedule = self.schedule();
            if !schedule.executions.wake(exec) {
                return;
            }
            schedule.run_woken(&mut actions);
        }
        self.perform(actions);
    }

    /// User code has ended on the calling thread.
    pub(super) fn leave_code(&self, py: Python<'_>, thread: &WorkerThread) {
        thread.code().disarm(py);
        if in_atomic() {
            // The code has not left its block. The answer is not awaited.
            set_in_atomic(false);
            let Context { exec, session, .. } = Context::current();
            let call = self.schedule().calls.number();
            self.connection.append(&FromWorker::Call { call, exec, session: SessionNo(session), op: Call::AtomicExit });
        }
        Context::NONE.enter();
    }
}
