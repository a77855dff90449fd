//! Constants of functions: values of Rust that Python code gets.

use std::collections::{BTreeMap, HashMap};

use redgrease_core::codec::Value;

/// A value that a function carries to the server, where it is a Python object: `None`, a `bool`, `int`, `float`, `str`,
/// `bytes`, `list`, `tuple` or `dict`.
///
/// ```
/// use redgrease::Constant;
///
/// let zero = Constant::from((0, 0.0));
/// let names = Constant::from(vec!["Ada", "Grace"]);
/// let image = Constant::bytes(b"\x89PNG");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Constant(Value);

impl Constant {
    /// Python's `None`.
    #[must_use]
    pub fn none() -> Constant {
        Constant(Value::None)
    }

    /// `bytes`. (A `Vec<u8>` would be a list of numbers.)
    #[must_use]
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Constant {
        Constant(Value::Bytes(bytes.into()))
    }

    pub(crate) fn into_value(self) -> Value {
        self.0
    }
}

macro_rules! integers {
    ($($kind:ty)+) => {
        $(impl From<$kind> for Constant {
            fn from(number: $kind) -> Constant {
                Constant(i64::try_from(number).map_or_else(|_| Value::BigInt(number.to_string()), Value::Int))
            }
        })+
    };
}
integers! { i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize }

macro_rules! scalars {
    ($($kind:ty => $made:expr;)+) => {
        $(impl From<$kind> for Constant {
            fn from(value: $kind) -> Constant {
                let made: fn($kind) -> Value = $made;
                Constant(made(value))
            }
        })+
    };
}
scalars! {
    bool => Value::Bool;
    f32 => |number| Value::Float(number.into());
    f64 => Value::Float;
    &str => |text| Value::text(text);
    String => Value::Str;
}

impl<T: Into<Constant>> From<Option<T>> for Constant {
    fn from(value: Option<T>) -> Constant {
        value.map_or_else(Constant::none, Into::into)
    }
}

fn values<T: Into<Constant>>(items: impl IntoIterator<Item = T>) -> Vec<Value> {
    items.into_iter().map(|item| item.into().0).collect()
}

impl<T: Into<Constant>> From<Vec<T>> for Constant {
    fn from(items: Vec<T>) -> Constant {
        Constant(Value::List(values(items)))
    }
}

impl<T: Into<Constant>, const N: usize> From<[T; N]> for Constant {
    fn from(items: [T; N]) -> Constant {
        Constant(Value::List(values(items)))
    }
}

fn pairs<K: Into<Constant>, V: Into<Constant>>(items: impl IntoIterator<Item = (K, V)>) -> Constant {
    Constant(Value::Dict(items.into_iter().map(|(key, value)| (key.into().0, value.into().0)).collect()))
}

impl<K: Into<Constant>, V: Into<Constant>> From<BTreeMap<K, V>> for Constant {
    fn from(items: BTreeMap<K, V>) -> Constant {
        pairs(items)
    }
}

impl<K: Into<Constant>, V: Into<Constant>, S> From<HashMap<K, V, S>> for Constant {
    fn from(items: HashMap<K, V, S>) -> Constant {
        pairs(items)
    }
}

macro_rules! tuples {
    ($(($($name:ident)+))+) => {
        $(impl<$($name: Into<Constant>),+> From<($($name,)+)> for Constant {
            #[allow(non_snake_case)]
            fn from(($($name,)+): ($($name,)+)) -> Constant {
                Constant(Value::Tuple(vec![$($name.into().0),+]))
            }
        })+
    };
}
tuples! { (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_rust_are_values_of_python() {
        let table = [
            (Constant::from(7_u8), Value::Int(7)),
            (u64::MAX.into(), Value::BigInt("18446744073709551615".into())),
            (1.5_f32.into(), Value::Float(1.5)),
            ("é".into(), Value::text("é")),
            (None::<i32>.into(), Value::None),
            (Some(true).into(), Value::Bool(true)),
            ([1, 2].into(), Value::List(vec![Value::Int(1), Value::Int(2)])),
            ((0, "a").into(), Value::Tuple(vec![Value::Int(0), Value::text("a")])),
            (Constant::bytes(*b"\0"), Value::Bytes(vec![0])),
            (BTreeMap::from([("a", 1)]).into(), Value::Dict(vec![(Value::text("a"), Value::Int(1))])),
        ];
        for (constant, value) in table {
            assert_eq!(constant.into_value(), value);
        }
    }
}
