//! One execution: records are pushed through the plan's operators, depth first, one at a time.
//!
//! [`Run`] is the whole state between two records. It holds no thread and no borrowed object, so it can be suspended between
//! batches of input. Pending work (items of a list, keys of a group) is on an explicit stack, not on the call stack, so
//! that it can also be suspended between two steps of a record.
//!
//! This file pushes records and calls callbacks; [`operators`] has what each operator does, [`outcome`] results and errors.
//!
//! Rules: the first error record closes the input, and records already inside continue; aggregations emit at the end, and
//! nothing for empty input; a satisfied `limit` closes everything before it.

mod operators;
mod outcome;

use std::sync::Arc;
use std::time::Instant;

use pyo3::call::PyCallArgs;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyIterator, PyList, PyString, PyTuple, PyType};
use redgrease_core::codec::{Reader, Token};
use redgrease_core::frame::{FromWorker, StartFlags};
use redgrease_core::id::ExecutionNo;

use crate::child::end_if_child;
use crate::codec::Decoder;
use crate::connection::Connection;
use crate::errors::gears_error;
use crate::hooks::Hooks;
use crate::plan::{Op, Plan, Source};
use crate::running_code::RunningCode;

use self::outcome::{Outcome, Refused};

/// Context of a running operator: everything it needs in addition to its state.
#[derive(Clone, Copy)]
pub struct Ctx<'a, 'py> {
    /// Proof of holding the GIL.
    pub py: Python<'py>,
    /// Where results go.
    pub connection: &'a Connection,
    /// What describes errors.
    pub hooks: &'a Hooks,
    /// The code that the thread runs.
    pub code: &'a RunningCode,
}

/// State of one operator.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Empty,
    Object(Py<PyAny>),
    Keys(Py<PyDict>),
    Records(Py<PyList>),
    Count(u64),
    Sum(Py<PyAny>, u64),
}

/// Pending records inside the plan; `op` is the operator for the next one.
#[derive(Debug)]
enum Pending {
    /// Items of a list, last one first; `left` of them are pending.
    Items { items: Py<PyList>, left: usize, op: usize },
    /// Keys with their accumulators.
    Keys { items: Py<PyIterator>, reducer: Option<usize>, op: usize },
    /// A Python source.
    Source { items: Py<PyIterator> },
}

impl Pending {
    fn op(&self) -> usize {
        match self {
            Pending::Items { op, .. } | Pending::Keys { op, .. } => *op,
            Pending::Source { .. } => 0,
        }
    }
}

/// State of one execution.
#[derive(Debug)]
pub struct Run {
    plan: Arc<Plan>,
    traceback: bool,
    /// First operator of the input.
    first: usize,
    slots: Vec<Slot>,
    stack: Vec<Pending>,
    /// Operators before this index get no more records (a later `limit` is satisfied).
    closed: usize,
    /// Operators before this index have ended.
    ended: usize,
    input_closed: bool,
    aborted: bool,
    outcome: Outcome,
    step_nanos: Vec<u64>,
}

impl Run {
    /// The state before the first record; `first_step` is the first step that the server has not executed itself.
    pub fn new(exec: ExecutionNo, plan: Arc<Plan>, flags: StartFlags, first_step: u64) -> Run {
        let first = plan.op_of_step(first_step);
        let slots = plan.ops.iter().map(|_| Slot::Empty).collect();
        let steps = if flags.has(StartFlags::PROFILE) { plan.steps.len() } else { 0 };
        let mut run = Run {
            plan,
            traceback: flags.has(StartFlags::TRACEBACK),
            first,
            slots,
            stack: Vec::new(),
            closed: 0,
            ended: first,
            input_closed: false,
            aborted: false,
            outcome: Outcome::new(exec, flags),
            step_nanos: vec![0; steps],
        };
        // A limit of 0 is satisfied before anything is read.
        let nothing = run.plan.ops.iter().rposition(|(op, _)| matches!(op, Op::Limit { length: 0, .. }));
        if let Some(limit) = nothing.filter(|limit| *limit >= first) {
            run.close_before(limit + 1);
        }
        run
    }

    /// The session whose code runs.
    pub fn session(&self) -> u64 {
        self.plan.session
    }

    /// Whether further input has no effect.
    pub fn is_closed(&self) -> bool {
        self.input_closed
    }

