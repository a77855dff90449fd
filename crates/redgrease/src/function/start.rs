//! How functions begin, and the options of their readers.

use std::time::Duration;

use redgrease_core::plan::StepKind;

use super::GearFunction;
use super::code::PyCode;
use super::reader::{CommandReader, KeysOnlyReader, KeysReader, OnFailure, PythonReader, ShardsIdReader, StreamReader};
use super::step::{Part, Step};

fn owned(names: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    names.into_iter().map(Into::into).collect()
}

/// What records of keys and of streams have in common.
macro_rules! key_and_value {
    ($reader:ident) => {
        impl GearFunction<$reader> {
            /// Replaces each record by its `key`.
            #[must_use]
            pub fn keys(self) -> GearFunction<$reader> {
                self.map(PyCode::source("lambda record: record['key']"))
            }

            /// Replaces each record by its `value`.
            #[must_use]
            pub fn values(self) -> GearFunction<$reader> {
                self.map(PyCode::source("lambda record: record.get('value')"))
            }
        }
    };
}
key_and_value!(KeysReader);
key_and_value!(StreamReader);

impl KeysReader {
    /// Reads the keys whose names match a pattern such as `user:*`.
    #[must_use]
    pub fn pattern(pattern: impl Into<String>) -> GearFunction<KeysReader> {
        GearFunction::of(KeysReader { pattern: pattern.into(), ..KeysReader::default() })
    }

    /// Reads one key.
    #[must_use]
    pub fn key(name: impl Into<String>) -> GearFunction<KeysReader> {
        GearFunction::of(KeysReader { pattern: name.into(), exact: true, ..KeysReader::default() })
    }
}

impl GearFunction<KeysReader> {
    /// Reads no values: records have a `key` and an `event`.
    #[must_use]
    pub fn names_only(mut self) -> GearFunction<KeysReader> {
        self.reader.names_only = true;
        self
    }

    /// Of a registration: only events of these names, such as `set` or `expired`.
    #[must_use]
    pub fn event_types(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> GearFunction<KeysReader> {
        self.reader.event_types = Some(owned(names));
        self
    }

    /// Of a registration: also event types that no command of the server fires, but a module may.
    #[must_use]
    pub fn unknown_events(mut self) -> GearFunction<KeysReader> {
        self.reader.unknown_events = true;
        self
    }

    /// Of a registration: only keys of these types, such as `hash`.
    #[must_use]
    pub fn key_types(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> GearFunction<KeysReader> {
        self.reader.key_types = Some(owned(names));
        self
    }

    /// Of a registration: only events of these commands, whose clients wait for the function.
    #[must_use]
    pub fn commands(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> GearFunction<KeysReader> {
        self.reader.commands = Some(owned(names));
        self
    }
}

impl KeysOnlyReader {
    /// Reads the names of keys that match a pattern.
    #[must_use]
    pub fn pattern(pattern: impl Into<String>) -> GearFunction<KeysOnlyReader> {
        GearFunction::of(KeysOnlyReader { pattern: pattern.into(), exact: false, scan_count: 1000 })
    }

    /// Reads the name of one key, if it exists.
    #[must_use]
    pub fn key(name: impl Into<String>) -> GearFunction<KeysOnlyReader> {
        GearFunction::of(KeysOnlyReader { pattern: name.into(), exact: true, scan_count: 1000 })
    }
}

impl GearFunction<KeysOnlyReader> {
    /// How many keys the server visits in one step of the scan, from 1 to 100,000; 1000 if nothing is said.
    #[must_use]
    pub fn scan_count(mut self, keys: u64) -> GearFunction<KeysOnlyReader> {
        self.reader.scan_count = keys;
        self
    }
}

impl StreamReader {
    fn new(name: String, matches: bool) -> GearFunction<StreamReader> {
        GearFunction::of(StreamReader {
            name,
            matches,
            from_id: "0-0".to_owned(),
            batch: 1,
            duration: Duration::ZERO,
            on_failure: OnFailure::default(),
            trim: true,
        })
    }

    /// Reads one stream.
    #[must_use]
    pub fn key(name: impl Into<String>) -> GearFunction<StreamReader> {
        StreamReader::new(name.into(), false)
    }

    /// Reads the streams whose names match a pattern.
    #[must_use]
    pub fn pattern(pattern: impl Into<String>) -> GearFunction<StreamReader> {
        StreamReader::new(pattern.into(), true)
    }
}

impl GearFunction<StreamReader> {
    /// Of a run: only entries behind this id.
    #[must_use]
    pub fn from_id(mut self, id: impl Into<String>) -> GearFunction<StreamReader> {
        self.reader.from_id = id.into();
        self
    }

    /// Of a registration: how many entries start an execution; 1 if nothing is said.
    #[must_use]
    pub fn batch(mut self, entries: u64) -> GearFunction<StreamReader> {
        self.reader.batch = entries;
        self
    }

    /// Of a registration: the time after which fewer entries start an execution, in milliseconds; never if it is zero.
    #[must_use]
    pub fn duration(mut self, duration: Duration) -> GearFunction<StreamReader> {
        self.reader.duration = duration;
        self
    }

    /// Of a registration: what happens when an execution fails.
    #[must_use]
    pub fn on_failure(mut self, policy: OnFailure) -> GearFunction<StreamReader> {
        self.reader.on_failure = policy;
        self
    }

    /// Of a registration: entries that were processed stay in the stream.
    #[must_use]
    pub fn keep_entries(mut self) -> GearFunction<StreamReader> {
        self.reader.trim = false;
        self
    }
}

impl PythonReader {
    /// Reads what a Python generator yields; it has no parameters.
    #[must_use]
    pub fn generator(generator: PyCode) -> GearFunction<PythonReader> {
        GearFunction::of(PythonReader { generator })
    }
}

impl ShardsIdReader {
    /// Reads one record on each shard.
    #[must_use]
    pub fn each() -> GearFunction<ShardsIdReader> {
        GearFunction::of(ShardsIdReader)
    }
}

impl CommandReader {
    /// Runs when a client triggers a name.
    #[must_use]
    pub fn trigger(name: impl Into<String>) -> GearFunction<CommandReader> {
        let trigger = Some(name.into());
        GearFunction::of(CommandReader { trigger, hook: None, key_prefix: None, in_order: false })
    }

    /// Runs in place of a command of the server.
    #[must_use]
    pub fn hook(command: impl Into<String>) -> GearFunction<CommandReader> {
        let hook = Some(command.into());
        GearFunction::of(CommandReader { trigger: None, hook, key_prefix: None, in_order: false })
    }
}

impl GearFunction<CommandReader> {
    /// Of a hook: only calls with a key that begins so.
    #[must_use]
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> GearFunction<CommandReader> {
        self.reader.key_prefix = Some(prefix.into());
        self
    }

    /// One call after the other, in the order of arrival.
    #[must_use]
    pub fn in_order(mut self) -> GearFunction<CommandReader> {
        self.reader.in_order = true;
        self
    }

    /// Replaces each call by `f(argument, ...)`; arguments are texts.
    #[must_use]
    pub fn apply(self, f: PyCode) -> GearFunction<CommandReader> {
        self.step(Step::new(StepKind::Map, [Part::Applied(f)]))
    }
}
