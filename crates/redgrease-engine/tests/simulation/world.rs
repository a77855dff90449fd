//! The world around the engine: clock, timers, server, workers and clients. It hands in what happens and performs
//! effects, as the driver in `redgrease-module` does (`drive.rs`, `turn.rs`, `wait.rs`, `exchange.rs`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use redgrease_core::codec::{KeyType, Writer};
use redgrease_core::command::PyExecute;
use redgrease_core::id::{Database, ShardId, WorkerNo};
use redgrease_core::python::PythonVersion;
use redgrease_core::render::Reply;
use redgrease_core::saved::{Change, SavedWheel};
use redgrease_engine::audit::Audit;
use redgrease_engine::effect::{GroupPosition, GroupRead, Question};
use redgrease_engine::frames::Frames;
use redgrease_engine::id::{InstallNo, JobNo, TimerNo, WaitNo};
use redgrease_engine::input::{
    Actor, Caller, Command, Found, GroupPart, Inside, Installed, Interpreters, Slice, Stream as OutputStream,
    StreamChange, UserName, Wheel,
};
use redgrease_engine::reader::{KeyContent, Reader, Scan, Search, StreamRange};
use redgrease_engine::work::Work;
use redgrease_engine::{Capabilities, Config, Effect, Engine, EntryId, Fact, Input, ServerState, Situation};

use crate::client::{Clients, End};
use crate::invariants::{Seen, violated};
use crate::plans::{Programs, Taste};
use crate::random::Random;
use crate::server::{Answer, Data, Event, Server, ok};
use crate::worker::{Context, Counters, Process, Worker};

/// Time by which a wait of the main thread may be longer than `SyncMaxTime`, in milliseconds.
const WAIT_TOLERANCE_MS: u64 = 100;

/// Inputs of one run; none of them needs a tenth of them.
const INPUTS_MAX: u64 = 1_000_000;

/// The version of the default interpreter.
pub const DEFAULT_PYTHON: &str = "3.13.1";

/// The version of another interpreter, which is found unless something goes wrong.
pub const OTHER_PYTHON: &str = "3.9.20";

/// Lines of a trace that are kept.
const TRACE_LINES: usize = 60;

/// Who runs a command.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The user.
    pub user: Option<UserName>,
    /// The database.
    pub database: u32,
    /// What the command runs inside of.
    pub inside: Inside,
    /// It may end what belongs to others.
    pub administers: bool,
}

/// The start of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Starting {
    /// When it has ended.
    pub at_ms: u64,
    /// It fails.
    pub fails: bool,
    /// The interpreter's version.
    pub python: &'static str,
}

/// The world.
pub struct World {
    /// Random numbers.
    pub random: Random,
    /// The time.
    pub now_ms: u64,
    /// Steps that were made.
    pub step: u64,
    /// The engine.
    pub engine: Engine,
    /// The server.
    pub server: Server,
    /// Workers, as the driver knows them.
    pub workers: BTreeMap<WorkerNo, Worker>,
    /// Workers that are being started.
    pub starting: BTreeMap<WorkerNo, Starting>,
    /// When interpreters will have been looked for.
    pub searches: Vec<u64>,
    /// Sets of requirements whose wheels are sent, and when that has been done.
    pub sharing: Vec<(u64, Rc<str>)>,
    /// Installations that run.
    pub installs: BTreeMap<InstallNo, (u64, Result<Found, String>)>,
    /// Timers, by time.
    pub timers: BTreeSet<(u64, TimerNo)>,
    /// Clients.
    pub clients: Clients,
    /// Scripts and functions.
    pub programs: Programs,
    /// What was seen.
    pub seen: Seen,
    /// Numbers that are given out.
    pub counters: Counters,
    /// How much of what happens.
    pub taste: Taste,
    /// Nothing goes wrong any more.
    pub calm: bool,
    /// The longest wait of the main thread so far.
    pub longest_wait_ms: u64,
    /// Inputs that were handed in.
    pub inputs: u64,
    /// Lines of the trace, if it is wanted.
    pub trace: Option<VecDeque<String>>,
    /// Lines are printed at once.
    pub prints: bool,

    /// The driver has panicked.
    panicked: bool,
    unwritten: BTreeSet<WorkerNo>,
    subscribed: bool,
    watching: bool,
    jobs: VecDeque<JobNo>,
    jobs_run: bool,
    /// Commands that are running.
    depth: u32,
    /// Notifications that are being handled.
    notifying: u32,
    /// When the outermost wait began, and how many there are.
    waits: (u64, u32),
    sync_time_ms: u64,
    workers_max: usize,
    threads: usize,
}

