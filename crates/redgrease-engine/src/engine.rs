//! The engine: its parts, and the dispatch of inputs to them.
//!
//! Each part owns its state and decides only about that. What involves several parts is in the files of
//! `flow`, a file per subject; they are methods of [`Engine`], so that the order in which parts are updated is in one
//! place each time.

use redgrease_core::frame::LogLevel;
use redgrease_core::id::{ShardId, WorkerNo};
use redgrease_core::render::Reply;
use redgrease_core::saved::SavedSession;

use crate::asked::{Asked, Questions};
use crate::calls::deferred::Deferred;
use crate::calls::facts::Facts;
use crate::calls::stack::{self, Stack, Until};
use crate::clients::Client;
use crate::cluster::Cluster;
use crate::cluster::changes::Changes;
use crate::cluster::functions::Functions;
use crate::cluster::inquiries::Inquiries;
use crate::cluster::topology::Topology;
use crate::cluster::versions::Versions;
use crate::config::Config;
use crate::effect::{Answer, Effect, Question};
use crate::error::Error;
use crate::events::interceptions::Interceptions;
use crate::events::pending::PendingEvents;
use crate::events::sync::SyncEvents;
use crate::events::time_events::TimeEvents;
use crate::executions::execution::Executions;
use crate::executions::live::LiveExecutions;
use crate::executions::nested::Nested;
use crate::executions::outcome::Outcome;
use crate::executions::readers::Readers;
use crate::executions::schedule::Schedule;
use crate::executions::sync_triggers::SyncTriggers;
use crate::id::WaitNo;
use crate::input::{Input, Situation};
use crate::limits::CLOSED_MS_MAX;
use crate::planted::Bug;
use crate::prelude::*;
use crate::registrations::dump::Rows;
use crate::registrations::registry::Registrations;
use crate::requirements::installs::Installs;
use crate::requirements::wheels::Wheels;
use crate::sessions::all::Sessions;
use crate::sessions::profiles::Profiles;
use crate::step::{Next, Step};
use crate::streams::batch::Batches;
use crate::streams::held::Held;
use crate::streams::run::Followed;
use crate::timers::{Timer, Timers};
use crate::work::Work;
use crate::workers::interpreters;
use crate::workers::link::{Link, Process};
use crate::workers::pool::{Limits, Pool};
use redgrease_core::id::{ExecutionNo, RegistrationNo};

/// Optional capabilities of a driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The server runs a job when the command that fired a notification has ended (Redis 7.2 and newer, Valkey).
    pub jobs: bool,
}

/// Worker processes.
#[derive(Debug)]
pub(crate) struct Workers {
    /// The sessions of each worker.
    pub(crate) pool: Pool,
    /// The connections.
    pub(crate) links: BTreeMap<WorkerNo, Link>,
    /// Those with frames to be handled, in turn.
    pub(crate) with_frames: VecDeque<WorkerNo>,
    /// What they can be started with.
    pub(crate) interpreters: interpreters::Known,
    /// Why the last start failed.
    pub(crate) start_error: Option<String>,
    /// Unexpected ends.
    pub(crate) deaths: u64,
    /// A check of idle workers is scheduled.
    pub(crate) trimming: bool,
    /// It was logged that the kernel lacks means of isolation.
    pub(crate) isolation_reported: bool,
}

/// The nesting depth of the main thread in waits, commands and sync executions: see [`Engine::unwind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    stack: stack::Depth,
    keys_running: u32,
    streams_running: bool,
    atomic: bool,
}

