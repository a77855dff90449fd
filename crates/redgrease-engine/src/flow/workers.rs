//! Workers: leases, handshake, output, replacement, end.

use redgrease_core::VERSION;
use redgrease_core::codec::CODEC_VERSION;
use redgrease_core::frame::{LogLevel, PROTOCOL_VERSION, ToWorker};
use redgrease_core::id::{SessionNo, WorkerNo};
use redgrease_core::python::PythonVersion;

use crate::asked::Asked;
use crate::effect::{Effect, Question};
use crate::engine::Engine;
use crate::error::Error;
use crate::input::Stream;
use crate::limits::{
    CLOSED_LOOKS_MAX, CLOSED_MS_MAX, FAILED_STARTS_MAX, IDLE_LOOKS_MAX, IDLE_WORKER_MS, LINE_MS_MAX, MEMORY_LOOK_MS,
    UNSENT_BYTES_MAX, WORKER_AGAIN_MS,
};
use crate::prelude::*;
use crate::sessions::session::Session;
use crate::step::Next;
use crate::timers::Timer;
use crate::workers::link::{Link, Process, Stage, described};
use crate::workers::output::log_text;
use crate::workers::pool::Lease;

/// What a worker tells of itself.
pub(crate) struct Described<'a> {
    /// Version of its interpreter.
    pub(crate) python: &'a str,
    /// Version of the package.
    pub(crate) package: &'a str,
    /// What the kernel keeps it from doing.
    pub(crate) isolation: &'a str,
}

impl Engine {
    /// The module was loaded.
    pub(crate) fn started(&mut self) {
        self.ask(Question::Protection, Asked::Protection);
        self.start_workers();
        self.look_at_workers_later();
        self.after_ms(MEMORY_LOOK_MS, Timer::LookAtMemory);
    }

    /// Starts as many workers as the pool requests.
    pub(crate) fn start_workers(&mut self) {
        if self.runtime.is_err() {
            return;
        }
        let now = self.now_ms();
        let python_of = |number: &SessionNo| self.sessions.get(*number).and_then(|session| session.python);
        let waiting: Vec<_> = self.sessions.waiting.iter().map(python_of).collect();
        let starts = self.workers.pool.starts(&waiting, now);
        self.out.extend(starts.into_iter().map(|(worker, python)| Effect::StartWorker { worker, python }));
        if let Some(at) = self.workers.pool.retry_at_ms(now).filter(|_| !waiting.is_empty()) {
            self.after_ms(at - now, Timer::StartWorkers);
        }
    }

    /// A worker's process runs.
    pub(crate) fn worker_started(&mut self, worker: WorkerNo, pid: u32) {
        self.workers.links.insert(worker, Link::new(pid));
        let hello = ToWorker::Hello {
            protocol: PROTOCOL_VERSION,
            version: VERSION,
            worker,
            threads: 1,
            record_bytes_max: self.config.record_bytes_max as u64,
            spin_micros: self.config.spin.as_micros() as u64,
        };
        self.send(worker, &hello);
        self.after_ms(self.config.worker_start_max.as_millis() as u64, Timer::Handshake(worker));
    }

    /// A worker's process could not be started.
    pub(crate) fn worker_not_started(&mut self, worker: WorkerNo, reason: &str) {
        self.workers.pool.gone(worker, self.now_ms());
        self.start_failed(Error::NotStarted { worker: worker.0, reason: reason.to_owned() }.into());
        self.start_workers();
    }

    /// Records why a worker could not be started. After several failures in a row waiting is useless: waiting sessions
    /// get the reason.
    fn start_failed(&mut self, text: String) {
        let failures = self.workers.pool.failures();
        if failures <= FAILED_STARTS_MAX {
            self.log(LogLevel::Warning, format!("rg: {text}"));
        }
        if failures >= FAILED_STARTS_MAX {
            let waiting: Vec<SessionNo> = self.sessions.waiting.drain(..).collect();
            for session in waiting {
                self.session_without_worker(session, &text, WORKER_AGAIN_MS);
            }
        }
        self.workers.start_error = Some(text);
    }

