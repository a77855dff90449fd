//! The effects: what the engine asks its driver to do.

use crate::streams::runs::EntryId;
use redgrease_core::frame::LogLevel;
use redgrease_core::id::{Database, ExecutionNo, RegistrationNo, WorkerNo};
use redgrease_core::python::PythonVersion;
use redgrease_core::render::Reply;
use redgrease_core::requirement::WheelFile;
use redgrease_core::saved::SavedWheel;

use crate::cluster::topology::Address;
use crate::executions::outcome::Outcome;
use crate::id::{BatchNo, ClientNo, CommandNo, InstallNo, JobNo, LinkNo, QuestionNo, RemovalNo, TimerNo, WaitNo};
use crate::input::{Actor, UserName};
use crate::prelude::*;
use crate::reader::Reader;
use crate::step::Step;

/// The answer to a client.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A reply.
    Value(Reply),
    /// `[results, errors]` of a run.
    Run(Outcome),
    /// What a triggered function returned, or its first error.
    Trigger(Outcome),
    /// What a function returned that replaced a command.
    Hook(Outcome),
    /// The reply of the command that was run for the client ([`Effect::RunForClient`]).
    OwnReply,
}

/// A command: name and arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Argv {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Argv {
    /// Copies a command.
    #[must_use]
    pub fn new(args: &[&[u8]]) -> Argv {
        let mut argv = Argv {
            bytes: Vec::with_capacity(args.iter().map(|arg| arg.len()).sum()),
            ends: Vec::with_capacity(args.len()),
        };
        for arg in args {
            argv.bytes.extend_from_slice(arg);
            argv.ends.push(argv.bytes.len());
        }
        argv
    }

    /// Name and arguments.
    #[must_use]
    pub fn args(&self) -> Vec<&[u8]> {
        let mut start = 0;
        let mut args = Vec::with_capacity(self.ends.len());
        for end in &self.ends {
            args.push(&self.bytes[start..*end]);
            start = *end;
        }
        args
    }

    /// Its size in bytes.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<usize>()
    }
}

/// A command of a function, to be run in the server as a user.
#[derive(Debug, Clone)]
pub struct RunCommand {
    /// Identifies it in [`Input::CommandDone`](crate::Input::CommandDone).
    pub command: CommandNo,
    /// Name and arguments.
    pub argv: Argv,
    /// The user and the database.
    pub actor: Actor,
    /// Its effects are sent to replicas and the append-only file.
    pub replicate: bool,
    /// The command only reads.
    pub reads: bool,
    /// Writes are refused with this text.
    pub write_refusal: Option<String>,
}

