//! Which commands of the server user code may call, and in which context.
//!
//! The decision is an allow-list over facts that the server tells about a command (`COMMAND INFO`). Two things are
//! protected: the server's own structures, which a command that is still running below the function may be using, and
//! the promise that a function never waits on the server's main thread.
//!
//! Inside a client's command, a transaction or a script the rule is the server's own rule for scripts: a command that a
//! script may not call may not be called by a function either, except for look-ups listed in `LOOK_UPS`, and for
//! scripts themselves as long as no script is running.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

/// What is running on the server's main thread around a call of user code, from the least to the most restrictive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Around {
    /// Nothing: the function runs in its own turn.
    Nothing,
    /// Its own atomic block.
    Atomic,
    /// A client's command: the function was triggered by it, or runs right behind it.
    Command,
    /// A transaction (`EXEC`).
    Transaction,
    /// A script or a function of the server (`EVAL`, `FCALL`).
    Script,
}

impl Around {
    fn description(self) -> &'static str {
        match self {
            Around::Nothing => "in its own turn",
            Around::Atomic => "inside an atomic block",
            Around::Command => "while a client's command waits for it",
            Around::Transaction => "inside a transaction",
            Around::Script => "while a script is running",
        }
    }
}

/// Facts about one command or subcommand, as the server tells them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// It only reads (`readonly`).
    pub reads: bool,
    /// It can change keys (`write`).
    pub writes: bool,
    /// Scripts may not call it (`noscript`).
    pub noscript: bool,
    /// It is for administrators (`admin`).
    pub admin: bool,
    /// It runs or manages scripts (`@scripting`).
    pub scripting: bool,
    /// A command of this module, which checks its context itself.
    pub own: bool,
    /// It belongs to another module.
    pub foreign: bool,
    /// Its keys are not found by their positions alone (`movablekeys`).
    pub moves_keys: bool,
    /// Where its keys are.
    pub keys: KeyRange,
}

/// Positions of a command's keys among its arguments, its name being number 0, as the server tells them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The first one; 0: it has none.
    pub first: i64,
    /// The last one; negative: counted from the end, -1 being the last argument.
    pub last: i64,
    /// The distance between two.
    pub step: i64,
}

impl KeyRange {
    /// Positions of the keys of a call with that many arguments, its name included.
    pub fn positions(self, len: usize) -> impl Iterator<Item = usize> {
        let last = if self.last < 0 { len as i64 + self.last } else { self.last.min(len as i64 - 1) };
        let last = if self.first > 0 && self.step > 0 { last } else { -1 };
        (self.first..=last).step_by(self.step.max(1) as usize).filter_map(|position| usize::try_from(position).ok())
    }
}

/// Why a command cannot be hooked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HookRefusal {
    /// There is no such command.
    #[error("Can not override an unexisting command")]
    Unknown,
    /// Scripts may not call it.
    #[error("Can not override a command which are not allowed inside a script")]
    NoScript,
    /// Its keys cannot be found.
    #[error("Can not override a command with moveable keys by key prefix")]
    MovesKeys,
    /// It has no keys.
    #[error("Can not override a command by key prefix with none positive first key")]
    NoKey,
    /// Its keys cannot be found.
    #[error("Can not override a command by key prefix with none positive jump")]
    NoStep,
    /// The same, for the option `commands` of a KeysReader.
    #[error("bad reply on COMMAND command")]
    UnknownEvent,
    /// The same.
    #[error("Can not hook a command which are not allowed inside a script")]
    NoScriptEvent,
    /// The same.
    #[error("Can not hook a command with moveable keys by key prefix")]
    MovesKeysEvent,
    /// The same.
    #[error("Can not hook a command by key prefix with none positive first key")]
    NoKeyEvent,
    /// It is one of this module.
    #[error("FORBIDDEN a command of this module can not be hooked")]
    Own,
}

/// Checks whether a command can be hooked: by a function (`event` false), optionally for keys with a prefix, or for the
/// events that it fires.
///
/// # Errors
/// The reason why not.
pub fn check_hook(facts: Option<&CommandFacts>, by_key: bool, event: bool) -> Result<KeyRange, HookRefusal> {
    let refusal = |of_function, of_event| Err(if event { of_event } else { of_function });
    let Some(facts) = facts.map(|facts| facts.own) else {
        return refusal(HookRefusal::Unknown, HookRefusal::UnknownEvent);
    };
    match () {
        () if facts.own => Err(HookRefusal::Own),
        () if facts.noscript => refusal(HookRefusal::NoScript, HookRefusal::NoScriptEvent),
        () if !by_key => Ok(facts.keys),
        () if facts.moves_keys => refusal(HookRefusal::MovesKeys, HookRefusal::MovesKeysEvent),
        () if facts.keys.first <= 0 => refusal(HookRefusal::NoKey, HookRefusal::NoKeyEvent),
        () if facts.keys.step <= 0 => refusal(HookRefusal::NoStep, HookRefusal::NoStep),
        () => Ok(facts.keys),
    }
}

