//! One generation of a key, as stored in the index.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::Micros;

/// The first 16 bytes of the BLAKE3 hash of a file's content.
pub type Digest = [u8; 16];

/// An entry of the index: the file that is the content of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The fence of the lease that made it; part of the file's name, and unique per generation.
    pub fence: u64,
    /// Length of the file in bytes.
    pub size: u64,
    /// When it was committed.
    pub created: Micros,
    /// When it expires; 0: never.
    pub expires: Micros,
    /// Time to live given when it was made; 0: unlimited. Part of the file's name, so that a lost index can be rebuilt.
    pub ttl: Micros,
    /// Whether it is exempt from limits.
    pub pinned: bool,
    /// Hash of the content.
    pub digest: Digest,
    /// Metadata of the user, opaque here; stored in a sidecar file unless empty.
    pub metadata: Vec<u8>,
}

const FIXED_BYTES: usize = 8 * 5 + 1 + 16;

impl Entry {
    /// Whether it has expired at `now`.
    pub fn is_expired(&self, now: Micros) -> bool {
        self.expires != 0 && self.expires <= now
    }

    /// Its encoding in the index: fence, size, created, expires, ttl (8 bytes each, big endian), pinned (1), digest (16),
    /// metadata.
    pub fn pack(&self) -> Vec<u8> {
        let mut packed = Vec::with_capacity(FIXED_BYTES + self.metadata.len());
        for number in [self.fence, self.size, self.created, self.expires, self.ttl] {
            packed.extend_from_slice(&number.to_be_bytes());
        }
        packed.push(u8::from(self.pinned));
        packed.extend_from_slice(&self.digest);
        packed.extend_from_slice(&self.metadata);
        packed
    }

    /// Decodes the output of [`Entry::pack`]; `None` if it is too short.
    pub fn unpack(packed: &[u8]) -> Option<Self> {
        let (fixed, metadata) = packed.split_at_checked(FIXED_BYTES)?;
        let number = |at: usize| u64::from_be_bytes(fixed[at * 8..][..8].try_into().expect("eight bytes"));
        Some(Self {
            fence: number(0),
            size: number(1),
            created: number(2),
            expires: number(3),
            ttl: number(4),
            pinned: fixed[40] != 0,
            digest: fixed[41..].try_into().expect("sixteen bytes"),
            metadata: metadata.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(
            numbers: [u64; 5], pinned: bool, digest: Digest, metadata: Vec<u8>
        ) {
            let [fence, size, created, expires, ttl] = numbers;
            let entry = Entry { fence, size, created, expires, ttl, pinned, digest, metadata };
            prop_assert_eq!(Entry::unpack(&entry.pack()), Some(entry));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Entry::unpack(&bytes);
        }
    }
}
