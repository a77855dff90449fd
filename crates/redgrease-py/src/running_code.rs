//! The code that a thread of the worker runs: its execution, its step, and how it is interrupted.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use redgrease_core::id::ExecutionNo;

use crate::errors::force_stopped_class;

/// In place of an execution's number.
const NONE: u64 = u64::MAX;

/// How often an exception is injected into code that catches it.
const INJECT_EVERY: Duration = Duration::from_millis(1);

/// `PyThreadState_SetAsyncExc` as ctypes sees it.
static SET_ASYNC_EXC: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// What one thread runs, shared with the threads that interrupt it.
#[derive(Debug)]
pub struct RunningCode {
    /// Python's identifier of the thread; 0 before [`RunningCode::attach_python`].
    ident: AtomicU64,
    /// Execution assigned to the thread, or [`NONE`]. Changed under the lock of the worker's state.
    assigned: AtomicU64,
    /// Execution whose code may be interrupted, or [`NONE`]. Changed only while holding the GIL.
    exec: AtomicU64,
    /// The running step.
    step: AtomicU32,
    /// The execution is being aborted.
    abort: AtomicBool,
}

impl RunningCode {
    /// That of a thread that has run nothing yet.
    pub fn new() -> RunningCode {
        RunningCode {
            ident: AtomicU64::new(0),
            assigned: AtomicU64::new(NONE),
            exec: AtomicU64::new(NONE),
            step: AtomicU32::new(0),
            abort: AtomicBool::new(false),
        }
    }

    /// Records Python's identifier of the calling thread.
    pub fn attach_python(&self, py: Python<'_>) -> PyResult<()> {
        let ident = py.import("_thread")?.getattr("get_ident")?.call0()?.extract()?;
        self.ident.store(ident, Relaxed);
        Ok(())
    }

    /// Assigns an execution to the thread, or none. From here on it can be aborted.
    pub fn assign(&self, exec: Option<ExecutionNo>, abort: bool) {
        self.abort.store(abort, Relaxed);
        self.assigned.store(exec.map_or(NONE, |exec| exec.0), Relaxed);
    }

    /// Allows interrupts of the code of `exec`, which begins now.
    pub fn arm(&self, _py: Python<'_>, exec: ExecutionNo) {
        self.step.store(0, Relaxed);
        self.exec.store(exec.0, Relaxed);
    }

    /// Forbids interrupts, and cancels one that has not been delivered yet.
    pub fn disarm(&self, py: Python<'_>) {
        self.exec.store(NONE, Relaxed);
        if self.abort.load(Relaxed)
            && let Some(set) = SET_ASYNC_EXC.get(py)
        {
            let _ = self.set_async_exc(py, set, py.None().bind(py));
        }
    }

    /// Records the step that begins.
    pub fn enter_step(&self, step: u32) {
        self.step.store(step, Relaxed);
    }

    /// The running step.
    pub fn step(&self) -> u32 {
        self.step.load(Relaxed)
    }

    /// Aborts the running execution.
    pub fn abort(&self) {
        self.abort.store(true, Relaxed);
    }

    /// Whether the running execution is being aborted.
    pub fn is_aborted(&self) -> bool {
        self.abort.load(Relaxed)
    }

    /// Injects the exception of an abort into the code of `exec` until it has ended. Blocks; takes the GIL repeatedly.
    pub fn interrupt(&self, exec: ExecutionNo) {
        loop {
            let has_ended = Python::attach(|py| {
                let set = SET_ASYNC_EXC.get_or_try_init(py, || -> PyResult<_> {
                    let api = py.import("ctypes")?.getattr("pythonapi")?;
                    Ok(api.getattr("PyThreadState_SetAsyncExc")?.unbind())
                });
                let (Ok(set), Ok(exception)) = (set, force_stopped_class(py)) else { return true };
                if self.assigned.load(Relaxed) != exec.0 {
                    return true;
                }
                // The GIL is held from here to the call, so the thread cannot have continued with other code.
                if self.exec.load(Relaxed) != exec.0 {
                    return false;
                }
                self.set_async_exc(py, set, &exception).is_err()
            });
            if has_ended {
                return;
            }
            std::thread::sleep(INJECT_EVERY);
        }
    }

    fn set_async_exc(&self, py: Python<'_>, set: &Py<PyAny>, exception: &Bound<'_, PyAny>) -> PyResult<()> {
        let ctypes = py.import("ctypes")?;
        let ident = ctypes.getattr(intern!(py, "c_ulong"))?.call1((self.ident.load(Relaxed),))?;
        let exception = if exception.is_none() {
            exception.clone()
        } else {
            ctypes.getattr(intern!(py, "py_object"))?.call1((exception,))?
        };
        set.bind(py).call1((ident, exception))?;
        Ok(())
    }
}
