//! Keyspace events, and the executions that they start.

use redgrease_core::codec::KeyType;
use redgrease_core::frame::LogLevel;
use redgrease_core::id::{Database, ExecutionNo, RegistrationNo, SessionNo};
use redgrease_core::plan::{Mode, Trigger};
use redgrease_core::render::{Reply, one_line};

use crate::asked::Asked;
use crate::clients::Client;
use crate::effect::{Answer, Effect, Question};
use crate::engine::Engine;
use crate::error::Error;
use crate::events::pending::KeyEvent;
use crate::events::sync::SyncRun;
use crate::executions::live::{Launch, Source, Waiter};
use crate::input::{Caller, Inside};
use crate::limits::{SYNC_WAITING_MAX, UNREGISTERED_EVENTS_MAX};
use crate::prelude::*;
use crate::registrations::hooks::HookedCall;
use crate::step::Next;

impl Engine {
    /// Whether events start executions here: on a master, after loading.
    pub(crate) fn hears_events(&self) -> bool {
        !self.at.server.loading && !self.at.server.replica && self.registrations.wants_events()
    }

    /// A key was changed.
    pub(crate) fn key_changed(&mut self, database: Database, event: &str, key: &[u8]) {
        // Writes of a sync function trigger no further sync functions of the same kind.
        if self.sync.keys_running > 0 || !self.hears_events() {
            return;
        }
        if event == "hexpired" {
            self.sync.walk_of(event, false);
        }
        if self.registrations.wants_type(key) {
            let asked = Asked::KeyOfEvent { database, event: event.to_owned(), key: key.to_vec() };
            return self.ask(Question::Key { database, key: key.to_vec() }, asked);
        }
        self.key_changed_of_type(database, event, key, KeyType::Unknown);
    }

    /// A key was changed; its type is known if a registration filters by it.
    pub(crate) fn key_changed_of_type(&mut self, database: Database, event: &str, key: &[u8], kind: KeyType) {
        for (registration, mode) in self.registrations.for_event(database, event, key, kind) {
            self.key_event(registration, mode, event, key);
        }
    }

    fn key_event(&mut self, registration: RegistrationNo, mode: Mode, event: &str, key: &[u8]) {
        let of_commands = self.registrations.get(registration).is_some_and(|found| found.trigger.is_of_commands());
        if of_commands && !self.interceptions.waits_for(registration) {
            return;
        }
        self.count_triggered(registration);
        let key_event = self.pending.event(registration, key, event);
        if of_commands {
            return self.intercepted_event(registration, mode, key_event);
        }
        let accepted = match mode {
            Mode::Sync => {
                let walk = self.sync.walk_of(event, self.at.server.cluster);
                self.run_after_command(SyncRun::Key(key_event), walk)
            }
            Mode::Async | Mode::AsyncLocal => self.pending.push(key_event),
        };
        if !accepted {
            let max = self.config.pending_event_bytes_max;
            let text = format!(
                "rg: events are dropped and counted as aborted: those that wait take PendingEventBytesMax ({max}), or \
                 {SYNC_WAITING_MAX} sync ones wait"
            );
            if self.warned.insert("events dropped") {
                self.log(LogLevel::Warning, text);
            }
            self.count_aborted(registration);
        }
    }

    /// The execution of an event; `None` if its registration was removed.
    pub(crate) fn event_execution(&mut self, event: KeyEvent) -> Option<ExecutionNo> {
        let KeyEvent { registration, key, event } = event;
        let read_value = match &self.registrations.get(registration)?.trigger {
            Trigger::Keys { read_value, .. } => *read_value,
            _ => return None,
        };
        self.new_triggered(registration, None, Source::Event { key, event, read_value }, false)
    }

    /// Creates an execution from a waiting event.
    pub(crate) fn start_pending(&mut self) {
        let Some(event) = self.pending.take() else { return };
        let registration = event.registration;
        match self.event_execution(event) {
            Some(execution) => {
                if let Some(live) = self.live.get_mut(&execution) {
                    live.from_pending = true;
                }
                self.begin(execution);
            }
            None => self.pending.ended(registration),
        }
    }

    /// A registration is about to be removed: executions of the events that wait exist from now on, those of too many are aborted.
    pub(crate) fn start_all_pending(&mut self, registration: RegistrationNo) {
        for event in self.pending.take_of(registration, UNREGISTERED_EVENTS_MAX) {
            if let Some(execution) = self.event_execution(event) {
                self.begin(execution);
            }
        }
        let aborted = self.pending.remove(registration);
        if aborted > 0 {
            let id = self.registrations.get(registration).map_or_else(String::new, |found| found.id.to_string());
            let text = format!(
                "rg: {aborted} events of the removed registration {id} are aborted: more than {UNREGISTERED_EVENTS_MAX} waited"
            );
            self.log(LogLevel::Warning, text);
        }
    }

