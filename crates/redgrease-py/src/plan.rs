//! A plan as the executor sees it: rows of operators with the callbacks attached.
//!
//! The core lowers the steps ([`redgrease_core::plan::lower`]) and names each callback by its position among those of its
//! step. Each operator works on one record at a time and keeps its own slot of state (see [`crate::run`]). There are two rows:
//! one for where all parts of the plan run in one place, and one for a shard of several, in which moves of records to other
//! shards are operators, too.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PySet, PyString, PyTuple};
use redgrease_core::plan::{self, Arg, PlanSpec, StepOp};

use crate::errors::gears_error;

/// One operator with its callbacks.
pub type Op = plan::Op<Py<PyAny>>;

/// Where the records of a plan come from.
#[derive(Debug)]
pub enum Source {
    /// The server reads them.
    Server,
    /// A Python callable makes them.
    Python(Py<PyAny>),
}

/// A deep copy of the first value of an accumulator; where nobody could tell it from the original, the original.
pub fn fresh<'py>(zero: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = zero.py();
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

/// Whether a value is of an exact type without parts that could change.
fn is_immutable(value: &Bound<'_, PyAny>) -> bool {
    use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt};
    value.is_none()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyBytes>()
        || value.is_exact_instance_of::<PyBool>()
}

/// Whether a callable is a plain function that does nothing but return its only argument, such as `lambda x: x`. Its code is
/// compared with that of one which this interpreter compiled.
fn is_identity(f: &Bound<'_, PyAny>) -> PyResult<bool> {
    /// `CO_NESTED`: defined inside of another function.
    const NESTED: u64 = 0x10;
    static IDENTITY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = f.py();
    let identity = IDENTITY.get_or_try_init(py, || py.eval(c"lambda x: x", None, None).map(Bound::unbind))?.bind(py);
    if !f.get_type().is(identity.get_type()) {
        return Ok(false);
    }
    let facts = |f: &Bound<'_, PyAny>| -> PyResult<(Vec<u8>, usize, usize, u64)> {
        let code = f.getattr(intern!(py, "__code__"))?;
        Ok((
            code.getattr(intern!(py, "co_code"))?.extract()?,
            code.getattr(intern!(py, "co_argcount"))?.extract()?,
            code.getattr(intern!(py, "co_kwonlyargcount"))?.extract()?,
            code.getattr(intern!(py, "co_flags"))?.extract::<u64>()? & !NESTED,
        ))
    };
    Ok(facts(f)? == facts(identity)?)
}

/// Operators, each with the index of the builder-level step that it belongs to.
#[derive(Debug)]
pub struct Row {
    /// The operators, first to last.
    pub ops: Vec<(Op, u32)>,
    /// Positions of those that move records. Stage `n` of an execution is what follows the `n`-th of them, up to the next
    /// one, which belongs to it.
    pub moves: Vec<usize>,
}

impl Row {
    fn new(ops: Vec<(Op, u32)>) -> Row {
        let moves = ops.iter().enumerate().filter(|(_, (op, _))| matches!(op, Op::Move(_))).map(|(at, _)| at).collect();
        Row { ops, moves }
    }

    /// Index of the first operator of a step.
    pub fn op_of_step(&self, step: u64) -> usize {
        self.ops.iter().position(|(_, of)| u64::from(*of) >= step).unwrap_or(self.ops.len())
    }

    /// The stage of an operator.
    pub fn stage_of(&self, op: usize) -> usize {
        self.moves.partition_point(|at| *at < op)
    }

    /// The first operator of a stage.
    pub fn entry_of(&self, stage: usize) -> usize {
        stage.checked_sub(1).map_or(0, |before| self.moves[before] + 1)
    }
}

/// What can be executed under a number.
#[derive(Debug)]
pub struct Plan {
    /// Session that the plan belongs to.
    pub session: u64,
    /// Where its records come from.
    pub source: Source,
    /// Its operators where no record moves.
    pub row: Arc<Row>,
    /// Its operators on a shard of several.
    pub row_with_moves: Arc<Row>,
    /// Name of each builder-level step.
    pub steps: Vec<&'static str>,
}

impl Plan {
    /// Lowers a plan and attaches the callbacks of its steps.
    pub fn new(
        py: Python<'_>,
        session: u64,
        source: Option<Py<PyAny>>,
        spec: &PlanSpec,
        callbacks: &[Bound<'_, PyTuple>],
    ) -> PyResult<Plan> {
        let attach = |StepOp { op, step }| {
            let of_step = callbacks.get(step as usize);
            let callback = |Arg(position)| {
                let missing = || PyValueError::new_err(format!("step {step} of the plan has no callback {position}"));
                of_step.and_then(|of_step| of_step.get_item(position).ok()).map(Bound::unbind).ok_or_else(missing)
            };
            let op = match op.try_map(callback)? {
                Op::CountByKey { extractor: Some(f) } if is_identity(f.bind(py))? => Op::CountByKey { extractor: None },
                op => op,
            };
            Ok((op, step))
        };
        let lowered = spec.lower();
        let row = Row::new(lowered.ops().map(attach).collect::<PyResult<_>>()?);
        let row_with_moves = Row::new(lowered.ops_and_exchanges().map(attach).collect::<PyResult<_>>()?);
        Ok(Plan {
            session,
            source: source.map_or(Source::Server, Source::Python),
            row: Arc::new(row),
            row_with_moves: Arc::new(row_with_moves),
            steps: spec.steps.iter().map(|step| step.kind.name()).collect(),
        })
    }
}

/// The error for a plan that this worker does not have.
pub fn unknown_plan(py: Python<'_>, number: u64) -> PyErr {
    gears_error(py, format!("plan {number} is unknown in this worker: its session has ended"))
}
