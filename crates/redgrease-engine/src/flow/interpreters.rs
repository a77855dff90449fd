//! The interpreter of a session: compiled code can only be loaded by the version that made it.

use redgrease_core::id::{SessionNo, WorkerNo};
use redgrease_core::python::PythonVersion;

use crate::effect::Effect;
use crate::engine::Engine;
use crate::error::Error;
use crate::input::Interpreters;
use crate::limits::WORKER_AGAIN_MS;
use crate::prelude::*;
use crate::sessions::session::Place;
use crate::sessions::stored::for_python;
use crate::workers::interpreters::Choice;

impl Engine {
    /// Chooses the interpreter of a session; `false` if the session has to wait for it, or was ended with an error.
    pub(crate) fn choose_interpreter(&mut self, number: SessionNo) -> bool {
        let now_ms = self.now_ms();
        let Some(session) = self.sessions.get_mut(number) else { return false };
        let wanted = session.wanted_python();
        let choice = wanted.map_or(Choice::Default, |wanted| self.workers.interpreters.choose(wanted, now_ms));
        let python = match choice {
            Choice::Default => None,
            Choice::Other(python) => Some(python),
            Choice::Unknown => {
                if self.workers.interpreters.wait(number) {
                    self.out.push(Effect::FindInterpreters);
                }
                return false;
            }
            Choice::Missing { present, refused } => {
                if session.script.is_some() {
                    let error = wanted.map(|wanted| Error::NoSuchPython { wanted, present, refused });
                    let reason = error.map(|error| error.to_string()).unwrap_or_default();
                    self.session_without_worker(number, &reason, WORKER_AGAIN_MS);
                    return false;
                }
                // Its registrations are reported as broken as soon as a worker has verified it.
                None
            }
        };
        session.python = python;
        session.stored.environment = for_python(&session.stored.environment, python).into();
        true
    }

    /// Interpreters were looked for: the sessions that wait go on.
    pub(crate) fn interpreters_found(&mut self, interpreters: Interpreters) {
        let now_ms = self.now_ms();
        for number in self.workers.interpreters.found(interpreters, now_ms) {
            if self.sessions.get(number).is_some_and(|session| session.place == Place::Waiting) {
                self.prepare_session(number);
            }
        }
    }

    /// A session got a worker whose interpreter has another version than its code needs.
    pub(crate) fn other_interpreter(&mut self, number: SessionNo, worker: WorkerNo, wanted: PythonVersion) {
        let now_ms = self.now_ms();
        let present = self.workers.links.get(&worker).map(|link| link.python.clone()).unwrap_or_default();
        let present = PythonVersion::parse(&present).map_or(present, |version| version.to_string());
        let choice = self.workers.interpreters.choose(wanted, now_ms);
        let Some(session) = self.sessions.get_mut(number) else { return };
        // The default one was chosen before its version was known: the choice is made again.
        let again = session.python.is_none() && matches!(choice, Choice::Other(_) | Choice::Unknown);
        if !again && session.script.is_none() {
            let error = Error::OtherPython { stored: wanted.to_string(), present };
            return self.session_is_broken(number, worker, error);
        }
        if self.workers.pool.release(number, now_ms).is_some() {
            self.retire(worker);
        }
        if again {
            self.prepare_session(number);
        } else {
            let refused = if let Choice::Missing { refused, .. } = choice { refused } else { String::new() };
            let error = Error::NoSuchPython { wanted, present, refused };
            self.session_without_worker(number, &error.to_string(), WORKER_AGAIN_MS);
        }
        self.serve_waiting();
    }
}
