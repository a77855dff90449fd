//! Sync executions of events: when they run, and their order.

use crate::effect::Effect;
use crate::engine::Engine;
use crate::events::sync::{SyncRun, Walk};
use crate::id::JobNo;
use crate::planted::Bug;
use crate::step::Next;
use crate::work::Work;
use redgrease_core::id::ExecutionNo;

impl Engine {
    /// Inside a notification: runs a sync execution when the command that caused it has ended and been logged, so that
    /// replicas see its effects after those of the command, and before the command is answered. Returns whether it
    /// will be run.
    pub(crate) fn run_after_command(&mut self, run: SyncRun, walk: Walk) -> bool {
        let Some(run) = self.run_after_own_command(run) else { return true };
        if walk == Walk::No && self.capabilities.jobs {
            let job = self.sync.add_job(run);
            self.out.push(Effect::AfterCommand(job));
            return true;
        }
        match run {
            SyncRun::Key(event) => self.sync.push(event, walk),
            // They are already queued.
            SyncRun::Streams => true,
        }
    }

    /// The server refuses the job: the execution waits as on a server without jobs.
    pub(crate) fn job_refused(&mut self, job: JobNo) {
        if let Some(SyncRun::Key(event)) = self.sync.take_job(job) {
            let registration = event.registration;
            if !self.sync.push(event, Walk::No) {
                self.count_aborted(registration);
            }
        }
    }

    /// The command that fired a job has ended.
    pub(crate) fn job_is_due(&mut self, job: JobNo) {
        if let Some(run) = self.sync.take_job(job) {
            if let SyncRun::Key(event) = &run
                && self.planted(Bug::JobRunTwice)
            {
                self.then(Next::RunSync(SyncRun::Key(event.clone())));
            }
            self.run_sync_event(run);
        }
    }

    /// Runs a sync execution that waited for the end of a command.
    pub(crate) fn run_sync_event(&mut self, run: SyncRun) {
        match run {
            SyncRun::Streams => self.run_sync_streams(),
            SyncRun::Key(event) => {
                let Some(execution) = self.event_execution(event) else { return };
                self.sync.keys_running += 1;
                self.run_sync(execution, false);
                self.then(Next::SyncKeyEnded);
            }
        }
    }

    /// A sync execution of a key event has ended.
    pub(crate) fn sync_key_ended(&mut self) {
        self.sync.keys_running = self.sync.keys_running.saturating_sub(1);
    }

    /// Runs executions that commands triggered and that clients wait for.
    pub(crate) fn run_owed(&mut self) {
        if let Some(event) = self.sync.pop_due() {
            self.run_sync_event(SyncRun::Key(event));
            return self.then(Next::RunOwed);
        }
        if !self.sync.streams.is_empty() {
            self.run_sync_streams();
        }
    }

    /// Runs a sync execution of an event of the server's own iterations.
    pub(crate) fn run_walk(&mut self) {
        if let Some(event) = self.sync.pop_walk() {
            self.run_sync_event(SyncRun::Key(event));
        }
    }

    /// Runs a sync execution over a stream: after the command that fired it, so that replicas see its effects after the
    /// entry itself. Executions that the run triggers wait for its end.
    pub(crate) fn sync_stream_execution(&mut self, execution: ExecutionNo) {
        self.sync.streams.push_back(execution);
        if self.at.server.notifying {
            self.run_after_command(SyncRun::Streams, Walk::No);
        } else {
            self.run_sync_streams();
        }
    }

    /// Runs waiting sync executions over streams, one after the other.
    pub(crate) fn run_sync_streams(&mut self) {
        if self.sync.streams_running || self.sync.streams.is_empty() {
            return;
        }
        self.sync.streams_running = true;
        self.sync_streams_since_ms = self.now_ms();
        self.next_sync_stream();
    }

    /// The next one, unless this series has lasted long enough: the entries of one command are processed at once, a backlog
    /// yields to others.
    pub(crate) fn next_sync_stream(&mut self) {
        let lasted = self.now_ms().saturating_sub(self.sync_streams_since_ms);
        let is_spent = u128::from(lasted) >= Work::SyncStreams.slice().as_millis();
        match if is_spent { None } else { self.sync.streams.pop_front() } {
            Some(execution) => {
                self.run_sync(execution, false);
                self.then(Next::SyncStream);
            }
            None => self.sync.streams_running = false,
        }
    }
}
