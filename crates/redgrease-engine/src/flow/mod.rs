//! How the parts of the engine work together: a file per subject, each with methods of [`Engine`](crate::Engine).

mod answers;
mod calls;
mod commands;
mod events;
mod executions;
mod frames;
mod hooks;
pub(crate) mod info;
mod inspection;
mod interpreters;
mod nested;
mod pausing;
mod persistence;
mod profiling;
mod reading;
mod registering;
mod registrations;
mod requirements;
mod scripts;
mod settings;
mod stream_batches;
mod stream_runs;
mod sync;
mod time_events;
mod timers;
mod wheels;
pub(crate) mod workers;
