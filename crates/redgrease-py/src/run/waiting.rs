//! Records whose step waits for a coroutine or a future.
//!
//! Each operator has a queue of them: results leave in the order of the records, whatever the order in which they come.
//! A record that is further down the plan goes first, and nothing enters an operator whose queue is full, so that the order
//! is the same as without waiting.

use std::collections::VecDeque;
use std::sync::Arc;

use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};

use crate::child::end_if_child;
use crate::errors::gears_error;
use crate::future::{self, Ability, Failure, Future, Ticket};

use super::{Ctx, Run, Slot};

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

#[derive(Debug)]
enum Parked {
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
    fn has(&self, op: usize) -> bool {
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

    fn push(&mut self, op: usize, parked: Parked, serial: bool) {
        if self.queues.len() <= op {
            self.queues.resize_with(op + 1, Queue::default);
        }
        self.queues[op].serial = serial;
        self.queues[op].parked.push_back(parked);
        self.len += 1;
    }

    /// Takes the first record whose result has come, from the last operator to `first`.
    fn pop_ready(&mut self, first: usize) -> Option<(usize, Parked)> {
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

    /// Takes all that wait before an operator.
    fn take_before(&mut self, op: usize) -> Vec<Parked> {
        let taken: Vec<Parked> = self.queues.iter_mut().take(op).flat_map(|queue| queue.parked.drain(..)).collect();
        self.len -= taken.len();
        taken
    }
}

/// What a callback returned.
pub(super) enum Called<'py> {
    /// A value.
    Value(Bound<'py, PyAny>),
    /// The result comes later.
    Later(Arc<Ticket>),
}

impl Run {
    fn ability(&self) -> Ability {
        if self.no_async { Ability::NotAllowed } else { Ability::Can }
    }

    /// Calls the callback of a step that can wait. `keeps`: what it returns beside a future that it created is used.
    pub(super) fn call_step<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        op: usize,
        f: &Py<PyAny>,
        args: impl PyCallArgs<'py>,
        keeps: bool,
    ) -> PyResult<Called<'py>> {
        let py = ctx.py;
        ctx.code.enter_step(self.step(op));
        future::enter(self.exec, self.ability());
        let result = self.timed(op, || f.bind(py).call1(args));
        let created = future::leave();
        let result = end_if_child(py, result);
        let Some(created) = created else {
            let value = result?;
            return match kind_of(&value)? {
                Kind::Value => Ok(Called::Value(value)),
                Kind::Awaitable => self.spawn(ctx, &value).map(Called::Later),
            };
        };
        match result {
            Ok(value) => {
                if let Ok(future) = value.cast::<Future>()
                    && Arc::ptr_eq(future.get().ticket(), &created)
                {
                    created.wait();
                    return Ok(Called::Later(created));
                }
                drop(created.abandon());
                if !keeps {
                    return Ok(Called::Value(py.None().into_bound(py)));
                }
                match kind_of(&value)? {
                    Kind::Value => Ok(Called::Value(value)),
                    Kind::Awaitable => self.spawn(ctx, &value).map(Called::Later),
                }
            }
            Err(error) => {
                drop(created.abandon());
                if keeps || ctx.code.is_aborted() { Err(error) } else { Ok(Called::Value(py.None().into_bound(py))) }
            }
        }
    }

    /// Starts a coroutine on the event loop.
    fn spawn(&self, ctx: Ctx<'_, '_>, awaitable: &Bound<'_, PyAny>) -> PyResult<Arc<Ticket>> {
        let py = ctx.py;
        let ticket = future::of_coroutine(py, self.exec, self.ability()).inspect_err(|_| close(awaitable))?;
        ticket.wait();
        let future = Bound::new(py, Future::of(Arc::clone(&ticket)))?;
        ctx.hooks.sessions.bind(py).call_method1("spawn", (awaitable, future, self.exec.0, self.plan.session))?;
        Ok(ticket)
    }

