//! Running a turn of an execution.

use std::sync::Arc;

use pyo3::prelude::*;
use redgrease_core::frame::{FromWorker, Records, StartFlags};

use crate::child;
use crate::context::Context;
use crate::plan::unknown_plan;
use crate::run::{Ctx, Run};

use super::executions::More;
use super::shared::Worker;
use super::task::Turn;
use super::thread::WorkerThread;

impl Worker {
    /// Runs a turn: until the execution ends, or has no input, or leaves the thread to others.
    pub(super) fn run_turn(&self, py: Python<'_>, thread: &Arc<WorkerThread>, mut turn: Turn) {
        let exec = turn.exec;
        thread.code().arm(py, exec);
        let ctx = Ctx { py, connection: &self.connection, hooks: &self.hooks, code: thread.code() };
        let mut run = match turn.run.take() {
            Some(run) => run,
            None => match self.plans.get(turn.plan) {
                Some(plan) => Box::new(Run::new(exec, plan, turn.flags, turn.first_step)),
                None => return self.refuse_turn(py, thread, &turn),
            },
        };
        Context { exec: Some(exec), session: run.session() }.enter();
        let profiling = turn.flags.has(StartFlags::PROFILE) && self.hooks.profile_begin(py, run.session());
        loop {
            self.run_input(ctx, &mut run, &mut turn);
            if thread.code().is_aborted() {
                run.abort(ctx);
            }
            if run.is_closed() || turn.last {
                break;
            }
            let mut schedule = self.schedule();
            match schedule.executions.more(exec) {
                More::Unknown => break,
                More::Abort => {
                    drop(schedule);
                    thread.code().abort();
                }
                More::Input { input, last } => (turn.input, turn.last) = (input, last),
                More::Suspend => {
                    if profiling {
                        self.hooks.profile_end(py, run.session());
                    }
                    schedule.executions.suspend(exec, run);
                    schedule.finish(thread);
                    drop(schedule);
                    return self.leave_code(py, thread);
                }
            }
        }
        if run.is_closed() && !turn.last {
            self.connection.append(&FromWorker::Stop { exec });
        }
        run.finish(ctx);
        if profiling {
            self.hooks.profile_end(py, run.session());
        }
        // From here on only destructors of the user's objects run user code.
        run.clear(py);
        self.leave_code(py, thread);
        let mut schedule = self.schedule();
        run.done(|frame| self.connection.append(frame));
        schedule.executions.end(exec);
        schedule.finish(thread);
        // The next one of a group runs at once: their results leave together, or when they have been waiting for a while.
        let more = schedule.executions.has_sync();
        drop(schedule);
        if turn.flags.has(StartFlags::SYNC) && !more {
            py.detach(|| self.connection.flush());
        }
    }

    /// Runs the available input, and returns it as credit.
    fn run_input(&self, ctx: Ctx<'_, '_>, run: &mut Run, turn: &mut Turn) {
        while let Some(batch) = turn.input.pop_front() {
            run.feed(ctx, batch.count, &batch.bytes);
            if child::is_child() {
                child::end(ctx.py, None);
            }
            if !batch.bytes.is_empty() {
                let bytes = batch.bytes.len() as u64;
                self.connection.append(&FromWorker::Consumed { exec: turn.exec, bytes });
            }
            if self.connection.is_due() {
                ctx.py.detach(|| self.connection.flush());
            }
        }
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
