//! The algorithm of one ring, above any memory: one producer, one consumer.
//!
//! `head` counts the bytes ever written, `tail` those ever read, both modulo 2^64; their difference is what the ring holds.
//! Each side keeps its own count for itself and only publishes it, so that the other side can lie about its own count
//! alone, and a count that cannot be is found by one comparison.

#[cfg(feature = "model")]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(feature = "model"))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// A value on a cache line (two, because processors fetch them in pairs) of its own.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Line<T>(T);

/// The shared words of a ring.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Words {
    head: Line<AtomicU64>,
    tail: Line<AtomicU64>,
    reader_sleeps: Line<AtomicU32>,
    writer_waits: Line<AtomicU32>,
}

impl Words {
    /// 1 while the writer waits for space: what a futex of the writer waits on.
    #[must_use]
    pub fn writer_waits(&self) -> &AtomicU32 {
        &self.writer_waits.0
    }
}

/// The memory of a ring.
pub trait Memory {
    /// The shared words.
    fn words(&self) -> &Words;
    /// Bytes that the ring holds at most: a power of two.
    fn capacity(&self) -> usize;
    /// Copies `bytes` to the place `at`; `at + bytes.len()` is at most the capacity.
    fn put(&self, at: usize, bytes: &[u8]);
    /// Appends `len` bytes of the place `at` to `to`; `at + len` is at most the capacity.
    fn get(&self, at: usize, len: usize, to: &mut Vec<u8>);
}

/// The other side has published a count that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a ring of {capacity} bytes cannot hold {held}: the other side has published a wrong count")]
pub struct Broken {
    /// Bytes that the ring would hold.
    pub held: u64,
    /// Bytes that it can hold.
    pub capacity: usize,
}

fn held(head: u64, tail: u64, capacity: usize) -> Result<usize, Broken> {
    let held = head.wrapping_sub(tail);
    if held <= capacity as u64 { Ok(held as usize) } else { Err(Broken { held, capacity }) }
}

/// Announces with `flag` that this side is about to wait, and looks once more. Returns whether it may wait.
fn may_wait(flag: &AtomicU32, is_ready: impl FnOnce() -> bool) -> bool {
    // A swap, because loom orders two swaps of one flag, and not a store beside a swap.
    flag.swap(1, Ordering::Relaxed);
    // Pairs with the fence in `must_wake`: of two sides that each write and then read what the other has written, one sees it.
    fence(Ordering::SeqCst);
    if is_ready() {
        flag.store(0, Ordering::Relaxed);
        return false;
    }
    true
}

/// Whether the other side has announced with `flag` that it waits. Asked after the publication of what it waits for; at
/// most once for each announcement the answer is yes.
fn must_wake(flag: &AtomicU32) -> bool {
    fence(Ordering::SeqCst);
    flag.load(Ordering::Relaxed) != 0 && flag.swap(0, Ordering::Relaxed) != 0
}

/// The writing end of a ring.
#[derive(Debug)]
pub struct Producer<M> {
    memory: M,
    head: u64,
}

impl<M: Memory> Producer<M> {
    /// The end of a ring to which nothing was written.
    pub fn new(memory: M) -> Producer<M> {
        Producer { memory, head: 0 }
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Writes as many of these bytes as there is space for, and returns their number.
    ///
    /// # Errors
    /// The reader has published a count that cannot be; nothing was written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let capacity = self.memory.capacity();
        let count = bytes.len().min(capacity - self.held()?);
        if count == 0 {
            return Ok(0);
        }
        let at = self.head as usize & (capacity - 1);
        let first = count.min(capacity - at);
        self.memory.put(at, &bytes[..first]);
        self.memory.put(0, &bytes[first..count]);
        self.head = self.head.wrapping_add(count as u64);
        self.memory.words().head.0.store(self.head, Ordering::Release);
        Ok(count)
    }

    /// Whether the reader sleeps and must be woken; asked after [`Producer::write`].
    pub fn must_wake_reader(&self) -> bool {
        must_wake(&self.memory.words().reader_sleeps.0)
    }

    /// Announces that this side waits for space. `false`: there is some.
    pub fn wait_for_space(&self) -> bool {
        // A count that cannot be is found by the next write.
        let has_space = || self.held().is_ok_and(|held| held < self.memory.capacity());
        may_wait(&self.memory.words().writer_waits.0, has_space)
    }

    /// Takes the announcement back.
    pub fn stop_waiting(&self) {
        self.memory.words().writer_waits.0.store(0, Ordering::Relaxed);
    }

    fn held(&self) -> Result<usize, Broken> {
        held(self.head, self.memory.words().tail.0.load(Ordering::Acquire), self.memory.capacity())
    }
}

/// The reading end of a ring.
#[derive(Debug)]
pub struct Consumer<M> {
    memory: M,
    tail: u64,
}

