//! What user code asks of the server: commands, actions, atomic blocks.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use redgrease_core::codec::Writer;
use redgrease_core::frame::{Call, ToWorker};
use redgrease_core::id::{Database, ExecutionNo, PlanNo, SessionNo, WorkerNo};
use redgrease_core::plan::PlanSpec;
use redgrease_core::policy::{Around, CommandFacts, Facts, Protection, check_call};
use redgrease_ffi::call::{CallError, ReplyKind, ReplyView};
use redgrease_ffi::{CallOptions, CallReply};

use crate::engine::{Engine, UserName};
use crate::sessions::Session;
use crate::supervisor::Chain;
use crate::worker::Worker;

/// Calls that may wait while clients are paused.
const DEFERRED_MAX: usize = 10_000;

/// Bytes of arguments of all calls that wait while clients are paused.
const DEFERRED_BYTES_MAX: usize = 64 << 20;

/// What a waiting call costs besides its arguments, in bytes.
const DEFERRED_COST_BYTES: usize = 200;

/// Time that one turn of the server's loop gives to calls that waited.
const DEFERRED_SLICE: Duration = Duration::from_millis(1);

/// The longest time that a call waits while clients are paused, in milliseconds.
const DEFERRED_MS_MAX: u64 = 60_000;

/// The longest reply of a command that is handed to a function, in bytes.
const REPLY_BYTES_MAX: usize = 400 << 20;

/// The internal command that makes an atomic block one unit of replication.
pub const ATOMIC_COMMAND: &[u8] = b"rg.inneratomic";

/// Commands whose facts are remembered: more than any server has.
const FACTS_MAX: usize = 4096;

/// Length of the names that are remembered: more than any command has.
const NAME_BYTES_MAX: usize = 64;

/// A call that has to wait until the server may write again.
pub struct Deferred {
    worker: WorkerNo,
    call: u64,
    caller: Chain,
    op: Waiting,
    deadline_ms: u64,
}

impl Deferred {
    fn bytes(&self) -> usize {
        DEFERRED_COST_BYTES
            + match &self.op {
                Waiting::Execute(argv) => argv.iter().map(|arg| arg.len() + size_of::<Vec<u8>>()).sum(),
                Waiting::Atomic => 0,
            }
    }
}

enum Waiting {
    Execute(Vec<Vec<u8>>),
    Atomic,
}

/// An atomic block that is about to be served, or is being served.
pub struct Atomic {
    worker: Rc<Worker>,
    call: u64,
    caller: Chain,
    left: Rc<Cell<bool>>,
    entered: Cell<bool>,
}

impl Engine {
    /// Serves one call of a worker.
    pub fn call(&self, worker: &Rc<Worker>, call: u64, exec: Option<ExecutionNo>, session: SessionNo, op: Call<'_>) {
        let caller = Chain { exec, session };
        if !self.runs_code(worker, caller) {
            self.report_foreign(worker, caller);
            return self.answer(worker, call, Err("NOPERM the caller does not run in this worker".into()));
        }
        if let Some(exec) = exec {
            self.executions.borrow_mut().start(exec);
        }
        let result = match op {
            Call::Execute { argv } => {
                if self.must_defer(caller) && !self.only_reads(&argv) {
                    let argv = argv.iter().map(|arg| arg.to_vec()).collect();
                    return self.defer(worker, call, caller, Waiting::Execute(argv));
                }
                self.execute(caller, &argv)
            }
            Call::AtomicEnter => {
                if self.must_defer(caller) {
                    return self.defer(worker, call, caller, Waiting::Atomic);
                }
                return self.enter_atomic(worker, call, caller);
            }
            Call::AtomicExit => {
                if let Some(atomic) = &*self.atomic.borrow()
                    && atomic.caller == caller
                {
                    atomic.left.set(true);
                }
                Ok(vec![0])
            }
            Call::Run { plan, spec } => self.run_action(worker, caller, PlanNo(plan), spec).map(|id| text(&id)),
            Call::Register { plan, spec, blob } => {
                self.register_action(worker, caller, PlanNo(plan), spec, blob).map(|id| text(&id))
            }
            Call::ConfigGet { key } => Ok(self.config_value(key)),
            // The server is alone: slot 0, whose shortest text this is.
            Call::HashTag => Ok(text("06S")),
        };
        self.answer(worker, call, result);
    }

    fn answer(&self, worker: &Worker, call: u64, result: Result<Vec<u8>, String>) {
        let result = match &result {
            Ok(value) => Ok(value.as_slice()),
            Err(text) => Err(text.as_str()),
        };
        self.send(worker, &ToWorker::Reply { call, result });
    }

