//! What people and servers are told about the `RG.*` commands: one table, from which `docs/commands.md` and the server's
//! `COMMAND DOCS` are made.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandDoc {
    /// Its name in capitals.
    pub name: &'static str,
    /// Its arguments: see [`arguments`].
    pub syntax: &'static str,
    /// One line without a full stop, for `COMMAND DOCS`.
    pub summary: &'static str,
    /// How its time grows.
    pub complexity: &'static str,
    /// What it answers.
    pub reply: &'static str,
    /// What else users have to know; may be empty.
    pub notes: &'static str,
}

/// The version that all commands exist since.
pub const SINCE: &str = "1.0.0";

const fn doc(
    name: &'static str,
    syntax: &'static str,
    summary: &'static str,
    complexity: &'static str,
    reply: &'static str,
    notes: &'static str,
) -> CommandDoc {
    CommandDoc { name, syntax, summary, complexity, reply, notes }
}

/// The commands for users, in the order of their names.
pub const COMMANDS: [CommandDoc; 33] = [
    doc(
        "RG.ABORTEXECUTION",
        "id",
        "Aborts an execution",
        "O(1)",
        "`OK` when it has ended. An error if there is no such execution.",
        "Code that ignores the abort for `AbortGrace` ms is ended with its worker. An execution of another user needs permission \
         for `RG.ADMINISTER`.",
    ),
    doc(
        "RG.ADMINISTER",
        "",
        "Stands for the permission to end and replace objects of other users",
        "O(1)",
        "`OK`: it does nothing.",
        "",
    ),
    doc(
        "RG.CLEARREGISTRATIONSSTATS",
        "",
        "Sets the statistics of all registrations to zero",
        "O(N) for N registrations",
        "`OK`.",
        "",
    ),
    doc(
        "RG.CONFIGGET",
        "key [key ...]",
        "Shows values of the configuration",
        "O(N) for N keys",
        "An array with the value of each key, or an error in its place.",
        "See [configuration](configuration.md).",
    ),
    doc(
        "RG.CONFIGSET",
        "key value [key value ...]",
        "Changes values of the configuration",
        "O(N) for N keys",
        "An array with `OK`, or an error, for each key.",
        "See [configuration](configuration.md).",
    ),
    doc(
        "RG.DROPEXECUTION",
        "id",
        "Removes an execution that has ended from the list",
        "O(log N) for N executions in the list",
        "`OK`. An error if there is no such execution, or if it has not ended.",
        "",
    ),
    doc(
        "RG.DUMPEXECUTIONS",
        "",
        "Lists the executions",
        "O(N) for N executions in the list",
        "An array; each execution is an array of `executionId`, `status` (`created`, `running`, `done`, `aborted`) and \
         `registered` with their values.",
        "",
    ),
    doc(
        "RG.DUMPPLUGINS",
        "",
        "Lists the plugins of RedisGears that this module stands for",
        "O(1)",
        "An array; each plugin is an array of names and values.",
        "",
    ),
    doc(
        "RG.DUMPREGISTRATIONS",
        "",
        "Lists the registrations",
        "O(N) for N registrations, in slices",
        "An array; each registration is an array of `id`, `reader`, `desc`, `RegistrationData`, `PD` and `ExecutionThreadPool` with \
         their values.",
        "",
    ),
    doc(
        "RG.GETEXECUTION",
        "id [SHARD | CLUSTER]",
        "Shows the steps, times and errors of an execution",
        "O(N) for N steps and errors",
        "An array with one entry per shard: `shard_id` and `execution_plan` with their values.",
        "The times of steps are measured while `ProfileExecutions` is 1.",
    ),
    doc(
        "RG.GETRESULTS",
        "id",
        "Shows the results of an execution that has ended",
        "O(N) for N results",
        "An array of two: the results, and the texts of errors. An error if there is no such execution, or if it has not ended.",
        "",
    ),
    doc(
        "RG.GETRESULTSBLOCKING",
        "id",
        "Waits for the end of an execution and shows its results",
        "O(N) for N results",
        "As `RG.GETRESULTS`.",
        "In a transaction or a script it only answers for executions that have ended.",
    ),
    doc(
        "RG.INFOCLUSTER",
        "",
        "Shows the shards of the cluster",
        "O(N) for N shards",
        "An array of facts about the shards; `no cluster mode` on a server that is not part of a cluster.",
        "",
    ),
    doc(
        "RG.NETWORKTEST",
        "",
        "Sends a message to all shards of the cluster",
        "O(N) for N shards",
        "`OK`. Where it arrived stands in the logs.",
        "",
    ),
    doc(
        "RG.PAUSEREGISTRATIONS",
        "[ABORTPENDING] id [id ...]",
        "Pauses StreamReader registrations",
        "O(N) for N registrations",
        "`OK`. An error if one of them does not exist or is no StreamReader: then none is paused.",
        "Entries that arrive are read after `RG.UNPAUSEREGISTRATIONS`.",
    ),
    doc(
        "RG.PYDUMPREQS",
        "",
        "Lists the requirements that are installed or used",
        "O(N) for N requirements",
        "An array; each requirement is an array of `GearReqVersion`, `Name`, `IsDownloaded`, `IsInstalled`, `CompiledOs`, `Wheels`, \
         `Path`, `RefCount` and `IsInReqDictionary` with their values.",
        "",
    ),
    doc(
        "RG.PYDUMPSESSIONS",
        "[VERBOSE] [DEAD] [SESSIONS id ...]",
        "Lists the sessions",
        "O(N) for N sessions",
        "An array; each session is an array of names and values. In place of a session that does not exist: a text that says so.",
        "`VERBOSE` shows requirements and registrations with all their fields, `DEAD` sessions that only executions keep.",
    ),
    doc(
        "RG.PYEXECUTE",
        "script [UNBLOCKING] [ID id] [DESCRIPTION text] [UPGRADE] [REPLACE_WITH id] [FORCE_REINSTALL_REQUIREMENTS] \
         [PYTHON version] [REQUIREMENTS requirement ...]",
        "Runs a Python script, which may run or register functions",
        "That of the script",
        "`OK`, or, if the script ran a function: an array of results and errors, or with `UNBLOCKING` the id of the execution.",
        "With `ID` of an existing session `UPGRADE` is needed: its registrations are replaced when the script succeeds. \
         `REPLACE_WITH` replaces those of another session, or one registration. \
         `PYTHON` is the version of the interpreter, such as `3.11`, that must run the script. \
         `REQUIREMENTS` takes all words that follow.",
    ),
    doc(
        "RG.PYEXPORTREQ",
        "requirement",
        "Gives the wheels of a requirement",
        "O(N) for N bytes of wheels",
        "An array of two: the row of `RG.PYDUMPREQS`, and an array of pieces of at most 10 MiB for `RG.PYIMPORTREQ`.",
        "",
    ),
    doc(
        "RG.PYIMPORTREQ",
        "piece [piece ...]",
        "Installs a requirement from its wheels, without a network",
        "O(N) for N bytes of wheels",
        "`OK` when it is installed.",
        "Takes all pieces of one requirement, in their order.",
    ),
    doc(
        "RG.PYPROFILE",
        "STATS session [order] | RESET session",
        "Shows or forgets how long the functions of a session took",
        "O(N) for N functions",
        "A text for people, or `OK`.",
        "Callbacks are measured while `ProfileExecutions` is 1. `order` is a sort key of Python's `pstats`.",
    ),
    doc(
        "RG.PYSTATS",
        "",
        "Shows the memory of the workers",
        "O(N) for N workers",
        "An array of `TotalAllocated`, `PeakAllocated` and `CurrAllocated` with their values in bytes.",
        "",
    ),
    doc("RG.REFRESHCLUSTER", "", "Reads the topology of the cluster again", "O(N) for N shards", "`OK`.", ""),
    doc(
        "RG.TRIGGER",
        "name [argument ...]",
        "Runs the function that is registered under a name",
        "That of the function",
        "The result of the function, or an array of its results.",
        "Functions that are not `sync` need a client that can wait: they cannot be triggered in transactions and scripts.",
    ),
    doc(
        "RG.TRIGGERONKEY",
        "name key [argument ...]",
        "Runs the function that is registered under a name; its first argument is a key",
        "That of the function",
        "As `RG.TRIGGER`.",
        "Clients of a cluster send it to the shard with the key, and permissions for the key are checked.",
    ),
    doc(
        "RG.UNPAUSEREGISTRATIONS",
        "id [id ...]",
        "Continues StreamReader registrations that were paused",
        "O(N) for N registrations",
        "`OK`. An error if one of them does not exist: then none continues.",
        "",
    ),
    doc(
        "RG.UNREGISTER",
        "id [ABORTPENDING]",
        "Removes a registration",
        "O(N) for N executions that wait",
        "`OK`. An error if there is no such registration.",
        "Executions that exist still run, with `ABORTPENDING` those that have not begun are aborted. A registration of another user \
         needs permission for `RG.ADMINISTER`.",
    ),
    doc(
        "RG.WITHCODEC",
        "version command [argument ...]",
        "Runs one of these commands with results as tagged values",
        "That of the command",
        "That of the command; results are encoded values instead of texts.",
        "For clients: the package uses it. The command is `RG.PYEXECUTE`, `RG.TRIGGER`, `RG.TRIGGERONKEY`, `RG.GETRESULTS` or \
         `RG.GETRESULTSBLOCKING`.",
    ),
    doc(
        "RG.CLUSTERSET",
        "argument [argument ...]",
        "Replaces the topology of the cluster",
        "O(N) for N ranges of slots",
        "`OK`. An error if the arguments are no topology.",
        "For a control plane that knows the shards, and sends them as that of RedisGears did. A server in cluster mode discovers them \
         by itself.",
    ),
    doc("RG.PYEXECUTEREMOTE", "", "Removed from RedisGears 1.2", "O(1)", "A text that says so.", ""),
    doc("RG.PYFREEINTERPRETER", "", "Removed from RedisGears 1.2", "O(1)", "A text that says so.", ""),
    doc(
        "RG.HELLO",
        "",
        "Internal: another shard begins to send messages",
        "O(1)",
        "An id that is another one after each start of the server.",
        "So are `RG.INNERMSGCOMMAND` (a message of another shard) and `RG.CLUSTERSETFROMSHARD` (a topology that it relays). Users of \
         functions need no permission for them, and should have none: they are in the categories `@admin` and `@dangerous`.",
    ),
    doc(
        "RG.INNERATOMIC",
        "",
        "Internal: what an atomic block of a function runs as",
        "O(1)",
        "An error, except for the module itself.",
        "So are `RG.INNERREGISTER` (changes of the registrations, from masters and files) and `RG.INNERHOOK` (hooked commands).",
    ),
];

