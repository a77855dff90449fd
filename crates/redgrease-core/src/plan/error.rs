//! Why a plan is refused.

use alloc::string::String;

use thiserror::Error;

use crate::codec::CodecError;
use crate::event::EventError;
use crate::from_value::ValueError;
use crate::pattern::PatternError;

/// Why a plan is refused. Builders check the arguments of users, so this is a protocol violation or a bug.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Not a value at all.
    #[error("BADPLAN the plan is not readable: {0}")]
    Codec(#[from] CodecError),
    /// A field is absent.
    #[error("BADPLAN the plan's field '{0}' is missing")]
    Missing(&'static str),
    /// A field is of the wrong type, or outside its range.
    #[error("BADPLAN {field} must be {expected}, got {got}")]
    Unfit {
        /// The field, or the plan as a whole.
        field: &'static str,
        /// What is allowed.
        expected: String,
        /// What was given, cut.
        got: String,
    },
    /// Anything else that is wrong with a value.
    #[error("BADPLAN the plan is not readable: {0}")]
    Value(String),
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

impl From<ValueError> for PlanError {
    fn from(error: ValueError) -> PlanError {
        match error {
            ValueError::Missing(field) => PlanError::Missing(field),
            ValueError::Unfit { field, expected, got } => {
                PlanError::Unfit { field: field.unwrap_or("the plan"), expected, got }
            }
            // Steps are the only enums of a plan.
            ValueError::Variant(name) => PlanError::Step(name),
            ValueError::Custom(text) => PlanError::Value(text),
        }
    }
}
