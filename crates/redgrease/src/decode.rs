//! Records as values of users' types: a deserializer of serde.
//!
//! It is more lenient than the one of `redgrease-core`, which reads what programs of ours wrote: what users have in keys is
//! texts, and optional fields may be missing.

use std::fmt::Display;

use redgrease_core::codec::Value;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::error::Error;

/// A value as a `T`.
pub(crate) fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    T::deserialize(One(value)).map_err(Error::from)
}

/// All values as a `T`: a sequence, or the only one.
pub(crate) fn from_values<T: DeserializeOwned>(values: &[&Value]) -> Result<T, Error> {
    T::deserialize(All(values)).map_err(Error::from)
}

/// What does not fit.
#[derive(Debug)]
struct Unfit(String);

impl Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

impl serde::de::Error for Unfit {
    fn custom<T: Display>(message: T) -> Unfit {
        Unfit(message.to_string())
    }
}

impl From<Unfit> for Error {
    fn from(unfit: Unfit) -> Error {
        Error::Decode { problem: unfit.0 }
    }
}

fn unfit(problem: impl Into<String>) -> Unfit {
    Unfit(problem.into())
}

/// All results.
struct All<'de>(&'de [&'de Value]);

impl<'de> All<'de> {
    fn only(self) -> Result<One<'de>, Unfit> {
        match self.0 {
            [value] => Ok(One(value)),
            values => Err(unfit(format!("one result was asked for, and there are {}: ask for a Vec", values.len()))),
        }
    }
}

macro_rules! of_the_only_one {
    ($($method:ident)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
            self.only()?.$method(visitor)
        })+
    };
}

impl<'de> Deserializer<'de> for All<'de> {
    type Error = Unfit;

    of_the_only_one! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf deserialize_map deserialize_identifier
        deserialize_unit
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        let mut values = SeqDeserializer::new(self.0.iter().copied().map(One));
        let made = visitor.visit_seq(&mut values)?;
        values.end()?;
        Ok(made)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.0 {
            [] => visitor.visit_none(),
            [Value::None] => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Unfit> {
        self.only()?.deserialize_tuple(len, visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Unfit> {
        self.only()?.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        self.only()?.deserialize_tuple_struct(name, len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        self.only()?.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        self.only()?.deserialize_enum(name, variants, visitor)
    }
}

/// One value.
#[derive(Clone, Copy)]
struct One<'de>(&'de Value);

impl<'de> IntoDeserializer<'de, Unfit> for One<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> One<'de> {
    /// The text of a text, of bytes that are UTF-8, or of an object.
    fn text(self) -> Option<&'de str> {
        match self.0 {
            Value::Str(text) | Value::Opaque(text) => Some(text),
            Value::Raw(bytes) | Value::Bytes(bytes) | Value::ByteArray(bytes) | Value::Error(bytes) => {
                std::str::from_utf8(bytes).ok()
            }
            _ => None,
        }
    }

    fn bytes(self) -> Option<&'de [u8]> {
        match self.0 {
            Value::Raw(bytes) | Value::Bytes(bytes) | Value::ByteArray(bytes) | Value::Error(bytes) => Some(bytes),
            _ => self.text().map(str::as_bytes),
        }
    }

    /// What it is, for an error.
    fn unexpected(self) -> Unexpected<'de> {
        match self.0 {
            Value::None => Unexpected::Unit,
            Value::Bool(flag) => Unexpected::Bool(*flag),
            Value::Int(number) => Unexpected::Signed(*number),
            Value::Float(number) => Unexpected::Float(*number),
            Value::BigInt(_) => Unexpected::Other("a longer integer"),
            Value::Complex(..) => Unexpected::Other("a complex number"),
            Value::List(_) | Value::Tuple(_) | Value::Set(_) | Value::FrozenSet(_) => Unexpected::Seq,
            Value::Dict(_) => Unexpected::Map,
            Value::Pickle(_) => Unexpected::Other("a Python object"),
            _ => self.text().map_or(Unexpected::Other("bytes"), Unexpected::Str),
        }
    }

    fn refuse<T>(self, expected: &dyn serde::de::Expected) -> Result<T, Unfit> {
        Err(serde::de::Error::invalid_type(self.unexpected(), expected))
    }
}

