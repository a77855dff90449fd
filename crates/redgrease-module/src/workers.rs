//! The worker processes by number.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use redgrease_core::id::WorkerNo;

use crate::memory::peak_bytes;
use crate::worker::Worker;

/// Worker processes that run or are being started.
#[derive(Default)]
pub struct Workers {
    running: RefCell<BTreeMap<WorkerNo, Rc<Worker>>>,
    starting: RefCell<BTreeSet<WorkerNo>>,
    past_peak_bytes: Cell<u64>,
}

impl Workers {
    /// A worker is being started.
    pub fn starts(&self, number: WorkerNo) {
        self.starting.borrow_mut().insert(number);
    }

    /// The start of a worker has ended; returns whether the worker is still wanted.
    pub fn started(&self, number: WorkerNo) -> bool {
        self.starting.borrow_mut().remove(&number)
    }

    /// Adds a worker whose process runs.
    pub fn add(&self, worker: Rc<Worker>) {
        self.running.borrow_mut().insert(worker.number, worker);
    }

    /// The worker with this number.
    pub fn get(&self, number: WorkerNo) -> Option<Rc<Worker>> {
        self.running.borrow().get(&number).cloned()
    }

    /// Whether bytes of a worker wait in its rings.
    pub fn has_bytes(&self, number: WorkerNo) -> bool {
        self.running.borrow().get(&number).is_some_and(|worker| worker.connection.has_bytes())
    }

    /// Removes a worker from the table. One that is being started is no longer wanted.
    pub fn remove(&self, number: WorkerNo) -> Option<Rc<Worker>> {
        self.starting.borrow_mut().remove(&number);
        let worker = self.running.borrow_mut().remove(&number)?;
        self.past_peak_bytes.set(self.past_peak_bytes.get() + peak_bytes(worker.process.pid()));
        Some(worker)
    }

    /// Workers without a descriptor that signals their end: on kernels without pidfds.
    pub fn without_pidfd(&self) -> Vec<Rc<Worker>> {
        self.running.borrow().values().filter(|worker| worker.process.pidfd().is_none()).cloned().collect()
    }

    /// Numbers and process ids of all workers.
    pub fn numbers_and_pids(&self) -> Vec<(WorkerNo, u32)> {
        self.running.borrow().iter().map(|(number, worker)| (*number, worker.process.pid())).collect()
    }

    /// Process ids of all workers.
    pub fn pids(&self) -> Vec<u32> {
        self.running.borrow().values().map(|worker| worker.process.pid()).collect()
    }

    /// Sum of the peak memory of all ended workers, in bytes.
    pub fn past_peak_bytes(&self) -> u64 {
        self.past_peak_bytes.get()
    }
}
