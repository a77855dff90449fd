//! The socket: complete frames in, combined bytes out. It knows neither Python objects nor the meaning of frames.
//!
//! Invariants: one thread reads at a time (it holds the [`Inbox`]'s lock); any thread appends to the outbox at any time; one
//! thread writes at a time, so that bytes leave in the order in which they were appended. No lock of this file is
//! held while waiting for the GIL.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use redgrease_core::frame::{self, FromWorker};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use crate::lock::lock;

/// Buffer size of a read; a longer frame enlarges it.
const READ_BYTES: usize = 256 << 10;
/// A larger buffer is freed after use.
const KEEP_BYTES: usize = 1 << 20;
/// How long a result may wait for further results before it is written.
const LINGER: Duration = Duration::from_micros(300);
/// How many bytes may wait for further results.
const LINGER_BYTES: usize = 64 << 10;

/// Why the connection is unusable.
#[derive(Debug)]
pub enum Broken {
    /// The server closed its end.
    Closed,
    /// An error of the operating system.
    Io(Errno),
    /// The received data violates the protocol.
    Protocol(frame::FrameError),
}

/// Received bytes that are not handled yet.
#[derive(Debug, Default)]
pub struct Inbox {
    buf: Vec<u8>,
    at: usize,
}

impl Inbox {
    /// The body of the next complete frame.
    pub fn frame(&mut self) -> Result<Option<&[u8]>, Broken> {
        match frame::split(&self.buf[self.at..]).map_err(Broken::Protocol)? {
            None => Ok(None),
            Some((body, taken)) => {
                self.at += taken;
                Ok(Some(body))
            }
        }
    }

    /// Blocks until something was received.
    fn fill(&mut self, fd: &OwnedFd) -> Result<(), Broken> {
        if self.at == self.buf.len() {
            self.at = 0;
            self.buf.clear();
            self.buf.shrink_to(KEEP_BYTES);
        } else if self.at > 0 {
            self.buf.drain(..self.at);
            self.at = 0;
        }
        // The beginning of a frame contains its length.
        let announced = self.buf.first_chunk::<4>().map_or(0, |prefix| u32::from_le_bytes(*prefix) as usize + 4);
        self.buf.reserve(READ_BYTES.max(announced.min(frame::FRAME_BYTES_MAX).saturating_sub(self.buf.len())));
        loop {
            // Also in a child forked without the interpreter's knowledge: it would take the worker's frames.
            if crate::child::is_child() {
                return Err(Broken::Closed);
            }
            match rustix::io::read(fd, spare_capacity(&mut self.buf)) {
                Ok(0) => return Err(Broken::Closed),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Broken::Io(error)),
            }
        }
    }
}

#[derive(Debug, Default)]
struct Outbox {
    buf: Vec<u8>,
    since: Option<Instant>,
}

/// The worker's end of the socket pair.
#[derive(Debug)]
pub struct Transport {
    fd: OwnedFd,
    inbox: Mutex<Inbox>,
    outbox: Mutex<Outbox>,
    /// Held while writing; keeps the spare buffer.
    writing: Mutex<Vec<u8>>,
}

impl Transport {
    /// Takes a connected, blocking stream socket.
    pub fn new(fd: OwnedFd) -> Transport {
        Transport { fd, inbox: Mutex::default(), outbox: Mutex::default(), writing: Mutex::default() }
    }

    /// Writes appended frames, then blocks until something was received. The caller has the role of the reader.
    pub fn receive(&self) -> Result<MutexGuard<'_, Inbox>, Broken> {
        self.flush()?;
        let mut inbox = lock(&self.inbox);
        inbox.fill(&self.fd)?;
        Ok(inbox)
    }

    /// Appends a frame; [`Transport::flush`] sends it.
    pub fn append(&self, frame: &FromWorker<'_>) {
        let mut outbox = lock(&self.outbox);
        if outbox.buf.is_empty() {
            outbox.since = Some(Instant::now());
        }
        frame.write(&mut outbox.buf);
    }

    /// Whether appended frames should be written without waiting for further results.
    pub fn is_due(&self) -> bool {
        let outbox = lock(&self.outbox);
        outbox.buf.len() >= LINGER_BYTES || outbox.since.is_some_and(|since| since.elapsed() >= LINGER)
    }

    /// Writes appended frames; blocks while the server does not read.
    pub fn flush(&self) -> Result<(), Broken> {
        self.flush_with(lock(&self.writing))
    }

    /// Writes appended frames unless another thread is writing already.
    pub fn try_flush(&self) -> Result<(), Broken> {
        match self.writing.try_lock() {
            Ok(writing) => self.flush_with(writing),
            Err(_) => Ok(()),
        }
    }

    fn flush_with(&self, mut spare: MutexGuard<'_, Vec<u8>>) -> Result<(), Broken> {
        loop {
            {
                let mut outbox = lock(&self.outbox);
                if outbox.buf.is_empty() {
                    return Ok(());
                }
                outbox.since = None;
                std::mem::swap(&mut outbox.buf, &mut spare);
            }
            if crate::child::is_child() {
                return Err(Broken::Closed);
            }
            let mut rest = &spare[..];
            while !rest.is_empty() {
                match rustix::io::write(&self.fd, rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(Errno::INTR) => {}
                    Err(Errno::PIPE | Errno::CONNRESET) => return Err(Broken::Closed),
                    Err(error) => return Err(Broken::Io(error)),
                }
            }
            spare.clear();
            spare.shrink_to(KEEP_BYTES);
        }
    }
}
