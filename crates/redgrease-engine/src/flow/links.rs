//! Links to other shards: messages in order, each once.

use redgrease_core::id::ShardId;
use redgrease_core::peer::PeerMessage;

use crate::cluster::links::{At, LinkRow, Notice};
use crate::cluster::topology::Topology;
use crate::engine::Engine;
use crate::id::LinkNo;
use crate::input::LinkFailure;
use crate::input::LinkReply;
use crate::limits::LINK_TICK_MS;
use crate::prelude::*;
use crate::timers::Timer;

impl Engine {
    /// The time, for links.
    pub(crate) fn at_links(&self) -> At {
        At {
            now_ms: self.now_ms(),
            idle_ms: self.config.idle_time_max.as_millis() as u64,
            attempts_max: self.config.message_attempts_max,
        }
    }

    /// Takes over what links do, and looks at them again later.
    pub(crate) fn after_links(&mut self) {
        self.out.append(&mut self.cluster.links.take_effects());
        if self.cluster.links.needs_ticks() && !self.cluster.ticking {
            self.cluster.ticking = true;
            self.after_ms(LINK_TICK_MS, Timer::LookAtLinks);
        }
    }

    /// The server knows other shards than before, or other slots. What was pushed is valid until it is asked for this.
    pub(crate) fn topology_changed(&mut self, topology: Topology) {
        let is_asked_for = core::mem::take(&mut self.cluster.refreshing);
        if self.cluster.pushed && !is_asked_for {
            return;
        }
        self.cluster.pushed = false;
        self.use_topology(topology, None);
    }

    /// Changes the topology; `pushed`: the command that said so.
    pub(crate) fn use_topology(&mut self, topology: Topology, pushed: Option<&[&[u8]]>) {
        let at = self.at_links();
        self.cluster.links.set_topology(at, &topology, pushed);
        let (several, had_several) = (topology.has_several(), self.topology.has_several());
        self.shard = topology.shard_id();
        self.topology = topology;
        self.registrations.shard_changed(self.topology.me);
        if several && !had_several {
            // A server that has started again, with old data perhaps, must not use identifiers that other shards know: they
            // are never used twice, because they begin at the time, and grow more slowly than it does.
            let unix_us = self.unix_ms().saturating_mul(1000);
            self.registrations.skip_to(unix_us);
            self.executions.skip_to(unix_us);
        }
        self.after_links();
        if several != had_several {
            self.several_shards_changed();
        }
    }

    /// Sends a message to another shard: it arrives after those that were sent before, once, or [`Engine::peer_lost`] follows
    /// later.
    pub(crate) fn send_to(&mut self, shard: ShardId, message: &PeerMessage<'_>) {
        let at = self.at_links();
        self.cluster.links.send(at, shard, message.encode());
        self.after_links();
    }

    /// Whether messages to a shard are sent at once: its link was made.
    #[must_use]
    pub fn has_link(&self, shard: ShardId) -> bool {
        self.cluster.links.is_ready(shard)
    }

    /// All links to other shards.
    #[must_use]
    pub fn links(&self) -> Vec<LinkRow> {
        self.cluster.links.rows()
    }

    /// A link is connected and authenticated.
    pub(crate) fn link_opened(&mut self, link: LinkNo) {
        let at = self.at_links();
        self.cluster.links.opened(at, link);
        self.after_links();
    }

    /// The answer to the oldest command on a link that has none.
    pub(crate) fn link_reply(&mut self, link: LinkNo, reply: LinkReply) {
        let at = self.at_links();
        self.cluster.links.reply(at, link, reply);
        self.after_links();
    }

    /// A link cannot be opened, or was lost.
    pub(crate) fn link_closed(&mut self, link: LinkNo, failure: LinkFailure) {
        let at = self.at_links();
        self.cluster.links.closed(at, link, failure);
        self.after_links();
    }

    /// Does what is due on links.
    pub(crate) fn look_at_links(&mut self) {
        self.cluster.ticking = false;
        let at = self.at_links();
        self.cluster.links.tick(at);
        self.after_links();
    }

    /// One piece of work: a message of another shard, and messages to another one.
    pub(crate) fn handle_peers(&mut self) {
        match self.cluster.links.next_notice() {
            Some(Notice::Ready(shard)) => self.peer_ready(shard),
            Some(Notice::Message { from, bytes }) => self.peer_message(from, &bytes),
            Some(Notice::Lost { shard, reason }) => self.peer_lost(shard, &reason),
            None => {}
        }
        let at = self.at_links();
        self.cluster.links.send_more(at);
        self.acknowledge_late();
        self.after_links();
    }
}
