//! The rules of the file cache: what its index knows, what may happen to it, and how files are named.
//!
//! # Layout
//! - [`entry`]: what is known about one generation of one key, and its bytes in the index;
//! - [`name`]: the names of files, safe for any key and readable back;
//! - [`protocol`]: the operations on the index and their answers;
//! - [`index`]: the state machine that answers them. It is the model of the scripts that do the same inside a server, and
//!   itself the index of caches without one;
//! - [`retries`]: how long a request is repeated whose index is lost again and again;
//! - [`place`]: where a directory is, to tell it from a copy of it;
//! - [`memory`]: whether a server evicts the keys of an index.
//!
//! Times are microseconds since 1970 of *one* clock, the index's own (the server's); clients' clocks are never compared.
//!
//! # Why it is safe
//! A file is never changed after it got its name, and the name contains the *fence*: a number that no two leases share.
//! Only [`protocol::Op::Commit`] makes a file the content of its key, and only for the lease that is still the key's
//! writer. So a writer that was stalled, thought dead and replaced can do what it likes to its own files: they are garbage
//! that nobody points to. "Garbage" never stops being true: a file is garbage when it is neither current nor that of a
//! living writer, and the check removes the dead writer, so nothing can make it current afterwards.

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

/// A key: 1 to [`MAX_KEY_BYTES`] bytes of any kind.
pub type Key = Vec<u8>;

/// The longest key.
pub const MAX_KEY_BYTES: usize = 4096;
