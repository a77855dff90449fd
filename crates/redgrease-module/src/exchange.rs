//! Between the descriptors of workers and the engine: frames and ends of workers become inputs, and output of the
//! engine is written.

use std::os::fd::AsRawFd;
use std::time::Instant;

use redgrease_engine::Input;
use redgrease_engine::input::Stream;
use redgrease_ffi::event_loop::Readiness;

use crate::callbacks::note;
use crate::driver::Driver;
use crate::worker::{Incoming, Rest, Worker};

/// Maximum number of reads of one output, if everything that was written until now is wanted: together more than a pipe
/// holds.
const OUTPUT_READS_MAX: usize = 8;

/// Watches the descriptors of a worker.
///
/// # Errors
/// The loop accepts no further descriptor.
pub fn watch(driver: &Driver, worker: &Worker) -> Result<(), String> {
    let number = worker.number;
    watch_socket(driver, worker)?;
    if let Some(pidfd) = worker.process.pidfd() {
        let fd = pidfd.as_raw_fd();
        let ended = move || {
            note(|due| {
                due.ended.insert(number);
            });
        };
        driver.server.watch(fd, Readiness::Readable, ended)?;
    }
    for stream in [Stream::Out, Stream::Error] {
        let ready = move || {
            note(|due| {
                due.outputs.insert((number, stream));
            });
        };
        driver.server.watch(worker.outputs.fd(stream), Readiness::Readable, ready)?;
    }
    Ok(())
}

/// Watches the connection to a worker.
///
/// # Errors
/// The loop accepts no further descriptor.
pub fn watch_socket(driver: &Driver, worker: &Worker) -> Result<(), String> {
    let number = worker.number;
    driver.server.watch(worker.connection.fd(), Readiness::Readable, move || {
        note(|due| {
            due.readable.insert(number);
        });
    })
}

/// Ends [`watch_socket`].
pub fn unwatch_socket(driver: &Driver, worker: &Worker) {
    driver.server.unwatch(worker.connection.fd(), Readiness::Readable);
}

/// Ends [`watch`].
pub fn unwatch(driver: &Driver, worker: &Worker) {
    unwatch_socket(driver, worker);
    driver.server.unwatch(worker.connection.fd(), Readiness::Writable);
    unwatch_process(driver, worker);
    for stream in [Stream::Out, Stream::Error] {
        driver.server.unwatch(worker.outputs.fd(stream), Readiness::Readable);
    }
}

fn unwatch_process(driver: &Driver, worker: &Worker) {
    if let Some(pidfd) = worker.process.pidfd() {
        driver.server.unwatch(pidfd.as_raw_fd(), Readiness::Readable);
    }
}

/// Takes note of what the socket of a worker shows, once it is readable.
pub fn hear(driver: &Driver, worker: &Worker) {
    if worker.closed.get() || worker.disconnected.get() || !worker.connection.has_rings() {
        return;
    }
    if let Err(reason) = worker.connection.hear() {
        return garbled(driver, worker, reason);
    }
    driver.polled.borrow_mut().insert(worker.number);
    if worker.connection.rest() != Rest::None {
        driver.unwritten.borrow_mut().insert(worker.number);
    }
}

/// Reads what a worker sent, up to a bound, and hands it in.
pub fn receive(driver: &Driver, worker: &Worker) {
    if worker.closed.get() || worker.disconnected.get() {
        return;
    }
    let number = worker.number;
    match worker.connection.read() {
        Incoming::Nothing => {}
        Incoming::Frames(frames) => driver.hand_in(Input::Received { worker: number, frames }),
        Incoming::Closed => {
            disconnect(driver, worker);
            driver.hand_in(Input::ConnectionClosed(number));
        }
        Incoming::Garbled(reason) => garbled(driver, worker, reason),
    }
}

/// What a worker sent cannot be used.
fn garbled(driver: &Driver, worker: &Worker, reason: String) {
    disconnect(driver, worker);
    driver.hand_in(Input::Garbled { worker: worker.number, reason });
}

fn disconnect(driver: &Driver, worker: &Worker) {
    worker.disconnected.set(true);
    unwatch_socket(driver, worker);
}

/// The process of a worker has ended: hands in what it sent and wrote before, and how it ended.
///
/// Unread frames are at most what a socket's buffer holds, so one read takes them all, even if a child that has its
/// socket keeps writing.
pub fn process_ended(driver: &Driver, worker: &Worker) {
    if worker.closed.get() || worker.ended.replace(true) {
        return;
    }
    let number = worker.number;
    if !worker.disconnected.get()
        && let Incoming::Frames(frames) = worker.connection.read()
    {
        driver.hand_in(Input::Received { worker: number, frames });
    }
    disconnect(driver, worker);
    unwatch_process(driver, worker);
    read_outputs(driver, worker);
    driver.hand_in(Input::ProcessEnded { worker: number, how: worker.process.exit_reason() });
}

/// Reads once from an output of a worker, and hands it in. Returns whether there was any.
pub fn read_output(driver: &Driver, worker: &Worker, stream: Stream) -> bool {
    if worker.closed.get() {
        return false;
    }
    let Some(chunk) = worker.outputs.read(stream) else { return false };
    if chunk.ended {
        driver.server.unwatch(worker.outputs.fd(stream), Readiness::Readable);
    }
    driver.hand_in(Input::Output { worker: worker.number, stream, bytes: &chunk.bytes, ended: chunk.ended });
    !chunk.ended
}

/// Hands in all output of a worker until now.
pub fn read_outputs(driver: &Driver, worker: &Worker) {
    for stream in [Stream::Out, Stream::Error] {
        let mut reads = 0;
        while reads < OUTPUT_READS_MAX && read_output(driver, worker, stream) {
            reads += 1;
        }
    }
}

/// Writes the engine's output for a worker, up to a bound; the loop watches for when the worker accepts the rest.
pub fn write(driver: &Driver, worker: &Worker) {
    if worker.closed.get() {
        return;
    }
    let number = worker.number;
    let written = worker.connection.write(|out| driver.change(|engine| engine.take_output(number, out)));
    let waits = written.rest == Rest::WhenWritable;
    let watched = if waits != worker.full.replace(waits) { watch_writable(driver, worker, waits) } else { Ok(()) };
    if written.rest == Rest::NextTurn {
        driver.due.borrow_mut().writable.insert(number);
    }
    if written.bytes > 0 && worker.connection.has_rings() {
        // An answer is expected, which needs no bell.
        worker.connection.wake();
        driver.polled.borrow_mut().insert(number);
        driver.last_written.set(Some(Instant::now()));
    }
    if written.bytes > 0 {
        driver.hand_in(Input::Written { worker: number, bytes: written.bytes });
    }
    if let Err(reason) = watched {
        fail(driver, worker, &reason);
    }
    if let Some(broken) = worker.connection.broken()
        && !worker.disconnected.get()
    {
        garbled(driver, worker, broken.to_string());
    }
}

fn watch_writable(driver: &Driver, worker: &Worker, wanted: bool) -> Result<(), String> {
    let (number, fd) = (worker.number, worker.connection.fd());
    if wanted {
        return driver.server.watch(fd, Readiness::Writable, move || {
            note(|due| {
                due.writable.insert(number);
            });
        });
    }
    driver.server.unwatch(fd, Readiness::Writable);
    Ok(())
}

/// Reports that a worker cannot be used, because its descriptors cannot be watched.
pub fn fail(driver: &Driver, worker: &Worker, reason: &str) {
    driver.hand_in(Input::WorkerFailed { worker: worker.number, reason: format!("was killed: {reason}") });
}
