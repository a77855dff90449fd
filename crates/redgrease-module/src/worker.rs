//! One worker process: its socket, its output, its end.
//!
//! Nothing here decides anything: bytes go out, frames and lines come in, and the process is ended on request.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use redgrease_core::frame::{FRAME_BYTES_MAX, ToWorker, split};
use redgrease_core::id::WorkerNo;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::spawner::Spawned;

/// Bytes read from a worker in one turn of the server's loop.
const READ_BYTES_PER_TURN: usize = 1 << 20;

/// Bytes written to a worker in one go.
const WRITE_BYTES_PER_TURN: usize = 512 << 10;

/// Bytes asked for with one read.
const CHUNK_BYTES: usize = 64 << 10;

thread_local! {
    static CHUNK: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK_BYTES]);
}

/// Bytes of a worker's output that go to the log per second; the rest is counted and dropped.
const LOG_BYTES_PER_S: usize = 64 << 10;

/// Bytes of frames that are kept while the main thread waits, and their number.
const BACKLOG_BYTES_MAX: usize = 64 << 20;
const BACKLOG_FRAMES_MAX: usize = 10_000;

/// Bytes that a worker may leave unread before its frames wait: what it asks for is not served until it reads.
const UNREAD_BYTES_MAX: usize = 4 << 20;

/// Bytes of frames that are read while they wait; more stay in the socket.
const UNHANDLED_BYTES_MAX: usize = 64 << 20;

/// Bytes written that are kept at the front of the outgoing buffer before the rest is moved there.
const SENT_BYTES_MAX: usize = 1 << 20;

/// Looks in a row after which a worker that owes an answer and makes no progress is ended.
pub const IDLE_LOOKS_MAX: u32 = 10;

/// What one line costs besides its bytes.
const LINE_COST_BYTES: usize = 100;

/// Bytes that functions of one worker may log per second with `log()`.
const FUNCTION_LOG_BYTES_PER_S: usize = 1 << 20;

/// Seconds in which a supervisor must have ended everything that its worker started; then it is killed itself.
const SUPERVISOR_END_S_MAX: i64 = 10;

/// A line of output is cut to this many bytes.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Whole frames, cut out of what was read.
pub struct Frames {
    bytes: Vec<u8>,
    at: usize,
}

impl Frames {
    /// Bytes of frames that were not taken yet.
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The body of the next frame.
    pub fn next_body(&mut self) -> Option<&[u8]> {
        // What stands here was checked by `Worker::read`.
        let (body, taken) = split(&self.bytes[self.at..]).ok()??;
        let start = self.at + (taken - body.len());
        self.at += taken;
        Some(&self.bytes[start..self.at])
    }
}

/// What reading brought.
pub enum Incoming {
    /// So far nothing whole.
    Nothing,
    /// Frames.
    Frames(Frames),
    /// The other end is closed.
    Closed,
    /// What came is not our protocol.
    Broken(String),
}

/// So many bytes of text per second; the rest is counted and dropped.
#[derive(Default)]
struct Rate {
    window_start: Option<Instant>,
    spent: usize,
    dropped: usize,
}

impl Rate {
    /// Begins a new second if it is time; returns how many bytes were dropped in the last one.
    fn turn(&mut self) -> usize {
        let over = self.window_start.is_none_or(|start| start.elapsed() >= Duration::from_secs(1));
        if !over {
            return 0;
        }
        let dropped = self.dropped;
        *self = Rate { window_start: Some(Instant::now()), spent: 0, dropped: 0 };
        dropped
    }

    fn admits(&mut self, bytes: usize, limit: usize) -> bool {
        let admitted = self.spent + bytes <= limit;
        if admitted {
            self.spent += bytes;
        } else {
            self.dropped += bytes;
        }
        admitted
    }
}

#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    last_read: Option<Instant>,
    rate: Rate,
}

/// Bytes on their way to a worker.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    /// How many of them were written.
    sent: usize,
    /// How many were ever written.
    total: u64,
}