/// The engine of one shard.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) capabilities: Capabilities,
    /// The workers' interpreter, or why there is none.
    pub(crate) runtime: Result<String, String>,
    /// Hexadecimal digits that make the names of this run of the server unique.
    pub(crate) run_id: String,
    /// The shard in identifiers.
    pub(crate) shard: ShardId,
    pub(crate) topology: Topology,
    /// Milliseconds since 1970 when the clock was zero.
    pub(crate) unix_offset_ms: u64,
    /// Versions of changes of the registrations, here and on other shards.
    pub(crate) versions: Versions,
    /// Sessions that wait for triggers of sessions with earlier versions.
    pub(crate) inactive: BTreeMap<String, SavedSession>,
    /// Changes of the registrations that other shards have not answered.
    pub(crate) changes: Changes,
    /// Number of changes that were sent to other shards.
    pub(crate) changes_made: u64,
    /// The change that was sent last, and to which shards, until it is known what happens when they have it.
    pub(crate) last_change: Option<(u64, BTreeSet<ShardId>)>,
    /// Functions of other shards, and which of ours they have.
    pub(crate) functions: Functions,
    /// Questions to other shards.
    pub(crate) inquiries: Inquiries,
    /// Registrations are compared with those of other shards.
    pub(crate) comparing: bool,
    /// Shards that had other registrations: the digest there, and here.
    pub(crate) differs: BTreeMap<ShardId, (u64, u64)>,
    /// The other shards.
    pub(crate) cluster: Cluster,
    /// The situation of the input that is being handled.
    pub(crate) at: Situation,
    /// The effects of the input that is being handled.
    pub(crate) out: Vec<Effect>,

    pub(crate) timers: Timers,
    pub(crate) questions: Questions,
    pub(crate) workers: Workers,
    pub(crate) sessions: Sessions,
    pub(crate) installs: Installs,
    pub(crate) wheels: Wheels,
    pub(crate) executions: Executions,
    pub(crate) live: LiveExecutions,
    pub(crate) schedule: Schedule,
    pub(crate) sync_triggers: SyncTriggers,
    /// Clients that wait for the profile of a session.
    pub(crate) profiles: Profiles,
    /// A tick of the schedule is scheduled.
    pub(crate) ticking: bool,
    /// Executions that were started and read their first records, one after the other.
    pub(crate) starting: VecDeque<ExecutionNo>,
    pub(crate) readers: Readers,
    /// Executions that notifications started; they begin when the command that caused them has ended.
    pub(crate) fired: VecDeque<ExecutionNo>,
    /// Outcomes of sync executions, for the commands that triggered them.
    pub(crate) outcomes: BTreeMap<ExecutionNo, Outcome>,
    /// Outcomes of executions that user code started.
    pub(crate) nested: Nested,
    pub(crate) stack: Stack,
    pub(crate) deferred: Deferred,
    pub(crate) facts: Facts,
    pub(crate) registrations: Registrations,
    /// Clients that wait for the functions of the events of their commands.
    pub(crate) interceptions: Interceptions,
    /// The server reports calls of hooked commands.
    pub(crate) watching_hooks: bool,
    /// A change that was saved or replicated is being applied.
    pub(crate) applying: bool,
    pub(crate) time_events: TimeEvents,
    /// The server reports changes of keys.
    pub(crate) subscribed: bool,
    /// The server reports that commands begin.
    pub(crate) watching_commands: bool,
    pub(crate) pending: PendingEvents,
    pub(crate) sync: SyncEvents,
    /// When the current series of sync executions over streams began.
    pub(crate) sync_streams_since_ms: u64,
    pub(crate) streams: BTreeMap<RegistrationNo, Followed>,
    pub(crate) held: Held,
    pub(crate) batches: Batches,
    /// Replies that are written in parts.
    pub(crate) rows: VecDeque<(Client, Rows)>,
    /// Warnings that were already logged.
    pub(crate) warned: BTreeSet<&'static str>,
    /// The fault that a simulation planted.
    #[cfg(feature = "simulation")]
    pub(crate) planted: Option<Bug>,
}

