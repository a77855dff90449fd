//! How the parts of the engine work together: a file per subject, each with methods of [`Engine`](crate::Engine).

mod answers;
mod calls;
mod commands;
mod events;
mod executions;
mod frames;
pub(crate) mod hooks;
mod inspection;
mod nested;
mod pausing;
mod persistence;
pub(crate) mod profiling;
mod reading;
mod registering;
mod registrations;
mod requirements;
mod scripts;
mod settings;
mod stream_batches;
mod stream_runs;
mod sync;
pub(crate) mod time_events;
mod timers;
mod workers;
