//! Plans: a reader, steps and how it was asked to run; plain data.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{CodecError, KeyType, Value};
use crate::event::{self, EventError};
use crate::pattern::{KeyFilter, PatternError};
use crate::render::Style;
use thiserror::Error;

/// Where an execution of a registration runs, seen from the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the background, on all shards.
    Async,
    /// In the background, on this shard.
    AsyncLocal,
    /// At once, before the event's command is answered.
    Sync,
}

impl Mode {
    /// The name that users give and dumps show.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Async => "async",
            Mode::AsyncLocal => "async_local",
            Mode::Sync => "sync",
        }
    }
}

/// What a step does. Derived operations are one step here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepKind {
    /// One record in, one out.
    Map,
    /// Keeps records for which the callback is true.
    Filter,
    /// Side effect only.
    ForEach,
    /// A list becomes its elements.
    FlatMap,
    /// One accumulator per shard.
    Accumulate,
    /// One accumulator per key and shard.
    LocalGroupBy,
    /// One accumulator per key.
    GroupBy,
    /// All records of a key at once.
    BatchGroupBy,
    /// Moves records to the shard of their key.
    Repartition,
    /// Moves records to the initiator.
    Collect,
    /// Lets a slice pass.
    Limit,
    /// Accumulate per shard, then over shards.
    Aggregate,
    /// The same per key.
    AggregateBy,
    /// The first half of it.
    LocalAggregateBy,
    /// Number of records.
    Count,
    /// Number of records per key.
    CountBy,
    /// Arithmetic mean.
    Avg,
    /// All records in order.
    Sort,
    /// Each record once.
    Distinct,
    /// Text of the record (what `convertToStr` adds).
    ToStr,
}

impl StepKind {
    const NAMES: [(&'static str, StepKind); 20] = [
        ("map", StepKind::Map),
        ("filter", StepKind::Filter),
        ("foreach", StepKind::ForEach),
        ("flatmap", StepKind::FlatMap),
        ("accumulate", StepKind::Accumulate),
        ("localgroupby", StepKind::LocalGroupBy),
        ("groupby", StepKind::GroupBy),
        ("batchgroupby", StepKind::BatchGroupBy),
        ("repartition", StepKind::Repartition),
        ("collect", StepKind::Collect),
        ("limit", StepKind::Limit),
        ("aggregate", StepKind::Aggregate),
        ("aggregateby", StepKind::AggregateBy),
        ("localaggregateby", StepKind::LocalAggregateBy),
        ("count", StepKind::Count),
        ("countby", StepKind::CountBy),
        ("avg", StepKind::Avg),
        ("sort", StepKind::Sort),
        ("distinct", StepKind::Distinct),
        ("tostr", StepKind::ToStr),
    ];

    /// The name in a plan and in errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("?", |(name, _)| name)
    }

    fn from_name(name: &str) -> Option<StepKind> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// Name of its callback.
    pub callback: String,
}

/// What makes the records of an execution that was run at once.
#[derive(Debug, Clone, PartialEq)]
pub enum RunReader {
    /// Keys of the database.
    Keys {
        /// A glob, or with `no_scan` the name of one key.
        pattern: Vec<u8>,
        /// One record for exactly that key, whether it exists or not.
        no_scan: bool,
        /// Whether records carry type and value.
        read_value: bool,
    },
    /// Entries of one stream.
    Stream {
        /// The stream's key.
        key: Vec<u8>,
        /// Entries behind this id.
        from_id: Vec<u8>,
    },
    /// The worker makes the records itself.
    Worker,
}

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
    /// The name that users give and dumps show.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FailurePolicy::Continue => "continue",
            FailurePolicy::Abort => "abort",
            FailurePolicy::Retry => "retry",
        }
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
}

/// A plan as a worker sends it.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanSpec {
    /// Name of the reader.
    pub reader: String,
    /// The builder's description.
    pub desc: Option<String>,
    /// Where its executions run.
    pub mode: Mode,
    /// How its results are rendered for clients that did not announce the codec.
    pub style: Style,
    /// The steps, first to last.
    pub steps: Vec<Step>,
    args: Value,
}

