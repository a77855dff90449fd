//! The connection to the server: complete frames in, combined bytes out. It knows neither Python objects nor the meaning
//! of frames.
//!
//! Bytes travel through rings in shared memory if the server offered them; the socket then carries bells (bytes whose only
//! meaning is "look at the rings") and shows the end of the server. Otherwise everything travels through the socket.
//!
//! Invariants: one thread reads at a time (it holds the [`Inbox`]'s lock); any thread appends to the outbox at any time; one
//! thread writes at a time, so that bytes leave in the order in which they were appended. No lock of this file is
//! held while waiting for the GIL.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use redgrease_core::frame::{self, FromWorker};
use redgrease_ring::{Receiver, Sender, handover, spin_until};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, fcntl_getfd};
use rustix::net::{SendFlags, send};
use rustix::time::Timespec;

use crate::lock::lock;

/// Buffer size of a read; a longer frame enlarges it.
const READ_BYTES: usize = 256 << 10;
/// A larger buffer is freed after use.
const KEEP_BYTES: usize = 1 << 20;
/// How long a result may wait for further results before it is written.
const LINGER: Duration = Duration::from_micros(300);
/// How often a writer that waits for space looks whether the server is still there.
const LOOK_EVERY: Duration = Duration::from_millis(100);
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
    /// The rings cannot be used any more.
    Ring(redgrease_ring::Broken),
}

/// Received bytes that are not handled yet.
#[derive(Debug, Default)]
pub struct Inbox {
    buf: Vec<u8>,
    at: usize,
    ring: Option<Receiver>,
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

    /// Blocks until something was received; polls for up to `spin` before it sleeps.
    fn fill(&mut self, fd: &OwnedFd, spin: Duration) -> Result<(), Broken> {
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
        // Also in a child forked without the interpreter's knowledge: it would take the worker's frames.
        while !crate::child::is_child() {
            let received = match &mut self.ring {
                Some(ring) => from_ring(ring, fd, spin, &mut self.buf)?,
                None => from_socket(fd, spin, &mut self.buf)?,
            };
            if received {
                return Ok(());
            }
        }
        Err(Broken::Closed)
    }
}

/// Reads what the socket has, and waits for it. `false`: the wait was interrupted.
fn from_socket(fd: &OwnedFd, spin: Duration, buf: &mut Vec<u8>) -> Result<bool, Broken> {
    spin_until(spin, || is_ready(fd, PollFlags::IN));
    match rustix::io::read(fd, spare_capacity(buf)) {
        Ok(0) => Err(Broken::Closed),
        Ok(_) => Ok(true),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(Broken::Io(error)),
    }
}

/// Reads what the ring has, or waits for the bell. `false`: there was nothing yet.
fn from_ring(ring: &mut Receiver, fd: &OwnedFd, spin: Duration, buf: &mut Vec<u8>) -> Result<bool, Broken> {
    spin_until(spin, || !ring.is_empty());
    if ring.read(buf, READ_BYTES).map_err(Broken::Ring)? > 0 {
        if ring.must_wake_writer() {
            ring_bell(fd)?;
        }
        return Ok(true);
    }
    if !ring.sleep() {
        return Ok(false);
    }
    let heard = rustix::io::read(fd, &mut [0; 64]);
    ring.wake();
    match heard {
        Ok(0) => Err(Broken::Closed),
        Ok(_) | Err(Errno::INTR) => Ok(false),
        Err(error) => Err(Broken::Io(error)),
    }
}

fn ring_bell(fd: &OwnedFd) -> Result<(), Broken> {
    match send(fd, b"!", SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        // A socket that takes no further bell holds some that were not heard.
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
        Err(Errno::PIPE | Errno::CONNRESET) => Err(Broken::Closed),
        Err(error) => Err(Broken::Io(error)),
    }
}

fn is_ready(fd: &OwnedFd, events: PollFlags) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(fd, events)], Some(&now)), Ok(count) if count > 0)
}

#[derive(Debug, Default)]
struct Outbox {
    buf: Vec<u8>,
    since: Option<Instant>,
}

/// What is needed for writing.
#[derive(Debug, Default)]
struct Writing {
    spare: Vec<u8>,
    ring: Option<Sender>,
    /// The ring holds bytes for which the server was not woken.
    unannounced: bool,
}