    /// Processes records from the server.
    pub fn feed(&mut self, ctx: Ctx<'_, '_>, count: u64, bytes: &[u8]) {
        let mut reader = Reader::new(bytes);
        let decoder = Decoder { allow_pickle: true };
        // Records that are only counted are not decoded.
        let is_counted = matches!(self.plan.ops.get(self.first), Some((Op::Count, _)));
        for _ in 0..count {
            if ctx.code.is_aborted() {
                return self.abort(ctx);
            }
            if self.input_closed {
                return;
            }
            if let Ok(Token::Error(text)) = reader.clone().token() {
                // Skipping data that was just validated cannot fail.
                let _ = reader.skip();
                self.add_error(|| text.to_vec());
                continue;
            }
            if is_counted && reader.skip().is_ok() {
                self.count_one(self.first);
                continue;
            }
            match decoder.value(ctx.py, &mut reader) {
                Ok(record) => self.push(ctx, self.first, record),
                Err(error) => return self.fail(ctx, error),
            }
        }
    }

    /// Reads a Python source to its end, and ends the operators.
    pub fn finish(&mut self, ctx: Ctx<'_, '_>) {
        if let Source::Python(make) = &self.plan.clone().source
            && !self.input_closed
        {
            match self.source(ctx, make) {
                Ok(()) => self.drain(ctx),
                Err(error) => self.fail(ctx, error),
            }
        }
        self.input_closed = true;
        while !self.aborted && self.ended < self.plan.ops.len() {
            if ctx.code.is_aborted() {
                return self.abort(ctx);
            }
            let op = self.ended;
            self.ended += 1;
            // An operator before a satisfied limit does not emit its accumulated state.
            if op >= self.closed {
                if let Err(error) = self.end(ctx, op) {
                    self.fail(ctx, error);
                }
                self.drain(ctx);
            }
        }
    }

    /// Drops the accumulated objects: their destructors run before the last frame.
    pub fn clear(&mut self, _py: Python<'_>) {
        self.stack.clear();
        self.slots.clear();
    }

    /// The last frame.
    pub fn done(&mut self, send: impl FnOnce(&FromWorker<'_>)) {
        self.outcome.done(self.step_nanos.iter().map(|nanos| nanos / 1000).collect(), send);
    }

    /// Ends the execution at once, with an error.
    pub fn abort(&mut self, ctx: Ctx<'_, '_>) {
        ctx.code.disarm(ctx.py);
        self.input_closed = true;
        self.aborted = true;
        self.stack.clear();
        if self.outcome.is_ok() {
            self.outcome.add_error(|| b"Execution was aborted".to_vec());
        }
    }

    fn source(&mut self, ctx: Ctx<'_, '_>, make: &Py<PyAny>) -> PyResult<()> {
        let made = end_if_child(ctx.py, make.bind(ctx.py).call0())?;
        refuse_async(&made, || "the reader's function".to_owned())?;
        // A value that is not a generator is one record: calling the function again would never end.
        match made.cast::<PyIterator>() {
            Ok(items) => self.stack.push(Pending::Source { items: items.clone().unbind() }),
            Err(_) => self.push(ctx, self.first, made),
        }
        Ok(())
    }

    /// Processes a record from operator `op` on, with everything it produces.
    fn push(&mut self, ctx: Ctx<'_, '_>, op: usize, record: Bound<'_, PyAny>) {
        self.flow(ctx, op, record);
        self.drain(ctx);
    }

    /// Processes pending records, innermost first.
    fn drain(&mut self, ctx: Ctx<'_, '_>) {
        while let Some((op, record)) = self.next_pending(ctx) {
            self.flow(ctx, op, record);
            if ctx.code.is_aborted() {
                return self.abort(ctx);
            }
        }
    }

    fn next_pending<'py>(&mut self, ctx: Ctx<'_, 'py>) -> Option<(usize, Bound<'py, PyAny>)> {
        let py = ctx.py;
        loop {
            let next =
                match self.stack.last_mut()? {
                    Pending::Items { items, left, op } => {
                        let op = *op;
                        let item = left.checked_sub(1).and_then(|index| {
                            *left = index;
                            items.bind(py).get_item(index).ok()
                        });
                        item.map(|item| (op, Ok(item)))
                    }
                    Pending::Keys { items, reducer, op } => {
                        let (op, reducer) = (*op, *reducer);
                        items.clone_ref(py).into_bound(py).next().map(|pair| {
                            (op, pair.and_then(|pair| self.keyed(ctx, reducer, &pair.cast_into::<PyTuple>()?)))
                        })
                    }
                    Pending::Source { .. } if self.input_closed => None,
                    Pending::Source { items } => {
                        let mut items = items.clone_ref(py).into_bound(py);
                        let first = self.first;
                        items.next().map(|item| (first, end_if_child(py, item)))
                    }
                };
            match next {
                Some((op, Ok(record))) => return Some((op, record)),
                Some((_, Err(error))) => {
                    // The iterator of a failed source is exhausted; a failed reducer loses its key only.
                    self.fail(ctx, error);
                    if self.aborted {
                        return None;
                    }
                }
                None => self.drop_pending(py),
            }
        }
    }

