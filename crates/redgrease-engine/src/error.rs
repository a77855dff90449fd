//! Why the engine refuses or ends something.
//!
//! Texts that clients of RedisGears match on are unchanged. Others begin with a code of
//! [`redgrease_core::error_code::CODES`].

use redgrease_core::id::{Identifier, ShardId};
use redgrease_core::python::PythonVersion;
use thiserror::Error;

use crate::limits::{
    DEATHS_MAX, DEFERRED_BYTES_MAX, DEFERRED_MAX, DEFERRED_MS_MAX, EXPORTS_MAX, HELD_PER_SESSION_MAX, INSTALLS_MAX,
    LINK_MESSAGE_BYTES_MAX, LINK_QUEUE_BYTES_MAX, LIVE_PER_SESSION_MAX, PROFILE_MS_MAX, RECEIVED_BYTES_MAX,
    REGISTRATIONS_PER_SESSION_MAX, SYNC_DEPTH_MAX, TIME_EVENTS_MAX, WAITING_SESSIONS_MAX, WORKER_WAIT_MS_MAX,
};
use crate::prelude::*;

/// An error of the engine, worded for a client or for the author of a function.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no interpreter.
    #[error("NOPYTHON {0}")]
    NoRuntime(String),
    /// `RG.PYEXECUTE` where its client cannot be blocked.
    #[error("Can not run gears inside a multi exec, lua, or when blocking is not allowed")]
    ScriptNotHere,
    /// `RG.PYEXECUTE` on a read-only replica.
    #[error("READONLY scripts are not run on a read-only replica: ask its master")]
    ScriptOnReplica,
    /// Registrations are changed on a server that is, or has become, a read-only replica.
    #[error("READONLY a replica has the registrations of its master: change them there")]
    RegistrationsOfReplica,
    /// The new session exists already, and another one is to be replaced.
    #[error("Can not replace an existing session {id} with {old}")]
    ReplaceExisting {
        /// The new session.
        id: String,
        /// The session to be replaced.
        old: String,
    },
    /// The new session exists already.
    #[error("Session {0} already exists")]
    SessionExists(String),
    /// There is no session or registration to be replaced.
    #[error("Can not replace with {0}, session does not exists.")]
    NothingToReplace(String),
    /// The object belongs to another user.
    #[error(
        "NOPERM the user '{user}' may not {what} of the user '{owner}': that needs permission for RG.ADMINISTER \
         (category @admin)"
    )]
    NotOwner {
        /// The user of the caller.
        user: String,
        /// The refused operation.
        what: &'static str,
        /// The owner.
        owner: String,
    },
    /// Too many sessions wait for a worker.
    #[error("WORKERBUSY more than {WAITING_SESSIONS_MAX} scripts wait for a worker")]
    TooManyWait,
    /// A session waited for a worker for too long.
    #[error(
        "WORKERBUSY no worker became free within {WORKER_WAIT_MS_MAX} ms: all of MaxWorkers ({workers_max}) serve other \
         users, other requirements or registrations; raise it or unregister what is not needed"
    )]
    NoWorkerFree {
        /// `MaxWorkers`.
        workers_max: usize,
    },
    /// A worker's process could not be started.
    #[error("WORKERSTART worker {worker} could not be started: {reason}")]
    NotStarted {
        /// The worker.
        worker: u64,
        /// The reason.
        reason: String,
    },
    /// A worker ended before it finished its handshake.
    #[error(
        "WORKERSTART {head} before its handshake; is the package redgrease installed for {runtime}? Its last line: \
         {last_line}"
    )]
    NoHandshake {
        /// The worker, and how it ended.
        head: String,
        /// The interpreter.
        runtime: String,
        /// The last line that it wrote to standard error.
        last_line: String,
    },
    /// A worker ended while it ran a script.
    #[error("WORKERDIED {0} while it ran the script")]
    DiedInScript(String),
    /// A worker ended before an execution began.
    #[error("WORKERDIED {0} before the execution began")]
    DiedBefore(String),
    /// A worker ended while it ran an execution.
    #[error("WORKERDIED {head} in {place} of execution {execution}")]
    Died {
        /// The worker, and how it ended.
        head: String,
        /// The step.
        place: String,
        /// The execution's identifier.
        execution: String,
    },
    /// A hook gave no result, or several.
    #[error("Command hook must return exactly one result")]
    NotOneResult,
    /// `call_next` outside of a hook.
    #[error("Can not get CommandHook ctx")]
    NotHooked,
    /// `get_command` or `override_reply` where no client waits.
    #[error("Can not get command ctx")]
    NoCommand,
    /// `override_reply` for the second time.
    #[error("Can only override reply once")]
    RepliedTwice,
    /// A hook in front of one that is not sync.
    #[error("Can not override a none sync registration")]
    HookNotSync,
    /// The same, in one script.
    #[error("Can not override a none sync registration which already created on this session")]
    HookNotSyncInSession,
    /// Users who could not call a hooked command.
    #[error(
        "NOPERM these users may not call hooked commands: {0}. Give them permission for rg.innerhook \
         (ACL SETUSER name +rg.innerhook), or set HooksWithoutPermission to 1"
    )]
    UsersWithoutHook(String),
    /// The outcome of an execution is not kept.
    #[error("NORESULTS the results of execution {0} are not kept: await what run() returned at once")]
    NoResults(String),
    /// The results of an execution are too long for the function that waits for them.
    #[error("RESULTTOOBIG the results of {len} bytes are longer than {max}: aggregate, or write them to keys")]
    ResultsTooBigForCall {
        /// Their length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A worker ended before it answered a client.
    #[error("WORKERDIED {0} before it answered")]
    DiedBeforeAnswer(String),
    /// A worker did not answer a request for a profile.
    #[error("WORKERBUSY the session's worker did not answer within {PROFILE_MS_MAX} ms: its functions keep it busy")]
    NoProfile,
    /// There is no such session.
    #[error("session does not exists")]
    NoSuchSession,
    /// A session's worker is being replaced.
    #[error("WORKERDOWN the worker of session '{0}' is being replaced: try again")]
    SessionDown(String),
    /// The worker of an execution's session is being replaced.
    #[error("WORKERDOWN the session's worker is being replaced: try again")]
    WorkerDown,
    /// A session's worker died too often.
    #[error("WORKERDOWN the session's worker died {DEATHS_MAX} times without finishing an execution, last: {0}")]
    DiedTooOften(String),
    /// Too many executions wait for a worker to be replaced.
    #[error("WORKERDOWN more than {HELD_PER_SESSION_MAX} executions wait for the session's worker")]
    TooManyHeld,
    /// A session could not be rebuilt.
    #[error("BROKEN the session could not be rebuilt: {0}")]
    Broken(String),
    /// A session was made by another version of the interpreter.
    #[error(
        "BROKEN the functions were made with Python {stored}, and the workers of this server run Python {present}: install \
         Python {stored} on the server's host, and name it with the load argument Pythons if it is not on the server's path, \
         or run the script again with UPGRADE"
    )]
    OtherPython {
        /// The version that made them.
        stored: String,
        /// The version of the worker.
        present: String,
    },
    /// A client's function needs an interpreter that is not there.
    #[error(
        "PYTHONVERSION the function was made with Python {wanted}, and the workers of this server run Python {present}: \
         install Python {wanted} on the server's host, and name it with the load argument Pythons if it is not on the \
         server's path; or use one of the server's versions; or send the function as text{}",
        if refused.is_empty() { String::new() } else { format!(" (not used: {refused})") }
    )]
    NoSuchPython {
        /// The version that made it.
        wanted: PythonVersion,
        /// The versions of workers.
        present: String,
        /// Interpreters that cannot be used, each with the reason.
        refused: String,
    },
    /// A session has ended.
    #[error("NOSESSION the session has ended")]
    SessionEnded,
    /// A session is in another worker.
    #[error("NOSESSION the session lives in another worker")]
    SessionElsewhere,
    /// Too many executions of a session.
    #[error("TOOMANY more than {LIVE_PER_SESSION_MAX} executions of the session have not ended")]
    TooManyExecutions,
    /// Too many registrations of a session.
    #[error("TOOMANY a session has at most {REGISTRATIONS_PER_SESSION_MAX} registrations")]
    TooManyRegistrations,
    /// Too many time events.
    #[error("TOOMANY there are {TIME_EVENTS_MAX} time events already")]
    TooManyTimeEvents,
    /// A script asks for a second execution.
    #[error("Can not run more then 1 executions in a single script")]
    SecondRun,
    /// `run` with mode `sync`.
    #[error("unknown execution mode")]
    UnknownMode,
    /// A function was to be run on all shards, and its worker did not know that there are others.
    #[error("SHARDLATE the server became one of several shards while the function was run: run it again")]
    ShardsAppeared,
    /// A shard that an execution needs was lost.
    #[error("SHARDLOST shard {shard}: {reason}")]
    ShardLost {
        /// The shard.
        shard: ShardId,
        /// What happened to it.
        reason: String,
    },
    /// A shard does not have the registration of an execution.
    #[error("SHARDLATE shard {shard} does not have the registration {registration} yet: try again")]
    RegistrationNotOnShard {
        /// The shard.
        shard: ShardId,
        /// The registration.
        registration: Identifier,
    },
    /// The part of an execution that another shard asked for cannot be run.
    #[error("BADMESSAGE shard {shard} sent a function that is not readable: {reason}")]
    FunctionNotReadable {
        /// The shard.
        shard: ShardId,
        /// What is wrong.
        reason: String,
    },
    /// A shard has not answered in time.
    #[error("SHARDLATE shard {shard} has not answered within {ms} ms")]
    InquiryLate {
        /// The shard.
        shard: ShardId,
        /// The time, in milliseconds.
        ms: u64,
    },
    /// A shard has not applied a change in time.
    #[error("SHARDLATE it has not applied the change within {0} ms; it gets it later")]
    ChangeLate(u64),
    /// A change of a session is older than the last one.
    #[error("SHARDLATE another client has changed the session at the same time, and that change counts")]
    LaterChange,
    /// A change of another shard that only data files have.
    #[error("BADMESSAGE a change of this kind is not sent between shards")]
    PeerChange,
    /// Another shard has a trigger of that name.
    #[error("trigger already registered: '{0}'")]
    TriggerTakenOnShard(String),
    /// A data file has a registration twice.
    #[error("the identifier {0} exists already")]
    SavedTwice(Identifier),
    /// There is no such execution.
    #[error("execution plan does not exist")]
    NoExecution,
    /// There is no such execution, for `RG.ABORTEXECUTION`.
    #[error("execution does not exist")]
    NothingToAbort,
    /// There is no such registration.
    #[error("execution is not registered")]
    NotRegistered,
    /// There is no such registration, for `RG.PAUSEREGISTRATIONS`.
    #[error("Execution {id} does not exists on shard {shard}")]
    NoSuchRegistration {
        /// The identifier that was given.
        id: String,
        /// The shard.
        shard: String,
    },
    /// The reader of a registration cannot be paused.
    #[error("Reader {reader} does not support {verb}")]
    CannotPause {
        /// The reader.
        reader: &'static str,
        /// `pause` or `unpause`.
        verb: &'static str,
    },
    /// `RG.PAUSEREGISTRATIONS` without a registration.
    #[error("ERR no registration to pause")]
    NothingToPause,
    /// `RG.GETEXECUTION` of all shards on a server that has no others.
    #[error("unknown subcommand")]
    UnknownSubcommand,
    /// A scope that needs a cluster.
    #[error("no cluster detected - use `RG.GETEXECUTION <id> [SHARD]` instead")]
    NoCluster,
    /// An execution has not ended.
    #[error("execution is still running")]
    StillRunning,
    /// An execution was aborted before it began.
    #[error("ERR the execution was aborted")]
    WasAborted,
    /// A command would have to wait inside a transaction.
    #[error("ERR Blocking module command called from transaction")]
    WaitInTransaction,
    /// A command would have to wait inside a script.
    #[error("ERR Blocking module command called from Lua script")]
    WaitInScript,
    /// A command would have to wait where its caller cannot be blocked.
    #[error("ERR the command has to wait, and blocking is not allowed here")]
    WaitNotAllowed,
    /// There is no trigger of that name.
    #[error("ERR subcommand not found")]
    NoTrigger,
    /// A trigger on a read-only replica.
    #[error("READONLY functions are not run on a read-only replica: ask its master")]
    TriggerOnReplica,
    /// A trigger that is not sync, where its client cannot be blocked.
    #[error("ERR can not run a non-sync execution inside a MULTI/LUA (blocking is not allowed) or on loading.")]
    TriggerNotHere,
    /// A registration was removed.
    #[error("ERR Could not trigger execution, the registration is gone")]
    TriggerGone,
    /// The arguments of a trigger are too long.
    #[error("RECORDTOOBIG the arguments have {len} bytes, more than MaxRecordBytes ({max})")]
    ArgumentsTooBig {
        /// Their length.
        len: usize,
        /// `MaxRecordBytes`.
        max: usize,
    },
    /// Sync executions are nested too deep.
    #[error("SYNCDEPTH sync executions are nested deeper than {SYNC_DEPTH_MAX}")]
    TooDeep,
    /// An execution ran too long.
    #[error("TOOLONG the execution ran longer than ExecutionMaxTime ({0} ms) and was aborted")]
    TooLong(u64),
    /// Results are too long.
    #[error(
        "RESULTTOOBIG the results are longer than ResultBytesMax ({0} bytes): raise it, or aggregate, or write them to keys"
    )]
    ResultsTooBig(usize),
    /// Code of a worker names an execution or session of another worker.
    #[error("NOPERM the caller does not run in this worker")]
    NotInWorker,
    /// A caller ended while its call waited.
    #[error("NOPERM the caller has ended")]
    CallerEnded,
    /// A caller is not known.
    #[error("NOPERM the caller is unknown")]
    CallerUnknown,
    /// A write of a function on a read-only replica, in the server's words.
    #[error("READONLY You can't write against a read only replica.")]
    WriteOnReplica,
    /// Clients are paused.
    #[error("PAUSED clients are paused")]
    Paused,
    /// Clients are paused, and the caller is waited for.
    #[error("PAUSED clients are paused, and a sync function cannot wait")]
    PausedInSync,
    /// Clients are paused for too long.
    #[error("PAUSED clients are paused for longer than {DEFERRED_MS_MAX} ms: try again later")]
    PausedTooLong,
    /// Too many calls wait.
    #[error("PAUSED clients are paused, and {DEFERRED_MAX} calls of functions wait already")]
    TooManyDeferred,
    /// The waiting calls are too large.
    #[error(
        "PAUSED clients are paused, and calls of functions with {0} bytes wait already: the limit is {DEFERRED_BYTES_MAX} \
         bytes for all"
    )]
    DeferredTooBig(usize),
    /// An atomic block inside another one.
    #[error("Already inside an atomic block")]
    AlreadyAtomic,
    /// The client that waited for an installation has left.
    #[error("the client has left")]
    ClientLeft,
    /// A requirement that is not known.
    #[error("requirement does not exists")]
    NoRequirement,
    /// A requirement without wheels.
    #[error(
        "Requirement was not installed yet: '{0}' has no wheels, because the workers' interpreter itself satisfies it"
    )]
    NoWheels(String),
    /// A requirement whose wheels are too big to be exported.
    #[error("the wheels of '{name}' have {bytes} bytes, more than MaxRequirementBytes ({max})")]
    RequirementTooBig {
        /// The requirement.
        name: String,
        /// The length of its wheels.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// Too many exports or imports are in progress.
    #[error("ERR more than {EXPORTS_MAX} requirements are being exported or imported: try again")]
    TooManyExports,
    /// A requirement is imported on a replica.
    #[error("READONLY a replica gets the requirements of its master: import it there")]
    ImportOnReplica,
    /// A requirement whose wheels were made on another platform.
    #[error("the wheels of '{name}' were made on {platform}: export it on a server like this one")]
    OtherPlatform {
        /// The requirement.
        name: String,
        /// Its platform.
        platform: String,
    },
    /// The name of an imported requirement is not one.
    #[error("Bad serialization format on reading requirement name: '{0}'")]
    NotImportable(String),
    /// Too many installations wait.
    #[error("Could not satisfy requirements: more than {INSTALLS_MAX} installations are waiting")]
    TooManyInstalls,
    /// Installations of others took too long.
    #[error("Could not satisfy requirements: other installations took longer than InstallMax ({0} ms)")]
    InstallsTooLong(u64),
    /// A sync execution ended without an outcome.
    #[error("INTERNAL the sync execution did not end")]
    SyncWithoutEnd,
    /// A panic while a command of a function ran.
    #[error("INTERNAL the server's module failed while it ran the command")]
    Failed,
    /// `RG.HELLO` on a server that knows no topology.
    #[error("ERRCLUSTER NULL cluster state on hello msg")]
    HelloWithoutCluster,
    /// A message of another shard on a server that knows no topology.
    #[error("ERRCLUSTER NULL cluster state")]
    MessageWithoutCluster,
    /// A message of another shard on a server whose topology has one shard.
    #[error("ERRCLUSTER Uninitialized cluster state")]
    MessageToOnlyShard,
    /// A message of another shard whose number is not one.
    #[error("bad msg id given")]
    BadMessageNumber,
    /// A message of another shard with a function that is not known.
    #[error("can not find the callback requested")]
    NoSuchReceiver,
    /// A shard has another address than the topology says.
    #[error("PEERADDRESS shard {peer} is not at its address: shard {found} answers there; is the topology up to date?")]
    PeerAddress {
        /// The shard.
        peer: String,
        /// The shard that answers.
        found: String,
    },
    /// A shard does not accept user or password.
    #[error("PEERAUTH shard {peer} refuses user or password of this server: {reason}; see masteruser and masterauth")]
    PeerAuth {
        /// The shard.
        peer: String,
        /// The reason.
        reason: String,
    },
    /// There is no connection to a shard.
    #[error("PEERDOWN shard {peer} cannot be reached: {reason}")]
    PeerDown {
        /// The shard.
        peer: String,
        /// The reason.
        reason: String,
    },
    /// A shard answers with errors.
    #[error("PEERFAILED shard {peer} refuses messages: {reason}")]
    PeerFailed {
        /// The shard.
        peer: String,
        /// Its error.
        reason: String,
    },
    /// A message to a shard was not acknowledged.
    #[error("PEERFAILED shard {peer} did not acknowledge a message that was sent {attempts} times (SendMsgRetries)")]
    PeerRetries {
        /// The shard.
        peer: String,
        /// `SendMsgRetries`.
        attempts: u64,
    },
    /// What answers at the address of a shard is something else.
    #[error("PEERFOREIGN shard {peer} is not redgrease: {reason}")]
    PeerForeign {
        /// The shard.
        peer: String,
        /// What it answers.
        reason: String,
    },
    /// A shard is not, or no longer, part of the cluster.
    #[error("PEERGONE shard {0} is not part of the cluster")]
    PeerGone(String),
    /// A shard says something that redgrease does not say.
    #[error("PEERPROTOCOL shard {peer} violates the protocol: {what}")]
    PeerProtocol {
        /// The shard.
        peer: String,
        /// The violation.
        what: String,
    },
    /// Too many bytes wait for a shard.
    #[error("PEERQUEUE more than {LINK_QUEUE_BYTES_MAX} bytes of messages wait for shard {0}: it is too slow")]
    PeerQueueFull(String),
    /// A message is too long.
    #[error("PEERQUEUE a message of {len} bytes to shard {peer} is longer than {LINK_MESSAGE_BYTES_MAX} bytes")]
    PeerMessageTooLong {
        /// The shard.
        peer: String,
        /// Its length.
        len: usize,
    },
    /// Too many bytes of other shards wait here.
    #[error("PEERQUEUE more than {RECEIVED_BYTES_MAX} bytes of messages wait on the receiving shard")]
    ReceivedTooMuch,
    /// A shard, or this one, gave up messages between both.
    #[error(
        "PEERRESET messages between this server and shard {0} were given up by one of both: the other one did not answer \
         in time, or was not part of the cluster for a moment"
    )]
    PeerReset(String),
    /// A shard has restarted.
    #[error("PEERRESTARTED shard {0} has restarted")]
    PeerRestarted(String),
    /// A shard does not answer, although it may be connected.
    #[error("PEERSILENT shard {peer} does not answer for {ms} ms (ExecutionMaxIdleTime)")]
    PeerSilent {
        /// The shard.
        peer: String,
        /// The time.
        ms: u64,
    },
    /// There is no TLS connection to a shard.
    #[error("PEERTLS shard {peer} cannot be reached: TLS: {reason}; is tls-cluster the same on all shards?")]
    PeerTls {
        /// The shard.
        peer: String,
        /// The reason.
        reason: String,
    },
    /// A shard has another version.
    #[error(
        "PEERVERSION shard {peer} runs redgrease {theirs}, and this server {ours}: their messages differ; install the same \
         version on all shards. Functions on one shard (mode='async_local') go on"
    )]
    PeerVersion {
        /// The shard.
        peer: String,
        /// Its version.
        theirs: String,
        /// That of this server.
        ours: String,
    },
}

