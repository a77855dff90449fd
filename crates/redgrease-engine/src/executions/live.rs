//! The state of an execution that has not ended.

use redgrease_core::codec::Writer;
use redgrease_core::frame::StartFlags;
use redgrease_core::id::{Database, ExecutionNo, PlanNo, RegistrationNo, SessionNo, WorkerNo};
use redgrease_core::plan::{NativeRun, PlanSpec};

use crate::calls::caller::PendingCall;
use crate::clients::Client;
use crate::executions::shared::Shared;
use crate::input::{Actor, UserName};
use crate::prelude::*;
use crate::reader::Reader;
use crate::registrations::hooks::HookedCall;
use crate::streams::run::StreamRun;

/// The source of an execution's records.
#[derive(Debug)]
pub(crate) enum Source {
    /// The worker makes them, or they have all been sent.
    Worker,
    /// They are here, encoded.
    Records {
        /// Their number.
        count: u64,
        /// Their encoded form.
        bytes: Vec<u8>,
    },
    /// One key, read when the execution starts.
    Event {
        /// The key.
        key: Box<[u8]>,
        /// Name of the event.
        event: Rc<str>,
        /// Whether type and value are read.
        read_value: bool,
    },
    /// Read in slices. `None`: a slice is being read.
    Reader(Option<Reader>),
    /// Entries of a stream, read when the execution starts.
    Stream(StreamRun),
}

impl Source {
    /// One record: a list of a command's name and its arguments.
    pub(crate) fn arguments(args: &[&[u8]]) -> Source {
        let mut writer = Writer::new();
        writer.list(args.len());
        for arg in args {
            writer.raw(arg);
        }
        Source::Records { count: 1, bytes: writer.into_bytes() }
    }
}

/// How an execution is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Launch {
    /// In its turn.
    Async,
    /// At the end of the turn, in a group: sync executions that clients triggered and whose clients can be blocked.
    Group,
    /// Immediately, while the main thread waits.
    Sync {
        /// No coroutine or future may be created: the caller cannot be blocked.
        no_async: bool,
    },
}

/// The answer that a client waits for.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// Results and errors.
    Results {
        /// The client.
        client: Client,
        /// It wants them tagged, regardless of how the execution was started.
        tagged: bool,
    },
    /// What a triggered function returned.
    Trigger(Client),
    /// Only the end, after an abort.
    End(Client),
    /// What a function returned that replaced a command.
    Hook(Client),
    /// Results and errors, for user code.
    Call(PendingCall),
    /// The only result, for user code that called a command that a function replaces.
    HookOf(PendingCall),
    /// The current command, which reads the outcome.
    Command,
}

/// Why an execution over entries of a stream does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// Its worker ended.
    WorkerDied,
    /// Clients were paused when its entries were to be read.
    ServerPaused,
    /// It ended before its entries were to be read, because it could not be run.
    NotRun,
}

/// Records that are collected before an execution starts.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Their number.
    pub(crate) count: u64,
    /// Their encoded form.
    pub(crate) bytes: Vec<u8>,
}

/// Entries of a stream that were read in one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupStep {
    /// Entries that were requested.
    pub(crate) wanted: u64,
    /// Entries that were read.
    pub(crate) read: u64,
    /// Records that were created from them.
    pub(crate) count: u64,
}

/// An execution that has not ended.
#[derive(Debug)]
pub(crate) struct Live {
    /// Its session.
    pub(crate) session: SessionNo,
    /// The user that its code acts as.
    pub(crate) user: UserName,
    /// The database that its reader and its code act in.
    pub(crate) database: Database,
    /// The registration that it belongs to.
    pub(crate) registration: Option<RegistrationNo>,
    /// The plan's number in the session's worker.
    pub(crate) plan: PlanNo,
    /// The plan.
    pub(crate) spec: Rc<PlanSpec>,
    /// Executions of the same lane run one after the other; 0: no lane.
    pub(crate) lane: u64,
    /// Bytes of records that its worker has not consumed.
    pub(crate) unconsumed: u64,
    /// Where it runs.
    pub(crate) worker: Option<WorkerNo>,
    /// Its records.
    pub(crate) source: Source,
    /// How it is started.
    pub(crate) launch: Launch,
    /// The steps at the start of the plan that the engine runs itself, until their input has ended.
    pub(crate) native: Option<NativeRun>,
    /// The first step that its worker runs.
    pub(crate) first_step: u64,
    /// How the worker runs it.
    pub(crate) flags: StartFlags,
    /// It was sent to its worker.
    pub(crate) started: bool,
    /// It has waited for coroutines or futures: it runs in the background.
    pub(crate) parked: bool,
    /// The call that it replaces.
    pub(crate) hooked: Option<Box<HookedCall>>,
    /// The number of the client that waits for it because its command fired the event.
    pub(crate) intercepts: Option<u64>,
    /// The time event that it is a call of.
    pub(crate) time_event: Option<u64>,
    /// User code started it, and may wait for it.
    pub(crate) nested: bool,
    /// The last step that its worker reported.
    pub(crate) step: Option<u64>,
    /// When it was started, in milliseconds.
    pub(crate) started_ms: Option<u64>,
    /// Its results are discarded at its end.
    pub(crate) drop_at_end: bool,
    /// It was created from a waiting event: at its end the next one may be.
    pub(crate) from_pending: bool,
    /// The clients that wait for its end.
    pub(crate) waiters: Vec<Waiter>,
    /// The run over entries of a stream, once they are being read.
    pub(crate) stream_run: Option<StreamRun>,
    /// The records that it starts with.
    pub(crate) gathered: Gathered,
    /// The part of the stream that is being read.
    pub(crate) group_step: Option<GroupStep>,
    /// Why it does not count.
    pub(crate) interruption: Option<Interruption>,
    /// It runs on several shards.
    pub(crate) shared: Option<Box<Shared>>,
}

impl Live {
    /// The user and the database of its reader.
    pub(crate) fn actor(&self) -> Actor {
        Actor { user: Rc::clone(&self.user), database: self.database }
    }

    /// Whether it runs over entries of a stream for that registration.
    pub(crate) fn reads_for(&self, registration: RegistrationNo) -> bool {
        let waiting = if let Source::Stream(run) = &self.source { Some(run) } else { None };
        self.stream_run.as_ref().or(waiting).is_some_and(|run| run.source.registration == registration)
    }

    /// Its current step, if known.
    pub(crate) fn place(&self) -> String {
        if let Some(step) = self.step
            && let Some(name) = self.spec.step_name(step)
        {
            return format!("step {} '{name}'", step + 1);
        }
        match self.spec.steps.as_slice() {
            [] => "its reader".into(),
            [only] => format!("step 1 '{}'", only.kind.name()),
            steps => {
                let names: Vec<_> = steps.iter().map(|step| format!("'{}'", step.kind.name())).collect();
                format!("one of the steps {}", names.join(", "))
            }
        }
    }
}

/// The executions that have not ended. Boxed: the map moves its values when others are added or removed.
pub(crate) type LiveExecutions = BTreeMap<ExecutionNo, Box<Live>>;
