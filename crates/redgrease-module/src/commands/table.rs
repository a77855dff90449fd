//! The commands: names, flags, categories, numbers of arguments, and handlers.

use std::ffi::CStr;

use redgrease_core::command_docs;
use redgrease_ffi::command_info::{ArgumentInfo, ArgumentKind, CommandInfo};
use redgrease_ffi::load::Loader;
use redgrease_ffi::{Command, Invocation};

use super::request::Request;
use super::{
    abortexecution, administer, clearregistrationsstats, cluster, config, dropexecution, dumpexecutions, dumpplugins,
    dumpregistrations, getexecution, getresults, inneratomic, innerhook, innerregister, pauseregistrations,
    pydumpsessions, pyexecute, pyprofile, pystats, removed, requirements, shards, trigger, unregister, withcodec,
};
use crate::driver::driver;
use crate::error::Error;

/// Flags and categories of commands that run code: the server postpones them while clients are paused.
const RUNS: (&CStr, &CStr) = (c"may-replicate", c"gears");
/// The same for those that load programs.
const PROGRAMS: (&CStr, &CStr) = (c"admin may-replicate", c"gears admin dangerous");
/// Flags of the command that represents a permission; it is not in `@gears`, which is for users of functions.
const ADMINISTERS: (&CStr, &CStr) = (c"admin", c"admin dangerous");
/// Flags of changes that a master sends: a server that propagates one while its clients are paused ends itself.
const CHANGES: (&CStr, &CStr) = (c"admin may-replicate", c"admin dangerous");
/// Commands whose keys are those of the command inside: the one that stands for hooked commands, for which everybody needs
/// permission who may call these, and the one for clients that decode results.
const WRAPS: (&CStr, &CStr) = (c"may-replicate getkeys-api", c"gears");
/// Flags of what shards send to each other. Users of functions may not send it. The server runs it while clients are paused,
/// so that other shards see that this one lives: what would be replicated waits in the engine.
const SHARDS: (&CStr, &CStr) = (c"admin", c"admin dangerous");
/// Flags of read-only commands.
const LOOKS: (&CStr, &CStr) = (c"readonly", c"gears read");

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident: $wire:literal, $flags:expr, $min:literal..$max:expr $(, keys $keys:expr)? $(, wraps $wraps:literal)? => $run:path;)+) => {
        $(
            $(#[$doc])*
            struct $name;

            impl Command for $name {
                const NAME: &'static CStr = $wire;
                const FLAGS: &'static CStr = $flags.0;
                const CATEGORIES: &'static CStr = $flags.1;
                const ARGS_MIN: usize = $min;
                const ARGS_MAX: usize = $max;
                $(const KEYS: (i32, i32, i32) = $keys;)?
                $(const WRAPS: usize = $wraps;)?

                fn run(invocation: &Invocation<'_>) {
                    match driver() {
                        Some(driver) => {
                            $run(&Request { driver, invocation, args: &invocation.args, tagged: false });
                        }
                        None => invocation.reply().error(&Error::NoEngine.to_string()),
                    }
                }
            }
        )+

        /// Registers all commands.
        pub fn register(loader: &Loader<'_>) -> Result<(), String> {
            $(
                loader.command::<$name>()?;
                describe(loader, $wire)?;
            )+
            Ok(())
        }
    };
}

/// Has the server describe a command in `COMMAND DOCS`.
fn describe(loader: &Loader<'_>, name: &CStr) -> Result<(), String> {
    let Some(found) = command_docs::find(&name.to_string_lossy()) else { return Ok(()) };
    let info = CommandInfo {
        summary: found.summary.to_owned(),
        complexity: found.complexity.to_owned(),
        since: command_docs::SINCE.to_owned(),
        arguments: command_docs::arguments(found.syntax).into_iter().map(argument).collect(),
    };
    loader.describe(name, &info)
}

fn argument(of: command_docs::Argument) -> ArgumentInfo {
    let all = |inner: Vec<command_docs::Argument>| inner.into_iter().map(argument).collect();
    let kind = match of.kind {
        command_docs::Kind::Text => ArgumentKind::Text,
        command_docs::Kind::Token => ArgumentKind::Token,
        command_docs::Kind::Block(inner) => ArgumentKind::Block(all(inner)),
        command_docs::Kind::OneOf(inner) => ArgumentKind::OneOf(all(inner)),
    };
    ArgumentInfo { name: of.name, token: of.token, kind, optional: of.optional, multiple: of.multiple }
}

/// No upper limit.
const ANY: usize = usize::MAX;

