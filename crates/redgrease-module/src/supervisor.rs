//! Workers from birth to death: starting, handshake, frames, output, replacement.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use redgrease_core::VERSION;
use redgrease_core::codec::CODEC_VERSION;
use redgrease_core::frame::{FromWorker, LogLevel as FrameLogLevel, PROTOCOL_VERSION, ToWorker};
use redgrease_core::id::{ExecutionNo, SessionNo, WorkerNo};
use redgrease_core::pool::Lease;
use redgrease_core::render::log_line;
use redgrease_ffi::LogLevel;
use redgrease_ffi::event_loop::Readiness;

use crate::engine::{Engine, engine};
use crate::sessions::Session;
use crate::spawner::Spawned;
use crate::worker::{IDLE_LOOKS_MAX, Incoming, Worker};

/// Code that may call the server: an execution, or (without one) a script or callback of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// The execution.
    pub exec: Option<ExecutionNo>,
    /// The session.
    pub session: SessionNo,
}

/// Time that a line of output may stay unfinished before it is logged as it is, in milliseconds.
const LINE_MS_MAX: u64 = 200;

/// Bytes that may wait for one worker before it is taken for dead.
const UNSENT_BYTES_MAX: usize = 1 << 30;

/// Time between the end of a worker's connection and the end of its process, in milliseconds.
const CLOSED_MS_MAX: u64 = 100;

/// Time that one turn of the server's loop gives to frames of workers.
const FRAMES_SLICE: Duration = Duration::from_millis(1);

/// How often that time is granted to the supervisor of a process that has ended.
const CLOSED_LOOKS_MAX: u32 = 20;

/// Frames with numbers of other workers that are logged per worker.
const FOREIGN_FRAMES_LOGGED_MAX: u32 = 10;

impl Engine {
    /// Watches the spawner and starts the first spare.
    pub fn start_supervision(&self) -> Result<(), String> {
        self.server.watch(self.spawner.bell_fd(), Readiness::Readable, || {
            if let Some(engine) = engine() {
                engine.workers_born();
            }
        })?;
        self.start_workers();
        self.look_at_workers();
        Ok(())
    }

    /// Starts as many workers as the pool wants.
    pub fn start_workers(&self) {
        let Ok(python) = &self.python else { return };
        let now = self.now_ms();
        let waiting = self.waiting.borrow().len();
        let starts = self.pool.borrow_mut().starts(waiting, now);
        for number in starts {
            if let Err(reason) = self.spawner.request(number, python.clone()) {
                self.start_failed(number, &reason);
            }
        }
        let retry = self.pool.borrow().retry_at_ms(now);
        if let Some(at) = retry.filter(|_| waiting > 0) {
            self.server.after_ms(at - now, || {
                if let Some(engine) = engine() {
                    engine.start_workers();
                }
            });
        }
    }

    fn workers_born(&self) {
        for (number, born) in self.spawner.answers() {
            match born {
                Ok(spawned) => self.adopt(number, spawned),
                Err(reason) => self.start_failed(number, &reason),
            }
        }
    }

    fn start_failed(&self, number: WorkerNo, reason: &str) {
        let failures = {
            let mut pool = self.pool.borrow_mut();
            pool.gone(number, self.now_ms());
            pool.failures()
        };
        let text = format!("WORKERSTART worker {number} could not be started: {reason}");
        if failures <= 3 {
            self.server.log(LogLevel::Warning, &format!("rg: {text}"));
        }
        *self.start_error.borrow_mut() = Some(text);
        self.fail_waiting_after(failures);
        self.start_workers();
    }

    /// After several failed starts in a row there is no use in waiting: those who wait are told why.
    fn fail_waiting_after(&self, failures: u32) {
        const FAILED_STARTS_MAX: u32 = 3;
        if failures < FAILED_STARTS_MAX {
            return;
        }
        let reason = self.start_error.borrow().clone().unwrap_or_default();
        let waiting: Vec<SessionNo> = self.waiting.borrow_mut().drain(..).collect();
        for session in waiting {
            self.session_without_worker(session, &reason);
        }
    }

