//! What shards of a cluster say to each other.
//!
//! A [`PeerMessage`] is sent in order, once, over the link between two shards; how links do that (numbers, acknowledgements,
//! parts of long messages) is not visible here. Its form is that of [postcard](https://postcard.jamesmunns.com/wire-format):
//! the order of variants and of fields is the format, and a change of it needs another [`PEER_VERSION`], which shards
//! compare when a link is made. How links do what is not visible in messages is in [`link`]. Everything that comes from a peer
//! is hostile until parsed.

pub mod link;
mod message;
pub mod pushed;

pub use message::{
    Job, PEER_VERSION, PeerError, PeerFact, PeerMessage, PeerPart, PeerQuestion, Route, SharedFunction, SlotRange,
};
