//! The `RG.*` commands: their facts, and how each finds its way into the engine.

use std::ffi::CStr;
use std::rc::Rc;

use redgrease_core::codec::CODEC_VERSION;
use redgrease_core::command::PyExecute;
use redgrease_core::id::{ExecutionNo, RegistrationNo};
use redgrease_core::render::Reply;
use redgrease_ffi::load::Loader;
use redgrease_ffi::{Command, Invocation};

use crate::engine::{Engine, engine};
use crate::runs::Outcome;
use crate::{dump, reply};

/// Flags and categories of commands that make something run: the server postpones them while clients are paused.
const RUNS: (&CStr, &CStr) = (c"may-replicate", c"gears");
/// The same for those that bring programs in.
const PROGRAMS: (&CStr, &CStr) = (c"admin may-replicate", c"gears admin dangerous");
/// Flags of the command that stands for a right; it is not in `@gears`, which is for those who use functions.
const ADMINISTERS: (&CStr, &CStr) = (c"admin", c"admin dangerous");
/// Flags of look-ups.
const LOOKS: (&CStr, &CStr) = (c"readonly", c"gears read");

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident: $wire:literal, $flags:expr, $min:literal..$max:expr => $run:path;)+) => {
        $(
            $(#[$doc])*
            struct $name;

            impl Command for $name {
                const NAME: &'static CStr = $wire;
                const FLAGS: &'static CStr = $flags.0;
                const CATEGORIES: &'static CStr = $flags.1;
                const ARGS_MIN: usize = $min;
                const ARGS_MAX: usize = $max;

                fn run(invocation: &Invocation<'_>) {
                    match engine() {
                        Some(engine) => $run(&engine, invocation, &invocation.args, false),
                        None => invocation.reply().error("INTERNAL the engine is not there"),
                    }
                }
            }
        )+

        /// Registers all commands.
        pub fn register(loader: &Loader<'_>) -> Result<(), String> {
            $(loader.command::<$name>()?;)+
            Ok(())
        }
    };
}

/// No upper limit.
const ANY: usize = usize::MAX;