impl Engine {
    /// An engine that was not started: the first input is [`Input::Started`]. `runtime` is the workers' interpreter, for
    /// messages, or why there is none; `run_id` are random hexadecimal digits, of which [`run_id`](Engine::run_id) is made.
    #[must_use]
    pub fn new(config: Config, runtime: Result<String, String>, run_id: String, capabilities: Capabilities) -> Engine {
        let run_id = redgrease_core::peer::link::run_id(&run_id);
        let limits = Limits { workers_max: config.workers_max, sessions_max: config.worker_sessions_max };
        Engine {
            capabilities,
            runtime,
            cluster: Cluster::new(run_id.clone()),
            run_id,
            shard: ShardId::standalone(),
            topology: Topology::standalone(),
            unix_offset_ms: 0,
            versions: Versions::default(),
            inactive: BTreeMap::new(),
            changes: Changes::default(),
            changes_made: 0,
            last_change: None,
            functions: Functions::default(),
            inquiries: Inquiries::default(),
            comparing: false,
            differs: BTreeMap::new(),
            at: Situation::default(),
            out: Vec::new(),
            timers: Timers::default(),
            questions: Questions::default(),
            workers: Workers {
                pool: Pool::new(limits),
                links: BTreeMap::new(),
                with_frames: VecDeque::new(),
                interpreters: interpreters::Known::default(),
                start_error: None,
                deaths: 0,
                trimming: false,
                isolation_reported: false,
            },
            sessions: Sessions::default(),
            installs: Installs::new(),
            wheels: Wheels::default(),
            executions: Executions::new(config.executions_max),
            live: BTreeMap::new(),
            schedule: Schedule::new(config.execution_threads, config.workers_max),
            sync_triggers: SyncTriggers::default(),
            profiles: Profiles::default(),
            ticking: false,
            starting: VecDeque::new(),
            readers: Readers::default(),
            fired: VecDeque::new(),
            outcomes: BTreeMap::new(),
            nested: Nested::default(),
            stack: Stack::default(),
            deferred: Deferred::default(),
            facts: Facts::default(),
            registrations: Registrations::default(),
            interceptions: Interceptions::default(),
            watching_hooks: false,
            applying: false,
            time_events: TimeEvents::default(),
            subscribed: false,
            watching_commands: false,
            pending: PendingEvents::new(config.pending_event_bytes_max),
            sync: SyncEvents::default(),
            sync_streams_since_ms: 0,
            streams: BTreeMap::new(),
            held: Held::default(),
            batches: Batches::default(),
            rows: VecDeque::new(),
            warned: BTreeSet::new(),
            #[cfg(feature = "simulation")]
            planted: None,
            config,
        }
    }

    /// Tells the engine the time of day, in milliseconds since 1970, at a time of its clock: changes on several shards are
    /// ordered by it.
    #[must_use]
    pub fn with_time_of_day(mut self, now_ms: u64, unix_ms: u64) -> Engine {
        self.unix_offset_ms = unix_ms.saturating_sub(now_ms);
        self
    }

