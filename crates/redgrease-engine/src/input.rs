//! The inputs: what the driver reports to the engine.

use crate::streams::runs::{EntryId, GroupProgress};
use redgrease_core::codec::KeyType;
use redgrease_core::command::PyExecute;
use redgrease_core::id::{Database, ExecutionNo, RegistrationNo, WorkerNo};
use redgrease_core::policy::{CommandFacts, Protection};
use redgrease_core::python::PythonVersion;
use redgrease_core::saved::{Change, SavedTimeEvent, SavedWheel};

use crate::cluster::topology::Topology;
use crate::frames::Frames;
use crate::id::{BatchNo, ClientNo, CommandNo, InstallNo, JobNo, LinkNo, QuestionNo, RemovalNo, TimerNo, WaitNo};
use crate::prelude::*;
use crate::reader::Reader;
use crate::step::Step;
use crate::work::Work;

/// Name of the user that a function acts as.
pub type UserName = Rc<str>;

/// The user and the database of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user whose permissions are checked.
    pub user: UserName,
    /// The database.
    pub database: Database,
}

/// What the server is doing while an input is handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerState {
    /// A Lua script or function is running, possibly suspended.
    pub script: bool,
    /// A transaction is running.
    pub transaction: bool,
    /// Data is being loaded.
    pub loading: bool,
    /// This server is a replica.
    pub replica: bool,
    /// It is a replica that refuses writes of clients.
    pub read_only: bool,
    /// It is in cluster mode.
    pub cluster: bool,
    /// Clients are paused: nothing may be replicated.
    pub paused: bool,
    /// A keyspace notification is being handled: the command that caused it has not ended.
    pub notifying: bool,
}

impl ServerState {
    /// Whether clients, and functions, must not write: the server is a read-only replica.
    #[must_use]
    pub fn refuses_writes(&self) -> bool {
        self.replica && self.read_only
    }
}

/// When an input is handled, and what the server is doing then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Situation {
    /// Milliseconds of a monotonic clock.
    pub now_ms: u64,
    /// The state of the server.
    pub server: ServerState,
}

/// The context of a client's command, which decides whether it can be blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// Nothing: the client can be blocked.
    Nothing,
    /// A transaction.
    Transaction,
    /// A script.
    Script,
    /// Something else that cannot be blocked, such as a command of another module.
    Unblockable,
}

/// The origin of a command.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user that the client is logged in as; `None`: the server itself.
    pub user: Option<UserName>,
    /// The database that the client has selected.
    pub database: Database,
    /// Whether it may end objects of others: permission for `RG.ADMINISTER`.
    pub administers: bool,
    /// The context of the command.
    pub inside: Inside,
}

/// Which shards a command asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All shards of a cluster; without one, this one.
    Default,
    /// This one.
    Shard,
    /// All shards of a cluster.
    Cluster,
    /// None of these words.
    Unknown,
}

/// Which sessions are shown, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter<'a> {
    /// With all fields of their requirements and registrations.
    pub verbose: bool,
    /// Those that were replaced or unregistered, and whose executions have not ended.
    pub dead: bool,
    /// Those with these ids, in this order.
    pub names: Option<Vec<&'a [u8]>>,
}

