//! Loads files with gear functions into a server, and loads them again when they change.
//!
//! The program `redgrease` and the Python module `redgrease.loader` are faces of this crate.
//!
//! # Layout
//! Decisions, without input and output, and with the time as an argument:
//! - `layers`, `config_file`, `settings`: options from the command line, the environment and files;
//! - `patterns`: which files are scripts and which list requirements; `requirements_file`: what they list;
//! - `catalog`: the files that were looked at, and what has to be done; `debounce`: when;
//! - `names`: index keys and sessions; `traceback`: errors of scripts.
//!
//! The edge:
//! - `arguments`: the command line; `program`: loads, then watches;
//! - `loader`: loads and removes files; `files`: reads directories; `watch`: events of files, and the connection;
//! - `server`: what is needed of a server; `redis_server`, `connection`: the same over redis-rs;
//! - `error`, `log`, `log_lines`: errors with their exit codes; lines of the log.

pub mod arguments;
mod catalog;
mod config_file;
mod connection;
mod debounce;
pub mod error;
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
pub mod tls;
mod traceback;
pub mod watch;