    /// Forty hexadecimal digits that identify this run of the server to other shards, and make its names unique.
    #[must_use]
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The configuration of the module.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Handles one input; appends the resulting effects.
    pub fn handle(&mut self, situation: &Situation, input: Input<'_>, effects: &mut Vec<Effect>) {
        self.at = *situation;
        match input {
            Input::Started => self.started(),
            Input::Command { client, caller, command } => self.command(Client::new(client), caller, &command),
            Input::KeyEvent { database, event, key } => self.key_changed(database, event, key),
            Input::StreamEvent { database, key, change } => self.stream_changed(database, key, change),
            Input::Job(job) => self.job_is_due(job),
            Input::JobRefused(job) => self.job_refused(job),
            Input::BetweenCommands => self.run_owed(),
            Input::Turn => {
                self.sync.begin_turn();
                self.run_owed();
            }
            Input::Work(work) => self.work(work),
            Input::Timer(timer) => {
                if let Some(timer) = self.timers.take(timer) {
                    self.timer(timer);
                }
            }
            Input::WorkerStarted { worker, pid } => self.worker_started(worker, pid),
            Input::WorkerNotStarted { worker, reason } => self.worker_not_started(worker, &reason),
            Input::WorkerFailed { worker, reason } => self.end_worker(worker, reason),
            Input::Received { worker, frames } => self.received(worker, frames),
            Input::ConnectionClosed(worker) => self.connection_closed(worker),
            Input::Garbled { worker, reason } => self.protocol_broken(worker, &reason),
            Input::Written { worker, bytes } => self.written(worker, bytes),
            Input::Output { worker, stream, bytes, ended } => self.output_read(worker, stream, bytes, ended),
            Input::OutputDrained { worker, session } => self.output_drained(worker, &session),
            Input::ProcessEnded { worker, how } => self.process_ended(worker, how),
            Input::Answer { question, fact } => {
                if let Some(asked) = self.questions.take(question) {
                    self.answered(asked, fact);
                }
            }
            Input::CommandDone { command, result } => self.command_done(command, result),
            Input::AtomicEntered => self.atomic_entered(),
            Input::AtomicEnded(result) => self.atomic_ended(result),
            Input::ServeFrame(wait) => self.serve_frame(wait),
            Input::WaitExpired(wait) => self.wait_expired(wait),
            Input::Served(wait) => self.served(wait),
            Input::SliceRead { execution, reader, slice } => self.slice_read(execution, reader, slice),
            Input::KeyRead { execution, record } => self.key_read(execution, record),
            Input::GroupRead { execution, part } => self.group_read(execution, part),
            Input::StreamsFound { registration, keys, next } => self.streams_found(registration, &keys, next),
            Input::Acknowledged { batch, result } => self.acknowledged(batch, result),
            Input::GroupRemoved { removal, next } => self.group_removed(removal, next),
            Input::Installed { install, result } => self.install_ended(install, result),
            Input::InterpretersFound(interpreters) => self.interpreters_found(interpreters),
            Input::Topology(topology) => self.topology_changed(topology),
            Input::LinkOpened(link) => self.link_opened(link),
            Input::LinkReply { link, reply } => self.link_reply(link, reply),
            Input::LinkClosed { link, failure } => self.link_closed(link, failure),
            Input::RoleChanged => self.role_changed(),
            Input::LoadingBegan => self.loading_begins(),
            Input::Change(change) => self.apply(change),
            Input::WheelPart { environment, change } => self.wheel_part_read(environment, &change),
            Input::WheelsShared { environment } => self.wheels_shared(&environment),
            Input::Exported { export, result } => self.exported(export, result),
            Input::Stored { import, result } => self.import_stored(import, result),
            Input::FileRewritten => self.file_is_rewritten(),
            Input::TimeEventLoaded { database, key, event } => self.restore_time_event(database, key, event, false),
            Input::DatabasesSwapped(one, other) => self.databases_swapped(one, other),
            Input::Shutdown => self.shut_down(),
            Input::Then(Step(next)) => self.next_step(next),
        }
        effects.append(&mut self.out);
    }

    fn next_step(&mut self, next: Next) {
        match next {
            Next::RemoveWorker { worker, how } => self.remove_worker(worker, &how),
            Next::EndWorker { worker, reason } => self.end_worker(worker, reason),
            Next::RunOwed => self.run_owed(),
            Next::RunSync(run) => self.run_sync_event(run),
            Next::ReadFirst => {
                if let Some(execution) = self.starting.pop_front() {
                    self.read_first(execution);
                }
            }
            Next::SyncKeyEnded => self.sync_key_ended(),
            Next::SyncStream => self.next_sync_stream(),
            Next::AnswerCall { call, result } => self.answer_call(&call, result),
            Next::CommandIntercepted { number, before } => self.command_intercepted(number, before),
            Next::RunIntercepted { event, number } => self.run_intercepted(event, number),
            Next::AnswerIntercepted(number) => self.answer_intercepted(number),
            Next::ServeGroup => self.serve_group(),
            Next::AnswerTrigger { client, execution, is_hook } => self.answer_trigger(client, execution, is_hook),
        }
    }

    /// One piece of work.
    fn work(&mut self, work: Work) {
        match work {
            Work::Walks => self.run_walk(),
            Work::SyncStreams => self.run_sync_streams(),
            Work::SyncTriggers => self.run_sync_triggers(),
            Work::Deferred => self.retry_deferred(),
            Work::Frames => self.handle_next_frame(),
            Work::Peers => self.handle_peers(),
            Work::Fired => {
                if let Some(execution) = self.fired.pop_front() {
                    self.begin(execution);
                }
            }
            Work::Pending => self.start_pending(),
            Work::Acknowledgements => self.acknowledge_more(),
            Work::Rows => self.write_rows(),
            Work::Readers => self.read_next(),
        }
    }

