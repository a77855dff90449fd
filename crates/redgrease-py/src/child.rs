//! Children that user code forks: they have neither the worker's threads nor its connection, and its locks may be held by
//! threads that they do not have. So they must not get back into the worker's own code.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;

use crate::worker::kill_self;

/// What a call of the server gets in such a process.
pub const NO_CONNECTION: &str = "FORKED the child of a fork has no connection to the server: call it in the worker itself, and end the child with os._exit";

static MARKED: AtomicBool = AtomicBool::new(false);
/// Process id of the worker; 0 until it serves.
static WORKER: AtomicU32 = AtomicU32::new(0);

/// Notes that this process is the worker.
pub fn set_worker() {
    WORKER.store(std::process::id(), Relaxed);
}

/// Notes that this process is the child of a fork. Called by the interpreter's own forks only: see [`is_child`].
pub fn mark() {
    MARKED.store(true, Relaxed);
}

/// Whether [`mark`] was called: costs nothing.
pub fn is_marked() -> bool {
    MARKED.load(Relaxed)
}

/// Whether this is not the worker's process, however it was forked: costs a system call.
pub fn is_child() -> bool {
    let worker = WORKER.load(Relaxed);
    is_marked() || (worker != 0 && rustix::process::getpid().as_raw_nonzero().get() as u32 != worker)
}

/// User code came back with `result`: a child of the worker ends here.
pub fn end_if_child<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<T> {
    if is_marked() {
        end(py, result.err());
    }
    result
}

/// Ends a child as an interpreter would end a program: status 0, that of `SystemExit`, or 1 after a printed traceback.
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
        // The streams may be anything of the user's.
        let _ = (flush("stdout"), flush("stderr"));
        os.call_method1("_exit", (code,))
    });
    drop(ended);
    kill_self()
}