/// A command of a client. `tagged`: the client announced our codec (`RG.WITHCODEC`).
#[derive(Debug, Clone)]
pub enum Command<'a> {
    /// `RG.PYEXECUTE`.
    PyExecute {
        /// Its arguments.
        arguments: PyExecute<'a>,
        /// The session's id if none was given: forty random hexadecimal digits.
        new_id: &'a str,
        /// Whether results are tagged.
        tagged: bool,
    },
    /// `RG.TRIGGER`.
    Trigger {
        /// Name and arguments of the function.
        args: &'a [&'a [u8]],
        /// Whether results are tagged.
        tagged: bool,
    },
    /// A command of the server that is hooked: see [`Engine::hooks_call`](crate::Engine::hooks_call).
    Hooked {
        /// The command and its arguments.
        args: &'a [&'a [u8]],
    },
    /// `RG.GETRESULTS` or `RG.GETRESULTSBLOCKING`.
    GetResults {
        /// Identifier of the execution.
        execution: &'a [u8],
        /// Whether results are tagged.
        tagged: bool,
        /// Whether the client waits for the end of the execution.
        wait: bool,
    },
    /// `RG.DUMPEXECUTIONS`.
    DumpExecutions,
    /// `RG.DROPEXECUTION`.
    DropExecution {
        /// Identifier of the execution.
        execution: &'a [u8],
    },
    /// `RG.ABORTEXECUTION`.
    AbortExecution {
        /// Identifier of the execution.
        execution: &'a [u8],
    },
    /// `RG.GETEXECUTION`.
    GetExecution {
        /// Identifier of the execution.
        execution: &'a [u8],
        /// The shards that are asked.
        scope: Scope,
    },
    /// `RG.PYDUMPSESSIONS`.
    DumpSessions(SessionFilter<'a>),
    /// `RG.PYDUMPREQS`.
    DumpRequirements,
    /// `RG.PYEXPORTREQ`
    ExportRequirement(&'a [u8]),
    /// `RG.PYIMPORTREQ`
    ImportRequirement(&'a [&'a [u8]]),
    /// `RG.PAUSEREGISTRATIONS`.
    Pause {
        /// Identifiers of the registrations.
        registrations: &'a [&'a [u8]],
    },
    /// `RG.UNPAUSEREGISTRATIONS`.
    Unpause {
        /// Identifiers of the registrations.
        registrations: &'a [&'a [u8]],
    },
    /// `RG.PYPROFILE`.
    Profile {
        /// The session's id.
        session: &'a [u8],
        /// The statistics, in this order; `None`: they are forgotten.
        order: Option<&'a str>,
    },
    /// `RG.CLEARREGISTRATIONSSTATS`.
    ClearStatistics,
    /// `RG.CONFIGGET`.
    ConfigGet {
        /// Names of the keys.
        names: &'a [&'a [u8]],
    },
    /// `RG.CONFIGSET`.
    ConfigSet {
        /// Names of keys, each followed by its value.
        words: &'a [&'a [u8]],
    },
    /// `RG.DUMPREGISTRATIONS`.
    DumpRegistrations,
    /// `RG.UNREGISTER`.
    Unregister {
        /// Identifier of the registration.
        registration: &'a [u8],
        /// Triggers that clients wait for are aborted, too.
        abort_pending: bool,
    },
    /// `RG.INFOCLUSTER`.
    InfoCluster,
    /// `RG.REFRESHCLUSTER`.
    RefreshCluster,
    /// `RG.CLUSTERSET` or `RG.CLUSTERSETFROMSHARD`: a topology that was pushed.
    SetCluster {
        /// Name and arguments.
        args: &'a [&'a [u8]],
        /// Another shard sent it: it is used if there is none yet.
        from_shard: bool,
    },
    /// `RG.NETWORKTEST`.
    NetworkTest,
    /// `RG.HELLO`, of another shard.
    Hello,
    /// `RG.INNERMSGCOMMAND`, of another shard.
    PeerCommand {
        /// The id of the sender.
        sender: &'a [u8],
        /// The id of its run.
        run: &'a [u8],
        /// What the message is for.
        function: &'a [u8],
        /// The message.
        payload: &'a [u8],
        /// Its number.
        number: &'a [u8],
    },
}

/// Why there is no link to a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkFailure {
    /// Nothing answers there.
    Unreachable(String),
    /// The other side speaks TLS and we do not, or the other way round, or a certificate is not accepted.
    Tls(String),
    /// User or password are not accepted.
    Authentication(String),
    /// What answered is not a server.
    Protocol(String),
    /// The connection was lost.
    Lost(String),
}

/// The reply to a command on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkReply {
    /// A simple string.
    Status(Vec<u8>),
    /// A bulk string.
    Bulk(Vec<u8>),
    /// An error.
    Error(Vec<u8>),
    /// Anything else.
    Other,
}

/// What happened to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamChange {
    /// An entry was added.
    Added,
    /// The key may be a different stream now.
    Replaced,
}

/// Which output of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

/// An answer to a [`Question`](crate::effect::Question).
#[derive(Debug, Clone)]
pub enum Fact {
    /// The server's description of a command; `None`: it does not exist.
    Command(Option<CommandFacts>),
    /// The server's options that protect commands.
    Protection(Protection),
    /// Yes or no.
    Flag(bool),
    /// Names.
    Names(Vec<String>),
    /// Whether something was made, or why it is not permitted.
    Made(Result<bool, String>),
    /// Type of a key, and length of its value.
    Key {
        /// The type.
        kind: KeyType,
        /// The length: bytes of a string, entries of a stream.
        len: u64,
    },
    /// Whether something is permitted, or done; an error gives the reason if not.
    Permission(Result<(), String>),
    /// A number; `None`: it is not known.
    Number(Option<u64>),
    /// The progress of a worker.
    Progress {
        /// Bytes of an unfinished frame.
        unfinished_bytes: u64,
        /// Its process is stopped by a signal.
        stopped: bool,
    },
    /// What consumer groups have done with entries, in the order of the question; `None`: not known.
    Groups(Vec<Option<GroupProgress>>),
}

