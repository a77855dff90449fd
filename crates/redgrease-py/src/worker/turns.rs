//! Running a turn of an execution.

use std::sync::Arc;

use pyo3::prelude::*;
use redgrease_core::frame::{FromWorker, Records, StartFlags};
use redgrease_core::id::ExecutionNo;

use crate::child;
use crate::context::Context;
use crate::future::Waiter;
use crate::plan::unknown_plan;
use crate::run::{Ctx, Progress, Run};

use super::executions::More;
use super::shared::Worker;
use super::task::Turn;
use super::thread::WorkerThread;

/// A result has come that an execution of the worker waits for.
fn wake(exec: ExecutionNo) {
    if let Some(worker) = Worker::get() {
        worker.wake(exec);
    }
}

impl Worker {
    /// Runs a turn: until the execution ends, or has no input, or leaves the thread to others.
    pub(super) fn run_turn(&self, py: Python<'_>, thread: &Arc<WorkerThread>, mut turn: Turn) {
        let exec = turn.exec;
        thread.code().arm(py, exec);
        let ctx = Ctx { py, results: &self.connection, hooks: &self.hooks, code: thread.code() };
        let run = match turn.run.take() {
            Some(run) => run,
            None => match self.plans.get(turn.plan) {
                Some(plan) => {
                    let waiter = Waiter { exec, wake };
                    Box::new(Run::new(waiter, plan, turn.flags, turn.first_step, turn.routed.clone()))
                }
                None => return self.refuse_turn(py, thread, &turn),
            },
        };
        if turn.parked {
            return self.end_parked(ctx, thread, run, exec);
        }
        let session = run.session();
        Context { exec: Some(exec), session, is_coroutine: false }.enter();
        let mut profiling = turn.flags.has(StartFlags::PROFILE) && self.hooks.profile_begin(py, session);
        let ended = if turn.routed.is_some() {
            self.run_routed(ctx, thread, run, exec, profiling)
        } else {
            self.run_alone(ctx, thread, run, &mut turn, &mut profiling)
        };
        let Some(mut run) = ended else { return };
        if profiling {
            self.hooks.profile_end(py, session);
        }
        // From here on only destructors of the user's objects run user code.
        run.clear(py);
        self.leave_code(py, thread);
        let is_sync = turn.flags.has(StartFlags::SYNC);
        let mut schedule = self.schedule();
        run.done(|frame| self.connection.append(frame));
        // The next one of a group begins only when the server can know that this one has ended, whatever happens to this
        // process: otherwise it would run the next one again.
        if is_sync && !self.connection.publish() {
            drop(schedule);
            py.detach(|| self.connection.flush());
            schedule = self.schedule();
        }
        schedule.executions.end(exec);
        schedule.finish(thread);
        // The server is woken for the last one of a group, or when results have been waiting for a while.
        let more = schedule.executions.has_sync();
        drop(schedule);
        if is_sync && !more {
            py.detach(|| self.connection.flush());
        }
    }

    /// Runs a turn of an execution whose parts run in one place; returns it if it has ended.
    fn run_alone(
        &self,
        ctx: Ctx<'_, '_>,
        thread: &Arc<WorkerThread>,
        mut run: Box<Run>,
        turn: &mut Turn,
        profiling: &mut bool,
    ) -> Option<Box<Run>> {
        let (py, exec) = (ctx.py, turn.exec);
        loop {
            let mut waits = !self.run_input(ctx, &mut run, turn);
            if thread.code().is_aborted() {
                run.abort(ctx);
                return Some(run);
            }
            if !waits && (run.is_closed() || turn.last) {
                if !turn.last && !std::mem::replace(&mut run.stop_was_sent, true) {
                    self.connection.append(&FromWorker::Stop { exec });
                }
                if run.finish(ctx) {
                    return Some(run);
                }
                waits = true;
            }
            if waits {
                let session = run.session();
                if *profiling {
                    self.hooks.profile_end(py, session);
                }
                run = self.park(py, thread, exec, run, turn)?;
                *profiling = *profiling && self.hooks.profile_begin(py, session);
                continue;
            }
            let mut schedule = self.schedule();
            match schedule.executions.more(exec) {
                More::Unknown => return Some(run),
                More::Abort => {
                    drop(schedule);
                    thread.code().abort();
                }
                More::Input { input, last } => (turn.input, turn.last) = (input, last),
                More::Suspend => {
                    let session = run.session();
                    schedule.executions.suspend(exec, run);
                    schedule.finish(thread);
                    drop(schedule);
                    if *profiling {
                        self.hooks.profile_end(py, session);
                    }
                    self.leave_code(py, thread);
                    return None;
                }
            }
        }
    }

