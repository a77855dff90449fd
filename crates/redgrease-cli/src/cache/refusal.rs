//! Errors of a cache, worded for the command line: with its subcommands and options instead of the library's methods.

use std::process::ExitCode;
use std::{fmt, io};

use anyhow::anyhow;
use redgrease_filecache::{Code, Error};
use serde_json::{Value, json};

use super::keys;

/// Fixes in the words of the library, and in those of the command line.
const FIXES: [(&str, &str); 6] = [
    ("it already has content; replace it or delete it first", "the entry exists already; replace it with --replace"),
    ("with adopt", "with --adopt"),
    ("wait with a timeout", "wait with --timeout"),
    ("the timeout is too short, or `locks` shows", "--timeout is too short, or `redgrease cache locks` shows"),
    ("raise max_entry_bytes or max_bytes", "raise --max-entry-bytes or --max-bytes with `redgrease cache configure`"),
    ("name another one by the url", "name another one with --url"),
];

/// An error of a cache: its code, the entry if there is one, and the message.
#[derive(Debug)]
pub struct Refusal {
    code: Code,
    key: Option<Vec<u8>>,
    words: String,
}

impl Refusal {
    /// An error of the command line itself, with the matching code of the cache.
    pub fn new(code: Code, words: String) -> Self {
        Self { code, key: None, words }
    }

    /// The entry does not exist.
    pub fn missing(key: &[u8]) -> Self {
        Self { code: Code::Missing, key: Some(key.to_vec()), words: format!("there is no entry {}", keys::shown(key)) }
    }

    /// An error of the library during this subcommand.
    pub fn of(subcommand: &str, error: &Error) -> Self {
        match (error.code(), error.key()) {
            (Code::Missing, Some(key)) => Self::missing(key),
            (code, key) => Self {
                code,
                key: key.map(<[u8]>::to_vec),
                words: typed(subcommand, error.operation(), &error.to_string()),
            },
        }
    }

    pub fn status(&self) -> ExitCode {
        ExitCode::from(self.code.exit_status())
    }

    pub fn json(&self) -> Value {
        let mut told = json!({ "error": self.words, "code": self.code.as_str() });
        if let Some(key) = &self.key {
            told["key"] = keys::json(key);
        }
        told
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.words)
    }
}

impl std::error::Error for Refusal {}

/// The text of an error, with options instead of methods.
fn typed(subcommand: &str, operation: &str, text: &str) -> String {
    let told = match text.strip_prefix(operation) {
        Some(rest) => format!("{subcommand}{rest}"),
        None => format!("{subcommand}: {text}"),
    };
    // The fix follows the names of files and keys, which are unchanged.
    FIXES.iter().fold(told, |told, (called, typed)| match told.rsplit_once(called) {
        Some((before, after)) => format!("{before}{typed}{after}"),
        None => told,
    })
}

/// The error of the cache behind a failed read or write.
pub fn cause(error: io::Error, otherwise: &'static str) -> anyhow::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        let inner = error.into_inner().expect("checked above");
        return match inner.downcast::<Error>() {
            Ok(error) => anyhow::Error::new(*error),
            Err(other) => anyhow!(other),
        };
    }
    anyhow::Error::new(error).context(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redgrease_filecache::{FileCache, Options, Put};

    #[test]
    fn errors_name_what_was_typed() {
        for (operation, text, expected) in [
            (
                "open",
                "open: /with adopt belongs to namespace a; open it with those, or take it over with adopt",
                "get: /with adopt belongs to namespace a; open it with those, or take it over with --adopt",
            ),
            (
                "open_read",
                "open_read \"k\": p is writing it; wait with a timeout",
                "get \"k\": p is writing it; wait with --timeout",
            ),
            ("read", "something else", "get: something else"),
        ] {
            assert_eq!(typed("get", operation, text), expected);
        }
    }

    #[test]
    fn refusals_of_the_library_are_told_as_those_of_the_command() {
        let directory = tempfile::tempdir().unwrap();
        let cache = FileCache::open(Options::new(directory.path().join("cache"))).unwrap();
        let put = Put::default();
        cache.open_write(b"a", &put).unwrap().commit().unwrap();
        let exists = Refusal::of("put", &cache.open_write(b"a", &put).err().unwrap());
        assert_eq!(exists.to_string(), "put \"a\": the entry exists already; replace it with --replace");
        assert_eq!(exists.json()["key"], "a");
        let missing = Refusal::of("get", &cache.open_read(b"nope", std::time::Duration::ZERO).err().unwrap());
        assert_eq!(missing.to_string(), "there is no entry nope");
        let strange = FileCache::open(Options::new(directory.path())).err().unwrap();
        assert!(Refusal::of("put", &strange).to_string().ends_with("with --adopt"), "{strange}");
    }
}