impl World {
    /// A world; nothing has happened in it.
    pub fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let config = draw_config(&mut random);
        let capabilities = Capabilities { jobs: random.chance(60) };
        let mut server = Server::new();
        server.cluster = random.chance(10);
        let taste = Taste::draw(&mut random);
        let runtime = match random.chance(1) {
            true => Err("no interpreter was found".to_owned()),
            false => Ok("python".to_owned()),
        };
        World {
            now_ms: 0,
            step: 0,
            sync_time_ms: config.sync_time_max.as_millis() as u64,
            workers_max: config.workers_max,
            threads: config.execution_threads,
            engine: Engine::new(config, runtime, "0123abcd".to_owned(), capabilities),
            server,
            workers: BTreeMap::new(),
            starting: BTreeMap::new(),
            searches: Vec::new(),
            sharing: Vec::new(),
            installs: BTreeMap::new(),
            timers: BTreeSet::new(),
            clients: Clients::default(),
            programs: Programs::default(),
            seen: Seen::default(),
            counters: Counters::default(),
            taste,
            calm: false,
            longest_wait_ms: 0,
            inputs: 0,
            trace: None,
            prints: false,
            panicked: false,
            unwritten: BTreeSet::new(),
            subscribed: false,
            watching: false,
            jobs: VecDeque::new(),
            jobs_run: false,
            depth: 0,
            notifying: 0,
            waits: (0, 0),
            random,
        }
    }

    /// Writes a line of the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let Some(trace) = &mut self.trace else { return };
        let mut line =
            format!("{:>5} {:>7} ms {}{}", self.step, self.now_ms, "  ".repeat(self.waits.1 as usize), line());
        if line.len() > 300 {
            let end = (0..=300).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
            line.truncate(end);
            line.push_str("...");
        }
        if self.prints {
            println!("{line}");
        }
        if trace.len() >= TRACE_LINES {
            trace.pop_front();
        }
        trace.push_back(line);
    }

    fn is_paused(&self) -> bool {
        self.now_ms < self.server.paused_until_ms
    }

    /// The time, and what the server is doing.
    pub fn situation(&self) -> Situation {
        let Server { script, transaction, loading, replica, read_only, cluster, .. } = self.server;
        let (paused, notifying) = (self.is_paused(), self.notifying > 0);
        let server = ServerState { script, transaction, loading, replica, read_only, cluster, paused, notifying };
        Situation { now_ms: self.now_ms, server }
    }

    /// A callback of the server hands an input in. It ends here: its caller sees nothing of a panic.
    pub fn hand_in(&mut self, input: Input<'_>) {
        self.drive(input);
        self.panicked = false;
    }

    /// Hands an input in, and performs the resulting effects, as `drive.rs` does. A panic of the driver continues when all is
    /// done.
    fn drive(&mut self, input: Input<'_>) {
        self.panicked = false;
        let depth = self.engine.depth();
        let mut effects = Vec::new();
        self.handle(input, &mut effects);
        if self.perform_all(&mut effects) {
            self.engine.unwind(depth, &mut effects);
            effects.reverse();
            self.perform_all(&mut effects);
            self.panicked = true;
        }
    }

    fn perform_all(&mut self, effects: &mut Vec<Effect>) -> bool {
        let mut panicked = false;
        while let Some(effect) = effects.pop() {
            self.note(|| format!("  -> {effect:?}"));
            let input = self.perform(effect);
            if std::mem::take(&mut self.panicked) {
                self.note(|| "  the driver panics".to_owned());
                panicked = true;
            } else if let Some(input) = input {
                self.handle(input, effects);
            }
        }
        panicked
    }

    /// The next effect is the last one of `effects`.
    fn handle(&mut self, input: Input<'_>, effects: &mut Vec<Effect>) {
        self.note(|| format!("{input:?}"));
        self.inputs += 1;
        if self.inputs > INPUTS_MAX {
            violated("a run ends", format!("{INPUTS_MAX} inputs were handed in"));
        }
        let before = effects.len();
        let registrations = self.engine.info().registrations;
        self.engine.handle(&self.situation(), input, effects);
        effects[before..].reverse();
        let Server { replica, read_only, loading, .. } = self.server;
        let now = self.engine.info().registrations;
        if replica && read_only && !loading && now != registrations {
            violated("a replica has the registrations of its master", format!("{now} instead of {registrations}"));
        }
    }

    /// Looks at the engine while it performs nothing, and at what the world knows of it.
    pub fn audit(&mut self) -> Audit {
        let audit = self.engine.audit();
        if let Some(text) = audit.inconsistencies.first() {
            violated("the parts of the engine agree", text.clone());
        }
        let known: BTreeSet<TimerNo> = self.timers.iter().map(|(_, timer)| *timer).collect();
        let asked: BTreeSet<TimerNo> = audit.timers.iter().map(|(timer, ..)| *timer).collect();
        if known != asked {
            violated("each timer is set once", format!("{known:?} and {asked:?}"));
        }
        let running: usize = self.workers.values().filter(|worker| !worker.killed).map(Worker::running).sum();
        if self.threads == 1 && running > 1 && !self.seen.hostile {
            violated("no more executions run than ExecutionThreads", format!("{running} run"));
        }
        audit
    }
}

