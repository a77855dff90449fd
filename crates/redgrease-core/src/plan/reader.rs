//! Readers: what makes the records of an execution.

use alloc::vec::Vec;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::error::PlanError;
use super::named::named;
use super::range::SCAN_COUNT;
use crate::codec::Value;
use crate::from_value::from_value;

/// The readers that users know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReaderKind {
    /// Keys with their values.
    Keys,
    /// Names of keys.
    KeysOnly,
    /// Entries of streams.
    Stream,
    /// What a function of the user yields.
    Python,
    /// One record for each shard.
    ShardsId,
    /// Arguments of a command.
    Command,
}

impl ReaderKind {
    /// All readers.
    pub const ALL: [ReaderKind; 6] = [
        ReaderKind::Keys,
        ReaderKind::KeysOnly,
        ReaderKind::Stream,
        ReaderKind::Python,
        ReaderKind::ShardsId,
        ReaderKind::Command,
    ];

    /// The name that users give and dumps show.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ReaderKind::Keys => "KeysReader",
            ReaderKind::KeysOnly => "KeysOnlyReader",
            ReaderKind::Stream => "StreamReader",
            ReaderKind::Python => "PythonReader",
            ReaderKind::ShardsId => "ShardsIDReader",
            ReaderKind::Command => "CommandReader",
        }
    }

    /// The reader with that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<ReaderKind> {
        ReaderKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether a plan with this reader can be run.
    #[must_use]
    pub fn can_run(self) -> bool {
        self != ReaderKind::Command
    }

    /// Whether a plan with this reader can be registered.
    #[must_use]
    pub fn can_register(self) -> bool {
        matches!(self, ReaderKind::Keys | ReaderKind::Stream | ReaderKind::Command)
    }
}

impl<'de> Deserialize<'de> for ReaderKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ReaderKind, D::Error> {
        named(deserializer, ReaderKind::from_name, "the name of a reader")
    }
}

/// What makes the records of an execution that was run at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunReader {
    /// Keys of the database.
    Keys {
        /// A glob, or with `no_scan` the name of one key.
        pattern: Vec<u8>,
        /// One record for exactly that key, if it exists.
        no_scan: bool,
        /// Whether records carry type and value.
        read_value: bool,
    },
    /// Names of keys of the database.
    KeyNames {
        /// A glob, or with `no_scan` the name of one key.
        pattern: Vec<u8>,
        /// One record for exactly that key, if it exists.
        no_scan: bool,
        /// Keys that one step of the scan looks at.
        step: u64,
    },
    /// Entries of one stream.
    Stream {
        /// The stream's key.
        key: Vec<u8>,
        /// Entries behind this id.
        from_id: Vec<u8>,
    },
    /// Entries of the streams whose names match, one stream after the other; of one stream, if it has that very name.
    Streams {
        /// A glob.
        pattern: Vec<u8>,
        /// Entries behind this id.
        from_id: Vec<u8>,
    },
    /// The worker makes the records itself.
    Worker,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeysArgs {
    #[serde(with = "serde_bytes")]
    pattern: Vec<u8>,
    no_scan: bool,
    read_value: bool,
}

/// `None`: a function makes the pattern.
#[derive(Deserialize)]
struct Pattern {
    pattern: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeysOnlyArgs {
    #[serde(with = "serde_bytes")]
    pattern: Vec<u8>,
    no_scan: bool,
    #[serde(rename = "count", deserialize_with = "scan_count")]
    step: u64,
}

fn scan_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(SCAN_COUNT)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StreamArgs {
    #[serde(with = "serde_bytes")]
    key: Vec<u8>,
    #[serde(with = "serde_bytes")]
    from_id: Vec<u8>,
    pattern: bool,
}

impl RunReader {
    pub(super) fn decode(kind: ReaderKind, args: &Value) -> Result<RunReader, PlanError> {
        match kind {
            ReaderKind::Keys => {
                let KeysArgs { pattern, no_scan, read_value } = from_value(args)?;
                Ok(RunReader::Keys { pattern, no_scan, read_value })
            }
            ReaderKind::KeysOnly if from_value::<Pattern>(args)?.pattern.is_none() => Ok(RunReader::Worker),
            ReaderKind::KeysOnly => {
                let KeysOnlyArgs { pattern, no_scan, step } = from_value(args)?;
                Ok(RunReader::KeyNames { pattern, no_scan, step })
            }
            ReaderKind::Stream => Ok(match from_value(args)? {
                StreamArgs { key: pattern, from_id, pattern: true } => RunReader::Streams { pattern, from_id },
                StreamArgs { key, from_id, pattern: false } => RunReader::Stream { key, from_id },
            }),
            ReaderKind::Python | ReaderKind::ShardsId => Ok(RunReader::Worker),
            ReaderKind::Command => Err(PlanError::Reader("Given reader do not support run or not exists")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::spec::tests::plan;

    #[test]
    fn names_and_actions_of_readers() {
        for kind in ReaderKind::ALL {
            assert_eq!(ReaderKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(ReaderKind::from_name("keysreader"), None);
        let runs = ReaderKind::ALL.map(ReaderKind::can_run);
        assert_eq!(runs, [true, true, true, true, true, false]);
        let registers = ReaderKind::ALL.map(ReaderKind::can_register);
        assert_eq!(registers, [true, false, true, false, false, true]);
    }

    #[test]
    fn the_server_reads_all_but_what_a_function_makes() {
        let text = |text: &str| Value::text(text);
        let no = Value::Bool(false);
        let read = |reader, args: &[(&str, Value)]| plan(reader, &[], args).run_reader();
        let keys = [("pattern", text("a*")), ("noScan", no.clone()), ("readValue", Value::Bool(true))];
        let expected = RunReader::Keys { pattern: b"a*".to_vec(), no_scan: false, read_value: true };
        assert_eq!(read("KeysReader", &keys), Ok(expected));
        let names = [("pattern", text("a*")), ("noScan", no.clone()), ("count", Value::Int(7))];
        let expected = RunReader::KeyNames { pattern: b"a*".to_vec(), no_scan: false, step: 7 };
        assert_eq!(read("KeysOnlyReader", &names), Ok(expected));
        assert_eq!(read("KeysOnlyReader", &[("pattern", Value::None)]), Ok(RunReader::Worker));
        for pattern in [false, true] {
            let args = [("key", text("s*")), ("fromId", text("5-1")), ("pattern", Value::Bool(pattern))];
            let (key, from_id) = (b"s*".to_vec(), b"5-1".to_vec());
            let expected = match pattern {
                true => RunReader::Streams { pattern: key, from_id },
                false => RunReader::Stream { key, from_id },
            };
            assert_eq!(read("StreamReader", &args), Ok(expected));
        }
        assert_eq!(read("PythonReader", &[]), Ok(RunReader::Worker));
        let refused = PlanError::Reader("Given reader do not support run or not exists");
        assert_eq!(read("CommandReader", &[]), Err(refused));
        assert_eq!(read("KeysReader", &[]), Err(PlanError::Missing("pattern")));
    }
}
