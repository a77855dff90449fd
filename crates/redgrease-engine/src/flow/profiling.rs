//! `RG.PYPROFILE`: the profile of a session's functions, which its worker keeps.

use redgrease_core::frame::ToWorker;
use redgrease_core::id::WorkerNo;
use redgrease_core::render::{Reply, one_line};

use crate::clients::Client;
use crate::effect::Effect;
use crate::engine::Engine;
use crate::error::Error;
use crate::flow::scripts::check_owner;
use crate::input::{Caller, Inside};
use crate::limits::PROFILE_MS_MAX;
use crate::prelude::*;
use crate::sessions::profiles::Waiting;
use crate::timers::Timer;

impl Engine {
    /// `RG.PYPROFILE`.
    pub(crate) fn profile(&mut self, client: Client, caller: &Caller, name: &[u8], order: Option<&str>) {
        let found = core::str::from_utf8(name).ok().and_then(|name| self.sessions.named(name));
        let Some((number, session)) = found.and_then(|number| Some((number, self.sessions.get(number)?))) else {
            return self.refuse(client, Error::NoSuchSession);
        };
        if let Err(reason) = check_owner(caller, Some(&session.user), "profile the session") {
            return self.refuse(client, reason);
        }
        let Some(worker) = session.up_in() else {
            let name = session.name.to_string();
            return self.refuse(client, Error::SessionDown(name));
        };
        if caller.inside != Inside::Nothing {
            return self.refuse_to_wait(client, caller);
        }
        let request = self.profiles.counter.next();
        self.out.push(Effect::Block(client.number()));
        self.profiles.waiting.insert(request, Waiting { client, worker, statistics: order.is_some() });
        self.send(worker, &ToWorker::Profile { request, session: number, order });
        self.after_ms(PROFILE_MS_MAX, Timer::Profile(request));
    }

    /// A worker answers.
    pub(crate) fn profile_answered(&mut self, worker: WorkerNo, request: u64, result: Result<&str, &str>) {
        if self.profiles.waiting.get(&request).is_none_or(|waiting| waiting.worker != worker) {
            return;
        }
        let Some(Waiting { client, statistics, .. }) = self.profiles.waiting.remove(&request) else { return };
        let reply = match result {
            Ok(text) if statistics => Reply::bulk(text),
            Ok(_) => Reply::Simple("OK".into()),
            Err(text) => Reply::Error(one_line(text.as_bytes())),
        };
        self.reply(client, reply);
    }

    /// A worker has not answered in time.
    pub(crate) fn profile_is_late(&mut self, request: u64) {
        if let Some(waiting) = self.profiles.waiting.remove(&request) {
            self.refuse(waiting.client, Error::NoProfile);
        }
    }

    /// A worker has ended.
    pub(crate) fn profiles_lost(&mut self, worker: WorkerNo, head: &str) {
        let lost: Vec<u64> =
            self.profiles.waiting.iter().filter(|(_, one)| one.worker == worker).map(|(request, _)| *request).collect();
        for request in lost {
            if let Some(waiting) = self.profiles.waiting.remove(&request) {
                self.refuse(waiting.client, Error::DiedBeforeAnswer(head.to_owned()));
            }
        }
    }
}
