//! Records whose step waits for a coroutine or a future.
//!
//! Each operator has a queue of them: results leave in the order of the records, whatever the order in which they come.
//! A record that is further down the plan goes first, and nothing enters an operator whose queue is full, so that the order
//! is the same as without waiting.

use std::collections::VecDeque;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};

use crate::errors::gears_error;
use crate::future::Ticket;

/// Records of one operator that may wait.
const WAITING_MAX: usize = 1000;

/// What happens with a result.
#[derive(Debug)]
pub(super) enum After {
    /// It is the record.
    Map,
    /// The record goes on if it is true.
    Filter(Py<PyAny>),
    /// The record goes on.
    ForEach(Py<PyAny>),
    /// Its items are records.
    FlatMap {
        /// In their order.
        in_order: bool,
    },
    /// It is the accumulator.
    Accumulate,
    /// It is the accumulator of this key.
    AccumulateKey(Py<PyString>),
}

/// A record of an operator that waits, or that waits for one before it.
#[derive(Debug)]
pub(super) enum Parked {
    /// It waits.
    Waits(Arc<Ticket>, After),
    /// It is ready, and one before it is not.
    Record(Py<PyAny>),
    /// The same, for the items of a list, last one first.
    Items(Py<PyList>),
}

impl Parked {
    fn is_ready(&self) -> bool {
        match self {
            Parked::Waits(ticket, _) => ticket.is_ready(),
            Parked::Record(_) | Parked::Items(_) => true,
        }
    }
}

/// The queues of all operators.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queues: Vec<Queue>,
    len: usize,
}

#[derive(Debug, Default)]
struct Queue {
    parked: VecDeque<Parked>,
    /// It takes one record at a time.
    serial: bool,
}

impl Queue {
    fn is_full(&self) -> bool {
        self.parked.len() >= if self.serial { 1 } else { WAITING_MAX }
    }
}

impl Waiting {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether records of that operator wait.
    pub(super) fn has(&self, op: usize) -> bool {
        self.len > 0 && self.queues.get(op).is_some_and(|queue| !queue.parked.is_empty())
    }

    /// Whether records of an operator up to that one wait.
    pub(super) fn has_until(&self, op: usize) -> bool {
        self.len > 0 && self.queues.iter().take(op + 1).any(|queue| !queue.parked.is_empty())
    }

    /// Whether a record can enter the plan at that operator.
    pub(super) fn takes_at(&self, op: usize) -> bool {
        self.len == 0 || !self.queues.iter().skip(op).any(Queue::is_full)
    }

    /// Adds a record that waits; `serial`: its operator takes one at a time.
    pub(super) fn push(&mut self, op: usize, parked: Parked, serial: bool) {
        if self.queues.len() <= op {
            self.queues.resize_with(op + 1, Queue::default);
        }
        self.queues[op].serial = serial;
        self.queues[op].parked.push_back(parked);
        self.len += 1;
    }

    /// Takes the first record whose result has come, from the last operator to `first`.
    pub(super) fn pop_ready(&mut self, first: usize) -> Option<(usize, Parked)> {
        for op in (first..self.queues.len()).rev() {
            if self.queues[op].parked.front().is_some_and(Parked::is_ready) {
                self.len -= 1;
                return self.queues[op].parked.pop_front().map(|parked| (op, parked));
            }
            if self.queues[op].is_full() {
                // Nothing may enter it from before.
                return None;
            }
        }
        None
    }

    /// Takes all that wait in these operators.
    pub(super) fn take_where(&mut self, which: impl Fn(usize) -> bool) -> Vec<Parked> {
        let queues = self.queues.iter_mut().enumerate().filter(|(op, _)| which(*op));
        let taken: Vec<Parked> = queues.flat_map(|(_, queue)| queue.parked.drain(..)).collect();
        self.len -= taken.len();
        taken
    }
}

/// What a callback returned.
pub(super) enum Kind {
    /// A value.
    Value,
    /// A coroutine or a future.
    Awaitable,
}

/// Refuses a coroutine or a future where a step cannot wait.
pub(super) fn refuse_async(value: &Bound<'_, PyAny>, place: &str) -> PyResult<()> {
    if let Kind::Value = kind_of(value)? {
        return Ok(());
    }
    close(value);
    Err(gears_error(value.py(), format!("coroutine are not allow on {place}")))
}

/// A coroutine that will never be awaited is closed here: Python would warn at its garbage collection.
pub(super) fn close(awaitable: &Bound<'_, PyAny>) {
    if let Ok(close) = awaitable.getattr("close") {
        // It may be a future, which has none.
        let _ = close.call0();
    }
}

/// Whether a value has to be awaited.
pub(super) fn kind_of(value: &Bound<'_, PyAny>) -> PyResult<Kind> {
    static COROUTINE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    if value.is_none()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyDict>()
        || value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyTuple>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBytes>()
    {
        return Ok(Kind::Value);
    }
    let py = value.py();
    let coroutine = COROUTINE.get_or_try_init(py, || -> PyResult<_> {
        Ok(py.import("types")?.getattr("CoroutineType")?.cast_into::<PyType>()?.unbind())
    })?;
    let is_awaitable =
        value.get_type().is(coroutine) || value.hasattr(pyo3::intern!(py, "_asyncio_future_blocking"))?;
    Ok(if is_awaitable { Kind::Awaitable } else { Kind::Value })
}

/// A copy of a list, in reverse.
pub(super) fn reversed_copy<'py>(items: &Bound<'py, PyList>) -> PyResult<Bound<'py, PyList>> {
    let copy = items.get_slice(0, items.len());
    copy.reverse()?;
    Ok(copy)
}
