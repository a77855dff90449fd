//! Work that is done in small pieces, with a slice of time per turn of the server's loop.

use core::time::Duration;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Sync executions of events of the server's own iterations over its keys.
    Walks,
    /// Sync executions over streams.
    SyncStreams,
    /// Calls of functions that had to wait.
    Deferred,
    /// Frames of workers.
    Frames,
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
    /// All kinds, in the order in which they get their turn.
    pub const ORDER: [Work; 9] = [
        Work::Walks,
        Work::SyncStreams,
        Work::Deferred,
        Work::Frames,
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
            // Work that the server itself accounts for, or that belongs to a client whose command has ended.
            Work::Walks | Work::SyncStreams | Work::Pending => Duration::from_millis(5),
            Work::Deferred | Work::Frames | Work::Fired => Duration::from_millis(1),
            Work::Acknowledgements | Work::Rows | Work::Readers => Duration::from_micros(250),
        }
    }
}
