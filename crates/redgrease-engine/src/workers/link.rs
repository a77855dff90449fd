//! The connection with one worker: outgoing frames, unhandled incoming frames, and progress.

use redgrease_core::frame::{Subject, ToWorker};
use redgrease_core::id::WorkerNo;

use crate::calls::caller::Caller;
use crate::frames::Frames;
use crate::input::Stream;
use crate::limits::{IDLE_LOOKS_MAX, KEPT_BYTES_MAX, KEPT_FRAMES_MAX, UNHANDLED_BYTES_MAX, UNREAD_BYTES_MAX};
use crate::prelude::*;
use crate::workers::output::{Lines, Rate};

/// The status of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its process runs, its handshake is not finished.
    Starting,
    /// It serves sessions.
    Ready,
}

/// The status of its process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Process {
    /// Its connection is open.
    Connected,
    /// It closed its connection; its process is about to end.
    Closed {
        /// When.
        at_ms: u64,
    },
    /// It has ended; what it sent before is still handled.
    Ended {
        /// How, if known.
        how: Option<String>,
    },
}

/// The progress of a worker at a check.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    received: u64,
    written: u64,
    /// Checks in a row that found it stopped, with an unfinished frame or unread bytes, and without progress.
    idle: u32,
}

/// A frame that was kept, and its subject.
#[derive(Debug)]
struct Kept {
    subject: Option<Subject>,
    body: Vec<u8>,
}

/// One worker.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its process id: that of its supervisor until the handshake.
    pub(crate) pid: u32,
    /// Its status.
    pub(crate) stage: Stage,
    /// Its process.
    pub(crate) process: Process,
    /// It is being ended: its frames are no longer handled.
    pub(crate) closing: bool,
    /// Nothing is read from it: its frames have to be handled first.
    pub(crate) paused: bool,
    /// Version of its interpreter; empty before the handshake.
    pub(crate) python: String,
    /// What the kernel keeps it from doing; empty before the handshake.
    pub(crate) isolation: String,
    /// Number of frames that named objects of another worker.
    pub(crate) foreign_frames: u32,
    /// The session that it serves, for log lines.
    pub(crate) session_name: Rc<str>,
    /// The last line that it wrote to standard error.
    pub(crate) last_stderr_line: String,
    /// The rate limit of its functions' log lines.
    pub(crate) log_rate: Rate,
    outputs: [Lines; 2],
    unhandled: VecDeque<Frames>,
    unhandled_bytes: usize,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    out: Vec<u8>,
    /// Bytes that the driver took and has not written yet.
    unwritten: u64,
    written: u64,
    look: Look,
}

impl Link {
    /// A worker whose process was started.
    pub(crate) fn new(pid: u32) -> Link {
        Link {
            pid,
            stage: Stage::Starting,
            process: Process::Connected,
            closing: false,
            paused: false,
            python: String::new(),
            isolation: String::new(),
            foreign_frames: 0,
            session_name: "".into(),
            last_stderr_line: String::new(),
            log_rate: Rate::default(),
            outputs: Default::default(),
            unhandled: VecDeque::new(),
            unhandled_bytes: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            out: Vec::new(),
            unwritten: 0,
            written: 0,
            look: Look::default(),
        }
    }

    /// Whether it finished its handshake.
    pub(crate) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// One of its outputs.
    pub(crate) fn output(&mut self, stream: Stream) -> &mut Lines {
        &mut self.outputs[stream as usize]
    }

    /// Adds a frame to the outgoing buffer; returns whether the driver must be notified.
    pub(crate) fn send(&mut self, frame: &ToWorker<'_>) -> bool {
        let first = self.out.is_empty();
        frame.write(&mut self.out);
        first
    }

    /// Appends the outgoing frames to `out`.
    pub(crate) fn take_output(&mut self, out: &mut Vec<u8>) {
        self.unwritten += self.out.len() as u64;
        if out.is_empty() {
            core::mem::swap(out, &mut self.out);
        } else {
            out.append(&mut self.out);
        }
    }

