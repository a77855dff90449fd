//! Running a request of the server to a session.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use redgrease_core::error_text::cut_error;
use redgrease_core::frame::{FromWorker, LogLevel};
use redgrease_core::id::SessionNo;

use crate::child;
use crate::context::Context;

use super::shared::Worker;
use super::task::{Function, Job};
use super::thread::WorkerThread;

impl Worker {
    /// Calls the method of the sessions object that belongs to the request, and answers the server.
    pub(super) fn run_job(&self, py: Python<'_>, thread: &Arc<WorkerThread>, job: Job) {
        if let Job::Profile { request, session, order } = &job {
            return self.profile(py, thread, *request, *session, order.as_deref());
        }
        if let Job::Answer { call, answer } = job {
            return self.deliver(py, thread, call, answer);
        }
        let session = self.session_of(&job);
        let loaded = if let Job::Load { function, .. } = &job { Some(function.plan) } else { None };
        Context { session, ..Context::NONE }.enter();
        let (request, result) = self.call_sessions(py, job);
        if child::is_child() {
            child::end(py, result.err());
        }
        let result = result.and_then(|done| match request {
            Some(_) => done.extract::<(Option<String>, Vec<u8>)>(),
            None => Ok((None, Vec::new())),
        });
        let (error, blob) = result.unwrap_or_else(|error| {
            let text = self.hooks.describe(py, error, true);
            (Some(String::from_utf8_lossy(&text).into_owned()), Vec::new())
        });
        let error = error.map(|error| String::from_utf8_lossy(&cut_error(error.as_bytes())).into_owned());
        match (request, error) {
            (Some(request), error) => {
                self.connection.append(&FromWorker::ScriptDone { request, error: error.as_deref(), blob: &blob });
            }
            (None, Some(error)) => {
                let (session, level) = (Some(SessionNo(session)), LogLevel::Warning);
                self.connection.append(&FromWorker::Log { session, level, message: error.as_bytes() });
            }
            (None, None) => {}
        }
        self.leave_code(py, thread);
        let mut schedule = self.schedule();
        if let Some(plan) = loaded {
            schedule.executions.plan_is_loaded(plan);
        }
        schedule.finish(thread);
    }

    /// Hands the answer to a call over to the coroutine that awaits it.
    fn deliver(&self, py: Python<'_>, thread: &Arc<WorkerThread>, call: u64, answer: Result<Vec<u8>, String>) {
        let (value, error) = match answer {
            Ok(value) => (Some(PyBytes::new(py, &value)), None),
            Err(error) => (None, Some(error)),
        };
        let sessions = self.hooks.sessions.bind(py);
        if let Err(error) = sessions.call_method1("answered", (call, value, error)) {
            let text = self.hooks.describe(py, error, true);
            self.connection.append(&FromWorker::Log { session: None, level: LogLevel::Warning, message: &text });
        }
        self.leave_code(py, thread);
        self.schedule().finish(thread);
    }

    /// Answers a request for the profile of a session.
    fn profile(&self, py: Python<'_>, thread: &Arc<WorkerThread>, request: u64, session: u64, order: Option<&str>) {
        let sessions = self.hooks.sessions.bind(py);
        let text = sessions.call_method1("profile", (session, order)).and_then(|text| text.extract::<String>());
        let text = text.map_err(|error| String::from_utf8_lossy(&self.hooks.describe(py, error, false)).into_owned());
        let result = text.as_deref().map_err(String::as_str);
        self.connection.append(&FromWorker::Answered { request, result });
        self.leave_code(py, thread);
        self.schedule().finish(thread);
    }

    fn session_of(&self, job: &Job) -> u64 {
        match job {
            Job::Script { session, .. }
            | Job::Load { session, .. }
            | Job::Restore { session, .. }
            | Job::Profile { session, .. }
            | Job::ForgetSession { session } => *session,
            Job::Registered { plan } => self.plans.get(*plan).map_or(0, |plan| plan.session),
            Job::ForgetPlans { .. } | Job::Answer { .. } => 0,
        }
    }

    /// What the sessions object returned, with the number of the request if it wants an answer.
    fn call_sessions<'py>(&self, py: Python<'py>, job: Job) -> (Option<u64>, PyResult<Bound<'py, PyAny>>) {
        let sessions = self.hooks.sessions.bind(py);
        match job {
            Job::Script { request, session, name, source, paths, traceback, tagged } => {
                let args = (session, name, PyBytes::new(py, &source), paths, traceback, tagged);
                (Some(request), sessions.call_method1("script", args))
            }
            Job::Load { request, session, name, function, paths, traceback } => {
                let args = (session, name, arguments(py, &function), paths, traceback);
                (Some(request), sessions.call_method1("load", args))
            }
            Job::Restore { request, session, name, function, blobs, paths } => {
                let function = function.map(|function| arguments(py, &function));
                let blobs: Vec<_> = blobs.iter().map(|blob| PyBytes::new(py, blob)).collect();
                (Some(request), sessions.call_method1("restore", (session, name, function, blobs, paths)))
            }
            Job::Registered { plan } => (None, sessions.call_method1("registered", (plan,))),
            Job::ForgetPlans { plans } => {
                self.plans.remove(&plans);
                (None, sessions.call_method1("forget_plans", (plans,)))
            }
            Job::ForgetSession { session } => (None, sessions.call_method1("forget_session", (session,))),
            Job::Profile { .. } | Job::Answer { .. } => unreachable!("it is answered before"),
        }
    }
}

fn arguments<'py>(py: Python<'py>, function: &Function) -> (u64, Bound<'py, PyBytes>, Bound<'py, PyBytes>) {
    (function.plan, PyBytes::new(py, &function.spec), PyBytes::new(py, &function.callbacks))
}
