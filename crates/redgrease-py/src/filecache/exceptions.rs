//! Errors of the cache as Python's exceptions; their classes are those of `redgrease.filecache.errors`.

use std::borrow::Cow;
use std::ffi::CString;
use std::io;

use pyo3::exceptions::{PyRuntimeWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;
use redgrease_filecache::{Code, Error};

/// `redgrease.filecache.errors._of`.
static EXCEPTION_OF: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The exception for a code.
pub(super) fn exception(
    py: Python<'_>,
    code: &str,
    message: &str,
    operation: &str,
    key: Option<&[u8]>,
    errno: Option<i32>,
) -> PyErr {
    let made = EXCEPTION_OF
        .get_or_try_init(py, || -> PyResult<_> {
            Ok(py.import("redgrease.filecache.errors")?.getattr("_of")?.unbind())
        })
        .and_then(|of| of.bind(py).call1((code, message, operation, key.map(|key| PyBytes::new(py, key)), errno)));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// Python's names of methods with another name in the crate.
pub(super) fn python_name(operation: &str) -> &str {
    match operation {
        "open_read" => "open",
        "open_write" | "open_replace" => "create",
        "begin" => "get_or_create",
        other => other,
    }
}

pub(super) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let operation = python_name(error.operation());
    let text = error.to_string();
    let message =
        text.strip_prefix(error.operation()).map_or(Cow::Borrowed(&*text), |rest| format!("{operation}{rest}").into());
    let errno = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    exception(py, error.code().as_str(), &message, operation, error.key(), errno)
}

/// The error of a read or write.
pub(super) fn raise_io(py: Python<'_>, operation: &str, key: &[u8], error: io::Error) -> PyErr {
    match error.downcast::<Error>() {
        Ok(error) => raise(py, &error),
        Err(error) => {
            let code = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::NoSpace,
                io::ErrorKind::PermissionDenied => Code::Denied,
                _ => Code::Io,
            };
            let message = format!("{operation} {:?}: {error}", String::from_utf8_lossy(key));
            exception(py, code.as_str(), &message, operation, Some(key), error.raw_os_error())
        }
    }
}

pub(super) fn bad_config(py: Python<'_>, message: &str) -> PyErr {
    exception(py, Code::BadConfig.as_str(), message, "", None, None)
}

/// Adds operation and key to an error about an argument.
pub(super) fn within<T>(py: Python<'_>, operation: &str, key: Option<&[u8]>, checked: PyResult<T>) -> PyResult<T> {
    checked.inspect_err(|error| {
        let error = error.value(py);
        let is_ours = error.getattr("operation").is_ok_and(|operation| operation.eq("").unwrap_or(false));
        if is_ours {
            // Exceptions of the file cache have both.
            let key = key.map(|key| PyBytes::new(py, key));
            let _ = error.setattr("operation", operation).and_then(|()| error.setattr("key", key));
        }
    })
}

/// Refuses operations that only the process that began to write may perform.
pub(super) fn check_process(py: Python<'_>, operation: &str, key: &[u8], process: u32) -> PyResult<()> {
    if process == std::process::id() {
        return Ok(());
    }
    let name = String::from_utf8_lossy(key);
    let message = format!(
        "{operation} {name:?}: the writer is that of process {process}, which forked this one; create another here"
    );
    Err(exception(py, Code::LeaseLost.as_str(), &message, operation, Some(key), None))
}

pub(super) fn closed(key: &[u8]) -> PyErr {
    PyValueError::new_err(format!("the writer of {:?} is closed", String::from_utf8_lossy(key)))
}

/// Issues a warning of Python; `level`: how many of Python's frames are this package's, and one.
pub(super) fn warn(py: Python<'_>, text: &str, level: i32) -> PyResult<()> {
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, level)
}