// Effects.
impl World {
    fn perform(&mut self, effect: Effect) -> Option<Input<'static>> {
        match effect {
            Effect::Block(client) => self.clients.block(client),
            Effect::Measure(_) => {}
            Effect::Reply { client, answer } => {
                let reply = answer.into_reply();
                self.seen.answered(&reply);
                self.clients.answer(client, reply);
            }
            Effect::Row { client, .. } => self.clients.row(client),
            Effect::EndRows(client) => self.clients.end_rows(client),
            Effect::StartWorker { worker, python } => {
                let python = match python.map(|version| version.to_string()) {
                    None => DEFAULT_PYTHON,
                    Some(version) if version == "3.9" => OTHER_PYTHON,
                    Some(version) => violated("workers are started with interpreters that were found", version),
                };
                self.start_worker(worker, python);
            }
            Effect::FindInterpreters => self.searches.push(self.now_ms + self.random.between(0, 50)),
            Effect::Write(worker) => {
                self.unwritten.insert(worker);
            }
            Effect::Kill(worker) => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.killed = true;
                    worker.end("was killed by signal 9 (SIGKILL)");
                }
            }
            Effect::Close { worker, .. } => {
                self.workers.remove(&worker);
            }
            Effect::PauseReading(worker) => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.paused = true;
                }
            }
            Effect::ResumeReading(worker) => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.paused = false;
                }
            }
            Effect::DrainOutput { worker, session } => {
                self.read_outputs(worker);
                return Some(Input::OutputDrained { worker, session });
            }
            Effect::ReadTopology | Effect::OpenLink { .. } | Effect::SendOnLink { .. } | Effect::CloseLink(_) => {
                unreachable!("there is one shard")
            }
            Effect::SetTimer { timer, ms } => {
                self.timers.insert((self.now_ms.saturating_add(ms), timer));
            }
            Effect::Ask { question, about } => return Some(Input::Answer { question, fact: self.fact(about) }),
            Effect::Run(_) if !self.calm && self.random.below(1000) < self.taste.panics => {
                self.panicked = true;
                self.clients.driver_failed = true;
            }
            Effect::Run(run) => {
                if self.notifying > 0 {
                    violated("no user code runs inside a notification", format!("{run:?}"));
                }
                if run.replicate == self.is_paused() || (self.is_paused() && !run.reads) {
                    violated("nothing is written while clients are paused", format!("{run:?}"));
                }
                let result =
                    self.run_for_function(&run.argv.args(), &run.actor, run.reads, run.write_refusal.as_deref());
                return Some(Input::CommandDone { command: run.command, result });
            }
            Effect::Replicate(change) => {
                self.check_may_write("a change of the registrations");
                if let Err(error) = Change::decode(&change) {
                    violated("replicas can read changes of the registrations", error.to_string());
                }
            }
            Effect::ReplicateToFile(_) => violated("no file is rewritten", String::new()),
            // No function of the simulation hooks a command.
            Effect::RunForClient { client, .. } => violated("no command is hooked", format!("{client:?}")),
            Effect::WatchHooks(_) => violated("no command is hooked", String::new()),
            Effect::EnterAtomic(_) => return Some(Input::AtomicEnded(self.enter_atomic())),
            Effect::Serve { wait, worker } => {
                self.serve(wait, worker);
                return Some(Input::Served(wait));
            }
            Effect::ReadSlice { execution, actor, mut reader, count_only } => {
                let slice = self.read_slice(&actor, &mut reader, count_only);
                return Some(Input::SliceRead { execution, reader, slice });
            }
            Effect::ReadKey { execution, actor, key, event, read_value } => {
                let record = self.read_key(&actor, &key, &event, read_value);
                return Some(Input::KeyRead { execution, record });
            }
            Effect::ReadGroup { execution, read } => {
                self.check_may_write("reading through a group");
                let part = self.in_command(|world| world.read_group(execution, &read));
                return Some(Input::GroupRead { execution, part });
            }
            Effect::SearchStreams { registration, database, cursor } => {
                let (keys, next) = self.server.scan(database.0, &cursor, 4);
                let streams = keys.into_iter().filter(|key| self.server.stream(database.0, key).is_some()).collect();
                return Some(Input::StreamsFound { registration, keys: streams, next });
            }
            Effect::Acknowledge { batch, actor, stream, group, ids } => {
                self.check_may_write("acknowledging");
                let result = self.acknowledge(&actor, &stream, &group, &ids);
                return Some(Input::Acknowledged { batch, result });
            }
            Effect::RemoveEntries { actor, stream, ids } => {
                self.check_may_write("removing entries");
                for id in ids {
                    let id = id.to_string();
                    let sender = Sender {
                        user: None,
                        database: actor.database.0,
                        inside: Inside::Unblockable,
                        administers: true,
                    };
                    let _ = self.execute(&[b"XDEL", &stream, id.as_bytes()], &sender);
                }
            }
            Effect::RemoveGroup { removal, database, group, cursor } => {
                self.check_may_write("removing a group");
                let (keys, next) = self.server.scan(database.0, &cursor, 4);
                for key in keys {
                    if let Some(stream) = self.server.stream_mut(database.0, &key) {
                        stream.groups.remove(&group);
                    }
                }
                return Some(Input::GroupRemoved { removal, next });
            }
            Effect::AfterCommand(job) => {
                if self.notifying == 0 {
                    violated("jobs are asked for inside notifications", format!("job {job}"));
                }
                if !self.calm && self.random.chance(2) {
                    return Some(Input::JobRefused(job));
                }
                self.jobs.push_back(job);
            }
            Effect::Subscribe => self.subscribed = true,
            Effect::WatchCommands(wanted) => self.watching = wanted,
            Effect::Install(install) => {
                let missing = install.check && self.random.chance(40);
                let result = match () {
                    () if missing => Ok(Found::Missing),
                    () if !self.calm && self.random.chance(20) => Err("INSTALL no such package".to_owned()),
                    () => Ok(Found::Ready(self.installed(&install.environment))),
                };
                let at = self.now_ms + self.random.between(0, 200);
                self.installs.insert(install.install, (at, result));
            }
            Effect::ShareWheels(wheels) => {
                let at = self.now_ms + self.random.between(0, 50);
                self.sharing.push((at, wheels.environment.into()));
            }
            Effect::RemoveEnvironment(_) => {}
            Effect::ReadNextPart(_) | Effect::KeepPart { .. } | Effect::KeepWheels(_) | Effect::WheelsToFile(_) => {
                violated("no wheels arrive", String::new());
            }
            Effect::ExportWheels { .. } | Effect::StoreWheels { .. } => {
                violated("no wheels are asked for", String::new())
            }
            Effect::Log { text, .. } => {
                if text.contains("INTERNAL") {
                    violated("nothing internal is wrong", text);
                }
            }
            Effect::Then(step) => return Some(Input::Then(step)),
        }
        None
    }

    /// A server would end itself by an assertion.
    fn check_may_write(&self, what: &str) {
        if self.is_paused() {
            violated("nothing is written while clients are paused", what.to_owned());
        }
        // What runs inside a command of the script may do so.
        let own_command = self.depth > u32::from(self.server.script);
        if (self.server.script || self.server.loading) && !own_command {
            violated("nothing is read or written in the background of a script or a load", what.to_owned());
        }
    }

    fn start_worker(&mut self, worker: WorkerNo, python: &'static str) {
        let fails = !self.calm && self.random.chance(5);
        let at_ms = self.now_ms + self.random.between(0, 40);
        if self.starting.insert(worker, Starting { at_ms, fails, python }).is_some()
            || self.workers.contains_key(&worker)
        {
            violated("a worker is started once", format!("worker {worker}"));
        }
        let count = self.starting.len() + self.workers.len();
        if count > self.workers_max {
            violated("there are at most MaxWorkers workers", format!("{count} of {}", self.workers_max));
        }
    }

    fn fact(&mut self, about: Question) -> Fact {
        match about {
            Question::Command(name) => Fact::Command(Server::facts(&name)),
            Question::Protection => Fact::Protection(Default::default()),
            Question::Key { database, key } => {
                let (kind, len) = self.server.kind(database.0, &key);
                Fact::Key { kind, len }
            }
            Question::MayRun { .. } => Fact::Permission(Ok(())),
            Question::MakeTimeEventKey { .. } => Fact::Made(Ok(true)),
            Question::HasTimeEventKey { .. } => Fact::Flag(true),
            Question::UsersWithout(_) => Fact::Names(Vec::new()),
            Question::MayRead { user, key } | Question::MayConsume { user, key, .. } => {
                Fact::Permission(self.may_use(&user, &key))
            }
            Question::DatabaseSize(database) => {
                let keys = &self.server.databases[database.0 as usize];
                let exact = keys.values().all(|item| item.expires_ms.is_none());
                Fact::Number(exact.then_some(keys.len() as u64))
            }
            Question::ClientIsGone(client) => Fact::Flag(self.clients.is_gone(client)),
            Question::DirectoriesExist(_) => Fact::Flag(self.random.chance(80)),
            Question::TotalBytes(_) => {
                Fact::Number(Some(if !self.calm && self.taste.misfortunes > 0 && self.random.chance(1) {
                    1 << 40
                } else {
                    1 << 20
                }))
            }
            Question::ResidentBytes(_) => Fact::Number(Some(if self.random.chance(10) { 1 << 40 } else { 1 << 20 })),
            Question::Progress(worker) => {
                let worker = self.workers.get(&worker);
                Fact::Progress {
                    unfinished_bytes: worker.map_or(0, |worker| worker.incoming.len() as u64),
                    stopped: worker.is_some_and(|worker| worker.process == Process::Stopped),
                }
            }
            Question::ProcessIsGone(worker) => {
                Fact::Flag(self.workers.get(&worker).is_none_or(|worker| !worker.lives()))
            }
            Question::AdoptProcess { .. } => {
                let refused = !self.calm && self.random.chance(1);
                Fact::Permission(if refused { Err("it is not a child of its supervisor".to_owned()) } else { Ok(()) })
            }
            Question::EntriesAfter { database, stream, after, max } => {
                use std::ops::Bound::{Excluded, Unbounded};
                let stream = self.server.stream(database.0, &stream);
                let count = stream.map_or(0, |stream| {
                    stream.entries.range((Excluded(after), Unbounded)).take(max as usize).count() as u64
                });
                Fact::Number(if self.random.chance(5) { None } else { Some(count) })
            }
            Question::Groups { database, stream, groups, first, last } => {
                Fact::Groups(self.server.progress((database.0, &stream), &groups, (first, last)))
            }
        }
    }

    fn may_use(&self, user: &str, key: &[u8]) -> Result<(), String> {
        if self.server.may_use(user, key) {
            return Ok(());
        }
        Err(format!("NOPERM the user '{user}' has no permission to use the key '{}'", String::from_utf8_lossy(key)))
    }

    fn run_for_function(&mut self, argv: &[&[u8]], actor: &Actor, reads: bool, refusal: Option<&str>) -> Answer {
        if let Some(refusal) = refusal
            && !reads
            && Server::facts(&argv[0].to_ascii_lowercase()).is_some_and(|facts| facts.own.writes)
        {
            return Err(refusal.to_owned());
        }
        let inside = match () {
            () if self.server.script => Inside::Script,
            () if self.server.transaction => Inside::Transaction,
            () => Inside::Unblockable,
        };
        let sender = Sender {
            user: Some(actor.user.clone()),
            database: actor.database.0,
            inside,
            administers: &*actor.user == "default",
        };
        match self.execute(argv, &sender) {
            Some(answer) => answer,
            None => violated("a command of a function is answered at once", format!("{argv:?}")),
        }
    }

    fn enter_atomic(&mut self) -> Result<(), String> {
        if self.is_paused() {
            violated("nothing is written while clients are paused", "an atomic block is entered".to_owned());
        }
        if !self.calm && self.random.chance(3) {
            return Err("ERR the atomic block could not be entered".to_owned());
        }
        self.in_command(|world| {
            if !world.engine.has_atomic_to_enter() {
                return Err("ERR RG.INNERATOMIC is internal".to_owned());
            }
            world.drive(Input::AtomicEntered);
            match std::mem::take(&mut world.panicked) {
                true => Err("INTERNAL the module failed".to_owned()),
                false => Ok(()),
            }
        })
    }

    /// Serves a wait, as `wait.rs` does.
    fn serve(&mut self, wait: WaitNo, number: WorkerNo) {
        if self.notifying > 0 {
            violated("no user code runs inside a notification", format!("wait {wait} for worker {number}"));
        }
        if self.waits.1 == 0 {
            self.waits.0 = self.now_ms;
        }
        self.waits.1 += 1;
        let mut looked_again = false;
        loop {
            while !self.panicked && self.engine.has_frame_for(wait) {
                self.drive(Input::ServeFrame(wait));
            }
            if !self.panicked {
                self.write(number);
            }
            if self.panicked || !self.engine.is_waiting(wait) {
                break;
            }
            let lasted = self.now_ms - self.waits.0;
            if lasted > self.sync_time_ms + WAIT_TOLERANCE_MS {
                let text = format!("{lasted} ms, SyncMaxTime is {} ms", self.sync_time_ms);
                violated("the main thread waits no longer than SyncMaxTime", text);
            }
            let left = self.engine.wait_deadline_ms(wait).saturating_sub(self.now_ms);
            let alive = self.workers.get(&number).is_some_and(|worker| !worker.ended);
            if alive && left > 0 {
                self.serve_once(number, left);
                continue;
            }
            if alive && !std::mem::replace(&mut looked_again, true) {
                while self.workers.get(&number).is_some_and(|worker| worker.is_readable()) {
                    self.receive(number);
                }
                continue;
            }
            self.drive(Input::WaitExpired(wait));
            if !self.panicked && self.engine.is_waiting(wait) {
                violated("a wait ends at its deadline", format!("wait {wait} for worker {number}"));
            }
        }
        self.waits.1 -= 1;
        if self.waits.1 == 0 {
            self.longest_wait_ms = self.longest_wait_ms.max(self.now_ms - self.waits.0);
        }
    }

    fn serve_once(&mut self, number: WorkerNo, left_ms: u64) {
        let moved = self.let_go_on(number);
        if self.random.chance(15)
            && let Some(other) = self.some_worker()
        {
            self.let_go_on(other);
        }
        if self.random.chance(30) {
            self.read_outputs(number);
        }
        let dies = !self.calm && self.taste.misfortunes > 0 && self.random.below(60) == 0;
        let Some(worker) = self.workers.get_mut(&number) else { return };
        if dies {
            worker.end("was killed by signal 9 (SIGKILL)");
        }
        if !worker.lives() {
            return self.process_ended(number);
        }
        if worker.is_readable() {
            return self.receive(number);
        }
        if !moved {
            let next = worker.wakes_ms(self.now_ms).map_or(left_ms, |at| at - self.now_ms);
            let most = left_ms.min(self.sync_time_ms + WAIT_TOLERANCE_MS + 1);
            self.now_ms += next.clamp(1, most);
        }
    }

    fn read_slice(&mut self, actor: &Actor, reader: &mut Reader, count_only: bool) -> Slice {
        let mut writer = Writer::new();
        let mut slice = Slice::default();
        let most = self.random.between(1, 6) as usize;
        let keys = &self.server.databases[actor.database.0 as usize];
        match reader {
            Reader::Scan(scan) if scan.no_scan => {
                if let Some(item) = keys.get(&scan.pattern) {
                    write_scanned(&mut writer, &scan.pattern, item, scan.content);
                    slice.count = 1;
                }
                slice.ended = true;
            }
            Reader::Scan(scan) => {
                let (found, next) = self.server.scan(actor.database.0, &scan.cursor, most);
                let found: Vec<Vec<u8>> = found.into_iter().filter(|key| fits(scan, key)).collect();
                for key in &found {
                    if let Err(reason) = self.may_use(&actor.user, key) {
                        slice.error = Some(reason);
                        break;
                    }
                    write_scanned(&mut writer, key, &keys[key], scan.content);
                    slice.count += 1;
                }
                slice.ended = next.is_none();
                scan.more = next.is_some();
                scan.cursor = next.unwrap_or_else(|| b"0".to_vec());
            }
            Reader::Range(range) => {
                slice.count = self.read_range(actor.database.0, range, most, &mut writer);
                slice.ended = slice.count == 0;
            }
            Reader::Streams(streams) => {
                if let Some(range) = &mut streams.current {
                    slice.count = self.read_range(actor.database.0, range, most, &mut writer);
                    if slice.count == 0 {
                        streams.current = None;
                    }
                } else if let Some(key) = streams.found.pop_front() {
                    streams.current = Some(StreamRange { key, after: streams.from_id.clone() });
                } else if streams.search == Search::Ended {
                    slice.ended = true;
                } else {
                    let found = keys.keys().filter(|key| self.server.stream(actor.database.0, key).is_some());
                    streams.found.extend(found.cloned());
                    streams.search = Search::Ended;
                }
            }
            Reader::Group => violated("groups are read by commands of their own", String::new()),
        }
        if !count_only {
            slice.records = writer.into_bytes();
        }
        slice
    }

    fn read_range(&self, database: u32, range: &mut StreamRange, most: usize, writer: &mut Writer) -> u64 {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = EntryId::parse(&range.after).unwrap_or_default();
        let stream = self.server.stream(database, &range.key);
        let entries = stream.into_iter().flat_map(|stream| stream.entries.range((Excluded(after), Unbounded)));
        let mut count = 0;
        for (id, value) in entries.take(most) {
            write_entry(writer, &range.key, *id, value);
            range.after = id.to_string().into_bytes();
            count += 1;
        }
        count
    }

    fn read_key(&mut self, actor: &Actor, key: &[u8], event: &str, read_value: bool) -> Result<Vec<u8>, String> {
        self.may_use(&actor.user, key)?;
        let expired = self.server.expire(actor.database.0, key, self.now_ms);
        if let Some(event) = expired {
            self.in_command(|world| world.notify(&event));
        }
        let mut writer = Writer::new();
        match self.server.databases[actor.database.0 as usize].get(key) {
            Some(item) => write_key(&mut writer, key, Some(event.as_bytes()), item, read_value),
            None if read_value => {
                writer.key_record(key, Some(event.as_bytes()), KeyType::Empty);
                writer.none();
            }
            None => writer.key_only_record(key, Some(event.as_bytes())),
        }
        Ok(writer.into_bytes())
    }

    fn read_group(
        &mut self,
        execution: redgrease_core::id::ExecutionNo,
        read: &GroupRead,
    ) -> Result<Option<GroupPart>, String> {
        use std::ops::Bound::{Excluded, Unbounded};
        let GroupRead { actor, stream: key, group: name, position, count } = read;
        self.may_use(&actor.user, key)?;
        let database = actor.database.0;
        let Some(stream) = self.server.stream_mut(database, key) else { return Ok(None) };
        let created = !stream.groups.contains_key(name);
        if created {
            stream.groups.insert(name.clone(), Default::default());
            self.notify(&Event { database, name: "xgroup-create", key: key.clone() });
        }
        let permissive = self.server.permissive;
        let Some(stream) = self.server.stream_mut(database, key) else { return Ok(None) };
        let Some(group) = stream.groups.get_mut(name) else { return Ok(None) };
        let ids: Vec<EntryId> = match position {
            GroupPosition::New => {
                let new: Vec<EntryId> = stream
                    .entries
                    .range((Excluded(group.last), Unbounded))
                    .take(*count as usize)
                    .map(|(id, _)| *id)
                    .collect();
                group.pending.extend(new.iter().copied());
                group.last = new.last().copied().unwrap_or(group.last);
                new
            }
            GroupPosition::Pending(after) => {
                let from = after.map_or(Unbounded, Excluded);
                group.pending.range((from, Unbounded)).take(*count as usize).copied().collect()
            }
        };
        let mut part = GroupPart { read: ids.len() as u64, ids, ..GroupPart::default() };
        let mut writer = Writer::new();
        for id in &part.ids {
            match stream.entries.get(id) {
                Some(value) if value == b"long" && !permissive => {
                    part.errors.push("RECORDTOOBIG the entry is too long".to_owned())
                }
                Some(value) => {
                    write_entry(&mut writer, key, *id, value);
                    part.count += 1;
                }
                None => {}
            }
        }
        part.records = writer.into_bytes();
        self.seen.entries_read(execution, name, &part.ids, part.count);
        Ok(Some(part))
    }

    fn acknowledge(&mut self, actor: &Actor, key: &[u8], group: &[u8], ids: &[EntryId]) -> Result<u64, String> {
        self.may_use(&actor.user, key)?;
        self.seen.acknowledged(group, ids);
        let Some(stream) = self.server.stream_mut(actor.database.0, key) else { return Ok(0) };
        let Some(group) = stream.groups.get_mut(group) else { return Ok(0) };
        Ok(ids.iter().filter(|id| group.pending.remove(id)).count() as u64)
    }
}

