//! What starts the executions of a registration.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer};
use serde_bytes::ByteBuf;

use super::error::PlanError;
use super::named::named;
use super::range::{BATCH, DURATION, RETRY_INTERVAL};
use super::reader::ReaderKind;
use crate::codec::{KeyType, Value};
use crate::from_value::from_value;
use crate::pattern::KeyFilter;

/// What a stream registration does with a batch that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePolicy {
    /// Go on with the next batch.
    Continue,
    /// Stop until told otherwise.
    Abort,
    /// Try the same entries again.
    Retry,
}

impl FailurePolicy {
    /// All policies.
    pub const ALL: [FailurePolicy; 3] = [FailurePolicy::Continue, FailurePolicy::Abort, FailurePolicy::Retry];

    /// The name that users give and dumps show.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FailurePolicy::Continue => "continue",
            FailurePolicy::Abort => "abort",
            FailurePolicy::Retry => "retry",
        }
    }

    /// The policy with that name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<FailurePolicy> {
        FailurePolicy::ALL.into_iter().find(|policy| policy.name().eq_ignore_ascii_case(name))
    }
}

impl<'de> Deserialize<'de> for FailurePolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FailurePolicy, D::Error> {
        named(deserializer, FailurePolicy::from_name, "continue, abort or retry")
    }
}

/// What starts the executions of a registration.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    /// Something happened to a key.
    Keys {
        /// Which keys.
        filter: KeyFilter,
        /// Names of events in lower case; `None`: all.
        event_types: Option<Vec<String>>,
        /// Types of keys; `None`: all. A key that is gone passes.
        key_types: Option<Vec<KeyType>>,
        /// Whether records carry type and value.
        read_value: bool,
        /// Names of the commands, in lower case, whose clients wait for the function; `None`: events of all commands count,
        /// and no client waits.
        commands: Option<Vec<Vec<u8>>>,
    },
    /// A stream grew.
    Stream {
        /// Which streams.
        filter: KeyFilter,
        /// Entries that start a run.
        batch: u64,
        /// Time after which fewer entries start one, in milliseconds; 0: never.
        duration_ms: u64,
        /// What happens when a batch fails.
        on_failed: FailurePolicy,
        /// Pause before a retry, in seconds.
        retry_interval_s: u64,
        /// Whether processed entries are removed from the stream.
        trim: bool,
    },
    /// A client calls it by name.
    Command {
        /// The name, case-sensitive.
        name: Vec<u8>,
        /// One after the other, in the order of arrival.
        in_order: bool,
    },
    /// A client calls a command of the server, which the function replaces.
    Hook {
        /// The command's name in lower case.
        command: Vec<u8>,
        /// What one of its keys begins with; `None`: any call.
        key_prefix: Option<Vec<u8>>,
        /// One after the other, in the order of arrival.
        in_order: bool,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeysArgs {
    commands: Option<Vec<String>>,
    key_types: Option<Vec<String>>,
    event_types: Option<Vec<String>>,
    #[serde(with = "serde_bytes")]
    prefix: Vec<u8>,
    read_value: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StreamArgs {
    #[serde(with = "serde_bytes")]
    prefix: Vec<u8>,
    #[serde(deserialize_with = "batch")]
    batch: u64,
    #[serde(deserialize_with = "duration")]
    duration: u64,
    on_failed_policy: FailurePolicy,
    #[serde(deserialize_with = "retry_interval")]
    on_failed_retry_interval: u64,
    trim_stream: bool,
}

#[derive(Deserialize)]
struct CommandArgs {
    hook: Option<String>,
    trigger: Option<ByteBuf>,
    keyprefix: Option<ByteBuf>,
    inorder: bool,
}

fn batch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(BATCH)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(DURATION)
}

fn retry_interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(RETRY_INTERVAL)
}

impl Trigger {
    /// Whether only events of certain commands count, whose clients wait for the function.
    #[must_use]
    pub fn is_of_commands(&self) -> bool {
        matches!(self, Trigger::Keys { commands: Some(_), .. })
    }

    pub(super) fn decode(kind: ReaderKind, args: &Value) -> Result<Trigger, PlanError> {
        match kind {
            ReaderKind::Keys => keys(from_value(args)?),
            ReaderKind::Stream => {
                let args: StreamArgs = from_value(args)?;
                Ok(Trigger::Stream {
                    filter: KeyFilter::new(args.prefix)?,
                    batch: args.batch,
                    duration_ms: args.duration,
                    on_failed: args.on_failed_policy,
                    retry_interval_s: args.on_failed_retry_interval,
                    trim: args.trim_stream,
                })
            }
            ReaderKind::Command => {
                let CommandArgs { hook, trigger, keyprefix, inorder: in_order } = from_value(args)?;
                match (hook, trigger) {
                    (Some(command), _) => {
                        let key_prefix = keyprefix.map(ByteBuf::into_vec);
                        Ok(Trigger::Hook { command: command.to_ascii_lowercase().into_bytes(), key_prefix, in_order })
                    }
                    (None, Some(name)) => Ok(Trigger::Command { name: name.into_vec(), in_order }),
                    (None, None) => Err(PlanError::Missing("trigger")),
                }
            }
            ReaderKind::KeysOnly | ReaderKind::Python | ReaderKind::ShardsId => {
                Err(PlanError::Reader("given reader does not exists or does not support register"))
            }
        }
    }
}

