//! Reading rows of names and values.

use std::str::FromStr;
use std::time::Duration;

use redis::Value;

use crate::error::{Error, Result, error_reply};

/// A row: a flat array, or a map for clients of RESP3.
pub(crate) struct Fields {
    command: &'static str,
    pairs: Vec<(String, Value)>,
}

impl Fields {
    pub(crate) fn new(command: &'static str, row: Value) -> Result<Fields> {
        let pairs = match row {
            Value::Map(pairs) => pairs,
            Value::Array(items) => {
                let mut items = items.into_iter();
                std::iter::from_fn(|| Some((items.next()?, items.next().unwrap_or(Value::Nil)))).collect()
            }
            other => return Err(Error::reply(command, format!("expected a row of fields, got {}", shown(&other)))),
        };
        let named = |(name, value)| Ok((plain_text(command, &name)?, value));
        Ok(Fields { command, pairs: pairs.into_iter().map(named).collect::<Result<_>>()? })
    }

    /// The value of a field, if the row has it.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.pairs.iter().position(|(each, _)| each == name)?;
        Some(self.pairs.swap_remove(at).1)
    }

    fn required(&mut self, name: &'static str) -> Result<Value> {
        self.take(name).ok_or_else(|| Error::reply(self.command, format!("field '{name}' is missing")))
    }

    fn unfit(&self, name: &str, expected: &str, value: &Value) -> Error {
        Error::reply(self.command, format!("field '{name}' must be {expected}, got {}", shown(value)))
    }

    /// A text that must be there.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<String> {
        let value = self.required(name)?;
        text_value(&value).ok_or_else(|| self.unfit(name, "a text", &value))
    }

    /// A text that may be missing or null.
    pub(crate) fn optional_text(&mut self, name: &'static str) -> Result<Option<String>> {
        match self.take(name) {
            None | Some(Value::Nil) => Ok(None),
            Some(value) => text_value(&value).map(Some).ok_or_else(|| self.unfit(name, "a text", &value)),
        }
    }

    /// An id.
    pub(crate) fn id<T: FromStr<Err = Error>>(&mut self, name: &'static str) -> Result<T> {
        let text = self.text(name)?;
        text.parse().map_err(|error: Error| Error::reply(self.command, error.what()))
    }

    /// A number that is 0 if it is missing.
    pub(crate) fn number(&mut self, name: &'static str) -> Result<u64> {
        Ok(self.integer(name)?.unwrap_or(0))
    }

    /// A whole number; `None` if it is missing, or -1 as servers write what they do not know.
    pub(crate) fn integer(&mut self, name: &'static str) -> Result<Option<u64>> {
        let value = match self.take(name) {
            None | Some(Value::Nil | Value::Int(-1)) => return Ok(None),
            Some(value) => value,
        };
        let number = match &value {
            Value::Int(number) => u64::try_from(*number).ok(),
            other => text_value(other).and_then(|text| text.parse().ok()),
        };
        number.map(Some).ok_or_else(|| self.unfit(name, "a whole number", &value))
    }

    /// A time in milliseconds, which may be fractional.
    pub(crate) fn millis(&mut self, name: &'static str) -> Result<Option<Duration>> {
        let value = match self.take(name) {
            None | Some(Value::Nil) => return Ok(None),
            Some(value) => value,
        };
        let millis = match &value {
            Value::Int(number) => Some(*number as f64),
            Value::Double(number) => Some(*number),
            other => text_value(other).and_then(|text| text.parse().ok()),
        };
        let time = millis.and_then(|millis| Duration::try_from_secs_f64(millis / 1000.0).ok());
        time.map(Some).ok_or_else(|| self.unfit(name, "a number of milliseconds", &value))
    }

    /// A flag in any form that servers use; false if it is missing.
    pub(crate) fn flag(&mut self, name: &'static str) -> Result<bool> {
        let Some(value) = self.take(name) else { return Ok(false) };
        match &value {
            Value::Boolean(flag) => Ok(*flag),
            Value::Int(number @ (0 | 1)) => Ok(*number == 1),
            Value::Nil => Ok(false),
            other => match text_value(other).as_deref() {
                Some("yes" | "true" | "1") => Ok(true),
                Some("no" | "false" | "0") => Ok(false),
                _ => Err(self.unfit(name, "a flag", &value)),
            },
        }
    }

    /// Texts; `None` if the field is missing or null.
    pub(crate) fn texts(&mut self, name: &'static str) -> Result<Option<Vec<String>>> {
        match self.take(name) {
            None | Some(Value::Nil) => Ok(None),
            Some(Value::Array(items) | Value::Set(items)) => {
                items.iter().map(|item| plain_text(self.command, item)).collect::<Result<_>>().map(Some)
            }
            Some(value) => Err(self.unfit(name, "a list of texts", &value)),
        }
    }

    /// Values; none if the field is missing.
    pub(crate) fn list(&mut self, name: &'static str) -> Result<Vec<Value>> {
        self.take(name).map_or(Ok(Vec::new()), |value| array(self.command, value))
    }

    /// A row within the row; without fields if it is missing.
    pub(crate) fn row(&mut self, name: &'static str) -> Result<Fields> {
        Fields::new(self.command, self.take(name).unwrap_or(Value::Array(Vec::new())))
    }
}

