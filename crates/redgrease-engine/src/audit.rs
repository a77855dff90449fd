//! Internal state for the simulation: counts of everything that must end, and
//! inconsistencies between the parts.

use redgrease_core::id::{Database, PlanNo, RegistrationNo, SessionNo};
use redgrease_core::pattern::KeyFilter;
use redgrease_core::plan::{FailurePolicy, Mode, Trigger};

use crate::calls::stack::Until;
use crate::engine::Engine;
use crate::executions::live::{Launch, Source};
use crate::id::TimerNo;
use crate::limits::{DEFERRED_BYTES_MAX, DEFERRED_MAX, KEPT_BYTES_MAX, KEPT_FRAMES_MAX, UNSENT_BYTES_MAX};
use crate::prelude::*;
use crate::sessions::session::{Place, Session};
use crate::streams::runs::{Action, StreamStatus};
use crate::timers::Timer;
use crate::workers::link::Process;

/// A registration, as far as the simulation checks it.
#[derive(Debug, Clone)]
pub struct AuditedRegistration {
    /// Its number.
    pub number: RegistrationNo,
    /// Its plan in the worker.
    pub plan: PlanNo,
    /// Its session.
    pub session: SessionNo,
    /// The user that its functions act as.
    pub user: Rc<str>,
    /// Its database.
    pub database: Database,
    /// Its session cannot be rebuilt, or waits for a worker.
    pub down: bool,
    /// Its functions run while the main thread waits.
    pub sync: bool,
    /// Executions that were created or failed to be.
    pub triggered: u64,
    /// Executions that ended.
    pub ended: u64,
    /// How it reads streams.
    pub stream: Option<AuditedStreams>,
}

/// How a registration reads streams.
#[derive(Debug, Clone)]
pub struct AuditedStreams {
    /// The consumer group.
    pub group: Vec<u8>,
    /// Entries that start a run.
    pub batch: u64,
    /// Fewer entries start a run after some time, too.
    pub timed: bool,
    /// Failed batches are acknowledged.
    pub continues: bool,
    /// It reads entries as they arrive.
    pub reads: bool,
    /// The filter of its streams.
    filter: KeyFilter,
}

impl AuditedStreams {
    /// Whether it reads a stream.
    #[must_use]
    pub fn matches(&self, key: &[u8]) -> bool {
        self.filter.matches(key)
    }
}

/// The state of the engine, see [`Engine::audit`].
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// What must have ended when the engine is idle: names and numbers.
    pub unfinished: Vec<(&'static str, usize)>,
    /// All timers; `true`: one that is set again periodically.
    pub timers: Vec<(TimerNo, String, bool)>,
    /// All registrations.
    pub registrations: Vec<AuditedRegistration>,
    /// Sessions that exist, and those that own registrations.
    pub sessions: [usize; 2],
    /// Workers, starting ones included.
    pub workers: usize,
    /// Inconsistencies.
    pub inconsistencies: Vec<String>,
}

impl Audit {
    /// What has not ended.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let counts = self.unfinished.iter().filter(|(_, count)| *count > 0);
        let timers = self.timers.iter().filter(|(_, _, periodic)| !periodic);
        counts
            .map(|(name, count)| format!("{count} {name}"))
            .chain(timers.map(|(number, timer, _)| format!("timer {number} {timer}")))
            .collect()
    }
}

impl Engine {
    /// The state of each execution on several shards, for the message of a failed check.
    #[must_use]
    pub fn shared_executions(&self) -> Vec<String> {
        let shared = self.live.iter().filter_map(|(number, live)| Some((number, live, live.shared.as_ref()?)));
        shared
            .map(|(number, live, shared)| {
                format!("{} as {number} in {:?}: {}", shared.id, live.worker, shared.summary())
            })
            .collect()
    }

    /// Examines everything. Must be called when no effect is being performed.
    #[must_use]
    pub fn audit(&self) -> Audit {
        let mut audit = Audit {
            unfinished: self.unfinished(),
            timers: self.timers.iter().map(|(number, timer)| self.audited_timer(number, timer)).collect(),
            registrations: self.audited_registrations(),
            sessions: [self.sessions.len(), self.sessions.iter().filter(|(_, session)| session.registered).count()],
            workers: self.workers.pool.len(),
            inconsistencies: Vec::new(),
        };
        let found = &mut audit.inconsistencies;
        found.extend(self.schedule.inconsistencies());
        found.extend(self.pending.inconsistencies());
        self.audit_main_thread(found);
        self.audit_sessions(found);
        self.audit_executions(found);
        self.audit_links(found);
        self.audit_streams(found);
        audit
    }

