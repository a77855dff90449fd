//! A thread of the worker: what it is running, and how its code is interrupted.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use redgrease_core::id::ExecutionNo;

use crate::transport::lock;
use crate::worker::Task;

/// In place of an execution's number.
const NONE: u64 = u64::MAX;

/// How often an exception is injected into code that catches it.
const INJECT_EVERY: Duration = Duration::from_millis(1);

/// `PyThreadState_SetAsyncExc` as ctypes sees it.
static SET_ASYNC_EXC: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// What a parked thread is woken for.
pub enum Order {
    /// To look around: the role of the reader is free, or the worker ends.
    Look,
    /// To run this.
    Run(Task),
}

/// One thread.
pub struct Seat {
    thread: Mutex<Option<Thread>>,
    order: Mutex<Option<Order>>,
    /// Identity of the thread for Python; 0 until it has met the interpreter.
    ident: AtomicU64,
    /// Execution that was given to the thread, or [`NONE`]. Changed under the lock of the worker's state.
    given: AtomicU64,
    /// Execution whose code may be interrupted, or [`NONE`]. Changed only while holding Python's lock.
    exec: AtomicU64,
    /// Step that runs.
    step: AtomicU32,
    /// The execution is to end.
    abort: AtomicBool,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("exec", &self.exec).field("step", &self.step).finish_non_exhaustive()
    }
}

impl Seat {
    /// A seat that nobody has taken yet.
    pub fn new() -> Arc<Seat> {
        Arc::new(Seat {
            thread: Mutex::new(None),
            order: Mutex::new(None),
            ident: AtomicU64::new(0),
            given: AtomicU64::new(NONE),
            exec: AtomicU64::new(NONE),
            step: AtomicU32::new(0),
            abort: AtomicBool::new(false),
        })
    }

    /// The calling thread sits down.
    pub fn sit(&self) {
        *lock(&self.thread) = Some(std::thread::current());
    }

    /// The calling thread meets the interpreter.
    pub fn meet(&self, py: Python<'_>) -> PyResult<()> {
        let ident = py.import("_thread")?.getattr("get_ident")?.call0()?.extract()?;
        self.ident.store(ident, Relaxed);
        Ok(())
    }

    /// Leaves an order for the parked thread; [`Seat::wake`] follows.
    pub fn order(&self, order: Order) {
        *lock(&self.order) = Some(order);
    }

    /// Wakes the thread.
    pub fn wake(&self) {
        if let Some(thread) = &*lock(&self.thread) {
            thread.unpark();
        }
    }

    /// Parks until there is an order.
    pub fn wait(&self) -> Order {
        loop {
            if let Some(order) = lock(&self.order).take() {
                return order;
            }
            std::thread::park();
        }
    }

    /// An execution is given to the thread, or taken back. From here on it may be asked to end.
    pub fn give(&self, exec: Option<ExecutionNo>, abort: bool) {
        self.abort.store(abort, Relaxed);
        self.given.store(exec.map_or(NONE, |exec| exec.0), Relaxed);
    }

    /// Code of `exec` begins: it may be interrupted from now on.
    pub fn arm(&self, _py: Python<'_>, exec: ExecutionNo) {
        self.step.store(0, Relaxed);
        self.exec.store(exec.0, Relaxed);
    }

    /// No code may be interrupted any more, and an interruption that has not arrived yet never will.
    pub fn disarm(&self, py: Python<'_>) {
        self.exec.store(NONE, Relaxed);
        if self.abort.load(Relaxed)
            && let Some(set) = SET_ASYNC_EXC.get(py)
        {
            let _ = self.set_async_exc(py, set, py.None().bind(py));
        }
    }

    /// Says which step begins.
    pub fn enter_step(&self, step: u32) {
        self.step.store(step, Relaxed);
    }

    /// The step that runs.
    pub fn step(&self) -> u32 {
        self.step.load(Relaxed)
    }

    /// Asks the running execution to end.
    pub fn ask_to_end(&self) {
        self.abort.store(true, Relaxed);
    }

    /// Whether the running execution is to end.
    pub fn is_aborted(&self) -> bool {
        self.abort.load(Relaxed)
    }

    /// Injects `exception` into the code of `exec` until it has ended. Blocks; takes Python's lock now and then.
    pub fn interrupt(&self, exec: ExecutionNo, exception: impl Fn(Python<'_>) -> PyResult<Py<PyAny>>) {
        loop {
            let is_over = Python::attach(|py| {
                let set = SET_ASYNC_EXC.get_or_try_init(py, || -> PyResult<_> {
                    let api = py.import("ctypes")?.getattr("pythonapi")?;
                    Ok(api.getattr("PyThreadState_SetAsyncExc")?.unbind())
                });
                let (Ok(set), Ok(exception)) = (set, exception(py)) else { return true };
                if self.given.load(Relaxed) != exec.0 {
                    return true;
                }
                // From here to the call the lock stays ours, so the thread cannot have gone on to other code.
                if self.exec.load(Relaxed) != exec.0 {
                    return false;
                }
                self.set_async_exc(py, set, exception.bind(py)).is_err()
            });
            if is_over {
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
