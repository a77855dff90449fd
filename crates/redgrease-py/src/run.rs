//! One execution: records are pushed through the plan's operators, depth first, one at a time.
//!
//! [`Run`] is the whole state between two records. It holds no thread and no borrowed object, so it can be suspended between
//! batches of input. Pending work (items of a list, keys of a group) is on an explicit stack, not on the call stack, so
//! that it can also be suspended between two steps of a record.
//!
//! Rules: the first error record closes the input, and records already inside continue; aggregations emit at the end, and
//! nothing for empty input; a satisfied `limit` closes everything before it.

use std::sync::Arc;
use std::time::Instant;

use pyo3::call::PyCallArgs;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyIterator, PyList, PySet, PyString, PyTuple, PyType};
use redgrease_core::codec::{Reader, Token, Writer};
use redgrease_core::error_text::cut_error;
use redgrease_core::frame::{FromWorker, Records, StartFlags};
use redgrease_core::id::ExecutionNo;

use crate::child::end_if_child;
use crate::codec::{Decoder, Foreign, encode};
use crate::connection::Connection;
use crate::errors::gears_error;
use crate::hooks::Hooks;
use crate::plan::{Op, Plan, Source, fresh};
use crate::running_code::RunningCode;

/// Size at which results are sent, in bytes.
const OUTPUT_BYTES: usize = 64 << 10;
/// Maximum number of error texts of one execution; the last one counts the omitted ones.
const ERRORS_MAX: usize = 1000;

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
    exec: ExecutionNo,
    plan: Arc<Plan>,
    flags: StartFlags,
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
    results: Writer,
    count: u64,
    errors: Vec<Vec<u8>>,
    errors_left_out: u64,
    step_nanos: Vec<u64>,
}

