//! What one shard sends: which messages have been received, and the parts of the one that is being received.

use thiserror::Error;

use crate::limits::{LINK_MESSAGE_BYTES_MAX, RUNS_MAX};
use crate::prelude::*;

/// The id of a run of a shard.
pub(super) type Run = Rc<[u8]>;

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum BadPart {
    /// A part is not the next one.
    #[error("a part at {offset} of {total} bytes, and {have} of {expected} bytes are there")]
    OutOfPlace {
        /// Its position.
        offset: u64,
        /// The length of its message.
        total: u64,
        /// What is there.
        have: usize,
        /// The length of the message that is being received.
        expected: u64,
    },
    /// A message is too long.
    #[error("a message of {0} bytes, more than {LINK_MESSAGE_BYTES_MAX}")]
    TooLong(u64),
    /// A part is empty, or longer than what is missing.
    #[error("a part of {len} bytes at {offset} of {total}")]
    Length {
        /// Its length.
        len: usize,
        /// Its position.
        offset: u64,
        /// The length of its message.
        total: u64,
    },
    /// A whole message comes before the last part of another one.
    #[error("a message between the parts of another one, of which {have} of {expected} bytes are there")]
    Between {
        /// What is there.
        have: usize,
        /// The length of the message that is being received.
        expected: u64,
    },
}

/// A message that is being received in parts.
#[derive(Debug)]
struct Assembly {
    total: u64,
    bytes: Vec<u8>,
}

/// What one shard sends.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// Its runs, and the number of the last message of each, in the order in which they were heard last.
    runs: VecDeque<(Run, Option<u64>)>,
    /// The run that has said hello in the present epoch.
    pub(super) established: Option<Run>,
    assembly: Option<Assembly>,
}

impl Incoming {
    /// The number of the last message of a run; `None`: the run is not known.
    pub(super) fn last(&self, run: &[u8]) -> Option<Option<u64>> {
        self.runs.iter().find(|(other, _)| **other == *run).map(|(_, last)| *last)
    }

    /// A message of a run was received, or messages up to this number will not come.
    pub(super) fn set_last(&mut self, run: &[u8], last: Option<u64>) {
        if let Some(index) = self.runs.iter().position(|(other, _)| **other == *run) {
            self.runs.remove(index);
        }
        self.runs.push_front((run.into(), last));
        self.runs.truncate(RUNS_MAX);
    }

    /// Adds a part. The message, if it was the last one.
    pub(super) fn add_part(&mut self, total: u64, offset: u64, part: &[u8]) -> Result<Option<Vec<u8>>, BadPart> {
        if total > LINK_MESSAGE_BYTES_MAX as u64 {
            return Err(BadPart::TooLong(total));
        }
        let (have, expected) =
            self.assembly.as_ref().map_or((0, total), |assembly| (assembly.bytes.len(), assembly.total));
        if (offset, total) != (have as u64, expected) {
            return Err(BadPart::OutOfPlace { offset, total, have, expected });
        }
        if part.is_empty() || part.len() as u64 > total - offset {
            return Err(BadPart::Length { len: part.len(), offset, total });
        }
        let assembly = self.assembly.get_or_insert_with(|| Assembly { total, bytes: Vec::new() });
        assembly.bytes.extend_from_slice(part);
        if assembly.bytes.len() as u64 == total {
            return Ok(self.assembly.take().map(|assembly| assembly.bytes));
        }
        Ok(None)
    }

    /// Whether a whole message may come.
    pub(super) fn expects_whole(&self) -> Result<(), BadPart> {
        match &self.assembly {
            Some(Assembly { total, bytes }) => Err(BadPart::Between { have: bytes.len(), expected: *total }),
            None => Ok(()),
        }
    }

    /// Bytes of the parts that are there.
    pub(super) fn part_bytes(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| assembly.bytes.len())
    }

    /// Further parts will not come. Returns how many bytes there were.
    pub(super) fn drop_parts(&mut self) -> usize {
        self.assembly.take().map_or(0, |assembly| assembly.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_numbers_of_a_few_runs_are_kept() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.last(b"a"), None);
        incoming.set_last(b"a", None);
        incoming.set_last(b"b", Some(3));
        incoming.set_last(b"a", Some(0));
        assert_eq!((incoming.last(b"a"), incoming.last(b"b")), (Some(Some(0)), Some(Some(3))));
        for run in 0..RUNS_MAX as u8 - 1 {
            incoming.set_last(&[run], None);
        }
        assert_eq!((incoming.last(b"a"), incoming.last(b"b")), (Some(Some(0)), None), "the oldest one is forgotten");
    }

    #[test]
    fn parts_are_put_together() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.add_part(5, 0, b"ab"), Ok(None));
        assert_eq!(incoming.add_part(5, 2, b"cd"), Ok(None));
        assert_eq!(incoming.part_bytes(), 4);
        assert_eq!(incoming.add_part(5, 4, b"e"), Ok(Some(b"abcde".to_vec())));
        assert_eq!((incoming.part_bytes(), incoming.expects_whole()), (0, Ok(())));
    }

    #[test]
    fn parts_that_do_not_fit_are_refused_and_what_they_announce_is_not_allocated() {
        let max = LINK_MESSAGE_BYTES_MAX as u64;
        let refused = |parts: &[(u64, u64, &[u8])]| {
            let mut incoming = Incoming::default();
            let results = parts.iter().map(|(total, offset, part)| incoming.add_part(*total, *offset, part));
            let error = results.last().unwrap().unwrap_err();
            let reserved = incoming.assembly.as_ref().map_or(0, |assembly| assembly.bytes.capacity());
            assert!(reserved < 100, "{reserved}");
            assert_eq!(incoming.assembly.is_some(), parts.len() > 1, "a refused part begins nothing");
            error
        };
        assert_eq!(refused(&[(max + 1, 0, b"a")]), BadPart::TooLong(max + 1));
        assert_eq!(refused(&[(max, 0, b"")]), BadPart::Length { len: 0, offset: 0, total: max });
        assert_eq!(refused(&[(2, 0, b"abc")]), BadPart::Length { len: 3, offset: 0, total: 2 });
        let out = |offset, total, have, expected| BadPart::OutOfPlace { offset, total, have, expected };
        assert_eq!(refused(&[(9, 1, b"a")]), out(1, 9, 0, 9));
        assert_eq!(refused(&[(9, 0, b"a"), (9, 0, b"a")]), out(0, 9, 1, 9));
        assert_eq!(refused(&[(9, 0, b"a"), (8, 1, b"a")]), out(1, 8, 1, 9));
        assert_eq!(refused(&[(9, 0, b"a"), (9, u64::MAX, b"a")]), out(u64::MAX, 9, 1, 9));
        let mut incoming = Incoming::default();
        incoming.add_part(9, 0, b"a").unwrap();
        assert_eq!(incoming.expects_whole(), Err(BadPart::Between { have: 1, expected: 9 }));
        assert_eq!((incoming.drop_parts(), incoming.expects_whole()), (1, Ok(())));
    }

    proptest! {
        #[test]
        fn any_parts_are_a_message_or_an_error(parts in prop::collection::vec((0u64..20, 0u64..20, 0usize..8), 0..30)) {
            let mut incoming = Incoming::default();
            for (total, offset, len) in parts {
                if let Ok(Some(message)) = incoming.add_part(total, offset, &vec![1; len]) {
                    prop_assert_eq!(message.len() as u64, total);
                }
                prop_assert!(incoming.part_bytes() < 20);
            }
        }
    }
}