    /// `RG.TRIGGER`: `args` are the name and the function's arguments.
    pub(crate) fn trigger(&mut self, client: Client, caller: &Caller, args: &[&[u8]], tagged: bool) {
        let name = args.first().copied().unwrap_or_default();
        let Some(registration) = self.registrations.command(name) else {
            return self.refuse(client, Error::NoTrigger);
        };
        self.trigger_registration(client, caller, registration, args, (tagged, None));
    }

    /// Runs the function of a registration for a command of a client.
    pub(crate) fn trigger_registration(
        &mut self,
        client: Client,
        caller: &Caller,
        registration: RegistrationNo,
        args: &[&[u8]],
        (tagged, hooked): (bool, Option<HookedCall>),
    ) {
        let Some((mode, session)) = self.registrations.get(registration).map(|found| (found.spec.mode, found.session))
        else {
            return self.refuse(client, Error::NoTrigger);
        };
        if self.at.server.refuses_writes() {
            return self.refuse(client, Error::TriggerOnReplica);
        }
        let must_answer_now = caller.inside != Inside::Nothing;
        if mode != Mode::Sync && (must_answer_now || self.at.server.loading) {
            return self.refuse(client, Error::TriggerNotHere);
        }
        let now = must_answer_now || self.at.server.loading || self.is_serving();
        let waits = !now && self.is_being_rebuilt(session);
        if let Some(reason) = self.why_down(session).filter(|_| !waits) {
            self.count_triggered(registration);
            self.count_aborted(registration);
            return self.reply(client, Reply::Error(one_line(reason.as_bytes())));
        }
        let len: usize = args.iter().map(|arg| arg.len()).sum();
        let max = self.config.record_bytes_max;
        if len > max {
            return self.refuse(client, Error::ArgumentsTooBig { len, max });
        }
        let source = Source::arguments(args);
        self.count_triggered(registration);
        let Some(execution) = self.new_triggered(registration, Some(caller.database), source, tagged) else {
            return self.refuse(client, Error::TriggerGone);
        };
        let is_hook = hooked.is_some();
        if let Some(live) = self.live.get_mut(&execution) {
            live.hooked = hooked.map(Box::new);
        }
        self.drop_at_end(execution);
        if mode == Mode::Sync && now {
            self.on_end(execution, Waiter::Command);
            self.run_sync(execution, must_answer_now);
            return self.then(Next::AnswerTrigger { client, execution, is_hook });
        }
        if mode == Mode::Sync
            && let Some(live) = self.live.get_mut(&execution)
        {
            live.launch = Launch::Group;
        }
        self.out.push(Effect::Block(client.number()));
        self.out.push(Effect::Measure(client.number()));
        self.on_end(execution, if is_hook { Waiter::Hook(client) } else { Waiter::Trigger(client) });
        self.begin(execution);
    }

    /// A sync execution that a client triggered has ended.
    pub(crate) fn answer_trigger(&mut self, client: Client, execution: ExecutionNo, is_hook: bool) {
        match self.outcomes.remove(&execution) {
            Some(outcome) if is_hook => self.answer(client, Answer::Hook(outcome)),
            Some(outcome) => self.answer(client, Answer::Trigger(outcome)),
            None if self.live.get(&execution).is_some_and(|live| live.parked) => {
                // It goes on in the background.
                if let Some(live) = self.live.get_mut(&execution) {
                    live.waiters.retain(|waiter| !matches!(waiter, Waiter::Command));
                }
                self.out.push(Effect::Block(client.number()));
                self.on_end(execution, if is_hook { Waiter::Hook(client) } else { Waiter::Trigger(client) });
            }
            None => {
                // The driver failed while it waited for the outcome, so nothing reads it any more.
                if let Some(live) = self.live.get_mut(&execution) {
                    live.waiters.clear();
                }
                self.refuse(client, Error::SyncWithoutEnd);
            }
        }
    }

    /// The reason why functions of a session cannot be run now, if any.
    pub(crate) fn why_down(&self, session: SessionNo) -> Option<String> {
        let session = self.sessions.get(session)?;
        if let Some(reason) = session.broken() {
            return Some(reason.to_owned());
        }
        session.up_in().is_none().then(|| Error::SessionDown(session.name.to_string()).into())
    }
}