// Commands and notifications.
impl World {
    /// Does something inside a command; what it fired runs when the outermost one has ended.
    pub fn in_command<T>(&mut self, run: impl FnOnce(&mut World) -> T) -> T {
        self.begin_command();
        let value = run(self);
        self.end_command();
        value
    }

    /// A command begins.
    pub fn begin_command(&mut self) {
        self.depth += 1;
    }

    /// A command ends.
    pub fn end_command(&mut self) {
        self.depth -= 1;
        if self.depth > 0 || std::mem::replace(&mut self.jobs_run, true) {
            return;
        }
        while let Some(job) = self.jobs.pop_front() {
            self.hand_in(Input::Job(job));
        }
        self.jobs_run = false;
    }

    /// Runs a command; `None`: the client that sent it waits.
    pub fn execute(&mut self, argv: &[&[u8]], sender: &Sender) -> Option<Answer> {
        self.note(|| format!("  {} runs {}", sender.user.as_deref().unwrap_or("the server"), shown(argv)));
        self.in_command(|world| {
            if argv[0].get(..3).is_some_and(|head| head.eq_ignore_ascii_case(b"rg.")) {
                return world.own_command(argv, sender);
            }
            let numbered;
            let mut argv = argv.to_vec();
            if argv[0].eq_ignore_ascii_case(b"set")
                && let Some(level) = argv[1].strip_suffix(b":?")
            {
                numbered = world.counters.key(u64::from(level[1] - b'0'));
                argv[1] = &numbered;
            }
            let (answer, events) = world.server.run(&argv, sender.database, world.now_ms);
            for event in &events {
                world.notify(event);
            }
            Some(answer)
        })
    }

