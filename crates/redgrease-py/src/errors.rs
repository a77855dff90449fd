//! The exceptions of the gears interface. The Python package gives them their documented names.

use pyo3::exceptions::{PyBaseException, PyException};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

static GEARS_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static FLAT_ERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static FORCE_STOPPED: PyOnceLock<Py<PyType>> = PyOnceLock::new();

fn class<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyType>>,
    name: &'static std::ffi::CStr,
    doc: &'static std::ffi::CStr,
    base: &Bound<'py, PyType>,
) -> PyResult<Bound<'py, PyType>> {
    let made = cell.get_or_try_init(py, || PyErr::new_type(py, name, Some(doc), Some(base), None))?;
    Ok(made.bind(py).clone())
}

fn gears_error_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let doc = c"A command failed, or the gears interface was misused.";
    class(py, &GEARS_ERROR, c"gears.error", doc, &py.get_type::<PyException>())
}

fn flat_error_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let doc = c"An error whose text reaches the client as it is.";
    class(py, &FLAT_ERROR, c"gears.flat_error", doc, &py.get_type::<PyException>())
}

/// The class of the exception that ends an aborted execution.
pub fn force_stopped_class(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    // Not an `Exception`: code that catches every exception should still be interrupted.
    let doc = c"The execution is being aborted.";
    class(py, &FORCE_STOPPED, c"gears.forcestopped", doc, &py.get_type::<PyBaseException>())
}

/// The exception `gears.error` with a text.
pub fn gears_error(py: Python<'_>, text: impl Into<String>) -> PyErr {
    gears_error_class(py).map_or_else(|error| error, |class| PyErr::from_type(class, (text.into(),)))
}

/// The exception `gears.flat_error` with the message of a user.
pub fn flat_error(py: Python<'_>, message: Py<PyAny>) -> PyErr {
    flat_error_class(py).map_or_else(|error| error, |class| PyErr::from_type(class, (message,)))
}

/// The exception of a call whose execution is being aborted.
pub fn force_stopped(py: Python<'_>) -> PyErr {
    force_stopped_class(py).map_or_else(|error| error, |class| PyErr::from_type(class, ("Execution was aborted",)))
}

/// Adds the classes to the module.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("GearsError", gears_error_class(py)?)?;
    module.add("GearsFlatError", flat_error_class(py)?)?;
    module.add("GearsForceStopped", force_stopped_class(py)?)
}
