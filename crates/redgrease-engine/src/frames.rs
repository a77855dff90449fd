//! Frames as read from a worker's socket.

use crate::prelude::*;
use redgrease_core::frame::split;

/// Complete frames, concatenated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frames {
    bytes: Vec<u8>,
    at: usize,
}

impl Frames {
    /// Splits the complete frames off the front of what was read; the rest stays in `buffer`. `None` if there is none.
    ///
    /// # Errors
    /// The bytes are not a frame.
    pub fn cut(buffer: &mut Vec<u8>) -> Result<Option<Frames>, String> {
        let mut whole = 0;
        while let Some((_, taken)) = split(&buffer[whole..]).map_err(|error| error.to_string())? {
            whole += taken;
        }
        if whole == 0 {
            return Ok(None);
        }
        let rest = buffer.split_off(whole);
        let bytes = core::mem::replace(buffer, rest);
        Ok(Some(Frames { bytes, at: 0 }))
    }

    /// Bytes of frames that were not taken yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The body of the next frame.
    pub fn next_body(&mut self) -> Option<&[u8]> {
        // `cut` has checked the bytes.
        let (body, taken) = split(&self.bytes[self.at..]).ok()??;
        let start = self.at + (taken - body.len());
        self.at += taken;
        Some(&self.bytes[start..self.at])
    }
}