    fn adopt(&self, number: WorkerNo, spawned: Spawned) {
        let worker = Rc::new(Worker::new(number, spawned));
        self.workers.borrow_mut().insert(number, Rc::clone(&worker));
        let watched = self.watch_worker(&worker);
        if let Err(reason) = watched {
            self.end_worker(&worker, Some(&reason));
            return;
        }
        self.send(
            &worker,
            &ToWorker::Hello {
                protocol: PROTOCOL_VERSION,
                version: VERSION,
                worker: number.0,
                threads: 1,
                record_bytes_max: self.config.record_bytes_max as u64,
            },
        );
        self.server.after_ms(self.config.worker_start_max.as_millis() as u64, move || {
            if let Some(engine) = engine()
                && let Some(worker) = engine.worker(number).filter(|worker| !worker.ready.get())
            {
                engine.end_worker(&worker, Some("did not finish its handshake within WorkerStartMax"));
            }
        });
    }

    fn watch_socket(&self, worker: &Worker) -> Result<(), String> {
        let number = worker.number;
        self.server.watch(worker.socket_fd(), Readiness::Readable, move || {
            if let Some(engine) = engine() {
                engine.due.borrow_mut().readable.insert(number);
            }
        })
    }

    fn watch_worker(&self, worker: &Rc<Worker>) -> Result<(), String> {
        let number = worker.number;
        self.watch_socket(worker)?;
        if let Some(fd) = worker.pid_fd() {
            self.server.watch(fd, Readiness::Readable, move || {
                if let Some(engine) = engine() {
                    engine.due.borrow_mut().ended.insert(number);
                }
            })?;
        }
        for (stream, fd) in worker.output_fds().into_iter().enumerate() {
            self.server.watch(fd, Readiness::Readable, move || {
                if let Some(engine) = engine() {
                    engine.output_ready(number, stream);
                }
            })?;
        }
        Ok(())
    }

    /// Acts on what workers sent, for about a millisecond in all; the rest follows in the next turn of the loop.
    pub fn work_off_frames(&self, ready: BTreeSet<WorkerNo>) {
        let slice = FRAMES_SLICE / ready.len().max(1) as u32;
        for number in ready {
            self.socket_ready(number, Instant::now() + slice);
        }
    }

    /// Reads what a worker sent and acts on it until `until`.
    fn socket_ready(&self, number: WorkerNo, until: Instant) {
        let Some(worker) = self.worker(number) else { return };
        self.handle_waiting(&worker, until);
        if worker.closed.get() || worker.ending.get() {
            return;
        }
        // Frames that wait are in memory, and others wait in the socket behind them, so that a worker that leaves too much
        // unread can finish what it writes, and then read.
        let waits = worker.has_unhandled() || worker.has_kept();
        if waits && !(worker.is_congested() && worker.may_read_ahead()) {
            return self.handle_later(&worker);
        }
        match worker.read() {
            Incoming::Nothing => {}
            Incoming::Frames(frames) => {
                worker.add_unhandled(frames);
                if !waits {
                    self.handle_waiting(&worker, until);
                }
                self.handle_later(&worker);
            }
            Incoming::Closed => self.connection_closed(&worker),
            Incoming::Broken(reason) => self.end_worker(&worker, Some(&broken(&reason))),
        }
    }

    /// What a worker sent and was not handled comes in a later turn: the next one, or when it has read what it was sent.
    fn handle_later(&self, worker: &Rc<Worker>) {
        let waits = worker.has_unhandled() || worker.has_kept();
        if worker.closed.get() || !waits {
            return;
        }
        if !worker.is_congested() {
            self.frames_left.borrow_mut().insert(worker.number);
        } else if !worker.may_read_ahead() {
            self.server.unwatch(worker.socket_fd(), Readiness::Readable);
            worker.unwatched.set(true);
        }
    }

