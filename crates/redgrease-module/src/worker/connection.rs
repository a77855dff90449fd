//! The connection to a worker: frames come in, bytes go out, never more than a bounded number in one go.
//!
//! Bytes travel through rings in shared memory where the kernel has it; the socket then carries bells (single bytes whose only
//! meaning is "look at the rings") and shows the end of the other side. Otherwise everything travels through the socket.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use redgrease_engine::frames::Frames;
use redgrease_ring::{Broken, Link};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::time::Timespec;

/// Bytes read from a worker in one turn of the server's loop.
const READ_BYTES_PER_TURN: usize = 1 << 20;

/// Bytes written to a worker in one go: a worker that reads meanwhile could keep the main thread for long.
const WRITE_BYTES_PER_TURN: usize = 512 << 10;

/// Bytes asked for with one read of a socket.
const CHUNK_BYTES: usize = 64 << 10;

/// Bytes written that are kept at the front of the outgoing buffer before the rest is moved there.
const SENT_BYTES_MAX: usize = 1 << 20;

/// An outgoing buffer that is larger is given back when it is empty.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// The byte that means "look at the rings".
const BELL: u8 = b'!';

/// Bells that are waiting at most: each side rings once for each time that the other one announced its sleep.
const BELLS_MAX: usize = 1024;

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
    /// What to do about bytes that wait to be written.
    pub rest: Rest,
}