    /// The time for a worker's handshake has passed.
    pub(crate) fn handshake_is_due(&mut self, worker: WorkerNo) {
        if self.workers.links.get(&worker).is_some_and(|link| !link.is_ready()) {
            self.end_worker(worker, "did not finish its handshake within WorkerStartMax".into());
        }
    }

    /// A worker's handshake.
    ///
    /// # Errors
    /// It violates the protocol.
    pub(crate) fn handshake(
        &mut self,
        worker: WorkerNo,
        (protocol, codec): (u64, u64),
        pid: u64,
        described: Described<'_>,
    ) -> Result<(), String> {
        let Described { python, package, isolation } = described;
        let is_ready = self.workers.links.get(&worker).is_some_and(Link::is_ready);
        if is_ready {
            return Err("a second handshake".into());
        }
        if (protocol, codec) != (PROTOCOL_VERSION, CODEC_VERSION) {
            return Err(format!(
                "the package {package} of its interpreter speaks protocol {protocol} and codec {codec}, the module \
                 {VERSION} speaks {PROTOCOL_VERSION} and {CODEC_VERSION}: install the package that came with the module"
            ));
        }
        let asked = Asked::Handshake {
            worker,
            pid: u32::try_from(pid).unwrap_or_default(),
            python: python.to_owned(),
            package: package.to_owned(),
            isolation: isolation.to_owned(),
        };
        self.ask(Question::AdoptProcess { worker, pid }, asked);
        Ok(())
    }

    /// The process that a worker names was verified.
    pub(crate) fn handshake_checked(
        &mut self,
        worker: WorkerNo,
        pid: u32,
        described: Described<'_>,
        result: Result<(), String>,
    ) {
        let Described { python, package, isolation } = described;
        if let Err(reason) = result {
            return self.protocol_broken(worker, &reason);
        }
        let Some(link) = self.workers.links.get_mut(&worker).filter(|link| !link.closing) else { return };
        let text = format!(
            "rg: worker {worker} is ready (pid {pid}, Python {python}, package {package}, isolation {isolation})"
        );
        link.pid = pid;
        link.stage = Stage::Ready;
        python.clone_into(&mut link.python);
        isolation.clone_into(&mut link.isolation);
        self.log(LogLevel::Verbose, text);
        let lacks = self.config.isolation && !isolation.split(' ').any(|word| word == "landlock");
        if lacks && !core::mem::replace(&mut self.workers.isolation_reported, true) {
            let text = format!("rg: the kernel isolates workers only by '{isolation}': see docs/security.md");
            self.log(LogLevel::Warning, text);
        }
        if self.workers.pool.python(worker).is_none() {
            self.workers.interpreters.learn_default(PythonVersion::parse(python));
        }
        if self.topology.has_several() {
            self.send(worker, &ToWorker::Cluster { several: true });
        }
        self.workers.pool.ready(worker);
        self.workers.start_error = None;
        self.serve_waiting();
    }

    /// Sends a frame; it is written at the latest before the loop sleeps.
    pub(crate) fn send(&mut self, worker: WorkerNo, frame: &ToWorker<'_>) {
        let Some(link) = self.workers.links.get_mut(&worker).filter(|link| !link.closing) else { return };
        let first = link.send(frame);
        let unsent = link.unsent();
        if first {
            self.out.push(Effect::Write(worker));
        }
        if unsent > UNSENT_BYTES_MAX {
            let reason = format!("was killed: it left more than {UNSENT_BYTES_MAX} bytes unread");
            self.then(Next::EndWorker { worker, reason });
        }
    }

