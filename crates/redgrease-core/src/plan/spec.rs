//! A whole plan.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer};

use super::error::PlanError;
use super::lower::{self, Lowered};
use super::mode::Mode;
use super::named::named;
use super::native::NativeRun;
use super::reader::{ReaderKind, RunReader};
use super::step::Step;
use super::trigger::Trigger;
use crate::codec::Value;
use crate::event;
use crate::from_value::from_value;
use crate::render::Style;

/// A plan as a builder describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanSpec {
    /// The reader.
    pub reader: ReaderKind,
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

#[derive(Deserialize)]
struct Written {
    reader: ReaderKind,
    desc: Option<String>,
    mode: Mode,
    #[serde(deserialize_with = "style")]
    reply: Style,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventArgs {
    unknown_events: bool,
}

fn style<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Style, D::Error> {
    let from_name = |name: &str| match name {
        "compat" => Some(Style::Compat),
        "plain" => Some(Style::Plain),
        "pickle" => Some(Style::Pickled),
        _ => None,
    };
    named(deserializer, from_name, "compat, plain or pickle")
}

impl PlanSpec {
    /// Reads an encoded plan.
    ///
    /// # Errors
    /// [`PlanError`], naming the field.
    pub fn decode(bytes: &[u8]) -> Result<PlanSpec, PlanError> {
        let plan = Value::decode(bytes)?;
        let Written { reader, desc, mode, reply, steps } = from_value(&plan)?;
        let args = plan.get("args").ok_or(PlanError::Missing("args"))?.clone();
        Ok(PlanSpec { reader, desc, mode, style: reply, steps, args })
    }

    /// What makes the records of a run.
    ///
    /// # Errors
    /// The reader cannot be run, or its arguments are wrong.
    pub fn run_reader(&self) -> Result<RunReader, PlanError> {
        RunReader::decode(self.reader, &self.args)
    }

    /// What starts the executions of a registration.
    ///
    /// # Errors
    /// The reader cannot be registered, or its arguments are wrong.
    pub fn trigger(&self) -> Result<Trigger, PlanError> {
        Trigger::decode(self.reader, &self.args)
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
        if from_value::<EventArgs>(&self.args)?.unknown_events {
            return Ok(());
        }
        event::check_all(names, has_command, reads).map_err(PlanError::from)
    }

    /// What is executed.
    #[must_use]
    pub fn lower(&self) -> Lowered {
        lower::lower(&self.steps)
    }

    /// The steps at the front that the server runs by itself, when they are the first to see the records of a reader.
    #[must_use]
    pub fn native_prefix(&self) -> Option<NativeRun> {
        NativeRun::of(&self.steps)
    }

    /// The name of a step for an error: its kind.
    #[must_use]
    pub fn step_name(&self, index: u64) -> Option<&'static str> {
        self.steps.get(usize::try_from(index).ok()?).map(|step| step.kind.name())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    /// A plan with these steps (without settings) and arguments of its reader.
    pub(in crate::plan) fn plan(reader: &str, steps: &[&str], args: &[(&str, Value)]) -> PlanSpec {
        PlanSpec::decode(&encoded("async", reader, steps, args)).unwrap()
    }

    fn encoded(mode: &str, reader: &str, steps: &[&str], args: &[(&str, Value)]) -> Vec<u8> {
        let steps = steps.iter().map(|kind| Value::List(vec![Value::text(*kind)]));
        Value::Dict(vec![
            (Value::text("reader"), Value::text(reader)),
            (Value::text("desc"), Value::None),
            (Value::text("mode"), Value::text(mode)),
            (Value::text("reply"), Value::text("compat")),
            (Value::text("steps"), Value::List(steps.collect())),
            (
                Value::text("args"),
                Value::Dict(args.iter().map(|(name, value)| (Value::text(*name), value.clone())).collect()),
            ),
        ])
        .encode()
    }

    #[test]
    fn unknown_names_are_refused_with_their_field() {
        let decode = |mode: &str, reader: &str, step: &str| PlanSpec::decode(&encoded(mode, reader, &[step], &[]));
        assert!(decode("async", "KeysReader", "map").is_ok());
        let refused = |mode, reader| decode(mode, reader, "map").unwrap_err().to_string();
        assert_eq!(refused("later", "KeysReader"), "BADPLAN mode must be async, async_local or sync, got 'later'");
        assert_eq!(refused("async", "x"), "BADPLAN reader must be the name of a reader, got 'x'");
        assert_eq!(decode("async", "KeysReader", "fly"), Err(PlanError::Step("fly".into())));
    }

    #[test]
    fn each_field_of_a_plan_is_needed() {
        let Ok(Value::Dict(whole)) = Value::decode(&encoded("async", "KeysReader", &["map"], &[])) else {
            panic!("not a dict");
        };
        for (at, (name, _)) in whole.iter().enumerate() {
            let mut pairs = whole.clone();
            pairs.remove(at);
            let error = PlanSpec::decode(&Value::Dict(pairs).encode()).unwrap_err();
            assert!(matches!(error, PlanError::Missing(field) if Value::text(field) == *name), "{name:?}: {error}");
        }
        assert!(PlanSpec::decode(&Value::None.encode()).is_err());
    }

    #[test]
    fn event_types_that_never_fire_are_refused() {
        let spec = |events: &[&str]| {
            let events = Value::List(events.iter().map(|event| Value::text(*event)).collect());
            let args = [
                ("prefix", Value::text("*")),
                ("eventTypes", events),
                ("keyTypes", Value::None),
                ("commands", Value::None),
                ("readValue", Value::Bool(true)),
                ("unknownEvents", Value::Bool(false)),
            ];
            plan("KeysReader", &[], &args)
        };
        let reads = spec(&["SET", "get"]);
        assert!(reads.check_events(&reads.trigger().unwrap(), |_| true, |name| name == "get").is_err());
        let writes = spec(&["SET"]);
        assert_eq!(writes.check_events(&writes.trigger().unwrap(), |_| true, |_| false), Ok(()));
    }
}