    fn unfinished(&self) -> Vec<(&'static str, usize)> {
        let [jobs, due, walks] = self.sync.counts();
        let scripts = self.sessions.iter().filter(|(_, session)| session.script.is_some()).count();
        let held = self.sessions.iter().map(|(_, session)| session.held.len()).sum();
        vec![
            ("live executions", self.live.len()),
            ("scripts", scripts),
            ("sessions without an interpreter", self.workers.interpreters.waiting_count()),
            ("waits", self.stack.waits.len()),
            ("running commands", self.stack.command_count()),
            ("atomic blocks", usize::from(self.stack.atomic.is_some())),
            ("open questions", self.questions.len()),
            ("deferred calls", self.deferred.size().0),
            ("jobs", jobs),
            ("sync events", due),
            ("sync events of walks", walks),
            ("sync executions over streams", self.sync.streams.len()),
            ("row answers", self.rows.len()),
            ("held executions", held),
            ("batches", self.batches.iter().count()),
            ("removals", self.batches.removals().count()),
            ("fired executions", self.fired.len()),
            ("sync triggers", self.sync_triggers.iter().count()),
            ("profiles", self.profiles.len()),
            ("clients that wait for events", self.interceptions.len()),
            ("starting executions", self.starting.len()),
            ("pending events", self.pending.len()),
            ("outcomes", self.outcomes.len()),
            ("installations", self.installs.sessions().len()),
            ("wheels that are sent", self.wheels.sharing.len()),
            ("workers with frames", self.workers.with_frames.len()),
        ]
    }

    fn audited_timer(&self, number: TimerNo, timer: &Timer) -> (TimerNo, String, bool) {
        let waits = |session: &SessionNo| {
            self.sessions.get(*session).is_some_and(|session| session.registered && session.place == Place::Waiting)
        };
        let periodic = match timer {
            Timer::LookAtWorkers | Timer::LookAtMemory | Timer::LookAtLinks => true,
            // No worker may serve it as long as all workers serve others.
            Timer::WorkerWait(session) | Timer::WorkerAgain(session) => waits(session),
            _ => false,
        };
        (number, format!("{timer:?}"), periodic)
    }

    fn audited_registrations(&self) -> Vec<AuditedRegistration> {
        let audited = self.registrations.iter().map(|(number, registration)| {
            let session = self.sessions.get(registration.session);
            let stream = match &registration.trigger {
                Trigger::Stream { filter, batch, duration_ms, on_failed, .. } => Some(AuditedStreams {
                    filter: filter.clone(),
                    group: registration.group.clone().into_bytes(),
                    batch: *batch,
                    timed: *duration_ms > 0,
                    continues: *on_failed == FailurePolicy::Continue,
                    reads: self.streams.get(&number).is_some_and(|followed| followed.runs.status() == StreamStatus::Ok),
                }),
                _ => None,
            };
            let statistics = &registration.statistics;
            AuditedRegistration {
                number,
                plan: registration.plan,
                session: registration.session,
                user: session.map_or_else(|| "".into(), |session| Rc::clone(&session.user)),
                database: registration.database,
                down: session.is_none_or(|session| session.up_in().is_none()),
                sync: registration.spec.mode == Mode::Sync,
                triggered: statistics.triggered,
                ended: statistics.success + statistics.failures + statistics.aborted,
                stream,
            }
        });
        audited.collect()
    }

