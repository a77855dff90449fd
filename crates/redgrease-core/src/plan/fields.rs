//! Reading the fields of an encoded plan.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::error::PlanError;
use super::range::NumberRange;
use crate::codec::Value;

pub(super) fn field<'v>(dict: &'v Value, name: &'static str) -> Result<&'v Value, PlanError> {
    let Value::Dict(pairs) = dict else { return Err(PlanError::Field(name)) };
    pairs
        .iter()
        .find(|(key, _)| matches!(key, Value::Str(text) if text == name))
        .map(|(_, value)| value)
        .ok_or(PlanError::Field(name))
}

pub(super) fn text(dict: &Value, name: &'static str) -> Result<String, PlanError> {
    match field(dict, name)? {
        Value::Str(text) => Ok(text.clone()),
        _ => Err(PlanError::Field(name)),
    }
}

pub(super) fn bytes(dict: &Value, name: &'static str) -> Result<Vec<u8>, PlanError> {
    field(dict, name)?.as_bytes().map(<[u8]>::to_vec).ok_or(PlanError::Field(name))
}

pub(super) fn flag(dict: &Value, name: &'static str) -> Result<bool, PlanError> {
    match field(dict, name)? {
        Value::Bool(flag) => Ok(*flag),
        _ => Err(PlanError::Field(name)),
    }
}

/// The number in the field that has the name of its range.
pub(super) fn number(dict: &Value, range: NumberRange) -> Result<u64, PlanError> {
    number_in(dict, range.name, range)
}

pub(super) fn number_in(dict: &Value, name: &'static str, range: NumberRange) -> Result<u64, PlanError> {
    let refused = |value: &dyn core::fmt::Display| Err(PlanError::Range { range, value: format!("{value:.40}") });
    match field(dict, name)? {
        Value::Int(number) => match u64::try_from(*number) {
            Ok(number) if (range.min..=range.max).contains(&number) => Ok(number),
            _ => refused(number),
        },
        Value::BigInt(digits) => refused(digits),
        Value::Float(number) => refused(number),
        _ => Err(PlanError::Field(name)),
    }
}

/// Names, of which there is at least one.
pub(super) fn names(dict: &Value, name: &'static str) -> Result<Option<Vec<String>>, PlanError> {
    match strings(dict, name)? {
        Some(names) if names.is_empty() => Err(PlanError::Empty(name)),
        names => Ok(names),
    }
}

pub(super) fn strings(dict: &Value, name: &'static str) -> Result<Option<Vec<String>>, PlanError> {
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
