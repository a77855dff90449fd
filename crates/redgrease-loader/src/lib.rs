//! Loads files with gear functions into a server, and loads them again when they change.
//!
//! The program `redgrease` and the Python module `redgrease.loader` are faces of this crate.
//!
//! # Layout
//! Decisions, without input and output:
//! - [`layers`], [`config_file`], [`settings`]: options from the command line, the environment and files;
//! - [`patterns`]: which files are scripts and requirements;
//!
//! The edge:
//! - [`arguments`]: the command line;
//! - [`error`], [`log`]: errors with their exit codes; lines of the log.

pub mod arguments;
mod config_file;
pub mod error;
pub mod layers;
pub mod log;
pub mod patterns;
pub mod settings;