    /// A worker closed its end of the socket. Usually its process is about to end, and its status says more than the socket:
    /// it has a moment for that, in which the server does not wait.
    fn connection_closed(&self, worker: &Rc<Worker>) {
        if worker.has_ended() && worker.pid_fd().is_none() {
            return self.end_worker(worker, None);
        }
        self.server.unwatch(worker.socket_fd(), Readiness::Readable);
        self.end_closed_later(worker.number, CLOSED_LOOKS_MAX);
    }

    fn end_closed_later(&self, number: WorkerNo, looks: u32) {
        self.server.after_ms(CLOSED_MS_MAX, move || {
            let Some(engine) = engine() else { return };
            let Some(worker) = engine.worker(number) else { return };
            if looks > 0 && crate::memory::is_gone(worker.pid()) {
                // Its supervisor is about to say how it ended.
                return engine.end_closed_later(number, looks - 1);
            }
            engine.end_worker(&worker, Some("was killed: it closed its connection to the server"));
        });
    }

    /// A worker's process has ended.
    pub fn process_ended(&self, number: WorkerNo) {
        let Some(worker) = self.worker(number) else { return };
        // What it said before its end still counts: that is at most what was read and what a socket's buffer holds, whatever
        // a child that has its socket keeps writing.
        if !worker.ending.replace(true)
            && let Incoming::Frames(frames) = worker.read()
        {
            worker.add_unhandled(frames);
        }
        self.handle_waiting(&worker, Instant::now() + FRAMES_SLICE);
        if worker.has_unhandled() || worker.has_kept() {
            // Its pidfd stays readable: the next turn comes back here.
            return;
        }
        self.end_worker(&worker, None);
    }

    /// Acts on frames that were read, oldest first, until `until` (at least one), or until the worker has to read first.
    fn handle_waiting(&self, worker: &Rc<Worker>, until: Instant) {
        let has_time = || Instant::now() < until && !worker.closed.get();
        loop {
            if worker.closed.get() || (worker.is_congested() && worker.flush() && worker.is_congested()) {
                return;
            }
            if let Some(mut frames) = worker.take_unhandled() {
                while let Some(body) = frames.next_body() {
                    self.handle_body(worker, body);
                    if !has_time() || worker.is_congested() {
                        break;
                    }
                }
                worker.put_back(frames);
            } else if let Some(body) = worker.take_kept(|_| true) {
                // One by one: what a frame makes us wait for may put others behind those that are here.
                self.handle_body(worker, &body);
            } else {
                return;
            }
            if !has_time() {
                return;
            }
        }
    }

    /// Looks at all workers several times per `WorkerStallMax`: one that owes an answer and makes no progress is ended.
    pub fn look_at_workers(&self) {
        let workers: Vec<_> = self.workers.borrow().values().cloned().collect();
        // While a script runs or data is loaded nothing is read from workers.
        for worker in workers.iter().filter(|_| self.may_work()) {
            let owes = !self.pool.borrow().is_unused(worker.number);
            if let Some(what) = worker.look(owes) {
                let limit = self.config.worker_stall_max.as_millis();
                self.end_worker(
                    worker,
                    Some(&format!("was killed: {what} for longer than WorkerStallMax ({limit} ms)")),
                );
            }
        }
        let pause_ms = self.config.worker_stall_max.as_millis() as u64 / u64::from(IDLE_LOOKS_MAX);
        self.server.after_ms(pause_ms, || {
            if let Some(engine) = engine() {
                engine.look_at_workers();
            }
        });
    }

    /// Acts on one frame.
    pub fn handle_body(&self, worker: &Rc<Worker>, body: &[u8]) {
        match FromWorker::parse(body) {
            Ok(frame) => {
                if let Err(reason) = self.handle(worker, frame) {
                    self.end_worker(worker, Some(&broken(&reason)));
                }
            }
            Err(error) => self.end_worker(worker, Some(&broken(&error.to_string()))),
        }
    }

