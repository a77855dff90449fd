//! The engine of one shard, as a state machine: inputs in, effects out.
pub mod config;
pub mod effect;
pub mod executions;
pub mod frames;
pub mod id;
pub mod input;
pub mod reader;
pub mod step;
pub mod work;

pub use config::Config;
pub use effect::Effect;
pub use input::{Fact, Input, ServerState, Situation};
