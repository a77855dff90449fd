//! The engine's state on the server's main thread.
//!
//! Everything here is reached from callbacks of the server, one at a time but *re-entrantly*: a command that a function
//! runs may fire a notification that starts a sync function that runs a command. So each part of the state has a
//! cell of its own, borrows are short, and no borrow is held while the server is called.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use redgrease_core::execution::Executions;
use redgrease_core::id::{Database, ExecutionNo, RegistrationNo, SessionNo, ShardId, WorkerNo};
use redgrease_core::pending::{KeyEvent, PendingEvents};
use redgrease_core::policy::{CommandFacts, Protection};
use redgrease_core::pool::{Limits, Pool};
use redgrease_core::registration::Registrations;
use redgrease_core::schedule::Schedule;
use redgrease_ffi::Server;

use crate::config::Config;
use crate::events::SyncRun;
use crate::pump::Pump;
use crate::requirements::Installer;
use crate::runs::Live;
use crate::sessions::Session;
use crate::spawner::Spawner;
use crate::streams::Streams;
use crate::supervisor::Chain;
use crate::worker::Worker;

/// Who a function acts as.
pub type UserName = Rc<str>;

/// As which user and in which database something is done.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The user whose permissions are checked.
    pub user: UserName,
    /// The database.
    pub database: Database,
}

/// What the events of a turn of the server's loop made due.
#[derive(Default)]
pub struct Due {
    /// Workers that sent something.
    pub readable: BTreeSet<WorkerNo>,
    /// Workers whose process has ended.
    pub ended: BTreeSet<WorkerNo>,
    /// Readers have something to read.
    pub slice: bool,
}

/// The engine of one shard.
pub struct Engine {
    /// The server.
    pub server: Server,
    /// What the module was loaded with.
    pub config: Config,
    /// This shard's id.
    pub shard: ShardId,
    /// The workers' interpreter, or why there is none.
    pub python: Result<PathBuf, String>,
    start: Instant,

    /// Leases of workers.
    pub pool: RefCell<Pool>,
    /// The processes.
    pub workers: RefCell<BTreeMap<WorkerNo, Rc<Worker>>>,
    /// The thread that starts them.
    pub spawner: Spawner,
    /// Workers with something to be written before the loop sleeps.
    pub unflushed: RefCell<Vec<WorkerNo>>,
    /// A look at idle workers is planned.
    pub trimming: Cell<bool>,
    /// Why the last worker could not be started.
    pub start_error: RefCell<Option<String>>,
    /// Peak memory of workers that are gone, in bytes.
    pub past_peak_bytes: Cell<u64>,
    /// Workers replaced after an unwanted end.
    pub worker_deaths: Cell<u64>,

    /// Sessions by number.
    pub sessions: RefCell<HashMap<SessionNo, Session>>,
    /// Sessions that wait for a worker.
    pub waiting: RefCell<VecDeque<SessionNo>>,
    next_session: Cell<u64>,
    /// Installs requirements.
    pub installer: Installer,

    /// All executions.
    pub executions: RefCell<Executions>,
    /// What is needed to run those that have not ended.
    pub live: RefCell<HashMap<ExecutionNo, Live>>,
    /// Which of them may run.
    pub schedule: RefCell<Schedule>,
    /// A tick of the schedule is planned.
    pub ticking: Cell<bool>,
    /// Code that the main thread is waiting for, outermost first.
    pub sync_chain: RefCell<Vec<Chain>>,
    /// When the outermost wait of the main thread ends.
    pub wait_deadline: Cell<Option<Instant>>,
    /// The atomic block that the main thread is serving.
    pub atomic: RefCell<Option<crate::calls::Atomic>>,
    /// Calls that may not be served now.
    pub deferred: RefCell<VecDeque<crate::calls::Deferred>>,

    /// Bytes of arguments of these calls.
    pub deferred_bytes: Cell<usize>,
    /// Some of them may be served in the next turn of the loop.
    pub deferred_left: Cell<bool>,

