//! Questions to the driver that were not answered, and what is done with the answers.

use redgrease_core::id::{Database, ExecutionNo, PlanNo, RegistrationNo, WorkerNo};
use redgrease_core::plan::{PlanSpec, RunReader, Trigger};
use redgrease_core::policy::CommandFacts;

use crate::calls::caller::{PendingCall, Requester};
use crate::effect::Argv;
use crate::id::{BatchNo, Counter, QuestionNo};
use crate::prelude::*;
use crate::requirements::installs::Job;
use crate::streams::held::Release;
use crate::streams::runs::EntryId;

/// A `run` action on its way.
#[derive(Debug)]
pub(crate) struct RunRequest {
    /// Who wants it.
    pub(crate) requester: Requester,
    /// The plan's number in the worker.
    pub(crate) plan: PlanNo,
    /// The plan.
    pub(crate) spec: PlanSpec,
    /// Its reader.
    pub(crate) reader: RunReader,
}

/// A `register` action on its way.
#[derive(Debug)]
pub(crate) struct RegisterRequest {
    /// Who wants it.
    pub(crate) requester: Requester,
    /// The plan's number in the worker.
    pub(crate) plan: PlanNo,
    /// The plan.
    pub(crate) spec: PlanSpec,
    /// What starts it.
    pub(crate) trigger: Trigger,
    /// Pickle of the plan alone, where no script ends that sends it.
    pub(crate) blob: Vec<u8>,
    /// What the server says of commands that have the names of events.
    pub(crate) facts: BTreeMap<String, Option<Rc<CommandFacts>>>,
}

/// Why something was asked.
#[derive(Debug)]
pub(crate) enum Asked {
    /// To know which commands are protected.
    Protection,
    /// To run a command of a function.
    CommandOfCall {
        /// The call.
        call: PendingCall,
        /// The command.
        argv: Argv,
        /// Its lower-case name.
        name: Vec<u8>,
        /// It has waited until clients were not paused.
        waited: bool,
    },
    /// To check the events of a registration.
    CommandOfEvent {
        /// The registration.
        request: Box<RegisterRequest>,
        /// The name that was asked for.
        name: String,
    },
    /// To refuse what is meant for all shards.
    ShardsForRun(Box<RunRequest>),
    /// The same.
    ShardsForRegister(Box<RegisterRequest>),
    /// To refuse a registration for keys that its user may not use.
    RegisterPermission(Box<RegisterRequest>),
    /// To match a key event with filters of key types.
    KeyOfEvent {
        /// The key's database.
        database: Database,
        /// Name of the event.
        event: String,
        /// The key.
        key: Vec<u8>,
    },
    /// To follow a stream that was found.
    StreamFound {
        /// The registration.
        registration: RegistrationNo,
        /// The stream.
        key: Vec<u8>,
        /// An entry that was added shows it.
        by_entry: bool,
    },
    /// To follow a stream that took the place of another value.
    StreamReplaced {
        /// The registration.
        registration: RegistrationNo,
        /// The stream.
        key: Vec<u8>,
    },
    /// To answer a count of all keys.
    DatabaseSize(ExecutionNo),
    /// To begin a look for requirements, or an installation.
    ClientOfInstall(Job),
    /// To use requirements that were there.
    DirectoriesOfInstall {
        /// What is done otherwise.
        job: Job,
        /// The directories.
        paths: Vec<String>,
        /// The job has waited for its turn already.
        queued: bool,
    },
    /// To replace a worker that grew.
    MemoryOfWorker(WorkerNo),
    /// To end a worker that makes no progress.
    ProgressOfWorker(WorkerNo),
    /// To end a worker that closed its connection.
    ProcessOfWorker {
        /// The worker.
        worker: WorkerNo,
        /// Further looks that are granted.
        looks: u32,
    },
    /// To finish a handshake.
    Handshake {
        /// The worker.
        worker: WorkerNo,
        /// The process id that it names.
        pid: u32,
        /// Version of the interpreter.
        python: String,
        /// Version of the package.
        package: String,
    },
    /// To know whether another batch follows.
    EntriesBehind(ExecutionNo),
    /// To remove entries that all groups have acknowledged.
    GroupsOfBatch {
        /// The batch.
        batch: BatchNo,
        /// The entries.
        ids: Vec<EntryId>,
    },
    /// The same, for entries that waited for a registration that is gone.
    GroupsOfRelease {
        /// What is released.
        release: Release,
        /// The entries.
        ids: Vec<EntryId>,
    },
}

/// The questions.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    counter: Counter,
    open: BTreeMap<QuestionNo, Asked>,
}

impl Questions {
    /// Asks something.
    pub(crate) fn add(&mut self, asked: Asked) -> QuestionNo {
        let number = QuestionNo(self.counter.next());
        self.open.insert(number, asked);
        number
    }

    /// Takes the question that was answered.
    pub(crate) fn take(&mut self, number: QuestionNo) -> Option<Asked> {
        self.open.remove(&number)
    }

    /// Number of the open questions.
    #[cfg(feature = "simulation")]
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}
