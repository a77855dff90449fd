//! Frames as bytes: prefix, bounds and errors.

use alloc::vec::Vec;
use core::fmt;

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of this protocol; both sides refuse another one in the handshake.
pub const PROTOCOL_VERSION: u64 = 7;

/// The longest body of a frame, in bytes. A sender splits or refuses longer ones; a receiver treats them as a protocol violation.
pub const FRAME_BYTES_MAX: usize = 512 << 20;

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

/// Why bytes are not a frame of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The prefix announces what no sender sends.
    #[error("a frame of {0} bytes: the length must be from 1 to {FRAME_BYTES_MAX}")]
    Length(u32),
    /// The body is not one of the frames.
    #[error("a frame of kind {kind} and {len} bytes is not readable: {}", reason(.cause))]
    Body {
        /// Its first byte.
        kind: u8,
        /// Length of the body.
        len: usize,
        /// What is wrong with it.
        cause: postcard::Error,
    },
    /// Bytes follow the last field.
    #[error("a frame of kind {kind} and {len} bytes has {trailing} bytes behind its last field")]
    Trailing {
        /// Its first byte.
        kind: u8,
        /// Length of the body.
        len: usize,
        /// The bytes that are too many.
        trailing: usize,
    },
}

fn reason(cause: &postcard::Error) -> &dyn fmt::Display {
    match cause {
        // postcard drops the text of these.
        postcard::Error::SerdeDeCustom => &"it has an unknown kind, or a field with a value outside its range",
        other => other,
    }
}

struct Appender<'b>(&'b mut Vec<u8>);

impl Flavor for Appender<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        match bytes {
            // Most numbers are this short, and a copy of variable length costs more than a push.
            [byte] => self.0.push(*byte),
            _ => self.0.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends a frame (prefix and body) to `buf` and returns the number of bytes appended.
pub(super) fn append(frame: &impl Serialize, buf: &mut Vec<u8>) -> usize {
    let start = buf.len();
    buf.extend_from_slice(&[0; PREFIX_BYTES]);
    postcard::serialize_with_flavor(frame, Appender(buf)).expect("a frame has no list of unknown length");
    let len = buf.len() - start - PREFIX_BYTES;
    debug_assert!(len <= FRAME_BYTES_MAX, "a sender splits or refuses what is longer than FRAME_BYTES_MAX");
    buf[start..start + PREFIX_BYTES].copy_from_slice(&(len as u32).to_le_bytes());
    len + PREFIX_BYTES
}

/// Finds the first whole frame of `buf`: its body, and the number of bytes it takes with its prefix.
///
/// `Ok(None)` when more bytes are needed.
///
/// # Errors
/// [`FrameError::Length`] when the announced length exceeds [`FRAME_BYTES_MAX`] or is zero.
pub fn split(buf: &[u8]) -> Result<Option<(&[u8], usize)>, FrameError> {
    let Some(prefix) = buf.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let announced = u32::from_le_bytes(*prefix);
    let len = announced as usize;
    if len == 0 || len > FRAME_BYTES_MAX {
        return Err(FrameError::Length(announced));
    }
    Ok(buf.get(PREFIX_BYTES..PREFIX_BYTES + len).map(|body| (body, PREFIX_BYTES + len)))
}

/// Parses a whole body.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, FrameError> {
    let (frame, rest) = first_fields(body)?;
    match (rest.len(), body) {
        (0, _) | (_, []) => Ok(frame),
        (trailing, [kind, ..]) => Err(FrameError::Trailing { kind: *kind, len: body.len(), trailing }),
    }
}

/// Parses the front of a body, and returns what follows.
pub(super) fn first_fields<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<(T, &'a [u8]), FrameError> {
    let [kind, ..] = body else { return Err(FrameError::Length(0)) };
    postcard::take_from_bytes(body).map_err(|cause| FrameError::Body { kind: *kind, len: body.len(), cause })
}