    /// A record waits.
    pub(super) fn park(&mut self, op: usize, ticket: Arc<Ticket>, after: After) {
        let serial = matches!(after, After::Accumulate | After::AccumulateKey(_));
        self.waiting.push(op, Parked::Waits(ticket, after), serial);
    }

    /// The record that goes on behind an operator; `None` if one before it waits there.
    pub(super) fn in_order<'py>(&mut self, op: usize, record: Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        if !self.waiting.has(op) {
            return Some(record);
        }
        self.waiting.push(op, Parked::Record(record.unbind()), false);
        None
    }

    /// The items of a list, last one first, that go on behind an operator.
    pub(super) fn items_in_order(&mut self, op: usize, items: &Bound<'_, PyList>) {
        if self.waiting.has(op) {
            self.waiting.push(op, Parked::Items(items.clone().unbind()), false);
        } else {
            self.wait(items, op + 1);
        }
    }

    /// Goes on with one record whose result has come, if there is one that is further down the plan than `first`.
    pub(super) fn continue_one(&mut self, ctx: Ctx<'_, '_>, first: usize) -> bool {
        let Some((op, parked)) = self.waiting.pop_ready(first) else { return false };
        let py = ctx.py;
        let result = match parked {
            Parked::Record(record) => {
                self.flow(ctx, op + 1, record.into_bound(py));
                Ok(())
            }
            Parked::Items(items) => {
                self.wait(items.bind(py), op + 1);
                Ok(())
            }
            Parked::Waits(ticket, after) => match ticket.take() {
                Some(Ok(value)) => self.result_came(ctx, op, value.into_bound(py), after),
                Some(Err(Failure::Text(text))) => {
                    self.add_error(|| text);
                    match after {
                        // As when the callback fails at once: the accumulator is lost.
                        After::AccumulateKey(key) => self.forget_key(py, op, key.bind(py)),
                        _ => Ok(()),
                    }
                }
                None => Ok(()),
            },
        };
        if let Err(error) = result {
            self.fail(ctx, error);
        }
        true
    }

    fn forget_key(&mut self, py: Python<'_>, op: usize, key: &Bound<'_, PyString>) -> PyResult<()> {
        let keys = self.keys(py, op);
        if keys.contains(key)? { keys.del_item(key) } else { Ok(()) }
    }

    fn result_came<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        op: usize,
        value: Bound<'py, PyAny>,
        after: After,
    ) -> PyResult<()> {
        let py = ctx.py;
        match after {
            After::Map => self.flow(ctx, op + 1, value),
            After::Filter(record) => {
                if value.is_truthy()? {
                    self.flow(ctx, op + 1, record.into_bound(py));
                }
            }
            After::ForEach(record) => self.flow(ctx, op + 1, record.into_bound(py)),
            After::FlatMap { in_order } => match value.cast_exact::<PyList>() {
                Ok(items) => {
                    let reversed = if in_order { Some(super::operators::reversed_copy(items)?) } else { None };
                    self.wait(reversed.as_ref().unwrap_or(items), op + 1);
                }
                Err(_) => self.flow(ctx, op + 1, value),
            },
            After::Accumulate => self.slots[op] = Slot::Object(value.unbind()),
            After::AccumulateKey(key) => self.keys(py, op).set_item(key, value)?,
        }
        Ok(())
    }

    /// Nobody waits any more for records before an operator.
    pub(super) fn abandon_before(&mut self, hooks: Option<&crate::hooks::Hooks>, py: Python<'_>, op: usize) {
        for parked in self.waiting.take_before(op) {
            if let Parked::Waits(ticket, _) = parked
                && let (Some(task), Some(hooks)) = (ticket.abandon(), hooks)
            {
                // The task ends by itself if it cannot be cancelled.
                let _ = hooks.sessions.bind(py).call_method1("cancel", (task,));
            }
        }
    }
}

enum Kind {
    Value,
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
fn close(awaitable: &Bound<'_, PyAny>) {
    if let Ok(close) = awaitable.getattr("close") {
        // It may be a future, which has none.
        let _ = close.call0();
    }
}

fn kind_of(value: &Bound<'_, PyAny>) -> PyResult<Kind> {
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
