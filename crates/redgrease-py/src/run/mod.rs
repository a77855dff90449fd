//! One execution: records are pushed through the plan's operators, depth first, one at a time.
//!
//! [`Run`] is the whole state between two records. It holds no thread and no borrowed object, so it can be suspended between
//! batches of input. Pending work (items of a list, keys of a group) is on an explicit stack, not on the call stack, so
//! that it can also be suspended between two steps of a record.
//!
//! This file pushes records and calls callbacks; [`operators`] has what each operator does, [`waiting`] and
//! [`async_steps`] records that wait for coroutines and futures, [`outcome`] results and errors. [`stage`] and [`stages`] are for a shard
//! of several: records move between them ([`moves`]), as the server says ([`route`], [`mailbox`]).
//!
//! Rules: the first error record closes the input, and records already inside continue; aggregations emit at the end, and
//! nothing for empty input; a satisfied `limit` closes everything before it.

mod async_steps;
mod input;
mod mailbox;
mod moves;
mod operators;
mod outcome;
mod route;
mod stage;
mod stages;
mod waiting;

use std::sync::Arc;
use std::time::Instant;

use pyo3::call::PyCallArgs;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyString, PyTuple};
use redgrease_core::codec::{Reader, Token};
use redgrease_core::frame::{FromWorker, StartFlags};

use crate::child::end_if_child;
use crate::codec::Decoder;
use crate::future::{self, Ability, Waiter};
use crate::hooks::Hooks;
use crate::plan::{Op, Plan, Row, Source};
use crate::running_code::RunningCode;

use self::input::Input;
pub use self::mailbox::{Batch, Mailbox, News};
use self::outcome::{Outcome, Refused};
pub use self::outcome::{RECORD_BYTES_MAX, Sink};
pub use self::route::{Route, Routed};
pub use self::stage::Progress;
use self::stage::Stages;
use self::waiting::{Waiting, refuse_async};

