//! Typed data from a decoded [`Value`]: a deserializer of serde.
//!
//! It is stricter than the ones of text formats, because both ends are programs. A struct is a dict that holds each of its
//! fields, the optional ones too; keys that the struct does not have are ignored, and of equal keys the first counts. An
//! enum is a list of the variant's name and, if it has fields, their dict. Text is text only: no bytes, nor strings of the
//! database. Byte strings are all of these.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Display;
use core::slice::Iter;

use serde::de::value::SeqDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, IntoDeserializer, MapAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use thiserror::Error;

use crate::codec::Value;

/// Characters of a value that an error shows.
const SHOWN_MAX: usize = 40;

/// Why a value is not of the type that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ValueError {
    /// A dict without a field.
    #[error("field '{0}' is missing")]
    Missing(&'static str),
    /// A value of another type, or outside its range.
    #[error("{} must be {expected}, got {got}", .field.unwrap_or("the value"))]
    Unfit {
        /// The innermost field that holds it.
        field: Option<&'static str>,
        /// What is allowed.
        expected: String,
        /// What was given, cut.
        got: String,
    },
    /// A variant that the enum does not have.
    #[error("'{0}' is unknown")]
    Variant(String),
    /// Anything else that a type says about its value.
    #[error("{0}")]
    Custom(String),
}

impl ValueError {
    fn unfit(got: &Unexpected<'_>, expected: &dyn Expected) -> ValueError {
        ValueError::Unfit { field: None, expected: expected.to_string(), got: shown(got) }
    }

    fn in_field(self, name: &'static str) -> ValueError {
        match self {
            ValueError::Unfit { field: None, expected, got } => ValueError::Unfit { field: Some(name), expected, got },
            other => other,
        }
    }
}

fn shown(value: &Unexpected<'_>) -> String {
    match value {
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => cut(number),
        Unexpected::Str(text) => format!("'{text:.SHOWN_MAX$}'"),
        Unexpected::Other(text) => cut(text),
        Unexpected::Unit => "none".to_string(),
        other => cut(other),
    }
}

fn cut(value: &dyn Display) -> String {
    value.to_string().chars().take(SHOWN_MAX).collect()
}

impl serde::de::Error for ValueError {
    fn custom<T: Display>(message: T) -> ValueError {
        ValueError::Custom(message.to_string())
    }

    fn invalid_type(got: Unexpected<'_>, expected: &dyn Expected) -> ValueError {
        ValueError::unfit(&got, expected)
    }

    fn invalid_value(got: Unexpected<'_>, expected: &dyn Expected) -> ValueError {
        ValueError::unfit(&got, expected)
    }

    fn unknown_variant(variant: &str, _: &'static [&'static str]) -> ValueError {
        ValueError::Variant(cut(&variant))
    }
}

/// Reads a value of type `T`.
///
/// # Errors
/// [`ValueError`], naming the field.
pub fn from_value<'de, T: Deserialize<'de>>(value: &'de Value) -> Result<T, ValueError> {
    T::deserialize(ValueDeserializer(value))
}

struct ValueDeserializer<'de>(&'de Value);

impl<'de> ValueDeserializer<'de> {
    fn refuse<T>(&self, expected: &dyn Expected) -> Result<T, ValueError> {
        Err(ValueError::unfit(&unexpected(self.0), expected))
    }
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::None => Unexpected::Unit,
        Value::Bool(flag) => Unexpected::Bool(*flag),
        Value::Int(number) => Unexpected::Signed(*number),
        Value::BigInt(digits) => Unexpected::Other(digits),
        Value::Float(number) => Unexpected::Float(*number),
        Value::Str(text) => Unexpected::Str(text),
        Value::Bytes(bytes) | Value::ByteArray(bytes) | Value::Raw(bytes) => Unexpected::Bytes(bytes),
        Value::List(_) => Unexpected::Seq,
        Value::Dict(_) => Unexpected::Map,
        _ => Unexpected::Other("a value of another type"),
    }
}