impl<M: Memory> Consumer<M> {
    /// The end of a ring from which nothing was read.
    pub fn new(memory: M) -> Consumer<M> {
        Consumer { memory, tail: 0 }
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Whether there is nothing to be read.
    pub fn is_empty(&self) -> bool {
        self.memory.words().head.0.load(Ordering::Relaxed) == self.tail
    }

    /// Appends what the ring holds, at most `max` bytes, to `to`, and returns how many they were.
    ///
    /// # Errors
    /// The writer has published a count that cannot be; nothing was read.
    pub fn read(&mut self, to: &mut Vec<u8>, max: usize) -> Result<usize, Broken> {
        let capacity = self.memory.capacity();
        let head = self.memory.words().head.0.load(Ordering::Acquire);
        let count = held(head, self.tail, capacity)?.min(max);
        if count == 0 {
            return Ok(0);
        }
        let at = self.tail as usize & (capacity - 1);
        let first = count.min(capacity - at);
        self.memory.get(at, first, to);
        self.memory.get(0, count - first, to);
        self.tail = self.tail.wrapping_add(count as u64);
        self.memory.words().tail.0.store(self.tail, Ordering::Release);
        Ok(count)
    }

    /// Whether the writer waits for space and must be woken; asked after [`Consumer::read`].
    pub fn must_wake_writer(&self) -> bool {
        must_wake(&self.memory.words().writer_waits.0)
    }

    /// Announces that this side is about to sleep. `false`: there is something to be read.
    pub fn sleep(&self) -> bool {
        may_wait(&self.memory.words().reader_sleeps.0, || !self.is_empty())
    }

    /// Takes the announcement back: writers need not wake this side.
    pub fn wake(&self) {
        self.memory.words().reader_sleeps.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    const CAPACITY: usize = 16;

    #[derive(Default)]
    struct Plain {
        words: Words,
        bytes: RefCell<[u8; CAPACITY]>,
    }

    impl Memory for Rc<Plain> {
        fn words(&self) -> &Words {
            &self.words
        }
        fn capacity(&self) -> usize {
            CAPACITY
        }
        fn put(&self, at: usize, bytes: &[u8]) {
            self.bytes.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        }
        fn get(&self, at: usize, len: usize, to: &mut Vec<u8>) {
            to.extend_from_slice(&self.bytes.borrow()[at..at + len]);
        }
    }

    fn ring() -> (Producer<Rc<Plain>>, Consumer<Rc<Plain>>) {
        let memory = Rc::new(Plain::default());
        (Producer::new(Rc::clone(&memory)), Consumer::new(memory))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_in_the_same_order(steps in prop::collection::vec((0_usize..20, 0_usize..20), 0..60)) {
            let (mut producer, mut consumer) = ring();
            let (mut written, mut read) = (Vec::new(), Vec::new());
            let mut next = 0_u8;
            for (write, take) in steps {
                let bytes: Vec<u8> = (0..write).map(|index| next.wrapping_add(index as u8)).collect();
                let free = CAPACITY - (written.len() - read.len());
                let count = producer.write(&bytes).unwrap();
                prop_assert_eq!(count, write.min(free));
                written.extend_from_slice(&bytes[..count]);
                next = next.wrapping_add(count as u8);
                let there = written.len() - read.len();
                prop_assert_eq!(consumer.read(&mut read, take).unwrap(), take.min(there));
                prop_assert_eq!(consumer.is_empty(), read.len() == written.len());
            }
            prop_assert!(written.starts_with(&read));
        }

        #[test]
        fn a_count_that_cannot_be_is_refused(lie: u64) {
            let (mut producer, mut consumer) = ring();
            prop_assert_eq!(producer.write(b"abc"), Ok(3));
            consumer.memory().words.head.0.store(lie, Ordering::Relaxed);
            let mut to = Vec::new();
            let read = consumer.read(&mut to, usize::MAX);
            prop_assert_eq!(read.is_ok(), lie <= CAPACITY as u64, "{:?}", read);
            prop_assert!(to.len() <= CAPACITY && (read.is_ok() || to.is_empty()));
            producer.memory().words.tail.0.store(lie, Ordering::Relaxed);
            let written = producer.write(b"abc");
            prop_assert_eq!(written.is_ok(), 3_u64.wrapping_sub(lie) <= CAPACITY as u64, "{:?}", written);
        }
    }

    #[test]
    fn a_sleeping_reader_is_woken_once_and_a_ring_with_bytes_is_not_slept_on() {
        let (mut producer, mut consumer) = ring();
        assert!(!producer.must_wake_reader(), "no reader sleeps");
        assert!(consumer.sleep());
        producer.write(b"a").unwrap();
        assert!(producer.must_wake_reader() && !producer.must_wake_reader());
        assert!(!consumer.sleep() && !producer.must_wake_reader());
        consumer.read(&mut Vec::new(), 1).unwrap();
        assert!(consumer.sleep());
        consumer.wake();
        assert!(!producer.must_wake_reader());
    }

    #[test]
    fn a_writer_that_waits_for_space_is_woken_once() {
        let (mut producer, mut consumer) = ring();
        assert!(!producer.wait_for_space());
        assert_eq!(producer.write(&[7; 20]), Ok(CAPACITY));
        assert!(producer.wait_for_space());
        consumer.read(&mut Vec::new(), 1).unwrap();
        assert!(consumer.must_wake_writer() && !consumer.must_wake_writer());
        assert!(!producer.wait_for_space());
    }
}
