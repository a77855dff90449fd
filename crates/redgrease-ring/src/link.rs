//! One side's end of a pair of rings.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::Timespec;

use crate::memory::{self, RingMemory};
use crate::protocol::{Broken, Consumer, Memory, Producer};

/// Which end of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The end of the process that created the memory.
    Creator,
    /// The end of the process to which it was handed over.
    Receiver,
}

/// The sending half of a link.
#[derive(Debug)]
pub struct Sender(Producer<RingMemory>);

/// The receiving half of a link.
#[derive(Debug)]
pub struct Receiver(Consumer<RingMemory>);

/// One side's end of a pair of rings.
#[derive(Debug)]
pub struct Link {
    /// To the other side.
    pub sender: Sender,
    /// From the other side.
    pub receiver: Receiver,
}

impl Link {
    /// Creates the memory: the creator's end, and the file for the other side's [`Link::open`].
    ///
    /// # Errors
    /// The kernel gives no memory file, or no mapping of it.
    pub fn create() -> Result<(Link, OwnedFd), Errno> {
        let (rings, file) = memory::create()?;
        Ok((Link::over(rings, Side::Creator), file))
    }

    /// The receiver's end, from the file of [`Link::create`].
    ///
    /// # Errors
    /// The file is another one: [`Errno::INVAL`]; or it cannot be mapped.
    pub fn open(file: &OwnedFd) -> Result<Link, Errno> {
        Ok(Link::over(memory::open(file)?, Side::Receiver))
    }

    fn over(rings: [RingMemory; 2], side: Side) -> Link {
        let [one, other] = rings;
        let (to, from) = match side {
            Side::Creator => (one, other),
            Side::Receiver => (other, one),
        };
        Link { sender: Sender(Producer::new(to)), receiver: Receiver(Consumer::new(from)) }
    }
}

impl Sender {
    /// Writes as many of these bytes as there is space for, and returns their number.
    ///
    /// # Errors
    /// The other side has published a count that cannot be.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        self.0.write(bytes)
    }

    /// Whether the reader sleeps and must be woken; asked after [`Sender::write`].
    #[must_use]
    pub fn must_wake_reader(&self) -> bool {
        self.0.must_wake_reader()
    }

    /// Announces that this side waits for space: the reader then finds [`Receiver::must_wake_writer`]. `false`: there is space.
    #[must_use]
    pub fn wait_for_space(&self) -> bool {
        self.0.wait_for_space()
    }

    /// Blocks until there may be space, woken by [`Receiver::wake_writer`]; at most for so long.
    pub fn block_until_space(&self, time: Duration) {
        if self.0.wait_for_space() {
            let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
            // Every way in which it ends has the caller look again.
            let _ = futex::wait(self.0.memory().words().writer_waits(), futex::Flags::empty(), 1, Some(&time));
            self.0.stop_waiting();
        }
    }
}

impl Receiver {
    /// Whether there is nothing to be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends what is there, at most `max` bytes, to `to`, and returns how many they were.
    ///
    /// # Errors
    /// The other side has published a count that cannot be.
    pub fn read(&mut self, to: &mut Vec<u8>, max: usize) -> Result<usize, Broken> {
        self.0.read(to, max)
    }

    /// Whether the writer waits for space and must be woken; asked after [`Receiver::read`].
    #[must_use]
    pub fn must_wake_writer(&self) -> bool {
        self.0.must_wake_writer()
    }

    /// Wakes a writer that is in [`Sender::block_until_space`], if there is one; asked after [`Receiver::read`].
    pub fn wake_writer(&self) {
        if self.0.must_wake_writer() {
            // It fails for addresses that are not mapped, which ours is.
            let _ = futex::wake(self.0.memory().words().writer_waits(), futex::Flags::empty(), 1);
        }
    }

    /// Announces that this side is about to sleep: writers then find [`Sender::must_wake_reader`]. `false`: there is something to
    /// be read.
    #[must_use]
    pub fn sleep(&self) -> bool {
        self.0.sleep()
    }

    /// Takes the announcement back.
    pub fn wake(&self) {
        self.0.wake();
    }
}