    /// Bytes were written to a worker: it reads.
    pub(crate) fn written(&mut self, worker: WorkerNo, bytes: u64) {
        let Some(link) = self.workers.links.get_mut(&worker) else { return };
        link.wrote(bytes);
        if !link.is_congested() {
            if core::mem::take(&mut link.paused) {
                self.out.push(Effect::ResumeReading(worker));
            }
            self.frames_wait(worker);
        }
        self.unblock_readers();
    }

    /// A worker closed its connection. Usually its process is about to end, and its exit status says more than the
    /// socket: it gets a short time for that, in which the server does not wait.
    pub(crate) fn connection_closed(&mut self, worker: WorkerNo) {
        let at_ms = self.now_ms();
        let Some(link) = self.workers.links.get_mut(&worker) else { return };
        if link.process == Process::Connected {
            link.process = Process::Closed { at_ms };
            self.workers.pool.retire(worker);
            self.after_ms(CLOSED_MS_MAX, Timer::ConnectionClosed(worker, CLOSED_LOOKS_MAX));
        }
    }

    /// That time has passed.
    pub(crate) fn connection_closed_for_long(&mut self, worker: WorkerNo, looks: u32) {
        if self.workers.links.contains_key(&worker) {
            self.ask(Question::ProcessIsGone(worker), Asked::ProcessOfWorker { worker, looks });
        }
    }

    /// Whether a process whose connection is closed has ended.
    pub(crate) fn process_looked_at(&mut self, worker: WorkerNo, looks: u32, gone: bool) {
        if looks > 0 && gone {
            // Its supervisor is about to report the end.
            return self.after_ms(CLOSED_MS_MAX, Timer::ConnectionClosed(worker, looks - 1));
        }
        self.end_worker(worker, "was killed: it closed its connection to the server".into());
    }

    /// A worker's process has ended. Frames that it sent before are still handled.
    pub(crate) fn process_ended(&mut self, worker: WorkerNo, how: Option<String>) {
        let Some(link) = self.workers.links.get_mut(&worker) else { return };
        link.process = Process::Ended { how };
        if self.stack.waits_for(worker) {
            // The wait handles the end of its worker.
        } else if self.workers.links.get(&worker).is_some_and(Link::has_frames) {
            self.frames_wait(worker);
        } else {
            self.end_ended(worker);
        }
    }

    /// Removes a worker whose process has ended by itself.
    pub(crate) fn end_ended(&mut self, worker: WorkerNo) {
        let how = match self.workers.links.get(&worker).map(|link| &link.process) {
            Some(Process::Ended { how }) => how.clone().unwrap_or_else(|| "ended".to_owned()),
            _ => return,
        };
        self.end_worker(worker, how);
    }

    /// A worker sent something that is not our protocol.
    pub(crate) fn protocol_broken(&mut self, worker: WorkerNo, reason: &str) {
        self.end_worker(worker, format!("was killed: it broke the protocol: {reason}"));
    }

    /// Checks all workers several times per `WorkerStallMax`.
    pub(crate) fn look_at_workers(&mut self) {
        // While a script runs or data is loaded nothing is read from workers.
        if Engine::may_work(&self.at) {
            let workers: Vec<WorkerNo> = self.workers.links.keys().copied().collect();
            for worker in workers {
                self.ask(Question::Progress(worker), Asked::ProgressOfWorker(worker));
            }
        }
        self.look_at_workers_later();
    }

    fn look_at_workers_later(&mut self) {
        let pause_ms = self.config.worker_stall_max.as_millis() as u64 / u64::from(IDLE_LOOKS_MAX);
        self.after_ms(pause_ms, Timer::LookAtWorkers);
    }

    /// The progress of a worker is known: one that must answer and makes no progress is ended.
    pub(crate) fn progress_seen(&mut self, worker: WorkerNo, unfinished_bytes: u64, stopped: bool) {
        let owes = !self.workers.pool.is_unused(worker);
        let Some(link) = self.workers.links.get_mut(&worker) else { return };
        if let Some(what) = link.look(unfinished_bytes, stopped && owes) {
            let limit = self.config.worker_stall_max.as_millis();
            self.end_worker(worker, format!("was killed: {what} for longer than WorkerStallMax ({limit} ms)"));
        }
    }