/// Bytes that wait to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// There are none.
    None,
    /// They can be written when the socket is writable.
    WhenWritable,
    /// They can be written when the worker rings the bell.
    AfterBell,
    /// They can be written in the next turn.
    NextTurn,
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
pub struct Connection {
    socket: OwnedFd,
    rings: Option<RefCell<Link>>,
    incoming: RefCell<Vec<u8>>,
    out: RefCell<Out>,
    /// What to do about the bytes that wait.
    rest: Cell<Rest>,
    /// The ring to the worker cannot be used any more.
    broken: Cell<Option<Broken>>,
    /// The other end of the socket is closed.
    closed: Cell<bool>,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, rings: Option<Link>) -> Connection {
        Connection {
            socket,
            rings: rings.map(RefCell::new),
            incoming: RefCell::default(),
            out: RefCell::default(),
            rest: Cell::new(Rest::None),
            broken: Cell::new(None),
            closed: Cell::new(false),
        }
    }

    /// The descriptor of the socket.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether bytes travel through shared memory.
    pub fn has_rings(&self) -> bool {
        self.rings.is_some()
    }

    /// Bytes of a frame that was begun and not finished.
    pub fn unfinished_bytes(&self) -> usize {
        self.incoming.borrow().len()
    }

    /// What to do about the bytes that wait to be written.
    pub fn rest(&self) -> Rest {
        self.rest.get()
    }

    /// Whether the rings have something to be read: `false` without rings.
    pub fn has_bytes(&self) -> bool {
        self.rings.as_ref().is_some_and(|link| !link.borrow().receiver.is_empty())
    }

    /// Whether there is something to be read, which a wait may ask many times.
    pub fn is_readable(&self) -> bool {
        if self.rings.is_some() {
            return self.has_bytes();
        }
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&now)), Ok(count) if count > 0)
    }

    /// Asks the worker to ring the bell when it writes to the rings. `false`: they have something to be read.
    pub fn sleep(&self) -> bool {
        self.rings.as_ref().is_none_or(|link| link.borrow().receiver.sleep())
    }

    /// Takes that back: the rings are looked at without a bell.
    pub fn wake(&self) {
        if let Some(link) = &self.rings {
            link.borrow().receiver.wake();
        }
    }

    /// Reads the bells from a readable socket, where it carries nothing else.
    ///
    /// # Errors
    /// Something else was written to it.
    pub fn hear(&self) -> Result<(), String> {
        if self.rings.is_none() {
            return Ok(());
        }
        self.wake();
        let mut bells = [0; BELLS_MAX];
        match rustix::io::read(&self.socket, &mut bells) {
            Ok(0) => self.closed.set(true),
            Ok(BELLS_MAX) => return Err(format!("{BELLS_MAX} bytes or more on a socket that carries single bytes")),
            Ok(count) => {
                if let Some(byte) = bells[..count].iter().find(|byte| **byte != BELL) {
                    return Err(format!("the byte {byte} on a socket that carries only the byte {BELL}"));
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.closed.set(true),
        }
        Ok(())
    }

    /// Reads what is there, up to a bound, and cuts whole frames out of it.
    pub fn read(&self) -> Incoming {
        let mut buffer = self.incoming.borrow_mut();
        let broken = match &self.rings {
            Some(link) => read_ring(&mut link.borrow_mut(), &mut buffer).err(),
            None => {
                self.read_socket(&mut buffer);
                None
            }
        };
        match Frames::cut(&mut buffer) {
            // When the end, or a broken ring, came with frames before it, the next read says so again.
            Ok(Some(frames)) => Incoming::Frames(frames),
            Err(reason) => Incoming::Garbled(reason),
            Ok(None) => match broken {
                Some(broken) => Incoming::Garbled(broken.to_string()),
                None if self.closed.get() && !self.has_bytes() => Incoming::Closed,
                None => Incoming::Nothing,
            },
        }
    }

    fn read_socket(&self, buffer: &mut Vec<u8>) {
        let mut total = 0;
        while total < READ_BYTES_PER_TURN && !self.closed.get() {
            let result = CHUNK.with_borrow_mut(|chunk| {
                let count = rustix::io::read(&self.socket, &mut chunk[..])?;
                buffer.extend_from_slice(&chunk[..count]);
                Ok(count)
            });
            match result {
                Ok(CHUNK_BYTES) => total += CHUNK_BYTES,
                Ok(0) => self.closed.set(true),
                Ok(_) | Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => self.closed.set(true),
            }
        }
    }

    /// Why nothing can be written any more, if so.
    pub fn broken(&self) -> Option<Broken> {
        self.broken.get()
    }

    /// Adds what `add` appends to the bytes that wait, and writes what the other side takes, up to a bound. What cannot be
    /// written because the other end is closed counts as written: the end shows when reading.
    pub fn write(&self, add: impl FnOnce(&mut Vec<u8>)) -> Written {
        let out = &mut *self.out.borrow_mut();
        add(&mut out.bytes);
        if out.bytes.is_empty() {
            return Written { bytes: 0, rest: Rest::None };
        }
        let start = out.sent;
        let rest = match &self.rings {
            Some(link) => self.write_ring(&mut link.borrow_mut(), out),
            None => self.write_socket(out),
        };
        let bytes = (out.sent - start) as u64;
        out.compact();
        let rest = if out.bytes.is_empty() { Rest::None } else { rest };
        self.rest.set(rest);
        Written { bytes, rest }
    }

    fn write_socket(&self, out: &mut Out) -> Rest {
        let end = out.bytes.len().min(out.sent + WRITE_BYTES_PER_TURN);
        while out.sent < end {
            match send(&self.socket, &out.bytes[out.sent..end], SendFlags::NOSIGNAL) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(count) => out.sent += count,
                Err(Errno::INTR) => {}
                Err(_) => out.sent = out.bytes.len(),
            }
        }
        Rest::WhenWritable
    }

    fn write_ring(&self, link: &mut Link, out: &mut Out) -> Rest {
        let sender = &mut link.sender;
        match sender.write(&out.bytes[out.sent..]) {
            Ok(count) => out.sent += count,
            Err(broken) => {
                self.broken.set(Some(broken));
                out.sent = out.bytes.len();
            }
        }
        if sender.must_wake_reader() {
            // A socket that takes no further bell holds some that were not heard.
            let _ = send(&self.socket, &[BELL], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
        let is_full = out.sent < out.bytes.len() && sender.wait_for_space();
        if is_full { Rest::AfterBell } else { Rest::NextTurn }
    }
}

fn read_ring(link: &mut Link, buffer: &mut Vec<u8>) -> Result<(), Broken> {
    link.receiver.read(buffer, READ_BYTES_PER_TURN)?;
    link.receiver.wake_writer();
    Ok(())
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use redgrease_core::frame::ToWorker;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (Connection, OwnedFd) {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        (Connection::new(ours, None), theirs)
    }

    #[test]
    fn what_is_written_in_parts_arrives_whole_and_is_counted_once() {
        let (connection, other) = pair();
        let text: Vec<u8> = (0..5_000_000_u32).map(|number| (number / 7) as u8).collect();
        let mut written = connection.write(|out| out.extend_from_slice(&text)).bytes;
        assert!(connection.rest() == Rest::WhenWritable && written <= WRITE_BYTES_PER_TURN as u64);
        let mut read = Vec::new();
        let mut chunk = vec![0; 1 << 20];
        while read.len() < text.len() {
            if let Ok(count) = rustix::io::read(&other, &mut chunk[..]) {
                read.extend_from_slice(&chunk[..count]);
            }
            written += connection.write(|_| {}).bytes;
        }
        assert!(read == text && written == text.len() as u64 && connection.rest() == Rest::None);
    }

    #[test]
    fn what_cannot_be_written_any_more_counts_as_written() {
        let (connection, other) = pair();
        drop(other);
        assert_eq!(connection.write(|out| out.extend_from_slice(b"frame")), Written { bytes: 5, rest: Rest::None });
        assert!(matches!(connection.read(), Incoming::Closed));
    }

    #[test]
    fn frames_come_before_the_end_and_a_begun_one_waits() {
        let (connection, other) = pair();
        let mut bytes = Vec::new();
        ToWorker::Shutdown.write(&mut bytes);
        let whole = bytes.len();
        ToWorker::Shutdown.write(&mut bytes);
        rustix::io::write(&other, &bytes[..bytes.len() - 1]).unwrap();
        let Incoming::Frames(frames) = connection.read() else { panic!("a whole frame was sent") };
        assert_eq!((frames.left(), connection.unfinished_bytes()), (whole, bytes.len() - whole - 1));
        drop(other);
        assert!(matches!(connection.read(), Incoming::Closed));
    }

    fn ring_pair() -> (Connection, Link, OwnedFd) {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        let (link, file) = Link::create().unwrap();
        (Connection::new(ours, Some(link)), Link::open(&file).unwrap(), theirs)
    }

    #[test]
    fn a_full_ring_keeps_the_rest_until_the_bell() {
        let (connection, mut other, bells) = ring_pair();
        let text: Vec<u8> = (0..3_000_000_u32).map(|number| (number / 7) as u8).collect();
        let first = connection.write(|out| out.extend_from_slice(&text));
        assert_eq!((first.bytes, first.rest), (1 << 20, Rest::AfterBell));
        let (mut read, mut written) = (Vec::new(), first.bytes);
        while read.len() < text.len() {
            other.receiver.read(&mut read, usize::MAX).unwrap();
            assert_eq!(other.receiver.must_wake_writer(), connection.rest() == Rest::AfterBell);
            rustix::io::write(&bells, b"!").unwrap();
            connection.hear().unwrap();
            written += connection.write(|_| {}).bytes;
        }
        assert!(read == text && written == text.len() as u64 && connection.rest() == Rest::None);
    }

    #[test]
    fn the_bell_is_rung_once_for_a_reader_that_sleeps() {
        let (connection, other, bells) = ring_pair();
        let mut heard = [0; 8];
        connection.write(|out| out.push(1));
        assert_eq!(rustix::io::read(&bells, &mut heard), Err(Errno::AGAIN));
        assert!(!other.receiver.sleep());
        let (connection, other, bells) = ring_pair();
        assert!(other.receiver.sleep());
        connection.write(|out| out.push(1));
        connection.write(|out| out.push(2));
        assert_eq!(rustix::io::read(&bells, &mut heard), Ok(1));
    }

    #[test]
    fn what_was_written_before_the_end_is_read_before_it() {
        let (connection, mut other, bells) = ring_pair();
        let mut bytes = Vec::new();
        ToWorker::Shutdown.write(&mut bytes);
        other.sender.write(&bytes).unwrap();
        drop(bells);
        connection.hear().unwrap();
        assert!(matches!(connection.read(), Incoming::Frames(_)));
        assert!(matches!(connection.read(), Incoming::Closed));
    }

    #[test]
    fn anything_but_bells_on_the_socket_is_refused() {
        for (sent, is_fine) in [(&b"!!"[..], true), (b"!x", false), (&[BELL; BELLS_MAX], false)] {
            let (connection, _other, bells) = ring_pair();
            rustix::io::write(&bells, sent).unwrap();
            assert_eq!(connection.hear().is_ok(), is_fine, "{} bytes", sent.len());
        }
    }
}