    /// The driver wrote this many bytes.
    pub(crate) fn wrote(&mut self, bytes: u64) {
        self.unwritten = self.unwritten.saturating_sub(bytes);
        self.written += bytes;
    }

    /// Bytes that wait to be written.
    pub(crate) fn unsent(&self) -> u64 {
        self.out.len() as u64 + self.unwritten
    }

    /// Whether it left so much unread that its frames wait.
    pub(crate) fn is_congested(&self) -> bool {
        self.unsent() > UNREAD_BYTES_MAX && !matches!(self.process, Process::Ended { .. })
    }

    /// Adds frames that were read. `keep`: the main thread waits for this worker, or older frames are kept; returns
    /// whether they fitted.
    pub(crate) fn receive(&mut self, mut frames: Frames, waiting: bool) -> bool {
        if !waiting && self.kept.is_empty() {
            self.unhandled_bytes += frames.left();
            self.unhandled.push_back(frames);
            return true;
        }
        while let Some(body) = frames.next_body() {
            if self.kept_bytes + body.len() > KEPT_BYTES_MAX || self.kept.len() >= KEPT_FRAMES_MAX {
                return false;
            }
            self.kept_bytes += body.len();
            self.kept.push_back(Kept { subject: Subject::of(body).ok(), body: body.to_vec() });
        }
        true
    }

    /// Takes the oldest frames that are not handled; the rest of them is returned with [`Link::put_back`].
    pub(crate) fn take_unhandled(&mut self) -> Option<Frames> {
        let frames = self.unhandled.pop_front()?;
        self.unhandled_bytes -= frames.left();
        Some(frames)
    }

    /// Puts frames back that [`Link::take_unhandled`] took.
    pub(crate) fn put_back(&mut self, frames: Frames) {
        if frames.left() > 0 {
            self.unhandled_bytes += frames.left();
            self.unhandled.push_front(frames);
        }
    }

    /// The oldest frame that was kept.
    pub(crate) fn take_kept(&mut self) -> Option<Vec<u8>> {
        let kept = self.kept.pop_front()?;
        self.kept_bytes -= kept.body.len();
        Some(kept.body)
    }

    /// The oldest of the kept frames that concern the code that is waited for.
    pub(crate) fn take_kept_for(&mut self, caller: Caller) -> Option<Vec<u8>> {
        let position = self.kept.iter().position(|kept| concerns(kept.subject, caller))?;
        let kept = self.kept.remove(position)?;
        self.kept_bytes -= kept.body.len();
        Some(kept.body)
    }

    /// Whether a kept frame concerns the code that is waited for.
    pub(crate) fn has_kept_for(&self, caller: Caller) -> bool {
        self.kept.iter().any(|kept| concerns(kept.subject, caller))
    }

    /// Whether frames were read and not handled.
    pub(crate) fn has_frames(&self) -> bool {
        !self.unhandled.is_empty() || !self.kept.is_empty()
    }

    /// Number and bytes of the kept frames.
    #[cfg(feature = "simulation")]
    pub(crate) fn kept_size(&self) -> (usize, usize) {
        (self.kept.len(), self.kept_bytes)
    }

    /// Whether more may be read before the waiting frames are handled: only if it left much unread, so that it can
    /// finish what it writes, and then read.
    pub(crate) fn may_read_ahead(&self) -> bool {
        self.unhandled_bytes < UNHANDLED_BYTES_MAX && self.kept.is_empty()
    }

    /// Checks for progress, [`IDLE_LOOKS_MAX`] times per `WorkerStallMax`. Returns its state during that time if
    /// there was none.
    pub(crate) fn look(&mut self, unfinished_bytes: u64, stopped: bool) -> Option<String> {
        let look = Look { received: unfinished_bytes, written: self.written, idle: self.look.idle + 1 };
        let moves = (look.received, look.written) != (self.look.received, self.look.written) && !stopped;
        let waits = stopped || (unfinished_bytes > 0 && self.unhandled.is_empty()) || self.is_congested();
        self.look = if moves || !waits { Look { idle: 0, ..look } } else { look };
        if self.look.idle < IDLE_LOOKS_MAX {
            return None;
        }
        Some(match () {
            () if stopped => "it was stopped by a signal".to_owned(),
            () if unfinished_bytes > 0 => "a frame that it began was not finished".to_owned(),
            () => format!("it left {} bytes unread", self.unsent()),
        })
    }
}

