//! The unsafe boundary: safe types over the module API of Redis and Valkey.
//!
//! # Layout
//! - `export`: [`export_module!`]; [`load`]: what the server calls when it loads the module;
//! - `server`: [`Server`], the witness of being on the server's main thread; `context`: its context;
//! - [`command`]: commands and their arguments; [`client`]: replies and blocked clients;
//! - [`call`], `reply`, `user`: running commands in the server, as a user; [`keyspace`]: key types, notifications;
//! - [`between`]: the moment between two commands; [`hooks`]: calls of commands that a module handles itself;
//! - [`event_loop`]: descriptors and timers in the server's own loop; [`server_event`]: what the server announces;
//! - [`saving`], [`value_key`]: data of the module in data files, outside of keys and in keys;
//! - [`info`]: sections of `INFO`; `log`: the server's log; `guard`: panics in callbacks;
//! - `api`, `table`, `raw`: the functions of the server; `alloc`: its allocator.
//!
//! It depends on no other crate of ours. Its rules: no panic leaves a callback, no text of ours is ever a format
//! string, a blocked client is unblocked exactly once, nothing but the main thread touches the server (values of
//! this crate are not `Send`), functions that some server lacks are tested for and never assumed.

mod alloc;
mod api;
pub mod between;
pub mod call;
pub mod client;
pub mod command;
pub mod command_info;
mod context;
pub mod environment;
pub mod event_loop;
mod export;
mod guard;
pub mod hooks;
pub mod info;
pub mod keyspace;
mod latency;
pub mod load;
mod log;
mod raw;
mod reply;
mod resp;
pub mod saving;
mod server;
pub mod server_event;
pub mod settings;
mod table;
mod user;
pub mod value_key;

pub use call::{CallOptions, CallReply};
pub use client::{BlockedClient, Replier, SlowAnswer};
pub use command::{Command, Invocation};
pub use context::ContextFlags;
pub use log::LogLevel;
pub use server::Server;

#[doc(hidden)]
pub use alloc::ServerAllocator;

#[doc(hidden)]
pub mod raw_types {
    pub use crate::raw::{RedisModuleCtx, RedisModuleString};
}