/// The result of one slice of a reader.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    /// Records that were written.
    pub count: u64,
    /// Their encoded form.
    pub records: Vec<u8>,
    /// The time that it took, in microseconds.
    pub micros: u64,
    /// The reader has ended.
    pub ended: bool,
    /// An error, which is a result of the execution and ends the reader; what was read before it is in `records`.
    pub error: Option<String>,
}

/// The result of one command that reads through a consumer group.
#[derive(Debug, Clone, Default)]
pub struct GroupPart {
    /// Ids of the entries that were read, those of deleted entries included.
    pub ids: Vec<EntryId>,
    /// Number of entries that were read.
    pub read: u64,
    /// Records that were written.
    pub count: u64,
    /// Their encoded form.
    pub records: Vec<u8>,
    /// Entries that cannot become records.
    pub errors: Vec<String>,
}

/// A wheel of a set of requirements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wheel {
    /// Its file.
    pub file: SavedWheel,
    /// The requirements that need it, by their indexes.
    pub needed_by: Vec<usize>,
}

/// Interpreters beside the default one, as the driver found them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interpreters {
    /// The versions that workers can be started with.
    pub versions: BTreeSet<PythonVersion>,
    /// Interpreters that cannot be used, each with the reason.
    pub refused: Vec<String>,
}

/// A set of requirements that can be imported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    /// Directories to be added to the path; none if the interpreter itself has all of it.
    pub paths: Vec<String>,
    /// The wheels that were installed.
    pub wheels: Vec<Wheel>,
}

impl Installed {
    /// The length of all wheels in bytes.
    #[must_use]
    pub fn wheel_bytes(&self) -> u64 {
        self.wheels.iter().map(|wheel| wheel.file.bytes).sum()
    }
}

