//! What is to be done at some time.

use redgrease_core::id::{ExecutionNo, RegistrationNo, SessionNo, WorkerNo};

use crate::id::{BatchNo, Counter, RemovalNo, TimerNo};
use crate::input::Stream;
use crate::prelude::*;
use crate::streams::held::Release;
use crate::streams::runs::Action;

/// Something that has its time.
#[derive(Debug)]
pub(crate) enum Timer {
    /// Starting workers was put off after failures.
    StartWorkers,
    /// Workers are looked at for progress.
    LookAtWorkers,
    /// There may be more idle workers than are needed.
    TrimWorkers,
    /// A worker should have finished its handshake.
    Handshake(WorkerNo),
    /// The process of a worker that closed its connection should have ended; so many further looks are granted.
    ConnectionClosed(WorkerNo, u32),
    /// A line of output has no end.
    UnfinishedLine(WorkerNo, Stream),
    /// A session has waited for a worker.
    WorkerWait(SessionNo),
    /// A session with registrations asks for a worker again.
    WorkerAgain(SessionNo),
    /// A script should have ended.
    ScriptLimit(SessionNo),
    /// Installations should have been done.
    InstallLimit(SessionNo),
    /// The schedule looks for long executions.
    ScheduleTick,
    /// An execution should have ended.
    ExecutionLimit(ExecutionNo),
    /// An aborted execution should have ended.
    AbortGrace(ExecutionNo),
    /// A reader that waits while clients are paused continues.
    ReaderAgain(ExecutionNo),
    /// What the runs of a registration decided is tried again: clients were paused.
    StreamAction(RegistrationNo, Action),
    /// Entries of a stream are waited for no longer.
    StreamDuration {
        /// The registration.
        registration: RegistrationNo,
        /// The stream.
        stream: Vec<u8>,
        /// To be given back to the runs.
        epoch: u64,
    },
    /// Streams are looked for again after a failure.
    StreamRetry {
        /// The registration.
        registration: RegistrationNo,
        /// To be given back to the runs.
        epoch: u64,
    },
    /// A search for streams begins (at cursor `0`) or continues.
    StreamSearch(RegistrationNo, Vec<u8>),
    /// Streams of these registrations are looked for again.
    StreamsRevived(Vec<RegistrationNo>),
    /// A batch is acknowledged when clients are not paused any more.
    Acknowledge(BatchNo),
    /// Entries that a registration had yet to acknowledge are removed.
    ReleaseHeld(Release),
    /// A consumer group is removed.
    RemoveGroup(RemovalNo),
}

/// The timers that have not fired.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    counter: Counter,
    all: BTreeMap<TimerNo, Timer>,
}

impl Timers {
    /// Adds a timer.
    pub(crate) fn add(&mut self, timer: Timer) -> TimerNo {
        let number = TimerNo(self.counter.next());
        self.all.insert(number, timer);
        number
    }

    /// Takes a timer that fired.
    pub(crate) fn take(&mut self, number: TimerNo) -> Option<Timer> {
        self.all.remove(&number)
    }

    /// All timers.
    #[cfg(feature = "simulation")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TimerNo, &Timer)> {
        self.all.iter().map(|(number, timer)| (*number, timer))
    }
}
