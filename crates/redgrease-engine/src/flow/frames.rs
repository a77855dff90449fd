//! Frames of workers: the order in which they are handled, and their dispatch.

use redgrease_core::frame::{FromWorker, LogLevel};
use redgrease_core::id::{SessionNo, WorkerNo};
use redgrease_core::render::log_line;

use crate::calls::caller::{Caller, PendingCall};
use crate::calls::stack::Wait;
use crate::effect::Effect;
use crate::engine::Engine;
use crate::flow::workers::Described;
use crate::frames::Frames;
use crate::id::WaitNo;
use crate::limits::FOREIGN_FRAMES_LOGGED_MAX;
use crate::prelude::*;
use crate::workers::link::{Link, Process, described};

impl Engine {
    /// A worker sent frames.
    pub(crate) fn received(&mut self, worker: WorkerNo, frames: Frames) {
        let waiting = self.stack.waits_for(worker);
        let Some(link) = self.workers.links.get_mut(&worker).filter(|link| !link.closing) else { return };
        if !link.receive(frames, waiting) {
            return self.end_worker(worker, "was killed: it flooded the server while that waited for it".into());
        }
        if !waiting {
            self.frames_wait(worker);
        }
    }

    /// Frames of a worker are handled in the next slice, or, if it leaves too much unread, when it has read that.
    pub(crate) fn frames_wait(&mut self, worker: WorkerNo) {
        let Some(link) = self.workers.links.get_mut(&worker) else { return };
        if link.closing || !link.has_frames() {
            return;
        }
        if !link.is_congested() {
            if !self.workers.with_frames.contains(&worker) {
                self.workers.with_frames.push_back(worker);
            }
        } else if !link.may_read_ahead() && !core::mem::replace(&mut link.paused, true) {
            self.out.push(Effect::PauseReading(worker));
        }
    }

    /// Handles one frame of the worker whose turn it is.
    pub(crate) fn handle_next_frame(&mut self) {
        let Some(worker) = self.workers.with_frames.pop_front() else { return };
        let Some(link) = self.workers.links.get_mut(&worker).filter(|link| !link.closing) else { return };
        if link.is_congested() {
            return self.frames_wait(worker);
        }
        if let Some(mut frames) = link.take_unhandled() {
            if let Some(body) = frames.next_body() {
                self.handle_frame(worker, body);
            }
            if let Some(link) = self.workers.links.get_mut(&worker) {
                link.put_back(frames);
            }
        } else if let Some(body) = link.take_kept() {
            self.handle_frame(worker, &body);
        }
        self.frames_wait(worker);
        let Some(link) = self.workers.links.get(&worker) else { return };
        if !link.has_frames() && matches!(link.process, Process::Ended { .. }) {
            self.end_ended(worker);
        }
    }

    /// Handles one frame of the code that the main thread waits for.
    pub(crate) fn serve_frame(&mut self, wait: WaitNo) {
        let Some(Wait { worker, caller, .. }) = self.stack.get(wait).copied() else { return };
        if let Some(body) = self.workers.links.get_mut(&worker).and_then(|link| link.take_kept_for(caller)) {
            self.handle_frame(worker, &body);
        }
    }

    /// Handles one frame. Later frames of the same read are handled when the effects of this one were performed.
    fn handle_frame(&mut self, worker: WorkerNo, body: &[u8]) {
        let handled = match FromWorker::parse(body) {
            Ok(frame) => self.dispatch(worker, frame),
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = handled {
            self.protocol_broken(worker, &reason);
        }
    }

    fn dispatch(&mut self, worker: WorkerNo, frame: FromWorker<'_>) -> Result<(), String> {
        let is_ready = self.workers.links.get(&worker).is_some_and(Link::is_ready);
        if !is_ready && !matches!(frame, FromWorker::Ready { .. } | FromWorker::Log { .. }) {
            return Err("a frame before its handshake".into());
        }
        match frame {
            FromWorker::Ready { protocol, codec, pid, python, package, isolation } => {
                self.handshake(worker, (protocol, codec), pid, Described { python, package, isolation })?;
            }
            FromWorker::ScriptDone { request, error, blob } => {
                self.script_done(worker, SessionNo(request), error, blob);
            }
            FromWorker::Call { call, exec, session, op } => {
                let caller = Caller { exec, session };
                self.call(PendingCall { worker, call, caller, as_client: false }, op);
            }
            FromWorker::Progress { exec, step } => self.progress(worker, exec, step),
            FromWorker::Output { exec, records } => self.results(worker, exec, &records),
            FromWorker::Done { exec, aborted, records, errors, step_micros } => {
                self.done(worker, exec, aborted, &records, &errors, step_micros);
            }
            FromWorker::Consumed { exec, bytes } => self.consumed(worker, exec, bytes),
            FromWorker::Stop { exec } => self.stop_reader(worker, exec),
            FromWorker::Parked { exec } => self.parked(worker, exec)?,
            FromWorker::Answered { request, result } => self.profile_answered(worker, request, result),
            FromWorker::Moved { exec, stage, shard, records } => {
                self.records_moved(worker, exec, (stage, shard), records);
            }
            FromWorker::StageEnded { exec, stage } => self.stage_ended(worker, exec, stage),
            FromWorker::Taken { exec, stage, bytes } => self.records_taken(worker, exec, stage, bytes),
            FromWorker::StageClosed { exec, stage } => self.stage_closed(worker, exec, stage),
            FromWorker::Log { session, level, message } => self.log_of_function(worker, session, level, message),
        }
        Ok(())
    }

    fn log_of_function(&mut self, worker: WorkerNo, session: Option<SessionNo>, level: LogLevel, message: &[u8]) {
        let now = self.now_ms();
        let Some(link) = self.workers.links.get_mut(&worker) else { return };
        let (admitted, note) = link.log_rate.admits_log(message, now);
        if let Some(note) = note {
            self.log(LogLevel::Warning, format!("rg: worker {worker}: log(): {note}"));
        }
        if admitted {
            let text = log_line(message);
            let line = match session {
                None => format!("rg: worker {worker}: {text}"),
                Some(_) => format!("GEARS: {text}"),
            };
            self.log(level, line);
        }
    }

    /// Logs that a worker named an execution or a session of another worker: only hostile code does. Ended ones
    /// are not reported, because threads of a script may outlive it.
    pub(crate) fn report_foreign(&mut self, worker: WorkerNo, caller: Caller) {
        let (what, owner) = match caller.exec {
            None => (
                format!("session {}", caller.session),
                self.sessions.get(caller.session).and_then(crate::sessions::session::Session::worker),
            ),
            Some(exec) => (
                format!("execution {} (as session {})", self.execution_id(exec), caller.session),
                self.live.get(&exec).and_then(|live| live.worker),
            ),
        };
        let Some(link) = self.workers.links.get_mut(&worker) else { return };
        link.foreign_frames = link.foreign_frames.saturating_add(1);
        let (count, pid) = (link.foreign_frames, link.pid);
        if let Some(owner) = owner.filter(|owner| *owner != worker && count <= FOREIGN_FRAMES_LOGGED_MAX) {
            let text = format!("rg: {}: refused a frame that names {what} of worker {owner}", described(worker, pid));
            self.log(LogLevel::Warning, text);
        }
    }
}
