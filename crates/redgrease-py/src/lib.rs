//! `redgrease._native`: the Python extension.
//!
//! # Layout
//! - [`codec`]: Python objects to and from the record codec (`loads`, `dumps`), for clients too;
//! - [`transport`]: the socket of a worker;
//! - [`worker`], [`worker_thread`]: its threads: reading, running, interrupting;
//! - [`child`]: processes that user code forks;
//! - [`plan`], [`run`]: the operators of a plan, and one execution of it;
//! - [`api`]: functions for Python code;
//! - [`filecache`]: bindings of the file cache.
//!
//! Public names come from Python modules, never from here. There is no unsafe code.

mod api;
mod child;
mod codec;
mod filecache;
mod names;
mod plan;
mod run;
mod transport;
mod worker;
mod worker_thread;

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
    api::add_to(module)
}