commands! {
    /// `RG.PYEXECUTE script [UNBLOCKING] [ID id] [DESCRIPTION text] [UPGRADE] [REPLACE_WITH id] [REQUIREMENTS req ...]`
    PyExecuteCommand: c"rg.pyexecute", PROGRAMS, 2..ANY => py_execute;
    /// `RG.TRIGGER name [arg ...]`
    Trigger: c"rg.trigger", RUNS, 2..ANY => trigger;
    /// `RG.GETRESULTS id`
    GetResults: c"rg.getresults", LOOKS, 2..2 => get_results;
    /// `RG.GETRESULTSBLOCKING id`
    GetResultsBlocking: c"rg.getresultsblocking", LOOKS, 2..2 => get_results_blocking;
    /// `RG.DUMPEXECUTIONS`
    DumpExecutions: c"rg.dumpexecutions", LOOKS, 1..ANY => dump_executions;
    /// `RG.DROPEXECUTION id`
    DropExecution: c"rg.dropexecution", RUNS, 2..2 => drop_execution;
    /// `RG.ABORTEXECUTION id`
    AbortExecution: c"rg.abortexecution", RUNS, 2..2 => abort_execution;
    /// `RG.DUMPREGISTRATIONS`
    DumpRegistrations: c"rg.dumpregistrations", LOOKS, 1..ANY => dump_registrations;
    /// `RG.UNREGISTER id [ABORTPENDING]`
    Unregister: c"rg.unregister", PROGRAMS, 2..3 => unregister;
    /// `RG.PYSTATS`
    PyStats: c"rg.pystats", LOOKS, 1..ANY => py_stats;
    /// `RG.INFOCLUSTER`
    InfoCluster: c"rg.infocluster", LOOKS, 1..ANY => info_cluster;
    /// `RG.REFRESHCLUSTER`
    RefreshCluster: c"rg.refreshcluster", RUNS, 1..ANY => refresh_cluster;
    /// `RG.WITHCODEC version command [arg ...]`
    WithCodec: c"rg.withcodec", RUNS, 3..ANY => with_codec;
    /// `RG.ADMINISTER`: does nothing; permission for it is the right to abort, drop, unregister and replace what belongs
    /// to other users.
    Administer: c"rg.administer", ADMINISTERS, 1..1 => administer;
    /// `RG.CONFIGGET`, not yet.
    ConfigGet: c"rg.configget", LOOKS, 1..ANY => not_yet;
    /// `RG.CONFIGSET`, not yet.
    ConfigSet: c"rg.configset", PROGRAMS, 1..ANY => not_yet;
    /// `RG.GETEXECUTION`, not yet.
    GetExecution: c"rg.getexecution", LOOKS, 1..ANY => not_yet;
    /// `RG.DUMPPLUGINS`, not yet.
    DumpPlugins: c"rg.dumpplugins", LOOKS, 1..ANY => not_yet;
    /// `RG.PYDUMPSESSIONS`, not yet.
    PyDumpSessions: c"rg.pydumpsessions", LOOKS, 1..ANY => not_yet;
    /// `RG.PYDUMPREQS`, not yet.
    PyDumpReqs: c"rg.pydumpreqs", LOOKS, 1..ANY => not_yet;
    /// `RG.PYEXPORTREQ`, not yet.
    PyExportReq: c"rg.pyexportreq", LOOKS, 1..ANY => not_yet;
    /// `RG.PYIMPORTREQ`, not yet.
    PyImportReq: c"rg.pyimportreq", PROGRAMS, 1..ANY => not_yet;
    /// `RG.PYPROFILE`, not yet.
    PyProfile: c"rg.pyprofile", PROGRAMS, 1..ANY => not_yet;
    /// `RG.PAUSEREGISTRATIONS`, not yet.
    PauseRegistrations: c"rg.pauseregistrations", PROGRAMS, 1..ANY => not_yet;
    /// `RG.UNPAUSEREGISTRATIONS`, not yet.
    UnpauseRegistrations: c"rg.unpauseregistrations", PROGRAMS, 1..ANY => not_yet;
    /// `RG.CLEARREGISTRATIONSSTATS`, not yet.
    ClearRegistrationsStats: c"rg.clearregistrationsstats", PROGRAMS, 1..ANY => not_yet;
    /// `RG.TRIGGERONKEY`, not yet.
    TriggerOnKey: c"rg.triggeronkey", RUNS, 1..ANY => not_yet;
    /// `RG.CLUSTERSET`, not yet.
    ClusterSet: c"rg.clusterset", PROGRAMS, 1..ANY => not_yet;
    /// `RG.CLUSTERSETFROMSHARD`, not yet.
    ClusterSetFromShard: c"rg.clustersetfromshard", PROGRAMS, 1..ANY => not_yet;
    /// `RG.NETWORKTEST`, not yet.
    NetworkTest: c"rg.networktest", LOOKS, 1..ANY => not_yet;
    /// `RG.HELLO`, not yet.
    Hello: c"rg.hello", LOOKS, 1..ANY => not_yet;
    /// `RG.PYEXECUTEREMOTE`, given up by RedisGears (`CMD-COMMON-06`).
    PyExecuteRemote: c"rg.pyexecuteremote", LOOKS, 1..ANY => execute_remote;
    /// `RG.PYFREEINTERPRETER`, given up by RedisGears (`CMD-COMMON-06`).
    PyFreeInterpreter: c"rg.pyfreeinterpreter", LOOKS, 1..ANY => free_interpreter;
    /// Internal: runs the atomic block that is about to be entered.
    InnerAtomic: c"rg.inneratomic", RUNS, 1..1 => inner_atomic;
}

fn py_execute(engine: &Engine, invocation: &Invocation<'_>, args: &[&[u8]], tagged: bool) {
    let client = invocation.reply();
    let flags = invocation.flags();
    if flags.multi() || flags.lua() || flags.deny_blocking() {
        return client.error("Can not run gears inside a multi exec, lua, or when blocking is not allowed");
    }
    if flags.replica() && flags.read_only() {
        return client.error("READONLY scripts are not run on a read-only replica: ask its master");
    }
    match PyExecute::parse(args[1], &args[2..]) {
        Ok(command) => engine.py_execute(invocation, &command, tagged),
        Err(error) => reply::user_error(&client, error.to_string().as_bytes()),
    }
}

fn trigger(engine: &Engine, invocation: &Invocation<'_>, args: &[&[u8]], tagged: bool) {
    engine.trigger(invocation, &args[1..], tagged);
}

/// The execution with that identifier, if it exists here.
fn find_execution(engine: &Engine, identifier: &[u8]) -> Option<ExecutionNo> {
    let number = ExecutionNo(engine.shard.counter(identifier)?);
    engine.executions.borrow().get(number).map(|_| number)
}

fn outcome_of(engine: &Engine, number: ExecutionNo, tagged: bool) -> Option<Outcome> {
    let executions = engine.executions.borrow();
    let execution = executions.get(number).filter(|execution| execution.status().is_final())?;
    Some(Outcome {
        status: execution.status(),
        results: execution.results.clone(),
        errors: execution.errors.clone(),
        style: if tagged { execution.style.tagged() } else { execution.style },
    })
}