    fn handle(&self, worker: &Rc<Worker>, frame: FromWorker<'_>) -> Result<(), String> {
        let early = !worker.ready.get() && !matches!(frame, FromWorker::Ready { .. } | FromWorker::Log { .. });
        if early {
            return Err("it spoke before its handshake".into());
        }
        match frame {
            FromWorker::Ready { protocol, codec, pid, python, package } => {
                if worker.ready.get() {
                    return Err("a second handshake".into());
                }
                if (protocol, codec) != (PROTOCOL_VERSION, CODEC_VERSION) {
                    return Err(format!(
                        "the package {package} of its interpreter speaks protocol {protocol} and codec {codec}, the \
                         module {VERSION} speaks {PROTOCOL_VERSION} and {CODEC_VERSION}: install the package that \
                         came with the module"
                    ));
                }
                worker.set_pid(pid)?;
                worker.ready.set(true);
                let text = format!(
                    "rg: worker {} is ready (pid {}, Python {python}, package {package})",
                    worker.number,
                    worker.pid()
                );
                self.server.log(LogLevel::Verbose, &text);
                self.pool.borrow_mut().ready(worker.number);
                *self.start_error.borrow_mut() = None;
                self.serve_waiting();
            }
            FromWorker::ScriptDone { request, error, blob } => {
                self.script_done(worker, SessionNo(request), error, blob);
            }
            FromWorker::Call { call, exec, session, op } => {
                self.call(worker, call, execution(exec), SessionNo(session), op);
            }
            FromWorker::Progress { exec, step } => {
                if let Some(exec) = execution(exec) {
                    self.progress(worker, exec, step);
                }
            }
            FromWorker::Output { exec, records } => {
                if let Some(exec) = execution(exec) {
                    self.output(worker, exec, &records);
                }
            }
            FromWorker::Done { exec, aborted, records, errors, .. } => {
                if let Some(exec) = execution(exec) {
                    self.done(worker, exec, aborted, &records, &errors);
                }
            }
            FromWorker::Consumed { exec, bytes } => {
                if let Some(exec) = execution(exec) {
                    self.consumed(worker, exec, bytes);
                }
            }
            FromWorker::Stop { exec } => {
                if let Some(exec) = execution(exec) {
                    self.stop_reader(worker, exec);
                }
            }
            FromWorker::Log { session, level, message } => {
                let level = match level {
                    FrameLogLevel::Debug => LogLevel::Debug,
                    FrameLogLevel::Verbose => LogLevel::Verbose,
                    FrameLogLevel::Notice => LogLevel::Notice,
                    FrameLogLevel::Warning => LogLevel::Warning,
                };
                let (admitted, note) = worker.admits_log(message);
                if let Some(note) = note {
                    self.server.log(LogLevel::Warning, &format!("rg: worker {}: log(): {note}", worker.number));
                }
                if !admitted {
                    return Ok(());
                }
                let text = log_line(message);
                if session == 0 {
                    self.server.log(level, &format!("rg: worker {}: {text}", worker.number));
                } else {
                    self.server.log(level, &format!("GEARS: {text}"));
                }
            }
        }
        Ok(())
    }

    /// Logs that a worker named an execution or a session that lives in another worker: only hostile code does. What has
    /// ended is not reported, because threads of a script may outlive it.
    pub fn report_foreign(&self, worker: &Worker, caller: Chain) {
        let of_session = |session: SessionNo| self.sessions.borrow().get(&session).and_then(|session| session.worker);
        let (what, owner) = match caller.exec {
            None => (format!("session {}", caller.session), of_session(caller.session)),
            Some(exec) => (
                format!("execution {} (as session {})", self.shard.identifier(exec.0), caller.session),
                self.live.borrow().get(&exec).and_then(|live| live.worker),
            ),
        };
        let count = worker.foreign_frames.get().saturating_add(1);
        worker.foreign_frames.set(count);
        if let Some(owner) = owner.filter(|owner| *owner != worker.number && count <= FOREIGN_FRAMES_LOGGED_MAX) {
            let text = format!(
                "rg: worker {} (pid {}): refused a frame that names {what} of worker {owner}",
                worker.number,
                worker.pid()
            );
            self.server.log(LogLevel::Warning, &text);
        }
    }

