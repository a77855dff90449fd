//! The connection to the server, as the rest of the worker uses it: when it breaks, the process ends, and in the child of a
//! fork nothing is sent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pyo3::prelude::*;
use redgrease_core::frame::{FromWorker, ToWorker};

use crate::exit::{fatal, kill_self};
use crate::run::{RECORD_BYTES_MAX, Sink};
use crate::transport::{Broken, Inbox, Transport};

/// The transport and the limit that the server announced.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    record_bytes_max: AtomicUsize,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}

impl Connection {
    /// The connection over a blocking stream socket, with the rings that the server offers through it.
    pub fn accept(fd: OwnedFd) -> Connection {
        let transport = Transport::accept(fd).unwrap_or_else(|broken| end(&broken));
        Connection { transport, record_bytes_max: AtomicUsize::new(RECORD_BYTES_MAX) }
    }

    /// How long to poll for what the server sends, before sleeping, in microseconds.
    pub fn set_spin_micros(&self, micros: u64) {
        self.transport.set_spin_micros(micros);
    }

    /// Sets the length of the longest result.
    pub fn set_record_bytes_max(&self, bytes: usize) {
        self.record_bytes_max.store(bytes, Relaxed);
    }

    /// Appends a frame; it leaves with the next flush, at the latest at the watcher's next tick.
    pub fn append(&self, frame: &FromWorker<'_>) {
        // Another thread of the worker may have held the lock when it was forked.
        if crate::child::is_marked() {
            return;
        }
        self.transport.append(frame);
    }

    /// Hands appended frames over without waking the server: see [`Transport::publish`].
    pub fn publish(&self) -> bool {
        crate::child::is_marked() || self.transport.publish().unwrap_or_else(|broken| end(&broken))
    }

    /// Writes appended frames. Blocks: call it only without the GIL.
    pub fn flush(&self) {
        if crate::child::is_marked() {
            return;
        }
        self.transport.flush().unwrap_or_else(|broken| end(&broken));
    }

    /// Writes appended frames unless another thread is writing already.
    pub fn try_flush(&self) {
        self.transport.try_flush().unwrap_or_else(|broken| end(&broken));
    }

    /// Whether appended frames should be written without waiting for further results.
    pub fn is_due(&self) -> bool {
        self.transport.is_due()
    }

    /// Writes appended frames, then blocks until something was received. The caller has the role of the reader.
    pub fn receive(&self) -> Received<'_> {
        Received { inbox: self.transport.receive().unwrap_or_else(|broken| end(&broken)) }
    }
}

impl Sink for Connection {
    fn record_bytes_max(&self) -> usize {
        self.record_bytes_max.load(Relaxed)
    }

    fn output(&self, py: Python<'_>, frame: &FromWorker<'_>) {
        self.append(frame);
        py.detach(|| self.flush());
    }

    fn send(&self, py: Python<'_>, frame: &FromWorker<'_>) {
        self.append(frame);
        if self.is_due() {
            py.detach(|| self.flush());
        }
    }
}

/// What was received.
pub struct Received<'a> {
    inbox: MutexGuard<'a, Inbox>,
}

impl Received<'_> {
    /// The next complete frame.
    pub fn frame(&mut self) -> Option<ToWorker<'_>> {
        let body = self.inbox.frame().unwrap_or_else(|broken| end(&broken))?;
        Some(ToWorker::parse(body).unwrap_or_else(|error| end(&Broken::Protocol(error))))
    }
}

/// Exits: a worker without a connection to its server has no purpose.
fn end(broken: &Broken) -> ! {
    match broken {
        Broken::Closed => kill_self(),
        Broken::Io(error) => fatal(&format!("the connection to the server failed: {error}")),
        Broken::Ring(error) => fatal(&format!("the memory shared with the server is broken: {error}")),
        Broken::Protocol(error) => fatal(&format!("the server sent what is no frame: {error}")),
    }
}
