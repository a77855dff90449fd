//! The messages.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::frame::fields::byte_strings;
use crate::frame::{Records, StartFlags};
use crate::id::{Identifier, ShardId};
use crate::slot::slot_of;

/// Version of these messages.
pub const PEER_VERSION: u64 = 1;

/// Slots of one shard, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRange {
    /// The first slot.
    pub first: u16,
    /// The last slot.
    pub last: u16,
    /// Position of the shard in [`Route::shards`].
    pub shard: u64,
}

/// Where the records of a distributed execution go, the same for all of its shards: what moves while it runs does not
/// change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// All shards that take part. The first one is the initiator.
    pub shards: Vec<ShardId>,
    /// Who has which slots, in ascending order. A slot may be missing.
    pub slots: Vec<SlotRange>,
}

impl Route {
    /// The position of the shard that reads a key: the one that has its slot, or the initiator if nobody has.
    #[must_use]
    pub fn reader_of(&self, key: &[u8]) -> u64 {
        let slot = slot_of(key);
        let range = self.slots.iter().find(|range| range.first <= slot && slot <= range.last);
        range.map_or(0, |range| range.shard)
    }
}

/// The function of a distributed execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job<'a> {
    /// A registration, which each shard has: what it was triggered with.
    Registration {
        /// Its identifier.
        registration: Identifier,
        /// Records that each shard begins with: a trigger's arguments. Empty: records come by exchanges only.
        #[serde(borrow)]
        records: Records<'a>,
    },
    /// A plan that is run once.
    Plan {
        /// Digest of `function` that shards keep it by.
        digest: u128,
        /// Encoded [`SharedFunction`]; empty if the shard has it already.
        #[serde(with = "serde_bytes")]
        function: &'a [u8],
    },
}

/// A plan with its callbacks and what a worker needs to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedFunction<'a> {
    /// The encoded plan.
    #[serde(with = "serde_bytes")]
    pub spec: &'a [u8],
    /// The number of the plan in `pickle`, as the worker that made it gave it.
    pub plan: u64,
    /// Pickle of the plan with its callbacks.
    #[serde(with = "serde_bytes")]
    pub pickle: &'a [u8],
    /// Whether a client made the pickle (and not a worker).
    pub of_client: bool,
    /// Name of its session, for the log.
    pub session: &'a str,
    /// Version of the interpreter that it has to run in; empty: any.
    pub python: &'a str,
    /// Its requirements.
    #[serde(borrow)]
    pub requirements: Vec<&'a str>,
    /// What the workers of the session share: the set of requirements.
    pub environment: &'a str,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage<'a> {
    /// Initiator to shard: take part in an execution. Answered by [`PeerMessage::Ready`] or [`PeerMessage::Ended`].
    Prepare {
        /// The execution.
        execution: Identifier,
        /// What is run.
        #[serde(borrow)]
        job: Job<'a>,
        /// The user that readers and functions act as.
        user: &'a str,
        /// The database.
        database: u32,
        /// How it is run.
        flags: StartFlags,
        /// The shards, and where records go.
        route: Route,
    },
    /// Shard to initiator: its worker has the plan.
    Ready {
        /// The execution.
        execution: Identifier,
    },
    /// Shard to initiator: send the function of this digest.
    NeedFunction {
        /// The execution.
        execution: Identifier,
    },
    /// Initiator to shard: all shards are ready, begin to read.
    Run {
        /// The execution.
        execution: Identifier,
    },
    /// Records for the next stage of another shard.
    Records {
        /// The execution.
        execution: Identifier,
        /// The stage that they are for.
        stage: u64,
        /// The records.
        #[serde(borrow)]
        records: Records<'a>,
    },
    /// The sender has no more records for that stage.
    StageEnded {
        /// The execution.
        execution: Identifier,
        /// The stage that receives none any more.
        stage: u64,
    },
    /// Records were consumed: the shard that sent them may send as many bytes again.
    Consumed {
        /// The execution.
        execution: Identifier,
        /// The stage that they were for.
        stage: u64,
        /// Encoded bytes.
        bytes: u64,
    },
    /// Initiator to shard: no further record for a stage can change the result. What makes them ends.
    Stop {
        /// The execution.
        execution: Identifier,
        /// The stage.
        stage: u64,
    },
    /// Shard to initiator: its part has ended.
    Ended {
        /// The execution.
        execution: Identifier,
        /// Its part did not end by itself: others end, too.
        failed: bool,
        /// Its part was aborted.
        aborted: bool,
        /// Texts of all errors.
        #[serde(borrow, serialize_with = "byte_strings")]
        errors: Vec<&'a [u8]>,
    },
    /// Initiator to shard: end your part.
    Abort {
        /// The execution.
        execution: Identifier,
        /// Why, if it is an error.
        reason: Option<&'a str>,
    },
    /// Remove what is left of an ended execution.
    Drop {
        /// The execution.
        execution: Identifier,
    },
    /// A question of a command that concerns all shards. Answered by [`PeerMessage::Answer`].
    Ask {
        /// Number of the question on the asking shard.
        question: u64,
        /// The question.
        about: PeerQuestion,
    },
    /// The answer to a question.
    Answer {
        /// Number of the question.
        question: u64,
        /// What was asked for, or the text of an error.
        #[serde(borrow)]
        result: Result<PeerFact<'a>, &'a str>,
    },
    /// A change of the registrations, made on the sending shard. Answered by [`PeerMessage::Applied`].
    Change {
        /// Number of the change on the sending shard.
        number: u64,
        /// An encoded [`Change`](crate::saved::Change).
        #[serde(with = "serde_bytes")]
        change: &'a [u8],
    },
    /// A change was applied, or not.
    Applied {
        /// Number of the change.
        number: u64,
        /// Another session has one of its triggers.
        conflict: bool,
        /// Why not.
        result: Result<(), &'a str>,
    },
    /// Digest of all registrations of the sender: a shard with another one asks for all.
    Registry {
        /// The digest.
        digest: u64,
    },
    /// Send all registrations.
    NeedRegistry,
    /// All registrations of the sender: an encoded [`Change`](crate::saved::Change).
    WholeRegistry {
        /// The change.
        #[serde(with = "serde_bytes")]
        change: &'a [u8],
    },
}