/// The command with that name, in any case.
#[must_use]
pub fn find(name: &str) -> Option<&'static CommandDoc> {
    COMMANDS.iter().find(|command| command.name.eq_ignore_ascii_case(name))
}

/// What an argument is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A value.
    Text,
    /// The word itself.
    Token,
    /// All of these, one after the other.
    Block(Vec<Argument>),
    /// One of these.
    OneOf(Vec<Argument>),
}

/// An argument of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// The word in front of it, or that it is.
    pub token: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// It may be left out.
    pub optional: bool,
    /// It may be repeated.
    pub multiple: bool,
}

impl Argument {
    /// Its token, or else its name.
    fn label(&self) -> String {
        self.token.as_ref().map_or_else(|| self.name.clone(), |token| token.to_lowercase())
    }
}

/// The arguments of a syntax such as `id [SHARD | CLUSTER] [REQUIREMENTS requirement ...]`: words in capitals stand for
/// themselves, brackets mean that something may be left out, a bar that one of both sides is given, and dots that what is in front
/// of them may be repeated.
#[must_use]
pub fn arguments(syntax: &str) -> Vec<Argument> {
    let spaced = syntax.replace('[', " [ ").replace(']', " ] ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    alternatives(&words)
}

fn alternatives(words: &[&str]) -> Vec<Argument> {
    let mut depth = 0;
    let bars = words.iter().enumerate().filter(|(_, word)| {
        match **word {
            "[" => depth += 1,
            "]" => depth -= 1,
            _ => {}
        }
        **word == "|" && depth == 0
    });
    let bars: Vec<usize> = bars.map(|(index, _)| index).collect();
    if bars.is_empty() {
        return sequence(words);
    }
    let begins = core::iter::once(0).chain(bars.iter().map(|bar| bar + 1));
    let ends = bars.iter().copied().chain([words.len()]);
    let sides: Vec<Argument> = begins.zip(ends).map(|(begin, end)| block(sequence(&words[begin..end]))).collect();
    let name = sides.iter().map(Argument::label).collect::<Vec<_>>().join("-or-");
    alloc::vec![Argument { name, token: None, kind: Kind::OneOf(sides), optional: false, multiple: false }]
}

/// One argument of several.
fn block(mut arguments: Vec<Argument>) -> Argument {
    if arguments.len() == 1 {
        return arguments.remove(0);
    }
    let name = arguments.first().map(Argument::label).unwrap_or_default();
    Argument { name, token: None, kind: Kind::Block(arguments), optional: false, multiple: false }
}

fn sequence(words: &[&str]) -> Vec<Argument> {
    let mut found: Vec<Argument> = Vec::new();
    let mut index = 0;
    while let Some(word) = words.get(index) {
        index += 1;
        match *word {
            "..." => {
                if let Some(last) = found.last_mut() {
                    last.multiple = true;
                }
            }
            "[" => {
                let end = index + closing(&words[index..]);
                let inner = alternatives(&words[index..end]);
                index = end + 1;
                let repeats = found.last().filter(|last| inner.first().is_some_and(|first| first.name == last.name));
                match repeats {
                    // `key [key ...]`
                    Some(_) => {
                        if let Some(last) = found.last_mut() {
                            last.multiple = true;
                        }
                    }
                    None => found.push(Argument { optional: true, ..block(inner) }),
                }
            }
            word if is_token(word) => {
                let value =
                    words.get(index).filter(|next| !is_token(next) && !matches!(**next, "[" | "]" | "..." | "|"));
                let kind = if value.is_some() { Kind::Text } else { Kind::Token };
                index += usize::from(value.is_some());
                let name = value.map_or_else(|| word.to_lowercase(), |value| value.to_string());
                found.push(Argument { name, token: Some(word.to_string()), kind, optional: false, multiple: false });
            }
            word => found.push(Argument {
                name: word.to_string(),
                token: None,
                kind: Kind::Text,
                optional: false,
                multiple: false,
            }),
        }
    }
    found
}

/// Where the bracket is closed that was opened in front of these words.
fn closing(words: &[&str]) -> usize {
    let mut depth = 1;
    for (index, word) in words.iter().enumerate() {
        match *word {
            "[" => depth += 1,
            "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index;
        }
    }
    words.len()
}

fn is_token(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;

    fn shown(arguments: &[Argument]) -> Vec<String> {
        arguments
            .iter()
            .map(|one| {
                let inner = match &one.kind {
                    Kind::Text => one.name.clone(),
                    Kind::Token => String::new(),
                    Kind::Block(inner) => format!("({})", shown(inner).join(" ")),
                    Kind::OneOf(inner) => format!("<{}>", shown(inner).join("|")),
                };
                let token = one.token.clone().unwrap_or_default();
                let marks = [(one.optional, "?"), (one.multiple, "*")];
                let marks: String = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
                format!("{token}{}{inner}{marks}", if token.is_empty() || inner.is_empty() { "" } else { ":" })
            })
            .collect()
    }

    #[test]
    fn a_syntax_is_read() {
        for (syntax, expected) in [
            ("", vec![]),
            ("id", vec!["id"]),
            ("id [SHARD | CLUSTER]", vec!["id", "<SHARD|CLUSTER>?"]),
            ("[ABORTPENDING] id [id ...]", vec!["ABORTPENDING?", "id*"]),
            ("script [ID id] [REQUIREMENTS requirement ...]", vec!["script", "ID:id?", "REQUIREMENTS:requirement?"]),
            ("STATS session [order] | RESET session", vec!["<(STATS:session order?)|RESET:session>"]),
            ("name [argument ...]", vec!["name", "argument?"]),
        ] {
            let found: Vec<String> = shown(&arguments(syntax)).iter().map(|one| one.replace("?*", "?")).collect();
            assert_eq!(found.iter().map(|one| one.replace("*?", "?")).collect::<Vec<_>>(), expected, "{syntax}");
        }
        assert!(arguments("[REQUIREMENTS requirement ...]")[0].multiple);
    }

    #[test]
    fn every_command_is_described_once() {
        for (index, one) in COMMANDS.iter().enumerate() {
            assert!(
                one.name.starts_with("RG.") && !one.summary.is_empty() && !one.summary.ends_with('.'),
                "{}",
                one.name
            );
            assert!(!one.reply.is_empty() && !one.complexity.is_empty(), "{}", one.name);
            assert!(COMMANDS[..index].iter().all(|other| other.name != one.name), "{}", one.name);
            assert_eq!(find(&one.name.to_lowercase()), Some(one));
        }
    }
}
