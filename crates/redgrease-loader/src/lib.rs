//! Loads files with gear functions into a server, and loads them again when they change.
//!
//! The program `redgrease` and the Python module `redgrease.loader` are faces of this crate.
//!
//! # Layout
//! Decisions, without input and output, and with the time as an argument:
//! - `layers`, `config_file`, `settings`: options from the command line, the environment and files;
//! - `patterns`: which files are scripts and which list requirements; `requirements_file`: what they list;
//! - `catalog`: the files that were looked at, and what has to be done; `debounce`: when;
//! - `names`: index keys and sessions.
//!
//! The edge:
//! - `arguments`: the command line; `program`: loads, then watches;
//! - `loader`: loads and removes files; `files`: reads directories; `watch`: events of files, and the connection;
//! - `server`: what is needed of a server; `redis_server`: the same over the client for Rust; `connection`: connecting;
//! - `error`, `explain`, `tls`: errors with their exit codes, and what they are made of; `log`, `log_lines`: lines of the log.

pub mod arguments;
mod catalog;
mod config_file;
pub mod connection;
mod debounce;
pub mod error;
pub mod explain;
pub mod files;
pub mod layers;
pub mod loader;
pub mod log;
pub mod log_lines;
mod names;
pub mod patterns;
pub mod program;
mod redis_server;
mod requirements_file;
pub mod server;
pub mod settings;
mod tls;
pub mod watch;
