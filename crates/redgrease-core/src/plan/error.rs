//! Why a plan is refused.

use alloc::string::String;

use thiserror::Error;

use super::range::NumberRange;
use crate::codec::CodecError;
use crate::event::EventError;
use crate::pattern::PatternError;

/// Why a plan is refused. Builders check the arguments of users, so this is a protocol violation or a bug.
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
