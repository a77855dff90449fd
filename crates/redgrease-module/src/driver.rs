//! The shared state of the driver: the server, the engine, and the tables of objects that the engine knows by number.
//!
//! Callbacks of the server come one at a time but *re-entrantly*: a command that a function runs may cause a
//! notification, which is an input itself while the effect that ran the command is still being performed. So the
//! engine is borrowed for one call only, and never while the server is called.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use redgrease_core::id::{Database, WorkerNo};
use redgrease_core::python::PythonVersion;
use redgrease_engine::input::Stream;
use redgrease_engine::{Capabilities, Config, Effect, Engine, Input, ServerState, Situation};
use redgrease_ffi::Server;
use redgrease_ffi::keyspace::KeyKind;

use crate::clients::Clients;
use crate::cluster::known::Discovery;
use crate::cluster::links::Links;
use crate::depth::Depth;
use crate::fault::Fault;
use crate::installer::Installer;
use crate::interpreters::Interpreters;
use crate::isolation;
use crate::loop_events::LoopEvents;
use crate::os_user::OsUser;
use crate::program::Program;
use crate::pump::Pump;
use crate::random::hex_digits;
use crate::spawner::{Common, Spawner};
use crate::spin::Spin;
use crate::wheels::Wheels;
use crate::workers::Workers;

/// Digits that make the names of this run of the server unique.
const RUN_ID_DIGITS: usize = 8;

/// What the events of a turn of the server's loop found ready. Handlers of descriptors only record it: the rest is done
/// by [`turn`](crate::turn).
#[derive(Default)]
pub struct Due {
    /// Workers with data to read.
    pub readable: BTreeSet<WorkerNo>,
    /// Workers that take more output.
    pub writable: BTreeSet<WorkerNo>,
    /// Workers whose process has ended.
    pub ended: BTreeSet<WorkerNo>,
    /// Outputs of workers with data to read.
    pub outputs: BTreeSet<(WorkerNo, Stream)>,
    /// Processes were started, or could not be started.
    pub spawned: bool,
    /// Installations or checks for requirements ended.
    pub installed: bool,
    /// Links were opened or lost, or have replies.
    pub linked: bool,
}

impl Due {
    /// How many descriptors they were.
    pub fn count(&self) -> usize {
        let workers = self.readable.len() + self.writable.len() + self.ended.len() + self.outputs.len();
        workers + usize::from(self.spawned) + usize::from(self.installed) + usize::from(self.linked)
    }
}

/// The driver of the engine of one shard.
pub struct Driver {
    /// The server.
    pub server: Server,
    /// The configuration of the module.
    pub config: Config,
    /// The workers' interpreter, or why there is none.
    pub runtime: Result<PathBuf, String>,
    engine: RefCell<Engine>,
    drive: fn(&Driver, Input<'_>),
    start: Instant,

    /// Panics for tests.
    pub fault: Fault,
    /// Clients whose commands are running, or that wait.
    pub clients: Clients,
    /// Worker processes.
    pub workers: Workers,
    /// The thread that starts them.
    pub spawner: Spawner,
    /// The threads that install requirements.
    pub installer: Installer,
    /// Finds interpreters of other versions.
    pub interpreters: Interpreters,
    /// The directories of requirements, and the thread that reads and writes wheels.
    pub wheels: Wheels,
    /// The topology of the cluster.
    pub discovery: Discovery,
    /// Links to other shards.
    pub links: Links,

    /// An empty list of effects for reuse: inputs are frequent.
    pub spare_effects: Cell<Vec<Effect>>,
    /// The work of the next turn.
    pub due: RefCell<Due>,
    /// Workers for which the engine has output that was not written.
    pub unwritten: RefCell<BTreeSet<WorkerNo>>,
    /// Makes the loop run again while work is left.
    pub pump: Pump,
    /// When the slice ends that readers have in this turn.
    pub slice_end: Cell<Option<Instant>>,
    /// Notifications that are being handled.
    pub notifying: Depth,
    /// Reads of our own, whose misses are not events.
    pub muted: Depth,
    /// Waits of the main thread for a worker.
    pub waits: Depth,
    /// Polling for what workers owe.
    pub spin: Spin,
    /// Workers whose rings are looked at in each turn: they need not ring the bell.
    pub polled: RefCell<BTreeSet<WorkerNo>>,
    /// When something was written to a worker last, until the loop has slept.
    pub last_written: Cell<Option<Instant>>,
    /// How many descriptors were ready when this turn of the server's loop began; `None`: it was not asked.
    pub ready: Cell<Option<usize>>,
    /// What else the server's loop has to do.
    loop_events: OnceCell<LoopEvents>,
}

thread_local! {
    static DRIVER: Cell<Option<&'static Driver>> = const { Cell::new(None) };
}

/// The driver, on the main thread of a server that loaded the module.
pub fn driver() -> Option<&'static Driver> {
    DRIVER.get()
}

