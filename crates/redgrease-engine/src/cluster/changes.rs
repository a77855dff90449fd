//! Changes of the registrations that other shards have not answered yet.

use redgrease_core::id::{SessionNo, ShardId};
use redgrease_core::saved::SavedSession;

use crate::clients::Client;
use crate::cluster::versions::Version;
use crate::prelude::*;

/// What happens when all shards have answered.
#[derive(Debug)]
pub(crate) enum Then {
    /// The client of a script gets `OK`, or an array of the errors of shards.
    AnswerScript {
        /// The client.
        client: Client,
        /// The session that it registered.
        session: SessionNo,
        /// The version that it has since then.
        version: Version,
        /// The session that it replaced.
        replaced: Option<Box<SavedSession>>,
    },
    /// The client gets `OK`: shards that were not reached get the change later.
    AnswerOk(Client),
    /// The next part of the wheels of this set is read: shards that were not reached install it by themselves.
    ReadNextPart(Rc<str>),
}

/// A change that was sent.
#[derive(Debug)]
struct Sent {
    waits_for: BTreeSet<ShardId>,
    errors: Vec<(ShardId, String)>,
    conflict: bool,
    then: Then,
}

/// A change that all shards have answered.
#[derive(Debug)]
pub(crate) struct Answered {
    /// What each shard objects that has not applied it.
    pub(crate) errors: Vec<(ShardId, String)>,
    /// A shard has another session with one of its triggers.
    pub(crate) conflict: bool,
    /// What happens now.
    pub(crate) then: Then,
}

/// The changes that were sent.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    sent: BTreeMap<u64, Sent>,
}

impl Changes {
    /// A change was sent to these shards.
    pub(crate) fn add(&mut self, number: u64, shards: BTreeSet<ShardId>, then: Then) {
        self.sent.insert(number, Sent { waits_for: shards, errors: Vec::new(), conflict: false, then });
    }

    /// A shard has answered. Returns the change if it was the last one.
    pub(crate) fn answered(
        &mut self,
        number: u64,
        shard: ShardId,
        conflict: bool,
        result: Result<(), String>,
    ) -> Option<Answered> {
        let sent = self.sent.get_mut(&number)?;
        if !sent.waits_for.remove(&shard) {
            return None;
        }
        sent.conflict |= conflict;
        if let Err(reason) = result {
            sent.errors.push((shard, reason));
        }
        if sent.waits_for.is_empty() { self.take(number) } else { None }
    }

    /// A shard was lost: those that wait for it.
    pub(crate) fn waiting_for(&self, shard: ShardId) -> Vec<u64> {
        let waiting = self.sent.iter().filter(|(_, sent)| sent.waits_for.contains(&shard));
        waiting.map(|(number, _)| *number).collect()
    }

    /// The shards that have not answered a change.
    pub(crate) fn missing(&self, number: u64) -> Vec<ShardId> {
        self.sent.get(&number).map(|sent| sent.waits_for.iter().copied().collect()).unwrap_or_default()
    }

    fn take(&mut self, number: u64) -> Option<Answered> {
        self.sent.remove(&number).map(|sent| Answered { errors: sent.errors, conflict: sent.conflict, then: sent.then })
    }
}
