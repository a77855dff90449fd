//! Readers: what makes the records of a function.

use std::time::Duration;

use redgrease_core::codec::Value;
use redgrease_core::plan::ReaderKind;

use super::code::PyCode;
use crate::error::{Error, Result};

/// A reader. The types of this module implement it, and no others.
pub trait Reader: sealed::Sealed {}

/// A reader whose functions can be run.
pub trait Runs: Reader + sealed::Runs {}

/// A reader whose functions can be registered for events.
pub trait Registers: Reader + sealed::Registers {}

pub(super) mod sealed {
    use super::{PyCode, ReaderKind, Result, Value};

    pub trait Sealed {
        const KIND: ReaderKind;
    }

    pub trait Runs {
        /// The arguments of a run.
        fn run_arguments(&self) -> Value;

        /// The function that makes the records, if the server does not.
        fn source(&self) -> Option<PyCode> {
            None
        }
    }

    pub trait Registers {
        /// The arguments of a registration.
        fn register_arguments(&self) -> Result<Value>;
    }
}

macro_rules! readers {
    ($($reader:ident: $kind:ident $($ability:ident)+;)+) => {
        $(impl sealed::Sealed for $reader {
            const KIND: ReaderKind = ReaderKind::$kind;
        }
        impl Reader for $reader {}
        $(impl $ability for $reader {})+)+
    };
}
readers! {
    KeysReader: Keys Runs Registers;
    KeysOnlyReader: KeysOnly Runs;
    StreamReader: Stream Runs Registers;
    PythonReader: Python Runs;
    ShardsIdReader: ShardsId Runs;
    CommandReader: Command Registers;
}

fn dict<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Dict(fields.into_iter().map(|(name, value)| (Value::text(name), value)).collect())
}

/// A list of names; an empty one would mean that the function never runs.
fn names(what: &str, names: Option<&Vec<String>>) -> Result<Value> {
    match names {
        None => Ok(Value::None),
        Some(names) if names.is_empty() => Err(Error::argument(
            format!("the list of {what} is empty: the function would never run"),
            "Leave it out to have the function run for all.",
        )),
        Some(names) => Ok(Value::List(names.iter().map(|name| Value::text(name.as_str())).collect())),
    }
}

fn integer(number: u64) -> Value {
    i64::try_from(number).map_or_else(|_| Value::BigInt(number.to_string()), Value::Int)
}

/// Reads keys and their values: records are dicts of `key`, `value`, `type` and `event`.
#[derive(Debug, Clone, Default)]
pub struct KeysReader {
    pub(super) pattern: String,
    pub(super) exact: bool,
    pub(super) names_only: bool,
    pub(super) event_types: Option<Vec<String>>,
    pub(super) key_types: Option<Vec<String>>,
    pub(super) commands: Option<Vec<String>>,
    pub(super) unknown_events: bool,
}

impl sealed::Runs for KeysReader {
    fn run_arguments(&self) -> Value {
        dict([
            ("pattern", Value::text(self.pattern.as_str())),
            ("noScan", Value::Bool(self.exact)),
            ("readValue", Value::Bool(!self.names_only)),
        ])
    }
}

impl sealed::Registers for KeysReader {
    fn register_arguments(&self) -> Result<Value> {
        Ok(dict([
            ("prefix", Value::text(self.pattern.as_str())),
            ("eventTypes", names("event types", self.event_types.as_ref())?),
            ("unknownEvents", Value::Bool(self.unknown_events)),
            ("keyTypes", names("key types", self.key_types.as_ref())?),
            ("readValue", Value::Bool(!self.names_only)),
            ("commands", names("commands", self.commands.as_ref())?),
        ]))
    }
}

/// Reads names of keys: records are texts.
#[derive(Debug, Clone)]
pub struct KeysOnlyReader {
    pub(super) pattern: String,
    pub(super) exact: bool,
    pub(super) scan_count: u64,
}

impl sealed::Runs for KeysOnlyReader {
    fn run_arguments(&self) -> Value {
        dict([
            ("pattern", Value::text(self.pattern.as_str())),
            ("noScan", Value::Bool(self.exact)),
            ("count", integer(self.scan_count)),
        ])
    }
}

/// What happens when a batch of a stream fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnFailure {
    /// The next batch is read.
    #[default]
    Continue,
    /// Nothing more is read.
    Abort,
    /// The same entries are read again, after this pause, in whole seconds.
    RetryAfter(Duration),
}

/// Reads entries of streams: records are dicts of `key`, `id` and `value`.
#[derive(Debug, Clone)]
pub struct StreamReader {
    pub(super) name: String,
    pub(super) matches: bool,
    pub(super) from_id: String,
    pub(super) batch: u64,
    pub(super) duration: Duration,
    pub(super) on_failure: OnFailure,
    pub(super) trim: bool,
}

impl sealed::Runs for StreamReader {
    fn run_arguments(&self) -> Value {
        dict([
            ("key", Value::text(self.name.as_str())),
            ("fromId", Value::text(self.from_id.as_str())),
            ("pattern", Value::Bool(self.matches)),
        ])
    }
}

impl sealed::Registers for StreamReader {
    fn register_arguments(&self) -> Result<Value> {
        let (policy, pause) = match self.on_failure {
            OnFailure::Continue => ("continue", 1),
            OnFailure::Abort => ("abort", 1),
            OnFailure::RetryAfter(pause) => ("retry", pause.as_secs()),
        };
        let duration = u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX);
        Ok(dict([
            ("prefix", Value::text(self.name.as_str())),
            ("batch", integer(self.batch)),
            ("duration", integer(duration)),
            ("onFailedPolicy", Value::text(policy)),
            ("onFailedRetryInterval", integer(pause)),
            ("trimStream", Value::Bool(self.trim)),
        ]))
    }
}

/// Reads what a Python generator yields.
#[derive(Debug, Clone)]
pub struct PythonReader {
    pub(super) generator: PyCode,
}

impl sealed::Runs for PythonReader {
    fn run_arguments(&self) -> Value {
        dict([])
    }

    fn source(&self) -> Option<PyCode> {
        Some(self.generator.clone())
    }
}

/// Reads one record for each shard: its id, `"1"` without a cluster.
#[derive(Debug, Clone, Default)]
pub struct ShardsIdReader;

impl sealed::Runs for ShardsIdReader {
    fn run_arguments(&self) -> Value {
        dict([])
    }

    fn source(&self) -> Option<PyCode> {
        Some(PyCode::path("redgrease.plan.sources:shard_id"))
    }
}

/// Reads calls of a command: records are lists of the command's name and its arguments.
#[derive(Debug, Clone)]
pub struct CommandReader {
    pub(super) trigger: Option<String>,
    pub(super) hook: Option<String>,
    pub(super) key_prefix: Option<String>,
    pub(super) in_order: bool,
}

impl sealed::Registers for CommandReader {
    fn register_arguments(&self) -> Result<Value> {
        let text = |text: &Option<String>| text.as_deref().map_or(Value::None, Value::text);
        Ok(dict([
            ("trigger", text(&self.trigger)),
            ("hook", text(&self.hook)),
            ("keyprefix", text(&self.key_prefix)),
            ("inorder", Value::Bool(self.in_order)),
        ]))
    }
}
