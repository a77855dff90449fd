//! Executions: the list that users see, what is needed to run those that have not ended, and their readers.

pub mod execution;
pub(crate) mod live;
pub(crate) mod nested;
pub mod outcome;
pub(crate) mod readers;
pub mod schedule;
pub(crate) mod shared;
pub(crate) mod sync_triggers;
