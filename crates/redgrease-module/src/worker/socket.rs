//! The connection to a worker: frames come in, bytes go out, never more than a bounded number in one go.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use redgrease_engine::frames::Frames;
use rustix::io::Errno;

/// Bytes read from a worker in one turn of the server's loop.
const READ_BYTES_PER_TURN: usize = 1 << 20;

/// Bytes written to a worker in one go: a worker that reads meanwhile could keep the main thread for long.
const WRITE_BYTES_PER_TURN: usize = 512 << 10;

/// Bytes asked for with one read.
const CHUNK_BYTES: usize = 64 << 10;

/// Bytes written that are kept at the front of the outgoing buffer before the rest is moved there.
const SENT_BYTES_MAX: usize = 1 << 20;

/// An outgoing buffer that is larger is given back when it is empty.
const KEPT_BYTES_MAX: usize = 1 << 20;

thread_local! {
    static CHUNK: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK_BYTES]);
}

/// What reading brought.
#[derive(Debug)]
pub enum Incoming {
    /// So far nothing whole.
    Nothing,
    /// Frames.
    Frames(Frames),
    /// The other end is closed.
    Closed,
    /// What came is not our protocol.
    Garbled(String),
}

/// What writing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes that were written.
    pub bytes: u64,
    /// Bytes wait to be written.
    pub more: bool,
}

/// Bytes on their way to a worker.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    /// How many of them were written.
    sent: usize,
}

impl Out {
    /// Gives up what was written, in time linear in what was.
    fn compact(&mut self) {
        if self.sent == self.bytes.len() {
            self.sent = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT_BYTES_MAX {
                self.bytes = Vec::new();
            }
        } else if self.sent > SENT_BYTES_MAX && self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// The connection.
pub struct Socket {
    fd: OwnedFd,
    incoming: RefCell<Vec<u8>>,
    out: RefCell<Out>,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Socket {
        Socket { fd, incoming: RefCell::default(), out: RefCell::default() }
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Bytes of a frame that was begun and not finished.
    pub fn unfinished_bytes(&self) -> usize {
        self.incoming.borrow().len()
    }

    /// Whether bytes wait to be written.
    pub fn has_unsent(&self) -> bool {
        !self.out.borrow().bytes.is_empty()
    }

    /// Reads what is there, up to a bound, and cuts whole frames out of it.
    pub fn read(&self) -> Incoming {
        let mut buffer = self.incoming.borrow_mut();
        let mut total = 0;
        let mut closed = false;
        while total < READ_BYTES_PER_TURN && !closed {
            let result = CHUNK.with_borrow_mut(|chunk| {
                let count = rustix::io::read(&self.fd, &mut chunk[..])?;
                buffer.extend_from_slice(&chunk[..count]);
                Ok(count)
            });
            match result {
                Ok(CHUNK_BYTES) => total += CHUNK_BYTES,
                Ok(0) => closed = true,
                Ok(_) | Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => closed = true,
            }
        }
        match Frames::cut(&mut buffer) {
            // When the end came with frames before it, the next read says so again.
            Ok(Some(frames)) => Incoming::Frames(frames),
            Ok(None) if closed => Incoming::Closed,
            Ok(None) => Incoming::Nothing,
            Err(reason) => Incoming::Garbled(reason),
        }
    }

    /// Adds what `add` appends to the bytes that wait, and writes what the socket takes, up to a bound. What cannot be
    /// written because the other end is closed counts as written: the end shows when reading.
    pub fn write(&self, add: impl FnOnce(&mut Vec<u8>)) -> Written {
        let out = &mut *self.out.borrow_mut();
        add(&mut out.bytes);
        let start = out.sent;
        let end = out.bytes.len().min(start + WRITE_BYTES_PER_TURN);
        while out.sent < end {
            match rustix::net::send(&self.fd, &out.bytes[out.sent..end], rustix::net::SendFlags::NOSIGNAL) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(count) => out.sent += count,
                Err(Errno::INTR) => {}
                Err(_) => out.sent = out.bytes.len(),
            }
        }
        let bytes = (out.sent - start) as u64;
        out.compact();
        Written { bytes, more: !out.bytes.is_empty() }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use redgrease_core::frame::ToWorker;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (Socket, OwnedFd) {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        (Socket::new(ours), theirs)
    }

    #[test]
    fn what_is_written_in_parts_arrives_whole_and_is_counted_once() {
        let (socket, other) = pair();
        let text: Vec<u8> = (0..5_000_000_u32).map(|number| (number / 7) as u8).collect();
        let mut written = socket.write(|out| out.extend_from_slice(&text)).bytes;
        assert!(socket.has_unsent() && written <= WRITE_BYTES_PER_TURN as u64);
        let mut read = Vec::new();
        let mut chunk = vec![0; 1 << 20];
        while read.len() < text.len() {
            if let Ok(count) = rustix::io::read(&other, &mut chunk[..]) {
                read.extend_from_slice(&chunk[..count]);
            }
            written += socket.write(|_| {}).bytes;
        }
        assert!(read == text && written == text.len() as u64 && !socket.has_unsent());
    }

    #[test]
    fn what_cannot_be_written_any_more_counts_as_written() {
        let (socket, other) = pair();
        drop(other);
        assert_eq!(socket.write(|out| out.extend_from_slice(b"frame")), Written { bytes: 5, more: false });
        assert!(matches!(socket.read(), Incoming::Closed));
    }

    #[test]
    fn frames_come_before_the_end_and_a_begun_one_waits() {
        let (socket, other) = pair();
        let mut bytes = Vec::new();
        ToWorker::Shutdown.write(&mut bytes);
        let whole = bytes.len();
        ToWorker::Shutdown.write(&mut bytes);
        rustix::io::write(&other, &bytes[..bytes.len() - 1]).unwrap();
        let Incoming::Frames(frames) = socket.read() else { panic!("a whole frame was sent") };
        assert_eq!((frames.left(), socket.unfinished_bytes()), (whole, bytes.len() - whole - 1));
        drop(other);
        assert!(matches!(socket.read(), Incoming::Closed));
    }
}
