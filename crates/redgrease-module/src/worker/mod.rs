//! One worker: its process, its connection and its outputs. Bytes go out, frames and lines come in, and the process is ended
//! on request.

mod connection;
mod output;
mod process;

use std::cell::Cell;
use std::time::Duration;

use redgrease_core::id::WorkerNo;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::spawner::Spawned;
use crate::spin::Spin;

pub use connection::{Incoming, Rest};

use connection::Connection;
use output::Outputs;
use process::Process;

/// Longest pause between two looks at a process that has no pidfd.
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(5);

/// How long a wait looks at the connection alone.
const FIRST_LOOK: Duration = Duration::from_millis(1);

/// A worker.
pub struct Worker {
    /// Its number.
    pub number: WorkerNo,
    /// Its process.
    pub process: Process,
    /// The connection to it.
    pub connection: Connection,
    /// Its standard output and error.
    pub outputs: Outputs,
    /// It is forgotten: nothing is read from it or written to it.
    pub closed: Cell<bool>,
    /// Its end of the connection is closed, or what it sent cannot be read: nothing more is read from it.
    pub disconnected: Cell<bool>,
    /// The end of its process was handed in.
    pub ended: Cell<bool>,
    /// It was asked to end.
    pub killed: Cell<bool>,
    /// The engine does not want its frames for now.
    pub paused: Cell<bool>,
    /// It takes no more output for now: the loop watches for when it does.
    pub full: Cell<bool>,
}

/// What a wait for a worker found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// Its connection has something to be read, or a bell was rung, or it was closed.
    pub readable: bool,
    /// Its process has ended.
    pub ended: bool,
    /// Its standard output and error have something to read.
    pub outputs: [bool; 2],
}

impl Worker {
    /// Takes a process over.
    pub fn new(number: WorkerNo, spawned: Spawned) -> Worker {
        Worker {
            number,
            process: Process::new(spawned.child, spawned.pidfd),
            connection: Connection::new(spawned.socket, spawned.rings),
            outputs: Outputs::new(spawned.output),
            closed: Cell::new(false),
            disconnected: Cell::new(false),
            ended: Cell::new(false),
            killed: Cell::new(false),
            paused: Cell::new(false),
            full: Cell::new(false),
        }
    }

    /// Waits until there are news of it, at most for so long. It first polls for a short time, because mostly an answer comes
    /// at once.
    pub fn wait(&self, time: Duration, spin: &Spin) -> News {
        const READABLE: News = News { readable: true, ended: false, outputs: [false, false] };
        let rest = self.connection.rest();
        if rest == Rest::NextTurn {
            return News { readable: false, ended: false, outputs: [false, false] };
        }
        if !self.disconnected.get() {
            if spin.until(time, || self.connection.is_readable()) || !self.connection.sleep() {
                return READABLE;
            }
            // One descriptor is looked at in a fraction of the time that all of them take.
            if rest != Rest::WhenWritable {
                let time = timespec(time.min(FIRST_LOOK));
                let mut connection = [PollFd::new(&self.connection, PollFlags::IN)];
                if matches!(poll(&mut connection, Some(&time)), Ok(count) if count > 0) {
                    return READABLE;
                }
            }
        }
        let [out, error] = self.outputs.open();
        let connection = (!self.disconnected.get()).then(|| {
            let wanted = if rest == Rest::WhenWritable { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            PollFd::new(&self.connection, wanted)
        });
        let pidfd = self.process.pidfd();
        let watched = [
            connection,
            pidfd.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            out.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            error.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        ];
        let present: [bool; 4] = [0, 1, 2, 3].map(|index: usize| watched[index].is_some());
        let mut fds: Vec<PollFd<'_>> = watched.into_iter().flatten().collect();
        let time = if pidfd.is_some() { time } else { time.min(LOOK_PAUSE_MAX) };
        let time = timespec(time);
        // An interrupted wait has no news; the caller waits again.
        let any = matches!(poll(&mut fds, Some(&time)), Ok(count) if count > 0);
        let mut events = fds.iter().map(PollFd::revents);
        let mut ready = present.map(|present| {
            let events = if present { events.next().unwrap_or(PollFlags::empty()) } else { PollFlags::empty() };
            any && events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
        });
        if pidfd.is_none() {
            ready[1] = self.process.has_ended();
        }
        News { readable: ready[0], ended: ready[1], outputs: [ready[2], ready[3]] }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}
