//! Positions of readers: plain data that is passed between engine and driver.

use redgrease_core::peer::Route;
use redgrease_core::plan::RunReader;

use crate::prelude::*;

/// Default number of keys per step of a scan: some tens of microseconds.
pub const KEYS_PER_STEP: u64 = 256;

/// The source of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// Keys that match.
    Scan(Scan),
    /// Entries of a stream.
    Range(StreamRange),
    /// Entries of streams that match, one stream after the other.
    Streams(Streams),
    /// Entries that a stream registration reads through its group; the execution has the position.
    Group,
}

impl Reader {
    /// The reader of a run before its first record; `None`: its worker makes the records.
    #[must_use]
    pub fn of_run(reader: RunReader) -> Option<Reader> {
        Some(match reader {
            RunReader::Worker => return None,
            RunReader::Keys { pattern, no_scan, read_value } => {
                let content = if read_value { KeyContent::Value } else { KeyContent::Key };
                Reader::Scan(Scan::new(pattern, no_scan, content))
            }
            RunReader::KeyNames { pattern, no_scan, step } => {
                Reader::Scan(Scan { step, ..Scan::new(pattern, no_scan, KeyContent::Name) })
            }
            RunReader::Stream { key, from_id } => Reader::Range(StreamRange { key, after: from_id }),
            RunReader::Streams { pattern, from_id } => Reader::Streams(Streams::new(pattern, from_id)),
        })
    }

    /// The reader of one shard of an execution: a key that it names is read on one shard only.
    #[must_use]
    pub fn of_shard(self, route: &Route, here: u64) -> Reader {
        let key = match &self {
            Reader::Scan(scan) if scan.no_scan => &scan.pattern,
            Reader::Range(range) => &range.key,
            Reader::Scan(_) | Reader::Streams(_) | Reader::Group => return self,
        };
        if route.reader_of(key) == here {
            return self;
        }
        // A scan that has ended.
        Reader::Scan(Scan { more: false, ..Scan::new(Vec::new(), false, KeyContent::Name) })
    }
}

/// The contents of a record of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyContent {
    /// Name, type and value.
    Value,
    /// The name, in the format of such a record.
    Key,
    /// Only the name.
    Name,
}

/// A scan over all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// A glob, or with `no_scan` the name of one key.
    pub pattern: Vec<u8>,
    /// One key only.
    pub no_scan: bool,
    /// The contents of the records.
    pub content: KeyContent,
    /// Number of keys per step.
    pub step: u64,
    /// The server's cursor.
    pub cursor: Vec<u8>,
    /// Names that were found and not read yet.
    pub found: VecDeque<Vec<u8>>,
    /// The scan has not ended.
    pub more: bool,
}

impl Scan {
    /// A scan that has not begun.
    #[must_use]
    pub fn new(pattern: Vec<u8>, no_scan: bool, content: KeyContent) -> Scan {
        let (cursor, found) = (b"0".to_vec(), VecDeque::new());
        Scan { pattern, no_scan, content, step: KEYS_PER_STEP, cursor, found, more: true }
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
    /// The id after which reading continues.
    pub after: Vec<u8>,
}

/// The progress of a search for streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Search {
    /// Whether the pattern itself is the name of a stream is not known yet.
    NotBegun,
    /// It continues at this cursor of the server.
    At(Vec<u8>),
    /// All streams were found.
    Ended,
}

/// A search for streams, and the position in the one that is being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streams {
    /// A glob, or the name of one stream.
    pub pattern: Vec<u8>,
    /// The id after which each stream is read.
    pub from_id: Vec<u8>,
    /// The progress of the search.
    pub search: Search,
    /// Streams that were found and not read, the next one first.
    pub found: VecDeque<Vec<u8>>,
    /// All streams that were found: a scan may return a key twice.
    pub seen: BTreeSet<Vec<u8>>,
    /// The stream that is being read.
    pub current: Option<StreamRange>,
}

impl Streams {
    /// A search that has not begun.
    #[must_use]
    pub fn new(pattern: Vec<u8>, from_id: Vec<u8>) -> Streams {
        Streams {
            pattern,
            from_id,
            search: Search::NotBegun,
            found: VecDeque::new(),
            seen: BTreeSet::new(),
            current: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use redgrease_core::id::ShardId;
    use redgrease_core::peer::SlotRange;

    use super::*;

    #[test]
    fn a_key_that_is_named_is_read_on_one_shard() {
        let shards = vec![ShardId::padded(b"a").unwrap(), ShardId::padded(b"b").unwrap()];
        // The slot of `foo` is 12182, that of `bar` 5061; nobody has 16383.
        let slots = [(0, 8000, 0), (8001, 16382, 1)].map(|(first, last, shard)| SlotRange { first, last, shard });
        let route = Route { shards, slots: slots.to_vec() };
        let one = |key: &[u8]| Scan::new(key.to_vec(), true, KeyContent::Value);
        let range = |key: &[u8]| StreamRange { key: key.to_vec(), after: b"0".to_vec() };
        let reads = |reader: Reader, here| !matches!(reader.of_shard(&route, here), Reader::Scan(scan) if !scan.more);
        for (key, reader) in [(b"foo", 1), (b"bar", 0), (b"6ZJ", 0)] {
            for here in [0, 1] {
                assert_eq!(reads(Reader::Scan(one(key)), here), here == reader, "{key:?}");
                assert_eq!(reads(Reader::Range(range(key)), here), here == reader, "{key:?}");
                assert!(reads(Reader::Scan(Scan::new(key.to_vec(), false, KeyContent::Value)), here));
                assert!(reads(Reader::Streams(Streams::new(key.to_vec(), b"0".to_vec())), here));
            }
        }
    }
}