/// The result of a check for requirements, or of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// They are there.
    Ready(Installed),
    /// The requirements have to be installed.
    Missing,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// The module was loaded: the first input.
    Started,
    /// A client sent a command. It is answered by one [`Reply`](crate::effect::Effect::Reply) (or
    /// [`EndRows`](crate::effect::Effect::EndRows)), after a [`Block`](crate::effect::Effect::Block) unless that is among
    /// the effects of this input and of what they cause.
    Command {
        /// The client.
        client: ClientNo,
        /// The origin.
        caller: &'a Caller,
        /// The command.
        command: Command<'a>,
    },
    /// A key was changed.
    KeyEvent {
        /// The key's database.
        database: Database,
        /// Name of the event.
        event: &'a str,
        /// The key.
        key: &'a [u8],
    },
    /// A stream was changed.
    StreamEvent {
        /// The stream's database.
        database: Database,
        /// The stream.
        key: &'a [u8],
        /// The kind of change.
        change: StreamChange,
    },
    /// The command that fired a job has ended.
    Job(JobNo),
    /// The server takes no job for the end of the running command.
    JobRefused(JobNo),
    /// A command of a client is about to begin (servers without jobs only).
    BetweenCommands,
    /// The server's loop is about to sleep: due work is done, then [`Input::Work`] follows.
    Turn,
    /// One piece of work of that kind.
    Work(Work),
    /// A timer fired.
    Timer(TimerNo),
    /// A worker's process runs.
    WorkerStarted {
        /// The worker.
        worker: WorkerNo,
        /// Its process id: that of its supervisor until the handshake.
        pid: u32,
    },
    /// A worker's process could not be started.
    WorkerNotStarted {
        /// The worker.
        worker: WorkerNo,
        /// The reason.
        reason: String,
    },
    /// The driver cannot use a worker any more.
    WorkerFailed {
        /// The worker.
        worker: WorkerNo,
        /// The reason: the text that follows "worker 3 (pid 7)".
        reason: String,
    },
    /// A worker sent frames.
    Received {
        /// The worker.
        worker: WorkerNo,
        /// The frames.
        frames: Frames,
    },
    /// A worker closed its connection.
    ConnectionClosed(WorkerNo),
    /// A worker sent invalid bytes.
    Garbled {
        /// The worker.
        worker: WorkerNo,
        /// The violation.
        reason: String,
    },
    /// Bytes were written to a worker.
    Written {
        /// The worker.
        worker: WorkerNo,
        /// Their number.
        bytes: u64,
    },
    /// A worker wrote to its standard output or error.
    Output {
        /// The worker.
        worker: WorkerNo,
        /// The output.
        stream: Stream,
        /// The bytes.
        bytes: &'a [u8],
        /// The output has ended.
        ended: bool,
    },
    /// All output of a worker until now was handed in.
    OutputDrained {
        /// The worker.
        worker: WorkerNo,
        /// The session that ended.
        session: Rc<str>,
    },
    /// A worker's process has ended. What it sent before has been handed in.
    ProcessEnded {
        /// The worker.
        worker: WorkerNo,
        /// How, such as `was killed by signal 9 (SIGKILL)`; `None`: it is not known.
        how: Option<String>,
    },
    /// An answer.
    Answer {
        /// The question.
        question: QuestionNo,
        /// What was found.
        fact: Fact,
    },
    /// A command of a function has ended.
    CommandDone {
        /// The command.
        command: CommandNo,
        /// Its encoded reply, or the error that the function sees.
        result: Result<Vec<u8>, String>,
    },
    /// The command that runs the atomic block has begun: see
    /// [`Engine::has_atomic_to_enter`](crate::Engine::has_atomic_to_enter).
    AtomicEntered,
    /// The command that runs the atomic block has ended; an error when it was refused.
    AtomicEnded(Result<(), String>),
    /// One frame of the worker that is waited for, of the code that is waited for.
    ServeFrame(WaitNo),
    /// The deadline of a wait has passed.
    WaitExpired(WaitNo),
    /// A wait has ended.
    Served(WaitNo),
    /// A slice was read for an execution.
    SliceRead {
        /// The execution.
        execution: ExecutionNo,
        /// Its reader, with the new position.
        reader: Reader,
        /// What was read.
        slice: Slice,
    },
    /// The record of the key that an execution is about.
    KeyRead {
        /// The execution.
        execution: ExecutionNo,
        /// The record, encoded, or an error, which is the execution's.
        record: Result<Vec<u8>, String>,
    },
    /// Entries were read through a consumer group for an execution; `None`: the stream no longer exists.
    GroupRead {
        /// The execution.
        execution: ExecutionNo,
        /// What was read, or an error, which is the execution's.
        part: Result<Option<GroupPart>, String>,
    },
    /// One step of a search for streams.
    StreamsFound {
        /// The registration that searches.
        registration: RegistrationNo,
        /// Keys that were found.
        keys: Vec<Vec<u8>>,
        /// The next cursor; `None`: the search has ended.
        next: Option<Vec<u8>>,
    },
    /// Entries were acknowledged: their number, or an error.
    Acknowledged {
        /// The batch.
        batch: BatchNo,
        /// Their number.
        result: Result<u64, String>,
    },
    /// A group was removed from some streams.
    GroupRemoved {
        /// The removal.
        removal: RemovalNo,
        /// The next cursor; `None`: the removal has ended.
        next: Option<Vec<u8>>,
    },
    /// A check for requirements, or an installation, has ended.
    Installed {
        /// Its number.
        install: InstallNo,
        /// The result.
        result: Result<Found, String>,
    },
    /// The interpreters beside the default one were looked for.
    InterpretersFound(Interpreters),
    /// A part of the wheels of a set of requirements was read, and sent to replicas and the append-only file:
    /// [`Effect::ReadNextPart`](crate::Effect::ReadNextPart) follows when other shards have it.
    WheelPart {
        /// The set.
        environment: Rc<str>,
        /// The part, as an encoded [`Change`].
        change: Vec<u8>,
    },
    /// The wheels of a set of requirements were sent to replicas and the append-only file, or cannot be read.
    WheelsShared {
        /// The set.
        environment: Rc<str>,
    },
    /// A requirement was read to be exported.
    Exported {
        /// The number of the request.
        export: u64,
        /// It, encoded; or why it cannot be read.
        result: Result<Vec<u8>, String>,
    },
    /// The wheels of an imported requirement were stored, or cannot be.
    Stored {
        /// The number of the request.
        import: u64,
        /// Why they cannot be stored.
        result: Result<(), String>,
    },
    /// The shards of the cluster: at the start of a server in cluster mode, at each change, and when it is asked for.
    Topology(Topology),
    /// A link is connected and authenticated.
    LinkOpened(LinkNo),
    /// The reply to the first command on a link that has none yet.
    LinkReply {
        /// The link.
        link: LinkNo,
        /// The reply.
        reply: LinkReply,
    },
    /// A link could not be opened, or was lost.
    LinkClosed {
        /// The link.
        link: LinkNo,
        /// Why.
        failure: LinkFailure,
    },
    /// The server became a master or a replica.
    RoleChanged,
    /// Data begins to be loaded, in place of what there is.
    LoadingBegan,
    /// A change of the registrations, from a data file or a master.
    Change(Change),
    /// A key that stands for a time event was loaded.
    TimeEventLoaded {
        /// The key's database.
        database: Database,
        /// The key.
        key: Vec<u8>,
        /// The time event.
        event: SavedTimeEvent,
    },
    /// The append-only file is being rewritten without the form of data files.
    FileRewritten,
    /// The data of two databases was swapped.
    DatabasesSwapped(Database, Database),
    /// The server is about to exit.
    Shutdown,
    /// A step that an earlier effect scheduled.
    Then(Step),
}
