//! The numbers that users give.

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