impl<'de> IntoDeserializer<'de, ValueError> for ValueDeserializer<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for ValueDeserializer<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::None => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Int(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Str(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(ValueDeserializer))),
            _ => self.refuse(&visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Str(text) => visitor.visit_borrowed_str(text),
            _ => self.refuse(&visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0.as_bytes() {
            Some(bytes) => visitor.visit_borrowed_bytes(bytes),
            None => self.refuse(&"text or bytes"),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::None => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self.0 {
            Value::Dict(_) => visitor.visit_map(Fields { dict: self.0, names: fields.iter(), found: None }),
            _ => self.refuse(&"a dict"),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let expected = &"a list of a name and settings";
        let Value::List(parts) = self.0 else { return self.refuse(expected) };
        let [Value::Str(name), rest @ ..] = parts.as_slice() else { return self.refuse(expected) };
        visitor.visit_enum(Variant { name, settings: rest.first().unwrap_or(&Value::None) })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char unit unit_struct seq tuple tuple_struct map identifier
    }
}

/// The fields of a struct, in its order.
struct Fields<'de> {
    dict: &'de Value,
    names: Iter<'static, &'static str>,
    found: Option<(&'static str, &'de Value)>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ValueError> {
        let Some(name) = self.names.next() else { return Ok(None) };
        self.found = Some((name, self.dict.get(name).ok_or(ValueError::Missing(name))?));
        seed.deserialize((*name).into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, ValueError> {
        let Some((name, value)) = self.found.take() else { return Err(ValueError::custom("a value without a key")) };
        seed.deserialize(ValueDeserializer(value)).map_err(|error| error.in_field(name))
    }
}

struct Variant<'de> {
    name: &'de str,
    settings: &'de Value,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = ValueError;
    type Variant = ValueDeserializer<'de>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), ValueError> {
        Ok((seed.deserialize(self.name.into_deserializer())?, ValueDeserializer(self.settings)))
    }
}

/// The settings of a variant; one without fields ignores them.
impl<'de> VariantAccess<'de> for ValueDeserializer<'de> {
    type Error = ValueError;

    fn unit_variant(self) -> Result<(), ValueError> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, ValueError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ValueError> {
        self.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.deserialize_struct("", fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Sample {
        text: String,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        flag: bool,
        number: u64,
        names: Option<Vec<String>>,
    }

    fn sample(changed: &str, value: Option<Value>) -> Result<Sample, String> {
        let mut pairs = vec![
            (Value::text("text"), Value::text("t")),
            (Value::text("bytes"), Value::Raw(vec![255])),
            (Value::Int(7), Value::None),
            (Value::text("more"), Value::None),
            (Value::text("flag"), Value::Bool(true)),
            (Value::text("number"), Value::Int(1)),
            (Value::text("names"), Value::None),
        ];
        let at = pairs.iter().position(|(name, _)| *name == Value::text(changed));
        match (at, value) {
            (Some(at), Some(value)) => pairs[at].1 = value,
            (Some(at), None) => drop(pairs.remove(at)),
            (None, _) => {}
        }
        pairs.push((Value::text("text"), Value::text("of an equal key")));
        from_value(&Value::Dict(pairs)).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_are_found_by_name_and_the_first_of_equal_keys_counts() {
        let expected = Sample { text: "t".into(), bytes: vec![255], flag: true, number: 1, names: None };
        assert_eq!(sample("", None), Ok(expected));
        let names = sample("names", Some(Value::List(vec![Value::text("a")]))).unwrap().names;
        assert_eq!(names, Some(vec!["a".to_string()]));
        for text in [Value::text("b"), Value::Bytes(b"b".to_vec()), Value::ByteArray(b"b".to_vec())] {
            assert_eq!(sample("bytes", Some(text)).unwrap().bytes, b"b");
        }
    }

    #[test]
    fn a_missing_field_is_named_also_an_optional_one() {
        for name in ["bytes", "flag", "number", "names"] {
            assert_eq!(sample(name, None), Err(format!("field '{name}' is missing")));
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused_with_field_value_and_type() {
        let bytes = || Value::Bytes(b"t".to_vec());
        let big = || Value::BigInt("9".repeat(400));
        let table = [
            ("text", bytes(), "text must be a string, got byte array"),
            ("text", Value::Raw(vec![b't']), "text must be a string, got byte array"),
            ("text", Value::None, "text must be a string, got none"),
            ("bytes", Value::List(vec![Value::Int(1)]), "bytes must be text or bytes, got sequence"),
            ("bytes", Value::Int(-1), "bytes must be text or bytes, got -1"),
            ("flag", Value::Int(1), "flag must be a boolean, got 1"),
            ("flag", Value::text("x".repeat(99)), &format!("flag must be a boolean, got '{}'", "x".repeat(40))),
            ("number", Value::Bool(true), "number must be u64, got boolean `true`"),
            ("number", Value::Int(-1), "number must be u64, got -1"),
            ("number", Value::Float(1.0), "number must be u64, got 1"),
            ("number", bytes(), "number must be u64, got byte array"),
            ("number", big(), &format!("number must be u64, got {}", "9".repeat(40))),
            ("names", Value::Tuple(vec![]), "names must be a sequence, got a value of another type"),
            ("names", Value::List(vec![bytes()]), "names must be a string, got byte array"),
            ("names", Value::Dict(vec![]), "names must be a sequence, got map"),
        ];
        for (field, value, expected) in table {
            assert_eq!(sample(field, Some(value)), Err(expected.to_string()));
        }
        let error = from_value::<Sample>(&Value::List(vec![])).unwrap_err();
        assert_eq!(error.to_string(), "the value must be a dict, got sequence");
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Shape {
        Point,
        Square { side: u64 },
    }

    #[test]
    fn an_enum_is_a_list_of_name_and_settings() {
        let shape =
            |parts: &[Value]| from_value::<Shape>(&Value::List(parts.to_vec())).map_err(|error| error.to_string());
        let side = Value::Dict(vec![(Value::text("side"), Value::Int(2))]);
        assert_eq!(shape(&[Value::text("point")]), Ok(Shape::Point));
        assert_eq!(shape(&[Value::text("point"), Value::Int(1), Value::None]), Ok(Shape::Point));
        assert_eq!(shape(&[Value::text("square"), side]), Ok(Shape::Square { side: 2 }));
        assert_eq!(shape(&[Value::text("square")]), Err("the value must be a dict, got none".into()));
        assert_eq!(shape(&[Value::text("circle")]), Err("'circle' is unknown".into()));
        assert!(shape(&[]).is_err() && shape(&[Value::Bytes(b"point".to_vec())]).is_err());
        assert!(from_value::<Shape>(&Value::text("point")).is_err());
    }
}
