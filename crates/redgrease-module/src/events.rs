//! What starts executions of registrations: keyspace events and triggers.

use redgrease_core::codec::{KeyType, Writer};
use redgrease_core::pending::KeyEvent;
use redgrease_core::plan::{Mode, Trigger};
use redgrease_ffi::{Invocation, LogLevel};

use redgrease_core::id::{Database, ExecutionNo, RegistrationNo};

use crate::engine::{Engine, engine};
use crate::readers::key_type;
use crate::reply;
use crate::runs::Input;
use crate::streams::SYNC_SLICE;

/// Events that may wait for their sync executions before further ones are dropped.
const SYNC_WAITING_MAX: usize = 100_000;

/// A sync execution that waits for the end of the command that fired it.
#[derive(Debug)]
pub enum SyncRun {
    /// That of a key event.
    Key(KeyEvent),
    /// Those of streams that are queued.
    Streams,
}

/// Whether an event may come from a walk of the server over its own structures: its expire or evict cycle, or the removal
/// of a hash slot. No user code may run inside one, and where the server runs a job after a notification is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// A command fired it.
    No,
    /// A walk may have fired it.
    Possible,
}

/// Called before a command of a client is run, while sync functions are registered (Redis 7.0 only).
pub fn command_begins() {
    if let Some(engine) = engine() {
        engine.between_commands();
    }
}

/// Called by the server for every change of a key.
pub fn key_changed(database: u32, event: &str, key: &[u8]) {
    notified(|engine| engine.key_changed(Database(database), event, key));
}

/// Called by the server for every change of a stream.
pub fn stream_changed(database: u32, event: &str, key: &[u8]) {
    let added = event == "xadd";
    // After these the key may be another stream.
    if added || matches!(event, "rename_to" | "restore" | "copy_to" | "move_to") {
        notified(|engine| {
            if engine.hears_events() {
                engine.stream_event(Database(database), key, added);
            }
        });
    }
}

fn notified(tell: impl FnOnce(&Engine)) {
    if let Some(engine) = engine() {
        let before = engine.in_notification.replace(true);
        tell(&engine);
        engine.in_notification.set(before);
    }
}

fn run_sync_event(run: SyncRun) {
    if let Some(engine) = engine() {
        engine.run_sync_event(run);
    }
}

impl Engine {
    /// Whether events start anything here: on a master, with data that is there.
    fn hears_events(&self) -> bool {
        let flags = self.server.flags();
        !flags.loading() && !flags.replica() && self.registrations.borrow().wants_events()
    }

    fn key_changed(&self, database: Database, event: &str, key: &[u8]) {
        let own_miss = self.muted.get() > 0 && event == "keymiss";
        if own_miss || self.in_sync_keys.get() || !self.hears_events() {
            return;
        }
        if event == "hexpired" {
            self.field_expired.set(true);
        }
        // Asking for a type may itself fire (a key that has expired): no borrow may be held meanwhile.
        let typed = self.registrations.borrow().wants_type(key);
        let kind = if typed { key_type(self.key_kind(database, key).0) } else { KeyType::Unknown };
        let matching = self.registrations.borrow().for_event(database, event, key, kind);
        for (registration, mode) in matching {
            self.key_event(registration, mode, event, key);
        }
    }

    fn key_event(&self, registration: RegistrationNo, mode: Mode, event: &str, key: &[u8]) {
        self.count_triggered(registration);
        let key_event = self.pending.borrow_mut().event(registration, key, event);
        let accepted = match mode {
            Mode::Sync => self.run_after_command(SyncRun::Key(key_event), self.walk_of(event)),
            Mode::Async | Mode::AsyncLocal => self.pending.borrow_mut().push(key_event),
        };
        if !accepted {
            self.warn_once("events dropped", || {
                let max = self.config.pending_event_bytes_max;
                format!(
                    "events are dropped and counted as aborted: those that wait take PendingEventBytesMax ({max}), or \
                     {SYNC_WAITING_MAX} sync ones wait"
                )
            });
            if let Some(registration) = self.registrations.borrow_mut().get_mut(registration) {
                registration.statistics.aborted += 1;
            }
        }
    }

