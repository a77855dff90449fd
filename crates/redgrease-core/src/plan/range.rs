//! The numbers that users give.

use core::fmt;

use serde::de::{Error, Unexpected, Visitor};

/// Range of a number that users give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberRange {
    /// The keyword.
    pub name: &'static str,
    /// Smallest value.
    pub min: u64,
    /// Largest value.
    pub max: u64,
    /// Its unit, with a space before it; empty: none.
    pub unit: &'static str,
}

/// Reads a number in this range: `deserializer.deserialize_u64(BATCH)`.
impl Visitor<'_> for NumberRange {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {} to {}{}", self.min, self.max, self.unit)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
        match u64::try_from(number) {
            Ok(inside) if (self.min..=self.max).contains(&inside) => Ok(inside),
            _ => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}

/// Entries that start a run of a stream registration.
pub const BATCH: NumberRange = NumberRange { name: "batch", min: 1, max: 1_000_000_000, unit: "" };
/// Time after which fewer entries start one: at most a year.
pub const DURATION: NumberRange = NumberRange { name: "duration", min: 0, max: 31_536_000_000, unit: " milliseconds" };
/// Pause before a failed batch is read again: at most a year.
pub const RETRY_INTERVAL: NumberRange =
    NumberRange { name: "onFailedRetryInterval", min: 0, max: 31_536_000, unit: " seconds" };
/// Records that pass a `limit`.
pub const LIMIT: NumberRange = NumberRange { name: "limit argument", min: 0, max: i64::MAX as u64, unit: "" };
/// Hint of a KeysOnlyReader for each `SCAN`: the number of keys that the server visits in one step.
pub const SCAN_COUNT: NumberRange = NumberRange { name: "count", min: 1, max: 100_000, unit: "" };

/// The ranges of all numbers in scripts.
pub const NUMBER_RANGES: [NumberRange; 5] = [BATCH, DURATION, RETRY_INTERVAL, LIMIT, SCAN_COUNT];