    /// Runs a turn of an execution that runs on several shards; returns it if it has ended.
    fn run_routed(
        &self,
        ctx: Ctx<'_, '_>,
        thread: &Arc<WorkerThread>,
        mut run: Box<Run>,
        exec: ExecutionNo,
        profiling: bool,
    ) -> Option<Box<Run>> {
        let (py, session) = (ctx.py, run.session());
        loop {
            let progress = run.advance(ctx);
            if child::is_child() {
                child::end(py, None);
            }
            if self.connection.is_due() {
                py.detach(|| self.connection.flush());
            }
            let is_first_wait = progress == Progress::NeedsResults && !run.parked_was_sent;
            run.parked_was_sent |= is_first_wait;
            let mut schedule = self.schedule();
            let back = match progress {
                Progress::Ended => return Some(run),
                Progress::More => schedule.executions.let_others_run(exec, run),
                Progress::NeedsNews | Progress::NeedsResults => schedule.executions.rest(exec, run),
            };
            let Some(mut back) = back else {
                if is_first_wait {
                    self.connection.append(&FromWorker::Parked { exec });
                }
                schedule.finish(thread);
                drop(schedule);
                if profiling {
                    self.hooks.profile_end(py, session);
                }
                self.leave_code(py, thread);
                return None;
            };
            drop(schedule);
            back.parked_was_sent &= !is_first_wait;
            run = back;
        }
    }

    /// The execution waits for coroutines or futures: the thread leaves it. Returns it if a result has come meanwhile.
    fn park(
        &self,
        py: Python<'_>,
        thread: &Arc<WorkerThread>,
        exec: ExecutionNo,
        mut run: Box<Run>,
        turn: &mut Turn,
    ) -> Option<Box<Run>> {
        let is_first = !std::mem::replace(&mut run.parked_was_sent, true);
        let mut schedule = self.schedule();
        let input = std::mem::take(&mut turn.input);
        if let Some(back) = schedule.executions.park(exec, run, input) {
            drop(schedule);
            let mut back = back;
            back.parked_was_sent = !is_first;
            if let Some(input) = self.schedule().executions.take_input(exec) {
                (turn.input, turn.last) = input;
            }
            return Some(back);
        }
        if is_first {
            self.connection.append(&FromWorker::Parked { exec });
        }
        schedule.finish(thread);
        drop(schedule);
        self.leave_code(py, thread);
        if turn.flags.has(StartFlags::SYNC) && is_first {
            // The server's main thread waits for it.
            py.detach(|| self.connection.flush());
        }
        None
    }

    /// Ends an execution that was aborted while it waited.
    fn end_parked(&self, ctx: Ctx<'_, '_>, thread: &Arc<WorkerThread>, mut run: Box<Run>, exec: ExecutionNo) {
        thread.code().disarm(ctx.py);
        run.abandon(ctx);
        run.clear(ctx.py);
        self.leave_code(ctx.py, thread);
        let mut schedule = self.schedule();
        self.report_aborted(exec);
        schedule.executions.end(exec);
        schedule.finish(thread);
    }

    /// Reports that an execution ended by an abort, without results.
    pub(super) fn report_aborted(&self, exec: ExecutionNo) {
        self.connection.append(&FromWorker::Done {
            exec,
            aborted: true,
            records: Records::default(),
            errors: Vec::new(),
            step_micros: Vec::new(),
        });
    }

    /// Runs the available input, and returns it as credit; `false` if the execution waits and cannot take more.
    fn run_input(&self, ctx: Ctx<'_, '_>, run: &mut Run, turn: &mut Turn) -> bool {
        if !run.proceed(ctx) {
            return false;
        }
        while let Some(batch) = turn.input.pop_front() {
            let bytes = batch.bytes.len() as u64;
            run.feed(batch.count, batch.bytes);
            let all = run.proceed(ctx);
            if child::is_child() {
                child::end(ctx.py, None);
            }
            if bytes > 0 {
                self.connection.append(&FromWorker::Consumed { exec: turn.exec, bytes });
            }
            if self.connection.is_due() {
                ctx.py.detach(|| self.connection.flush());
            }
            if !all {
                return false;
            }
        }
        true
    }

    /// Ends an execution whose plan is unknown.
    fn refuse_turn(&self, py: Python<'_>, thread: &Arc<WorkerThread>, turn: &Turn) {
        let text = self.hooks.describe(py, unknown_plan(py, turn.plan), false);
        self.leave_code(py, thread);
        let mut schedule = self.schedule();
        self.connection.append(&FromWorker::Done {
            exec: turn.exec,
            aborted: false,
            records: Records::default(),
            errors: vec![&text],
            step_micros: Vec::new(),
        });
        schedule.executions.end(turn.exec);
        schedule.finish(thread);
    }
}
