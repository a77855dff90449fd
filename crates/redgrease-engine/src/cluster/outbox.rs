//! Messages to one shard, from the first one that is not acknowledged.

use core::ops::Range;

use redgrease_core::peer::link::{LinkPayload, MESSAGE_FUNCTION, PAYLOAD_OVERHEAD_BYTES};

use crate::limits::{LINK_MESSAGE_COST_BYTES, LINK_QUEUE_BYTES_MAX};
use crate::prelude::*;

/// What a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// A message for redgrease, which is sent in parts if it is long.
    Own(Vec<u8>),
    /// One for RedisGears: a function and its payload.
    Plain(&'static [u8], &'static [u8]),
}

impl Body {
    fn len(&self) -> usize {
        match self {
            Body::Own(message) => message.len(),
            Body::Plain(_, payload) => payload.len(),
        }
    }
}

/// A message.
#[derive(Debug)]
struct Message {
    body: Body,
    /// Number of its first part; `None`: nothing of it was sent.
    first: Option<u64>,
    /// Bytes of each part except the last one.
    part_len: usize,
    parts: u64,
    acknowledged: u64,
    /// Links on which it was sent.
    attempts: u64,
    /// It was sent on the present one.
    sent: bool,
}

impl Message {
    fn cost(&self) -> usize {
        self.body.len() + LINK_MESSAGE_COST_BYTES
    }

    /// The bytes of a part.
    fn range(&self, part: u64) -> Range<usize> {
        let start = part as usize * self.part_len;
        start..self.body.len().min(start + self.part_len)
    }
}

/// What is sent at once: a message or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its number.
    pub(super) number: u64,
    /// What it is for.
    pub(super) function: &'static [u8],
    /// Its payload.
    pub(super) payload: Vec<u8>,
    /// What its acknowledgement returns.
    pub(super) receipt: Receipt,
}

/// Belongs to a unit that was sent on the present link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receipt {
    bytes: u64,
    generation: u64,
}

/// Which messages have been sent too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tired {
    /// None.
    None,
    /// These many plain ones, which were dropped.
    Plain(usize),
    /// One that cannot be left out.
    Own,
}

/// Messages to one shard.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    messages: VecDeque<Message>,
    /// What they cost.
    bytes: usize,
    /// The number of the next part that is sent for the first time.
    next_number: u64,
    /// Position of the message, and its part, that is sent next.
    next: (usize, u64),
    /// Bytes of payloads that were sent on the present link and not answered.
    in_flight: u64,
    /// Counts how often all messages were dropped.
    generation: u64,
}

impl Outbox {
    /// Adds a message, unless there are too many bytes.
    pub(super) fn push(&mut self, body: Body) -> Result<(), Body> {
        let message = Message { body, first: None, part_len: 0, parts: 1, acknowledged: 0, attempts: 0, sent: false };
        let cost = message.cost();
        if self.bytes + cost > LINK_QUEUE_BYTES_MAX {
            return Err(message.body);
        }
        self.bytes += cost;
        self.messages.push_back(message);
        Ok(())
    }

    /// Takes the next unit if the shard accepts as many bytes.
    pub(super) fn next(&mut self, window_bytes: u64, part_bytes: u64, epoch: u64) -> Option<Unit> {
        let (index, part) = self.next;
        let message = self.messages.get_mut(index)?;
        if message.first.is_none() {
            message.part_len = (part_bytes as usize).saturating_sub(PAYLOAD_OVERHEAD_BYTES).max(1);
            message.parts = match &message.body {
                Body::Own(bytes) => bytes.len().div_ceil(message.part_len).max(1) as u64,
                Body::Plain(..) => 1,
            };
        }
        let range = message.range(part);
        let bytes = (range.len() + PAYLOAD_OVERHEAD_BYTES) as u64;
        if self.in_flight > 0 && self.in_flight + bytes > window_bytes {
            return None;
        }
        let first = *message.first.get_or_insert_with(|| {
            let first = self.next_number;
            self.next_number += message.parts;
            first
        });
        message.attempts += u64::from(!message.sent);
        message.sent = true;
        let (function, payload) = match &message.body {
            Body::Plain(function, payload) => (*function, payload.to_vec()),
            Body::Own(bytes) if message.parts == 1 => {
                (MESSAGE_FUNCTION, LinkPayload::Whole { epoch, message: bytes }.encode())
            }
            Body::Own(bytes) => {
                let (total, offset) = (bytes.len() as u64, range.start as u64);
                (MESSAGE_FUNCTION, LinkPayload::Part { epoch, total, offset, part: &bytes[range] }.encode())
            }
        };
        self.next = if part + 1 < message.parts { (index, part + 1) } else { (index + 1, 0) };
        self.in_flight += bytes;
        let receipt = Receipt { bytes, generation: self.generation };
        Some(Unit { number: first + part, function, payload, receipt })
    }

