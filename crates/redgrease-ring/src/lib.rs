//! Byte rings in memory that two processes share.
//!
//! A [`Link`] is one side's end of a pair of rings: bytes written to it come out of the other side's end in the same
//! order. [`Link::create`] makes both the memory and one end; [`handover`] passes the memory to the other process over a
//! Unix socket.
//!
//! The other side is not trusted. Everything that it can write is checked before it is used, and what it writes is
//! copied out before it is parsed. At worst it sends garbage, or [`Broken`] is reported; memory outside of the ring is
//! never touched.
//!
//! # Sleeping
//! A ring carries bytes, not wake-ups. A reader that is about to sleep announces it and looks at the ring once more
//! ([`Receiver::sleep`]); a writer that finds the announcement after it has published bytes ([`Sender::must_wake_reader`]) wakes the reader
//! by other means, such as a byte on a socket. The same holds for a writer that waits for space. `tests/model.rs` checks
//! with loom that no order of these steps loses a wake-up.

#[cfg(not(feature = "model"))]
pub mod handover;
#[cfg(not(feature = "model"))]
mod link;
#[cfg(not(feature = "model"))]
mod memory;
pub mod protocol;
#[cfg(not(feature = "model"))]
mod spin;

#[cfg(not(feature = "model"))]
pub use link::{Link, Receiver, Sender};
pub use protocol::Broken;
#[cfg(not(feature = "model"))]
pub use spin::spin_until;
