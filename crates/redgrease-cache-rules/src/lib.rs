//! The rules of the file cache: the state of its index, the operations on it, and the names of files.
//!
//! # Layout
//! - [`entry`]: one generation of a key, and its encoding in the index;
//! - [`name`]: the names of files, safe for any key and reversible;
//! - [`protocol`]: the operations on the index and their replies;
//! - [`index`]: the state machine that executes them. It is the model of the scripts that run in a server, and itself the
//!   index of caches without a server;
//! - [`retries`]: how long a request is repeated if its index is lost repeatedly;
//! - [`place`]: the location of a directory, to detect copies;
//! - [`memory`]: whether a server may evict the keys of an index.
//!
//! Times are microseconds since 1970 of *one* clock, that of the index (the server's); clocks of clients are never
//! compared.
//!
//! # Why it is safe
//! A file never changes after it was renamed to its final name, and that name contains the *fence*: a number that no
//! two leases share. Only [`protocol::Op::Commit`] makes a file the content of its key, and only for the lease that is
//! still the key's writer. So a writer that was stalled, considered dead and replaced affects only its own files:
//! they are garbage that no entry refers to. Garbage stays garbage: a file is garbage if it is neither
//! current nor that of a live writer, and the check removes the dead writer, so nothing can make it current afterwards.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod entry;
pub mod index;
pub mod memory;
pub mod name;
pub mod place;
pub mod protocol;
pub mod retries;

use alloc::vec::Vec;

pub use entry::{Digest, Entry};
pub use index::Index;
pub use protocol::{Answer, Doomed, Op, Reply};

/// Microseconds since 1970 by the clock of the index.
pub type Micros = u64;

/// A key: 1 to [`MAX_KEY_BYTES`] arbitrary bytes.
pub type Key = Vec<u8>;

/// Maximum length of a key.
pub const MAX_KEY_BYTES: usize = 4096;
