//! Work that is done in small pieces, with a slice of time per turn of the server's loop.

use core::time::Duration;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Sync executions of events of the server's own iterations over its keys.
    Walks,
    /// Sync executions over streams.
    SyncStreams,
    /// Sync executions that clients triggered.
    SyncTriggers,
    /// Calls of functions that had to wait.
    Deferred,
    /// Frames of workers.
    Frames,
    /// Messages of and to other shards.
    Peers,
    /// Executions that notifications started.
    Fired,
    /// Executions of waiting key events.
    Pending,
    /// Batches of stream entries that are being acknowledged.
    Acknowledgements,
    /// Replies that are written in parts.
    Rows,
    /// Readers.
    Readers,
}

impl Work {
    /// All kinds, in the order in which they have their turn.
    pub const ORDER: [Work; 11] = [
        Work::Walks,
        Work::SyncStreams,
        Work::SyncTriggers,
        Work::Deferred,
        Work::Frames,
        Work::Peers,
        Work::Fired,
        Work::Pending,
        Work::Acknowledgements,
        Work::Rows,
        Work::Readers,
    ];

    /// The time that it gets in one turn of the loop; at least one piece is done.
    #[must_use]
    pub const fn slice(self) -> Duration {
        match self {
            // What waits for these is counted by the server itself, or by a client of a command that has ended, or it is a
            // client that others must not overtake for long.
            Work::Walks | Work::SyncStreams | Work::SyncTriggers | Work::Pending => Duration::from_millis(5),
            Work::Deferred | Work::Frames | Work::Peers | Work::Fired => Duration::from_millis(1),
            Work::Acknowledgements | Work::Rows | Work::Readers => Duration::from_micros(250),
        }
    }

    /// Whether it takes as much time as it gets, so that more than one slice in a turn of the loop is felt by other clients.
    #[must_use]
    pub const fn is_long(self) -> bool {
        matches!(self, Work::Rows | Work::Readers)
    }
}