    /// Per command that a function is running, innermost last: sync executions that run when it has ended.
    pub call_runs: RefCell<Vec<Vec<SyncRun>>>,
    /// What the server says of commands.
    pub command_facts: RefCell<HashMap<Vec<u8>, Rc<CommandFacts>>>,
    /// The server's options that protect commands, once they were asked for.
    pub protection: OnceCell<Protection>,

    /// All registrations.
    pub registrations: RefCell<Registrations>,
    /// Stream registrations at work.
    pub streams: RefCell<HashMap<RegistrationNo, Streams>>,
    /// Entries that were acknowledged by some of the registrations that match their stream.
    pub held: RefCell<crate::stream_groups::Held>,
    /// Batches that are being acknowledged in slices.
    pub acknowledging: Cell<usize>,
    /// What distinguishes names of this run of the server from those of others.
    pub run_id: String,
    /// The server calls us for keyspace events.
    pub subscribed: Cell<bool>,
    /// Keyspace events of our own reads are not events.
    pub muted: Cell<u32>,
    /// A notification is being handled: the command that caused it has not ended.
    pub in_notification: Cell<bool>,
    /// Sync executions of key events that run before the next command, or before the loop sleeps.
    pub sync_due: RefCell<VecDeque<KeyEvent>>,
    /// The same for events of the server's own walks over its keys, to which no client waits.
    pub sync_later: RefCell<VecDeque<KeyEvent>>,
    /// The server removed a field of a hash that had expired, in this turn of the loop.
    pub field_expired: Cell<bool>,
    /// Key events that wait for their executions.
    pub pending: RefCell<PendingEvents>,
    /// Executions that notifications asked for, to be started when the command that caused them has ended.
    pub fired: RefCell<VecDeque<ExecutionNo>>,
    /// Sync stream executions that wait for their turn.
    pub sync_streams: RefCell<VecDeque<ExecutionNo>>,
    /// A sync function runs: what it writes fires nothing of its own kind.
    pub in_sync_keys: Cell<bool>,
    /// A sync stream function runs: the same for stream registrations.
    pub in_sync_streams: Cell<bool>,

    /// Executions whose reader has more to read.
    pub readers: RefCell<VecDeque<ExecutionNo>>,
    /// Workers with frames that were read and not handled.
    pub frames_left: RefCell<BTreeSet<WorkerNo>>,
    /// Has the loop come back for them.
    pub frame_pump: Pump,
    /// Answers that are written in slices.
    pub dumps: RefCell<VecDeque<crate::dump::Dump>>,
    /// What the next [`Engine::before_sleep`] does.
    pub due: RefCell<Due>,
    /// Work that the loop should come back for.
    pub pump: Pump,
    /// Warnings that were given once.
    pub warned: RefCell<HashSet<&'static str>>,
}

thread_local! {
    static ENGINE: OnceCell<Rc<Engine>> = const { OnceCell::new() };
}

/// The engine, on the main thread of a server that loaded the module.
pub fn engine() -> Option<Rc<Engine>> {
    ENGINE.with(|engine| engine.get().cloned())
}