    fn output_ready(&self, number: WorkerNo, stream: usize) {
        let Some(worker) = self.worker(number) else { return };
        let (lines, open) = worker.output_lines(stream);
        self.log_output(&worker, stream, &lines);
        if !open {
            self.server.unwatch(worker.output_fds()[stream], Readiness::Readable);
        }
        self.finish_line_later(number, stream);
    }

    /// Logs all that a worker has written so far: its next session must not be taken for this one.
    pub fn finish_output(&self, worker: &Worker) {
        for stream in 0..2 {
            let (mut lines, _) = worker.output_lines(stream);
            lines.extend(worker.take_unfinished_line(stream, Duration::ZERO));
            lines.extend(worker.renew_rate(stream));
            self.log_output(worker, stream, &lines);
        }
    }

    /// A line without end is not kept for ever: the next one may belong to another session.
    fn finish_line_later(&self, number: WorkerNo, stream: usize) {
        if !self.worker(number).is_some_and(|worker| worker.has_unfinished_line(stream)) {
            return;
        }
        self.server.after_ms(LINE_MS_MAX, move || {
            let Some(engine) = engine() else { return };
            let Some(worker) = engine.worker(number) else { return };
            match worker.take_unfinished_line(stream, Duration::from_millis(LINE_MS_MAX)) {
                Some(line) => engine.log_output(&worker, stream, &[line]),
                None => engine.finish_line_later(number, stream),
            }
        });
    }

    fn log_output(&self, worker: &Worker, stream: usize, lines: &[String]) {
        let (name, level) = [("stdout", LogLevel::Notice), ("stderr", LogLevel::Warning)][stream];
        let session = worker.session_name.borrow();
        if stream == 1
            && let Some(last) = lines.iter().rfind(|line| !line.trim().is_empty())
        {
            last.clone_into(&mut worker.last_words.borrow_mut());
        }
        for line in lines {
            self.server.log(level, &format!("rg: worker {} session '{session}' {name}: {line}", worker.number));
        }
    }

    /// Sends a frame; it is written at the latest before the loop sleeps.
    pub fn send(&self, worker: &Worker, frame: &ToWorker<'_>) {
        if worker.send(frame) {
            self.unflushed.borrow_mut().push(worker.number);
        }
        if worker.unsent() > UNSENT_BYTES_MAX {
            worker.kill(Some(&format!("was killed: it left more than {UNSENT_BYTES_MAX} bytes unread")));
        }
    }

    /// Writes what was collected for the workers.
    pub fn flush_workers(&self) {
        loop {
            let Some(number) = self.unflushed.borrow_mut().pop() else { return };
            let Some(worker) = self.worker(number) else { continue };
            if worker.flush() {
                self.flush_when_writable(&worker);
            }
        }
    }

    /// A worker has read enough of what it was sent: frames of it that waited are handled.
    fn worker_has_read(&self, worker: &Rc<Worker>) {
        if worker.unwatched.replace(false)
            && let Err(reason) = self.watch_socket(worker)
        {
            worker.kill(Some(&format!("was killed: {reason}")));
        }
        if worker.has_unhandled() || worker.has_kept() {
            self.frames_left.borrow_mut().insert(worker.number);
        }
    }

    fn flush_when_writable(&self, worker: &Worker) {
        let (number, fd) = (worker.number, worker.socket_fd());
        let watched = self.server.watch(fd, Readiness::Writable, move || {
            let Some(engine) = engine() else { return };
            let worker = engine.worker(number);
            let done = worker.as_ref().is_none_or(|worker| !worker.flush());
            if done {
                engine.server.unwatch(fd, Readiness::Writable);
            }
            if let Some(worker) = worker.filter(|worker| !worker.is_congested()) {
                engine.worker_has_read(&worker);
            }
        });
        if let Err(reason) = watched {
            worker.kill(Some(&format!("was killed: {reason}")));
        }
    }

