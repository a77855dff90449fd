//! Functions that shards send each other: each once, and kept by their digests.

use redgrease_core::id::{Identifier, ShardId};

use crate::limits::{FUNCTION_BYTES_MAX, FUNCTIONS_KNOWN_MAX};
use crate::prelude::*;

/// Digest of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Digest(pub(crate) u128);

impl Digest {
    /// The hash FNV-1a of 128 bits. It need not withstand attacks: who can run functions on the cluster can run any.
    pub(crate) fn of(bytes: &[u8]) -> Digest {
        let basis = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
        let prime = 0x0000_0000_0100_0000_0000_0000_0000_013b_u128;
        Digest(bytes.iter().fold(basis, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(prime)))
    }
}

/// What other shards run for an execution.
#[derive(Debug, Clone)]
pub(crate) enum SharedJob {
    /// A registration, with the records that each shard begins with.
    Registration {
        /// The registration.
        id: Identifier,
        /// Number of records.
        count: u64,
        /// The records, encoded.
        bytes: Rc<[u8]>,
    },
    /// A plan.
    Plan {
        /// Its digest.
        digest: Digest,
        /// The function, encoded.
        function: Rc<[u8]>,
    },
}

impl SharedJob {
    /// The digest of the function.
    pub(crate) fn digest(&self) -> Option<Digest> {
        if let SharedJob::Plan { digest, .. } = self { Some(*digest) } else { None }
    }
}

/// The functions that are kept, and those that other shards keep.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    kept: BTreeMap<Digest, Rc<[u8]>>,
    order: VecDeque<Digest>,
    bytes: usize,
    at: BTreeMap<ShardId, BTreeSet<Digest>>,
}

impl Functions {
    /// The function with that digest: the one that was sent, or the one that is kept.
    pub(crate) fn learn(&mut self, digest: Digest, sent: &[u8]) -> Option<Rc<[u8]>> {
        if let Some(kept) = self.kept.get(&digest) {
            return Some(Rc::clone(kept));
        }
        if sent.is_empty() {
            return None;
        }
        let function: Rc<[u8]> = sent.into();
        if sent.len() <= FUNCTION_BYTES_MAX && Digest::of(sent) == digest {
            self.bytes += sent.len();
            self.kept.insert(digest, Rc::clone(&function));
            self.order.push_back(digest);
            while self.bytes > FUNCTION_BYTES_MAX {
                let Some(oldest) = self.order.pop_front() else { break };
                self.bytes -= self.kept.remove(&oldest).map_or(0, |removed| removed.len());
            }
        }
        Some(function)
    }

    /// Whether a shard probably keeps a function.
    pub(crate) fn is_known_to(&self, shard: ShardId, digest: Digest) -> bool {
        self.at.get(&shard).is_some_and(|known| known.contains(&digest))
    }

    /// A shard has a function.
    pub(crate) fn is_at(&mut self, shard: ShardId, digest: Digest) {
        let known = self.at.entry(shard).or_default();
        if known.len() >= FUNCTIONS_KNOWN_MAX {
            known.clear();
        }
        known.insert(digest);
    }

    /// A shard may have restarted.
    pub(crate) fn shard_lost(&mut self, shard: ShardId) {
        self.at.remove(&shard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_sent_once_and_the_oldest_are_forgotten() {
        let mut functions = Functions::default();
        let big = |byte: u8| vec![byte; FUNCTION_BYTES_MAX / 2];
        let digests = [0, 1, 2].map(|byte| Digest::of(&big(byte)));
        assert_eq!(functions.learn(digests[0], &[]), None);
        for (byte, digest) in (0..).zip(digests) {
            assert_eq!(functions.learn(digest, &big(byte)).as_deref(), Some(&*big(byte)));
        }
        assert_eq!(functions.learn(digests[0], &[]), None, "the oldest one is gone");
        assert_eq!(functions.learn(digests[2], &[]).as_deref(), Some(&*big(2)));
        let wrong = functions.learn(Digest(7), b"x").unwrap();
        assert_eq!((&*wrong, functions.learn(Digest(7), &[])), (&b"x"[..], None), "a wrong digest is not kept");
    }

    #[test]
    fn what_a_shard_knows_is_forgotten_with_it() {
        let mut functions = Functions::default();
        let shard = ShardId::standalone();
        functions.is_at(shard, Digest(1));
        assert!(functions.is_known_to(shard, Digest(1)) && !functions.is_known_to(shard, Digest(2)));
        functions.shard_lost(shard);
        assert!(!functions.is_known_to(shard, Digest(1)));
        for digest in 0..=FUNCTIONS_KNOWN_MAX as u128 {
            functions.is_at(shard, Digest(digest));
        }
        assert!(!functions.is_known_to(shard, Digest(0)), "the set is bounded");
    }
}
