//! Names of readers, modes and policies in an encoded plan.

use serde::de::{Deserialize, Deserializer, Error, Unexpected};

/// Reads one of the names that `from_name` knows.
pub(super) fn named<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    from_name: impl Fn(&str) -> Option<T>,
    expected: &'static str,
) -> Result<T, D::Error> {
    let name = <&str>::deserialize(deserializer)?;
    from_name(name).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(name), &expected))
}
