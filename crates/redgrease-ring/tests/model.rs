//! The ring under loom: every order of the steps of two sides is tried, within loom's bounds.
//!
//! `cargo test -p redgrease-ring --release --features model --test model`

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Notify};
use loom::thread;
use redgrease_ring::protocol::{Consumer, Memory, Producer, Words};

const CAPACITY: usize = 2;

// A bell is a `Notify`: rung once it stays rung until it is heard, like a byte on a socket. One that never rings is a deadlock,
// which loom reports.

/// Memory that reports when a byte is written while it is read.
struct Checked {
    words: Words,
    bytes: [UnsafeCell<u8>; CAPACITY],
}

#[derive(Clone)]
struct Shared(Arc<Checked>);

// SAFETY: loom checks at run time that no access to `bytes` races with another one.
unsafe impl Send for Checked {}
// SAFETY: as above.
unsafe impl Sync for Checked {}

impl Memory for Shared {
    fn words(&self) -> &Words {
        &self.0.words
    }
    fn capacity(&self) -> usize {
        CAPACITY
    }
    fn put(&self, at: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: loom reports a race.
            self.0.bytes[at + index].with_mut(|place| unsafe { *place = *byte });
        }
    }
    fn get(&self, at: usize, len: usize, to: &mut Vec<u8>) {
        for index in 0..len {
            // SAFETY: loom reports a race.
            to.push(self.0.bytes[at + index].with(|place| unsafe { *place }));
        }
    }
}

fn ring() -> (Producer<Shared>, Consumer<Shared>) {
    let memory = Checked { words: Words::default(), bytes: std::array::from_fn(|_| UnsafeCell::new(0)) };
    let memory = Shared(Arc::new(memory));
    (Producer::new(memory.clone()), Consumer::new(memory))
}

fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(4);
    builder.check(check);
}

#[test]
fn a_reader_that_sleeps_is_woken_and_reads_everything() {
    model(|| {
        let (mut producer, mut consumer) = ring();
        let bell = Arc::new(Notify::new());
        let rung = Arc::clone(&bell);
        let writer = thread::spawn(move || {
            for byte in [1, 2] {
                assert_eq!(producer.write(&[byte]), Ok(1));
                if producer.must_wake_reader() {
                    rung.notify();
                }
            }
        });
        let mut read = Vec::new();
        while read.len() < 2 {
            if consumer.read(&mut read, CAPACITY).unwrap() == 0 && consumer.sleep() {
                bell.wait();
                consumer.wake();
            }
        }
        assert_eq!(read, [1, 2]);
        writer.join().unwrap();
    });
}

#[test]
fn a_writer_that_waits_for_space_is_woken() {
    model(|| {
        let (mut producer, mut consumer) = ring();
        let bell = Arc::new(Notify::new());
        let rung = Arc::clone(&bell);
        let filled = Arc::new(Notify::new());
        let fill = Arc::clone(&filled);
        assert_eq!(producer.write(&[1, 2, 3]), Ok(2));
        let writer = thread::spawn(move || {
            while producer.write(&[3]).unwrap() == 0 {
                if producer.wait_for_space() {
                    bell.wait();
                    producer.stop_waiting();
                }
            }
            if producer.must_wake_reader() {
                fill.notify();
            }
        });
        let mut read = Vec::new();
        while read.len() < 3 {
            if consumer.read(&mut read, 1).unwrap() == 0 && consumer.sleep() {
                filled.wait();
                consumer.wake();
            }
            if consumer.must_wake_writer() {
                rung.notify();
            }
        }
        assert_eq!(read, [1, 2, 3]);
        writer.join().unwrap();
    });
}

#[test]
fn bytes_are_not_written_while_they_are_read() {
    model(|| {
        let (mut producer, mut consumer) = ring();
        let writer = thread::spawn(move || {
            let mut sent = 0;
            for byte in 1..=3 {
                sent += producer.write(&[byte]).unwrap();
            }
            sent
        });
        let mut read = Vec::new();
        consumer.read(&mut read, 1).unwrap();
        consumer.read(&mut read, 1).unwrap();
        let sent = writer.join().unwrap();
        consumer.read(&mut read, CAPACITY).unwrap();
        assert_eq!(read.len(), sent);
    });
}