/// The elements of an array.
pub(crate) fn array(command: &'static str, value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        Value::ServerError(error) => Err(error_reply(&error, command)),
        other => Err(Error::reply(command, format!("expected an array, got {}", shown(&other)))),
    }
}

/// The rows of an array.
pub(crate) fn rows<T>(command: &'static str, value: Value, row: impl Fn(Fields) -> Result<T>) -> Result<Vec<T>> {
    array(command, value)?.into_iter().map(|each| row(Fields::new(command, each)?)).collect()
}

/// A text of any kind; bytes that are not UTF-8 are replaced.
pub(crate) fn text_value(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        _ => None,
    }
}

/// A text, or an error.
pub(crate) fn plain_text(command: &'static str, value: &Value) -> Result<String> {
    text_value(value).ok_or_else(|| Error::reply(command, format!("expected a text, got {}", shown(value))))
}

/// A value for an error, cut.
pub(crate) fn shown(value: &Value) -> String {
    const CHARACTERS_MAX: usize = 60;
    let text = format!("{value:?}");
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn row(value: Value) -> Fields {
        Fields::new("RG.X", Value::Array(vec![bulk("name"), value])).unwrap()
    }

    #[test]
    fn a_row_is_a_flat_array_or_a_map() {
        let flat = Value::Array(vec![bulk("name"), Value::Int(7)]);
        let map = Value::Map(vec![(Value::SimpleString("name".into()), Value::Int(7))]);
        for value in [flat, map] {
            assert_eq!(Fields::new("RG.X", value).unwrap().number("name").unwrap(), 7);
        }
        let error = Fields::new("RG.X", Value::Int(7)).err().unwrap();
        assert_eq!(error.what(), "the reply to RG.X was not understood: expected a row of fields, got int(7)");
    }

    #[test]
    fn a_flag_has_many_forms() {
        let yes = [Value::Int(1), Value::Boolean(true), bulk("yes"), bulk("true")];
        let no = [Value::Int(0), Value::Boolean(false), bulk("no"), bulk("false"), Value::Nil];
        assert!(yes.into_iter().all(|value| row(value).flag("name").unwrap()));
        assert!(no.into_iter().all(|value| !row(value).flag("name").unwrap()));
        assert!(row(bulk("perhaps")).flag("name").is_err());
        assert!(!row(Value::Int(1)).flag("other").unwrap());
    }

    #[test]
    fn numbers_and_times_come_as_numbers_or_texts() {
        assert_eq!(row(bulk("12")).number("name").unwrap(), 12);
        assert_eq!(row(Value::Int(-1)).integer("name").unwrap(), None);
        assert!(row(Value::Int(-2)).integer("name").is_err());
        for value in [Value::Int(2), bulk("2"), Value::Double(2.0), bulk("2.0")] {
            assert_eq!(row(value).millis("name").unwrap(), Some(Duration::from_millis(2)));
        }
        for value in [Value::Double(f64::NAN), Value::Int(-5), bulk("inf"), Value::Array(vec![])] {
            assert!(row(value).millis("name").is_err());
        }
    }

    #[test]
    fn what_is_missing_or_unfit_is_named() {
        let missing = row(Value::Nil).text("other").unwrap_err();
        assert_eq!(missing.what(), "the reply to RG.X was not understood: field 'other' is missing");
        let unfit = row(Value::Array(vec![Value::Int(1); 40])).text("name").unwrap_err().what().into_owned();
        assert!(unfit.contains("field 'name' must be a text, got array([int(1)") && unfit.len() < 200, "{unfit}");
    }
}
