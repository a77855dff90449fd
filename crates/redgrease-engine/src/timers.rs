//! Timers.

use redgrease_core::id::{ExecutionNo, RegistrationNo, SessionNo, ShardId, WorkerNo};

use crate::id::{BatchNo, Counter, RemovalNo, TimerNo};
use crate::input::Stream;
use crate::prelude::*;
use crate::requirements::installs::Owner;
use crate::streams::held::Release;
use crate::streams::runs::Action;

/// The subject of a timer.
#[derive(Debug)]
pub(crate) enum Timer {
    /// Starting workers was deferred after failures.
    StartWorkers,
    /// Workers are checked for progress.
    LookAtWorkers,
    /// Workers are checked for memory.
    LookAtMemory,
    /// There may be surplus idle workers.
    TrimWorkers,
    /// The deadline of a worker's handshake.
    Handshake(WorkerNo),
    /// The process of a worker that closed its connection should have ended; this many further checks are granted.
    ConnectionClosed(WorkerNo, u32),
    /// A line of output is unfinished.
    UnfinishedLine(WorkerNo, Stream),
    /// The deadline of a session that waits for a worker.
    WorkerWait(SessionNo),
    /// A session with registrations requests a worker again.
    WorkerAgain(SessionNo),
    /// The deadline of a script.
    ScriptLimit(SessionNo),
    /// A script has ended, and its registrations wait until clients are no longer paused.
    ScriptDone {
        /// The worker.
        worker: WorkerNo,
        /// The session.
        session: SessionNo,
        /// There is none.
        error: Option<String>,
        /// Pickle of its plans.
        blob: Vec<u8>,
    },
    /// The deadline of waiting installations.
    InstallLimit(Owner),
    /// A set of requirements may not be needed any more.
    CollectRequirements(Rc<str>),
    /// A time event is due.
    TimeEvent(u64),
    /// The deadline of a request for a profile.
    Profile(u64),
    /// The schedule checks for long executions.
    ScheduleTick,
    /// The deadline of a change of the registrations on other shards.
    ChangeLimit(u64),
    /// A change of another shard is applied: clients were paused.
    PeerChange {
        /// The shard.
        from: ShardId,
        /// The number of the change there.
        number: u64,
        /// The change, encoded.
        change: Vec<u8>,
    },
    /// The same, for all registrations of another shard.
    PeerRegistry {
        /// The shard.
        from: ShardId,
        /// The registrations, encoded.
        change: Vec<u8>,
    },
    /// The deadline of a question to other shards.
    InquiryLimit(u64),
    /// Registrations are compared with those of other shards.
    CompareRegistries,
    /// The deadline of an execution.
    ExecutionLimit(ExecutionNo),
    /// The grace period of an aborted execution.
    AbortGrace(ExecutionNo),
    /// A reader that waits while clients are paused continues.
    ReaderAgain(ExecutionNo),
    /// A decision of a registration's runs is retried: clients were paused.
    StreamAction(RegistrationNo, Action),
    /// The time to wait for further entries of a stream.
    StreamDuration {
        /// The registration.
        registration: RegistrationNo,
        /// The stream.
        stream: Vec<u8>,
        /// Identifies the run.
        epoch: u64,
    },
    /// Streams are searched for again after a failure.
    StreamRetry {
        /// The registration.
        registration: RegistrationNo,
        /// Identifies the retry.
        epoch: u64,
    },
    /// A search for streams begins (at cursor `0`) or continues.
    StreamSearch(RegistrationNo, Vec<u8>),
    /// Streams of these registrations are searched for again.
    StreamsRevived(Vec<RegistrationNo>),
    /// A batch is acknowledged when clients are no longer paused.
    Acknowledge(BatchNo),
    /// Entries that a registration had yet to acknowledge are removed.
    ReleaseHeld(Release),
    /// A consumer group is removed.
    RemoveGroup(RemovalNo),
    /// Links to other shards are looked at.
    LookAtLinks,
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
