//! The engine of one shard, as a state machine: inputs in, effects out.
//!
//! A driver passes to [`Engine::handle`] what happened ([`Input`]) and when ([`Situation`]), and performs the [`Effect`]s
//! that result. The engine never calls out: it does no I/O, reads no clock and has no threads, so that the same code runs
//! in a server's module and in a simulation.
//!
//! # Layout
//! - [`engine`](Engine): the parts, and the dispatch of inputs; `flow`: how the parts work together, a file per subject;
//! - [`input`], [`effect`], [`reader`], [`frames`], [`work`], [`id`]: the types of inputs and effects;
//! - [`config`], [`limits`]: every limit and deadline; [`error`]: why something is refused or ended;
//! - [`workers`], [`sessions`], [`executions`], [`registrations`], [`streams`], [`events`], [`requirements`], `calls`:
//!   the parts, each with its state and its tests; [`cluster`]: the other shards.
//!
//! It does not depend on Redis, Python, threads, clocks or I/O: time and randomness are passed in as values.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod asked;
#[cfg(feature = "simulation")]
pub mod audit;
mod calls;
mod clients;
pub mod cluster;
pub mod config;
pub mod effect;
mod engine;
pub mod error;
pub mod events;
pub mod executions;
mod flow;
pub mod frames;
pub mod id;
pub mod input;
pub mod limits;
#[cfg(feature = "simulation")]
pub mod planted;
#[cfg(not(feature = "simulation"))]
mod planted;
mod prelude;
pub mod reader;
pub mod registrations;
pub mod requirements;
pub mod sessions;
mod step;
pub mod streams;
mod timers;
pub mod work;
pub mod workers;

pub use config::{Config, Machine};
pub use effect::{Answer, Effect, Question};
pub use engine::{Capabilities, Depth, Engine};
pub use error::Error;
pub use flow::info::{Info, InfoRow, WorkerInfo};
pub use input::{Fact, Input, ServerState, Situation};
pub use step::Step;
pub use streams::runs::{EntryId, GroupProgress};
pub use work::Work;