fn get_results(engine: &Engine, invocation: &Invocation<'_>, args: &[&[u8]], tagged: bool) {
    let client = invocation.reply();
    let Some(number) = find_execution(engine, args[1]) else {
        return client.error("execution plan does not exist");
    };
    match outcome_of(engine, number, tagged) {
        Some(outcome) => reply::outcome(&client, &outcome),
        None => client.error("execution is still running"),
    }
}

fn get_results_blocking(engine: &Engine, invocation: &Invocation<'_>, args: &[&[u8]], tagged: bool) {
    let client = invocation.reply();
    let Some(number) = find_execution(engine, args[1]) else {
        return client.error("execution plan does not exist");
    };
    if let Some(outcome) = outcome_of(engine, number, tagged) {
        return reply::outcome(&client, &outcome);
    }
    let Some(blocked) = invocation.block() else { return refuse_to_wait(invocation) };
    engine.on_end(number, move |_, mut outcome| {
        if tagged {
            outcome.style = outcome.style.tagged();
        }
        blocked.answer(move |client| reply::outcome(client, &outcome));
    });
}

fn dump_executions(engine: &Engine, invocation: &Invocation<'_>, _args: &[&[u8]], _tagged: bool) {
    let entries = engine
        .executions
        .borrow()
        .iter()
        .map(|(number, execution)| {
            Reply::Array(vec![
                Reply::bulk("executionId"),
                Reply::bulk(engine.shard.identifier(number.0)),
                Reply::bulk("status"),
                Reply::bulk(execution.status().name()),
                Reply::bulk("registered"),
                Reply::Int(i64::from(execution.registration.is_some())),
            ])
        })
        .collect();
    reply::write(&invocation.reply(), &Reply::Array(entries));
}

fn drop_execution(engine: &Engine, invocation: &Invocation<'_>, args: &[&[u8]], _tagged: bool) {
    let client = invocation.reply();
    let Some(number) = find_execution(engine, args[1]) else {
        return client.error("execution plan does not exist");
    };
    if let Err(reason) = check_execution(engine, invocation, number, "drop the execution") {
        return client.error(&reason);
    }
    let dropped = engine.executions.borrow_mut().drop_finished(number);
    match dropped {
        Ok(()) => client.simple("OK"),
        Err(error) => client.error(&error.to_string()),
    }
}

fn abort_execution(engine: &Engine, invocation: &Invocation<'_>, args: &[&[u8]], _tagged: bool) {
    let client = invocation.reply();
    let Some(number) = find_execution(engine, args[1]) else {
        return client.error("execution does not exist");
    };
    if let Err(reason) = check_execution(engine, invocation, number, "abort the execution") {
        return client.error(&reason);
    }
    if outcome_of(engine, number, false).is_some() {
        return client.simple("OK");
    }
    let Some(blocked) = invocation.block() else { return refuse_to_wait(invocation) };
    engine.on_end(number, move |_, _| blocked.answer(|client| client.simple("OK")));
    engine.abort(number);
}

fn administer(_engine: &Engine, invocation: &Invocation<'_>, _args: &[&[u8]], _tagged: bool) {
    invocation.reply().simple("OK");
}

/// Refuses what a caller may not do to an execution of another user.
fn check_execution(
    engine: &Engine,
    invocation: &Invocation<'_>,
    number: ExecutionNo,
    what: &str,
) -> Result<(), String> {
    let owner = engine.executions.borrow().get(number).and_then(|execution| execution.owner.clone());
    engine.check_owner(invocation.user().as_deref(), owner.as_deref(), what)
}

/// Answers a command that would have to wait where its caller cannot, with the server's own words (`CMD-COMMON-08`).
fn refuse_to_wait(invocation: &Invocation<'_>) {
    let flags = invocation.flags();
    invocation.reply().error(match () {
        () if flags.multi() => "ERR Blocking module command called from transaction",
        () if flags.lua() => "ERR Blocking module command called from Lua script",
        () => "ERR the command has to wait, and blocking is not allowed here",
    });
}

fn dump_registrations(engine: &Engine, invocation: &Invocation<'_>, _args: &[&[u8]], _tagged: bool) {
    dump::registrations(engine, invocation);
}