    fn drop_pending(&mut self, py: Python<'_>) {
        if let Some(Pending::Source { items }) = self.stack.pop() {
            // Closes a generator (its `finally` and `with`) now, not at its garbage collection.
            if let Ok(close) = items.bind(py).getattr(intern!(py, "close")) {
                let _ = close.call0();
            }
        }
    }

    /// Runs one record through the operators from `op` on, until it leaves, ends, or is split into several.
    fn flow<'py>(&mut self, ctx: Ctx<'_, 'py>, mut op: usize, mut record: Bound<'py, PyAny>) {
        let plan = self.plan.clone();
        while let Some((kind, _)) = plan.ops.get(op) {
            match self.apply(ctx, op, kind, record) {
                Ok(Some(next)) => {
                    record = next;
                    op += 1;
                }
                Ok(None) => return,
                Err(error) => return self.fail(ctx, error),
            }
        }
        match self.outcome.add(ctx.connection, &record) {
            Ok(()) => {}
            Err(Refused::Encoding(error)) => self.fail(ctx, error),
            Err(Refused::Length(text)) => self.add_error(|| text.into_bytes()),
        }
    }

    /// Calls a user's callback.
    fn call<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        op: usize,
        f: &Py<PyAny>,
        args: impl PyCallArgs<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let step = self.step(op);
        ctx.code.enter_step(step);
        let result = end_if_child(ctx.py, self.timed(op, || f.bind(ctx.py).call1(args)))?;
        refuse_async(&result, || format!("the callback of step {step} '{}'", self.plan.steps[step as usize]))?;
        Ok(result)
    }

    fn timed<T>(&mut self, op: usize, work: impl FnOnce() -> T) -> T {
        if self.step_nanos.is_empty() {
            return work();
        }
        let start = Instant::now();
        let result = work();
        let step = self.step(op) as usize;
        self.step_nanos[step] += start.elapsed().as_nanos() as u64;
        result
    }

    fn step(&self, op: usize) -> u32 {
        self.plan.ops[op].1
    }

    fn close_before(&mut self, op: usize) {
        self.closed = self.closed.max(op);
        self.input_closed = true;
        // A source stays, to be closed later.
        let closed = self.closed;
        self.stack.retain(|pending| pending.op() >= closed || matches!(pending, Pending::Source { .. }));
    }

    /// Records an error: the record leaves the plan here, and the reader stops.
    fn fail(&mut self, ctx: Ctx<'_, '_>, error: PyErr) {
        let aborted = ctx.code.is_aborted();
        if aborted {
            ctx.code.disarm(ctx.py);
        }
        let traceback = self.traceback;
        self.add_error(|| ctx.hooks.describe(ctx.py, error, traceback));
        if aborted {
            self.abort(ctx);
        }
    }

    fn add_error(&mut self, text: impl FnOnce() -> Vec<u8>) {
        self.input_closed = true;
        self.outcome.add_error(text);
    }
}

/// An error if a value is a coroutine or a future.
fn refuse_async(value: &Bound<'_, PyAny>, who: impl FnOnce() -> String) -> PyResult<()> {
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
        return Ok(());
    }
    let py = value.py();
    let coroutine = COROUTINE.get_or_try_init(py, || -> PyResult<_> {
        Ok(py.import("types")?.getattr("CoroutineType")?.cast_into::<PyType>()?.unbind())
    })?;
    let is_coroutine = value.get_type().is(coroutine);
    if !is_coroutine && !value.hasattr(intern!(py, "_asyncio_future_blocking"))? {
        return Ok(());
    }
    if is_coroutine {
        // It will never be awaited: report it here instead of in a warning at its garbage collection.
        let _ = value.call_method0(intern!(py, "close"));
    }
    let what = if is_coroutine { "a coroutine" } else { "a future" };
    Err(gears_error(py, format!("async steps are not supported yet: {} returned {what}", who())))
}