commands! {
    /// `RG.PYEXECUTE script [UNBLOCKING] [ID id] [DESCRIPTION text] [UPGRADE] [REPLACE_WITH id]
    /// [RUN | REGISTER plan callbacks] [REQUIREMENTS req ...]`
    PyExecuteCommand: c"rg.pyexecute", PROGRAMS, 2..ANY => pyexecute::run;
    /// `RG.TRIGGER name [arg ...]`
    Trigger: c"rg.trigger", RUNS, 2..ANY => trigger::run;
    /// `RG.GETRESULTS id`
    GetResults: c"rg.getresults", LOOKS, 2..2 => getresults::run;
    /// `RG.GETRESULTSBLOCKING id`
    GetResultsBlocking: c"rg.getresultsblocking", LOOKS, 2..2 => getresults::run_blocking;
    /// `RG.DUMPEXECUTIONS`
    DumpExecutions: c"rg.dumpexecutions", LOOKS, 1..ANY => dumpexecutions::run;
    /// `RG.DROPEXECUTION id`
    DropExecution: c"rg.dropexecution", RUNS, 2..2 => dropexecution::run;
    /// `RG.ABORTEXECUTION id`
    AbortExecution: c"rg.abortexecution", RUNS, 2..2 => abortexecution::run;
    /// `RG.DUMPREGISTRATIONS`
    DumpRegistrations: c"rg.dumpregistrations", LOOKS, 1..ANY => dumpregistrations::run;
    /// `RG.UNREGISTER id [ABORTPENDING]`
    Unregister: c"rg.unregister", PROGRAMS, 2..3 => unregister::run;
    /// `RG.PYSTATS`
    PyStats: c"rg.pystats", LOOKS, 1..ANY => pystats::run;
    /// `RG.INFOCLUSTER`
    InfoCluster: c"rg.infocluster", LOOKS, 1..ANY => cluster::info;
    /// `RG.REFRESHCLUSTER`
    RefreshCluster: c"rg.refreshcluster", RUNS, 1..ANY => cluster::refresh;
    /// `RG.WITHCODEC version command [arg ...]`
    WithCodec: c"rg.withcodec", WRAPS, 3..ANY, wraps 2 => withcodec::run;
    /// `RG.ADMINISTER`: does nothing; permission for it is the right to abort, drop, unregister and replace objects of
    /// other users.
    Administer: c"rg.administer", ADMINISTERS, 1..1 => administer::run;
    /// `RG.CONFIGGET key [key ...]`
    ConfigGet: c"rg.configget", LOOKS, 1..ANY => config::get;
    /// `RG.CONFIGSET key value [key value ...]`
    ConfigSet: c"rg.configset", PROGRAMS, 1..ANY => config::set;
    /// `RG.GETEXECUTION id [SHARD | CLUSTER]`
    GetExecution: c"rg.getexecution", LOOKS, 2..3 => getexecution::run;
    /// `RG.DUMPPLUGINS`
    DumpPlugins: c"rg.dumpplugins", LOOKS, 1..ANY => dumpplugins::run;
    /// `RG.PYDUMPSESSIONS [VERBOSE] [DEAD] [SESSIONS id ...]`
    PyDumpSessions: c"rg.pydumpsessions", LOOKS, 1..ANY => pydumpsessions::run;
    /// `RG.PYDUMPREQS`
    PyDumpReqs: c"rg.pydumpreqs", LOOKS, 1..ANY => requirements::dump;
    /// `RG.PYEXPORTREQ name`
    PyExportReq: c"rg.pyexportreq", LOOKS, 2..2 => requirements::export;
    /// `RG.PYIMPORTREQ piece [piece ...]`
    PyImportReq: c"rg.pyimportreq", PROGRAMS, 2..ANY => requirements::import;
    /// `RG.PYPROFILE STATS session [order]` or `RG.PYPROFILE RESET session`
    PyProfile: c"rg.pyprofile", RUNS, 2..4 => pyprofile::run;
    /// `RG.PAUSEREGISTRATIONS [ABORTPENDING] id [id ...]`
    PauseRegistrations: c"rg.pauseregistrations", RUNS, 2..ANY => pauseregistrations::pause;
    /// `RG.UNPAUSEREGISTRATIONS id [id ...]`
    UnpauseRegistrations: c"rg.unpauseregistrations", RUNS, 2..ANY => pauseregistrations::unpause;
    /// `RG.CLEARREGISTRATIONSSTATS`
    ClearRegistrationsStats: c"rg.clearregistrationsstats", RUNS, 1..1 => clearregistrationsstats::run;
    /// `RG.TRIGGERONKEY name key [arg ...]`
    TriggerOnKey: c"rg.triggeronkey", RUNS, 3..ANY, keys (2, 2, 1) => trigger::run;
    /// `RG.CLUSTERSET argument [argument ...]`
    ClusterSet: c"rg.clusterset", PROGRAMS, 1..ANY => cluster::set;
    /// `RG.NETWORKTEST`
    NetworkTest: c"rg.networktest", LOOKS, 1..ANY => cluster::network_test;
    /// Internal: `RG.CLUSTERSETFROMSHARD argument [argument ...]`
    ClusterSetFromShard: c"rg.clustersetfromshard", SHARDS, 1..ANY => shards::set_cluster;
    /// Internal: `RG.HELLO`
    Hello: c"rg.hello", SHARDS, 1..ANY => shards::hello;
    /// Internal: `RG.INNERMSGCOMMAND sender run function message number`
    InnerMessage: c"rg.innermsgcommand", SHARDS, 6..6 => shards::message;
    /// `RG.PYEXECUTEREMOTE`, removed from RedisGears.
    PyExecuteRemote: c"rg.pyexecuteremote", LOOKS, 1..ANY => removed::execute_remote;
    /// `RG.PYFREEINTERPRETER`, removed from RedisGears.
    PyFreeInterpreter: c"rg.pyfreeinterpreter", LOOKS, 1..ANY => removed::free_interpreter;
    /// Internal: runs the atomic block that is about to be entered.
    InnerAtomic: c"rg.inneratomic", RUNS, 1..1 => inneratomic::run;
    /// Internal: a change of the registrations.
    InnerRegister: c"rg.innerregister", CHANGES, 2..2 => innerregister::run;
    /// Internal: a command of a client that is hooked.
    InnerHook: c"rg.innerhook", WRAPS, 1..ANY, wraps 1 => innerhook::run;
}
