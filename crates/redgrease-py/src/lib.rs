//! `redgrease._native`: the Python extension.
//!
//! # Layout
//! - [`codec`]: Python objects to and from the record codec (`loads`, `dumps`), for clients too;
//! - [`transport`], [`connection`]: the socket of a worker: bytes and frames; how the rest of the worker uses it;
//! - [`plan`], [`run`]: the operators of a plan, and one execution of it;
//! - [`running_code`], [`context`]: what a thread runs: its interruption; its execution and session;
//! - [`worker`]: what the server sends, scheduled over threads;
//! - [`local`]: an execution without a worker, for tests of functions;
//! - [`future`]: what a step waits for;
//! - [`isolation`]: what the kernel keeps the process from doing;
//! - [`hooks`], [`errors`]: what Python code gives to the worker; exceptions of user code;
//! - [`child`], [`exit`], [`lock`]: processes that user code forks; the end of the process; locks;
//! - [`api`], [`names`]: functions and constants for Python code;
//! - [`filecache`]: bindings of the file cache;
//! - [`loader`]: bindings of the loader.
//!
//! Public names come from Python modules, never from here. There is no unsafe code.

mod api;
mod child;
mod codec;
mod connection;
mod context;
mod errors;
mod exit;
mod filecache;
mod future;
mod hooks;
mod isolation;
mod loader;
mod local;
mod lock;
mod names;
mod plan;
mod run;
mod running_code;
mod transport;
mod worker;

use pyo3::prelude::*;

/// The extension module.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("CODEC_VERSION", redgrease_core::codec::CODEC_VERSION)?;
    module.add("PROTOCOL_VERSION", redgrease_core::frame::PROTOCOL_VERSION)?;
    module.add("VERSION", redgrease_core::VERSION)?;
    names::add_to(module)?;
    module.add_function(wrap_pyfunction!(codec::loads, module)?)?;
    module.add_function(wrap_pyfunction!(codec::dumps, module)?)?;
    filecache::add_to(module)?;
    loader::add_to(module)?;
    errors::add_to(module)?;
    module.add_function(wrap_pyfunction!(isolation::isolate, module)?)?;
    future::add_to(module)?;
    local::add_to(module)?;
    api::add_to(module)
}