/// A question to the driver; answered by one [`Input::Answer`](crate::Input::Answer), at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// The server's description of the command with this (lower-case) name. [`Fact::Command`](crate::Fact::Command).
    Command(Vec<u8>),
    /// The server's options that protect commands. [`Fact::Protection`](crate::Fact::Protection).
    Protection,
    /// Type of a key and length of its value. [`Fact::Key`](crate::Fact::Key).
    Key {
        /// The key's database.
        database: Database,
        /// The key.
        key: Vec<u8>,
    },
    /// May a user run a command with these arguments? The error is in the server's words.
    /// [`Fact::Permission`](crate::Fact::Permission).
    MayRun {
        /// The user.
        user: UserName,
        /// The command.
        argv: Argv,
    },
    /// Make a key that stands for a time event, unless it exists: whether it was made.
    /// [`Fact::Made`](crate::Fact::Made).
    MakeTimeEventKey {
        /// The user who makes it; `None`: it comes from a master or a data file.
        user: Option<UserName>,
        /// The key's database.
        database: Database,
        /// The key.
        key: Vec<u8>,
        /// Its value: an encoded [`Change::TimeEvent`](redgrease_core::saved::Change::TimeEvent).
        value: Rc<[u8]>,
    },
    /// Does the key of a time event still have its value? [`Fact::Flag`](crate::Fact::Flag).
    HasTimeEventKey {
        /// The key's database.
        database: Database,
        /// The key.
        key: Vec<u8>,
        /// Its value.
        value: Rc<[u8]>,
    },
    /// Enabled users who may not run a command. [`Fact::Names`](crate::Fact::Names).
    UsersWithout(Vec<u8>),
    /// May a user read a key? [`Fact::Permission`](crate::Fact::Permission).
    MayRead {
        /// The user.
        user: UserName,
        /// The key.
        key: Vec<u8>,
    },
    /// May a user read a stream through a group and acknowledge its entries? [`Fact::Permission`](crate::Fact::Permission).
    MayConsume {
        /// The user.
        user: UserName,
        /// The stream.
        key: Vec<u8>,
        /// Whether entries are removed, too.
        trim: bool,
    },
    /// Number of keys of a database, unless some of them may have expired. [`Fact::Number`](crate::Fact::Number).
    DatabaseSize(Database),
    /// Has a blocked client left? [`Fact::Flag`](crate::Fact::Flag).
    ClientIsGone(ClientNo),
    /// Do all these directories exist? [`Fact::Flag`](crate::Fact::Flag).
    DirectoriesExist(Vec<String>),
    /// Resident memory of a worker, in bytes. [`Fact::Number`](crate::Fact::Number).
    ResidentBytes(WorkerNo),
    /// Resident memory of a worker and all that it started, in bytes. [`Fact::Number`](crate::Fact::Number).
    TotalBytes(WorkerNo),
    /// The progress of a worker. [`Fact::Progress`](crate::Fact::Progress).
    Progress(WorkerNo),
    /// Has the process of a worker that closed its connection ended, even if its parent has not been notified?
    /// [`Fact::Flag`](crate::Fact::Flag).
    ProcessIsGone(WorkerNo),
    /// Verifies the process id that a worker names in its handshake; an error if that process is not a child of its
    /// supervisor. [`Fact::Permission`](crate::Fact::Permission).
    AdoptProcess {
        /// The worker.
        worker: WorkerNo,
        /// The process id.
        pid: u64,
    },
    /// How many entries follow an id, counted up to `max`. [`Fact::Number`](crate::Fact::Number).
    EntriesAfter {
        /// The stream's database.
        database: Database,
        /// The stream.
        stream: Vec<u8>,
        /// The id.
        after: EntryId,
        /// The largest number of interest.
        max: u64,
    },
    /// What consumer groups have done with entries. [`Fact::Groups`](crate::Fact::Groups).
    Groups {
        /// The stream's database.
        database: Database,
        /// The stream.
        stream: Vec<u8>,
        /// Names of the groups.
        groups: Vec<Vec<u8>>,
        /// The lowest id of interest.
        first: EntryId,
        /// The highest one.
        last: EntryId,
    },
}

/// Where a read through a consumer group starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupPosition {
    /// Entries that were never delivered.
    New,
    /// Entries that were delivered and not acknowledged, after this id.
    Pending(Option<EntryId>),
}

/// One read through a consumer group. A missing group is created at the beginning of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRead {
    /// The user and the database.
    pub actor: Actor,
    /// The stream.
    pub stream: Vec<u8>,
    /// The group.
    pub group: Vec<u8>,
    /// Where it starts.
    pub position: GroupPosition,
    /// Maximum number of entries.
    pub count: u64,
}

/// A check for requirements, or their installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// Identifies it in [`Input::Installed`](crate::Input::Installed).
    pub install: InstallNo,
    /// The set of requirements: names the directory.
    pub environment: Rc<str>,
    /// The requirements as given.
    pub requirements: Rc<[String]>,
    /// The interpreter that they are for; `None`: the default one.
    pub python: Option<PythonVersion>,
    /// Install them again if they are present.
    pub force: bool,
    /// Only check whether they are present.
    pub check: bool,
}

/// Wheels of a set of requirements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WheelsOf {
    /// The set.
    pub environment: String,
    /// The wheels.
    pub wheels: Vec<SavedWheel>,
    /// Only their names and digests are sent: they are too big.
    pub locked: bool,
}

/// Something to be done by the driver. Effects are performed in order; an input that an effect causes is handled, and its
/// effects are performed, before the next one.
#[derive(Debug)]
pub enum Effect {
    /// Block a client whose command ends without a reply.
    Block(ClientNo),
    /// Until its reply, time is attributed to the client's command.
    Measure(ClientNo),
    /// Answer a client.
    Reply {
        /// The client.
        client: ClientNo,
        /// The reply.
        answer: Answer,
    },
    /// One element of an array that a blocked client is answered with in parts.
    Row {
        /// The client.
        client: ClientNo,
        /// The element.
        row: Reply,
    },
    /// The end of that array.
    EndRows(ClientNo),

