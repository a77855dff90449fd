//! The worker of this process: what the server sends is scheduled over threads, and user code runs on them.
//!
//! # Layout
//! From the top; a file imports only from those below it:
//! - [`threads`]: the threads: which one reads the socket, which ones run tasks, and which ones wait for answers;
//! - [`frames`]: what each frame of the server does;
//! - [`turns`], [`jobs`]: running a turn of an execution, and a request to a session;
//! - [`shared`]: [`Worker`], what the threads share;
//! - [`schedule`]: who runs what and when, under one lock; parts of it are [`executions`] (input, queues, lanes) and [`calls`]
//!   (of user code to the server);
//! - [`thread`], [`task`]: a thread that can be woken with a task, and tasks;
//! - [`plans`]: the plans under their numbers.
//!
//! # Locks
//! The lock of the schedule guards the queues; the transport's locks may be taken under it. No lock of this crate is held
//! while waiting for the GIL, and no Python object is made, called or dropped under one. So they may be taken with or
//! without the GIL.

mod calls;
mod executions;
mod frames;
mod jobs;
mod plans;
mod schedule;
mod shared;
mod task;
mod thread;
mod threads;
mod turns;

pub use self::calls::CallError;
pub use self::shared::Worker;