    /// Whether pieces of that kind are left.
    #[must_use]
    pub fn has_work(&self, work: Work) -> bool {
        match work {
            Work::Walks => self.sync.has_walks(),
            Work::SyncStreams => !self.sync.streams.is_empty() && !self.sync.streams_running,
            Work::SyncTriggers => self.sync_triggers.has_work() && self.stack.waits.is_empty(),
            Work::Deferred => self.deferred.is_due(self.at.server.paused, self.at.now_ms),
            Work::Frames => !self.workers.with_frames.is_empty(),
            Work::Peers => self.cluster.links.has_notice() || self.cluster.links.has_more(),
            Work::Fired => !self.fired.is_empty(),
            Work::Pending => self.pending.has_ready(),
            Work::Acknowledgements => !self.batches.ready.is_empty(),
            Work::Rows => !self.rows.is_empty(),
            Work::Readers => self.readers.has_ready(),
        }
    }

    /// Whether work in the background may touch the data: no script is running and nothing is being loaded.
    #[must_use]
    pub fn may_work(situation: &Situation) -> bool {
        !situation.server.script && !situation.server.loading
    }

    /// Whether the socket of a worker may be read in this turn.
    #[must_use]
    pub fn wants_input(&self, worker: WorkerNo) -> bool {
        let Some(link) = self.workers.links.get(&worker) else { return false };
        let ahead = link.is_congested() && link.may_read_ahead();
        !link.closing && link.process == Process::Connected && (!link.has_frames() || ahead)
    }

    /// Whether executions are on their way to a worker, or running there: it will send something.
    #[must_use]
    pub fn is_busy(&self, worker: WorkerNo) -> bool {
        self.schedule.is_busy(worker)
    }

    /// Appends the frames for a worker to `out`.
    pub fn take_output(&mut self, worker: WorkerNo, out: &mut Vec<u8>) {
        if let Some(link) = self.workers.links.get_mut(&worker) {
            link.take_output(out);
        }
    }

    /// Whether the main thread must continue to serve a wait.
    #[must_use]
    pub fn is_waiting(&self, wait: WaitNo) -> bool {
        let Some(wait) = self.stack.get(wait) else { return false };
        let Some(link) = self.workers.links.get(&wait.worker).filter(|link| !link.closing) else { return false };
        if matches!(link.process, Process::Ended { .. }) && !link.has_kept_for(wait.caller) {
            return false;
        }
        !self.has_come(wait.until, wait.caller)
    }

    /// Whether the condition of a wait is met.
    pub(crate) fn has_come(&self, until: Until, caller: crate::calls::caller::Caller) -> bool {
        match until {
            Until::Ended(execution) => self.live.get(&execution).is_none_or(|live| live.parked),
            Until::AtomicLeft => self.stack.atomic.is_none_or(|atomic| atomic.left) || !self.runs(caller),
        }
    }

    /// Whether a frame of the worker that is waited for can be served.
    #[must_use]
    pub fn has_frame_for(&self, wait: WaitNo) -> bool {
        let Some(wait) = self.stack.get(wait) else { return false };
        let link = self.workers.links.get(&wait.worker).filter(|link| !link.closing);
        link.is_some_and(|link| link.has_kept_for(wait.caller)) && !self.has_come(wait.until, wait.caller)
    }

    /// The deadline of a wait.
    #[must_use]
    pub fn wait_deadline_ms(&self, wait: WaitNo) -> u64 {
        let Some(wait) = self.stack.get(wait) else { return 0 };
        match self.workers.links.get(&wait.worker).map(|link| &link.process) {
            Some(Process::Closed { at_ms }) => wait.deadline_ms.min(at_ms + CLOSED_MS_MAX),
            _ => wait.deadline_ms,
        }
    }

    /// Whether commands caused sync executions that have not run.
    #[must_use]
    pub fn owes_sync_runs(&self) -> bool {
        self.sync.owes_runs()
    }

