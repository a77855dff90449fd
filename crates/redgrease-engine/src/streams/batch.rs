//! Batches of entries that are being acknowledged, and groups that are being removed.

use redgrease_core::id::Database;

use crate::id::{BatchNo, Counter, RemovalNo};
use crate::limits::ENTRIES_PER_COMMAND;
use crate::prelude::*;
use crate::streams::run::{StreamRun, StreamSource};
use crate::streams::runs::{Action, EntryId};

/// Entries of a run that are to be acknowledged.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The registration that read them.
    pub(crate) source: Rc<StreamSource>,
    /// The database where they are.
    pub(crate) database: Database,
    /// The stream.
    pub(crate) stream: Vec<u8>,
    /// The entries.
    pub(crate) ids: Vec<EntryId>,
    /// How many of them were acknowledged.
    pub(crate) done: usize,
    /// What follows when all are.
    pub(crate) then: Option<Action>,
    /// How many times it was deferred.
    pub(crate) tries: u32,
    /// Commands that were run since it last yielded to others.
    pub(crate) commands: u32,
}

impl Batch {
    /// Acknowledges the entries of a run, and then does `then`.
    pub(crate) fn new(run: StreamRun, then: Option<Action>) -> Batch {
        let StreamRun { source, database, stream, ids, .. } = run;
        Batch { source, database, stream, ids, done: 0, then, tries: 0, commands: 0 }
    }

    /// The entries that the next command acknowledges.
    pub(crate) fn next_ids(&self) -> &[EntryId] {
        &self.ids[self.done..self.ids.len().min(self.done + ENTRIES_PER_COMMAND)]
    }
}

/// A consumer group that is being removed from the streams of a database.
#[derive(Debug)]
pub(crate) struct Removal {
    /// The removed registration.
    pub(crate) source: Rc<StreamSource>,
    /// The next cursor.
    pub(crate) cursor: Vec<u8>,
    /// How many times it was deferred.
    pub(crate) tries: u32,
}

/// The batches and removals.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    all: BTreeMap<BatchNo, Batch>,
    counter: Counter,
    /// Batches whose next command is due in a slice.
    pub(crate) ready: VecDeque<BatchNo>,
    removals: BTreeMap<RemovalNo, Removal>,
    removal_counter: Counter,
}

impl Batches {
    /// Adds a batch.
    pub(crate) fn add(&mut self, batch: Batch) -> BatchNo {
        let number = BatchNo(self.counter.next());
        self.all.insert(number, batch);
        number
    }

    /// A batch.
    pub(crate) fn get_mut(&mut self, number: BatchNo) -> Option<&mut Batch> {
        self.all.get_mut(&number)
    }

    /// Takes a batch out.
    pub(crate) fn remove(&mut self, number: BatchNo) -> Option<Batch> {
        self.all.remove(&number)
    }

    /// Whether a batch is being acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds a removal.
    pub(crate) fn add_removal(&mut self, removal: Removal) -> RemovalNo {
        let number = RemovalNo(self.removal_counter.next());
        self.removals.insert(number, removal);
        number
    }

    /// A removal.
    pub(crate) fn removal_mut(&mut self, number: RemovalNo) -> Option<&mut Removal> {
        self.removals.get_mut(&number)
    }

    /// Takes a removal out.
    pub(crate) fn remove_removal(&mut self, number: RemovalNo) -> Option<Removal> {
        self.removals.remove(&number)
    }

    /// All batches.
    #[cfg(feature = "simulation")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (BatchNo, &Batch)> {
        self.all.iter().map(|(number, batch)| (*number, batch))
    }

    /// All removals.
    #[cfg(feature = "simulation")]
    pub(crate) fn removals(&self) -> impl Iterator<Item = RemovalNo> {
        self.removals.keys().copied()
    }
}