    fn audit_main_thread(&self, found: &mut Vec<String>) {
        if self.sync.keys_running > 0 || self.sync.streams_running {
            let (keys, streams) = (self.sync.keys_running, self.sync.streams_running);
            found.push(format!("{keys} sync functions of keys are said to run, of streams: {streams}"));
        }
        if !self.stack.waits.is_empty() || self.stack.command_count() > 0 || self.stack.atomic.is_some() {
            found.push(format!("the main thread is said to wait: {:?}", self.stack));
        }
        if self.questions.len() > 0 || !self.outcomes.is_empty() {
            found.push(format!("{} questions are open, {} outcomes wait", self.questions.len(), self.outcomes.len()));
        }
        let (calls, bytes) = self.deferred.size();
        if calls > DEFERRED_MAX || bytes > DEFERRED_BYTES_MAX || (calls == 0 && bytes > 0) {
            found.push(format!("{calls} calls with {bytes} bytes are deferred"));
        }
    }

    fn audit_sessions(&self, found: &mut Vec<String>) {
        let mut leased = BTreeMap::new();
        for (worker, sessions) in self.workers.pool.leases() {
            for session in sessions {
                if leased.insert(*session, worker).is_some() {
                    found.push(format!("session {session} has two workers"));
                }
            }
        }
        for (session, worker) in &leased {
            if self.sessions.get(*session).and_then(Session::worker) != Some(*worker) {
                let place = self.sessions.get(*session).map(|session| &session.place);
                found.push(format!("session {session} leases worker {worker}, and its place is {place:?}"));
            }
        }
        for (number, session) in self.sessions.iter() {
            if let Some(worker) = session.worker()
                && leased.get(&number) != Some(&worker)
            {
                found.push(format!("session {number} is in worker {worker} without a lease"));
            }
            let live = self.live.values().filter(|live| live.session == number).count();
            if live != session.live {
                found.push(format!("session {number} counts {} executions and has {live}", session.live));
            }
            if session.is_unused() {
                found.push(format!("session {number} is not used by anything"));
            }
            let registered = !self.registrations.of_session(number).is_empty();
            if registered != session.registered {
                found
                    .push(format!("session {number} owns registrations: {registered}, it says {}", session.registered));
            }
            let waits = self.sessions.waiting.iter().filter(|other| **other == number).count();
            if waits > 1 || (waits == 1 && session.place != Place::Waiting) {
                found.push(format!("session {number} waits {waits} times for a worker in place {:?}", session.place));
            }
            self.audit_waiting(number, session, waits, found);
        }
        if let Some(gone) = self.sessions.waiting.iter().find(|session| self.sessions.get(**session).is_none()) {
            found.push(format!("session {gone} waits for a worker and is gone"));
        }
    }

    /// A session without worker waits for one, for requirements, or for the next attempt.
    fn audit_waiting(&self, number: SessionNo, session: &Session, waits: usize, found: &mut Vec<String>) {
        let asks_again = |(_, timer): (TimerNo, &Timer)| matches!(timer, Timer::WorkerAgain(other) if *other == number);
        // What the engine runs by itself needs no worker.
        let needs_worker = session.script.is_some() || session.registered;
        if session.place == Place::Waiting
            && needs_worker
            && waits == 0
            && !self.workers.interpreters.waits(number)
            && !self.installs.sessions().contains(&number)
            && !self.wheels.sharing.contains_key(&session.stored.environment)
            && !self.timers.iter().any(asks_again)
        {
            found.push(format!("session {number} has no worker and nothing will give it one"));
        }
    }