    /// The answer to a unit has come: its bytes are not in flight any more.
    pub(super) fn answered(&mut self, receipt: Receipt) {
        self.in_flight = self.in_flight.saturating_sub(receipt.bytes);
    }

    /// Whether a unit is of a message that has not been dropped.
    pub(super) fn is_current(&self, receipt: Receipt) -> bool {
        receipt.generation == self.generation
    }

    /// The first unit that was not acknowledged is.
    pub(super) fn acknowledge(&mut self, receipt: Receipt) {
        if !self.is_current(receipt) {
            return;
        }
        let Some(message) = self.messages.front_mut() else { return };
        message.acknowledged += 1;
        if message.acknowledged == message.parts {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= message.cost();
            self.next.0 = self.next.0.saturating_sub(1);
        }
    }

    /// Everything that is not acknowledged is to be sent on another link. What was sent on `attempts_max` links (0: no limit)
    /// is too much: plain messages are dropped if `drops_plain`.
    pub(super) fn rewind(&mut self, attempts_max: u64, drops_plain: bool) -> Tired {
        let mut dropped = 0;
        while let Some(message) = self.messages.front()
            && attempts_max > 0
            && message.attempts >= attempts_max
            && drops_plain
            && matches!(message.body, Body::Plain(..))
        {
            self.drop_first();
            dropped += 1;
        }
        self.messages.iter_mut().for_each(|message| message.sent = false);
        self.next = (0, self.messages.front().map_or(0, |message| message.acknowledged));
        self.in_flight = 0;
        match self.messages.front() {
            Some(message) if attempts_max > 0 && message.attempts >= attempts_max => Tired::Own,
            _ if dropped > 0 => Tired::Plain(dropped),
            _ => Tired::None,
        }
    }