    /// Looks at the memory of all workers.
    pub(crate) fn look_at_memory(&mut self) {
        if self.config.worker_bytes_max > 0 && Engine::may_work(&self.at) {
            let workers: Vec<WorkerNo> = self.workers.links.keys().copied().collect();
            for worker in workers {
                self.ask(Question::TotalBytes(worker), Asked::MemoryOfTree(worker));
            }
        }
        self.after_ms(MEMORY_LOOK_MS, Timer::LookAtMemory);
    }

    /// The memory of a worker and all that it started is known: one that uses too much is ended.
    pub(crate) fn total_memory_seen(&mut self, worker: WorkerNo, bytes: u64) {
        let max = self.config.worker_bytes_max;
        if max > 0 && bytes > max {
            let how =
                format!("was killed: with what it started it uses {bytes} bytes, more than WorkerBytesMax ({max})");
            self.end_worker(worker, how);
        }
    }

    /// A worker wrote to an output.
    pub(crate) fn output_read(&mut self, worker: WorkerNo, stream: Stream, bytes: &[u8], ended: bool) {
        let now = self.now_ms();
        let Some(link) = self.workers.links.get_mut(&worker) else { return };
        let session = Rc::clone(&link.session_name);
        let lines = link.output(stream).add(bytes, ended, now);
        let unfinished = link.output(stream).is_unfinished();
        self.log_output(worker, stream, &session, &lines);
        if unfinished {
            self.after_ms(LINE_MS_MAX, Timer::UnfinishedLine(worker, stream));
        }
    }

    /// An unfinished line is not kept indefinitely: the next part may belong to another session.
    pub(crate) fn unfinished_line(&mut self, worker: WorkerNo, stream: Stream) {
        let now = self.now_ms();
        let Some(link) = self.workers.links.get_mut(&worker) else { return };
        let session = Rc::clone(&link.session_name);
        if let Some(line) = link.output(stream).take_unfinished(LINE_MS_MAX, now) {
            self.log_output(worker, stream, &session, &[line]);
        } else if link.output(stream).is_unfinished() {
            self.after_ms(LINE_MS_MAX, Timer::UnfinishedLine(worker, stream));
        }
    }

    /// All output of a session was handed in.
    pub(crate) fn output_drained(&mut self, worker: WorkerNo, session: &str) {
        let now = self.now_ms();
        for stream in [Stream::Out, Stream::Error] {
            let Some(link) = self.workers.links.get_mut(&worker) else { return };
            let lines = link.output(stream).end_session(now);
            self.log_output(worker, stream, session, &lines);
        }
    }

    fn log_output(&mut self, worker: WorkerNo, stream: Stream, session: &str, lines: &[String]) {
        let (name, level) = match stream {
            Stream::Out => ("stdout", LogLevel::Notice),
            Stream::Error => ("stderr", LogLevel::Warning),
        };
        let last = lines.iter().rfind(|line| !line.trim().is_empty());
        if let (Stream::Error, Some(last), Some(link)) = (stream, last, self.workers.links.get_mut(&worker)) {
            last.clone_into(&mut link.last_stderr_line);
        }
        for line in lines {
            self.log(level, log_text(worker, session, name, line));
        }
    }

