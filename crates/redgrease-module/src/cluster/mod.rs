//! The cluster: which shards there are, and links to them.
//!
//! # Layout
//! - [`discovery`]: notices changes of the topology; [`known`]: what is known; `slots` reads what the server replies;
//! - [`links`]: the links, as the main thread sees them; `link`: the thread that connects, sends and receives;
//! - [`target`]: where a link goes, and how it authenticates; [`options`]: what decides on that.

pub mod discovery;
pub mod known;
mod link;
pub mod links;
pub mod options;
mod slots;
pub mod target;

#[cfg(test)]
mod tests;
