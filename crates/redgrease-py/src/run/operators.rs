//! What each operator does to a record, and what it emits at the end.

use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyInt, PyList, PySet, PyString, PyTuple};

use redgrease_core::plan::Partial;

use crate::future::Ticket;
use crate::plan::{Op, fresh};

use super::async_steps::Called;
use super::waiting::{After, reversed_copy};
use super::{Ctx, Pending, Run, Slot};

impl Run {
    /// Runs one operator on one record; `None` if no record continues.
    #[inline(always)] // It has one caller, and is called for each record and operator: 30 instructions.
    pub(super) fn apply<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        op: usize,
        kind: &Op,
        record: Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = ctx.py;
        match kind {
            // One partial result is the whole.
            Op::Merge(_) if self.stages.is_none() => Ok(Some(record)),
            Op::Merge(partial) => self.merge(py, op, *partial, record),
            Op::Map(f) => match self.call_step(ctx, op, f, (record,), true)? {
                Called::Value(value) => Ok(self.in_order(op, value)),
                Called::Later(ticket) => self.later(op, ticket, After::Map),
            },
            Op::Filter(f) => match self.call_step(ctx, op, f, (&record,), true)? {
                Called::Value(keep) => Ok(if keep.is_truthy()? { self.in_order(op, record) } else { None }),
                Called::Later(ticket) => self.later(op, ticket, After::Filter(record.unbind())),
            },
            Op::ForEach(f) => match self.call_step(ctx, op, f, (&record,), true)? {
                Called::Value(_) => Ok(self.in_order(op, record)),
                Called::Later(ticket) => self.later(op, ticket, After::ForEach(record.unbind())),
            },
            Op::FlatMap { f, in_order } => {
                let in_order = *in_order;
                let made = match self.call_step(ctx, op, f, (record,), true)? {
                    Called::Value(made) => made,
                    Called::Later(ticket) => return self.later(op, ticket, After::FlatMap { in_order }),
                };
                let Ok(items) = made.cast_exact::<PyList>() else { return Ok(self.in_order(op, made)) };
                // Items come out last one first: those of a reversed copy in their own order.
                let reversed = if in_order { Some(reversed_copy(items)?) } else { None };
                let items = reversed.as_ref().unwrap_or(items);
                if self.waiting.is_empty() && self.count_words(ctx, op + 1, items)? {
                    return Ok(None);
                }
                self.items_in_order(op, items);
                Ok(None)
            }
            Op::Accumulate(f) => {
                let acc = match std::mem::take(&mut self.slots[op]) {
                    Slot::Object(acc) => acc.into_bound(py),
                    _ => py.None().into_bound(py),
                };
                self.accumulate(ctx, op, f, acc, record)
            }
            Op::Fold { zero, f } => {
                let acc = match std::mem::take(&mut self.slots[op]) {
                    Slot::Object(acc) => acc.into_bound(py),
                    _ => fresh(zero.bind(py))?,
                };
                self.accumulate(ctx, op, f, acc, record)
            }
            Op::AccumulateByKey { extractor, f } => {
                let key = self.moved_key(ctx, op, extractor, &record)?;
                self.accumulate_key(ctx, op, None, f, key, record)
            }
            Op::FoldByKey { extractor, zero, f } => {
                let key = self.key(ctx, op, extractor, &record)?;
                self.accumulate_key(ctx, op, Some(zero), f, key, record)
            }
            Op::MergeByKey { zero, f } => {
                let (key, value) = key_and_value(record)?;
                self.accumulate_key(ctx, op, Some(zero), f, key, value)
            }
            Op::GroupByKey { extractor, .. } => {
                let key = self.moved_key(ctx, op, extractor, &record)?;
                let keys = self.keys(py, op);
                match keys.get_item(&key)? {
                    Some(records) => records.cast_into::<PyList>()?.append(record)?,
                    None => keys.set_item(key, PyList::new(py, [record])?)?,
                }
                Ok(None)
            }
            Op::Extract(extractor) => {
                let key = self.key(ctx, op, extractor, &record)?;
                if self.stages.is_some() {
                    self.key = Some(key.unbind());
                }
                Ok(Some(record))
            }
            Op::Move(exchange) => self.move_record(ctx, op, exchange, record),
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
                    Some(extractor) => self.call(ctx, op, extractor, (record,), "extractor")?,
                };
                self.slots[op] = Slot::Sum(sum.add(value)?.unbind(), count + 1);
                Ok(None)
            }
            Op::Quotient => {
                let pair = record.cast_into::<PyTuple>()?;
                let (sum, count) = (pair.get_item(0)?, pair.get_item(1)?.extract::<u64>()?);
                self.slots[op] = match std::mem::take(&mut self.slots[op]) {
                    Slot::Sum(all, number) => Slot::Sum(all.bind(py).add(sum)?.unbind(), number.saturating_add(count)),
                    _ => Slot::Sum(sum.unbind(), count),
                };
                Ok(None)
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

    fn merge<'py>(
        &mut self,
        py: Python<'py>,
        op: usize,
        partial: Partial,
        record: Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match partial {
            Partial::Count => {
                let sum = match std::mem::take(&mut self.slots[op]) {
                    Slot::Object(sum) => sum.bind(py).add(record)?,
                    _ => record,
                };
                self.slots[op] = Slot::Object(sum.unbind());
            }
            Partial::CountByKey => {
                let (key, count) = key_and_value(record)?;
                let keys = self.keys(py, op);
                let sum = match keys.get_item(&key)? {
                    Some(sum) => sum.add(count)?,
                    None => count,
                };
                keys.set_item(key, sum)?;
            }
        }
        Ok(None)
    }

    /// Emits the accumulated state of an operator.
    pub(super) fn end(&mut self, ctx: Ctx<'_, '_>, op: usize) -> PyResult<()> {
        let py = ctx.py;
        let slot = std::mem::take(&mut self.slots[op]);
        let row = self.row.clone();
        match (&row.ops[op].0, slot) {
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
            (Op::Quotient, Slot::Sum(sum, count)) => {
                let quotient = sum.bind(py).div(count)?;
                self.flow(ctx, op + 1, quotient);
            }
            (_, Slot::Sum(sum, count)) => {
                let pair = (sum, count).into_pyobject(py)?;
                self.flow(ctx, op + 1, pair.into_any());
            }
            (_, Slot::Records(records)) => self.wait(records.bind(py), op + 1),
        }
        Ok(())
    }

    /// The final record of one key.
    pub(super) fn keyed<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        reducer: Option<usize>,
        pair: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = ctx.py;
        let (key, mut value) = (pair.get_item(0)?, pair.get_item(1)?);
        if let Some(op) = reducer {
            let row = self.row.clone();
            let Op::GroupByKey { f, .. } = &row.ops[op].0 else { unreachable!("only groups have reducers") };
            value = self.call(ctx, op, f, (&key, value), "reduce")?;
        }
        let record = PyDict::new(py);
        record.set_item(intern!(py, "key"), key)?;
        record.set_item(intern!(py, "value"), value)?;
        Ok(record.into_any())
    }

    pub(super) fn count_one(&mut self, op: usize) -> u64 {
        let seen = if let Slot::Count(seen) = self.slots[op] { seen + 1 } else { 1 };
        self.slots[op] = Slot::Count(seen);
        seen
    }

    fn later<'py>(&mut self, op: usize, ticket: Arc<Ticket>, after: After) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.park(op, ticket, after);
        Ok(None)
    }

    fn accumulate<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        op: usize,
        f: &Py<PyAny>,
        acc: Bound<'py, PyAny>,
        record: Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.call_step(ctx, op, f, (acc, record), false)? {
            Called::Value(acc) => {
                self.slots[op] = Slot::Object(acc.unbind());
                Ok(None)
            }
            Called::Later(ticket) => self.later(op, ticket, After::Accumulate),
        }
    }

    pub(super) fn wait(&mut self, items: &Bound<'_, PyList>, op: usize) {
        let left = items.len();
        if left > 0 {
            self.stack.push(Pending::Items { items: items.clone().unbind(), left, op });
        }
    }

    /// Counts a list of items at once if the next operator counts records without an extractor: one pass in C.
    fn count_words(&mut self, ctx: Ctx<'_, '_>, op: usize, words: &Bound<'_, PyList>) -> PyResult<bool> {
        static COUNT_ELEMENTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let Some((Op::CountByKey { extractor: None }, _)) = self.row.ops.get(op) else { return Ok(false) };
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
            self.call_step(ctx, op, f, (&key, acc, record), false)
        })();
        match result {
            Ok(Called::Value(acc)) => keys.set_item(key, acc)?,
            Ok(Called::Later(ticket)) => return self.later(op, ticket, After::AccumulateKey(key.unbind())),
            Err(error) => {
                if was_known {
                    keys.del_item(key)?;
                }
                return Err(error);
            }
        }
        Ok(None)
    }

    pub(super) fn keys<'py>(&mut self, py: Python<'py>, op: usize) -> Bound<'py, PyDict> {
        match &self.slots[op] {
            Slot::Keys(keys) => keys.bind(py).clone(),
            _ => {
                let keys = PyDict::new(py);
                self.slots[op] = Slot::Keys(keys.clone().unbind());
                keys
            }
        }
    }

    /// The key that the record has brought along; else it is made.
    fn moved_key<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        op: usize,
        extractor: &Py<PyAny>,
        record: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyString>> {
        match self.key.take() {
            Some(key) => Ok(key.into_bound(ctx.py)),
            None => self.key(ctx, op, extractor, record),
        }
    }

    pub(super) fn key<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        op: usize,
        extractor: &Py<PyAny>,
        record: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyString>> {
        key_text(self.call(ctx, op, extractor, (record,), "extractor")?)
    }
}

/// Key and value of a record that an operator has made.
fn key_and_value(record: Bound<'_, PyAny>) -> PyResult<(Bound<'_, PyString>, Bound<'_, PyAny>)> {
    let py = record.py();
    let pair = record.cast_into::<PyDict>()?;
    match (pair.get_item(intern!(py, "key"))?, pair.get_item(intern!(py, "value"))?) {
        (Some(key), Some(value)) => Ok((key.cast_into::<PyString>()?, value)),
        _ => Err(PyTypeError::new_err("a record without key and value")),
    }
}

/// The text of a key: text unchanged, everything else by its `repr`.
fn key_text(key: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyString>> {
    match key.cast_into::<PyString>() {
        Ok(text) => Ok(text),
        Err(error) => error.into_inner().repr(),
    }
}
