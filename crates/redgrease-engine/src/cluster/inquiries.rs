//! Questions of commands to other shards that are not answered yet.

use redgrease_core::id::{Identifier, ShardId};

use crate::clients::Client;
use crate::prelude::*;

/// What the command shows of an execution on one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PartRow {
    /// Name of its status.
    pub(crate) status: String,
    /// Shards that are ready.
    pub(crate) shards_received: u64,
    /// Shards whose parts have ended.
    pub(crate) shards_completed: u64,
    /// Number of results; `None`: it has not ended.
    pub(crate) results: Option<u64>,
    /// Texts of errors.
    pub(crate) errors: Vec<Vec<u8>>,
    /// Time between start and end, in milliseconds.
    pub(crate) total_ms: u64,
    /// Time in the reader, in microseconds.
    pub(crate) read_micros: u64,
    /// Time in each step, in microseconds.
    pub(crate) step_micros: Vec<u64>,
}

/// What a question is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// `RG.GETEXECUTION`: the parts of all shards so far.
    Execution {
        /// The execution.
        id: Identifier,
        /// The parts.
        rows: Vec<(ShardId, PartRow)>,
    },
    /// A command that is answered by `OK`, or the first error.
    Done {
        /// The first error.
        error: Option<String>,
    },
}

/// A question.
#[derive(Debug)]
pub(crate) struct Inquiry {
    pub(crate) client: Client,
    waits_for: BTreeSet<ShardId>,
    pub(crate) purpose: Purpose,
}

/// The questions.
#[derive(Debug, Default)]
pub(crate) struct Inquiries {
    counter: u64,
    open: BTreeMap<u64, Inquiry>,
}

impl Inquiries {
    /// Adds a question to these shards.
    pub(crate) fn add(&mut self, client: Client, shards: BTreeSet<ShardId>, purpose: Purpose) -> u64 {
        self.counter += 1;
        self.open.insert(self.counter, Inquiry { client, waits_for: shards, purpose });
        self.counter
    }

    /// A shard has answered, or will not. The question is returned with `true` if it was the last one.
    pub(crate) fn answered(&mut self, number: u64, shard: ShardId) -> Option<(&mut Purpose, bool)> {
        let inquiry = self.open.get_mut(&number)?;
        if !inquiry.waits_for.remove(&shard) {
            return None;
        }
        let is_last = inquiry.waits_for.is_empty();
        Some((&mut inquiry.purpose, is_last))
    }

    /// Takes a question.
    pub(crate) fn take(&mut self, number: u64) -> Option<Inquiry> {
        self.open.remove(&number)
    }

    /// The questions that wait for a shard.
    pub(crate) fn waiting_for(&self, shard: ShardId) -> Vec<u64> {
        let waiting = self.open.iter().filter(|(_, inquiry)| inquiry.waits_for.contains(&shard));
        waiting.map(|(number, _)| *number).collect()
    }

    /// The shards that have not answered a question.
    pub(crate) fn missing(&self, number: u64) -> Vec<ShardId> {
        self.open.get(&number).map(|inquiry| inquiry.waits_for.iter().copied().collect()).unwrap_or_default()
    }
}