    fn config_value(&self, key: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new();
        match self.config.extra.get(key) {
            Some(value) => writer.raw(value),
            None => writer.none(),
        }
        writer.into_bytes()
    }

    /// Whether a caller is what it says: an execution or session that lives in that worker.
    fn runs_code(&self, worker: &Worker, caller: Chain) -> bool {
        let session = match caller.exec {
            None => caller.session,
            Some(exec) => match self.live.borrow().get(&exec) {
                Some(live) if live.worker == Some(worker.number) && live.session == caller.session => live.session,
                _ => return false,
            },
        };
        self.sessions.borrow().get(&session).is_some_and(|session| session.worker == Some(worker.number))
    }

    /// Whom a caller acts as.
    pub fn user_of(&self, caller: Chain) -> Option<UserName> {
        let of_execution = caller.exec.and_then(|exec| Some(Rc::clone(&self.live.borrow().get(&exec)?.user)));
        of_execution.or_else(|| Some(Rc::clone(&self.sessions.borrow().get(&caller.session)?.user)))
    }

    /// The database that a caller acts in: that of its execution, or of the client that ran its script.
    pub fn database_of(&self, caller: Chain) -> Database {
        let of_execution = caller.exec.and_then(|exec| Some(self.live.borrow().get(&exec)?.database));
        let of_script = || Some(self.sessions.borrow().get(&caller.session)?.database);
        of_execution.or_else(of_script).unwrap_or_default()
    }

    /// Whether the server may not replicate now and the caller can wait. A caller for whom the main thread waits cannot.
    fn must_defer(&self, caller: Chain) -> bool {
        let served = self.sync_chain.borrow().contains(&caller);
        !served && (self.server.must_not_replicate() || !self.deferred.borrow().is_empty())
    }

    fn defer(&self, worker: &Worker, call: u64, caller: Chain, op: Waiting) {
        if self.deferred.borrow().len() >= DEFERRED_MAX {
            let text = format!("PAUSED clients are paused, and {DEFERRED_MAX} calls of functions wait already");
            return self.answer(worker, call, Err(text));
        }
        let deadline_ms = self.now_ms() + DEFERRED_MS_MAX;
        let deferred = Deferred { worker: worker.number, call, caller, op, deadline_ms };
        let bytes = self.deferred_bytes.get() + deferred.bytes();
        if bytes > DEFERRED_BYTES_MAX {
            let text = format!(
                "PAUSED clients are paused, and calls of functions with {} bytes wait already: the limit is \
                 {DEFERRED_BYTES_MAX} bytes for all",
                self.deferred_bytes.get()
            );
            return self.answer(worker, call, Err(text));
        }
        self.deferred_bytes.set(bytes);
        self.deferred.borrow_mut().push_back(deferred);
    }

    /// Serves calls that waited, if they may be served now; gives up those that waited too long.
    pub fn retry_deferred(&self) {
        let until = Instant::now() + DEFERRED_SLICE;
        loop {
            if Instant::now() >= until {
                return self.deferred_left.set(true);
            }
            let paused = self.server.must_not_replicate();
            let now = self.now_ms();
            let next = {
                let mut deferred = self.deferred.borrow_mut();
                match deferred.front() {
                    Some(first) if !paused || first.deadline_ms <= now => deferred.pop_front(),
                    _ => None,
                }
            };
            let Some(next) = next else { return };
            self.deferred_bytes.set(self.deferred_bytes.get().saturating_sub(next.bytes()));
            let Deferred { worker, call, caller, op, .. } = next;
            let Some(worker) = self.worker(worker) else { continue };
            if !self.runs_code(&worker, caller) {
                self.answer(&worker, call, Err("NOPERM the caller has ended".into()));
                continue;
            }
            if paused {
                let text = format!("PAUSED clients are paused for longer than {DEFERRED_MS_MAX} ms: try again later");
                self.answer(&worker, call, Err(text));
                continue;
            }
            match op {
                Waiting::Execute(argv) => {
                    let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
                    let result = self.execute(caller, &argv);
                    self.answer(&worker, call, result);
                }
                Waiting::Atomic => self.enter_atomic(&worker, call, caller),
            }
        }
    }

