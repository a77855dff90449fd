//! Functions that are called again and again: time events.
//!
//! A key may stand for one: it is saved with the key, and ends when the key is deleted, overwritten or renamed. They run on
//! masters only.

use redgrease_core::frame::LogLevel;
use redgrease_core::id::{Database, ExecutionNo, PlanNo, SessionNo};
use redgrease_core::plan::{PlanSpec, RunReader};
use redgrease_core::render::Style;
use redgrease_core::saved::{ByteBuf, Change, SavedTimeEvent};

use crate::asked::Asked;
use crate::calls::caller::PendingCall;
use crate::effect::Question;
use crate::engine::Engine;
use crate::error::Error;
use crate::events::time_events::{NewTimeEvent, TimeEvent};
use crate::executions::live::Source;
use crate::executions::outcome::Outcome;
use crate::limits::TIME_EVENTS_MAX;
use crate::prelude::*;
use crate::timers::Timer;

impl Engine {
    /// `registerTE(period, callback, key)`.
    pub(crate) fn register_time_event(
        &mut self,
        call: PendingCall,
        (plan, encoded, blob): (PlanNo, &[u8], &[u8]),
        period_s: u64,
        key: Option<&[u8]>,
    ) {
        let spec = match PlanSpec::decode(encoded) {
            Ok(spec) => spec,
            Err(error) => return self.answer_call(&call, Err(error.to_string())),
        };
        let number = call.caller.session;
        let database = self.database_of(call.caller);
        if self.time_events.all.len() >= TIME_EVENTS_MAX {
            return self.answer_call(&call, Err(Error::TooManyTimeEvents.into()));
        }
        if key.is_some() && self.at.server.paused {
            return self.answer_call(&call, Err(Error::Paused.into()));
        }
        let python = self.workers.links.get(&call.worker).map(|link| link.python.clone()).unwrap_or_default();
        let Some(session) = self.sessions.get_mut(number) else {
            return self.answer_call(&call, Err(Error::SessionEnded.into()));
        };
        session.stored.python = python;
        session.stored.functions.push(blob.to_vec());
        let mut event = TimeEvent { session: number, plan, spec, database, period_s, key: None };
        let Some(key) = key else { return self.add_time_event(NewTimeEvent { call: Some(call), event, change: None }) };
        let Some(session) = self.sessions.get(number) else { return };
        let mut saved = self.saved_session(number, session);
        saved.registrations.clear();
        let saved = SavedTimeEvent {
            period_s,
            plan: plan.in_data_of(number).0 as i64,
            spec: ByteBuf::from(encoded.to_vec()),
            session: saved,
        };
        let change = Change::TimeEvent { database: database.0.into(), key: ByteBuf::from(key.to_vec()), event: saved };
        let value: Rc<[u8]> = change.encode().into();
        event.key = Some((key.to_vec(), Rc::clone(&value)));
        let user = self.user_of(call.caller);
        let about = Question::MakeTimeEventKey { user, database, key: key.to_vec(), value };
        self.ask(about, Asked::TimeEventKey(Box::new(NewTimeEvent { call: Some(call), event, change: Some(change) })));
    }

    /// The key of a time event was made, or exists already.
    pub(crate) fn time_event_key_made(&mut self, new: NewTimeEvent, made: Result<bool, String>) {
        if made == Ok(true) {
            return self.add_time_event(new);
        }
        if let Some(call) = new.call {
            self.answer_call(&call, made.map(encoded_bool));
        }
    }

    fn add_time_event(&mut self, new: NewTimeEvent) {
        let NewTimeEvent { call, event, change } = new;
        let number = self.time_events.counter.next();
        let period_s = event.period_s;
        self.time_events.all.insert(number, event);
        self.after_ms(period_s.saturating_mul(1000), Timer::TimeEvent(number));
        if let Some(change) = change {
            self.replicate(&change);
        }
        if let Some(call) = call {
            self.answer_call(&call, Ok(encoded_bool(true)));
        }
    }

    /// A time event whose key was loaded, or that a master sent; `make`: its key does not exist yet.
    pub(crate) fn restore_time_event(&mut self, database: Database, key: Vec<u8>, saved: SavedTimeEvent, make: bool) {
        let spec = match PlanSpec::decode(&saved.spec) {
            Ok(spec) => spec,
            Err(error) => {
                return self.log(LogLevel::Warning, format!("rg: a time event was saved and cannot be used: {error}"));
            }
        };
        let change =
            Change::TimeEvent { database: database.0.into(), key: ByteBuf::from(key.clone()), event: saved.clone() };
        let value: Rc<[u8]> = change.encode().into();
        let session = self.session_of_time_event(saved.clone());
        let plan = PlanNo(saved.plan as u64).in_data_of(session);
        let event = TimeEvent {
            session,
            plan,
            spec,
            database,
            period_s: saved.period_s,
            key: Some((key.clone(), Rc::clone(&value))),
        };
        let new = NewTimeEvent { call: None, event, change: None };
        if make {
            self.ask(
                Question::MakeTimeEventKey { user: None, database, key, value },
                Asked::TimeEventKey(Box::new(new)),
            );
        } else {
            self.add_time_event(new);
        }
    }