    /// Start a process for a worker: [`Input::WorkerStarted`](crate::Input::WorkerStarted) or
    /// [`Input::WorkerNotStarted`](crate::Input::WorkerNotStarted) follows later.
    StartWorker {
        /// The worker.
        worker: WorkerNo,
        /// Its interpreter; `None`: the default one.
        python: Option<PythonVersion>,
    },
    /// Look for interpreters: [`Input::InterpretersFound`](crate::Input::InterpretersFound) follows later.
    FindInterpreters,
    /// Output for a worker is available: [`Engine::take_output`](crate::Engine::take_output). It is written at the
    /// latest before the loop sleeps, and reported by [`Input::Written`](crate::Input::Written).
    Write(WorkerNo),
    /// End a worker's process.
    Kill(WorkerNo),
    /// Remove a worker: nothing is read from it any more, and its process is ended.
    Close {
        /// The worker.
        worker: WorkerNo,
        /// The last frames for it.
        last: Vec<u8>,
    },
    /// Stop reading from a worker.
    PauseReading(WorkerNo),
    /// Resume reading from it.
    ResumeReading(WorkerNo),
    /// Hand in everything that a worker has written to its outputs so far ([`Input::Output`](crate::Input::Output)), then
    /// [`Input::OutputDrained`](crate::Input::OutputDrained).
    DrainOutput {
        /// The worker.
        worker: WorkerNo,
        /// The session that wrote it.
        session: Rc<str>,
    },

    /// Read the topology of the cluster again: [`Input::Topology`](crate::Input::Topology) follows at once, also if it has not
    /// changed.
    ReadTopology,
    /// Connect to a shard and authenticate: [`Input::LinkOpened`](crate::Input::LinkOpened) or
    /// [`Input::LinkClosed`](crate::Input::LinkClosed) follows later.
    OpenLink {
        /// The link.
        link: LinkNo,
        /// Where.
        address: Address,
    },
    /// Send a command on an open link: [`Input::LinkReply`](crate::Input::LinkReply) follows later, in the order of the
    /// commands.
    SendOnLink {
        /// The link.
        link: LinkNo,
        /// Name and arguments.
        command: Argv,
    },
    /// Close a link: nothing of it is reported any more.
    CloseLink(LinkNo),

    /// [`Input::Timer`](crate::Input::Timer) follows after this many milliseconds.
    SetTimer {
        /// The timer.
        timer: TimerNo,
        /// The time.
        ms: u64,
    },
    /// [`Input::Answer`](crate::Input::Answer) follows at once.
    Ask {
        /// The question's number.
        question: QuestionNo,
        /// The question.
        about: Question,
    },

    /// Run a command: [`Input::CommandDone`](crate::Input::CommandDone) follows at once.
    Run(RunCommand),
    /// Run a command for a client, as its user; its reply is kept for [`Answer::OwnReply`].
    RunForClient {
        /// The client.
        client: ClientNo,
        /// Name and arguments.
        argv: Argv,
        /// The user and the database.
        actor: Actor,
    },
    /// Run the internal command that makes an atomic block one unit of replication, in this database:
    /// [`Input::AtomicEntered`](crate::Input::AtomicEntered) comes from inside it, and
    /// [`Input::AtomicEnded`](crate::Input::AtomicEnded) follows at once.
    EnterAtomic(Database),
    /// Serve one worker only: while [`Engine::is_waiting`](crate::Engine::is_waiting), hand in what it sends;
    /// [`Input::Served`](crate::Input::Served) follows at once.
    Serve {
        /// The wait.
        wait: WaitNo,
        /// The worker.
        worker: WorkerNo,
    },

    /// Read a slice: [`Input::SliceRead`](crate::Input::SliceRead) follows at once.
    ReadSlice {
        /// The execution that reads.
        execution: ExecutionNo,
        /// The user and the database.
        actor: Actor,
        /// The reader.
        reader: Reader,
        /// Records are only counted, and need not be created.
        count_only: bool,
    },
    /// Read the current value of the key of an event: [`Input::KeyRead`](crate::Input::KeyRead) follows at once.
    ReadKey {
        /// The execution that reads.
        execution: ExecutionNo,
        /// The user and the database.
        actor: Actor,
        /// The key.
        key: Box<[u8]>,
        /// Name of the event.
        event: Rc<str>,
        /// Whether the record contains type and value.
        read_value: bool,
    },
    /// Read through a consumer group: [`Input::GroupRead`](crate::Input::GroupRead) follows at once.
    ReadGroup {
        /// The execution that reads.
        execution: ExecutionNo,
        /// The read.
        read: GroupRead,
    },