    /// Runs a command as the caller's user; the reply comes encoded.
    fn execute(&self, caller: Chain, argv: &[&[u8]]) -> Result<Vec<u8>, String> {
        let user = self.user_of(caller).ok_or("NOPERM the caller is unknown")?;
        let facts = self.command_facts(argv);
        check_call(argv, facts.as_deref(), self.around(caller), self.protection())
            .map_err(|refusal| refusal.to_string())?;
        let paused = self.server.must_not_replicate();
        // What is not known to read only may replicate (a script, say), which would end the server.
        if paused && !self.only_reads(argv) {
            return Err("PAUSED clients are paused, and a sync function cannot wait".into());
        }
        let flags = self.server.flags();
        let refusal = match () {
            () if flags.replica() && flags.read_only() => {
                Some("READONLY You can't write against a read only replica.".to_owned())
            }
            () if self.only_reads(argv) => None,
            () => self.server.write_refusal(),
        };
        let options = CallOptions {
            database: self.database_of(caller).0,
            user: Some(&user),
            replicate: !paused,
            deny_oom: true,
            deny_write: refusal.is_some(),
        };
        // Sync functions that this command fires run when it has ended, so that their effects are logged behind its own.
        self.call_runs.borrow_mut().push(Vec::new());
        let reply = self.server.call(argv, options);
        let runs = self.call_runs.borrow_mut().pop().unwrap_or_default();
        for run in runs {
            self.run_sync_event(run);
        }
        let reply = reply.map_err(|error| match error {
            CallError::BadName => "ERR the command's name holds a NUL".to_owned(),
            CallError::NoUser(user) => {
                format!(
                    "NOPERM the user '{user}' on whose behalf the function runs does not exist any more, or is disabled"
                )
            }
            CallError::NoDatabase(database) => format!("ERR the server has no database {database}"),
            CallError::Refused => "ERR Failed executing command".to_owned(),
        })?;
        let view = reply.view();
        if view.kind() == ReplyKind::Error {
            let text = String::from_utf8_lossy(view.bytes()).into_owned();
            // Redis 7.0 words this without the code that clients get.
            if let Some(reason) = text.strip_prefix("ERR acl verification failed, ") {
                return Err(format!("NOPERM the user '{user}' {reason}"));
            }
            return Err(match refusal {
                // The server's own text for the flag that denies writes.
                Some(refusal) if text.contains("write is not allowed") => refusal,
                _ => text,
            });
        }
        encode(&reply)
    }

    /// Whether a command can change nothing, so that it may run while clients are paused.
    fn only_reads(&self, argv: &[&[u8]]) -> bool {
        self.command_facts(argv).is_some_and(|facts| facts.of_call(argv).reads)
    }

    /// What is running around the code of a caller.
    fn around(&self, caller: Chain) -> Around {
        let flags = self.server.flags();
        let atomic = || self.atomic.borrow().as_ref().is_some_and(|atomic| atomic.caller == caller);
        match () {
            () if flags.lua() => Around::Script,
            () if flags.multi() => Around::Transaction,
            () if atomic() => Around::Atomic,
            () if self.sync_chain.borrow().contains(&caller) => Around::Command,
            () => Around::Nothing,
        }
    }

    /// The server's options that protect commands; they cannot change while it runs.
    fn protection(&self) -> Protection {
        *self.protection.get_or_init(|| {
            let enabled = |option: &[u8]| {
                let reply = self.server.call(&[b"config", b"get", option], CallOptions::default()).ok();
                reply.is_some_and(|reply| reply.view().element(1).is_some_and(|value| value.bytes() == b"yes"))
            };
            Protection {
                debug_enabled: enabled(b"enable-debug-command"),
                module_enabled: enabled(b"enable-module-command"),
            }
        })
    }

    /// What the server says of a command; `None` when it does not know it.
    pub fn command_facts(&self, argv: &[&[u8]]) -> Option<Rc<CommandFacts>> {
        let name = argv.first()?.to_ascii_lowercase();
        if let Some(facts) = self.command_facts.borrow().get(&name) {
            return Some(Rc::clone(facts));
        }
        let reply = self.server.call(&[b"command", b"info", &name], CallOptions::default()).ok()?;
        let row = reply.view().element(0)?;
        let own = facts_of(&name, row)?;
        let subcommands = row.element(9).into_iter().flat_map(|rows| rows.elements()).filter_map(|row| {
            let full = row.element(0)?.bytes();
            let word = full.split(|byte| *byte == b'|').nth(1)?;
            Some((word.to_ascii_lowercase(), facts_of(&name, row)?))
        });
        let facts = Rc::new(CommandFacts { own, subcommands: subcommands.collect() });
        let mut known = self.command_facts.borrow_mut();
        // Commands of other modules may go and come back as others.
        if !own.foreign && known.len() < FACTS_MAX && name.len() <= NAME_BYTES_MAX {
            known.insert(name, Rc::clone(&facts));
        }
        Some(facts)
    }