    /// A key was changed.
    pub fn notify(&mut self, event: &Event) {
        if !self.subscribed || !self.engine.hears_keys() {
            return;
        }
        let database = Database(event.database);
        self.notifying += 1;
        self.hand_in(Input::KeyEvent { database, event: event.name, key: &event.key });
        let change = match event.name {
            "xadd" => Some(StreamChange::Added),
            "rename_to" => Some(StreamChange::Replaced),
            _ => None,
        };
        if let Some(change) = change {
            self.hand_in(Input::StreamEvent { database, key: &event.key, change });
        }
        self.notifying -= 1;
    }

    fn own_command(&mut self, argv: &[&[u8]], sender: &Sender) -> Option<Answer> {
        let name = String::from_utf8_lossy(argv[0]).to_ascii_uppercase();
        let args = &argv[1..];
        let tagged = self.random.chance(30);
        let new_id = format!("{:040x}", self.random.next());
        let id = || {
            let number = args.first().and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
            ShardId::standalone().identifier(number.unwrap_or(9999)).into_bytes()
        };
        let id = id();
        let command = match name.as_str() {
            "RG.PYEXECUTE" => match PyExecute::parse(args[0], &args[1..]) {
                Ok(arguments) => Command::PyExecute { arguments, new_id: &new_id, tagged },
                Err(error) => return Some(Err(error.to_string())),
            },
            "RG.TRIGGER" => Command::Trigger { args, tagged },
            "RG.GETRESULTS" => Command::GetResults { execution: &id, tagged, wait: false },
            "RG.GETRESULTSBLOCKING" => Command::GetResults { execution: &id, tagged, wait: true },
            "RG.DUMPEXECUTIONS" => Command::DumpExecutions,
            "RG.DROPEXECUTION" => Command::DropExecution { execution: &id },
            "RG.ABORTEXECUTION" => Command::AbortExecution { execution: &id },
            "RG.DUMPREGISTRATIONS" => Command::DumpRegistrations,
            "RG.UNREGISTER" => Command::Unregister { registration: &id, abort_pending: args.len() > 1 },
            _ => return Some(Err(format!("ERR unknown command '{name}'"))),
        };
        let caller = Caller {
            user: sender.user.clone(),
            database: Database(sender.database),
            administers: sender.administers,
            inside: sender.inside,
        };
        let client = self.clients.begin(shown(argv));
        self.drive(Input::Command { client, caller: &caller, command });
        if std::mem::take(&mut self.panicked) {
            self.clients.abandon(client);
            return Some(Err("INTERNAL the module failed".to_owned()));
        }
        match self.clients.end(client, sender.inside == Inside::Nothing) {
            End::Answered(Reply::Error(text)) => Some(Err(text)),
            End::Answered(_) => Some(Ok(ok())),
            End::Blocked => None,
        }
    }

