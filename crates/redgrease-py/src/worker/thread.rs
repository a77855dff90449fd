//! A thread of the worker, which waits for orders while it has nothing to do.

use std::sync::{Arc, Mutex};
use std::thread::Thread;

use crate::lock::lock;
use crate::running_code::RunningCode;

use super::task::Task;

/// Why a parked thread is woken.
pub enum Order {
    /// To check the schedule: the role of the reader is free, or the worker ends.
    Check,
    /// To run a task.
    Run(Task),
}

/// The state of one thread, shared with the threads that wake or interrupt it.
pub struct WorkerThread {
    thread: Mutex<Option<Thread>>,
    order: Mutex<Option<Order>>,
    code: RunningCode,
}

impl std::fmt::Debug for WorkerThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerThread").field("code", &self.code).finish_non_exhaustive()
    }
}

impl WorkerThread {
    /// A slot that is not bound to an OS thread yet.
    pub fn new() -> Arc<WorkerThread> {
        Arc::new(WorkerThread { thread: Mutex::default(), order: Mutex::default(), code: RunningCode::new() })
    }

    /// Binds this slot to the calling OS thread.
    pub fn bind_current(&self) {
        *lock(&self.thread) = Some(std::thread::current());
    }

    /// The code that the thread runs.
    pub fn code(&self) -> &RunningCode {
        &self.code
    }

    /// Sets the order of the parked thread; call [`WorkerThread::wake`] afterwards.
    pub fn order(&self, order: Order) {
        *lock(&self.order) = Some(order);
    }

    /// Wakes the thread.
    pub fn wake(&self) {
        if let Some(thread) = &*lock(&self.thread) {
            thread.unpark();
        }
    }

    /// Parks until there is an order.
    pub fn wait(&self) -> Order {
        loop {
            if let Some(order) = lock(&self.order).take() {
                return order;
            }
            std::thread::park();
        }
    }
}
