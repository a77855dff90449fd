//! A client for redgrease: gear functions in Redis and Valkey, from Rust.
//!
//! # Layout
//! - [`Client`]: a connection to a server; [`GearsCommands`]: every `RG.*` command as a method, for it and for the connections
//!   of redis-rs;
//! - [`Error`]: what went wrong, whether a retry helps ([`Error::retry`]), and the fix ([`Error::fix`]);
//! - [`GearFunction`]: functions that are built in Rust; readers such as [`KeysReader`] begin them, [`py!`] is their Python code;
//! - [`PyExecute`], [`SessionQuery`], [`Pending`], [`Locality`]: what commands are given;
//! - [`watch`]: states of executions, as they change;
//! - [`Record`], [`Results`]: what functions return, read with serde.
//!
//! # Features
//! - `aio`: the commands for connections of tokio, in `redgrease::aio`;
//! - `cluster`: connections to clusters, in `redgrease::cluster`;
//! - `tls`: addresses that begin with `rediss://`.

#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "aio")]
pub mod aio;
mod call;
mod calls;
mod client;
#[cfg(feature = "cluster")]
pub mod cluster;
mod commands;
mod connection;
mod decode;
mod error;
mod execute;
mod function;
mod id;
mod options;
mod record;
mod reply;
mod states;
mod traceback;

pub use call::{Call, Request, Target};
pub use client::{CONNECT_TIMEOUT, Client, connect_with};
pub use commands::GearsCommands;
pub use connection::GearsConnection;
pub use error::{Error, Result, Retry, ServerError};
pub use execute::PyExecute;
pub use function::{
    CommandReader, Constant, GearFunction, KeysOnlyReader, KeysReader, Mode, OnFailure, PyCode, PythonReader, Reader,
    Registers, Runs, ShardsIdReader, StreamReader,
};
pub use id::{ExecutionId, RegistrationId};
pub use options::{Locality, NO_ARGUMENTS, Pending, SessionQuery};
pub use record::{Executed, Keyed, Record, Results};
pub use redis;
pub use reply::{
    Cluster, EventSource, ExecutionInfo, ExecutionPlan, ExecutionState, ExecutionStep, ExportedRequirement, Linked,
    Plugin, PyStats, Registration, Requirement, Session, Shard, ShardExecution,
};
pub use states::{ExecutionStates, PAUSE_MIN, watch};
pub use traceback::PythonError;
