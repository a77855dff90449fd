//! One session.

use redgrease_core::id::{Database, ExecutionNo, WorkerNo};

use crate::input::UserName;
use crate::prelude::*;
use crate::sessions::script::Script;
use crate::sessions::stored::Stored;
use crate::workers::pool::Owner;

/// Where a session's code is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: it waits for its requirements or for a worker.
    Waiting,
    /// Its script runs in this worker.
    Running(WorkerNo),
    /// What it registered is being built again in this worker.
    Restoring(WorkerNo),
    /// Its functions can be run in this worker.
    Up(WorkerNo),
    /// It cannot be built again. Registrations are reported as broken.
    Broken {
        /// Why.
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
    /// Whom its scripts and registered functions act as.
    pub(crate) user: UserName,
    /// The database of the client that ran its script: what the script does outside of executions is done there.
    pub(crate) database: Database,
    /// What is kept beyond its worker's life.
    pub(crate) stored: Stored,
    /// Where the requirements are installed.
    pub(crate) paths: Vec<String>,
    /// Where its code is.
    pub(crate) place: Place,
    /// Its script, as long as that has not ended.
    pub(crate) script: Option<Script>,
    /// It owns registrations.
    pub(crate) registered: bool,
    /// Its executions that have not ended.
    pub(crate) live: usize,
    /// Executions that wait until it has a worker again.
    pub(crate) held: Vec<ExecutionNo>,
    /// Deaths of its worker since the last execution that ended by itself.
    pub(crate) deaths: u32,
}

impl Session {
    /// Whose workers may serve it.
    pub(crate) fn owner(&self) -> Owner {
        Owner { user: self.user.to_string(), environment: self.stored.environment.to_string() }
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

    /// Why it cannot be built again.
    pub(crate) fn broken(&self) -> Option<&str> {
        if let Place::Broken { reason, .. } = &self.place { Some(reason) } else { None }
    }

    /// Whether nothing needs it any more.
    pub(crate) fn is_unused(&self) -> bool {
        self.live == 0 && !self.registered && self.script.is_none()
    }
}
