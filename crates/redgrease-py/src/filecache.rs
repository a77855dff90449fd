//! Python bindings of the file cache: arguments in, plain values and exceptions out.
//!
//! # Layout
//! - [`cache`], [`handle`], [`writer`]: the blocking cache, entries opened for reading and for writing;
//! - [`aio`]: the same for coroutines;
//! - [`arguments`], [`results`], [`exceptions`]: conversion of arguments, results and errors;
//! - [`gil`]: work without the GIL.
//!
//! Neighbours: [`redgrease_filecache`] does the work; the package `redgrease.filecache` gives these classes their documented
//! names and is the only caller. The GIL is released while the cache works, and no lock of these files is held while waiting
//! for the GIL.

mod aio;
mod arguments;
mod cache;
mod exceptions;
mod gil;
mod handle;
mod results;
mod writer;

use pyo3::prelude::*;

use self::cache::FileCacheCore;
use self::handle::FileCacheHandle;
use self::results::FileCacheCursor;
use self::writer::FileCacheWriter;

/// Leaks an object that a forked process inherited and must neither use nor end.
#[pyfunction]
fn filecache_forget(inherited: Py<PyAny>) {
    std::mem::forget(inherited);
}

/// Adds everything of the file cache to the module.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<FileCacheCore>()?;
    module.add_class::<FileCacheCursor>()?;
    module.add_class::<FileCacheHandle>()?;
    module.add_class::<FileCacheWriter>()?;
    module.add_function(wrap_pyfunction!(filecache_forget, module)?)?;
    aio::add_to(module)
}
