//! Results that come later: what a step waits for, and the object that user code completes it with.
//!
//! While a callback runs, its thread has a [`Scope`] that says whether the step can wait. `gearsFuture()` creates a
//! [`Ticket`] there; a coroutine gets one when the callback has returned it.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use redgrease_core::id::ExecutionNo;

use crate::context::Context;
use crate::errors::gears_error;
use crate::lock::lock;

/// Why the caller cannot be blocked.
const NOT_ALLOWED: &str =
    "Creating async record is not allowed: its caller cannot be blocked (a transaction, a script, or a nested call)";

/// An execution that can wait for results.
#[derive(Debug, Clone, Copy)]
pub struct Waiter {
    /// Its number.
    pub exec: ExecutionNo,
    /// Called when a result has come that it waits for, by any thread.
    pub wake: fn(ExecutionNo),
}

/// Whether the running step can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// It can.
    Can,
    /// Its kind cannot.
    Cannot,
    /// Its caller cannot be blocked.
    NotAllowed,
}

/// The callback that a thread runs.
#[derive(Debug)]
struct Scope {
    waiter: Waiter,
    ability: Ability,
    created: Option<Arc<Ticket>>,
}

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// What a step waits for.
#[derive(Debug)]
pub enum State {
    /// The callback has not returned.
    Created,
    /// It has not returned, and the result has come from elsewhere.
    Early(Result<Py<PyAny>, Failure>),
    /// The step waits.
    Waited,
    /// It has come.
    Ready(Result<Py<PyAny>, Failure>),
    /// Nobody waits: the step used another result, or the execution has ended.
    Abandoned,
}

/// Why there is no result.
#[derive(Debug)]
pub enum Failure {
    /// With this text.
    Text(Vec<u8>),
}

/// What one record of a step waits for.
#[derive(Debug)]
pub struct Ticket {
    waiter: Waiter,
    /// The thread of the callback.
    thread: ThreadId,
    state: Mutex<State>,
    /// The task of the coroutine.
    task: Mutex<Option<Py<PyAny>>>,
}

impl Ticket {
    fn new(waiter: Waiter) -> Arc<Ticket> {
        let thread = std::thread::current().id();
        Arc::new(Ticket { waiter, thread, state: Mutex::new(State::Created), task: Mutex::new(None) })
    }

    /// The step waits from now on.
    pub fn wait(&self) {
        let mut state = lock(&self.state);
        *state = match std::mem::replace(&mut *state, State::Waited) {
            State::Created => State::Waited,
            State::Early(result) => State::Ready(result),
            other => other,
        };
    }

    /// Whether the result has come.
    pub fn is_ready(&self) -> bool {
        matches!(*lock(&self.state), State::Ready(_))
    }

    /// Takes the result.
    pub fn take(&self) -> Option<Result<Py<PyAny>, Failure>> {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, State::Abandoned) {
            State::Ready(result) => Some(result),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Nobody waits any more; the task to be cancelled, if there is one.
    pub fn abandon(&self) -> Option<Py<PyAny>> {
        // The old state may hold an object: it is dropped without the lock.
        let before = std::mem::replace(&mut *lock(&self.state), State::Abandoned);
        drop(before);
        lock(&self.task).take()
    }

    /// The result has come. An error if this is not the time for it; nothing happens if nobody waits.
    fn complete(&self, result: Result<Py<PyAny>, Failure>) -> Result<(), &'static str> {
        {
            let mut state = lock(&self.state);
            match *state {
                State::Created if std::thread::current().id() == self.thread => {
                    return Err("Can not handle future untill it returned from the callback");
                }
                State::Created => {
                    *state = State::Early(result);
                    return Ok(());
                }
                State::Ready(_) | State::Early(_) => return Err("Can not continue with the same future twice"),
                State::Abandoned => return Ok(()),
                State::Waited => *state = State::Ready(result),
            }
        }
        (self.waiter.wake)(self.waiter.exec);
        Ok(())
    }
}

/// Marks that a callback of an execution begins; returns what [`leave`] needs.
pub fn enter(waiter: Waiter, ability: Ability) {
    SCOPE.with_borrow_mut(|scope| *scope = Some(Scope { waiter, ability, created: None }));
}

/// Marks that a callback has returned; the future that it created.
pub fn leave() -> Option<Arc<Ticket>> {
    SCOPE.with_borrow_mut(Option::take).and_then(|scope| scope.created)
}