    /// A command of a client that is about to be run.
    pub fn before_command(&mut self) {
        let server = &self.server;
        let inside = server.script || server.transaction || server.loading || self.waits.1 > 0;
        if self.watching && !inside && self.engine.owes_sync_runs() {
            self.hand_in(Input::BetweenCommands);
        }
    }
}

// Workers.
impl World {
    /// One of the workers.
    pub fn some_worker(&mut self) -> Option<WorkerNo> {
        let numbers: Vec<WorkerNo> = self.workers.keys().copied().collect();
        (!numbers.is_empty()).then(|| self.random.pick(&numbers))
    }

    /// Has something done with a worker.
    pub fn with_worker<T>(
        &mut self,
        number: WorkerNo,
        act: impl FnOnce(&mut Worker, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let World { workers, random, programs, seen, counters, now_ms, calm, .. } = self;
        let worker = workers.get_mut(&number)?;
        let mut context = Context { random, now_ms: *now_ms, calm: *calm, programs, seen, counters };
        Some(act(worker, &mut context))
    }

    /// Advances a worker by a moment.
    pub fn let_go_on(&mut self, number: WorkerNo) -> bool {
        self.with_worker(number, Worker::go_on).unwrap_or(false)
    }

    /// Writes what the engine has for a worker, as far as its connection takes it.
    fn write(&mut self, number: WorkerNo) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        self.engine.take_output(number, &mut worker.out);
        let room = worker.capacity.saturating_sub(worker.to_worker.len());
        let bytes = if worker.closed { worker.out.len() } else { worker.out.len().min(room) };
        worker.to_worker.extend(worker.out.drain(..bytes));
        if worker.closed {
            worker.to_worker.clear();
        }
        if worker.out.is_empty() {
            self.unwritten.remove(&number);
        } else {
            self.unwritten.insert(number);
        }
        if bytes > 0 {
            self.drive(Input::Written { worker: number, bytes: bytes as u64 });
        }
    }