    /// The execution of an event; `None` when its registration is gone.
    fn event_execution(&self, event: KeyEvent) -> Option<ExecutionNo> {
        let KeyEvent { registration, key, event } = event;
        let read_value = match &self.registrations.borrow().get(registration)?.trigger {
            Trigger::Keys { read_value, .. } => *read_value,
            _ => return None,
        };
        self.new_triggered(registration, None, Input::Event { key, event, read_value }, false)
    }

    /// Makes executions of events that wait.
    pub fn start_pending(&self) {
        let deadline = std::time::Instant::now() + SYNC_SLICE;
        loop {
            let Some(event) = self.pending.borrow_mut().take() else { return };
            let registration = event.registration;
            match self.event_execution(event) {
                Some(execution) => {
                    self.mark_pending(execution);
                    self.begin(execution);
                }
                None => self.pending.borrow_mut().ended(registration),
            }
            if std::time::Instant::now() >= deadline {
                // The rest in the next turn, which this brings about.
                return self.server.after_ms(0, || {});
            }
        }
    }

    fn walk_of(&self, event: &str) -> Walk {
        match event {
            "expired" | "evicted" | "hexpired" => Walk::Possible,
            // A hash whose last field expired, or keys of a slot that moved to another shard.
            "del" if self.field_expired.get() || self.server.flags().cluster() => Walk::Possible,
            _ => Walk::No,
        }
    }

    /// Inside a notification: runs a sync execution when the command that caused it has ended and been logged, so that
    /// replicas see its effects behind those of the command, and before the command is answered. Returns whether it
    /// will be run.
    pub fn run_after_command(&self, run: SyncRun, walk: Walk) -> bool {
        if let Some(runs) = self.call_runs.borrow_mut().last_mut() {
            runs.push(run);
            return true;
        }
        let run = match walk {
            Walk::Possible => run,
            // Redis 7.0 has no jobs after a notification: its moment is before the next command, or before the loop sleeps.
            Walk::No => match self.server.after_notification(run, run_sync_event) {
                Ok(()) => return true,
                Err(run) => run,
            },
        };
        let SyncRun::Key(event) = run else { return true };
        let queue = if walk == Walk::Possible { &self.sync_later } else { &self.sync_due };
        let mut queue = queue.borrow_mut();
        let fits = queue.len() < SYNC_WAITING_MAX;
        if fits {
            queue.push_back(event);
        }
        fits
    }

    /// Runs a sync execution that waited for the end of a command.
    pub fn run_sync_event(&self, run: SyncRun) {
        match run {
            SyncRun::Streams => self.run_sync_streams(),
            SyncRun::Key(event) => {
                let Some(execution) = self.event_execution(event) else { return };
                let before = self.in_sync_keys.replace(true);
                self.run_sync(execution, true);
                self.in_sync_keys.set(before);
            }
        }
    }

    /// Before a command of a client: what the one before fired runs first.
    fn between_commands(&self) {
        if self.sync_due.borrow().is_empty() && self.sync_streams.borrow().is_empty() {
            return;
        }
        let flags = self.server.flags();
        let inside = flags.lua() || flags.multi() || flags.loading() || !self.sync_chain.borrow().is_empty();
        if !inside {
            self.server.in_context(|| {
                if let Some(engine) = engine() {
                    engine.run_owed();
                }
            });
        }
    }

    /// Runs what commands fired and clients wait for.
    fn run_owed(&self) {
        loop {
            let Some(event) = self.sync_due.borrow_mut().pop_front() else { break };
            self.run_sync_event(SyncRun::Key(event));
        }
        if !self.sync_streams.borrow().is_empty() {
            self.run_sync_streams();
        }
    }