impl Out {
    /// Gives up what was written, in time linear in what was.
    fn compact(&mut self) {
        if self.sent == self.bytes.len() {
            self.sent = 0;
            self.bytes.clear();
            if self.bytes.capacity() > 1 << 20 {
                self.bytes = Vec::new();
            }
        } else if self.sent > SENT_BYTES_MAX && self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// How far a worker was when it was looked at.
#[derive(Default, PartialEq, Eq, Clone, Copy)]
struct Look {
    received: usize,
    sent: u64,
    /// Looks in a row that found it stopped, a frame not finished, or bytes not read, and no progress.
    idle: u32,
}

/// A worker process.
pub struct Worker {
    /// Its number.
    pub number: WorkerNo,
    /// Its process id: that of its supervisor until the handshake.
    pid: Cell<u32>,
    /// Stands for the process that runs user code, after the handshake and where the kernel has pidfds.
    main_pidfd: RefCell<Option<OwnedFd>>,
    /// It finished its handshake.
    pub ready: Cell<bool>,
    /// Nothing is read from it or sent to it any more.
    pub closed: Cell<bool>,
    /// Its socket is not watched: what it sent has to be handled first.
    pub unwatched: Cell<bool>,
    /// Its process has ended: nothing more is read from it.
    pub ending: Cell<bool>,
    /// Frames that were read and not handled, oldest first, and their bytes.
    unhandled: RefCell<VecDeque<Frames>>,
    unhandled_bytes: Cell<usize>,
    /// What the last look at its progress found.
    look: RefCell<Look>,
    /// Frames that named what lives in another worker.
    pub foreign_frames: Cell<u32>,
    /// Frames of others that came while the main thread waited for one execution.
    backlog: RefCell<VecDeque<Vec<u8>>>,
    /// What it said last about the script that it runs: for its log lines.
    pub session_name: RefCell<String>,
    child: RefCell<Child>,
    socket: OwnedFd,
    pidfd: Option<OwnedFd>,
    output: [OwnedFd; 2],
    lines: [RefCell<Lines>; 2],
    log_rate: RefCell<Rate>,
    out: RefCell<Out>,
    incoming: RefCell<Vec<u8>>,
    /// The last line that it wrote to standard error.
    pub last_words: RefCell<String>,
    /// Why we ended it, if we did.
    verdict: RefCell<Option<String>>,
}

impl Worker {
    /// Takes a new process over.
    pub fn new(number: WorkerNo, spawned: Spawned) -> Worker {
        Worker {
            number,
            pid: Cell::new(spawned.child.id()),
            main_pidfd: RefCell::default(),
            ready: Cell::new(false),
            closed: Cell::new(false),
            unwatched: Cell::new(false),
            ending: Cell::new(false),
            unhandled: RefCell::default(),
            unhandled_bytes: Cell::new(0),
            look: RefCell::default(),
            foreign_frames: Cell::new(0),
            backlog: RefCell::default(),
            session_name: RefCell::default(),
            child: RefCell::new(spawned.child),
            socket: spawned.socket,
            pidfd: spawned.pidfd,
            output: spawned.output,
            lines: Default::default(),
            log_rate: RefCell::default(),
            out: RefCell::default(),
            incoming: RefCell::default(),
            last_words: RefCell::default(),
            verdict: RefCell::default(),
        }
    }

    /// Its process id: that of its supervisor until the handshake.
    pub fn pid(&self) -> u32 {
        self.pid.get()
    }

    /// Takes the process id that it names in its handshake, before any user code runs in it.
    ///
    /// # Errors
    /// That process is no child of the supervisor.
    pub fn set_pid(&self, pid: u64) -> Result<(), String> {
        let named = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // Opened before the look at its parent, so that both concern the same process.
        let pidfd = named.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if named.is_none() || !self.is_child_of_supervisor(pid) {
            let supervisor = self.child.borrow().id();
            return Err(format!("it names the process id {pid}, whose parent is not its supervisor {supervisor}"));
        }
        self.pid.set(pid as u32);
        *self.main_pidfd.borrow_mut() = pidfd;
        Ok(())
    }

    /// Keeps a frame that cannot be handled now; `false` when too much is kept already.
    pub fn keep_for_later(&self, body: &[u8]) -> bool {
        let mut backlog = self.backlog.borrow_mut();
        let fits = backlog.iter().map(Vec::len).sum::<usize>() + body.len() <= BACKLOG_BYTES_MAX
            && backlog.len() < BACKLOG_FRAMES_MAX;
        if fits {
            backlog.push_back(body.to_vec());
        }
        fits
    }

    /// The first of the frames that were kept and are wanted.
    pub fn take_kept(&self, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let mut backlog = self.backlog.borrow_mut();
        let position = backlog.iter().position(|body| wanted(body))?;
        backlog.remove(position)
    }

    /// Whether frames were kept.
    pub fn has_kept(&self) -> bool {
        !self.backlog.borrow().is_empty()
    }

    /// Descriptor of its socket.
    pub fn socket_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Descriptor that is readable once the process has ended.
    pub fn pid_fd(&self) -> Option<RawFd> {
        self.pidfd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Descriptors of its standard output and error.
    pub fn output_fds(&self) -> [RawFd; 2] {
        [self.output[0].as_raw_fd(), self.output[1].as_raw_fd()]
    }

    /// Puts a frame into the outgoing buffer; returns whether the buffer was empty before.
    pub fn send(&self, frame: &ToWorker<'_>) -> bool {
        let mut out = self.out.borrow_mut();
        let first = out.bytes.is_empty();
        if !self.closed.get() {
            frame.write(&mut out.bytes);
        }
        first
    }

    /// Bytes that wait to be written.
    pub fn unsent(&self) -> usize {
        let out = self.out.borrow();
        out.bytes.len() - out.sent
    }

    /// Whether it left so much unread that its frames wait.
    pub fn is_congested(&self) -> bool {
        self.unsent() > UNREAD_BYTES_MAX && !self.ending.get()
    }

    /// Writes what the socket takes, up to a bound: a worker that reads meanwhile could keep the main thread for long. Returns
    /// whether something is left. A closed socket shows when reading.
    pub fn flush(&self) -> bool {
        let mut out = self.out.borrow_mut();
        let end = out.bytes.len().min(out.sent + WRITE_BYTES_PER_TURN);
        while out.sent < end {
            match rustix::net::send(&self.socket, &out.bytes[out.sent..end], rustix::net::SendFlags::NOSIGNAL) {
                Ok(0) => break,
                Ok(count) => {
                    out.sent += count;
                    out.total += count as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => {
                    out.sent = out.bytes.len();
                    break;
                }
            }
        }
        out.compact();
        !out.bytes.is_empty()
    }

    /// Adds frames that were read to those that are not handled.
    pub fn add_unhandled(&self, frames: Frames) {
        self.unhandled_bytes.set(self.unhandled_bytes.get() + frames.left());
        self.unhandled.borrow_mut().push_back(frames);
    }

    /// The oldest frames that are not handled; what is left of them goes back with [`Worker::put_back`].
    pub fn take_unhandled(&self) -> Option<Frames> {
        let frames = self.unhandled.borrow_mut().pop_front()?;
        self.unhandled_bytes.set(self.unhandled_bytes.get() - frames.left());
        Some(frames)
    }

    /// Puts frames back that [`Worker::take_unhandled`] took.
    pub fn put_back(&self, frames: Frames) {
        if frames.left() > 0 {
            self.unhandled_bytes.set(self.unhandled_bytes.get() + frames.left());
            self.unhandled.borrow_mut().push_front(frames);
        }
    }

    /// Whether frames were read and not handled.
    pub fn has_unhandled(&self) -> bool {
        !self.unhandled.borrow().is_empty()
    }

    /// Whether more may be read before frames are handled.
    pub fn may_read_ahead(&self) -> bool {
        self.unhandled_bytes.get() < UNHANDLED_BYTES_MAX
    }

    /// Looks whether it makes progress, [`IDLE_LOOKS_MAX`] times per `WorkerStallMax`; `owes`: an answer is waited for. Returns
    /// what it did all that time when it made none.
    pub fn look(&self, owes: bool) -> Option<String> {
        let unfinished = self.incoming.borrow().len();
        let mut look = self.look.borrow_mut();
        let stopped = owes && crate::memory::is_stopped(self.pid());
        let now = Look { received: unfinished, sent: self.out.borrow().total, idle: look.idle + 1 };
        let moves = (now.received, now.sent) != (look.received, look.sent) && !stopped;
        let waits = stopped || (unfinished > 0 && !self.has_unhandled()) || self.is_congested();
        *look = if moves || !waits { Look { idle: 0, ..now } } else { now };
        if look.idle < IDLE_LOOKS_MAX {
            return None;
        }
        Some(match () {
            () if stopped => "it was stopped by a signal".to_owned(),
            () if unfinished > 0 => "a frame that it began was not finished".to_owned(),
            () => format!("it left {} bytes unread", self.unsent()),
        })
    }

    /// Reads what is there, up to a bound, and cuts whole frames out of it.
    pub fn read(&self) -> Incoming {
        let mut buffer = self.incoming.borrow_mut();
        let mut total = 0;
        let mut closed = false;
        while total < READ_BYTES_PER_TURN {
            let result = CHUNK.with_borrow_mut(|chunk| {
                let count = rustix::io::read(&self.socket, &mut chunk[..])?;
                buffer.extend_from_slice(&chunk[..count]);
                Ok(count)
            });
            match result {
                Ok(CHUNK_BYTES) => total += CHUNK_BYTES,
                Ok(0) => closed = true,
                Ok(_) | Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => closed = true,
            }
            if closed {
                break;
            }
        }
        let mut whole = 0;
        loop {
            match split(&buffer[whole..]) {
                Ok(Some((_, taken))) => whole += taken,
                Ok(None) => break,
                Err(error) => return Incoming::Broken(error.to_string()),
            }
        }
        debug_assert!(buffer.len() - whole <= FRAME_BYTES_MAX + 4);
        if whole == 0 {
            return if closed { Incoming::Closed } else { Incoming::Nothing };
        }
        let rest = buffer.split_off(whole);
        let bytes = std::mem::replace(&mut *buffer, rest);
        // When the end came with frames before it, the next read says so again.
        Incoming::Frames(Frames { bytes, at: 0 })
    }

    /// Waits until its socket or its process has news; `false` at the deadline.
    pub fn wait(&self, time: Duration) -> bool {
        let time = rustix::time::Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        let wanted = if self.unsent() > 0 { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut fds = vec![PollFd::new(&self.socket, wanted)];
        if let Some(pidfd) = &self.pidfd {
            fds.push(PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN));
        }
        matches!(poll(&mut fds, Some(&time)), Ok(count) if count > 0)
    }

    /// The lines that it wrote to standard output (0) or error (1) since the last call.
    pub fn output_lines(&self, stream: usize) -> (Vec<String>, bool) {
        let mut state = self.lines[stream].borrow_mut();
        let mut chunk = [0; 16 << 10];
        let mut lines = Vec::new();
        let count = match rustix::io::read(&self.output[stream], &mut chunk) {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return (lines, true),
            Err(_) => 0,
        };
        let ended = count == 0;
        state.last_read = Some(Instant::now());
        lines.extend(dropped_note(state.rate.turn(), LOG_BYTES_PER_S));
        let mut take = |state: &mut Lines, line: &[u8]| {
            if state.rate.admits(line.len() + LINE_COST_BYTES, LOG_BYTES_PER_S) {
                lines.push(String::from_utf8_lossy(line).into_owned());
            }
        };
        for part in chunk[..count].split_inclusive(|byte| *byte == b'\n') {
            state.partial.extend_from_slice(part);
            if part.ends_with(b"\n") || state.partial.len() >= LINE_BYTES_MAX {
                let mut line = std::mem::take(&mut state.partial);
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                take(&mut state, &line);
            }
        }
        if ended && !state.partial.is_empty() {
            let line = std::mem::take(&mut state.partial);
            take(&mut state, &line);
        }
        (lines, !ended)
    }

    /// Begins a new second for an output (another session must not pay for this one); says what was dropped.
    pub fn renew_rate(&self, stream: usize) -> Option<String> {
        let rate = std::mem::take(&mut self.lines[stream].borrow_mut().rate);
        dropped_note(rate.dropped, LOG_BYTES_PER_S)
    }

    /// Whether another line that a function logs may go to the server's log, and what to say of those that could not.
    pub fn admits_log(&self, message: &[u8]) -> (bool, Option<String>) {
        let lines = 1 + message.iter().filter(|byte| **byte == b'\n').count();
        let bytes = message.len() + lines * LINE_COST_BYTES;
        let mut rate = self.log_rate.borrow_mut();
        let note = dropped_note(rate.turn(), FUNCTION_LOG_BYTES_PER_S);
        (rate.admits(bytes, FUNCTION_LOG_BYTES_PER_S), note)
    }

    /// Whether the last line of an output has no end yet.
    pub fn has_unfinished_line(&self, stream: usize) -> bool {
        !self.lines[stream].borrow().partial.is_empty()
    }

    /// The line without end, if nothing has been added to it for so long.
    pub fn take_unfinished_line(&self, stream: usize, silence: Duration) -> Option<String> {
        let mut state = self.lines[stream].borrow_mut();
        let silent = state.last_read.is_none_or(|last| last.elapsed() >= silence);
        let line = if silent { std::mem::take(&mut state.partial) } else { Vec::new() };
        (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned())
    }

    /// Ends the process; its supervisor then ends everything that it started. The reason is told by [`Worker::fate`].
    ///
    /// Signals go to processes that cannot be others: an unreaped child of ours, or what a pidfd stands for. The number of
    /// a process that its supervisor has reaped may belong to another process by now.
    pub fn kill(&self, reason: Option<&str>) {
        if let Some(reason) = reason {
            self.verdict.borrow_mut().get_or_insert_with(|| reason.to_owned());
        }
        if self.has_ended() {
            return;
        }
        if !self.ready.get() {
            // No user code has run, and a worker without a supervisor is ended by the kernel.
            let _ = self.child.borrow_mut().kill();
        } else if let Some(pidfd) = &*self.main_pidfd.borrow() {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        } else if let Some(pid) = Pid::from_raw(self.pid() as i32)
            && self.is_child_of_supervisor(u64::from(self.pid()))
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    fn is_child_of_supervisor(&self, pid: u64) -> bool {
        crate::memory::parent_of(pid) == Some(u64::from(self.child.borrow().id()))
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        match self.child.borrow_mut().try_wait() {
            Ok(status) => status.is_some(),
            Err(_) => true,
        }
    }

    /// Ends the process unless it has ended by itself, so that its own signal or status is what is told.
    pub fn kill_if_alive(&self, reason: Option<&str>) {
        if self.has_ended() {
            self.kill(None);
        } else if reason.is_some() {
            self.kill(reason);
        } else {
            // Its socket is closed: usually the process is just ending.
            let ended = crate::memory::is_gone(self.pid());
            if self.ends_within(Duration::from_millis(if ended { 500 } else { 50 })) {
                self.kill(None);
            } else {
                self.kill(Some("was killed: it closed its connection to the server"));
            }
        }
    }

    fn ends_within(&self, time: Duration) -> bool {
        if let Some(pidfd) = &self.pidfd {
            let time = rustix::time::Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
            let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&time));
        }
        self.has_ended()
    }

    /// Waits a moment for the process to end and says why it did: the verdict first, else signal or status.
    pub fn fate(&self) -> String {
        if let Some(verdict) = &*self.verdict.borrow() {
            return verdict.clone();
        }
        let deadline = Instant::now() + Duration::from_millis(20);
        let status = loop {
            match self.child.borrow_mut().try_wait() {
                Ok(Some(status)) => break Some(status),
                // The server's own wait for its children may have been faster.
                Err(_) => break None,
                Ok(None) if Instant::now() >= deadline => break None,
                Ok(None) => {
                    let Some(pidfd) = &self.pidfd else { break None };
                    let time = rustix::time::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
                    let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&time));
                }
            }
        };
        status.map_or_else(|| "ended".to_owned(), describe)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill(None);
        if self.has_ended() {
            return;
        }
        // Killed, but not gone yet: its status must be taken, and the main thread must not wait for it.
        let (pid, pidfd) = (self.child.borrow().id(), self.pidfd.take());
        let reap = move || {
            if let Some(pidfd) = pidfd {
                let time = rustix::time::Timespec { tv_sec: SUPERVISOR_END_S_MAX, tv_nsec: 0 };
                let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time));
                if !matches!(ended, Ok(count) if count > 0) {
                    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                }
            }
            if let Some(pid) = Pid::from_raw(pid as i32) {
                let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            }
        };
        let _ = std::thread::Builder::new().name("rg-reaper".into()).spawn(reap);
    }
}

fn dropped_note(dropped: usize, limit: usize) -> Option<String> {
    (dropped > 0).then(|| format!("({dropped} bytes were dropped: more than {limit} in a second)"))
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}{}", signal_name(signal)),
        (None, Some(code)) => format!("exited with status {code}"),
        (None, None) => "ended".to_owned(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}
