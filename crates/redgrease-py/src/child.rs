//! Children that user code forks. They have neither the worker's threads nor its connection, and its locks may be held by
//! threads that do not exist in them. So they must not return into the worker's own code.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;

use crate::exit::kill_self;

/// The error of a call to the server in such a process.
pub const NO_CONNECTION: &str = "FORKED the child of a fork has no connection to the server: call it in the worker itself, and end the child with os._exit";

static MARKED: AtomicBool = AtomicBool::new(false);
/// Process id of the worker; 0 until it serves.
static WORKER: AtomicU32 = AtomicU32::new(0);

/// Marks this process as the worker.
pub fn set_worker() {
    WORKER.store(std::process::id(), Relaxed);
}

/// Marks this process as the child of a fork. Called only for forks by the interpreter: see [`is_child`].
pub fn mark() {
    MARKED.store(true, Relaxed);
}

/// Whether [`mark`] was called: a cheap test.
pub fn is_marked() -> bool {
    MARKED.load(Relaxed)
}

/// Whether this is not the worker's process, however it was forked: costs a system call.
pub fn is_child() -> bool {
    let worker = WORKER.load(Relaxed);
    is_marked() || (worker != 0 && rustix::process::getpid().as_raw_nonzero().get() as u32 != worker)
}

/// Called when user code has returned `result`: exits in a child of the worker.
pub fn end_if_child<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<T> {
    if is_marked() {
        end(py, result.err());
    }
    result
}

/// Exits a child as the interpreter exits a program: status 0, that of `SystemExit`, or 1 after a printed traceback.
pub fn end(py: Python<'_>, error: Option<PyErr>) -> ! {
    let code = match error {
        None => 0,
        Some(error) if error.is_instance_of::<PySystemExit>(py) => {
            let code = error.value(py).getattr("code").ok().filter(|code| !code.is_none());
            code.map_or(0, |code| code.extract::<i32>().unwrap_or(1))
        }
        Some(error) => {
            error.print(py);
            1
        }
    };
    let ended = py.import("os").and_then(|os| {
        let flush = |name| py.import("sys").and_then(|sys| sys.getattr(name)?.call_method0("flush"));
        // User code may have replaced the streams.
        let _ = (flush("stdout"), flush("stderr"));
        os.call_method1("_exit", (code,))
    });
    drop(ended);
    kill_self()
}