/// Whether a frame belongs to code that is being waited for; log lines and invalid frames always do.
fn concerns(subject: Option<Subject>, waited_for: Caller) -> bool {
    match subject {
        None | Some(Subject::Log) => true,
        Some(Subject::Execution(execution)) => waited_for.exec == Some(execution),
        Some(Subject::Session(session)) => waited_for == Caller { exec: None, session },
        Some(Subject::Worker) => false,
    }
}

/// The start of a message about a worker.
pub(crate) fn described(worker: WorkerNo, pid: u32) -> String {
    format!("worker {worker} (pid {pid})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use redgrease_core::frame::{FromWorker, LogLevel, Records};
    use redgrease_core::id::{ExecutionNo, SessionNo};

    fn frames(all: &[FromWorker<'_>]) -> Frames {
        let mut bytes = Vec::new();
        for frame in all {
            frame.write(&mut bytes);
        }
        Frames::cut(&mut bytes).unwrap().unwrap()
    }

    fn done(exec: u64) -> FromWorker<'static> {
        let exec = ExecutionNo(exec);
        FromWorker::Done { exec, aborted: false, records: Records::default(), errors: vec![], step_micros: vec![] }
    }

    #[test]
    fn frames_of_others_stay_behind_while_one_execution_is_waited_for() {
        let mut link = Link::new(1);
        let log = FromWorker::Log { session: None, level: LogLevel::Notice, message: b"x" };
        assert!(link.receive(frames(&[done(1), log, done(2)]), true));
        let caller = Caller { exec: Some(ExecutionNo(2)), session: SessionNo(1) };
        assert!(matches!(FromWorker::parse(&link.take_kept_for(caller).unwrap()), Ok(FromWorker::Log { .. })));
        assert_eq!(FromWorker::parse(&link.take_kept_for(caller).unwrap()).unwrap(), done(2));
        assert!(link.take_kept_for(caller).is_none() && link.has_frames());
        assert_eq!(FromWorker::parse(&link.take_kept().unwrap()).unwrap(), done(1));
        assert!(!link.has_frames());
    }

    #[test]
    fn what_comes_behind_kept_frames_stays_behind_them() {
        let mut link = Link::new(1);
        assert!(link.receive(frames(&[done(1)]), true));
        assert!(!link.may_read_ahead());
        assert!(link.receive(frames(&[done(2)]), false));
        assert!(link.take_unhandled().is_none());
        assert_eq!(FromWorker::parse(&link.take_kept().unwrap()).unwrap(), done(1));
    }

    #[test]
    fn a_flood_during_a_wait_is_noticed() {
        let mut link = Link::new(1);
        let many: Vec<_> = (0..=KEPT_FRAMES_MAX as u64).map(done).collect();
        assert!(!link.receive(frames(&many), true));
    }

    #[test]
    fn what_was_written_is_no_longer_unsent() {
        let mut link = Link::new(1);
        assert!(link.send(&ToWorker::Shutdown));
        assert!(!link.send(&ToWorker::Shutdown));
        let bytes = link.unsent();
        let mut out = vec![];
        link.take_output(&mut out);
        assert_eq!((link.unsent(), out.len() as u64), (bytes, bytes));
        link.wrote(bytes);
        assert_eq!(link.unsent(), 0);
    }

    #[test]
    fn a_worker_that_leaves_a_frame_unfinished_is_found_after_as_many_looks() {
        let mut link = Link::new(1);
        assert!((0..IDLE_LOOKS_MAX).all(|_| link.look(7, false).is_none()));
        assert_eq!(link.look(7, false).as_deref(), Some("a frame that it began was not finished"));
        assert!(link.look(8, false).is_none());
        let mut stopped = Link::new(1);
        let found = (0..IDLE_LOOKS_MAX).filter_map(|_| stopped.look(0, true)).collect::<Vec<_>>();
        assert_eq!(found, ["it was stopped by a signal"]);
    }
}
