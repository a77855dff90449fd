//! Replies with a shape of their own: rows of names and values.
//!
//! Servers only add fields, so that unknown ones are ignored, and the structs can grow.

mod cluster;
mod execution;
mod fields;
mod registration;
mod requirement;
mod session;
mod worker;

#[cfg(test)]
mod tests;

pub use cluster::{Cluster, Shard};
pub use execution::{ExecutionInfo, ExecutionPlan, ExecutionState, ExecutionStep, ShardExecution};
pub use registration::{EventSource, Registration};
pub use requirement::{ExportedRequirement, Requirement};
pub use session::{Linked, Session};
pub use worker::{Plugin, PyStats};

pub(crate) use fields::{Fields, array, plain_text, rows, shown, text_value};
