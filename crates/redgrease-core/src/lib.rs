//! The pure core of redgrease: facts in, decisions out.
//!
//! # Layout
//! - [`codec`]: how a record is written between server, workers and clients;
//! - [`from_value`]: typed data from a decoded value;
//! - [`frame`]: what server and worker say to each other; [`peer`]: what shards of a cluster do;
//! - [`plan`]: readers, steps and what may run without a worker;
//! - [`command`], [`command_docs`]: the grammar of the `RG.*` commands, and what users are told about them;
//! - [`policy`]: which commands user code may call, and when;
//! - [`error_code`], [`error_text`]: what the first word of an error means, and how long an error may be;
//! - [`render`]: how a result looks to a client; [`repr`]: values that Python printed;
//! - [`saved`]: registrations in data files and on their way to replicas; [`requirement`]: one that is exported;
//! - [`slot`], [`exchange`]: the slot of a key; records on their way to other shards;
//! - [`id`], [`pattern`], [`event`]: identifiers, the matching of names, and names of events.
//!
//! It must not know Redis, Python, threads, clocks or I/O: time and randomness come in as values.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod codec;
pub mod command;
pub mod command_docs;
pub mod error_code;
pub mod error_text;
pub mod event;
pub mod exchange;
pub mod frame;
pub mod from_value;
pub mod id;
pub mod pattern;
pub mod peer;
pub mod plan;
pub mod policy;
pub mod python;
pub mod render;
pub mod repr;
pub mod requirement;
pub mod saved;
pub mod slot;

/// Version of this package, as spoken in handshakes.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