/// Numbers may be texts that hold them.
macro_rules! numbers {
    ($($method:ident $visit:ident $number:ty;)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
            if let Value::BigInt(digits) = self.0 {
                return match digits.parse::<$number>() {
                    Ok(number) => visitor.$visit(number),
                    Err(_) => self.refuse(&visitor),
                };
            }
            match self.text().map(|text| text.trim().parse::<$number>()) {
                Some(Ok(number)) => visitor.$visit(number),
                _ => self.deserialize_any(visitor),
            }
        })+
    };
}

impl<'de> Deserializer<'de> for One<'de> {
    type Error = Unfit;

    numbers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
        deserialize_f32 visit_f32 f32;
        deserialize_f64 visit_f64 f64;
    }

    forward_to_deserialize_any! {
        bool char str string unit unit_struct map struct identifier ignored_any
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.0 {
            Value::None => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Int(number) => visitor.visit_i64(*number),
            Value::BigInt(digits) => match digits.parse::<i128>() {
                Ok(number) => visitor.visit_i128(number),
                Err(_) => visitor.visit_borrowed_str(digits),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Complex(re, im) => visitor.visit_seq(SeqDeserializer::new([*re, *im].into_iter())),
            Value::List(items) | Value::Tuple(items) | Value::Set(items) | Value::FrozenSet(items) => {
                let mut items = SeqDeserializer::new(items.iter().map(One));
                let made = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(made)
            }
            Value::Dict(pairs) => {
                let mut pairs = MapDeserializer::new(pairs.iter().map(|(name, value)| (One(name), One(value))));
                let made = visitor.visit_map(&mut pairs)?;
                pairs.end()?;
                Ok(made)
            }
            Value::Pickle(_) => {
                Err(unfit("a Python object that only Python can read: let the last step make plain values"))
            }
            Value::Str(_)
            | Value::Opaque(_)
            | Value::Raw(_)
            | Value::Bytes(_)
            | Value::ByteArray(_)
            | Value::Error(_) => match (self.text(), self.bytes()) {
                (Some(text), _) => visitor.visit_borrowed_str(text),
                (None, bytes) => visitor.visit_borrowed_bytes(bytes.unwrap_or_default()),
            },
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.bytes() {
            Some(bytes) => visitor.visit_borrowed_bytes(bytes),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_bytes(visitor)
    }

    /// A `Vec<u8>` asks for a sequence of bytes.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.0 {
            Value::Raw(bytes) | Value::Bytes(bytes) | Value::ByteArray(bytes) => {
                visitor.visit_seq(SeqDeserializer::new(bytes.iter().copied()))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.0 {
            Value::None => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_newtype_struct(self)
    }

    /// A text is a variant without fields; a dict with one entry is a variant and its content.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        match (self.0, self.text()) {
            (_, Some(_)) => visitor.visit_enum(Variant { name: self, content: None }),
            (Value::Dict(pairs), _) => match pairs.as_slice() {
                [(name, content)] => visitor.visit_enum(Variant { name: One(name), content: Some(One(content)) }),
                _ => self.refuse(&visitor),
            },
            _ => self.refuse(&visitor),
        }
    }
}

struct Variant<'de> {
    name: One<'de>,
    content: Option<One<'de>>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Unfit;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Unfit> {
        Ok((seed.deserialize(self.name)?, self))
    }
}

impl<'de> Variant<'de> {
    fn content(self) -> Result<One<'de>, Unfit> {
        self.content.ok_or_else(|| unfit("a variant without content"))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Unfit;

    fn unit_variant(self) -> Result<(), Unfit> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(unfit("a variant with content, where one without was asked for")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Unfit> {
        seed.deserialize(self.content()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Unfit> {
        self.content()?.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Unfit> {
        self.content()?.deserialize_struct("", fields, visitor)
    }
}

#[cfg(test)]
mod tests;