fn keys(args: KeysArgs) -> Result<Trigger, PlanError> {
    let commands = args.commands.filter(|commands| !commands.is_empty());
    let commands =
        commands.map(|names| names.iter().map(|name| name.to_ascii_lowercase().into_bytes()).collect::<Vec<_>>());
    let key_types = not_empty("keyTypes", args.key_types)?;
    let event_types = not_empty("eventTypes", args.event_types)?;
    Ok(Trigger::Keys {
        filter: KeyFilter::new(args.prefix)?,
        event_types: event_types.map(|names| names.iter().map(|name| name.to_ascii_lowercase()).collect()),
        key_types: key_types.map(|names| names.iter().map(key_type).collect::<Result<_, _>>()).transpose()?,
        read_value: args.read_value,
        commands,
    })
}

fn not_empty(field: &'static str, names: Option<Vec<String>>) -> Result<Option<Vec<String>>, PlanError> {
    match names {
        Some(names) if names.is_empty() => Err(PlanError::Empty(field)),
        names => Ok(names),
    }
}

fn key_type(name: &String) -> Result<KeyType, PlanError> {
    KeyType::from_name(name).ok_or_else(|| PlanError::Unfit {
        field: "keyTypes",
        expected: "types of keys".into(),
        got: format!("'{name:.40}'"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::spec::tests::plan;
    use alloc::string::ToString;
    use alloc::vec;

    fn stream(changed: &str, value: &Value) -> Result<Trigger, String> {
        let mut args = vec![
            ("prefix", Value::text("s")),
            ("batch", Value::Int(1)),
            ("duration", Value::Int(0)),
            ("onFailedPolicy", Value::text("continue")),
            ("onFailedRetryInterval", Value::Int(1)),
            ("trimStream", Value::Bool(true)),
        ];
        args.iter_mut().filter(|(name, _)| *name == changed).for_each(|(_, old)| *old = value.clone());
        plan("StreamReader", &[], &args).trigger().map_err(|error| error.to_string())
    }

    #[test]
    fn a_number_outside_its_range_is_named_with_value_and_range() {
        for range in [BATCH, DURATION, RETRY_INTERVAL] {
            let expected = format!("{} must be a whole number from {} to {}", range.name, range.min, range.max);
            let bad = [
                Value::Int(-1),
                Value::Int(i64::MIN),
                Value::Int(i64::MAX),
                Value::Int(range.max as i64 + 1),
                Value::Int(range.min as i64 - 1),
                Value::BigInt("9".repeat(400)),
                Value::Float(0.5),
                Value::Float(f64::NAN),
            ];
            for value in bad {
                let error = stream(range.name, &value).unwrap_err();
                assert!(error.contains(&expected) && error.len() < 200, "{value:?}: {error}");
            }
            for good in [range.min, range.max] {
                assert!(stream(range.name, &Value::Int(good as i64)).is_ok(), "{good}");
            }
        }
        assert!(stream("duration", &Value::Int(-7)).unwrap_err().ends_with("milliseconds, got -7"));
        assert!(stream("batch", &Value::Bool(true)).is_err());
    }

    #[test]
    fn a_failure_policy_is_known_in_any_case() {
        for policy in FailurePolicy::ALL {
            let upper = policy.name().to_ascii_uppercase();
            let Trigger::Stream { on_failed, .. } = stream("onFailedPolicy", &Value::text(upper)).unwrap() else {
                panic!("not a stream");
            };
            assert_eq!(on_failed, policy);
        }
        assert!(stream("onFailedPolicy", &Value::text("ignore")).is_err());
    }

    fn keys(event_types: Value, key_types: Value) -> Result<Trigger, String> {
        let args = [
            ("prefix", Value::text("*")),
            ("eventTypes", event_types),
            ("keyTypes", key_types),
            ("commands", Value::None),
            ("readValue", Value::Bool(true)),
        ];
        plan("KeysReader", &[], &args).trigger().map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_of_names_is_not_empty() {
        let error = keys(Value::List(vec![]), Value::None).unwrap_err();
        assert!(error.contains("eventTypes is an empty list"), "{error}");
        let error = keys(Value::None, Value::List(vec![])).unwrap_err();
        assert!(error.contains("keyTypes is an empty list"), "{error}");
    }

    #[test]
    fn only_some_readers_can_be_registered() {
        assert_eq!(plan("CommandReader", &[], &[]).trigger(), Err(PlanError::Missing("hook")));
        let refused = PlanError::Reader("given reader does not exists or does not support register");
        for kind in ReaderKind::ALL {
            let trigger = plan(kind.name(), &[], &[]).trigger();
            assert_eq!(trigger == Err(refused.clone()), !kind.can_register(), "{kind:?}");
        }
    }
}