    /// Gives workers to sessions that wait, in the order of their arrival as far as users and environments allow; makes room
    /// for those that no worker may serve, and starts more workers if they are needed.
    pub fn serve_waiting(&self) {
        let waiting: Vec<SessionNo> = self.waiting.borrow().iter().copied().collect();
        let mut unserved = 0;
        for session in waiting {
            let owner = self.sessions.borrow().get(&session).map(Session::owner);
            let lease = owner.map(|owner| self.pool.borrow_mut().lease(session, &owner));
            if lease == Some(Lease::Wait) {
                // At once, and not behind the others: a later session would take the idle worker again and again.
                unserved += 1;
                let evictable = self.pool.borrow().evictable(unserved);
                if let Some(worker) = evictable.and_then(|number| self.worker(number)) {
                    self.dismiss(&worker);
                }
                continue;
            }
            self.waiting.borrow_mut().retain(|other| *other != session);
            if let Some(Lease::Granted(number)) = lease {
                self.session_got_worker(session, number);
            }
        }
        self.start_workers();
    }

    /// Ends a worker that is not needed any more.
    pub fn dismiss(&self, worker: &Rc<Worker>) {
        self.send(worker, &ToWorker::Shutdown);
        worker.flush();
        self.bury(worker);
    }

    /// A worker's end, wanted (`reason`) or not: its executions end with errors, its sessions move.
    pub fn end_worker(&self, worker: &Rc<Worker>, reason: Option<&str>) {
        if worker.closed.get() {
            return;
        }
        worker.kill_if_alive(reason);
        let fate = worker.fate();
        for stream in 0..2 {
            loop {
                let (lines, open) = worker.output_lines(stream);
                self.log_output(worker, stream, &lines);
                if !open || lines.is_empty() {
                    break;
                }
            }
        }
        let started = worker.ready.get();
        let sessions = self.bury(worker);
        let head = format!("worker {} (pid {}) {fate}", worker.number, worker.pid());
        self.worker_deaths.set(self.worker_deaths.get() + 1);
        if started {
            self.server.log(LogLevel::Warning, &format!("rg: WORKERDIED {head}"));
        } else {
            let python = self.python_name();
            let words = worker.last_words.borrow();
            let text = format!(
                "WORKERSTART {head} before its handshake; is the package redgrease installed for {python}? Its last words: {words}"
            );
            let failures = self.pool.borrow().failures();
            if failures <= 3 {
                self.server.log(LogLevel::Warning, &format!("rg: {text}"));
            }
            *self.start_error.borrow_mut() = Some(text);
            self.fail_waiting_after(failures);
        }
        self.lost_worker(worker.number, &head, &sessions);
        self.serve_waiting();
    }

    /// The interpreter, for messages.
    pub fn python_name(&self) -> String {
        self.python.as_ref().map_or_else(Clone::clone, |path| path.display().to_string())
    }

    /// Takes a worker out of all tables; returns its sessions.
    fn bury(&self, worker: &Rc<Worker>) -> Vec<SessionNo> {
        worker.closed.set(true);
        self.past_peak_bytes.set(self.past_peak_bytes.get() + crate::memory::peak_bytes(worker.pid()));
        self.server.unwatch(worker.socket_fd(), Readiness::Readable);
        self.server.unwatch(worker.socket_fd(), Readiness::Writable);
        if let Some(fd) = worker.pid_fd() {
            self.server.unwatch(fd, Readiness::Readable);
        }
        for fd in worker.output_fds() {
            self.server.unwatch(fd, Readiness::Readable);
        }
        self.workers.borrow_mut().remove(&worker.number);
        self.pool.borrow_mut().gone(worker.number, self.now_ms())
    }

    /// Ends all workers: the server is about to end.
    pub fn shut_down(&self) {
        let workers: Vec<_> = self.workers.borrow().values().cloned().collect();
        for worker in workers {
            worker.kill(None);
        }
        self.server.stop_timers();
    }

