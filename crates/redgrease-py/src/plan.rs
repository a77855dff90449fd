//! A plan for the executor: builder-level steps lowered to a flat list of operators.
//!
//! Each operator works on one record at a time and has its own state (see [`crate::run`]). Steps that
//! combine records of all shards are lowered to a local part, an [`Op::Exchange`] and a merging part, so that a plan can be
//! cut at its exchanges. If all parts run in one place, exchanges and merges of native partial results do nothing.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet, PyString, PyTuple};

use crate::api::gears_error;

/// The source of a plan's records.
#[derive(Debug)]
pub enum Source {
    /// The server reads them.
    Server,
    /// A Python callable makes them.
    Python(Py<PyAny>),
}

/// One operator.
#[derive(Debug)]
pub enum Op {
    /// Replaces a record by `f(record)`.
    Map(Py<PyAny>),
    /// Passes a record on if `f(record)` is true.
    Filter(Py<PyAny>),
    /// Calls `f(record)` and passes the record on.
    Foreach(Py<PyAny>),
    /// Emits the items of the list `f(record)`, last one first unless `in_order`.
    FlatMap { f: Py<PyAny>, in_order: bool },
    /// `acc = f(acc, record)`.
    Accumulate(Py<PyAny>),
    /// `acc = f(acc, record)`, beginning with a copy of a zero.
    Fold { zero: Zero, f: Py<PyAny> },
    /// `acc[key] = f(key, acc[key], record)`.
    AccumulateByKey { extractor: Py<PyAny>, f: Py<PyAny> },
    /// The same, beginning with a copy of a zero.
    FoldByKey { extractor: Py<PyAny>, zero: Zero, f: Py<PyAny> },
    /// The same over records that are `{'key', 'value'}` already.
    MergeByKey { zero: Zero, f: Py<PyAny> },
    /// `f(key, records)` after all records.
    GroupByKey { extractor: Py<PyAny>, f: Py<PyAny> },
    /// Extracts the key and passes the record on.
    Extract(Py<PyAny>),
    /// Records may move to another shard here.
    Exchange,
    /// Merges partial results of native operators; a single partial result is unchanged.
    Merge,
    /// Passes records number `offset` to `offset + length - 1` on.
    Limit { offset: u64, length: u64 },
    /// `str(record)`.
    ToStr,
    /// Number of records.
    Count,
    /// Number of records of each key; no extractor: the record itself is the key.
    CountByKey { extractor: Option<Py<PyAny>> },
    /// Sum and number; no extractor: `float(record)`.
    Sum { extractor: Option<Py<PyAny>> },
    /// Sum divided by number.
    Quotient,
    /// Sorts all records.
    Sort { reverse: Py<PyAny> },
    /// The set of all records.
    Distinct,
    /// The items of sets.
    Union,
}

/// The first value of an accumulator.
#[derive(Debug)]
pub struct Zero(Py<PyAny>);

impl Zero {
    /// A deep copy; the original if a copy cannot be distinguished from it.
    pub fn fresh<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let zero = self.0.bind(py);
        if is_immutable(zero) {
            return Ok(zero.clone());
        }
        if let Ok(list) = zero.cast_exact::<PyList>()
            && list.is_empty()
        {
            return Ok(PyList::empty(py).into_any());
        }
        if let Ok(dict) = zero.cast_exact::<PyDict>()
            && dict.is_empty()
        {
            return Ok(PyDict::new(py).into_any());
        }
        if let Ok(set) = zero.cast_exact::<PySet>()
            && set.is_empty()
        {
            return Ok(PySet::empty(py)?.into_any());
        }
        py.import("copy")?.getattr("deepcopy")?.call1((zero,))
    }
}

/// Whether a value has an exact type without mutable parts.
fn is_immutable(value: &Bound<'_, PyAny>) -> bool {
    use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt};
    value.is_none()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyBytes>()
        || value.is_exact_instance_of::<PyBool>()
}

/// A plan that can be executed.
#[derive(Debug)]
pub struct Plan {
    /// Session that the plan belongs to.
    pub session: u64,
    /// The source of its records.
    pub source: Source,
    /// Operators, each with the index of the builder-level step that it belongs to.
    pub ops: Vec<(Op, u32)>,
    /// Name of each builder-level step.
    pub steps: Vec<String>,
}

