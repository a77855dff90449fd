//! What each frame of the server does.

use std::time::Duration;

use pyo3::prelude::*;
use redgrease_core::codec::CODEC_VERSION;
use redgrease_core::frame::{FromWorker, PROTOCOL_VERSION, ToWorker};

use crate::context::set_cluster;
use crate::exit::{fatal, kill_self};
use crate::run::{Batch, News, Route};

use super::calls::CallError;
use super::executions::Start;
use super::schedule::{Actions, Schedule};
use super::shared::Worker;
use super::task::{Function, Job};

/// How long Python code has to exit.
const EXIT_TIME: Duration = Duration::from_millis(500);

impl Worker {
    /// Handles a frame; returns whether it answered a call of a thread.
    pub(super) fn handle(&'static self, schedule: &mut Schedule, frame: ToWorker<'_>, actions: &mut Actions) -> bool {
        match frame {
            ToWorker::Hello { protocol, threads, record_bytes_max, spin_micros, .. } => {
                check_protocol(protocol);
                schedule.set_runners_max(threads);
                self.connection.set_record_bytes_max(record_bytes_max as usize);
                self.connection.set_spin_micros(spin_micros);
                self.connection.append(&FromWorker::Ready {
                    protocol: PROTOCOL_VERSION,
                    codec: CODEC_VERSION,
                    pid: u64::from(std::process::id()),
                    python: &self.identity.python,
                    package: &self.identity.package,
                    isolation: &self.identity.isolation,
                });
            }
            ToWorker::Script { request, session, name, source, paths, traceback, tagged } => {
                schedule.add_job(Job::Script {
                    request,
                    session: session.0,
                    name: name.to_owned(),
                    source: source.to_vec(),
                    paths: owned(paths),
                    traceback,
                    tagged,
                });
            }
            ToWorker::Load { request, session, name, function, paths, traceback } => {
                schedule.executions.plan_is_loading(function.plan.0);
                schedule.add_job(Job::Load {
                    request,
                    session: session.0,
                    name: name.to_owned(),
                    function: Function::of(function),
                    paths: owned(paths),
                    traceback,
                });
            }
            ToWorker::Restore { request, session, name, function, blobs, paths } => schedule.add_job(Job::Restore {
                request,
                session: session.0,
                name: name.to_owned(),
                function: function.map(Function::of),
                blobs: blobs.into_iter().map(<[u8]>::to_vec).collect(),
                paths: owned(paths),
            }),
            ToWorker::Registered { plan } => schedule.add_job(Job::Registered { plan: plan.0 }),
            ToWorker::ForgetPlans { plans } => {
                schedule.add_job(Job::ForgetPlans { plans: plans.iter().map(|plan| plan.0).collect() });
            }
            ToWorker::ForgetSession { session } => schedule.add_job(Job::ForgetSession { session: session.0 }),
            ToWorker::Profile { request, session, order } => {
                schedule.add_job(Job::Profile { request, session: session.0, order: order.map(str::to_owned) });
            }
            ToWorker::Route { exec, here, shards, slots, window } => match Route::new(here, shards, slots, window) {
                Some(route) => schedule.executions.route(exec, route),
                None => fatal(&format!("the server sent a route of execution {exec} that contradicts itself")),
            },
            ToWorker::Arrived { exec, stage, last, records } => {
                schedule.executions.deliver(exec, News::Arrived { stage, batch: Batch::of(records), last });
            }
            ToWorker::Room { exec, stage, bytes } => schedule.executions.deliver(exec, News::Room { stage, bytes }),
            ToWorker::CloseStage { exec, stage } => schedule.executions.deliver(exec, News::Close { stage }),
            ToWorker::Cluster { several } => set_cluster(several),
            ToWorker::Start { exec, plan, lane, flags, first_step, records } => {
                let start = Start { plan: plan.0, lane, flags, first_step };
                schedule.executions.start(exec, start, Batch::of(records));
            }
            ToWorker::Feed { exec, last, records } => schedule.executions.feed(exec, last, Batch::of(records)),
            ToWorker::Abort { exec, begun } => {
                if schedule.abort(exec, begun, actions) {
                    self.report_aborted(exec);
                }
            }
            ToWorker::Reply { call, result } if schedule.calls.take_awaited(call) => {
                let answer = result.map(<[u8]>::to_vec).map_err(str::to_owned);
                schedule.add_job(Job::Answer { call, answer });
            }
            ToWorker::Reply { call, result } => {
                let answer = result.map(<[u8]>::to_vec).map_err(|text| CallError::Text(text.to_owned()));
                if let Some(thread) = schedule.calls.answer(call, answer) {
                    actions.unpark.push(thread);
                    return true;
                }
            }
            ToWorker::Threads { threads } => schedule.set_runners_max(threads),
            ToWorker::Shutdown => {
                schedule.end();
                self.exit();
            }
        }
        false
    }

    /// Exits the process from a separate thread, whatever user code does.
    fn exit(&'static self) {
        let polite = std::thread::Builder::new().spawn(|| {
            self.connection.flush();
            Python::attach(|py| self.hooks.sessions.call_method0(py, "exit").map(drop))
        });
        let strict = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(EXIT_TIME);
            kill_self();
        });
        if polite.is_err() || strict.is_err() {
            kill_self();
        }
    }
}

fn check_protocol(protocol: u64) {
    if protocol != PROTOCOL_VERSION {
        fatal(&format!(
            "the server speaks version {protocol} of the worker protocol and this package {PROTOCOL_VERSION}: install the package that belongs to the module"
        ));
    }
}

fn owned(texts: Vec<&str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}
