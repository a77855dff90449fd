//! What functions return, as values that can be printed: for people, as raw bytes, and as JSON.

use std::fmt;

use redgrease::Record;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json, json};

use crate::output::one_line;

/// A value of Python.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// Bytes that are not UTF-8.
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
}

impl Value {
    /// A result of a function. One that only Python can read becomes a text that says so.
    pub fn of(record: &Record) -> Self {
        record.get().unwrap_or_else(|error| Value::Text(format!("<{}>", error.what())))
    }

    /// The value as JSON; bytes that are not UTF-8 become `{"hex": "..."}`.
    pub fn json(&self) -> Json {
        match self {
            Value::None => Json::Null,
            Value::Bool(flag) => json!(flag),
            Value::Int(number) => json!(number),
            Value::Float(number) if number.is_finite() => json!(number),
            Value::Float(number) => json!(not_finite(*number)),
            Value::Text(text) => json!(text),
            Value::Bytes(bytes) => json!({ "hex": hex(bytes) }),
            Value::List(items) => items.iter().map(Value::json).collect(),
            Value::Dict(pairs) => {
                Json::Object(pairs.iter().map(|(key, value)| (key.text(), value.json())).collect::<Map<_, _>>())
            }
        }
    }

    /// The value in a cell of a table or as a key: texts as they are, on one line and without control characters, and
    /// everything else as JSON.
    pub fn text(&self) -> String {
        match self {
            Value::None => "None".to_owned(),
            Value::Text(text) => one_line(text),
            Value::Bytes(bytes) => format!("0x{}", hex(bytes)),
            Value::Float(number) if !number.is_finite() => not_finite(*number).to_owned(),
            other => other.json().to_string(),
        }
    }

    /// The bytes of a text; everything else as JSON.
    pub fn raw(&self) -> Vec<u8> {
        match self {
            Value::Text(text) => text.clone().into_bytes(),
            Value::Bytes(bytes) => bytes.clone(),
            Value::None => Vec::new(),
            Value::Float(number) if !number.is_finite() => not_finite(*number).into(),
            other => other.json().to_string().into_bytes(),
        }
    }
}

/// A number that JSON does not have, as Python writes it.
fn not_finite(number: f64) -> &'static str {
    match number {
        f64::INFINITY => "inf",
        f64::NEG_INFINITY => "-inf",
        _ => "nan",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::None)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        self.visit_i128(number.into())
    }

    fn visit_i128<E: serde::de::Error>(self, number: i128) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or_else(|_| Value::Text(number.to_string()), Value::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(bytes.to_vec()),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element()? {
            found.push(item);
        }
        Ok(Value::List(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Value, A::Error> {
        let mut found = Vec::new();
        while let Some(pair) = pairs.next_entry()? {
            found.push(pair);
        }
        Ok(Value::Dict(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_from_anything_that_describes_itself() {
        let value: Value = serde_json::from_str(r#"{"a": [1, 1.5, null, true, "é"]}"#).unwrap();
        assert_eq!(value.json().to_string(), r#"{"a":[1,1.5,null,true,"é"]}"#);
    }

    #[test]
    fn bytes_are_never_lost_and_control_characters_never_reach_a_terminal() {
        let bytes = Value::Bytes(vec![0xff, 0x0a]);
        assert_eq!((bytes.json().to_string(), bytes.text()), (r#"{"hex":"ff0a"}"#.to_owned(), "0xff0a".to_owned()));
        assert_eq!(bytes.raw(), [0xff, 0x0a]);
        assert_eq!(Value::Text("a\x1b[2J\nb".to_owned()).text(), "a [2J b");
        assert_eq!(Value::Text("a\nb".to_owned()).raw(), b"a\nb");
    }

    #[test]
    fn numbers_that_json_does_not_have_are_texts() {
        let (infinite, none) = (Value::Float(f64::NEG_INFINITY), Value::Float(f64::NAN));
        assert_eq!((infinite.json(), none.json()), (json!("-inf"), json!("nan")));
        assert_eq!((infinite.text(), none.raw()), ("-inf".to_owned(), b"nan".to_vec()));
    }
}