impl Run {
    /// The state before the first record; `first_step` is the first step that the server has not executed itself.
    pub fn new(exec: ExecutionNo, plan: Arc<Plan>, flags: StartFlags, first_step: u64) -> Run {
        let first = plan.op_of_step(first_step);
        let slots = plan.ops.iter().map(|_| Slot::Empty).collect();
        let steps = if flags.has(StartFlags::PROFILE) { plan.steps.len() } else { 0 };
        let mut run = Run {
            exec,
            plan,
            flags,
            first,
            slots,
            stack: Vec::new(),
            closed: 0,
            ended: first,
            input_closed: false,
            aborted: false,
            results: Writer::new(),
            count: 0,
            errors: Vec::new(),
            errors_left_out: 0,
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
                let text = text.to_vec();
                // Skipping data that was just validated cannot fail.
                let _ = reader.skip();
                self.error_text(ctx, text);
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
        if self.errors_left_out > 0 {
            self.errors.push(format!("{} more errors were left out", self.errors_left_out).into_bytes());
        }
        send(&FromWorker::Done {
            exec: self.exec,
            aborted: false,
            records: Records { count: self.count, bytes: self.results.as_bytes() },
            errors: self.errors.iter().map(Vec::as_slice).collect(),
            step_micros: self.step_nanos.iter().map(|nanos| nanos / 1000).collect(),
        });
    }

    /// Ends the execution at once, with an error.
    pub fn abort(&mut self, ctx: Ctx<'_, '_>) {
        ctx.code.disarm(ctx.py);
        self.input_closed = true;
        self.aborted = true;
        self.stack.clear();
        if self.errors.is_empty() {
            self.errors.push(b"Execution was aborted".to_vec());
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

    /// The final record of one key.
    fn keyed<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        reducer: Option<usize>,
        pair: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = ctx.py;
        let (key, mut value) = (pair.get_item(0)?, pair.get_item(1)?);
        if let Some(op) = reducer {
            let plan = self.plan.clone();
            let Op::GroupByKey { f, .. } = &plan.ops[op].0 else { unreachable!("only groups have reducers") };
            value = self.call(ctx, op, f, (&key, value))?;
        }
        let record = PyDict::new(py);
        record.set_item(intern!(py, "key"), key)?;
        record.set_item(intern!(py, "value"), value)?;
        Ok(record.into_any())
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
        self.emit(ctx, &record);
    }

    /// Runs one operator on one record; `None` if no record continues.
    fn apply<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        op: usize,
        kind: &Op,
        record: Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = ctx.py;
        match kind {
            Op::Merge => Ok(Some(record)),
            Op::Map(f) => self.call(ctx, op, f, (record,)).map(Some),
            Op::Filter(f) => {
                let keep = self.call(ctx, op, f, (&record,))?.is_truthy()?;
                Ok(keep.then_some(record))
            }
            Op::ForEach(f) => {
                self.call(ctx, op, f, (&record,))?;
                Ok(Some(record))
            }
            Op::FlatMap { f, in_order } => {
                let made = self.call(ctx, op, f, (record,))?;
                let Ok(items) = made.cast_exact::<PyList>() else { return Ok(Some(made)) };
                // Items come out last one first: those of a reversed copy in their own order.
                let reversed = if *in_order { Some(reversed_copy(items)?) } else { None };
                let items = reversed.as_ref().unwrap_or(items);
                if self.count_words(ctx, op + 1, items)? {
                    return Ok(None);
                }
                self.wait(items, op + 1);
                Ok(None)
            }
            Op::Accumulate(f) => {
                let acc = match std::mem::take(&mut self.slots[op]) {
                    Slot::Object(acc) => acc.into_bound(py),
                    _ => py.None().into_bound(py),
                };
                self.slots[op] = Slot::Object(self.call(ctx, op, f, (acc, record))?.unbind());
                Ok(None)
            }
            Op::Fold { zero, f } => {
                let acc = match std::mem::take(&mut self.slots[op]) {
                    Slot::Object(acc) => acc.into_bound(py),
                    _ => fresh(zero.bind(py))?,
                };
                self.slots[op] = Slot::Object(self.call(ctx, op, f, (acc, record))?.unbind());
                Ok(None)
            }
            Op::AccumulateByKey { extractor, f } => {
                let key = self.key(ctx, op, extractor, &record)?;
                self.accumulate_key(ctx, op, None, f, key, record)
            }
            Op::FoldByKey { extractor, zero, f } => {
                let key = self.key(ctx, op, extractor, &record)?;
                self.accumulate_key(ctx, op, Some(zero), f, key, record)
            }
            Op::MergeByKey { zero, f } => {
                let pair = record.cast_into::<PyDict>()?;
                let (Some(key), Some(value)) =
                    (pair.get_item(intern!(py, "key"))?, pair.get_item(intern!(py, "value"))?)
                else {
                    return Err(PyTypeError::new_err("a record without key and value"));
                };
                self.accumulate_key(ctx, op, Some(zero), f, key.cast_into::<PyString>()?, value)
            }
            Op::GroupByKey { extractor, .. } => {
                let key = self.key(ctx, op, extractor, &record)?;
                let keys = self.keys(py, op);
                match keys.get_item(&key)? {
                    Some(records) => records.cast_into::<PyList>()?.append(record)?,
                    None => keys.set_item(key, PyList::new(py, [record])?)?,
                }
                Ok(None)
            }
            Op::Extract(extractor) => {
                self.key(ctx, op, extractor, &record)?;
                Ok(Some(record))
            }
            Op::Limit { offset, length } => {
                let seen = self.count_one(op);
                if seen >= offset.saturating_add(*length) {
                    self.close_before(op + 1);
                }
                Ok((seen > *offset).then_some(record))
            }
            Op::ToStr => {
                if record.is_exact_instance_of::<PyString>() {
                    return Ok(Some(record));
                }
                ctx.code.enter_step(self.step(op));
                Ok(Some(record.str()?.into_any()))
            }
            Op::Count => {
                self.count_one(op);
                Ok(None)
            }
            Op::CountByKey { extractor } => {
                let key = match extractor {
                    None => key_text(record)?,
                    Some(extractor) => self.key(ctx, op, extractor, &record)?,
                };
                let keys = self.keys(py, op);
                let count = match keys.get_item(&key)? {
                    Some(count) => count.extract::<u64>()?,
                    None => 0,
                };
                keys.set_item(key, count + 1)?;
                Ok(None)
            }
            Op::Sum { extractor } => {
                let (sum, count) = match std::mem::take(&mut self.slots[op]) {
                    Slot::Sum(sum, count) => (sum.into_bound(py), count),
                    _ => (PyInt::new(py, 0).into_any(), 0),
                };
                let value = match extractor {
                    None => py.get_type::<PyFloat>().call1((record,))?,
                    Some(extractor) => self.call(ctx, op, extractor, (record,))?,
                };
                self.slots[op] = Slot::Sum(sum.add(value)?.unbind(), count + 1);
                Ok(None)
            }
            Op::Quotient => {
                let pair = record.cast_into::<PyTuple>()?;
                pair.get_item(0)?.div(pair.get_item(1)?).map(Some)
            }
            Op::Sort { .. } => {
                match &self.slots[op] {
                    Slot::Records(records) => records.bind(py).append(record)?,
                    _ => self.slots[op] = Slot::Records(PyList::new(py, [record])?.unbind()),
                }
                Ok(None)
            }
            Op::Distinct => {
                let set = match std::mem::take(&mut self.slots[op]) {
                    Slot::Object(set) => set.into_bound(py).cast_into::<PySet>()?,
                    _ => PySet::empty(py)?,
                };
                set.add(record)?;
                self.slots[op] = Slot::Object(set.into_any().unbind());
                Ok(None)
            }
            Op::Union => {
                let set = record.cast_into::<PySet>()?;
                match &self.slots[op] {
                    Slot::Object(all) => {
                        all.bind(py).call_method1(intern!(py, "update"), (set,))?;
                    }
                    _ => self.slots[op] = Slot::Object(set.into_any().unbind()),
                }
                Ok(None)
            }
        }
    }

    /// Emits the accumulated state of an operator.
    fn end(&mut self, ctx: Ctx<'_, '_>, op: usize) -> PyResult<()> {
        let py = ctx.py;
        let slot = std::mem::take(&mut self.slots[op]);
        let plan = self.plan.clone();
        match (&plan.ops[op].0, slot) {
            (Op::Limit { .. }, _) | (_, Slot::Empty) => {}
            (Op::Union, Slot::Object(set)) => {
                let items = PyList::new(py, set.bind(py).cast::<PySet>()?.iter().collect::<Vec<_>>())?;
                self.wait(&items, op + 1);
            }
            (Op::Sort { reverse }, Slot::Records(records)) => {
                let records = records.into_bound(py);
                ctx.code.enter_step(self.step(op));
                let options = PyDict::new(py);
                options.set_item(intern!(py, "reverse"), reverse)?;
                self.timed(op, || records.call_method(intern!(py, "sort"), (), Some(&options)))?;
                self.wait(&records, op + 1);
            }
            (kind, Slot::Keys(keys)) => {
                let items = keys.bind(py).call_method0(intern!(py, "items"))?.try_iter()?.unbind();
                let reducer = matches!(kind, Op::GroupByKey { .. }).then_some(op);
                self.stack.push(Pending::Keys { items, reducer, op: op + 1 });
            }
            (_, Slot::Object(object)) => self.flow(ctx, op + 1, object.into_bound(py)),
            (_, Slot::Count(count)) => self.flow(ctx, op + 1, count.into_pyobject(py)?.into_any()),
            (_, Slot::Sum(sum, count)) => {
                let pair = (sum, count).into_pyobject(py)?;
                self.flow(ctx, op + 1, pair.into_any());
            }
            (_, Slot::Records(records)) => self.wait(records.bind(py), op + 1),
        }
        Ok(())
    }

    fn count_one(&mut self, op: usize) -> u64 {
        let seen = if let Slot::Count(seen) = self.slots[op] { seen + 1 } else { 1 };
        self.slots[op] = Slot::Count(seen);
        seen
    }

    fn wait(&mut self, items: &Bound<'_, PyList>, op: usize) {
        let left = items.len();
        if left > 0 {
            self.stack.push(Pending::Items { items: items.clone().unbind(), left, op });
        }
    }

    /// Counts a list of items at once if the next operator counts records without an extractor: one pass in C.
    fn count_words(&mut self, ctx: Ctx<'_, '_>, op: usize, words: &Bound<'_, PyList>) -> PyResult<bool> {
        static COUNT_ELEMENTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let Some((Op::CountByKey { extractor: None }, _)) = self.plan.ops.get(op) else { return Ok(false) };
        if !words.iter().all(|word| word.is_exact_instance_of::<PyString>()) {
            return Ok(false);
        }
        let py = ctx.py;
        let count_elements = COUNT_ELEMENTS
            .get_or_try_init(py, || py.import("_collections")?.getattr("_count_elements").map(Bound::unbind))?;
        let keys = self.keys(py, op);
        // Last one first, as if they had come one by one: keys keep the order of their first appearance.
        count_elements.bind(py).call1((keys, words.call_method0(intern!(py, "__reversed__"))?))?;
        Ok(true)
    }

    fn accumulate_key<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        op: usize,
        zero: Option<&Py<PyAny>>,
        f: &Py<PyAny>,
        key: Bound<'py, PyString>,
        record: Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = ctx.py;
        let keys = self.keys(py, op);
        let known = keys.get_item(&key)?;
        let was_known = known.is_some();
        let result = (|| {
            let acc = match (known, zero) {
                (Some(acc), _) => acc,
                (None, None) => py.None().into_bound(py),
                (None, Some(zero)) => fresh(zero.bind(py))?,
            };
            self.call(ctx, op, f, (&key, acc, record))
        })();
        match result {
            Ok(acc) => keys.set_item(key, acc)?,
            Err(error) => {
                if was_known {
                    keys.del_item(key)?;
                }
                return Err(error);
            }
        }
        Ok(None)
    }