impl Driver {
    /// Builds the driver; [`Driver::install`] makes it available to callbacks. `drive` handles an input.
    pub fn new(server: Server, mut config: Config, drive: fn(&Driver, Input<'_>)) -> Result<Driver, String> {
        let runtime = crate::runtime::find(config.python.as_deref());
        let for_messages = match &runtime {
            Ok(path) => Ok(path.display().to_string()),
            Err(reason) => Err(reason.clone()),
        };
        let capabilities = Capabilities { jobs: server.has_jobs() };
        let environment = redgrease_ffi::environment::variables();
        let installer = Installer::start(config.install_time_max, environment.clone())?;
        let user = OsUser::find(&config.worker_user)?;
        let interpreters = Interpreters::start(config.pythons.clone(), user.clone(), environment.clone())?;
        let confine = isolation::writable_paths(&config)?;
        let wheels = Wheels::start(&config.requirements_dir, user.clone())?;
        let spawner = Spawner::start(Common { shared_memory: config.shared_memory, confine, user, environment })?;
        let spin = Spin::new(config.spin);
        config.spin = spin.time();
        Ok(Driver {
            server,
            runtime,
            spin,
            polled: RefCell::default(),
            last_written: Cell::default(),
            ready: Cell::default(),
            loop_events: OnceCell::new(),
            engine: RefCell::new(Engine::new(config.clone(), for_messages, hex_digits(RUN_ID_DIGITS)?, capabilities)),
            config,
            drive,
            start: Instant::now(),
            fault: Fault::default(),
            clients: Clients::default(),
            workers: Workers::default(),
            spawner,
            installer,
            interpreters,
            wheels,
            discovery: Discovery::default(),
            links: Links::new()?,
            spare_effects: Cell::default(),
            due: RefCell::default(),
            unwritten: RefCell::default(),
            pump: Pump::new()?,
            slice_end: Cell::default(),
            notifying: Depth::default(),
            muted: Depth::default(),
            waits: Depth::default(),
        })
    }

    /// Makes this driver available to callbacks, until the process exits.
    pub fn install(self) -> &'static Driver {
        let driver: &'static Driver = Box::leak(Box::new(self));
        DRIVER.set(Some(driver));
        driver
    }

    /// Passes an input to the engine, and performs its effects.
    pub fn hand_in(&self, input: Input<'_>) {
        (self.drive)(self, input);
    }

    /// Queries the engine. `question` must not call the server.
    pub fn ask<T>(&self, question: impl FnOnce(&Engine) -> T) -> T {
        question(&self.engine.borrow())
    }

    /// Changes the engine. `change` must not call the server.
    pub fn change<T>(&self, change: impl FnOnce(&mut Engine) -> T) -> T {
        change(&mut self.engine.borrow_mut())
    }

    /// The time on the engine's clock: milliseconds since the module was loaded.
    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// The time, and the state of the server.
    pub fn situation(&self) -> Situation {
        let flags = self.server.flags();
        Situation {
            now_ms: self.now_ms(),
            server: ServerState {
                script: flags.lua(),
                transaction: flags.multi(),
                loading: flags.loading(),
                replica: flags.replica(),
                read_only: flags.read_only(),
                cluster: flags.cluster(),
                paused: self.server.must_not_replicate(),
                notifying: self.notifying.is_inside(),
            },
        }
    }

    /// The interpreter of that version; `None`: the default one.
    ///
    /// # Errors
    /// There is none.
    pub fn program(&self, python: Option<PythonVersion>) -> Result<Program, String> {
        let Some(version) = python else {
            return self.runtime.as_ref().map(|path| Program::installed(path)).map_err(Clone::clone);
        };
        self.interpreters.program(version).ok_or_else(|| format!("the interpreter of Python {version} is gone"))
    }

    /// Finds out how to see what the server's loop has to do. Called once, when it watches the threads.
    pub fn find_loop_events(&self) {
        let _ = self.loop_events.set(LoopEvents::find(self.spawner.ready_fd()));
    }

    /// How many descriptors wait for the server's loop to handle them, as far as that is counted.
    pub fn ready_count(&self) -> usize {
        self.loop_events.get().map_or(usize::MAX, |events| events.count(self.pump.fd()))
    }

    /// Type of a key, and length of its value. Causes no notification.
    pub fn key_kind(&self, database: Database, key: &[u8]) -> (KeyKind, usize) {
        let _own = self.muted.enter();
        self.server.key_kind(database.0, key)
    }
}