/// Why a plan is refused. Workers check the arguments of users, so this is a protocol violation or a bug.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Not a value at all.
    #[error("BADPLAN the plan is not readable: {0}")]
    Codec(#[from] CodecError),
    /// A field is absent or of the wrong type.
    #[error("BADPLAN the plan's field '{0}' is missing or of the wrong type")]
    Field(&'static str),
    /// A number outside its range.
    #[error("BADPLAN {} must be a whole number from {} to {}{}, got {value}", range.name, range.min, range.max, range.unit)]
    Range {
        /// What is allowed.
        range: NumberRange,
        /// What was given.
        value: String,
    },
    /// A list of names that is empty.
    #[error("BADPLAN {0} is an empty list, with which the function never runs: leave it out to have it run for all")]
    Empty(&'static str),
    /// A pattern that is refused.
    #[error("{0}")]
    Pattern(#[from] PatternError),
    /// An event type that never fires.
    #[error("{0}")]
    Event(#[from] EventError),
    /// An unknown step.
    #[error("BADPLAN the plan holds an unknown step '{0}'")]
    Step(String),
    /// The reader has no such action.
    #[error("{0}")]
    Reader(&'static str),
    /// Known, but not available.
    #[error("BADPLAN {0} is not supported yet")]
    Unsupported(&'static str),
}

/// Range of a number that users give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberRange {
    /// The keyword.
    pub name: &'static str,
    /// Smallest value.
    pub min: u64,
    /// Largest value.
    pub max: u64,
    /// Its unit, with a space before it; empty: none.
    pub unit: &'static str,
}

/// Entries that start a run of a stream registration.
pub const BATCH: NumberRange = NumberRange { name: "batch", min: 1, max: 1_000_000_000, unit: "" };
/// Time after which fewer entries start one: at most a year.
pub const DURATION: NumberRange = NumberRange { name: "duration", min: 0, max: 31_536_000_000, unit: " milliseconds" };
/// Pause before a failed batch is read again: at most a year.
pub const RETRY_INTERVAL: NumberRange =
    NumberRange { name: "onFailedRetryInterval", min: 0, max: 31_536_000, unit: " seconds" };
/// Records that pass a `limit`.
pub const LIMIT: NumberRange = NumberRange { name: "limit argument", min: 0, max: i64::MAX as u64, unit: "" };
/// Hint of a KeysOnlyReader for each `SCAN`: the number of keys that the server visits in one step.
pub const SCAN_COUNT: NumberRange = NumberRange { name: "count", min: 1, max: 100_000, unit: "" };

/// The ranges of all numbers in scripts.
pub const NUMBER_RANGES: [NumberRange; 5] = [BATCH, DURATION, RETRY_INTERVAL, LIMIT, SCAN_COUNT];

impl PlanSpec {
    /// Reads an encoded plan.
    ///
    /// # Errors
    /// [`PlanError`], naming the field.
    pub fn decode(bytes: &[u8]) -> Result<PlanSpec, PlanError> {
        let plan = Value::decode(bytes)?;
        let steps = match field(&plan, "steps")? {
            Value::List(items) => items.iter().map(step).collect::<Result<_, _>>()?,
            _ => return Err(PlanError::Field("steps")),
        };
        Ok(PlanSpec {
            reader: text(&plan, "reader")?,
            desc: match field(&plan, "desc")? {
                Value::None => None,
                _ => Some(text(&plan, "desc")?),
            },
            mode: match text(&plan, "mode")?.as_str() {
                "async" => Mode::Async,
                "async_local" => Mode::AsyncLocal,
                "sync" => Mode::Sync,
                _ => return Err(PlanError::Field("mode")),
            },
            style: match text(&plan, "reply")?.as_str() {
                "compat" => Style::Compat,
                "plain" => Style::Plain,
                _ => return Err(PlanError::Field("reply")),
            },
            steps,
            args: field(&plan, "args")?.clone(),
        })
    }

    /// What makes the records of a run.
    ///
    /// # Errors
    /// The reader cannot be run, or its arguments are wrong.
    pub fn run_reader(&self) -> Result<RunReader, PlanError> {
        let args = &self.args;
        match self.reader.as_str() {
            "KeysReader" => Ok(RunReader::Keys {
                pattern: bytes(args, "pattern")?,
                no_scan: flag(args, "noScan")?,
                read_value: flag(args, "readValue")?,
            }),
            "StreamReader" => Ok(RunReader::Stream { key: bytes(args, "key")?, from_id: bytes(args, "fromId")? }),
            "PythonReader" | "KeysOnlyReader" | "ShardsIDReader" => Ok(RunReader::Worker),
            _ => Err(PlanError::Reader("Given reader do not support run or not exists")),
        }
    }

    /// What starts the executions of a registration.
    ///
    /// # Errors
    /// The reader cannot be registered, or its arguments are wrong.
    pub fn trigger(&self) -> Result<Trigger, PlanError> {
        let args = &self.args;
        match self.reader.as_str() {
            "KeysReader" => {
                if strings(args, "commands")?.is_some_and(|commands| !commands.is_empty()) {
                    return Err(PlanError::Unsupported("the KeysReader option 'commands'"));
                }
                let key_types = match names(args, "keyTypes")? {
                    None => None,
                    Some(names) => Some(
                        names
                            .iter()
                            .map(|name| KeyType::from_name(name).ok_or(PlanError::Field("keyTypes")))
                            .collect::<Result<_, _>>()?,
                    ),
                };
                let event_types = names(args, "eventTypes")?;
                Ok(Trigger::Keys {
                    filter: KeyFilter::new(bytes(args, "prefix")?)?,
                    event_types: event_types.map(|names| names.iter().map(|name| name.to_ascii_lowercase()).collect()),
                    key_types,
                    read_value: flag(args, "readValue")?,
                })
            }
            "StreamReader" => Ok(Trigger::Stream {
                filter: KeyFilter::new(bytes(args, "prefix")?)?,
                batch: number(args, BATCH)?,
                duration_ms: number(args, DURATION)?,
                on_failed: match text(args, "onFailedPolicy")?.to_ascii_lowercase().as_str() {
                    "continue" => FailurePolicy::Continue,
                    "abort" => FailurePolicy::Abort,
                    "retry" => FailurePolicy::Retry,
                    _ => return Err(PlanError::Field("onFailedPolicy")),
                },
                retry_interval_s: number(args, RETRY_INTERVAL)?,
                trim: flag(args, "trimStream")?,
            }),
            "CommandReader" => {
                if !matches!(field(args, "hook")?, Value::None) {
                    return Err(PlanError::Unsupported("the CommandReader option 'hook'"));
                }
                Ok(Trigger::Command { name: bytes(args, "trigger")?, in_order: flag(args, "inorder")? })
            }
            _ => Err(PlanError::Reader("given reader does not exists or does not support register")),
        }
    }

    /// Checks that the event types of a registration can fire; see [`event::check_all`] for what is asked.
    ///
    /// # Errors
    /// One of them never fires.
    pub fn check_events(
        &self,
        trigger: &Trigger,
        has_command: impl Fn(&str) -> bool,
        reads: impl Fn(&str) -> bool,
    ) -> Result<(), PlanError> {
        let Trigger::Keys { event_types: Some(names), .. } = trigger else { return Ok(()) };
        if flag(&self.args, "unknownEvents")? {
            return Ok(());
        }
        event::check_all(names, has_command, reads).map_err(PlanError::from)
    }

    /// Whether the server can work the whole plan off without a worker, and how: see [`NativePlan`].
    #[must_use]
    pub fn native(&self) -> Option<NativePlan> {
        let mut rest = self.steps.iter().map(|step| step.kind).filter(|kind| *kind != StepKind::Collect);
        if rest.next() != Some(StepKind::Count) {
            return None;
        }
        match (rest.next(), rest.next()) {
            (None, _) => Some(NativePlan { as_text: false }),
            (Some(StepKind::ToStr), None) => Some(NativePlan { as_text: true }),
            _ => None,
        }
    }

    /// The name of a step for an error: its kind.
    #[must_use]
    pub fn step_name(&self, index: u64) -> Option<&'static str> {
        self.steps.get(usize::try_from(index).ok()?).map(|step| step.kind.name())
    }
}

/// A plan that is nothing but a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NativePlan {
    /// Whether the number is wanted as text.
    pub as_text: bool,
}

fn field<'v>(dict: &'v Value, name: &'static str) -> Result<&'v Value, PlanError> {
    let Value::Dict(pairs) = dict else { return Err(PlanError::Field(name)) };
    pairs
        .iter()
        .find(|(key, _)| matches!(key, Value::Str(text) if text == name))
        .map(|(_, value)| value)
        .ok_or(PlanError::Field(name))
}

fn text(dict: &Value, name: &'static str) -> Result<String, PlanError> {
    match field(dict, name)? {
        Value::Str(text) => Ok(text.clone()),
        _ => Err(PlanError::Field(name)),
    }
}

fn bytes(dict: &Value, name: &'static str) -> Result<Vec<u8>, PlanError> {
    field(dict, name)?.as_bytes().map(<[u8]>::to_vec).ok_or(PlanError::Field(name))
}

fn flag(dict: &Value, name: &'static str) -> Result<bool, PlanError> {
    match field(dict, name)? {
        Value::Bool(flag) => Ok(*flag),
        _ => Err(PlanError::Field(name)),
    }
}

fn number(dict: &Value, range: NumberRange) -> Result<u64, PlanError> {
    let refused = |value: &dyn core::fmt::Display| Err(PlanError::Range { range, value: format!("{value:.40}") });
    match field(dict, range.name)? {
        Value::Int(number) => match u64::try_from(*number) {
            Ok(number) if (range.min..=range.max).contains(&number) => Ok(number),
            _ => refused(number),
        },
        Value::BigInt(digits) => refused(digits),
        Value::Float(number) => refused(number),
        _ => Err(PlanError::Field(range.name)),
    }
}

/// Names, of which there is at least one.
fn names(dict: &Value, name: &'static str) -> Result<Option<Vec<String>>, PlanError> {
    match strings(dict, name)? {
        Some(names) if names.is_empty() => Err(PlanError::Empty(name)),
        names => Ok(names),
    }
}

fn strings(dict: &Value, name: &'static str) -> Result<Option<Vec<String>>, PlanError> {
    match field(dict, name)? {
        Value::None => Ok(None),
        Value::List(items) => items
            .iter()
            .map(|item| match item {
                Value::Str(text) => Ok(text.clone()),
                _ => Err(PlanError::Field(name)),
            })
            .collect::<Result<_, _>>()
            .map(Some),
        _ => Err(PlanError::Field(name)),
    }
}

fn step(value: &Value) -> Result<Step, PlanError> {
    let Value::List(parts) = value else { return Err(PlanError::Field("steps")) };
    let [Value::Str(kind), Value::Str(callback), ..] = parts.as_slice() else {
        return Err(PlanError::Field("steps"));
    };
    let kind = StepKind::from_name(kind).ok_or_else(|| PlanError::Step(kind.clone()))?;
    Ok(Step { kind, callback: callback.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn plan(reader: &str, steps: &[&str], args: Vec<(&str, Value)>) -> Vec<u8> {
        let steps =
            steps.iter().map(|kind| Value::List(vec![Value::text(*kind), Value::text("f"), Value::text("<f>")]));
        Value::Dict(vec![
            (Value::text("reader"), Value::text(reader)),
            (Value::text("desc"), Value::None),
            (Value::text("mode"), Value::text("async")),
            (Value::text("reply"), Value::text("compat")),
            (Value::text("steps"), Value::List(steps.collect())),
            (
                Value::text("args"),
                Value::Dict(args.into_iter().map(|(name, value)| (Value::text(name), value)).collect()),
            ),
        ])
        .encode()
    }

    #[test]
    fn only_a_plan_that_is_nothing_but_a_count_runs_without_a_worker() {
        let table: [(&[&str], Option<NativePlan>); 6] = [
            (&["count", "collect"], Some(NativePlan { as_text: false })),
            (&["count", "tostr", "collect"], Some(NativePlan { as_text: true })),
            (&["map", "count", "tostr"], None),
            (&["count", "map", "tostr"], None),
            (&["count", "tostr", "map"], None),
            (&[], None),
        ];
        for (steps, expected) in table {
            let decoded = PlanSpec::decode(&plan("KeysReader", steps, vec![])).unwrap();
            assert_eq!(decoded.native(), expected, "{steps:?}");
        }
    }

    #[test]
    fn each_reader_gives_its_arguments_or_names_the_wrong_one() {
        let args =
            vec![("pattern", Value::text("a*")), ("noScan", Value::Bool(false)), ("readValue", Value::Bool(true))];
        let decoded = PlanSpec::decode(&plan("KeysReader", &[], args)).unwrap();
        let expected = RunReader::Keys { pattern: b"a*".to_vec(), no_scan: false, read_value: true };
        assert_eq!(decoded.run_reader(), Ok(expected));
        assert_eq!(decoded.trigger(), Err(PlanError::Field("commands")));
        let decoded = PlanSpec::decode(&plan("CommandReader", &[], vec![])).unwrap();
        assert_eq!(decoded.run_reader(), Err(PlanError::Reader("Given reader do not support run or not exists")));
        let decoded = PlanSpec::decode(&plan("PythonReader", &[], vec![])).unwrap();
        assert_eq!(decoded.run_reader(), Ok(RunReader::Worker));
        let refused = PlanError::Reader("given reader does not exists or does not support register");
        assert_eq!(decoded.trigger(), Err(refused));
    }

    fn stream(changed: &str, value: Value) -> Result<Trigger, String> {
        let mut args = vec![
            ("prefix", Value::text("s")),
            ("batch", Value::Int(1)),
            ("duration", Value::Int(0)),
            ("onFailedPolicy", Value::text("continue")),
            ("onFailedRetryInterval", Value::Int(1)),
            ("trimStream", Value::Bool(true)),
        ];
        args.iter_mut().filter(|(name, _)| *name == changed).for_each(|(_, old)| *old = value.clone());
        let decoded = PlanSpec::decode(&plan("StreamReader", &[], args)).unwrap();
        decoded.trigger().map_err(|error| error.to_string())
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
                let error = stream(range.name, value.clone()).unwrap_err();
                assert!(error.contains(&expected) && error.len() < 200, "{value:?}: {error}");
            }
            for good in [range.min, range.max] {
                assert!(stream(range.name, Value::Int(good as i64)).is_ok(), "{good}");
            }
        }
        assert!(stream("duration", Value::Int(-7)).unwrap_err().ends_with("milliseconds, got -7"));
        assert!(stream("batch", Value::Bool(true)).is_err());
    }

    fn keys(event_types: Value, key_types: Value) -> Result<(PlanSpec, Trigger), String> {
        let args = vec![
            ("prefix", Value::text("*")),
            ("eventTypes", event_types),
            ("keyTypes", key_types),
            ("commands", Value::None),
            ("readValue", Value::Bool(true)),
            ("unknownEvents", Value::Bool(false)),
        ];
        let decoded = PlanSpec::decode(&plan("KeysReader", &[], args)).unwrap();
        decoded.trigger().map(|trigger| (decoded, trigger)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_of_names_is_not_empty() {
        let error = keys(Value::List(vec![]), Value::None).unwrap_err();
        assert!(error.contains("eventTypes is an empty list"), "{error}");
        let error = keys(Value::None, Value::List(vec![])).unwrap_err();
        assert!(error.contains("keyTypes is an empty list"), "{error}");
    }

    #[test]
    fn event_types_that_never_fire_are_refused() {
        let (spec, trigger) = keys(Value::List(vec![Value::text("SET"), Value::text("get")]), Value::None).unwrap();
        assert!(spec.check_events(&trigger, |_| true, |name| name == "get").is_err());
        let (spec, trigger) = keys(Value::List(vec![Value::text("SET")]), Value::None).unwrap();
        assert_eq!(spec.check_events(&trigger, |_| true, |_| false), Ok(()));
    }

    #[test]
    fn an_unknown_step_is_named() {
        assert_eq!(PlanSpec::decode(&plan("KeysReader", &["fly"], vec![])), Err(PlanError::Step("fly".into())));
    }
}
