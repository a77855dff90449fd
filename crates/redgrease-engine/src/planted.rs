//! Faults that the simulation plants, to show that it finds them. Without the feature `simulation` no fault can be planted
//! and each question for one is the constant `false`.

/// A fault that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Waiting readers are not resumed when their workers have consumed records.
    ReadersNotUnblocked,
    /// Consumed bytes are not returned to the window of a worker.
    WindowNotReduced,
    /// A client that triggered a function is answered twice.
    ClientAnsweredTwice,
    /// The session of a script is kept when its worker ends.
    SessionLeaked,
    /// A call that waited while clients were paused is never served.
    DeferredCallForgotten,
    /// A client that aborts an execution is not answered when that ends by itself first.
    AbortRacesWithEnd,
    /// An execution that waited for its session to be rebuilt is lost.
    HeldExecutionForgotten,
    /// Executions that waited for their session to be rebuilt start in the wrong order.
    HeldExecutionsReversed,
    /// Frames that were kept during a wait are not handled after it.
    KeptFramesForgotten,
    /// A sync execution runs twice after the command that fired it.
    JobRunTwice,
    /// An execution that ended keeps its place among the waiting ones.
    PendingPlaceKept,
    /// The main thread waits for a sync execution without a deadline.
    WaitWithoutDeadline,
    /// Entries that were processed are not acknowledged.
    BatchForgotten,
    /// A session that ended keeps its worker.
    LeaseKept,
    /// After the end of a worker its streams are not read again.
    StreamsNotReset,
    /// The end of a reply that is written in parts is lost.
    RowsNotEnded,
    /// An atomic block stays entered after its end.
    AtomicNotLeft,
    /// A process that ended during a wait is not noticed.
    EndedWorkerForgotten,
    /// A run over a stream that could not begin counts as in flight forever.
    UnreadStreamForgotten,
    /// A run that was decided before a new search for streams reads entries.
    StaleRunReads,
    /// An execution that replaces one with nothing to run starts before those that were started earlier.
    StartedOutOfOrder,
    /// The execution of a script moves to a worker that does not have its plan.
    RunMovedToNewWorker,
    /// Entries that were deleted count as entries of their stream.
    DeletedEntriesCounted,
    /// Sync executions that their worker had not begun when it died are forgotten.
    SyncGroupForgotten,
    /// The sync execution that was running when its worker died runs again.
    SyncGroupRunTwice,
    /// After a panic of the driver, frames that arrived during its wait are not handled.
    PanicForgetsFrames,
    /// A message that another shard had received already counts as not acknowledged.
    AcknowledgementLost,
    /// A message that was sent again is handled again.
    DuplicatesAccepted,
    /// A message that was sent before messages were given up is handled after that.
    StaleEpochAccepted,
    /// An acknowledgement returns the bytes of its message twice.
    CreditDoubled,
    /// A worker sends the records of some slots to another shard than those of the other workers do.
    SlotOwnerWrong,
}

#[cfg(feature = "simulation")]
impl Bug {
    /// Those of links between shards, which have a simulation of their own.
    pub const OF_LINKS: [Bug; 4] =
        [Bug::AcknowledgementLost, Bug::DuplicatesAccepted, Bug::StaleEpochAccepted, Bug::CreditDoubled];

    /// Those that the simulation of clusters finds. The two other ones of links do no harm there: it sends too little to fill a
    /// window, and what it is told of an execution that was given up has no effect.
    pub const OF_SHARDS: [Bug; 3] = [Bug::AcknowledgementLost, Bug::DuplicatesAccepted, Bug::SlotOwnerWrong];

    /// The others.
    pub const ALL: [Bug; 26] = [
        Bug::ReadersNotUnblocked,
        Bug::WindowNotReduced,
        Bug::ClientAnsweredTwice,
        Bug::SessionLeaked,
        Bug::DeferredCallForgotten,
        Bug::AbortRacesWithEnd,
        Bug::HeldExecutionForgotten,
        Bug::HeldExecutionsReversed,
        Bug::KeptFramesForgotten,
        Bug::JobRunTwice,
        Bug::PendingPlaceKept,
        Bug::WaitWithoutDeadline,
        Bug::BatchForgotten,
        Bug::LeaseKept,
        Bug::StreamsNotReset,
        Bug::RowsNotEnded,
        Bug::AtomicNotLeft,
        Bug::EndedWorkerForgotten,
        Bug::UnreadStreamForgotten,
        Bug::StaleRunReads,
        Bug::StartedOutOfOrder,
        Bug::RunMovedToNewWorker,
        Bug::DeletedEntriesCounted,
        Bug::SyncGroupForgotten,
        Bug::SyncGroupRunTwice,
        Bug::PanicForgetsFrames,
    ];
}