    /// One step of a search for streams: [`Input::StreamsFound`](crate::Input::StreamsFound) follows at once.
    SearchStreams {
        /// The registration that searches.
        registration: RegistrationNo,
        /// The database.
        database: Database,
        /// The server's cursor; `0` at the start.
        cursor: Vec<u8>,
    },
    /// Acknowledge entries: [`Input::Acknowledged`](crate::Input::Acknowledged) follows at once.
    Acknowledge {
        /// The batch that they belong to.
        batch: BatchNo,
        /// The user and the database.
        actor: Actor,
        /// The stream.
        stream: Vec<u8>,
        /// The group.
        group: Vec<u8>,
        /// The entries.
        ids: Vec<EntryId>,
    },
    /// Remove entries from a stream; a failure is logged.
    RemoveEntries {
        /// The user and the database.
        actor: Actor,
        /// The stream.
        stream: Vec<u8>,
        /// The entries.
        ids: Vec<EntryId>,
    },
    /// Remove a consumer group from some streams of a database: [`Input::GroupRemoved`](crate::Input::GroupRemoved) follows
    /// at once.
    RemoveGroup {
        /// The removal.
        removal: RemovalNo,
        /// The database.
        database: Database,
        /// The group.
        group: Vec<u8>,
        /// The server's cursor; `0` at the start.
        cursor: Vec<u8>,
    },

    /// [`Input::Job`](crate::Input::Job) follows when the running command has ended, or
    /// [`Input::JobRefused`](crate::Input::JobRefused) at once.
    AfterCommand(JobNo),
    /// Report changes of keys and streams from now on.
    Subscribe,
    /// From now on report changes of keys and streams.
    WatchCommands(bool),
    /// From now on report calls of commands that are hooked, as [`Command::Hooked`](crate::input::Command::Hooked), or not any
    /// more.
    WatchHooks(bool),
    /// Send a change of the registrations to replicas and the append-only file: see [`Input::Change`](crate::Input::Change).
    Replicate(Vec<u8>),
    /// The same, to the append-only file only.
    ReplicateToFile(Vec<u8>),
    /// Check for requirements or install them: [`Input::Installed`](crate::Input::Installed) follows later.
    Install(Install),
    /// Send the wheels of a set of requirements to replicas and the append-only file, in parts:
    /// [`Input::WheelsShared`](crate::Input::WheelsShared) follows later.
    ShareWheels(WheelsOf),
    /// Read the next part of the wheels of a set that are being sent: see [`Input::WheelPart`](crate::Input::WheelPart).
    ReadNextPart(Rc<str>),
    /// Keep a part of a wheel.
    KeepPart {
        /// The set of requirements.
        environment: String,
        /// The wheel's file name.
        file: String,
        /// Where the part begins, in bytes.
        offset: u64,
        /// The part.
        part: Vec<u8>,
    },
    /// All parts of the wheels of a set were kept: from now on the set is installed from them.
    KeepWheels(WheelsOf),
    /// Write the wheels of sets to the append-only file, which is being rewritten.
    WheelsToFile(Vec<WheelsOf>),
    /// Read wheels and encode them with the name of their requirement: [`Input::Exported`](crate::Input::Exported) follows
    /// later.
    ExportWheels {
        /// The number of the request.
        export: u64,
        /// The requirement.
        name: String,
        /// The platform of the wheels.
        platform: &'static str,
        /// The wheels.
        wheels: WheelsOf,
    },
    /// Store the wheels of an imported requirement: [`Input::Stored`](crate::Input::Stored) follows later.
    StoreWheels {
        /// The number of the request.
        import: u64,
        /// The set with that requirement only.
        environment: Rc<str>,
        /// The wheels.
        wheels: Vec<WheelFile>,
    },
    /// Remove the directory of a set of requirements.
    RemoveEnvironment(Rc<str>),
    /// Write a line to the server's log.
    Log {
        /// The log level.
        level: LogLevel,
        /// The text.
        text: String,
    },
    /// [`Input::Then`](crate::Input::Then) follows at once.
    Then(Step),
}

impl Answer {
    /// An error of the engine; its text begins with its code.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Answer {
        Answer::Value(Reply::Error(text.into()))
    }

    /// Creates the reply. Rendering many results takes time: it is done when the reply is written.
    #[must_use]
    pub fn into_reply(self) -> Reply {
        match self {
            Answer::Value(reply) => reply,
            Answer::Run(outcome) => outcome.of_run(),
            Answer::Trigger(outcome) => outcome.of_trigger(),
            Answer::Hook(outcome) => outcome.of_hook(),
            Answer::OwnReply => Reply::Error("INTERNAL the command's own reply is not there".to_owned()),
        }
    }
}
