//! What is known of the topology between two looks.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use redgrease_engine::cluster::topology::Topology;

/// What is known of the topology.
#[derive(Default)]
pub struct Discovery {
    /// When to look again; `None`: at once.
    pub(super) next: Cell<Option<Instant>>,
    pub(super) known: RefCell<Known>,
    /// Why the last read failed.
    pub(super) failure: RefCell<Option<String>>,
}

#[derive(Default)]
pub(super) struct Known {
    /// The node's own id and the reply of `CLUSTER SLOTS` at the last look.
    pub(super) replies: (Vec<u8>, Vec<u8>),
    /// What they mean. The ports are those of the cluster's own connections; a read for a client may see others, because
    /// servers since 7.2 reply to a module as they reply to the client whose command is running.
    pub(super) looked: Option<Topology>,
    /// What the engine has been told.
    pub(super) told: Option<Topology>,
}

impl Discovery {
    /// Has the next turn of the server's loop look at the topology.
    pub fn look_soon(&self) {
        self.next.set(None);
    }
}