    fn audit_executions(&self, found: &mut Vec<String>) {
        for (number, live) in &self.live {
            let session = self.sessions.get(live.session);
            let in_session = session.is_some_and(|session| {
                session.held.contains(number)
                    || session.script.as_ref().is_some_and(|script| script.run == Some(*number))
            });
            let waited_for = self.stack.waits.iter().any(|wait| wait.until == Until::Ended(*number));
            // Nothing waits for it any more when the driver failed while it did.
            let sync = live.started && matches!(live.launch, Launch::Sync { .. });
            let native = live.native.is_some() && live.started_ms.is_some();
            let placed = live.parked
                || self.schedule.holds(*number)
                || in_session
                || waited_for
                || sync
                || native
                || self.fired.contains(number)
                || self.sync_triggers.iter().any(|waiting| waiting == *number)
                || self.sync.streams.contains(number);
            if !placed {
                found.push(format!("execution {number} waits for nothing and has not ended"));
            }
            if let Some(worker) = live.worker.filter(|worker| !self.workers.links.contains_key(worker)) {
                found.push(format!("execution {number} runs in worker {worker}, which is gone"));
            }
            if self.executions.get(*number).is_none_or(|execution| execution.status().is_final()) {
                found.push(format!("execution {number} is live and not in the list, or has ended there"));
            }
        }
        let listed = self.executions.iter().filter(|(_, execution)| !execution.status().is_final());
        if let Some((number, _)) = listed.into_iter().find(|(number, _)| !self.live.contains_key(number)) {
            found.push(format!("execution {number} is listed as not ended and is not live"));
        }
        for (registration, taken) in self.pending.taken() {
            let mine = self.live.values().filter(|live| live.from_pending && live.registration == Some(registration));
            let live = mine.count();
            if live != taken {
                found.push(format!("registration {registration} has {live} executions of events, {taken} are counted"));
            }
        }
        if let Some(number) = self.readers.blocked().find(|number| self.has_room(*number)) {
            found.push(format!("the reader of execution {number} has room and is not read"));
        }
        if let Some(number) = self
            .live
            .keys()
            .find(|number| self.readers.is_ready(**number) && self.readers.blocked().any(|blocked| blocked == **number))
        {
            found.push(format!("the reader of execution {number} is ready and blocked"));
        }
    }

    fn audit_links(&self, found: &mut Vec<String>) {
        for (worker, link) in &self.workers.links {
            let waits = self.workers.with_frames.contains(worker);
            if link.closing {
                found.push(format!("worker {worker} was ended and is still there"));
            }
            if link.has_frames() && !waits && !link.is_congested() {
                found.push(format!("frames of worker {worker} wait and nothing will handle them"));
            }
            if matches!(link.process, Process::Ended { .. }) && !link.has_frames() {
                found.push(format!("the process of worker {worker} has ended and it is still there"));
            }
            let (frames, bytes) = link.kept_size();
            if frames > KEPT_FRAMES_MAX || bytes > KEPT_BYTES_MAX || link.unsent() > UNSENT_BYTES_MAX {
                found.push(format!(
                    "{frames} frames ({bytes} bytes) of worker {worker} are kept, {} wait",
                    link.unsent()
                ));
            }
        }
    }

    /// A run that is in flight has an execution, or will have one.
    fn audit_streams(&self, found: &mut Vec<String>) {
        if self.at.server.replica {
            return;
        }
        for (number, followed) in &self.streams {
            let epoch = followed.runs.epoch();
            for stream in followed.runs.running() {
                let runs = |action: Option<&Action>| matches!(action, Some(Action::Run { stream: other, epoch: of, .. }) if other == stream && *of == epoch);
                let executes = self.live.values().any(|live| {
                    let waiting = if let Source::Stream(run) = &live.source { Some(run) } else { None };
                    live.stream_run.as_ref().or(waiting).is_some_and(|run| {
                        run.source.registration == *number && run.stream == stream && run.epoch == epoch
                    })
                });
                let of_batch = |(_, batch): (_, &crate::streams::batch::Batch)| {
                    batch.source.registration == *number && runs(batch.then.as_ref())
                };
                let of_timer = |(_, timer): (TimerNo, &Timer)| matches!(timer, Timer::StreamAction(of, action) if of == number && runs(Some(action)));
                if !executes && !self.batches.iter().any(of_batch) && !self.timers.iter().any(of_timer) {
                    let stream = String::from_utf8_lossy(stream);
                    found.push(format!("registration {number} is said to run over stream '{stream}' and does not"));
                }
            }
        }
        for (number, batch) in self.batches.iter() {
            let again = |(_, timer): (TimerNo, &Timer)| matches!(timer, Timer::Acknowledge(other) if *other == number);
            if !self.batches.ready.contains(&number) && !self.timers.iter().any(again) {
                let (done, all) = (batch.done, batch.ids.len());
                found.push(format!("batch {number} makes no progress: {done} of {all} entries are acknowledged"));
            }
        }
        for number in self.batches.removals() {
            let again = |(_, timer): (TimerNo, &Timer)| matches!(timer, Timer::RemoveGroup(other) if *other == number);
            if !self.timers.iter().any(again) {
                found.push(format!("removal {number} makes no progress"));
            }
        }
    }
}