    /// Assigns workers to waiting sessions, in the order of their arrival as far as users and environments allow; ends
    /// idle workers in favour of sessions that no worker may serve, and starts more workers if necessary.
    pub(crate) fn serve_waiting(&mut self) {
        let waiting: Vec<SessionNo> = self.sessions.waiting.iter().copied().collect();
        let mut unserved: BTreeMap<Option<PythonVersion>, usize> = BTreeMap::new();
        for session in waiting {
            // A session that got a worker with the wrong interpreter makes the others be served meanwhile.
            if !self.sessions.waiting.contains(&session) {
                continue;
            }
            let owner = self.sessions.get(session).map(Session::owner);
            let lease = owner.as_ref().map(|owner| self.workers.pool.lease(session, owner));
            if lease == Some(Lease::Wait) {
                // Immediately, before the others: otherwise later sessions would take the idle worker again and again.
                let python = owner.and_then(|owner| owner.python);
                let count = unserved.entry(python).or_default();
                *count += 1;
                if let Some(worker) = self.workers.pool.evictable(python, *count) {
                    self.retire(worker);
                }
                continue;
            }
            self.sessions.waiting.retain(|other| *other != session);
            if let Some(Lease::Granted(worker)) = lease {
                self.session_got_worker(session, worker);
            }
        }
        self.start_workers();
    }

    /// Schedules a check for surplus idle workers.
    pub(crate) fn trim_later(&mut self) {
        if self.workers.pool.spare_count() > 1 && !core::mem::replace(&mut self.workers.trimming, true) {
            self.after_ms(IDLE_WORKER_MS, Timer::TrimWorkers);
        }
    }

    /// Ends surplus idle workers.
    pub(crate) fn trim_workers(&mut self) {
        self.workers.trimming = false;
        while let Some(worker) = self.workers.pool.superfluous(self.now_ms(), IDLE_WORKER_MS) {
            self.retire(worker);
        }
        self.serve_waiting();
        self.trim_later();
    }

    /// The memory of an idle worker is known: one that grew too large is replaced.
    pub(crate) fn memory_seen(&mut self, worker: WorkerNo, resident_bytes: u64) {
        if resident_bytes > self.config.worker_idle_bytes_max && self.workers.pool.is_unused(worker) {
            self.retire(worker);
        }
        self.serve_waiting();
        self.trim_later();
    }

    /// Ends a worker that is no longer needed.
    pub(crate) fn retire(&mut self, worker: WorkerNo) {
        self.send(worker, &ToWorker::Shutdown);
        let mut last = Vec::new();
        self.take_output(worker, &mut last);
        self.workers.links.remove(&worker);
        self.workers.pool.gone(worker, self.now_ms());
        self.out.push(Effect::Close { worker, last });
    }

    /// Ends a worker's process, unless it has ended by itself; its executions end or move when its output is logged.
    pub(crate) fn end_worker(&mut self, worker: WorkerNo, how: String) {
        let Some(link) = self.workers.links.get_mut(&worker).filter(|link| !link.closing) else { return };
        link.closing = true;
        let session = Rc::clone(&link.session_name);
        self.out.push(Effect::Kill(worker));
        self.out.push(Effect::DrainOutput { worker, session });
        self.then(Next::RemoveWorker { worker, how });
    }

    /// A worker has ended: its executions end with errors, its sessions move.
    pub(crate) fn remove_worker(&mut self, worker: WorkerNo, how: &str) {
        let Some(link) = self.workers.links.remove(&worker) else { return };
        let sessions = self.workers.pool.gone(worker, self.now_ms());
        self.out.push(Effect::Close { worker, last: Vec::new() });
        let head = format!("{} {how}", described(worker, link.pid));
        self.workers.deaths += 1;
        if link.is_ready() {
            self.log(LogLevel::Warning, format!("rg: WORKERDIED {head}"));
        } else {
            let runtime = self.runtime.clone().unwrap_or_else(|reason| reason);
            let last_line = link.last_stderr_line;
            self.start_failed(Error::NoHandshake { head: head.clone(), runtime, last_line }.into());
        }
        self.worker_lost(worker, &head, &sessions);
        self.serve_waiting();
    }

    /// The server is about to exit: its workers are ended.
    pub(crate) fn shut_down(&mut self) {
        let workers: Vec<WorkerNo> = self.workers.links.keys().copied().collect();
        self.out.extend(workers.into_iter().map(Effect::Kill));
    }
}
