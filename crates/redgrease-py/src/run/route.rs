//! The shards of an execution, and which of them has which key.

use std::sync::Arc;

use redgrease_core::peer::{self, SlotRange};
use redgrease_core::slot::{SLOTS, slot_of};

use super::mailbox::Mailbox;

/// The shards of an execution.
#[derive(Debug)]
pub struct Route {
    /// Position of this shard. Records are collected on number 0.
    pub here: usize,
    /// Number of shards.
    pub shards: usize,
    /// Encoded bytes that may be on their way to other shards for one stage.
    pub window: u64,
    slots: peer::Route,
}

impl Route {
    /// The route of a frame; `None`: it contradicts itself.
    pub fn new(here: u64, shards: u64, slots: Vec<SlotRange>, window: u64) -> Option<Route> {
        let ranges_ascend = slots.windows(2).all(|pair| pair[0].last < pair[1].first);
        let ranges_are_right =
            slots.iter().all(|range| range.first <= range.last && range.last < SLOTS && range.shard < shards);
        let is_right = here < shards && shards <= u64::from(SLOTS) && ranges_ascend && ranges_are_right;
        let slots = peer::Route { shards: Vec::new(), slots };
        is_right.then_some(Route { here: here as usize, shards: shards as usize, window, slots })
    }

    /// The slot of the text of a key, which ends at a zero byte, and the shard that has it.
    pub fn of_key(&self, key: &[u8]) -> (u16, Option<usize>) {
        let text = key.split(|byte| *byte == 0).next().unwrap_or_default();
        let slot = slot_of(text);
        (slot, self.slots.owner(slot).map(|shard| shard as usize))
    }
}

/// What an execution on a shard of several has in addition.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The shards.
    pub route: Arc<Route>,
    /// What the server sends.
    pub mailbox: Arc<Mailbox>,
}
