//! Records: the results of functions.

use std::fmt;

use redgrease_core::codec::Value;
use redgrease_core::repr;
use serde::de::DeserializeOwned;

use crate::decode;
use crate::error::{Error, Result};
use crate::traceback::PythonError;

/// A result of a function: what its last step made, with its type.
#[derive(Clone, PartialEq)]
pub struct Record(Value);

impl Record {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Record> {
        Value::decode(bytes).map(Record).map_err(|error| Error::Decode { problem: error.to_string() })
    }

    /// The value that Python's `repr` prints as this text; `None` for any other text. Scripts that do not say
    /// `convertToStr=False` make such texts of their results.
    ///
    /// ```
    /// let record = redgrease::Record::from_repr("{'key': 'user:1', 'value': 7}").unwrap();
    /// assert_eq!(record.get::<redgrease::Keyed<String, u64>>()?.value, 7);
    /// # Ok::<(), redgrease::Error>(())
    /// ```
    #[must_use]
    pub fn from_repr(text: &str) -> Option<Record> {
        repr::parse(text).map(Record)
    }

    pub(crate) fn new(value: Value) -> Record {
        Record(value)
    }

    pub(crate) fn value(&self) -> &Value {
        &self.0
    }

    /// It as a value of a type of yours.
    ///
    /// Python's `None`, `bool`, `int`, `float`, `str`, `bytes`, `list`, `tuple`, `set` and `dict` are what serde makes of
    /// them. Texts and bytes that hold a number are numbers, too, if a number is asked for, as strings of the database are.
    ///
    /// # Errors
    /// [`Error::Decode`]: it does not fit.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T> {
        decode::from_value(&self.0)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(&self.0).fmt(f)
    }
}

/// A value for people: bytes as text, and no names of kinds where the form tells them.
struct Shown<'a>(&'a Value);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Bool(flag) => flag.fmt(f),
            Value::Int(number) => number.fmt(f),
            Value::BigInt(digits) => f.write_str(digits),
            Value::Float(number) => number.fmt(f),
            Value::Str(text) => text.fmt(f),
            Value::Raw(bytes) | Value::Bytes(bytes) | Value::ByteArray(bytes) => {
                write!(f, "b\"{}\"", bytes.escape_ascii())
            }
            Value::List(items) => f.debug_list().entries(items.iter().map(Shown)).finish(),
            Value::Tuple(items) => {
                let mut tuple = f.debug_tuple("");
                items.iter().for_each(|item| {
                    tuple.field(&Shown(item));
                });
                tuple.finish()
            }
            Value::Set(items) | Value::FrozenSet(items) => f.debug_set().entries(items.iter().map(Shown)).finish(),
            Value::Dict(pairs) => {
                f.debug_map().entries(pairs.iter().map(|(name, value)| (Shown(name), Shown(value)))).finish()
            }
            other => other.fmt(f),
        }
    }
}

/// The results of an execution, and its errors.
///
/// A record that fails ends the reading; what became of the records before it is kept.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Results {
    /// The results.
    pub records: Vec<Record>,
    /// The errors.
    pub errors: Vec<PythonError>,
}

impl Results {
    /// All results as a value of a type of yours: a `Vec` gets all of them, any other type the only one, and an `Option`
    /// is `None` without results.
    ///
    /// # Errors
    /// [`Error::Execution`]: there are errors. [`Error::Decode`]: the results do not fit.
    pub fn get<T: DeserializeOwned>(self) -> Result<T> {
        if !self.errors.is_empty() {
            return Err(Error::Execution { errors: self.errors });
        }
        decode::from_values(&self.records.iter().map(Record::value).collect::<Vec<_>>())
    }
}

/// A result of a step that groups records: a key, and what became of its records.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Keyed<K, V> {
    /// The key.
    pub key: K,
    /// What became of its records.
    pub value: V,
}

/// What `RG.PYEXECUTE` did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Executed {
    /// The script ran no function; it may have registered some.
    Nothing,
    /// It ran a function to its end.
    Results(Results),
    /// It started a function, whose results `rg_get_results_blocking` waits for.
    Started(crate::id::ExecutionId),
}

impl Executed {
    /// The results; none if no function ran, or has ended.
    #[must_use]
    pub fn into_results(self) -> Results {
        match self {
            Executed::Results(results) => results,
            Executed::Nothing | Executed::Started(_) => Results::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_shown_to_people() {
        let record = Record::new(Value::Dict(vec![
            (Value::text("key"), Value::Raw(b"user:1".to_vec())),
            (Value::text("value"), Value::Tuple(vec![Value::Int(1), Value::None, Value::Bytes(vec![0xff])])),
        ]));
        assert_eq!(format!("{record:?}"), r#"{"key": b"user:1", "value": (1, None, b"\xff")}"#);
    }

    #[test]
    fn bytes_that_are_no_record_are_an_error() {
        assert!(matches!(Record::decode(b"\xfe"), Err(Error::Decode { .. })));
        assert!(matches!(Record::decode(b""), Err(Error::Decode { .. })));
    }
}
