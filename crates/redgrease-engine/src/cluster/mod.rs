//! The other shards of a cluster.
//!
//! # Layout
//! - [`topology`]: which shards there are, and which slots they have;
//! - [`links`]: the links to them, which deliver messages in order, each once, or report that they were lost;
//!   `negotiation`: how a link is made; [`receiving`]: what other shards send;
//! - `contact`: what is known of one shard; `outgoing`: its connection, `outbox`: messages to it; `incoming`: what it sends;
//!   `inbox`: what waits to be handled;
//! - `functions`: functions that shards send each other; `inquiries`: questions of commands to other shards;
//! - [`versions`]: versions of registrations; `changes`: changes that other shards have not answered yet.

pub(crate) mod changes;
mod contact;
pub(crate) mod functions;
mod inbox;
mod incoming;
pub(crate) mod inquiries;
pub mod links;
mod negotiation;
mod outbox;
mod outgoing;
pub mod receiving;
pub mod topology;
pub mod versions;

use redgrease_core::id::ShardId;
use redgrease_core::peer::link::Versions;

use crate::clients::Client;
use crate::prelude::*;
use links::Links;

/// The other shards, as the engine sees them.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The links to them.
    pub(crate) links: Links,
    /// The topology was pushed: what the server says does not matter.
    pub(crate) pushed: bool,
    /// The next topology that the server says was asked for.
    pub(crate) refreshing: bool,
    /// Links will be looked at.
    pub(crate) ticking: bool,
    /// Messages that were received and are acknowledged when there is room for the next one.
    pub(crate) unacknowledged: VecDeque<(ShardId, Client)>,
    /// The slot and the text that functions were told last when they asked for one of this shard.
    pub(crate) tag: Option<(u16, String)>,
}

impl Cluster {
    /// None. `run` is the id of this run of the server.
    pub(crate) fn new(run: String) -> Cluster {
        Cluster {
            links: Links::new(run, Versions::OURS),
            pushed: false,
            refreshing: false,
            ticking: false,
            unacknowledged: VecDeque::new(),
            tag: None,
        }
    }
}
