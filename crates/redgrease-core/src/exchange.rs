//! Records on their way to other shards: gathered for each shard, and not more than the others have room for.

use alloc::vec::Vec;
use core::mem;

use crate::frame::Records;

/// Encoded bytes for one shard at which they are sent.
const SENT_BYTES: usize = 64 << 10;

/// Records of one stage for one shard.
#[derive(Debug, Default)]
struct Gathered {
    count: u64,
    bytes: Vec<u8>,
}

/// Records for one stage of other shards. What was sent and not consumed, and what is gathered here, together has at most
/// the size of the *window*, or is one record that is larger. A record beyond that is held back: then nothing more may be
/// added until the others have consumed half of the window, so that what is sent next is not small.
#[derive(Debug)]
pub struct Outgoing {
    window: u64,
    sent: u64,
    gathered: u64,
    shards: Vec<Gathered>,
    held: Option<(usize, Vec<u8>)>,
}

impl Outgoing {
    /// Nothing for so many shards.
    #[must_use]
    pub fn new(shards: usize, window: u64) -> Outgoing {
        let shards = (0..shards).map(|_| Gathered::default()).collect();
        Outgoing { window, sent: 0, gathered: 0, shards, held: None }
    }

    /// Whether a record is held back, and none may be added.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.held.is_some()
    }

    /// Whether nothing is gathered or held back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gathered == 0 && self.held.is_none()
    }

    /// Takes what is gathered for a shard, to append one record to it: [`Outgoing::put`] follows.
    #[must_use]
    pub fn take(&mut self, shard: usize) -> Vec<u8> {
        mem::take(&mut self.shards[shard].bytes)
    }

    /// Puts back what was taken, of `before` bytes, with a record at the end or without. `send` gets what is to be sent.
    pub fn put(&mut self, shard: usize, mut bytes: Vec<u8>, before: usize, mut send: impl FnMut(usize, Records<'_>)) {
        let added = (bytes.len() - before) as u64;
        let is_too_much = self.sent + self.gathered + added > self.window;
        let beyond = is_too_much.then(|| bytes.split_off(before));
        let gathered = &mut self.shards[shard];
        gathered.bytes = bytes;
        match beyond {
            None => {
                gathered.count += u64::from(added > 0);
                self.gathered += added;
                if gathered.bytes.len() >= SENT_BYTES {
                    self.send(shard, &mut send);
                }
            }
            Some(record) => {
                self.flush(&mut send);
                self.held = Some((shard, record));
                self.release(&mut send);
            }
        }
    }

    /// Sends all that is gathered.
    pub fn flush(&mut self, mut send: impl FnMut(usize, Records<'_>)) {
        if self.gathered > 0 {
            (0..self.shards.len()).for_each(|shard| self.send(shard, &mut send));
        }
    }

    /// Others have consumed so many bytes. `false`: that is more than was sent.
    #[must_use]
    pub fn consumed(&mut self, bytes: u64, send: impl FnMut(usize, Records<'_>)) -> bool {
        let Some(left) = self.sent.checked_sub(bytes) else { return false };
        self.sent = left;
        self.release(send);
        true
    }

    /// Drops all that was not sent.
    pub fn clear(&mut self) {
        self.shards.fill_with(Gathered::default);
        self.gathered = 0;
        self.held = None;
    }

    fn send(&mut self, shard: usize, send: &mut impl FnMut(usize, Records<'_>)) {
        let Gathered { count, bytes } = mem::take(&mut self.shards[shard]);
        if count > 0 {
            send(shard, Records { count, bytes: &bytes });
            self.gathered -= bytes.len() as u64;
            self.sent += bytes.len() as u64;
        }
    }

    /// Adds the record that was held back, if there is room for it.
    fn release(&mut self, mut send: impl FnMut(usize, Records<'_>)) {
        let Some((_, record)) = &self.held else { return };
        let fits = self.sent <= self.window / 2 && self.sent + record.len() as u64 <= self.window;
        if (fits || self.sent == 0)
            && let Some((shard, bytes)) = self.held.take()
        {
            self.gathered += bytes.len() as u64;
            self.shards[shard] = Gathered { count: 1, bytes };
            if self.gathered >= self.window {
                self.send(shard, &mut send);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec;
    use proptest::prelude::*;

    type Sent = Vec<(usize, u64, Vec<u8>)>;

    fn to(sent: &mut Sent) -> impl FnMut(usize, Records<'_>) {
        |shard, records| sent.push((shard, records.count, records.bytes.to_vec()))
    }

    /// Adds a record; what was sent.
    fn add(outgoing: &mut Outgoing, shard: usize, record: &[u8]) -> Sent {
        let mut sent = Vec::new();
        let mut bytes = outgoing.take(shard);
        let before = bytes.len();
        bytes.extend_from_slice(record);
        outgoing.put(shard, bytes, before, to(&mut sent));
        sent
    }

    fn flush(outgoing: &mut Outgoing) -> Sent {
        let mut sent = Vec::new();
        outgoing.flush(to(&mut sent));
        sent
    }

    fn consumed(outgoing: &mut Outgoing, bytes: u64) -> Sent {
        let mut sent = Vec::new();
        assert!(outgoing.consumed(bytes, to(&mut sent)), "so many bytes were sent");
        sent
    }

    #[test]
    fn records_are_gathered_until_they_are_many() {
        let mut outgoing = Outgoing::new(2, 1 << 20);
        let record = vec![1; SENT_BYTES / 2];
        assert_eq!(add(&mut outgoing, 1, &record), []);
        assert_eq!(add(&mut outgoing, 0, b"x"), []);
        assert_eq!(add(&mut outgoing, 1, &record), [(1, 2, vec![1; SENT_BYTES])]);
        assert_eq!(flush(&mut outgoing), [(0, 1, b"x".to_vec())]);
        assert!(outgoing.is_empty());
    }

    #[test]
    fn a_record_that_could_not_be_written_is_none() {
        let mut outgoing = Outgoing::new(1, 100);
        assert_eq!(add(&mut outgoing, 0, b""), []);
        assert!(outgoing.is_empty());
    }

    #[test]
    fn a_record_beyond_the_window_is_held_back_until_half_of_it_is_free() {
        let mut outgoing = Outgoing::new(2, 10);
        add(&mut outgoing, 0, b"aaa");
        add(&mut outgoing, 1, b"bbbbb");
        assert_eq!(add(&mut outgoing, 0, b"ccc"), [(0, 1, b"aaa".to_vec()), (1, 1, b"bbbbb".to_vec())]);
        assert!(outgoing.is_blocked());
        assert_eq!(consumed(&mut outgoing, 2), []);
        assert!(outgoing.is_blocked(), "6 bytes are on their way");
        assert_eq!(consumed(&mut outgoing, 1), [], "more can be gathered");
        assert!(!outgoing.is_blocked() && !outgoing.is_empty());
        assert!(!outgoing.consumed(6, |_, _| ()), "5 bytes are on their way");
    }

    #[test]
    fn a_record_that_is_larger_than_the_window_goes_alone() {
        let mut outgoing = Outgoing::new(1, 4);
        add(&mut outgoing, 0, b"a");
        assert_eq!(add(&mut outgoing, 0, b"large record"), [(0, 1, b"a".to_vec())]);
        assert_eq!(consumed(&mut outgoing, 1), [(0, 1, b"large record".to_vec())]);
        assert_eq!(add(&mut outgoing, 0, b"b"), []);
        assert!(outgoing.is_blocked());
        outgoing.clear();
        assert!(outgoing.is_empty() && !outgoing.is_blocked());
    }

    /// The shards that consume, one batch after the other.
    #[derive(Default)]
    struct Others {
        on_their_way: VecDeque<(u64, u64)>,
        arrived: [Vec<u8>; 3],
    }

    impl Others {
        fn take(&mut self, sent: Sent) {
            for (shard, count, bytes) in sent {
                self.on_their_way.push_back((count, bytes.len() as u64));
                self.arrived[shard].extend_from_slice(&bytes);
            }
        }

        fn consume(&mut self, outgoing: &mut Outgoing) {
            let (_, bytes) = self.on_their_way.pop_front().expect("what is blocked waits for something");
            let sent = consumed(outgoing, bytes);
            self.take(sent);
        }

        fn are_within(&self, window: u64) -> bool {
            let bytes: u64 = self.on_their_way.iter().map(|(_, bytes)| bytes).sum();
            let is_one_record = self.on_their_way.len() == 1 && self.on_their_way[0].0 == 1;
            bytes <= window || is_one_record
        }
    }

    proptest! {
        #[test]
        fn all_records_arrive_in_order_and_the_window_is_kept(
            window in 0u64..64,
            records in prop::collection::vec((0usize..3, 1usize..20, any::<bool>()), 0..200),
        ) {
            let (mut outgoing, mut others) = (Outgoing::new(3, window), Others::default());
            let mut expected: [Vec<u8>; 3] = Default::default();
            for (index, (shard, len, flushes)) in records.into_iter().enumerate() {
                while outgoing.is_blocked() {
                    others.consume(&mut outgoing);
                }
                let record = vec![index as u8; len];
                expected[shard].extend_from_slice(&record);
                others.take(add(&mut outgoing, shard, &record));
                if flushes {
                    others.take(flush(&mut outgoing));
                }
                prop_assert!(others.are_within(window), "{:?}", others.on_their_way);
            }
            while outgoing.is_blocked() {
                others.consume(&mut outgoing);
            }
            others.take(flush(&mut outgoing));
            prop_assert!(outgoing.is_empty());
            prop_assert_eq!(others.arrived, expected);
        }
    }
}
