//! What server and worker say to each other.
//!
//! A frame on the wire is its length (four bytes, little-endian, not counting itself) and its body: a [`ToWorker`] or a
//! [`FromWorker`] as [postcard](https://postcard.jamesmunns.com/wire-format) writes it. The order of variants and of fields
//! is the format, and a change of it needs another [`PROTOCOL_VERSION`]. Records inside a frame stay encoded; a frame
//! carries their number. The order of frames is the order of the facts: a worker handles what concerns one execution in the
//! order received, and a server does the same with what a worker says.
//!
//! The server calls nothing in a worker without a number that the worker gives back (`request`, `exec`), and answers
//! each [`FromWorker::Call`] with exactly one [`ToWorker::Reply`]. Everything that comes from a worker is hostile until parsed.
//!
//! # Layout
//! - [`to_worker`], [`from_worker`]: the frames of each direction;
//! - [`fields`]: what several of them have;
//! - [`wire`]: prefix, bounds and errors.

pub mod fields;
pub mod from_worker;
#[cfg(test)]
mod tests;
pub mod to_worker;
pub mod wire;

pub use fields::{Function, LogLevel, Records, StartFlags};
pub use from_worker::{Call, FromWorker, Subject};
pub use to_worker::ToWorker;
pub use wire::{FRAME_BYTES_MAX, FrameError, PREFIX_BYTES, PROTOCOL_VERSION, split};
