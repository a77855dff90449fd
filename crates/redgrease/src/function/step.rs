//! Steps of functions, and what they carry to the worker.

use redgrease_core::codec::Value;
use redgrease_core::plan::StepKind;

use super::code::PyCode;
use super::constant::Constant;
use crate::error::Result;

/// A step: what it does, and what belongs to it where it runs.
#[derive(Debug, Clone)]
pub(super) struct Step {
    kind: StepKind,
    parts: Vec<Part>,
}

/// What a step carries: Python code or a constant.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Code(PyCode),
    /// Code that is called with the arguments of a command, without its name.
    Applied(PyCode),
    Constant(Constant),
}

impl Step {
    pub(super) fn native(kind: StepKind) -> Step {
        Step { kind, parts: Vec::new() }
    }

    pub(super) fn new(kind: StepKind, parts: impl IntoIterator<Item = Part>) -> Step {
        Step { kind, parts: parts.into_iter().collect() }
    }

    /// The step in the plan: `[name]`, or `[name, settings]`.
    pub(super) fn in_plan(&self) -> Value {
        let name = Value::text(self.kind.name());
        let settings = match self.kind {
            StepKind::FlatMap { in_order } => vec![("inOrder", Value::Bool(in_order))],
            StepKind::Limit { length, offset } => vec![("length", integer(length)), ("offset", integer(offset))],
            StepKind::CountBy { extractor } | StepKind::Avg { extractor } => {
                vec![("extractor", Value::Bool(extractor))]
            }
            StepKind::Sort { reverse } => vec![("reverse", Value::Bool(reverse))],
            _ => return Value::List(vec![name]),
        };
        let settings = settings.into_iter().map(|(name, value)| (Value::text(name), value)).collect();
        Value::List(vec![name, Value::Dict(settings)])
    }

    /// The step for the worker: its name and its parts.
    pub(super) fn in_worker(&self) -> Result<Value> {
        let parts = self.parts.iter().map(Part::encoded).collect::<Result<_>>()?;
        Ok(Value::List(vec![Value::text(self.kind.name()), Value::List(parts)]))
    }
}

impl Part {
    fn encoded(&self) -> Result<Value> {
        match self {
            Part::Code(code) => code.encoded(),
            Part::Applied(code) => Ok(Value::Dict(vec![(Value::text("apply"), code.encoded()?)])),
            Part::Constant(constant) => Ok(Value::Dict(vec![(Value::text("value"), constant.clone().into_value())])),
        }
    }
}

/// A length beyond the range of the codec's integers is beyond every list.
fn integer(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}