    /// Drops all messages. Their numbers are not used again.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
        self.next = (0, 0);
        self.generation += 1;
    }

    /// Messages are numbered from this one on: the shard is another run, or has received those before.
    pub(super) fn renumber(&mut self, next_number: u64) {
        self.next_number = next_number;
        for message in &mut self.messages {
            message.first = None;
            message.acknowledged = 0;
        }
        self.next = (0, 0);
    }

    /// The number of the first unit that is not acknowledged, or of the next one.
    pub(super) fn first_number(&self) -> u64 {
        let message = self.messages.front();
        message.and_then(|message| message.first.map(|first| first + message.acknowledged)).unwrap_or(self.next_number)
    }

    /// The number of the next unit that is sent for the first time.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Whether there are messages for redgrease.
    pub(super) fn has_own(&self) -> bool {
        self.messages.iter().any(|message| matches!(message.body, Body::Own(_)))
    }

    /// Messages that are not acknowledged.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// What they cost.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that are sent and not answered.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: u64 = 1 << 20;
    const PART: u64 = 4 << 10;

    fn own(len: usize) -> Body {
        Body::Own(vec![7; len])
    }

    fn numbers(outbox: &mut Outbox) -> Vec<u64> {
        core::iter::from_fn(|| outbox.next(WINDOW, PART, 0)).map(|unit| unit.number).collect()
    }

    #[test]
    fn messages_are_numbered_in_order_and_sent_again_from_the_first_that_is_not_acknowledged() {
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.push(own(1)).unwrap();
        }
        let first = outbox.next(WINDOW, PART, 0).unwrap();
        assert_eq!((first.number, numbers(&mut outbox)), (0, vec![1, 2]));
        outbox.answered(first.receipt);
        outbox.acknowledge(first.receipt);
        assert_eq!((outbox.len(), outbox.first_number()), (2, 1));
        assert_eq!(outbox.rewind(3, false), Tired::None);
        assert_eq!(numbers(&mut outbox), [1, 2]);
    }

    #[test]
    fn a_long_message_is_cut_and_goes_on_with_the_part_that_is_not_acknowledged() {
        let mut outbox = Outbox::default();
        let message: Vec<u8> = (0..10_000u32).map(|number| number as u8).collect();
        outbox.push(Body::Own(message.clone())).unwrap();
        let units: Vec<Unit> = core::iter::from_fn(|| outbox.next(WINDOW, PART, 5)).collect();
        let mut joined = Vec::new();
        for unit in &units {
            assert!(unit.payload.len() as u64 <= PART);
            let LinkPayload::Part { epoch: 5, total: 10_000, offset, part } =
                LinkPayload::decode(&unit.payload).unwrap()
            else {
                panic!("{unit:?}")
            };
            assert_eq!(offset as usize, joined.len());
            joined.extend_from_slice(part);
        }
        assert_eq!((joined, units.len()), (message, 3));
        outbox.acknowledge(units[0].receipt);
        outbox.rewind(0, false);
        assert_eq!((numbers(&mut outbox), outbox.len()), (vec![1, 2], 1));
        outbox.acknowledge(units[1].receipt);
        outbox.acknowledge(units[2].receipt);
        assert_eq!((outbox.len(), outbox.bytes(), outbox.next_number()), (0, 0, 3));
    }

    #[test]
    fn no_more_than_the_window_is_in_flight_and_one_unit_always_is() {
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.push(own(3000)).unwrap();
        }
        let first = outbox.next(5000, PART, 0).unwrap();
        assert_eq!(outbox.next(5000, PART, 0), None);
        assert_eq!(outbox.next_number(), 1, "what waits has no number");
        outbox.answered(first.receipt);
        outbox.acknowledge(first.receipt);
        assert_eq!(outbox.next(1, PART, 0).map(|unit| unit.number), Some(1), "nothing is in flight");
        assert_eq!(outbox.next(1, PART, 0), None);
    }

    #[test]
    fn what_was_dropped_is_not_acknowledged_and_its_numbers_are_not_used_again() {
        let mut outbox = Outbox::default();
        outbox.push(own(1)).unwrap();
        let old = outbox.next(WINDOW, PART, 0).unwrap();
        outbox.clear();
        outbox.push(own(2)).unwrap();
        assert_eq!(outbox.next(WINDOW, PART, 1).unwrap().number, 1);
        outbox.answered(old.receipt);
        outbox.acknowledge(old.receipt);
        assert_eq!(outbox.len(), 1, "the new message is not acknowledged");
        outbox.renumber(9);
        assert_eq!(numbers(&mut outbox), [9]);
    }

    #[test]
    fn a_message_is_sent_on_so_many_links() {
        let mut outbox = Outbox::default();
        let plain = Body::Plain(b"f", b"p");
        outbox.push(plain.clone()).unwrap();
        outbox.push(own(10_000)).unwrap();
        for _ in 0..2 {
            assert_eq!(outbox.rewind(2, true), Tired::None);
            assert_eq!(numbers(&mut outbox), [0, 1, 2, 3]);
        }
        assert_eq!(outbox.rewind(0, true), Tired::None, "no limit");
        assert_eq!(outbox.rewind(2, true), Tired::Own, "the plain one was dropped, the other one cannot be");
        assert_eq!(outbox.len(), 1);
        let mut outbox = Outbox::default();
        outbox.push(plain).unwrap();
        numbers(&mut outbox);
        assert_eq!(outbox.rewind(1, false), Tired::Own);
        assert_eq!(outbox.rewind(1, true), Tired::Plain(1));
        assert_eq!((outbox.len(), outbox.bytes()), (0, 0));
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut outbox = Outbox::default();
        outbox.push(own(LINK_QUEUE_BYTES_MAX - 1000)).unwrap();
        assert_eq!(outbox.push(own(1000)), Err(own(1000)));
        assert_eq!(outbox.bytes(), LINK_QUEUE_BYTES_MAX - 1000 + LINK_MESSAGE_COST_BYTES);
    }

    #[derive(Debug, Clone, Copy)]
    enum Act {
        Push(usize),
        Send,
        Acknowledge,
        Cut,
        Clear,
    }

    proptest! {
        /// A receiver that takes the next number gets every message that was not dropped, once, whatever happens.
        #[test]
        fn a_receiver_gets_all_in_order(acts in prop::collection::vec(prop_oneof![
            3 => (0usize..20_000).prop_map(Act::Push),
            5 => Just(Act::Send),
            5 => Just(Act::Acknowledge),
            1 => Just(Act::Cut),
            1 => Just(Act::Clear),
        ], 0..200)) {
            let mut outbox = Outbox::default();
            let (mut expected, mut received) = (0u64, Vec::new());
            let mut flying: VecDeque<Receipt> = VecDeque::new();
            let mut bytes = 0;
            for act in acts {
                match act {
                    Act::Push(len) => outbox.push(own(len)).unwrap(),
                    Act::Send => if let Some(unit) = outbox.next(30_000, PART, 0) {
                        prop_assert!(unit.number <= expected, "{} after {expected}", unit.number);
                        if unit.number == expected {
                            expected += 1;
                            received.push(unit.number);
                        }
                        bytes += unit.receipt.bytes;
                        flying.push_back(unit.receipt);
                    },
                    Act::Acknowledge => if let Some(receipt) = flying.pop_front() {
                        bytes -= receipt.bytes;
                        outbox.answered(receipt);
                        outbox.acknowledge(receipt);
                    },
                    Act::Cut => {
                        flying.clear();
                        bytes = 0;
                        prop_assert_eq!(outbox.rewind(0, false), Tired::None);
                    }
                    Act::Clear => {
                        outbox.clear();
                        expected = outbox.first_number();
                    }
                }
                prop_assert_eq!(outbox.in_flight(), bytes);
                prop_assert!(outbox.in_flight() <= 30_000);
                prop_assert!(outbox.first_number() <= outbox.next_number());
            }
        }
    }
}