/// What a shard asks another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerQuestion {
    /// The plan of an execution: `RG.GETEXECUTION`.
    Execution(Identifier),
    /// End an execution: `RG.ABORTEXECUTION`.
    Abort(Identifier),
    /// Pause registrations, or continue them.
    Pause {
        /// The registrations.
        registrations: Vec<Identifier>,
        /// Continue them.
        resume: bool,
    },
    /// Forget the statistics of all registrations.
    ClearStatistics,
}

/// What a shard answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerFact<'a> {
    /// It is done.
    Done,
    /// The part of the shard in an execution.
    #[serde(borrow)]
    Part(PeerPart<'a>),
}

/// What `RG.GETEXECUTION` shows of the part of a shard in an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPart<'a> {
    /// Name of its status.
    pub status: &'a str,
    /// Shards that are ready.
    pub shards_received: u64,
    /// Shards whose parts have ended.
    pub shards_completed: u64,
    /// Number of results; `None`: it has not ended.
    pub results: Option<u64>,
    /// Texts of errors.
    #[serde(borrow, serialize_with = "byte_strings")]
    pub errors: Vec<&'a [u8]>,
    /// Time between start and end, in milliseconds.
    pub total_ms: u64,
    /// Time in the reader, in microseconds, if it was profiled.
    pub read_micros: u64,
    /// Time in each step, in microseconds, if it was profiled.
    pub step_micros: Vec<u64>,
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeerError {
    /// They are not readable.
    #[error("a message of {len} bytes is not readable: {cause}")]
    Message {
        /// Their number.
        len: usize,
        /// What is wrong.
        cause: postcard::Error,
    },
    /// Bytes follow the last field.
    #[error("a message of {len} bytes has {trailing} bytes behind its last field")]
    Trailing {
        /// Their number.
        len: usize,
        /// The bytes that are too many.
        trailing: usize,
    },
}

impl<'a> PeerMessage<'a> {
    /// Its encoded form.
    ///
    /// # Panics
    /// Never: no field has an unknown length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a message has no list of unknown length")
    }

    /// Reads an encoded message.
    ///
    /// # Errors
    /// [`PeerError`]: the bytes are not a message of this version.
    pub fn decode(bytes: &'a [u8]) -> Result<PeerMessage<'a>, PeerError> {
        decode(bytes)
    }
}

impl<'a> SharedFunction<'a> {
    /// Its encoded form.
    ///
    /// # Panics
    /// Never: no field has an unknown length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a function has no list of unknown length")
    }

    /// Reads an encoded function.
    ///
    /// # Errors
    /// [`PeerError`]: the bytes are not a function of this version.
    pub fn decode(bytes: &'a [u8]) -> Result<SharedFunction<'a>, PeerError> {
        decode(bytes)
    }
}