    fn keys<'py>(&mut self, py: Python<'py>, op: usize) -> Bound<'py, PyDict> {
        match &self.slots[op] {
            Slot::Keys(keys) => keys.bind(py).clone(),
            _ => {
                let keys = PyDict::new(py);
                self.slots[op] = Slot::Keys(keys.clone().unbind());
                keys
            }
        }
    }

    fn key<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        op: usize,
        extractor: &Py<PyAny>,
        record: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyString>> {
        key_text(self.call(ctx, op, extractor, (record,))?)
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

    fn emit(&mut self, ctx: Ctx<'_, '_>, record: &Bound<'_, PyAny>) {
        let foreign = if self.flags.has(StartFlags::TAGGED) { Foreign::Pickle } else { Foreign::Opaque };
        let start = self.results.len();
        if let Err(error) = encode(&mut self.results, record, foreign) {
            return self.fail(ctx, error);
        }
        let (bytes, limit) = (self.results.len() - start, ctx.connection.record_bytes_max());
        if bytes > limit {
            self.results.truncate(start);
            let text =
                format!("a result of {bytes} bytes is longer than MaxRecordBytes ({limit}): return less, or raise it");
            return self.error_text(ctx, text.into_bytes());
        }
        self.count += 1;
        if self.results.len() >= OUTPUT_BYTES {
            let records = Records { count: self.count, bytes: self.results.as_bytes() };
            ctx.connection.append(&FromWorker::Output { exec: self.exec, records });
            self.results.truncate(0);
            self.count = 0;
            ctx.py.detach(|| ctx.connection.flush());
        }
    }

    /// Records an error: the record leaves the plan here, and the reader stops.
    fn fail(&mut self, ctx: Ctx<'_, '_>, error: PyErr) {
        let aborted = ctx.code.is_aborted();
        if aborted {
            ctx.code.disarm(ctx.py);
        }
        if self.errors.len() < ERRORS_MAX {
            let text = ctx.hooks.describe(ctx.py, error, self.flags.has(StartFlags::TRACEBACK));
            self.error_text(ctx, text);
        } else {
            self.errors_left_out += 1;
        }
        if aborted {
            self.abort(ctx);
        }
    }

    fn error_text(&mut self, _ctx: Ctx<'_, '_>, text: Vec<u8>) {
        self.input_closed = true;
        if self.errors.len() >= ERRORS_MAX {
            self.errors_left_out += 1;
            return;
        }
        self.errors.push(cut_error(&text).into_owned());
    }
}

fn reversed_copy<'py>(items: &Bound<'py, PyList>) -> PyResult<Bound<'py, PyList>> {
    let copy = items.get_slice(0, items.len());
    copy.reverse()?;
    Ok(copy)
}

/// The text of a key: text unchanged, everything else by its `repr`.
fn key_text(key: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyString>> {
    match key.cast_into::<PyString>() {
        Ok(text) => Ok(text),
        Err(error) => error.into_inner().repr(),
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
