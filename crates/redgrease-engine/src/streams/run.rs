//! How a registration reads its streams, and one run over entries.

use redgrease_core::id::{Database, RegistrationNo};

use crate::input::Actor;
use crate::prelude::*;
use crate::streams::runs::{EntryId, RunKind, StreamRuns};

/// How a registration reads its streams.
#[derive(Debug)]
pub(crate) struct StreamSource {
    /// The registration.
    pub(crate) registration: RegistrationNo,
    /// Its user and its database.
    pub(crate) actor: Actor,
    /// Its consumer group.
    pub(crate) group: Vec<u8>,
    /// Whether entries are removed when they were processed.
    pub(crate) trim: bool,
}

/// The streams of one registration.
#[derive(Debug)]
pub(crate) struct Followed {
    /// How they are read.
    pub(crate) source: Rc<StreamSource>,
    /// The decisions about when to read.
    pub(crate) runs: StreamRuns,
}

/// One run over entries of a stream.
#[derive(Debug, Clone)]
pub(crate) struct StreamRun {
    /// The registration that reads.
    pub(crate) source: Rc<StreamSource>,
    /// The database where the entries are.
    pub(crate) database: Database,
    /// The stream.
    pub(crate) stream: Vec<u8>,
    /// What it reads.
    pub(crate) kind: RunKind,
    /// Identifies the run at its end.
    pub(crate) epoch: u64,
    /// Entries that it has read.
    pub(crate) ids: Vec<EntryId>,
    /// How many of them were deleted while they waited.
    pub(crate) gone: u64,
    /// Its entries changed to another database after they were read.
    pub(crate) moved: bool,
}

impl StreamRun {
    /// Whether it has read all entries of its batch.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.kind, RunKind::Batch(batch) if self.ids.len() as u64 >= batch)
    }

    /// The data of two databases was swapped after the entries were read.
    pub(crate) fn swapped(&mut self, one: Database, other: Database) {
        let database = self.database.after_swap(one, other);
        self.moved |= database != self.database;
        self.database = database;
    }
}
