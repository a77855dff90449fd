//! Steps that wait for coroutines and futures.

use std::sync::Arc;

use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::child::end_if_child;
use crate::future::{self, Ability, Failure, Future, Ticket};

use super::waiting::{After, Kind, Parked, close, kind_of, reversed_copy};
use super::{Ctx, Run, Slot};

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
        future::enter(self.waiter, self.ability());
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
        let ticket = future::of_coroutine(py, self.waiter, self.ability()).inspect_err(|_| close(awaitable))?;
        ticket.wait();
        let future = Bound::new(py, Future::of(Arc::clone(&ticket)))?;
        ctx.hooks
            .sessions
            .bind(py)
            .call_method1("spawn", (awaitable, future, self.waiter.exec.0, self.plan.session))?;
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
                    let reversed = if in_order { Some(reversed_copy(items)?) } else { None };
                    self.wait(reversed.as_ref().unwrap_or(items), op + 1);
                }
                Err(_) => self.flow(ctx, op + 1, value),
            },
            After::Accumulate => self.slots[op] = Slot::Object(value.unbind()),
            After::AccumulateKey(key) => self.keys(py, op).set_item(key, value)?,
        }
        Ok(())
    }

    /// Nobody waits any more for records of these operators.
    pub(super) fn abandon_where(
        &mut self,
        hooks: Option<&crate::hooks::Hooks>,
        py: Python<'_>,
        which: impl Fn(&Run, usize) -> bool,
    ) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let abandoned = waiting.take_where(|op| which(self, op));
        self.waiting = waiting;
        for parked in abandoned {
            if let Parked::Waits(ticket, _) = parked
                && let (Some(task), Some(hooks)) = (ticket.abandon(), hooks)
            {
                // The task ends by itself if it cannot be cancelled.
                let _ = hooks.sessions.bind(py).call_method1("cancel", (task,));
            }
        }
    }
}
