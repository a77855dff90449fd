//! One session.

use redgrease_core::id::{Database, ExecutionNo, WorkerNo};
use redgrease_core::python::PythonVersion;

use crate::cluster::versions::Version;
use crate::input::UserName;
use crate::limits::{DEATHS_FORGOTTEN_MS, DEATHS_MAX};
use crate::prelude::*;
use crate::sessions::script::Script;
use crate::sessions::stored::Stored;
use crate::workers::pool::Owner;

/// The state of a session's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Not in a worker: it waits for its requirements or for a worker.
    Waiting,
    /// Its script runs in this worker.
    Running(WorkerNo),
    /// Its registrations are being rebuilt in this worker.
    Restoring(WorkerNo),
    /// Its functions can be run in this worker.
    Up(WorkerNo),
    /// It cannot be rebuilt. Registrations are reported as broken.
    Broken {
        /// The reason.
        reason: String,
        /// The worker that it occupies until it ends.
        worker: Option<WorkerNo>,
    },
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its id, as users see it.
    pub(crate) name: Rc<str>,
    /// Free text.
    pub(crate) description: Option<Vec<u8>>,
    /// The user that its scripts and registered functions act as.
    pub(crate) user: UserName,
    /// The database of the client that ran its script: code of the script outside of executions uses it.
    pub(crate) database: Database,
    /// The data to rebuild it in another worker.
    pub(crate) stored: Stored,
    /// The interpreter of its worker; `None`: the default one.
    pub(crate) python: Option<PythonVersion>,
    /// The directories of its requirements.
    pub(crate) paths: Vec<String>,
    /// The files of the wheels that each requirement needs.
    pub(crate) wheels: BTreeMap<String, Vec<String>>,
    /// The state of its code.
    pub(crate) place: Place,
    /// Its script, until that has ended.
    pub(crate) script: Option<Script>,
    /// It owns registrations.
    pub(crate) registered: bool,
    /// Its registrations were all removed: it ends with its last execution.
    pub(crate) unlinked: bool,
    /// Its requirements were installed for it.
    pub(crate) installed: bool,
    /// Its executions that have not ended.
    pub(crate) live: usize,
    /// Executions that wait until it has a worker again.
    pub(crate) held: Vec<ExecutionNo>,
    /// Ends of its worker that it may have caused, since the last execution that ended by itself.
    pub(crate) deaths: Deaths,
    /// The version of its registrations.
    pub(crate) version: Version,
}

/// Ends of a session's worker in a row.
#[derive(Debug, Default)]
pub(crate) struct Deaths {
    count: u32,
    last_ms: u64,
}

impl Deaths {
    /// Counts one, and says whether there were too many in a row.
    pub(crate) fn too_many_with_one_at(&mut self, now_ms: u64) -> bool {
        if now_ms.saturating_sub(self.last_ms) > DEATHS_FORGOTTEN_MS {
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.last_ms = now_ms;
        self.count >= DEATHS_MAX
    }

    /// Forgets them: an execution has ended by itself.
    pub(crate) fn forget(&mut self) {
        self.count = 0;
    }
}

impl Session {
    /// The owner of workers that may serve it.
    pub(crate) fn owner(&self) -> Owner {
        Owner { user: self.user.to_string(), environment: self.stored.environment.to_string(), python: self.python }
    }

    /// The version that its compiled code needs; `None`: it has none.
    pub(crate) fn wanted_python(&self) -> Option<PythonVersion> {
        PythonVersion::parse(&self.stored.python)
    }

    /// The worker that its code is in.
    pub(crate) fn worker(&self) -> Option<WorkerNo> {
        match self.place {
            Place::Running(worker) | Place::Restoring(worker) | Place::Up(worker) => Some(worker),
            Place::Broken { worker, .. } => worker,
            Place::Waiting => None,
        }
    }

    /// The worker in which its functions can be run now.
    pub(crate) fn up_in(&self) -> Option<WorkerNo> {
        match self.place {
            Place::Running(worker) | Place::Up(worker) => Some(worker),
            Place::Broken { .. } | Place::Waiting | Place::Restoring(_) => None,
        }
    }

    /// The reason why it cannot be rebuilt.
    pub(crate) fn broken(&self) -> Option<&str> {
        if let Place::Broken { reason, .. } = &self.place { Some(reason) } else { None }
    }

    /// Whether only executions keep it.
    pub(crate) fn is_dead(&self) -> bool {
        self.unlinked && !self.registered
    }

    /// Whether it can be removed.
    pub(crate) fn is_unused(&self) -> bool {
        self.live == 0 && !self.registered && self.script.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_in_a_row_are_too_many() {
        let mut deaths = Deaths::default();
        let answers: Vec<bool> = (1..=6).map(|n| deaths.too_many_with_one_at(n * 1000)).collect();
        assert_eq!(answers, [false, false, false, false, true, true]);
    }

    #[test]
    fn deaths_with_more_than_a_minute_between_them_are_not_in_a_row() {
        let mut deaths = Deaths::default();
        assert!((1..=100).all(|n| !deaths.too_many_with_one_at(n * (DEATHS_FORGOTTEN_MS + 1))));
    }

    #[test]
    fn an_execution_that_ends_by_itself_begins_a_new_row() {
        let mut deaths = Deaths::default();
        assert!((1..=4).all(|n| !deaths.too_many_with_one_at(n)));
        deaths.forget();
        assert!(!deaths.too_many_with_one_at(5));
    }
}