impl From<Error> for String {
    fn from(error: Error) -> String {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redgrease_core::error_code::code_of;

    #[test]
    fn each_error_of_ours_begins_with_a_code_of_the_table() {
        let text = || "x".to_owned();
        let id = || Identifier { shard: ShardId::standalone(), counter: 1 };
        let expected = [
            (Error::NoRuntime(text()), "NOPYTHON"),
            (Error::ScriptOnReplica, "READONLY"),
            (Error::RegistrationsOfReplica, "READONLY"),
            (Error::NotOwner { user: text(), what: "drop the execution", owner: text() }, "NOPERM"),
            (Error::TooManyWait, "WORKERBUSY"),
            (Error::NoWorkerFree { workers_max: 1 }, "WORKERBUSY"),
            (Error::NotStarted { worker: 1, reason: text() }, "WORKERSTART"),
            (Error::NoHandshake { head: text(), runtime: text(), last_line: text() }, "WORKERSTART"),
            (Error::DiedInScript(text()), "WORKERDIED"),
            (Error::DiedBefore(text()), "WORKERDIED"),
            (Error::Died { head: text(), place: text(), execution: text() }, "WORKERDIED"),
            (Error::SessionDown(text()), "WORKERDOWN"),
            (Error::WorkerDown, "WORKERDOWN"),
            (Error::DiedTooOften(text()), "WORKERDOWN"),
            (Error::TooManyHeld, "WORKERDOWN"),
            (Error::Broken(text()), "BROKEN"),
            (
                Error::NoSuchPython { wanted: PythonVersion { major: 3, minor: 9 }, present: text(), refused: text() },
                "PYTHONVERSION",
            ),
            (Error::SessionEnded, "NOSESSION"),
            (Error::SessionElsewhere, "NOSESSION"),
            (Error::TooManyExecutions, "TOOMANY"),
            (Error::TooManyRegistrations, "TOOMANY"),
            (Error::ShardsAppeared, "SHARDLATE"),
            (Error::ShardLost { shard: ShardId::standalone(), reason: text() }, "SHARDLOST"),
            (Error::RegistrationNotOnShard { shard: ShardId::standalone(), registration: id() }, "SHARDLATE"),
            (Error::FunctionNotReadable { shard: ShardId::standalone(), reason: text() }, "BADMESSAGE"),
            (Error::ChangeLate(1), "SHARDLATE"),
            (Error::InquiryLate { shard: ShardId::standalone(), ms: 1 }, "SHARDLATE"),
            (Error::LaterChange, "SHARDLATE"),
            (Error::PeerChange, "BADMESSAGE"),
            (Error::TriggerOnReplica, "READONLY"),
            (Error::ArgumentsTooBig { len: 2, max: 1 }, "RECORDTOOBIG"),
            (Error::TooDeep, "SYNCDEPTH"),
            (Error::TooLong(1), "TOOLONG"),
            (Error::ResultsTooBig(1), "RESULTTOOBIG"),
            (Error::NotInWorker, "NOPERM"),
            (Error::CallerEnded, "NOPERM"),
            (Error::CallerUnknown, "NOPERM"),
            (Error::WriteOnReplica, "READONLY"),
            (Error::Paused, "PAUSED"),
            (Error::PausedInSync, "PAUSED"),
            (Error::PausedTooLong, "PAUSED"),
            (Error::TooManyDeferred, "PAUSED"),
            (Error::DeferredTooBig(1), "PAUSED"),
            (Error::SyncWithoutEnd, "INTERNAL"),
            (Error::Failed, "INTERNAL"),
            (Error::PeerAddress { peer: text(), found: text() }, "PEERADDRESS"),
            (Error::PeerAuth { peer: text(), reason: text() }, "PEERAUTH"),
            (Error::PeerDown { peer: text(), reason: text() }, "PEERDOWN"),
            (Error::PeerFailed { peer: text(), reason: text() }, "PEERFAILED"),
            (Error::PeerRetries { peer: text(), attempts: 3 }, "PEERFAILED"),
            (Error::PeerForeign { peer: text(), reason: text() }, "PEERFOREIGN"),
            (Error::PeerGone(text()), "PEERGONE"),
            (Error::PeerProtocol { peer: text(), what: text() }, "PEERPROTOCOL"),
            (Error::PeerQueueFull(text()), "PEERQUEUE"),
            (Error::PeerMessageTooLong { peer: text(), len: 1 }, "PEERQUEUE"),
            (Error::ReceivedTooMuch, "PEERQUEUE"),
            (Error::PeerReset(text()), "PEERRESET"),
            (Error::PeerRestarted(text()), "PEERRESTARTED"),
            (Error::PeerSilent { peer: text(), ms: 5000 }, "PEERSILENT"),
            (Error::PeerTls { peer: text(), reason: text() }, "PEERTLS"),
            (Error::PeerVersion { peer: text(), theirs: text(), ours: text() }, "PEERVERSION"),
        ];
        for (error, code) in expected {
            assert_eq!(code_of(&error.to_string()).map(|entry| entry.code), Some(code), "{error}");
        }
    }
}