    /// The session of a time event that is restored: time events of one session share it again.
    fn session_of_time_event(&mut self, saved: SavedTimeEvent) -> SessionNo {
        let same = self
            .time_events
            .all
            .values()
            .map(|event| event.session)
            .find(|number| self.sessions.get(*number).is_some_and(|session| *session.name == *saved.session.name));
        match same {
            Some(number) => {
                if let Some(session) = self.sessions.get_mut(number) {
                    for functions in saved.session.functions {
                        if !session.stored.functions.iter().any(|known| **known == **functions) {
                            session.stored.functions.push(functions.into_vec());
                        }
                    }
                }
                number
            }
            None => self.add_saved_session(saved.session, false),
        }
    }

    /// It is time to call a function.
    pub(crate) fn time_event_is_due(&mut self, number: u64) {
        let Some(event) = self.time_events.all.get(&number) else { return };
        let (period_s, database) = (event.period_s, event.database);
        if self.at.server.replica || self.at.server.loading || !Engine::may_work(&self.at) {
            return self.after_ms(period_s.saturating_mul(1000), Timer::TimeEvent(number));
        }
        match event.key.clone() {
            Some((key, value)) => {
                self.ask(Question::HasTimeEventKey { database, key, value }, Asked::TimeEventIsDue(number));
            }
            None => self.call_time_event(number, true),
        }
    }

    /// Whether the key of a time event still exists is known.
    pub(crate) fn call_time_event(&mut self, number: u64, exists: bool) {
        if !exists {
            return self.end_time_event(number);
        }
        let Some(event) = self.time_events.all.get(&number) else { return };
        let (session, plan, spec, database) = (event.session, event.plan, event.spec.clone(), event.database);
        if self.sessions.get(session).is_some_and(|session| session.up_in().is_none()) {
            self.want_time_event_session(session);
            return self.after_ms(event_retry_ms(), Timer::TimeEvent(number));
        }
        let Some(user) = self.sessions.get(session).map(|session| Rc::clone(&session.user)) else {
            return self.end_time_event(number);
        };
        let execution = self.new_run((session, plan), spec, RunReader::Worker, (user, database), Style::Compat);
        if let Some(live) = self.live.get_mut(&execution) {
            live.time_event = Some(number);
            live.source = Source::arguments(&[]);
        }
        self.drop_at_end(execution);
        self.begin(execution);
    }

    /// A session that only time events need gets a worker when one is due.
    fn want_time_event_session(&mut self, number: SessionNo) {
        let waits = self.sessions.waiting.contains(&number);
        let needs = self.sessions.get(number).is_some_and(|session| session.worker().is_none());
        if needs && !waits {
            self.prepare_session(number);
        }
    }

    /// A call of a function has ended.
    pub(crate) fn time_event_called(&mut self, number: u64, _execution: ExecutionNo, outcome: &Outcome) {
        let Some(event) = self.time_events.all.get(&number) else { return };
        let period_s = event.period_s;
        if let Some(error) = outcome.errors.first() {
            let text = redgrease_core::render::log_line(error);
            self.log(LogLevel::Warning, format!("rg: a time event failed and is not called again: {text}"));
            return self.end_time_event(number);
        }
        self.after_ms(period_s.saturating_mul(1000), Timer::TimeEvent(number));
    }

    fn end_time_event(&mut self, number: u64) {
        if let Some(event) = self.time_events.all.remove(&number) {
            self.end_session_if_unused(event.session);
        }
    }

    /// Data begins to be loaded: time events are loaded with their keys.
    pub(crate) fn forget_time_events(&mut self) {
        let numbers: Vec<u64> = self.time_events.all.keys().copied().collect();
        for number in numbers {
            self.end_time_event(number);
        }
    }
}

fn encoded_bool(value: bool) -> Vec<u8> {
    let mut writer = redgrease_core::codec::Writer::new();
    writer.bool(value);
    writer.into_bytes()
}

/// Pause before a function is called whose worker is not there yet, in milliseconds.
const fn event_retry_ms() -> u64 {
    crate::limits::PAUSED_RETRY_MS
}
