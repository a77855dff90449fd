//! The fence: safe types over the module API of Redis and Valkey.
//!
//! # Layout
//! - [`load`]: the entry point, and [`Server`], the witness of being on the server's main thread;
//! - [`command`]: commands and their arguments; [`client`]: replies and blocked clients;
//! - [`call`]: running commands in the server; [`keyspace`]: key types, notifications;
//! - [`between`]: the moment between two commands;
//! - [`event_loop`]: descriptors and timers in the server's own loop; [`server_event`]: what the server announces;
//! - [`info`]: sections of `INFO`.
//!
//! It knows no other room of ours. Rules kept here: no panic leaves a callback, no text of ours is ever a format
//! string, a blocked client is unblocked exactly once, nothing but the main thread touches the server (values of
//! this room are not `Send`), functions that some server lacks are tested for and never assumed.

mod alloc;
mod api;
pub mod between;
pub mod call;
pub mod client;
pub mod command;
pub mod event_loop;
pub mod info;
pub mod keyspace;
pub mod load;
mod raw;
pub mod server_event;
mod table;

pub use call::{CallOptions, CallReply};
pub use client::{BlockedClient, Replier, SlowAnswer};
pub use command::{Command, Invocation};
pub use load::{ContextFlags, LogLevel, Server};

#[doc(hidden)]
pub use alloc::ServerAllocator;

#[doc(hidden)]
pub mod raw_types {
    pub use crate::raw::{RedisModuleCtx, RedisModuleString};
}