    /// Whether the main thread waits for a worker.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        !self.stack.waits.is_empty()
    }

    /// Whether the internal command of atomic blocks has a block to enter.
    #[must_use]
    pub fn has_atomic_to_enter(&self) -> bool {
        self.stack.atomic.is_some_and(|atomic| !atomic.entered)
    }

    /// Whether registrations wait for changes of keys or streams.
    #[must_use]
    pub fn hears_keys(&self) -> bool {
        self.registrations.wants_events()
    }

    /// Whether the change of a key may concern a registration; quick where it does not.
    #[must_use]
    pub fn wants_key_event(&self, event: &str, key: &[u8]) -> bool {
        // The expiry of a field is remembered whatever the key: a `del` may follow.
        self.registrations.wants_events() && (event == "hexpired" || self.registrations.may_want(key))
    }

    /// The nesting depth of the main thread.
    #[must_use]
    pub fn depth(&self) -> Depth {
        Depth {
            stack: self.stack.depth(),
            keys_running: self.sync.keys_running,
            streams_running: self.sync.streams_running,
            atomic: self.stack.atomic.is_some(),
        }
    }

    /// After a panic of the driver: ends everything that began after that depth. Functions that were running commands
    /// get an error.
    pub fn unwind(&mut self, depth: Depth, effects: &mut Vec<Effect>) {
        let (waits, commands) = self.stack.unwind(depth.stack);
        for running in commands {
            self.answer_call(&running.call, Err(Error::Failed.into()));
            self.give_up_runs(&running.runs);
        }
        for wait in waits {
            if self.planted(Bug::PanicForgetsFrames) {
                break;
            }
            self.go_on_after_wait(wait.worker);
        }
        self.sync.keys_running = depth.keys_running;
        self.sync.streams_running = depth.streams_running;
        if !depth.atomic {
            self.stack.atomic = None;
        }
        effects.append(&mut self.out);
    }

    /// Schedules a step after the effects so far.
    pub(crate) fn then(&mut self, next: Next) {
        self.out.push(Effect::Then(Step(next)));
    }

    /// Schedules a step after this many milliseconds.
    pub(crate) fn after_ms(&mut self, ms: u64, timer: Timer) {
        let timer = self.timers.add(timer);
        self.out.push(Effect::SetTimer { timer, ms });
    }

    /// Sends a question to the driver.
    pub(crate) fn ask(&mut self, about: Question, asked: Asked) {
        let question = self.questions.add(asked);
        self.out.push(Effect::Ask { question, about });
    }

    /// Writes a line to the server's log.
    pub(crate) fn log(&mut self, level: LogLevel, text: impl Into<String>) {
        self.out.push(Effect::Log { level, text: text.into() });
    }

    /// Answers a client.
    pub(crate) fn answer(&mut self, client: Client, answer: Answer) {
        let client = client.number();
        self.out.push(Effect::Reply { client, answer });
    }

    /// Answers a client with a reply.
    pub(crate) fn reply(&mut self, client: Client, reply: Reply) {
        self.answer(client, Answer::Value(reply));
    }

    /// Answers a client with an error of the engine.
    pub(crate) fn refuse(&mut self, client: Client, text: impl Into<String>) {
        self.answer(client, Answer::error(text));
    }

    /// Plants a fault.
    #[cfg(feature = "simulation")]
    pub fn plant(&mut self, bug: Bug) {
        self.planted = Some(bug);
        self.cluster.links.plant(bug);
    }

    /// Whether a fault was planted.
    #[cfg(feature = "simulation")]
    pub(crate) fn planted(&self, bug: Bug) -> bool {
        self.planted == Some(bug)
    }

    /// Whether a fault was planted: never.
    #[cfg(not(feature = "simulation"))]
    #[expect(clippy::unused_self, reason = "the same signature as with the feature")]
    #[inline(always)]
    pub(crate) const fn planted(&self, _: Bug) -> bool {
        false
    }

    /// The clock, in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.at.now_ms
    }

    /// Milliseconds since 1970.
    pub(crate) fn unix_ms(&self) -> u64 {
        self.unix_offset_ms.saturating_add(self.now_ms())
    }
}