    /// Runs sync executions whose moment is before the loop sleeps.
    pub fn run_due(&self) {
        self.field_expired.set(false);
        self.run_owed();
        let deadline = std::time::Instant::now() + SYNC_SLICE;
        loop {
            let Some(event) = self.sync_later.borrow_mut().pop_front() else { return };
            self.run_sync_event(SyncRun::Key(event));
            if std::time::Instant::now() >= deadline {
                // The rest in the next turn, which this brings about.
                return self.server.after_ms(0, || {});
            }
        }
    }

    fn warn_once(&self, what: &'static str, text: impl FnOnce() -> String) {
        if self.warned.borrow_mut().insert(what) {
            self.server.log(LogLevel::Warning, &format!("rg: {}", text()));
        }
    }

    /// `RG.TRIGGER`: `args` are the name and the function's arguments.
    pub fn trigger(&self, invocation: &Invocation<'_>, args: &[&[u8]], tagged: bool) {
        let client = invocation.reply();
        let Some(registration) = self.registrations.borrow().command(args[0]) else {
            return client.error("ERR subcommand not found");
        };
        let (mode, session) = match self.registrations.borrow().get(registration) {
            Some(registration) => (registration.spec.mode, registration.session),
            None => return client.error("ERR subcommand not found"),
        };
        let flags = invocation.flags();
        if flags.replica() && flags.read_only() {
            return client.error("READONLY functions are not run on a read-only replica: ask its master");
        }
        let must_answer_now = flags.multi() || flags.lua() || flags.deny_blocking();
        if mode != Mode::Sync && (must_answer_now || flags.loading()) {
            return client.error(
                "ERR can not run a non-sync execution inside a MULTI/LUA (blocking is not allowed) or on loading.",
            );
        }
        if let Some(reason) = self.why_down(session) {
            if let Some(registration) = self.registrations.borrow_mut().get_mut(registration) {
                registration.statistics.triggered += 1;
                registration.statistics.aborted += 1;
            }
            return client.error(&redgrease_core::render::one_line(reason.as_bytes()));
        }
        let len: usize = args.iter().map(|arg| arg.len()).sum();
        if len > self.config.record_bytes_max {
            let max = self.config.record_bytes_max;
            return client
                .error(&format!("RECORDTOOBIG the arguments have {len} bytes, more than MaxRecordBytes ({max})"));
        }
        let mut writer = Writer::new();
        writer.list(args.len());
        for arg in args {
            writer.raw(arg);
        }
        let input = Input::Records { count: 1, bytes: writer.into_bytes() };
        self.count_triggered(registration);
        let Some(execution) = self.new_triggered(registration, Some(Database(invocation.database())), input, tagged)
        else {
            return client.error("ERR Could not trigger execution, the registration is gone");
        };
        self.drop_at_end(execution);
        if mode == Mode::Sync {
            let outcome = std::rc::Rc::new(std::cell::RefCell::new(None));
            let place = std::rc::Rc::clone(&outcome);
            self.on_end(execution, move |_, outcome| *place.borrow_mut() = Some(outcome));
            self.run_sync(execution, must_answer_now);
            return match &*outcome.borrow() {
                Some(outcome) => reply::triggered(&client, outcome),
                None => client.error("INTERNAL the sync execution did not end"),
            };
        }
        let Some(mut blocked) = invocation.block() else {
            self.discard(execution);
            return client.error("ERR the caller can not be blocked");
        };
        blocked.measure_start();
        self.on_end(execution, move |_, outcome| {
            blocked.answer(move |client| reply::triggered(client, &outcome));
        });
        self.begin(execution);
    }

    /// Why functions of a session cannot be run now, if they cannot.
    fn why_down(&self, session: redgrease_core::id::SessionNo) -> Option<String> {
        let sessions = self.sessions.borrow();
        let session = sessions.get(&session)?;
        if let Some(reason) = &session.broken {
            return Some(reason.clone());
        }
        (!session.is_up())
            .then(|| format!("WORKERDOWN the worker of session '{}' is being replaced: try again", session.name))
    }
}