/// Context of a running operator: everything it needs in addition to its state.
#[derive(Clone, Copy)]
pub struct Ctx<'a, 'py> {
    /// Proof of holding the GIL.
    pub py: Python<'py>,
    /// Where results go.
    pub results: &'a dyn Sink,
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

/// What comes of pending records.
enum Next<'py> {
    /// A record for an operator.
    Record(usize, Bound<'py, PyAny>),
    /// Nothing, but there may be more.
    Nothing,
    /// No record is pending.
    End,
}

/// State of one execution.
#[derive(Debug)]
pub struct Run {
    waiter: Waiter,
    plan: Arc<Plan>,
    row: Arc<Row>,
    /// On a shard of several.
    stages: Option<Box<Stages>>,
    /// The key of the record that is on its way to the next operator, which uses it.
    key: Option<Py<PyString>>,
    /// No step may wait: the caller cannot be blocked.
    no_async: bool,
    waiting: Waiting,
    input: Option<Input>,
    source_began: bool,
    /// The server knows that no more input has an effect.
    pub stop_was_sent: bool,
    /// The server knows that it waits.
    pub parked_was_sent: bool,
    traceback: bool,
    /// First operator of the input.
    first: usize,
    slots: Vec<Slot>,
    stack: Vec<Pending>,
    /// Operators before this index get no more records (a later `limit` is satisfied). See also [`Run::is_op_closed`].
    closed: usize,
    /// Operators before this index have ended.
    ended: usize,
    input_closed: bool,
    aborted: bool,
    outcome: Outcome,
    step_nanos: Vec<u64>,
}

impl Run {
    /// The state before the first record; `first_step` is the first step that the server has not executed itself. `routed`:
    /// on a shard of several.
    pub fn new(waiter: Waiter, plan: Arc<Plan>, flags: StartFlags, first_step: u64, routed: Option<Routed>) -> Run {
        let row = Arc::clone(if routed.is_some() { &plan.row_with_moves } else { &plan.row });
        // What the server has executed of a step is its part before records move.
        let moved = row.moves.iter().rposition(|at| u64::from(row.ops[*at].1) < first_step);
        let first = moved.map_or_else(|| row.op_of_step(first_step), |before| row.moves[before]);
        let slots = row.ops.iter().map(|_| Slot::Empty).collect();
        let stages = routed.map(|routed| Box::new(Stages::new(routed, &row, first)));
        let steps = if flags.has(StartFlags::PROFILE) { plan.steps.len() } else { 0 };
        let mut run = Run {
            waiter,
            plan,
            row,
            key: None,
            no_async: flags.has(StartFlags::NO_ASYNC),
            waiting: Waiting::default(),
            input: None,
            source_began: false,
            stop_was_sent: false,
            parked_was_sent: false,
            traceback: flags.has(StartFlags::TRACEBACK),
            first,
            slots,
            stack: Vec::new(),
            closed: 0,
            // On a shard of several the stages before the first operator end, too.
            ended: if stages.is_some() { 0 } else { first },
            stages,
            input_closed: false,
            aborted: false,
            outcome: Outcome::new(waiter.exec, flags),
            step_nanos: vec![0; steps],
        };
        // A limit of 0 is satisfied before anything is read.
        let nothing = run.row.ops.iter().rposition(|(op, _)| matches!(op, Op::Limit { length: 0, .. }));
        if let Some(limit) = nothing.filter(|limit| *limit >= first) {
            run.close_all_before(limit + 1);
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

    /// Takes records from the server; [`Run::proceed`] processes them.
    pub fn feed(&mut self, count: u64, bytes: Vec<u8>) {
        self.input = Some(Input { bytes, offset: 0, left: count });
    }

    /// Processes records; returns whether all that were taken are processed. Otherwise it waits.
    pub fn proceed(&mut self, ctx: Ctx<'_, '_>) -> bool {
        if !self.drain(ctx) {
            return false;
        }
        let Some(mut input) = self.input.take() else { return true };
        let processed = self.proceed_with(ctx, &mut input);
        if !processed {
            self.input = Some(input);
        }
        processed
    }

    fn proceed_with(&mut self, ctx: Ctx<'_, '_>, input: &mut Input) -> bool {
        let start = input.offset;
        let mut reader = Reader::new(&input.bytes[start..]);
        let decoder = Decoder { allow_pickle: true };
        // Records that are only counted are not decoded.
        let is_counted = matches!(self.row.ops.get(self.first), Some((Op::Count, _)));
        while input.left > 0 {
            if ctx.code.is_aborted() {
                self.abort(ctx);
            }
            if self.input_closed {
                return true;
            }
            if !self.waiting.takes_at(self.first) {
                input.offset = start + reader.position();
                return false;
            }
            input.left -= 1;
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
                Ok(record) => {
                    self.flow(ctx, self.first, record);
                    if !self.drain(ctx) {
                        input.offset = start + reader.position();
                        return input.left == 0;
                    }
                }
                Err(error) => {
                    self.fail(ctx, error);
                    return true;
                }
            }
        }
        true
    }

    /// Reads a Python source to its end, and ends the operators; returns whether it has ended. Otherwise it waits.
    pub fn finish(&mut self, ctx: Ctx<'_, '_>) -> bool {
        if let Source::Python(make) = &self.plan.clone().source
            && !self.input_closed
            && !std::mem::replace(&mut self.source_began, true)
            && let Err(error) = self.source(ctx, make)
        {
            self.fail(ctx, error);
        }
        if !self.drain(ctx) {
            return false;
        }
        self.input_closed = true;
        while !self.aborted && self.ended < self.row.ops.len() {
            if ctx.code.is_aborted() {
                self.abort(ctx);
                return true;
            }
            let op = self.ended;
            if self.waiting.has_until(op) {
                return false;
            }
            self.ended += 1;
            // An operator before a satisfied limit does not emit its accumulated state.
            if !self.is_op_closed(op) {
                if let Err(error) = self.end(ctx, op) {
                    self.fail(ctx, error);
                }
                if !self.drain(ctx) {
                    return false;
                }
            }
        }
        self.aborted || self.waiting.is_empty()
    }

    /// Nobody waits for its records any more: coroutines are cancelled.
    pub fn abandon(&mut self, ctx: Ctx<'_, '_>) {
        self.abandon_where(Some(ctx.hooks), ctx.py, |_, _| true);
    }

    /// Drops the accumulated objects: their destructors run before the last frame.
    pub fn clear(&mut self, _py: Python<'_>) {
        self.stack.clear();
        self.slots.clear();
        self.key = None;
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
        self.abandon(ctx);
        if self.outcome.is_ok() {
            self.outcome.add_error(|| b"Execution was aborted".to_vec());
        }
    }

    fn source(&mut self, ctx: Ctx<'_, '_>, make: &Py<PyAny>) -> PyResult<()> {
        let made = end_if_child(ctx.py, make.bind(ctx.py).call0())?;
        refuse_async(&made, "the reader's function")?;
        // A value that is not a generator is one record: calling the function again would never end.
        match made.cast::<PyIterator>() {
            Ok(items) => self.stack.push(Pending::Source { items: items.clone().unbind() }),
            Err(_) => self.flow(ctx, self.first, made),
        }
        Ok(())
    }

    /// Processes pending records, innermost first; returns whether none is left that can be processed now. Records that wait
    /// may be left; if one of them is in the way of others, the answer is `false`.
    fn drain(&mut self, ctx: Ctx<'_, '_>) -> bool {
        loop {
            if ctx.code.is_aborted() {
                self.abort(ctx);
                return true;
            }
            let next = self.stack.last().map_or(0, Pending::op);
            if !self.waiting.is_empty() {
                if self.continue_one(ctx, next) {
                    continue;
                }
                if !self.waiting.takes_at(next) {
                    return false;
                }
            }
            match self.next_pending(ctx) {
                Next::Record(op, record) => self.flow(ctx, op, record),
                Next::Nothing => {}
                Next::End => return true,
            }
        }
    }

    /// The next of the innermost pending records.
    fn next_pending<'py>(&mut self, ctx: Ctx<'_, 'py>) -> Next<'py> {
        let py = ctx.py;
        let next = match self.stack.last_mut() {
            None => return Next::End,
            Some(Pending::Items { items, left, op }) => {
                let op = *op;
                let item = left.checked_sub(1).and_then(|index| {
                    *left = index;
                    items.bind(py).get_item(index).ok()
                });
                item.map(|item| (op, Ok(item)))
            }
            Some(Pending::Keys { items, reducer, op }) => {
                let (op, reducer) = (*op, *reducer);
                items
                    .clone_ref(py)
                    .into_bound(py)
                    .next()
                    .map(|pair| (op, pair.and_then(|pair| self.keyed(ctx, reducer, &pair.cast_into::<PyTuple>()?))))
            }
            Some(Pending::Source { .. }) if self.input_closed => None,
            Some(Pending::Source { items }) => {
                let mut items = items.clone_ref(py).into_bound(py);
                let first = self.first;
                items.next().map(|item| (first, end_if_child(py, item)))
            }
        };
        match next {
            Some((op, Ok(record))) => return Next::Record(op, record),
            // The iterator of a failed source is exhausted; a failed reducer loses its key only.
            Some((_, Err(error))) => self.fail(ctx, error),
            None => self.drop_pending(py),
        }
        Next::Nothing
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
        let row = self.row.clone();
        while let Some((kind, _)) = row.ops.get(op) {
            match self.apply(ctx, op, kind, record) {
                Ok(Some(next)) => {
                    record = next;
                    op += 1;
                }
                Ok(None) => return,
                Err(error) => return self.fail(ctx, error),
            }
        }
        match self.outcome.add(ctx.results, &record) {
            Ok(()) => {}
            Err(Refused::Encoding(error)) => self.fail(ctx, error),
            Err(Refused::Length(text)) => self.add_error(|| text.into_bytes()),
        }
    }

    /// Calls a user's callback that cannot wait; `place` names it in errors.
    fn call<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        op: usize,
        f: &Py<PyAny>,
        args: impl PyCallArgs<'py>,
        place: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        ctx.code.enter_step(self.step(op));
        future::enter(self.waiter, Ability::Cannot);
        let result = self.timed(op, || f.bind(ctx.py).call1(args));
        future::leave();
        let result = end_if_child(ctx.py, result)?;
        refuse_async(&result, place)?;
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
        self.row.ops[op].1
    }

    /// Whether no record for an operator can change the result.
    fn is_op_closed(&self, op: usize) -> bool {
        op < self.closed || self.stages.as_ref().is_some_and(|stages| stages.is_cut(op))
    }

    /// Closes what makes records for an operator: a `limit` there is satisfied.
    fn close_before(&mut self, op: usize) {
        match &mut self.stages {
            Some(stages) if !stages.is_only_destination(&self.row, op) => {
                stages.cut(op);
                self.drop_closed();
            }
            _ => self.close_all_before(op),
        }
    }

    /// Closes all operators before that one, and the input.
    fn close_all_before(&mut self, op: usize) {
        self.closed = self.closed.max(op);
        self.input_closed = true;
        if let Some(stages) = &mut self.stages {
            stages.close_before(self.closed);
        }
        self.drop_closed();
    }

    fn drop_closed(&mut self) {
        // A source stays, to be closed later.
        let stack = std::mem::take(&mut self.stack);
        let is_open = |pending: &Pending| matches!(pending, Pending::Source { .. }) || !self.is_op_closed(pending.op());
        self.stack = stack.into_iter().filter(is_open).collect();
        Python::attach(|py| self.abandon_where(None, py, Run::is_op_closed));
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