impl Facts {
    /// Reads the flags and ACL categories of a row of `COMMAND INFO`; `name` tells own commands from those of other
    /// modules.
    #[must_use]
    pub fn new<'a>(
        name: &[u8],
        flags: impl IntoIterator<Item = &'a [u8]>,
        categories: impl IntoIterator<Item = &'a [u8]>,
    ) -> Facts {
        let mut facts = Facts::default();
        for flag in flags {
            match flag {
                b"readonly" => facts.reads = true,
                b"write" => facts.writes = true,
                b"noscript" => facts.noscript = true,
                b"admin" => facts.admin = true,
                b"movablekeys" => facts.moves_keys = true,
                b"module" => {
                    facts.own = name.to_ascii_lowercase().starts_with(b"rg.");
                    facts.foreign = !facts.own;
                }
                _ => {}
            }
        }
        facts.scripting = categories.into_iter().any(|category| category == b"@scripting");
        facts
    }
}

/// A command with its subcommands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandFacts {
    /// Facts of the command itself.
    pub own: Facts,
    /// Facts of its subcommands, by their lower-case names.
    pub subcommands: BTreeMap<Vec<u8>, Facts>,
}

impl CommandFacts {
    /// Facts of a call with these arguments: those of the subcommand where the command has some.
    #[must_use]
    pub fn of_call(&self, argv: &[&[u8]]) -> Facts {
        self.subcommand(argv).unwrap_or(self.own)
    }

    fn subcommand(&self, argv: &[&[u8]]) -> Option<Facts> {
        if self.subcommands.is_empty() {
            return None;
        }
        self.subcommands.get(&argv.get(1)?.to_ascii_lowercase()).copied()
    }
}

/// Options of the server that protect commands from clients, and so from functions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Protection {
    /// `enable-debug-command` is `yes`.
    pub debug_enabled: bool,
    /// `enable-module-command` is `yes`.
    pub module_enabled: bool,
}

/// Why a call is refused. The text is the error that user code sees.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no command.
    #[error("ERR execute() needs a command: execute('GET', 'key')")]
    Empty,
    /// It acts on the caller's connection.
    #[error("ERR '{0}' acts on a connection, and a function has none of its own")]
    Connection(String),
    /// It blocks its client.
    #[error("ERR '{0}' waits for other servers or disks, and a function cannot wait on the server's main thread")]
    Waits(String),
    /// It ends the server or its data.
    #[error("FORBIDDEN '{0}' ends or replaces the process that the function runs in: run it from a client")]
    EndsServer(String),
    /// The server protects it, and the option is not `yes`.
    #[error(
        "FORBIDDEN '{name}' is protected: functions may run it only when {option} is 'yes' (they have no connection that could count as local)"
    )]
    Protected {
        /// The command.
        name: String,
        /// The server's option.
        option: &'static str,
    },
    /// It cannot run in this context.
    #[error("FORBIDDEN '{name}' cannot be run by a function {}: {reason}; use mode='async_local' to run it in a turn of its own", around.description())]
    Context {
        /// The command.
        name: String,
        /// What is running.
        around: Around,
        /// Why it is refused.
        reason: &'static str,
    },
}

/// Commands that change or need a connection's state.
const CONNECTION: [&str; 23] = [
    "multi",
    "exec",
    "discard",
    "watch",
    "unwatch",
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "unsubscribe",
    "punsubscribe",
    "sunsubscribe",
    "monitor",
    "hello",
    "auth",
    "quit",
    "reset",
    "select",
    "sync",
    "psync",
    "replconf",
    "asking",
    "readonly",
    "readwrite",
];

/// Subcommands with a state of the connection; `CLIENT` has more of them than not, so those that act on others are
/// listed instead.
const CLIENT_OF_OTHERS: [&str; 6] = ["list", "kill", "pause", "unpause", "unblock", "help"];

/// Subcommands of `DEBUG` that look at something or wait; all others can end the process or replace its data.
const DEBUG_ALLOWED: [&str; 14] = [
    "sleep",
    "object",
    "digest",
    "digest-value",
    "sdslen",
    "ziplist",
    "listpack",
    "quicklist",
    "quicklist-packed-threshold",
    "htstats",
    "htstats-key",
    "set-active-expire",
    "populate",
    "help",
];

