//! Runs a plan in the calling thread, without a worker and a server: for tests of functions.
//!
//! It is the executor of the workers ([`crate::run`]); what a worker receives and sends in frames is given and returned here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use redgrease_core::codec::Reader;
use redgrease_core::frame::{FromWorker, Records, StartFlags};
use redgrease_core::id::ExecutionNo;
use redgrease_core::pattern::KeyFilter;
use redgrease_core::plan::PlanSpec;

use crate::codec::Decoder;
use crate::context::Context;
use crate::errors::gears_error;
use crate::future::Waiter;
use crate::hooks::Hooks;
use crate::lock::lock;
use crate::plan::Plan;
use crate::run::{Ctx, RECORD_BYTES_MAX, Run, Sink};
use crate::running_code::RunningCode;

/// The session of all local executions; no server gives this number.
const SESSION: u64 = u64::MAX;
/// How often a thread that waits for coroutines looks for signals, such as that of Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(50);

static STARTED: AtomicU64 = AtomicU64::new(0);
/// The threads of the executions that run.
static THREADS: Mutex<BTreeMap<ExecutionNo, Thread>> = Mutex::new(BTreeMap::new());

/// An execution that runs, and the context of its thread before.
struct Running {
    exec: ExecutionNo,
    before: Context,
}

impl Running {
    fn begin() -> Running {
        let running = Running { exec: ExecutionNo(STARTED.fetch_add(1, Relaxed)), before: Context::current() };
        lock(&THREADS).insert(running.exec, std::thread::current());
        Context { exec: Some(running.exec), session: SESSION, is_coroutine: false }.enter();
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.before.enter();
        lock(&THREADS).remove(&self.exec);
    }
}

fn wake(exec: ExecutionNo) {
    if let Some(thread) = lock(&THREADS).get(&exec) {
        thread.unpark();
    }
}

/// Encoded results, each with the number of its records.
#[derive(Default)]
struct Results(RefCell<Vec<(u64, Vec<u8>)>>);

impl Results {
    fn add(&self, records: Records<'_>) {
        self.0.borrow_mut().push((records.count, records.bytes.to_vec()));
    }

    fn decode<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let values = PyList::empty(py);
        for (count, bytes) in self.0.borrow().iter() {
            let mut reader = Reader::new(bytes);
            for _ in 0..*count {
                values.append(Decoder { allow_pickle: true }.value(py, &mut reader)?)?;
            }
        }
        Ok(values)
    }
}

impl Sink for Results {
    fn record_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX
    }

    fn output(&self, _py: Python<'_>, frame: &FromWorker<'_>) {
        if let FromWorker::Output { records, .. } = frame {
            self.add(*records);
        }
    }

    fn send(&self, _py: Python<'_>, _frame: &FromWorker<'_>) {}
}

/// Runs a plan on records: `count` of them, encoded in `records`, or those that `source` makes. Returns its results, and its
/// errors as texts in bytes.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "Python gives them by position")]
fn run_local<'py>(
    py: Python<'py>,
    spec: &[u8],
    callbacks: Vec<Bound<'py, PyTuple>>,
    source: Option<Py<PyAny>>,
    count: u64,
    records: Vec<u8>,
    sessions: Py<PyAny>,
    describe: Py<PyAny>,
) -> PyResult<(Bound<'py, PyList>, Vec<Bound<'py, PyBytes>>)> {
    let spec = PlanSpec::decode(spec).map_err(|error| gears_error(py, error.to_string()))?;
    let plan = Arc::new(Plan::new(py, SESSION, source, &spec, &callbacks)?);
    let (hooks, code, results) = (Hooks { sessions, describe }, RunningCode::new(), Results::default());
    let ctx = Ctx { py, results: &results, hooks: &hooks, code: &code };
    let running = Running::begin();
    let flags = StartFlags::LAST.with(StartFlags::TRACEBACK).with(StartFlags::TAGGED);
    let mut run = Run::new(Waiter { exec: running.exec, wake }, plan, flags, 0, None);
    run.feed(count, records);
    while !(run.proceed(ctx) && run.finish(ctx)) {
        py.detach(|| std::thread::park_timeout(LOOK_EVERY));
        if let Err(signal) = py.check_signals() {
            run.abandon(ctx);
            return Err(signal);
        }
    }
    run.clear(py);
    let mut errors = Vec::new();
    run.done(|frame| {
        if let FromWorker::Done { records, errors: texts, .. } = frame {
            results.add(*records);
            errors.extend(texts.iter().map(|text| PyBytes::new(py, text)));
        }
    });
    Ok((results.decode(py)?, errors))
}

/// Whether a pattern of the server matches the name of a key.
#[pyfunction]
fn matches_pattern(pattern: &[u8], name: &[u8]) -> PyResult<bool> {
    let filter = KeyFilter::new(pattern).map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))?;
    Ok(filter.matches(name))
}

/// Adds everything of this file to the module.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(run_local, module)?)?;
    module.add_function(wrap_pyfunction!(matches_pattern, module)?)
}
