//! What the worker's Python code gives to this extension.

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::codec::bytes_of_text;

/// Python objects that are called.
#[derive(Debug)]
pub struct Hooks {
    /// Object with the methods `spawn` and `cancel`; in a worker also `script`, `load`, `restore`, `registered`,
    /// `forget_plans`, `forget_session`, `exit`.
    pub sessions: Py<PyAny>,
    /// `describe(exception, traceback) -> str`.
    pub describe: Py<PyAny>,
}

/// What a worker tells the server about itself.
#[derive(Debug)]
pub struct Identity {
    /// Version of the interpreter.
    pub python: String,
    /// Version of the package.
    pub package: String,
    /// What the kernel enforces: see [`isolate`](crate::isolation::isolate).
    pub isolation: String,
}

impl Hooks {
    /// Begins to profile the calling thread for a session; returns whether it is profiled now.
    pub fn profile_begin(&self, py: Python<'_>, session: u64) -> bool {
        let begun = self.sessions.bind(py).call_method1("profile_begin", (session,));
        begun.and_then(|begun| begun.is_truthy()).unwrap_or(false)
    }

    /// Ends what [`Hooks::profile_begin`] began.
    pub fn profile_end(&self, py: Python<'_>, session: u64) {
        // Without its end the profile is incomplete; the execution goes on.
        let _ = self.sessions.bind(py).call_method1("profile_end", (session,));
    }

    /// The text of an exception.
    pub fn describe(&self, py: Python<'_>, error: PyErr, traceback: bool) -> Vec<u8> {
        // Only this puts the traceback into the exception.
        let error = error.into_value(py).into_bound(py);
        let text = self.describe.bind(py).call1((&error, traceback));
        match text.and_then(|text| bytes_of_text(&text.cast_into::<PyString>()?)) {
            Ok(text) => text.as_bytes().to_vec(),
            Err(_) => plain_text(&error),
        }
    }
}

/// The text of an error that `describe` cannot describe.
fn plain_text(error: &Bound<'_, PyBaseException>) -> Vec<u8> {
    let message = error.str().and_then(|text| bytes_of_text(&text)).map(|text| text.as_bytes().to_vec());
    let mut text = format!("Error type: {}, Value: ", error.get_type()).into_bytes();
    text.extend(message.unwrap_or_default());
    text
}