    /// Waits for one execution of a worker while serving only what belongs to `chain`; everything else is kept for later.
    ///
    /// # Errors
    /// The worker ended, or `SyncMaxTime` passed (then it has been ended).
    pub fn wait_for(
        &self,
        worker: &Rc<Worker>,
        chain: &[Chain],
        until: impl Fn() -> bool,
        limit: Duration,
    ) -> Result<(), String> {
        let mut deadline = std::time::Instant::now() + limit;
        // Waits inside waits share the time of the outermost one.
        let outer = self.wait_deadline.get();
        deadline = outer.map_or(deadline, |outer| outer.min(deadline));
        self.wait_deadline.set(Some(deadline));
        let result = self.wait_until(worker, chain, until, deadline, limit);
        self.wait_deadline.set(outer);
        result
    }

    fn wait_until(
        &self,
        worker: &Rc<Worker>,
        chain: &[Chain],
        until: impl Fn() -> bool,
        deadline: std::time::Instant,
        limit: Duration,
    ) -> Result<(), String> {
        loop {
            // An inner wait may have kept what this one waits for.
            while !worker.closed.get()
                && let Some(body) = worker.take_kept(|body| concerns(body, chain))
            {
                self.handle_body(worker, &body);
            }
            worker.flush();
            if until() {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                let reason =
                    format!("was killed: the server waited longer than SyncMaxTime ({} ms)", limit.as_millis());
                self.end_worker(worker, Some(&reason));
                return Err(format!("WORKERDIED worker {} (pid {}) {reason}", worker.number, worker.pid()));
            }
            if !worker.wait(left) {
                continue;
            }
            match worker.read() {
                Incoming::Nothing => {
                    if worker.has_ended() {
                        self.end_worker(worker, None);
                    }
                }
                Incoming::Frames(mut frames) => {
                    while let Some(body) = frames.next_body() {
                        if concerns(body, chain) && !worker.closed.get() {
                            self.handle_body(worker, body);
                        } else if !worker.keep_for_later(body) {
                            self.end_worker(worker, Some("was killed: it flooded the server while that waited for it"));
                        }
                    }
                }
                Incoming::Closed => self.end_worker(worker, None),
                Incoming::Broken(reason) => self.end_worker(worker, Some(&broken(&reason))),
            }
            if worker.closed.get() && !until() {
                return Err(format!("WORKERDIED worker {} (pid {}) {}", worker.number, worker.pid(), worker.fate()));
            }
        }
    }

    /// After a wait: what was kept is handled in the next turn of the loop.
    pub fn revive_backlog(&self, worker: &Worker) {
        if !worker.has_kept() {
            return;
        }
        self.frames_left.borrow_mut().insert(worker.number);
        self.frame_pump.run(&self.server, || {});
    }
}

fn execution(number: u64) -> Option<ExecutionNo> {
    number.checked_sub(1).map(ExecutionNo)
}

fn broken(reason: &str) -> String {
    format!("was killed: it broke the protocol: {reason}")
}

/// Whether a frame belongs to code that is being waited for; log lines always may pass.
fn concerns(body: &[u8], chain: &[Chain]) -> bool {
    let number = match FromWorker::parse(body) {
        Ok(FromWorker::Log { .. }) | Err(_) => return true,
        Ok(FromWorker::Call { exec: 0, session, .. } | FromWorker::ScriptDone { request: session, .. }) => {
            return chain.contains(&Chain { exec: None, session: SessionNo(session) });
        }
        Ok(
            FromWorker::Call { exec, .. }
            | FromWorker::Progress { exec, .. }
            | FromWorker::Output { exec, .. }
            | FromWorker::Done { exec, .. }
            | FromWorker::Consumed { exec, .. }
            | FromWorker::Stop { exec },
        ) => exec,
        Ok(FromWorker::Ready { .. }) => return false,
    };
    let number = execution(number);
    number.is_some() && chain.iter().any(|member| member.exec == number)
}
