//! Key events: those that wait for executions, and sync ones that wait for the end of the command that fired them.

pub(crate) mod interceptions;
pub mod pending;
pub(crate) mod sync;
pub(crate) mod time_events;
