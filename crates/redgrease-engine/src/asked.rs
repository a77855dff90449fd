//! Questions to the driver that are not answered yet, and what each answer is for.

use redgrease_core::id::{Database, ExecutionNo, PlanNo, RegistrationNo, WorkerNo};
use redgrease_core::plan::{PlanSpec, RunReader, Trigger};
use redgrease_core::policy::{CommandFacts, KeyRange};

use crate::calls::caller::{PendingCall, Requester};
use crate::clients::Client;
use crate::effect::Argv;
use crate::events::time_events::NewTimeEvent;
use crate::id::{BatchNo, Counter, QuestionNo};
use crate::input::Caller;
use crate::prelude::*;
use crate::requirements::installs::Job;
use crate::streams::held::Release;
use crate::streams::runs::EntryId;

/// A `run` action that waits for an answer.
#[derive(Debug)]
pub(crate) struct RunRequest {
    /// The caller to answer.
    pub(crate) requester: Requester,
    /// The plan's number in the worker.
    pub(crate) plan: PlanNo,
    /// The plan.
    pub(crate) spec: PlanSpec,
    /// Its reader.
    pub(crate) reader: RunReader,
}

/// A `register` action that waits for an answer.
#[derive(Debug)]
pub(crate) struct RegisterRequest {
    /// The caller to answer.
    pub(crate) requester: Requester,
    /// The plan's number in the worker.
    pub(crate) plan: PlanNo,
    /// The plan.
    pub(crate) spec: PlanSpec,
    /// Its trigger.
    pub(crate) trigger: Trigger,
    /// The plan as it was encoded.
    pub(crate) encoded: Rc<[u8]>,
    /// Pickle of the plan, if no script sends it at its end.
    pub(crate) blob: Vec<u8>,
    /// The server's description of commands that have the names of events.
    pub(crate) facts: BTreeMap<String, Option<Rc<CommandFacts>>>,
    /// Where the keys of its hooked commands are.
    pub(crate) ranges: BTreeMap<Vec<u8>, KeyRange>,
}

/// The purpose of a question.
#[derive(Debug)]
pub(crate) enum Asked {
    /// To learn which commands are protected.
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
        /// The name in the question.
        name: String,
    },
    /// To hook a command.
    CommandOfHook {
        /// The registration.
        request: Box<RegisterRequest>,
        /// The command.
        name: String,
    },
    /// To find the keys of a hooked command that was saved.
    CommandOfRestoredHook {
        /// The registration.
        registration: RegistrationNo,
        /// The command.
        name: Vec<u8>,
    },
    /// To add a time event.
    TimeEventKey(Box<NewTimeEvent>),
    /// To call a function again.
    TimeEventIsDue(u64),
    /// To refuse a hook that some users could not use.
    UsersOfHook(Box<RegisterRequest>),
    /// To run a function instead of a command.
    UserOfHookedCall {
        /// The client.
        client: Client,
        /// The origin of the command.
        caller: Caller,
        /// The function.
        registration: RegistrationNo,
        /// The command.
        argv: Argv,
    },
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
    /// To follow a stream that a search found.
    StreamFound {
        /// The registration.
        registration: RegistrationNo,
        /// The stream.
        key: Vec<u8>,
        /// It was reported because an entry was added.
        by_entry: bool,
    },
    /// To follow a stream that replaced another value.
    StreamReplaced {
        /// The registration.
        registration: RegistrationNo,
        /// The stream.
        key: Vec<u8>,
    },
    /// To answer a count of all keys.
    DatabaseSize(ExecutionNo),
    /// To start a check for requirements, or an installation.
    ClientOfInstall(Job),
    /// To use requirements that were present.
    DirectoriesOfInstall {
        /// The job that runs if they are missing.
        job: Job,
        /// The directories.
        paths: Vec<String>,
        /// The job has already waited for its turn.
        queued: bool,
    },
    /// To replace a worker that uses too much memory.
    MemoryOfWorker(WorkerNo),
    /// To end a worker that uses too much memory.
    MemoryOfTree(WorkerNo),
    /// To end a worker that makes no progress.
    ProgressOfWorker(WorkerNo),
    /// To end a worker that closed its connection.
    ProcessOfWorker {
        /// The worker.
        worker: WorkerNo,
        /// Further checks that are granted.
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
        /// What the kernel keeps it from doing.
        isolation: String,
    },
    /// To learn whether another batch follows.
    EntriesBehind(ExecutionNo),
    /// To remove entries that all groups have acknowledged.
    GroupsOfBatch {
        /// The batch.
        batch: BatchNo,
        /// The entries.
        ids: Vec<EntryId>,
    },
    /// The same, for entries that waited for a removed registration.
    GroupsOfRelease {
        /// The removal of entries.
        release: Release,
        /// The entries.
        ids: Vec<EntryId>,
    },
}

/// The open questions.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    counter: Counter,
    open: BTreeMap<QuestionNo, Asked>,
}

impl Questions {
    /// Adds a question.
    pub(crate) fn add(&mut self, asked: Asked) -> QuestionNo {
        let number = QuestionNo(self.counter.next());
        self.open.insert(number, asked);
        number
    }

    /// Takes the question of an answer.
    pub(crate) fn take(&mut self, number: QuestionNo) -> Option<Asked> {
        self.open.remove(&number)
    }

    /// Number of the open questions.
    #[cfg(feature = "simulation")]
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}