/// The worker's end of the connection.
#[derive(Debug)]
pub struct Transport {
    fd: OwnedFd,
    inbox: Mutex<Inbox>,
    outbox: Mutex<Outbox>,
    /// Held while writing.
    writing: Mutex<Writing>,
    spin_micros: AtomicU64,
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Transport {
    /// Takes a connected, blocking stream socket, and the rings that the server offers through it.
    ///
    /// # Errors
    /// The server is gone, or its offer cannot be used.
    pub fn accept(fd: OwnedFd) -> Result<Transport, Broken> {
        let link = handover::accept(&fd).map_err(|error| match error {
            Errno::PIPE => Broken::Closed,
            error => Broken::Io(error),
        })?;
        let (sender, receiver) = link.map(|link| (link.sender, link.receiver)).unzip();
        Ok(Transport {
            fd,
            inbox: Mutex::new(Inbox { ring: receiver, ..Inbox::default() }),
            outbox: Mutex::default(),
            writing: Mutex::new(Writing { ring: sender, ..Writing::default() }),
            spin_micros: AtomicU64::new(0),
        })
    }

    /// How long to poll for what the server sends, before sleeping, in microseconds.
    pub fn set_spin_micros(&self, micros: u64) {
        self.spin_micros.store(micros, Relaxed);
    }

    /// Writes appended frames, then blocks until something was received. The caller has the role of the reader.
    pub fn receive(&self) -> Result<MutexGuard<'_, Inbox>, Broken> {
        self.flush()?;
        let mut inbox = lock(&self.inbox);
        inbox.fill(&self.fd, Duration::from_micros(self.spin_micros.load(Relaxed)))?;
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

    /// Hands appended frames over without waking the server and without waiting for space; they arrive even if this process
    /// is killed. `false`: some are left, for the next flush.
    pub fn publish(&self) -> Result<bool, Broken> {
        // A thread that is writing takes what is appended, too, but it may wait for space.
        let Ok(mut writing) = self.writing.try_lock() else { return Ok(false) };
        if crate::child::is_child() {
            return Err(Broken::Closed);
        }
        let mut outbox = lock(&self.outbox);
        let written = match &mut writing.ring {
            Some(ring) => {
                // Without the socket, which user code can close, the server does not look into the ring any more.
                fcntl_getfd(&self.fd).map_err(Broken::Io)?;
                ring.write(&outbox.buf).map_err(Broken::Ring)?
            }
            None => match send(&self.fd, &outbox.buf, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(written) => written,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Broken::Closed),
                Err(error) => return Err(Broken::Io(error)),
            },
        };
        outbox.buf.drain(..written);
        writing.unannounced |= written > 0 && writing.ring.is_some();
        Ok(outbox.buf.is_empty())
    }

    fn flush_with(&self, mut writing: MutexGuard<'_, Writing>) -> Result<(), Broken> {
        let Writing { spare, ring, unannounced } = &mut *writing;
        loop {
            {
                let mut outbox = lock(&self.outbox);
                outbox.since = None;
                if outbox.buf.is_empty() {
                    drop(outbox);
                    if std::mem::take(unannounced) && ring.as_ref().is_some_and(Sender::must_wake_reader) {
                        ring_bell(&self.fd)?;
                    }
                    return Ok(());
                }
                std::mem::swap(&mut outbox.buf, spare);
            }
            *unannounced = false;
            if crate::child::is_child() {
                return Err(Broken::Closed);
            }
            match ring {
                Some(ring) => self.to_ring(ring, spare)?,
                None => self.to_socket(spare)?,
            }
            spare.clear();
            spare.shrink_to(KEEP_BYTES);
        }
    }

    fn to_socket(&self, mut rest: &[u8]) -> Result<(), Broken> {
        while !rest.is_empty() {
            match rustix::io::write(&self.fd, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Broken::Closed),
                Err(error) => return Err(Broken::Io(error)),
            }
        }
        Ok(())
    }

    fn to_ring(&self, ring: &mut Sender, mut rest: &[u8]) -> Result<(), Broken> {
        loop {
            rest = &rest[ring.write(rest).map_err(Broken::Ring)?..];
            if ring.must_wake_reader() {
                ring_bell(&self.fd)?;
            }
            if rest.is_empty() {
                return Ok(());
            }
            ring.block_until_space(LOOK_EVERY);
            if is_ready(&self.fd, PollFlags::empty()) {
                // Only an error or the end is reported without being asked for.
                return Err(Broken::Closed);
            }
        }
    }
}
