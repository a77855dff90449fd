//! Pausing stream registrations, and clearing statistics: `RG.PAUSEREGISTRATIONS`, `RG.UNPAUSEREGISTRATIONS`,
//! `RG.CLEARREGISTRATIONSSTATS`.

use redgrease_core::id::RegistrationNo;
use redgrease_core::peer::PeerQuestion;
use redgrease_core::render::Reply;

use crate::clients::Client;
use crate::cluster::inquiries::Purpose;
use crate::engine::Engine;
use crate::error::Error;
use crate::flow::scripts::check_owner;
use crate::input::{Caller, Inside};
use crate::prelude::*;
use crate::registrations::registry::Statistics;

/// What is done with stream registrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Pause,
    Unpause,
}

impl Engine {
    /// `RG.PAUSEREGISTRATIONS`: runs that have not begun are aborted, those that have are acknowledged when they end.
    pub(crate) fn pause(&mut self, client: Client, caller: &Caller, ids: &[&[u8]]) {
        if ids.is_empty() {
            return self.refuse(client, Error::NothingToPause);
        }
        let numbers = match self.streams_of(caller, ids, Change::Pause) {
            Ok(numbers) => numbers,
            Err(error) => return self.refuse(client, error),
        };
        self.pause_streams(&numbers);
        self.answer_pause(client, caller, &numbers, false);
    }

    /// Pauses stream registrations of this shard.
    pub(crate) fn pause_streams(&mut self, numbers: &[RegistrationNo]) {
        for number in numbers {
            if let Some(followed) = self.streams.get_mut(number) {
                followed.runs.pause();
            }
            self.abort_pending(*number);
        }
    }

    /// Continues stream registrations of this shard.
    pub(crate) fn resume_streams(&mut self, numbers: &[RegistrationNo]) {
        for number in numbers {
            if let Some(followed) = self.streams.get_mut(number) {
                followed.runs.reset();
            }
        }
        self.follow_again(numbers);
    }

    /// The client is answered when other shards have done the same.
    fn answer_pause(&mut self, client: Client, caller: &Caller, numbers: &[RegistrationNo], resume: bool) {
        if caller.inside != Inside::Nothing || !self.topology.has_several() {
            return self.reply(client, Reply::Simple("OK".into()));
        }
        let ids = numbers.iter().filter_map(|number| Some(self.registrations.get(*number)?.id)).collect();
        self.inquire(client, Purpose::Done { error: None }, &PeerQuestion::Pause { registrations: ids, resume });
    }

    /// `RG.UNPAUSEREGISTRATIONS`.
    pub(crate) fn unpause(&mut self, client: Client, caller: &Caller, ids: &[&[u8]]) {
        let numbers = match self.streams_of(caller, ids, Change::Unpause) {
            Ok(numbers) => numbers,
            Err(error) => return self.refuse(client, error),
        };
        self.resume_streams(&numbers);
        self.answer_pause(client, caller, &numbers, true);
    }

    /// The stream registrations with these ids; all are checked before any is changed.
    fn streams_of(&self, caller: &Caller, ids: &[&[u8]], change: Change) -> Result<Vec<RegistrationNo>, Error> {
        let mut numbers = Vec::new();
        for id in ids {
            let number = self.find_registration(id);
            let Some((number, registration)) =
                number.and_then(|number| Some((number, self.registrations.get(number)?)))
            else {
                let id = String::from_utf8_lossy(id).into_owned();
                return Err(Error::NoSuchRegistration { id, shard: self.shard.as_str().to_owned() });
            };
            if !self.streams.contains_key(&number) {
                let verb = if change == Change::Pause { "pause" } else { "unpause" };
                return Err(Error::CannotPause { reader: registration.spec.reader.name(), verb });
            }
            let owner = self.sessions.get(registration.session).map(|session| &*session.user);
            check_owner(caller, owner, "pause or unpause the function")?;
            numbers.push(number);
        }
        Ok(numbers)
    }

    /// The status of a stream registration; `OK` for others.
    pub(crate) fn stream_status(&self, number: RegistrationNo) -> &'static str {
        self.streams.get(&number).map_or("OK", |followed| followed.runs.status().name())
    }

    /// `RG.CLEARREGISTRATIONSSTATS`: executions that have not ended stay counted as triggered.
    pub(crate) fn clear_statistics(&mut self, client: Client, caller: &Caller) {
        self.clear_all_statistics();
        if caller.inside == Inside::Nothing && self.topology.has_several() {
            return self.inquire(client, Purpose::Done { error: None }, &PeerQuestion::ClearStatistics);
        }
        self.reply(client, Reply::Simple("OK".into()));
    }

    /// Forgets the statistics of this shard.
    pub(crate) fn clear_all_statistics(&mut self) {
        let mut unfinished: BTreeMap<RegistrationNo, u64> = BTreeMap::new();
        for registration in self.live.values().filter_map(|live| live.registration) {
            *unfinished.entry(registration).or_default() += 1;
        }
        for (number, registration) in self.registrations.iter_mut() {
            let waiting = self.pending.waiting(number) as u64;
            let triggered = unfinished.get(&number).copied().unwrap_or(0) + waiting;
            registration.statistics = Statistics { triggered, ..Statistics::default() };
        }
    }
}