impl Engine {
    /// Builds the engine; [`Engine::install`] makes it the one that callbacks find.
    pub fn new(server: Server, config: Config) -> Result<Engine, String> {
        let python = crate::python::find(config.python.as_deref());
        let limits = Limits { workers_max: config.workers_max, sessions_max: config.worker_sessions_max };
        Ok(Engine {
            server,
            shard: ShardId::standalone(),
            python,
            start: Instant::now(),
            pool: RefCell::new(Pool::new(limits)),
            workers: RefCell::default(),
            spawner: Spawner::start()?,
            unflushed: RefCell::default(),
            trimming: Cell::new(false),
            start_error: RefCell::default(),
            past_peak_bytes: Cell::default(),
            worker_deaths: Cell::default(),
            sessions: RefCell::default(),
            waiting: RefCell::default(),
            next_session: Cell::new(1),
            installer: Installer::start()?,
            executions: RefCell::new(Executions::new(config.executions_max)),
            live: RefCell::default(),
            schedule: RefCell::new(Schedule::new(config.execution_threads, config.workers_max)),
            ticking: Cell::new(false),
            sync_chain: RefCell::default(),
            wait_deadline: Cell::new(None),
            atomic: RefCell::default(),
            deferred: RefCell::default(),
            deferred_bytes: Cell::new(0),
            deferred_left: Cell::new(false),
            call_runs: RefCell::default(),
            command_facts: RefCell::default(),
            protection: OnceCell::new(),
            registrations: RefCell::default(),
            streams: RefCell::default(),
            held: RefCell::default(),
            acknowledging: Cell::new(0),
            run_id: crate::sessions::random_id(SessionNo(0)).split_off(32),
            subscribed: Cell::new(false),
            muted: Cell::new(0),
            in_notification: Cell::new(false),
            sync_due: RefCell::default(),
            sync_later: RefCell::default(),
            field_expired: Cell::new(false),
            pending: RefCell::new(PendingEvents::new(config.pending_event_bytes_max)),
            fired: RefCell::default(),
            sync_streams: RefCell::default(),
            in_sync_keys: Cell::new(false),
            in_sync_streams: Cell::new(false),
            readers: RefCell::default(),
            frames_left: RefCell::default(),
            frame_pump: Pump::new()?,
            dumps: RefCell::default(),
            due: RefCell::default(),
            pump: Pump::new()?,
            warned: RefCell::default(),
            config,
        })
    }

    /// Makes this engine the one that callbacks find.
    pub fn install(self) -> Rc<Engine> {
        ENGINE.with(|cell| Rc::clone(cell.get_or_init(|| Rc::new(self))))
    }

    /// Milliseconds since the module was loaded.
    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// A new session number.
    pub fn new_session_number(&self) -> SessionNo {
        let number = self.next_session.get();
        self.next_session.set(number + 1);
        SessionNo(number)
    }

    /// The worker with that number.
    pub fn worker(&self, number: WorkerNo) -> Option<Rc<Worker>> {
        self.workers.borrow().get(&number).cloned()
    }

    /// Whether background work may touch the data now: no script is running and nothing is being loaded.
    pub fn may_work(&self) -> bool {
        let flags = self.server.flags();
        !flags.lua() && !flags.loading()
    }

    /// Runs `body` while keyspace events of our own reads are ignored.
    pub fn muted<T>(&self, body: impl FnOnce() -> T) -> T {
        self.muted.set(self.muted.get() + 1);
        let value = body();
        self.muted.set(self.muted.get() - 1);
        value
    }

    /// Called before the server's loop sleeps: does what this turn's events made due, and hands out what was collected.
    ///
    /// Event handlers only take note, because Redis 7.0 propagates what a module's call writes (or lets expire) at the
    /// end of a callback that has a context, and event handlers have none: it would stop itself by an assertion when
    /// its clock ticks in between.
    pub fn before_sleep(&self) {
        let due = std::mem::take(&mut *self.due.borrow_mut());
        // Commands of functions must not land in the middle of a script, nor of a load: everything stays where it is, and
        // its descriptors go on being ready.
        if self.may_work() {
            self.deferred_left.set(false);
            self.run_due();
            if !self.deferred.borrow().is_empty() {
                self.retry_deferred();
            }
            let mut readable = due.readable;
            readable.append(&mut self.frames_left.borrow_mut());
            self.work_off_frames(readable);
            due.ended.into_iter().for_each(|worker| self.process_ended(worker));
            self.start_fired();
            self.start_pending();
            if due.slice {
                self.read_slices();
            }
        }
        self.flush_workers();
        if self.frames_left.borrow().is_empty() && !self.deferred_left.get() {
            self.frame_pump.stop(&self.server);
        } else {
            self.frame_pump.run(&self.server, || {});
        }
    }

    /// Starts an execution once the command that is running has ended.
    pub fn fire(&self, execution: ExecutionNo) {
        self.fired.borrow_mut().push_back(execution);
    }
}