fn unregister(engine: &Engine, invocation: &Invocation<'_>, args: &[&[u8]], _tagged: bool) {
    let client = invocation.reply();
    let number = engine.shard.counter(args[1]).map(RegistrationNo);
    let Some(number) = number.filter(|number| engine.registrations.borrow().get(*number).is_some()) else {
        return client.error("execution is not registered");
    };
    let session = engine.registrations.borrow().get(number).map(|registration| registration.session);
    let owner =
        session.and_then(|session| engine.sessions.borrow().get(&session).map(|session| Rc::clone(&session.user)));
    if let Err(reason) = engine.check_owner(invocation.user().as_deref(), owner.as_deref(), "unregister the function") {
        return client.error(&reason);
    }
    let abort_pending = args.get(2).is_some_and(|word| word.eq_ignore_ascii_case(b"ABORTPENDING"));
    engine.remove_registration(number, abort_pending);
    client.simple("OK");
}

fn py_stats(engine: &Engine, invocation: &Invocation<'_>, _args: &[&[u8]], _tagged: bool) {
    let stats = dump::python_memory(engine);
    let fields = [("TotalAllocated", stats.total), ("PeakAllocated", stats.peak), ("CurrAllocated", stats.current)];
    let reply = fields.iter().flat_map(|(name, bytes)| [Reply::bulk(name), Reply::Int(*bytes as i64)]).collect();
    reply::write(&invocation.reply(), &Reply::Array(reply));
}

fn info_cluster(engine: &Engine, invocation: &Invocation<'_>, _args: &[&[u8]], _tagged: bool) {
    if engine.has_other_shards() {
        return invocation.reply().error(
            "NOTYET RG.INFOCLUSTER on a cluster of several shards is not available in this version of redgrease: ask \
             CLUSTER SHARDS or CLUSTER SLOTS",
        );
    }
    invocation.reply().bulk(b"no cluster mode");
}

fn refresh_cluster(_engine: &Engine, invocation: &Invocation<'_>, _args: &[&[u8]], _tagged: bool) {
    invocation.reply().simple("OK");
}

/// What the commands that know the codec do.
type Handler = fn(&Engine, &Invocation<'_>, &[&[u8]], bool);

fn with_codec(engine: &Engine, invocation: &Invocation<'_>, args: &[&[u8]], _tagged: bool) {
    const HANDLERS: [(&[u8], Handler, usize, usize); 4] = [
        (b"RG.PYEXECUTE", py_execute, 2, ANY),
        (b"RG.TRIGGER", trigger, 2, ANY),
        (b"RG.GETRESULTS", get_results, 2, 2),
        (b"RG.GETRESULTSBLOCKING", get_results_blocking, 2, 2),
    ];
    let client = invocation.reply();
    let version = std::str::from_utf8(args[1]).ok().and_then(|text| text.parse::<u64>().ok());
    if version != Some(CODEC_VERSION) {
        let seen = String::from_utf8_lossy(args[1]).into_owned();
        return reply::user_error(
            &client,
            format!("ERR codec version '{seen}' is not known: this server speaks {CODEC_VERSION}").as_bytes(),
        );
    }
    let inner = &args[2..];
    let Some((_, handler, min, max)) = HANDLERS.iter().find(|(name, ..)| inner[0].eq_ignore_ascii_case(name)) else {
        let seen = String::from_utf8_lossy(inner[0]).into_owned();
        return reply::user_error(&client, format!("ERR RG.WITHCODEC does not know the command '{seen}'").as_bytes());
    };
    if let Some(user) = invocation.user()
        && !engine.server.may_run(&user, inner)
    {
        let name = String::from_utf8_lossy(inner[0]).to_lowercase();
        return reply::user_error(
            &client,
            format!("NOPERM User {user} has no permissions to run the '{name}' command").as_bytes(),
        );
    }
    if inner.len() < *min || inner.len() > *max {
        return client.wrong_arity();
    }
    handler(engine, invocation, inner, true);
}

/// Answers a command of RedisGears 1.2 that this version does not have.
fn not_yet(_engine: &Engine, invocation: &Invocation<'_>, args: &[&[u8]], _tagged: bool) {
    let name = String::from_utf8_lossy(args[0]).to_uppercase();
    invocation.reply().error(&format!("NOTYET {name} is not available in this version of redgrease"));
}

fn execute_remote(_engine: &Engine, invocation: &Invocation<'_>, _args: &[&[u8]], _tagged: bool) {
    invocation.reply().bulk(b"Execute remote is not longer supported");
}

fn free_interpreter(_engine: &Engine, invocation: &Invocation<'_>, _args: &[&[u8]], _tagged: bool) {
    invocation.reply().bulk(b"Free interpreter is not longer supported");
}

fn inner_atomic(engine: &Rc<Engine>, invocation: &Invocation<'_>, _args: &[&[u8]], _tagged: bool) {
    let client = invocation.reply();
    if engine.serve_atomic() {
        client.simple("OK");
    } else {
        client.error("ERR RG.INNERATOMIC is internal: use 'with atomic():' in a function");
    }
}
