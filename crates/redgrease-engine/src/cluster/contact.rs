//! What is known of one shard: what it sends, and the link to it if it is in the topology.

use crate::cluster::incoming::{Incoming, Run};
use crate::cluster::outgoing::Outgoing;
use crate::limits::RUNS_MAX;
use crate::prelude::*;

/// A shard.
#[derive(Debug, Default)]
pub(super) struct Contact {
    /// Counts how often this shard or the other one gave up messages between both.
    pub(super) epoch: u64,
    /// Its run.
    pub(super) run: Option<Run>,
    /// Earlier ones, of which messages may still arrive.
    former: VecDeque<Run>,
    /// It was reported as ready, and not as lost since.
    pub(super) announced: bool,
    /// What it sends.
    pub(super) incoming: Incoming,
    /// The link to it; `None`: the topology does not have it.
    pub(super) outgoing: Option<Outgoing>,
    /// The number of the next message to its run while there is no link to it.
    pub(super) next_number: u64,
    /// When it sent something last.
    pub(super) heard_ms: u64,
    /// When the loss of messages was logged last.
    pub(super) logged_ms: Option<u64>,
}

impl Contact {
    /// Whether something may be in progress with it.
    pub(super) fn is_engaged(&self) -> bool {
        let sends = self.outgoing.as_ref().is_some_and(|outgoing| outgoing.outbox.has_own());
        self.announced || self.incoming.established.is_some() || sends
    }

    /// Whether it is not that run any more.
    pub(super) fn was(&self, run: &[u8]) -> bool {
        self.former.iter().any(|former| **former == *run)
    }

    /// It is another run.
    pub(super) fn set_run(&mut self, run: Run) {
        if let Some(former) = self.run.replace(run) {
            self.former.push_front(former);
            self.former.truncate(RUNS_MAX);
        }
    }
}
