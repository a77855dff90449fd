//! The names and ranges that users give, as constants of the module: the core lists them.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use redgrease_core::codec::KeyType;
use redgrease_core::plan::{FailurePolicy, Mode, NUMBER_RANGES, ReaderKind, StepKind};

/// Adds them to the module.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let readers = || ReaderKind::ALL.into_iter();
    module.add("STEPS", PyTuple::new(py, StepKind::ALL.map(StepKind::name))?)?;
    module.add("READERS", PyTuple::new(py, ReaderKind::ALL.map(ReaderKind::name))?)?;
    module.add("RUN_READERS", tuple(py, readers().filter(|kind| kind.can_run()).map(ReaderKind::name))?)?;
    module.add("REGISTER_READERS", tuple(py, readers().filter(|kind| kind.can_register()).map(ReaderKind::name))?)?;
    module.add("MODES", PyTuple::new(py, Mode::ALL.map(Mode::name))?)?;
    module.add("RUN_MODES", tuple(py, Mode::ALL.into_iter().filter(|mode| mode.can_run()).map(Mode::name))?)?;
    module.add("FAILURE_POLICIES", PyTuple::new(py, FailurePolicy::ALL.map(FailurePolicy::name))?)?;
    module.add("KEY_TYPES", tuple(py, KeyType::FILTERABLE.into_iter().map(KeyType::name))?)?;
    let ranges = NUMBER_RANGES.map(|range| (range.name, (range.min, range.max, range.unit)));
    module.add("NUMBER_RANGES", BTreeMap::from(ranges))
}

fn tuple<'py>(py: Python<'py>, names: impl Iterator<Item = &'static str>) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, names.collect::<Vec<_>>())
}