/// Reads a value to which all bytes belong.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, PeerError> {
    let len = bytes.len();
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(|cause| PeerError::Message { len, cause })?;
    if rest.is_empty() { Ok(message) } else { Err(PeerError::Trailing { len, trailing: rest.len() }) }
}

impl Route {
    /// Position of the shard that has a slot.
    #[must_use]
    pub fn owner(&self, slot: u16) -> Option<u64> {
        let index = self.slots.partition_point(|range| range.last < slot);
        self.slots.get(index).filter(|range| range.first <= slot).map(|range| range.shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn id(counter: u64) -> Identifier {
        Identifier { shard: ShardId::padded(b"a1").unwrap(), counter }
    }

    fn messages() -> Vec<PeerMessage<'static>> {
        let execution = id(7);
        let records = Records { count: 2, bytes: &[0, 2] };
        let route = Route {
            shards: vec![ShardId::standalone(), ShardId::padded(b"b").unwrap()],
            slots: vec![SlotRange { first: 0, last: 16383, shard: 1 }],
        };
        let prepare = |job| PeerMessage::Prepare {
            execution,
            job,
            user: "default",
            database: 0,
            flags: StartFlags::PROFILE,
            route: route.clone(),
        };
        let registrations = vec![id(1), id(u64::MAX)];
        let part = PeerPart {
            status: "running",
            shards_received: 1,
            shards_completed: 0,
            results: None,
            errors: vec![b"\xff"],
            total_ms: 1,
            read_micros: 2,
            step_micros: vec![3],
        };
        vec![
            prepare(Job::Registration { registration: id(3), records }),
            prepare(Job::Plan { digest: u128::MAX, function: b"\0\xff" }),
            PeerMessage::Ready { execution },
            PeerMessage::NeedFunction { execution },
            PeerMessage::Run { execution },
            PeerMessage::Records { execution, stage: 1, records },
            PeerMessage::StageEnded { execution, stage: 1 },
            PeerMessage::Consumed { execution, stage: 1, bytes: 1 << 40 },
            PeerMessage::Stop { execution, stage: 1 },
            PeerMessage::Ended { execution, failed: true, aborted: false, errors: vec![b"\xff", b""] },
            PeerMessage::Abort { execution, reason: Some("why") },
            PeerMessage::Drop { execution },
            PeerMessage::Ask { question: 1, about: PeerQuestion::Execution(execution) },
            PeerMessage::Ask { question: 1, about: PeerQuestion::Pause { registrations, resume: false } },
            PeerMessage::Answer { question: 1, result: Ok(PeerFact::Done) },
            PeerMessage::Answer { question: 1, result: Ok(PeerFact::Part(part)) },
            PeerMessage::Answer { question: 1, result: Err("no") },
            PeerMessage::Change { number: 4, change: b"c" },
            PeerMessage::Applied { number: 4, conflict: true, result: Err("taken") },
            PeerMessage::Registry { digest: 9 },
            PeerMessage::NeedRegistry,
            PeerMessage::WholeRegistry { change: b"c" },
        ]
    }

    #[test]
    fn each_message_survives_the_round_trip() {
        for message in messages() {
            assert_eq!(PeerMessage::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn a_message_that_is_cut_or_has_more_bytes_is_refused() {
        for message in messages() {
            let encoded = message.encode();
            for len in 0..encoded.len() {
                assert!(PeerMessage::decode(&encoded[..len]).is_err(), "{message:?} cut to {len}");
            }
            let longer = [encoded, vec![0]].concat();
            assert!(
                matches!(PeerMessage::decode(&longer), Err(PeerError::Trailing { trailing: 1, .. })),
                "{message:?}"
            );
        }
    }

    #[test]
    fn a_slot_without_a_shard_has_no_owner() {
        let slots = vec![SlotRange { first: 1, last: 5, shard: 0 }, SlotRange { first: 8, last: 16383, shard: 1 }];
        let route = Route { shards: Vec::new(), slots };
        let owners: Vec<_> = [0, 1, 5, 6, 7, 8, 16383].map(|slot| route.owner(slot)).into();
        assert_eq!(owners, [None, Some(0), Some(0), None, None, Some(1), Some(1)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(message) = PeerMessage::decode(&bytes) {
                let encoded = message.encode();
                prop_assert_eq!(PeerMessage::decode(&encoded), Ok(message));
            }
        }
    }
}