/// Whether the step of the calling thread, or the coroutine, can wait.
pub fn can_wait() -> bool {
    let of_step = SCOPE.with_borrow(|scope| scope.as_ref().map(|scope| scope.ability == Ability::Can));
    of_step.unwrap_or_else(|| Context::current().is_coroutine)
}

/// The ticket of a coroutine that a callback returned.
pub fn of_coroutine(py: Python<'_>, waiter: Waiter, ability: Ability) -> PyResult<Arc<Ticket>> {
    match ability {
        Ability::Can => Ok(Ticket::new(waiter)),
        Ability::Cannot | Ability::NotAllowed => Err(gears_error(py, NOT_ALLOWED)),
    }
}

/// A result that user code gives later: `continueRun(value)` or `continueFailed(error)`, from any thread.
#[pyclass(frozen, module = "redisgears", name = "PyFuture")]
#[derive(Debug)]
pub struct Future {
    ticket: Arc<Ticket>,
}

impl Future {
    /// The Python object of a ticket.
    pub fn of(ticket: Arc<Ticket>) -> Future {
        Future { ticket }
    }

    /// The ticket.
    pub fn ticket(&self) -> &Arc<Ticket> {
        &self.ticket
    }
}

fn only<'py>(py: Python<'py>, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    if args.len() != 1 {
        return Err(gears_error(py, "Continue function expect an object"));
    }
    args.get_item(0)
}

#[pymethods]
impl Future {
    /// Gives the result: the step goes on with it.
    #[pyo3(name = "continueRun", signature = (*args), text_signature = "(value)")]
    fn continue_run(&self, py: Python<'_>, args: &Bound<'_, PyTuple>) -> PyResult<()> {
        let value = only(py, args)?.unbind();
        self.ticket.complete(Ok(value)).map_err(|text| gears_error(py, text))
    }

    /// Gives an error: the record becomes it, with the text of the object.
    #[pyo3(name = "continueFailed", signature = (*args), text_signature = "(error)")]
    fn continue_failed(&self, py: Python<'_>, args: &Bound<'_, PyTuple>) -> PyResult<()> {
        let text = only(py, args)?.str()?;
        let text = crate::codec::bytes_of_text(&text)?.as_bytes().to_vec();
        self.ticket.complete(Err(Failure::Text(text))).map_err(|text| gears_error(py, text))
    }

    /// Sets the task that makes the result, which is cancelled when nobody waits for it any more; `False`: nobody does.
    fn _set_task(&self, task: Py<PyAny>) -> bool {
        *lock(&self.ticket.task) = Some(task);
        !matches!(*lock(&self.ticket.state), State::Abandoned)
    }
}

impl Drop for Future {
    fn drop(&mut self) {
        let is_waited = matches!(*lock(&self.ticket.state), State::Waited);
        if is_waited {
            let text = b"Async record did not called continue".to_vec();
            // A ticket that is waited for takes it.
            let _ = self.ticket.complete(Err(Failure::Text(text)));
        }
    }
}

/// A future for the result of the running step, which has to return it.
#[pyfunction]
#[pyo3(name = "gears_future", signature = (*args), text_signature = "()")]
fn gears_future(py: Python<'_>, args: &Bound<'_, PyTuple>) -> PyResult<Future> {
    if !args.is_empty() {
        return Err(gears_error(py, "Future gets no arguments"));
    }
    let made = SCOPE.with_borrow_mut(|scope| {
        let Some(scope) = scope else { return Err("Future object can only be created inside certain execution steps") };
        match scope.ability {
            Ability::Cannot => Err("Step does not support async"),
            Ability::NotAllowed => Err(NOT_ALLOWED),
            Ability::Can if scope.created.is_some() => Err("Can not create async record twice on the same step"),
            Ability::Can => {
                let ticket = Ticket::new(scope.waiter);
                scope.created = Some(Arc::clone(&ticket));
                Ok(Future { ticket })
            }
        }
    });
    made.map_err(|text| gears_error(py, text))
}

/// Whether the running step, or the coroutine, can wait.
#[pyfunction]
fn is_async_allowed() -> bool {
    can_wait()
}

/// Adds everything of this file to the module.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Future>()?;
    module.add_function(wrap_pyfunction!(gears_future, module)?)?;
    module.add_function(wrap_pyfunction!(is_async_allowed, module)?)
}