impl Plan {
    /// Lowers builder-level steps, each a tuple of its kind and its arguments.
    pub fn lower(session: u64, source: Option<Py<PyAny>>, steps: &Bound<'_, PyList>) -> PyResult<Plan> {
        let mut plan = Plan {
            session,
            source: source.map_or(Source::Server, Source::Python),
            ops: Vec::with_capacity(steps.len()),
            steps: Vec::with_capacity(steps.len()),
        };
        for step in steps.iter() {
            let step = step.cast_into::<PyTuple>()?;
            let kind: String = step.get_item(0)?.extract()?;
            for op in lower(&kind, &step)? {
                plan.ops.push((op, plan.steps.len() as u32));
            }
            plan.steps.push(kind);
        }
        Ok(plan)
    }

    /// Index of the first operator of a step.
    pub fn op_of_step(&self, step: u64) -> usize {
        self.ops.iter().position(|(_, of)| u64::from(*of) >= step).unwrap_or(self.ops.len())
    }
}

fn lower(kind: &str, step: &Bound<'_, PyTuple>) -> PyResult<Vec<Op>> {
    let arg = |index: usize| step.get_item(index + 1).map(Bound::unbind);
    let zero = |index: usize| arg(index).map(Zero);
    let optional = |index: usize| -> PyResult<Option<Py<PyAny>>> {
        Ok(Some(step.get_item(index + 1)?).filter(|value| !value.is_none()).map(Bound::unbind))
    };
    Ok(match kind {
        "map" => vec![Op::Map(arg(0)?)],
        "filter" => vec![Op::Filter(arg(0)?)],
        "foreach" => vec![Op::Foreach(arg(0)?)],
        "flatmap" => {
            let in_order = step.len() > 2 && step.get_item(2)?.is_truthy()?;
            vec![Op::FlatMap { f: arg(0)?, in_order }]
        }
        "accumulate" => vec![Op::Accumulate(arg(0)?)],
        "localgroupby" => vec![Op::AccumulateByKey { extractor: arg(0)?, f: arg(1)? }],
        "groupby" => vec![Op::Exchange, Op::AccumulateByKey { extractor: arg(0)?, f: arg(1)? }],
        "batchgroupby" => vec![Op::Exchange, Op::GroupByKey { extractor: arg(0)?, f: arg(1)? }],
        "repartition" => vec![Op::Extract(arg(0)?), Op::Exchange],
        "collect" => vec![Op::Exchange],
        "limit" => vec![Op::Limit {
            length: step.get_item(1)?.extract::<i64>()?.max(0) as u64,
            offset: step.get_item(2)?.extract::<i64>()?.max(0) as u64,
        }],
        "aggregate" => {
            vec![Op::Fold { zero: zero(0)?, f: arg(1)? }, Op::Exchange, Op::Fold { zero: zero(0)?, f: arg(2)? }]
        }
        "aggregateby" => vec![
            Op::FoldByKey { extractor: arg(0)?, zero: zero(1)?, f: arg(2)? },
            Op::Exchange,
            Op::MergeByKey { zero: zero(1)?, f: arg(3)? },
        ],
        "localaggregateby" => vec![Op::FoldByKey { extractor: arg(0)?, zero: zero(1)?, f: arg(2)? }],
        "count" => vec![Op::Count, Op::Exchange, Op::Merge],
        "countby" => vec![Op::CountByKey { extractor: optional(0)? }, Op::Exchange, Op::Merge],
        "avg" => vec![Op::Sum { extractor: optional(0)? }, Op::Exchange, Op::Quotient],
        "sort" => vec![Op::Exchange, Op::Sort { reverse: arg(0)? }],
        "distinct" => vec![Op::Distinct, Op::Exchange, Op::Union],
        "tostr" => vec![Op::ToStr],
        other => return Err(PyValueError::new_err(format!("unknown step '{other}'"))),
    })
}

/// The error for a plan that this worker does not have.
pub fn unknown_plan(py: Python<'_>, number: u64) -> PyErr {
    gears_error(py, format!("plan {number} is unknown in this worker: its session has ended"))
}