/// Look-ups that scripts may not call but that touch nothing a running command may be using.
const LOOK_UPS: [(&str, &str); 21] = [
    ("config", "get"),
    ("acl", "whoami"),
    ("acl", "users"),
    ("acl", "list"),
    ("acl", "getuser"),
    ("acl", "cat"),
    ("acl", "dryrun"),
    ("client", "list"),
    ("script", "exists"),
    ("function", "list"),
    ("function", "stats"),
    ("module", "list"),
    ("slowlog", "get"),
    ("slowlog", "len"),
    ("commandlog", "get"),
    ("commandlog", "len"),
    ("latency", "latest"),
    ("latency", "history"),
    ("latency", "histogram"),
    ("cluster", "replicas"),
    ("role", ""),
];

/// Scripting commands that run a script rather than manage scripts.
const RUN_SCRIPTS: [&str; 6] = ["eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro"];

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

fn is_one_of(word: &[u8], names: &[&str]) -> bool {
    names.iter().any(|name| is(word, name))
}

/// A word of the call as it is shown in an error.
fn shown(word: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 64;
    String::from_utf8_lossy(&word[..word.len().min(SHOWN_BYTES_MAX)]).into_owned()
}

/// Whether user code may call a command now. `facts` are `None` for a command that the server does not know: its own
/// error is the answer then.
///
/// # Errors
/// [`Refusal`], worded for the author of the function.
pub fn check_call(
    argv: &[&[u8]],
    facts: Option<&CommandFacts>,
    around: Around,
    protection: Protection,
) -> Result<(), Refusal> {
    let Some(name) = argv.first() else { return Err(Refusal::Empty) };
    let subcommand = argv.get(1).copied().unwrap_or_default();
    let both = || format!("{} {}", shown(name), shown(subcommand));
    let is_pair = |command: &str, sub: &str| is(name, command) && is(subcommand, sub);
    if is_one_of(name, &CONNECTION) {
        return Err(Refusal::Connection(shown(name)));
    }
    let own_state = is(name, "client") && !subcommand.is_empty() && !is_one_of(subcommand, &CLIENT_OF_OTHERS);
    if own_state || is_pair("script", "debug") || is_pair("cluster", "syncslots") {
        return Err(Refusal::Connection(both()));
    }
    if is_one_of(name, &["wait", "waitaof"]) {
        return Err(Refusal::Waits(shown(name)));
    }
    if is(name, "shutdown") {
        return Err(Refusal::EndsServer(shown(name)));
    }
    if is(name, "debug") {
        if !protection.debug_enabled {
            return Err(Refusal::Protected { name: shown(name), option: "enable-debug-command" });
        }
        if !is_one_of(subcommand, &DEBUG_ALLOWED) {
            return Err(Refusal::EndsServer(both()));
        }
    }
    let looks_up = LOOK_UPS.iter().any(|(command, sub)| is(name, command) && (sub.is_empty() || is(subcommand, sub)));
    if is(name, "module") && !looks_up && !protection.module_enabled {
        return Err(Refusal::Protected { name: both(), option: "enable-module-command" });
    }
    if around <= Around::Atomic || looks_up {
        return Ok(());
    }
    // The server answers an unknown command with its own error.
    let Some(command) = facts else { return Ok(()) };
    let facts = command.of_call(argv);
    let full_name = if command.subcommands.is_empty() { shown(name) } else { both() };
    if facts.own {
        return Ok(());
    }
    let refuse = |reason| Err(Refusal::Context { name: full_name, around, reason });
    if facts.foreign {
        return refuse("it belongs to another module, which may not expect to be called here");
    }
    if facts.scripting {
        if around == Around::Script {
            return refuse("the server runs one script at a time");
        }
        if is_one_of(name, &RUN_SCRIPTS) || is_pair("script", "load") {
            return Ok(());
        }
        return refuse("it changes what scripts are being used");
    }
    if facts.noscript || facts.admin {
        return refuse("it may free or change what the running command uses");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const OPEN: Protection = Protection { debug_enabled: true, module_enabled: true };

    fn facts(flags: &[&str], categories: &[&str], name: &str) -> Facts {
        Facts::new(
            name.as_bytes(),
            flags.iter().map(|flag| flag.as_bytes()),
            categories.iter().map(|category| category.as_bytes()),
        )
    }

    fn command(own: Facts, subcommand: Option<&&str>) -> CommandFacts {
        let subcommands = subcommand.map(|word| (word.to_lowercase().into_bytes(), own));
        CommandFacts { own, subcommands: subcommands.into_iter().collect() }
    }

    fn check(words: &[&str], facts: Option<Facts>, around: Around) -> Result<(), Refusal> {
        let argv: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let command = facts.map(|facts| command(facts, words.get(1)));
        check_call(&argv, command.as_ref(), around, OPEN)
    }

    const ALL: [Around; 5] = [Around::Nothing, Around::Atomic, Around::Command, Around::Transaction, Around::Script];

    #[test]
    fn data_commands_run_everywhere() {
        for around in ALL {
            assert_eq!(
                check(&["SET", "k", "v"], Some(facts(&["write", "denyoom"], &["@write"], "set")), around),
                Ok(())
            );
            assert_eq!(check(&["flushall"], Some(facts(&["write"], &["@dangerous"], "flushall")), around), Ok(()));
        }
    }

    #[test]
    fn a_script_runs_unless_a_script_is_running() {
        let eval = facts(&["noscript", "stale"], &["@scripting"], "eval");
        for around in ALL {
            let allowed = check(&["EVAL", "return 1", "0"], Some(eval), around).is_ok();
            assert_eq!(allowed, around != Around::Script, "{around:?}");
        }
    }

    #[test]
    fn what_scripts_may_not_call_runs_only_where_nothing_is_around() {
        let table = [
            (&["client", "kill", "type", "normal"][..], &["noscript", "admin"][..], &["@admin"][..]),
            (&["script", "flush"], &["noscript"], &["@scripting"]),
            (&["function", "flush"], &["noscript", "write"], &["@scripting"]),
            (&["config", "set", "maxmemory", "1"], &["noscript", "admin"], &["@admin"]),
            (&["replicaof", "no", "one"], &["noscript", "admin"], &["@admin"]),
            (&["cluster", "addslots", "1"], &["admin"], &["@admin"]),
        ];
        for (words, flags, categories) in table {
            let facts = Some(facts(flags, categories, words[0]));
            for around in ALL {
                assert_eq!(check(words, facts, around).is_ok(), around <= Around::Atomic, "{words:?} {around:?}");
            }
        }
    }

    #[test]
    fn commands_of_other_modules_run_only_where_nothing_is_around_and_our_own_everywhere() {
        let foreign = facts(&["module", "write"], &[], "json.set");
        let own = facts(&["module", "admin"], &["@admin"], "RG.UNREGISTER");
        for around in ALL {
            assert_eq!(check(&["json.set", "k"], Some(foreign), around).is_ok(), around <= Around::Atomic);
            assert_eq!(check(&["RG.UNREGISTER", "id"], Some(own), around), Ok(()));
        }
    }

    #[test]
    fn what_waits_ends_the_server_or_needs_a_connection_runs_nowhere() {
        let table = [
            &["WAIT", "1", "0"][..],
            &["waitaof", "1", "0", "0"],
            &["shutdown", "nosave"],
            &["debug", "segfault"],
            &["DEBUG", "RELOAD"],
            &["multi"],
            &["client", "reply", "off"],
            &["client", "tracking", "on"],
            &["script", "debug", "yes"],
            &["readonly"],
            &[],
        ];
        for words in table {
            for around in ALL {
                assert!(check(words, Some(Facts::default()), around).is_err(), "{words:?} {around:?}");
            }
        }
    }

    #[test]
    fn protected_commands_need_the_option_of_the_server() {
        let closed = Protection::default();
        let debug: [&[u8]; 3] = [b"DEBUG", b"SLEEP", b"0"];
        let module: [&[u8]; 3] = [b"module", b"load", b"/x.so"];
        let list: [&[u8]; 2] = [b"module", b"list"];
        let facts = command(facts(&["noscript", "admin"], &["@admin"], "debug"), None);
        let refused = |argv: &[&[u8]], protection| check_call(argv, Some(&facts), Around::Nothing, protection).is_err();
        assert!(refused(&debug, closed) && refused(&module, closed));
        assert!(!refused(&debug, OPEN) && !refused(&module, OPEN) && !refused(&list, closed));
    }

    #[test]
    fn a_refusal_names_command_context_and_remedy() {
        let error = check(&["CLIENT", "KILL"], Some(facts(&["noscript", "admin"], &[], "client")), Around::Script);
        assert_eq!(
            error.unwrap_err().to_string(),
            "FORBIDDEN 'CLIENT KILL' cannot be run by a function while a script is running: it may free or change what \
             the running command uses; use mode='async_local' to run it in a turn of its own"
        );
    }

    #[test]
    fn facts_of_a_container_are_those_of_the_subcommand() {
        let mut command = CommandFacts { own: Facts::default(), ..CommandFacts::default() };
        command.subcommands.insert(b"get".to_vec(), Facts { reads: true, ..Facts::default() });
        assert!(command.of_call(&[b"config", b"GET"]).reads);
        assert!(!command.of_call(&[b"config"]).reads);
    }
}
