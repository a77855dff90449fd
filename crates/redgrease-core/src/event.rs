//! Names of keyspace events that a registration may listen to.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

/// Events of every server that the module runs on.
const EVENTS: [&str; 61] = [
    "append",
    "copy_to",
    "del",
    "evicted",
    "expire",
    "expired",
    "geosearchstore",
    "georadiusstore",
    "hdel",
    "hincrby",
    "hincrbyfloat",
    "hset",
    "incrby",
    "incrbyfloat",
    "keymiss",
    "linsert",
    "lpop",
    "lpush",
    "lrem",
    "lset",
    "ltrim",
    "move_from",
    "move_to",
    "persist",
    "pfadd",
    "rename_from",
    "rename_to",
    "restore",
    "rpop",
    "rpush",
    "sadd",
    "sdiffstore",
    "set",
    "setbit",
    "setrange",
    "sinterstore",
    "sortstore",
    "spop",
    "srem",
    "sunionstore",
    "xadd",
    "xdel",
    "xgroup-create",
    "xgroup-createconsumer",
    "xgroup-delconsumer",
    "xgroup-destroy",
    "xgroup-setid",
    "xsetid",
    "xtrim",
    "zadd",
    "zdiffstore",
    "zincr",
    "zinterstore",
    "zpopmax",
    "zpopmin",
    "zrangestore",
    "zrem",
    "zremrangebylex",
    "zremrangebyrank",
    "zremrangebyscore",
    "zunionstore",
];

/// Events that exist where a command exists: event, command.
const EVENTS_OF_COMMANDS: [(&str, &str); 3] =
    [("hexpire", "hexpire"), ("hexpired", "hexpire"), ("hpersist", "hpersist")];

/// Events of editions of the server that the module does not run on.
const EDITIONS: [&str; 1] = ["change"];

/// Commands whose events have another name.
const COMMANDS: [(&str, &str); 50] = [
    ("bitfield", "setbit"),
    ("bitop", "set"),
    ("blmove", "lpop, lpush, rpop or rpush"),
    ("blpop", "lpop"),
    ("brpop", "rpop"),
    ("brpoplpush", "rpop and lpush"),
    ("bzpopmax", "zpopmax"),
    ("bzpopmin", "zpopmin"),
    ("copy", "copy_to"),
    ("decr", "incrby"),
    ("delex", "del"),
    ("delifeq", "del"),
    ("expireat", "expire"),
    ("geoadd", "zadd"),
    ("georadius", "georadiusstore"),
    ("getdel", "del"),
    ("getex", "expire or persist"),
    ("getset", "set"),
    ("hgetdel", "hdel"),
    ("hmset", "hset"),
    ("hsetex", "hset"),
    ("hsetnx", "hset"),
    ("incr", "incrby"),
    ("lmove", "lpop, lpush, rpop or rpush"),
    ("lmpop", "lpop or rpop"),
    ("lpushx", "lpush"),
    ("move", "move_from and move_to"),
    ("mset", "set"),
    ("msetex", "set"),
    ("msetnx", "set"),
    ("pexpire", "expire"),
    ("pexpireat", "expire"),
    ("psetex", "set"),
    ("rename", "rename_from and rename_to"),
    ("renamenx", "rename_from and rename_to"),
    ("rpoplpush", "rpop and lpush"),
    ("rpushx", "rpush"),
    ("setex", "set and expire"),
    ("setnx", "set"),
    ("smove", "srem and sadd"),
    ("sort", "sortstore"),
    ("unlink", "del"),
    ("xackdel", "xdel"),
    ("xdelex", "xdel"),
    ("xgroup", "xgroup-create, xgroup-setid, xgroup-destroy, xgroup-createconsumer or xgroup-delconsumer"),
    ("zincrby", "zincr"),
    ("zmpop", "zpopmin or zpopmax"),
    ("hpexpire", "hexpire"),
    ("decrby", "incrby"),
    ("pfmerge", "pfadd"),
];

/// An event type that would never fire.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EventError {
    /// The name of a command that only reads.
    #[error(
        "BADEVENT eventTypes names the command '{0}', which only reads: reads make no events, except 'keymiss' for a key \
         that does not exist"
    )]
    Read(String),
    /// The name of a command whose events are called otherwise.
    #[error("BADEVENT eventTypes names the command '{name}', whose event is {events}")]
    Command {
        /// The command.
        name: String,
        /// Names of its events.
        events: &'static str,
    },
    /// No event of this server.
    #[error(
        "BADEVENT eventTypes names '{name}', which this server does not know{hint}; known are {known}; an event of another \
         module needs unknownEvents=True"
    )]
    Unknown {
        /// The name.
        name: String,
        /// The nearest known name.
        hint: String,
        /// All known names.
        known: String,
    },
}

/// Checks the names of event types, in lower case. A name that never fires is accepted beside one that stands for the
/// same: `hmset` beside `hset`, and an event of other editions of the server beside any known one. Existing functions
/// list them so.
///
/// # Errors
/// As for [`check`].
pub fn check_all(
    names: &[String],
    has_command: impl Fn(&str) -> bool,
    reads: impl Fn(&str) -> bool,
) -> Result<(), EventError> {
    // Sets: a list of many names, or of one name many times, takes no quadratic time.
    let distinct: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let known: BTreeSet<&str> = distinct.into_iter().filter(|name| is_known(name, &has_command)).collect();
    let covered = |name: &str| {
        let of_editions = EDITIONS.contains(&name) && !known.is_empty();
        let events = COMMANDS.iter().find(|(command, _)| *command == name).map_or("", |(_, events)| events);
        of_editions || events.split([' ', ',']).any(|event| known.contains(event))
    };
    let refused = |name: &&String| !known.contains(name.as_str()) && !covered(name);
    names.iter().find(refused).map_or(Ok(()), |name| check(name, &has_command, &reads))
}

