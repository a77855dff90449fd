//! Positions of readers: plain data that travels between engine and driver.

use crate::prelude::*;

/// What is read in slices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// Keys that match.
    Scan(Scan),
    /// Entries of a stream.
    Range(StreamRange),
    /// Entries that a stream registration reads through its group; the execution holds the position.
    Group,
}

/// A scan over all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// A glob, or with `no_scan` the name of one key.
    pub pattern: Vec<u8>,
    /// One key only.
    pub no_scan: bool,
    /// Whether records carry type and value.
    pub read_value: bool,
    /// The server's cursor.
    pub cursor: Vec<u8>,
    /// Names that were found and not read.
    pub found: VecDeque<Vec<u8>>,
    /// The scan has not ended.
    pub more: bool,
    /// Keys that were counted.
    pub count: u64,
}

impl Scan {
    /// A scan that has not begun.
    #[must_use]
    pub fn new(pattern: Vec<u8>, no_scan: bool, read_value: bool) -> Scan {
        Scan { pattern, no_scan, read_value, cursor: b"0".to_vec(), found: VecDeque::new(), more: true, count: 0 }
    }

    /// Whether all keys match.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.no_scan && self.pattern == b"*"
    }
}

/// A position in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRange {
    /// The stream.
    pub key: Vec<u8>,
    /// The id behind which reading goes on.
    pub after: Vec<u8>,
}