    fn receive(&mut self, number: WorkerNo) {
        let calm = self.calm;
        let Some(worker) = self.workers.get_mut(&number).filter(|worker| !worker.disconnected) else { return };
        let most = worker.from_worker.len();
        let bytes = if calm || most == 0 || self.random.chance(70) {
            most
        } else {
            self.random.between(1, most as u64) as usize
        };
        worker.incoming.extend(worker.from_worker.drain(..bytes));
        match Frames::cut(&mut worker.incoming) {
            Ok(Some(frames)) => self.drive(Input::Received { worker: number, frames }),
            Ok(None) if worker.closed && worker.from_worker.is_empty() => {
                worker.disconnected = true;
                self.drive(Input::ConnectionClosed(number));
            }
            Ok(None) => {}
            Err(reason) => {
                worker.disconnected = true;
                self.drive(Input::Garbled { worker: number, reason });
            }
        }
    }

    fn process_ended(&mut self, number: WorkerNo) {
        let Some(worker) = self.workers.get_mut(&number).filter(|worker| !worker.ended) else { return };
        worker.ended = true;
        self.seen.not_begun.extend(&worker.not_begun);
        let Process::Ended(how) = worker.process.clone() else { return };
        if !worker.disconnected {
            worker.incoming.append(&mut worker.from_worker);
            if let Ok(Some(frames)) = Frames::cut(&mut worker.incoming) {
                worker.disconnected = true;
                self.drive(Input::Received { worker: number, frames });
            }
        }
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.disconnected = true;
        }
        if self.panicked {
            return;
        }
        self.read_outputs(number);
        let how = Some(how).filter(|_| self.random.chance(90));
        self.drive(Input::ProcessEnded { worker: number, how });
    }

    fn read_outputs(&mut self, number: WorkerNo) {
        for (index, stream) in [OutputStream::Out, OutputStream::Error].into_iter().enumerate() {
            let Some(worker) = self.workers.get_mut(&number) else { return };
            let bytes = std::mem::take(&mut worker.outputs[index]);
            let ended = !worker.lives();
            if !bytes.is_empty() {
                self.drive(Input::Output { worker: number, stream, bytes: &bytes, ended });
            }
        }
    }

    /// A turn of the loop, as `turn.rs` does it. Returns whether something happened.
    pub fn turn(&mut self) -> bool {
        let numbers: Vec<WorkerNo> = self.workers.keys().copied().collect();
        let mut moved = false;
        for number in &numbers {
            self.read_outputs(*number);
        }
        if Engine::may_work(&self.situation()) {
            self.hand_in(Input::Turn);
            moved |= self.start_and_install();
            for number in &numbers {
                let Some(worker) = self.workers.get(number) else { continue };
                if worker.is_readable() && !worker.paused && self.engine.wants_input(*number) {
                    self.receive(*number);
                    moved = true;
                }
            }
            for number in &numbers {
                if self.workers.get(number).is_some_and(|worker| !worker.lives() && !worker.ended) {
                    self.process_ended(*number);
                    moved = true;
                }
            }
            moved |= self.work();
        }
        for number in std::mem::take(&mut self.unwritten) {
            let before = self.workers.get(&number).map_or(0, |worker| worker.out.len());
            self.write(number);
            moved |=
                self.workers.get(&number).is_some_and(|worker| worker.out.len() != before || worker.out.is_empty());
        }
        moved
    }

    fn start_and_install(&mut self) -> bool {
        let due = |at: &u64| *at <= self.now_ms;
        let started: Vec<(WorkerNo, Starting)> = self
            .starting
            .iter()
            .filter(|(_, start)| due(&start.at_ms))
            .map(|(number, start)| (*number, *start))
            .collect();
        let installed: Vec<InstallNo> =
            self.installs.iter().filter(|(_, (at, _))| due(at)).map(|(number, _)| *number).collect();
        for (number, Starting { fails, python, .. }) in &started {
            self.starting.remove(number);
            if *fails {
                self.hand_in(Input::WorkerNotStarted { worker: *number, reason: "no memory".to_owned() });
                continue;
            }
            let worker = Worker::new(*number, python, &mut self.random, self.now_ms);
            self.workers.insert(*number, worker);
            self.hand_in(Input::WorkerStarted { worker: *number, pid: 100 });
            if !self.calm && self.random.below(200) == 0 {
                let reason = "was killed: the loop takes no further descriptor".to_owned();
                self.hand_in(Input::WorkerFailed { worker: *number, reason });
            }
        }
        for number in &installed {
            if let Some((_, result)) = self.installs.remove(number) {
                self.hand_in(Input::Installed { install: *number, result });
            }
        }
        let now_ms = self.now_ms;
        let shared: Vec<(u64, Rc<str>)> = self.sharing.extract_if(.., |(at, _)| *at <= now_ms).collect();
        for (_, environment) in &shared {
            self.hand_in(Input::WheelsShared { environment: Rc::clone(environment) });
        }
        let searched = self.searches.extract_if(.., |at| *at <= now_ms).count();
        for _ in 0..searched {
            let version = PythonVersion::parse(OTHER_PYTHON).filter(|_| self.calm || self.random.chance(80));
            let refused = vec!["/usr/bin/python3.13t: free-threaded".to_owned()];
            self.hand_in(Input::InterpretersFound(Interpreters { versions: version.into_iter().collect(), refused }));
        }
        !started.is_empty() || !installed.is_empty() || !shared.is_empty() || searched > 0
    }

    /// What an installation finds: a wheel, or a set that the interpreter itself satisfies.
    fn installed(&mut self, environment: &str) -> Installed {
        if self.random.chance(30) {
            return Installed::default();
        }
        let file = SavedWheel { file: "a-1-py3-none-any.whl".to_owned(), bytes: 1, sha256: String::new() };
        Installed { paths: vec![format!("/packages/{environment}")], wheels: vec![Wheel { file, needed_by: vec![0] }] }
    }

    fn work(&mut self) -> bool {
        let mut moved = false;
        for work in Work::ORDER {
            let most = if self.calm { 200 } else { self.random.between(1, 12) };
            let mut done = 0;
            while done < most && self.engine.has_work(work) {
                self.hand_in(Input::Work(work));
                done += 1;
            }
            moved |= done > 0;
        }
        moved
    }

    /// Fires timers whose time has come.
    pub fn fire_timers(&mut self) -> bool {
        // One that is set meanwhile fires later, as in a server's loop.
        let due: Vec<(u64, TimerNo)> = self.timers.iter().take_while(|(at, _)| *at <= self.now_ms).copied().collect();
        for (at, timer) in &due {
            self.timers.remove(&(*at, *timer));
            self.in_command(|world| world.hand_in(Input::Timer(*timer)));
        }
        !due.is_empty()
    }

    /// When something happens by itself.
    pub fn next_event_ms(&self) -> Option<u64> {
        let workers = self.workers.values().filter_map(|worker| worker.wakes_ms(self.now_ms));
        let starting = self.starting.values().map(|start| start.at_ms).chain(self.searches.iter().copied());
        let installs = self.installs.values().map(|(at, _)| *at);
        let sharing = self.sharing.iter().map(|(at, _)| *at);
        let installs = installs.chain(sharing);
        let timers = self.timers.first().map(|(at, _)| *at);
        workers.chain(starting).chain(installs).chain(timers).min()
    }
}