fn is_known(name: &str, has_command: impl Fn(&str) -> bool) -> bool {
    EVENTS.contains(&name) || EVENTS_OF_COMMANDS.iter().any(|(event, command)| *event == name && has_command(command))
}

/// Checks the name of an event type, in lower case. `has_command` tells whether the server has a command, `reads`
/// whether the server has it and it only reads.
///
/// # Errors
/// Events of that name never fire.
pub fn check(name: &str, has_command: impl Fn(&str) -> bool, reads: impl Fn(&str) -> bool) -> Result<(), EventError> {
    if is_known(name, &has_command) {
        return Ok(());
    }
    if let Some((_, events)) = COMMANDS.iter().find(|(command, _)| *command == name) {
        return Err(EventError::Command { name: name.to_owned(), events });
    }
    if reads(name) {
        return Err(EventError::Read(shortened(name)));
    }
    let mut known: Vec<&str> = EVENTS.to_vec();
    known.extend(EVENTS_OF_COMMANDS.iter().filter(|(_, command)| has_command(command)).map(|(event, _)| event));
    known.sort_unstable();
    let hint = nearest(name, &known).map_or_else(String::new, |near| format!(" (did you mean '{near}'?)"));
    Err(EventError::Unknown { name: shortened(name), hint, known: known.join(", ") })
}

/// The beginning of a text that a user gave, for an error.
fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 64;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The candidate that takes the fewest changes of single bytes, if these are at most a third of its length.
fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    const BYTES_MAX: usize = 64;
    if name.len() > BYTES_MAX {
        return None;
    }
    let distances = candidates.iter().map(|candidate| (distance(name.as_bytes(), candidate.as_bytes()), *candidate));
    let (changes, candidate) = distances.min()?;
    (changes <= candidate.len().max(name.len()).div_ceil(3)).then_some(candidate)
}

/// Levenshtein distance.
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, left) in one.iter().enumerate() {
        let mut diagonal = core::mem::replace(&mut row[0], line + 1);
        for (column, right) in other.iter().enumerate() {
            let changed = diagonal + usize::from(left != right);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use core::cell::Cell;

    fn checked(name: &str, commands: &[&str]) -> Result<(), String> {
        let has = |command: &str| commands.contains(&command);
        check(name, has, |command| command == "get").map_err(|error| error.to_string())
    }

    #[test]
    fn events_of_the_server_are_known() {
        for name in ["set", "expired", "xgroup-create", "keymiss"] {
            assert_eq!(checked(name, &[]), Ok(()), "{name}");
        }
    }

    #[test]
    fn events_of_newer_commands_are_known_where_the_command_exists() {
        assert_eq!(checked("hexpired", &["hexpire"]), Ok(()));
        assert!(checked("hexpired", &[]).is_err());
    }

    #[test]
    fn a_command_that_only_reads_is_named_as_such() {
        assert!(checked("get", &[]).unwrap_err().contains("reads make no events"));
    }

    #[test]
    fn a_command_with_events_of_another_name_is_answered_with_them() {
        let error = checked("incr", &[]).unwrap_err();
        assert_eq!(error, "BADEVENT eventTypes names the command 'incr', whose event is incrby");
    }

    #[test]
    fn an_unknown_event_is_answered_with_the_nearest_name_and_all_names() {
        let error = checked("settt", &[]).unwrap_err();
        assert!(error.contains("(did you mean 'set'?)") && error.contains("zunionstore"), "{error}");
        assert!(error.contains("unknownEvents=True"));
        assert!(!checked("something.else", &[]).unwrap_err().contains("did you mean"));
        assert!(checked(&"x".repeat(100_000), &[]).unwrap_err().len() < 2000);
    }

    #[test]
    fn a_name_that_never_fires_is_accepted_beside_one_that_stands_for_the_same() {
        let checked = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            check_all(&names, |_| false, |name| name == "get").map_err(|error| error.to_string())
        };
        for good in [&["hset", "hmset", "del", "change"][..], &["setex", "expire"], &["set"], &["change", "set"]] {
            assert_eq!(checked(good), Ok(()), "{good:?}");
        }
        for bad in
            [&["hmset"][..], &["hmset", "del"], &["change"], &["change", "hmset"], &["set", "get"], &["set", "settt"]]
        {
            assert!(checked(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_checked_once_however_often_it_is_listed() {
        let names: Vec<String> = ["hexpired", "hpersist"].into_iter().cycle().take(1000).map(str::to_owned).collect();
        let questions = Cell::new(0);
        let has_command = |_: &str| {
            questions.set(questions.get() + 1);
            true
        };
        assert_eq!(check_all(&names, has_command, |_| false), Ok(()));
        assert_eq!(questions.get(), 2);
    }

    #[test]
    fn no_name_is_an_event_and_a_command_with_other_events() {
        let ambiguous = COMMANDS.iter().filter(|(command, _)| EVENTS.contains(command)).count();
        assert_eq!(ambiguous, 0);
    }
}