    /// Serves an atomic block: a command of ours runs it, so that its effects are one unit of replication.
    fn enter_atomic(&self, worker: &Rc<Worker>, call: u64, caller: Chain) {
        if self.sync_chain.borrow().contains(&caller) {
            // The main thread serves this caller and nobody else already: nothing is to be done.
            return self.answer(worker, call, Ok(vec![0]));
        }
        if self.atomic.borrow().is_some() {
            return self.answer(worker, call, Err("Already inside an atomic block".into()));
        }
        let (left, entered) = (Rc::new(Cell::new(false)), Cell::new(false));
        *self.atomic.borrow_mut() = Some(Atomic { worker: Rc::clone(worker), call, caller, left, entered });
        let database = self.database_of(caller).0;
        let options = CallOptions { database, replicate: true, ..CallOptions::default() };
        let refused = match self.server.call(&[ATOMIC_COMMAND], options) {
            Ok(reply) if reply.view().kind() == ReplyKind::Error => {
                Some(String::from_utf8_lossy(reply.view().bytes()).into_owned())
            }
            Ok(_) => None,
            Err(_) => Some("ERR the atomic block could not be entered".to_owned()),
        };
        *self.atomic.borrow_mut() = None;
        if let Some(text) = refused {
            self.answer(worker, call, Err(text));
        }
        self.revive_backlog(worker);
    }

    /// The body of [`ATOMIC_COMMAND`]: returns whether there was a block to serve.
    pub fn serve_atomic(&self) -> bool {
        let Some((worker, call, caller, left)) = self
            .atomic
            .borrow()
            .as_ref()
            .filter(|atomic| !atomic.entered.replace(true))
            .map(|atomic| (Rc::clone(&atomic.worker), atomic.call, atomic.caller, Rc::clone(&atomic.left)))
        else {
            return false;
        };
        self.sync_chain.borrow_mut().push(caller);
        self.answer(&worker, call, Ok(vec![0]));
        let until = || left.get() || !self.is_live(caller);
        // An error has been told to everybody concerned by the end of the worker.
        let _ = self.wait_for(&worker, &[caller], until, self.config.sync_time_max);
        self.sync_chain.borrow_mut().pop();
        true
    }

    /// Whether the caller's code is still running, as far as we know.
    fn is_live(&self, caller: Chain) -> bool {
        match caller.exec {
            Some(exec) => self.live.borrow().contains_key(&exec),
            None => self.sessions.borrow().get(&caller.session).is_some_and(Session::runs_script),
        }
    }

    /// Reads a plan that a worker sent.
    pub fn plan(&self, spec: &[u8]) -> Result<PlanSpec, String> {
        PlanSpec::decode(spec).map_err(|error| error.to_string())
    }
}

/// The facts in a row of `COMMAND INFO`.
fn facts_of(name: &[u8], row: ReplyView<'_>) -> Option<Facts> {
    let (flags, categories) = (row.element(2)?, row.element(6)?);
    Some(Facts::new(name, flags.elements().map(|flag| flag.bytes()), categories.elements().map(|name| name.bytes())))
}

fn text(text: &str) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.str(text);
    writer.into_bytes()
}

/// The encoded form of a reply.
pub fn encode(reply: &CallReply) -> Result<Vec<u8>, String> {
    let len = reply.wire_len();
    if len > REPLY_BYTES_MAX {
        return Err(format!("ERR the command's reply of {len} bytes is longer than {REPLY_BYTES_MAX}: ask for less"));
    }
    let mut writer = Writer::new();
    encode_view(&mut writer, reply.view(), 0);
    Ok(writer.into_bytes())
}

fn encode_view(writer: &mut Writer, view: ReplyView<'_>, depth: usize) {
    match view.kind() {
        ReplyKind::String => writer.raw(view.bytes()),
        ReplyKind::Error => writer.error(view.bytes()),
        ReplyKind::Int => writer.int(view.int()),
        ReplyKind::Array(len) if depth < redgrease_core::codec::DEPTH_MAX => {
            writer.list(len);
            for element in view.elements() {
                encode_view(writer, element, depth + 1);
            }
        }
        ReplyKind::Array(_) | ReplyKind::Null | ReplyKind::Other => writer.none(),
    }
}