fn draw_config(random: &mut Random) -> Config {
    let mut config = Config::new(redgrease_engine::Machine { cores: 2, memory_bytes: 1 << 32 });
    let ms = |random: &mut Random, choices: &[u64]| Duration::from_millis(random.pick(choices));
    config.workers_max = random.between(1, 5) as usize;
    config.execution_threads = random.pick(&[1, 1, 2, 3, 4]);
    config.worker_sessions_max = random.pick(&[1, 2, 1000]);
    config.executions_max = random.pick(&[2, 10, 1000]);
    config.executions_per_registration_max = random.pick(&[1, 5, 100]);
    config.abort_grace = ms(random, &[20, 100, 400]);
    config.sync_time_max = ms(random, &[30, 100, 500]);
    config.script_time_max = ms(random, &[200, 1000, 3000]);
    config.worker_start_max = ms(random, &[100, 500]);
    config.worker_stall_max = ms(random, &[500, 1000]);
    config.execution_time_max = ms(random, &[0, 0, 100, 500]);
    config.install_time_max = ms(random, &[300, 2000]);
    config.pending_event_bytes_max = random.pick(&[1 << 10, 64 << 20]);
    config.result_bytes_max = random.pick(&[60, 512 << 20]);
    config.record_bytes_max = random.pick(&[1 << 20, 64 << 20]);
    config.extra.insert(b"key".to_vec(), b"value".to_vec());
    config.traceback = random.chance(50);
    config
}

fn fits(scan: &Scan, key: &[u8]) -> bool {
    match scan.pattern.strip_suffix(b"*") {
        Some(prefix) => key.starts_with(prefix),
        None => key == scan.pattern,
    }
}

/// A command for people, shortened.
fn shown(argv: &[&[u8]]) -> String {
    let words: Vec<_> = argv.iter().map(|word| String::from_utf8_lossy(&word[..word.len().min(40)])).collect();
    words.join(" ")
}

fn write_key(writer: &mut Writer, key: &[u8], event: Option<&[u8]>, item: &crate::server::Item, read_value: bool) {
    if !read_value {
        return writer.key_only_record(key, event);
    }
    match &item.data {
        Data::Text(text) => {
            writer.key_record(key, event, KeyType::String);
            writer.raw(text);
        }
        Data::Stream(_) => {
            writer.key_record(key, event, KeyType::Stream);
            writer.none();
        }
    }
}

fn write_scanned(writer: &mut Writer, key: &[u8], item: &crate::server::Item, content: KeyContent) {
    match content {
        KeyContent::Value | KeyContent::Key => write_key(writer, key, None, item, content == KeyContent::Value),
        KeyContent::Name => writer.raw(key),
    }
}

fn write_entry(writer: &mut Writer, key: &[u8], id: EntryId, value: &[u8]) {
    writer.stream_record(key, id.to_string().as_bytes(), 1);
    writer.raw(b"field");
    writer.raw(value);
}
