//! Registrations on all shards of a cluster: each shard has all of them.
//!
//! A change is made on one shard, sent to its replicas and to the other shards, and applied there. What a shard has missed
//! it gets when it notices that another one has other registrations: links compare digests when they are made, and then
//! once a second. See [`Versions`] for who wins.

use redgrease_core::frame::LogLevel;
use redgrease_core::id::{RegistrationNo, SessionNo, ShardId};
use redgrease_core::peer::PeerMessage;
use redgrease_core::plan::{PlanSpec, Trigger};
use redgrease_core::render::{Reply, one_line};
use redgrease_core::saved::{Change, SavedSession};

use crate::cluster::changes::{Answered, Then};
use crate::cluster::versions::{Merge, NOT_KNOWN, Version, Versions};
use crate::effect::Effect;
use crate::engine::Engine;
use crate::error::Error;
use crate::limits::{CHANGE_MS_MAX, DIGEST_MS, PAUSED_RETRY_MS};
use crate::prelude::*;
use crate::timers::Timer;

impl Engine {
    /// Whether a change of the registrations is made here, and not applied.
    pub(crate) fn makes_changes(&self) -> bool {
        !self.at.server.loading && !self.at.server.replica && !self.applying
    }

    /// The version of a change that is made here, and the time of the one before.
    pub(crate) fn next_version(&mut self) -> (Version, u64) {
        let run = ShardId::parse(self.run_id.as_bytes()).unwrap_or(self.topology.me);
        self.versions.next(run, self.unix_ms())
    }

    /// Sends a change that was made here to the other shards. [`Engine::when_applied`] says what happens when they have it.
    pub(crate) fn share_change(&mut self, change: &Change) {
        let others = if self.topology.has_several() {
            self.topology.others().map(|shard| shard.id).collect()
        } else {
            BTreeSet::new()
        };
        self.send_change(&change.encode(), others);
    }

    /// Sends an encoded change to these shards.
    pub(crate) fn send_change(&mut self, change: &[u8], shards: BTreeSet<ShardId>) {
        self.last_change = None;
        if shards.is_empty() {
            return;
        }
        let number = self.changes_made;
        self.changes_made += 1;
        for shard in &shards {
            self.send_to(*shard, &PeerMessage::Change { number, change });
        }
        self.last_change = Some((number, shards));
    }

    /// What happens when all shards have the change that was made last; at once if there are no others.
    pub(crate) fn when_applied(&mut self, then: Then) {
        match self.last_change.take() {
            Some((number, shards)) => {
                self.changes.add(number, shards, then);
                self.after_ms(CHANGE_MS_MAX, Timer::ChangeLimit(number));
            }
            None => self.change_answered(Answered { errors: Vec::new(), conflict: false, then }),
        }
    }

    fn change_answered(&mut self, answered: Answered) {
        let Answered { errors, conflict, mut then } = answered;
        if let Then::AnswerScript { session, version, replaced, .. } = &mut then
            && conflict
        {
            // Its triggers belong to another session: it is removed from the shards that have it.
            self.take_back(*session, *version, replaced.take());
        }
        match then {
            Then::ReadNextPart(environment) => self.out.push(Effect::ReadNextPart(environment)),
            Then::AnswerOk(client) => self.reply(client, Reply::Simple("OK".into())),
            Then::AnswerScript { client, .. } if errors.is_empty() => self.reply(client, Reply::Simple("OK".into())),
            Then::AnswerScript { client, .. } => {
                let of_shard = |(shard, reason): &(ShardId, String)| {
                    Reply::Error(one_line(format!("-ERR shard-{shard}: {reason}").as_bytes()))
                };
                self.reply(client, Reply::Array(errors.iter().map(of_shard).collect()));
            }
        }
    }

    /// A session that was registered here cannot be on all shards: that which it replaced is there again, if there was one.
    fn take_back(&mut self, number: SessionNo, version: Version, replaced: Option<Box<SavedSession>>) {
        let registrations = self.registrations.of_session(number);
        let active = self.sessions.get(number).filter(|_| !registrations.is_empty());
        // It may have got the other session from another shard meanwhile, and wait for the triggers.
        let inactive = || self.inactive.values().find(|session| Version::of_saved(session.version.as_ref()) == version);
        let name = active.map(|session| session.name.to_string()).or_else(|| Some(inactive()?.name.clone()));
        let Some(name) = name else { return };
        match replaced {
            Some(mut old) => {
                let replaces = vec![name];
                let (version, after) = self.next_version();
                old.version = Some(version.saved());
                let change = Change::Session { session: *old, replaces, after };
                self.out.push(Effect::Replicate(change.encode()));
                self.share_change(&change);
                self.apply(change);
            }
            None if registrations.is_empty() => {
                // Its version was seen here: the others remove it when they compare registrations.
                self.inactive.remove(&name);
                let all = self.all_saved().encode();
                self.out.push(Effect::Replicate(all));
            }
            None => {
                for registration in registrations {
                    self.remove_registration(registration, true);
                }
            }
        }
    }

    /// Another shard has applied a change, or not.
    pub(crate) fn change_applied(&mut self, shard: ShardId, number: u64, conflict: bool, result: Result<(), String>) {
        if let Some(answered) = self.changes.answered(number, shard, conflict, result) {
            self.change_answered(answered);
        }
    }

    /// A shard was lost that has not answered.
    pub(crate) fn changes_lost(&mut self, shard: ShardId, reason: &str) {
        for number in self.changes.waiting_for(shard) {
            self.change_applied(shard, number, false, Err(format!("{reason}; it gets the change when it is back")));
        }
    }

    /// Shards have not answered for too long.
    pub(crate) fn change_limit_reached(&mut self, number: u64) {
        for shard in self.changes.missing(number) {
            self.change_applied(shard, number, false, Err(Error::ChangeLate(CHANGE_MS_MAX).into()));
        }
    }

    /// A change that was made on another shard.
    pub(crate) fn peer_change(&mut self, from: ShardId, number: u64, encoded: &[u8]) {
        if self.at.server.paused {
            // It is replicated: that waits until clients are no longer paused.
            let timer = Timer::PeerChange { from, number, change: encoded.to_vec() };
            return self.after_ms(PAUSED_RETRY_MS, timer);
        }
        let result = match Change::decode(encoded) {
            Ok(change) => self.apply_peer_change(from, change, encoded),
            Err(error) => Err((false, error.to_string())),
        };
        let conflict = matches!(result, Err((true, _)));
        let result = result.as_ref().map_err(|(_, reason)| reason.as_str()).copied();
        self.send_to(from, &PeerMessage::Applied { number, conflict, result });
    }

    /// An error says whether a trigger belongs to another session.
    fn apply_peer_change(&mut self, from: ShardId, change: Change, encoded: &[u8]) -> Result<(), (bool, String)> {
        let (version, after) = match &change {
            Change::Session { session, after, .. } => (Version::of_saved(session.version.as_ref()), *after),
            Change::Removed { version, after, .. } => (Version::of_saved(version.as_ref()), *after),
            // Wheels and time events have no version.
            Change::WheelPart { .. } | Change::Wheels { .. } => {
                self.apply_and_replicate(change, encoded);
                return Ok(());
            }
            Change::All { .. } | Change::TimeEvent { .. } => return Err((false, Error::PeerChange.into())),
        };
        if self.versions.has_seen(version) {
            return Ok(());
        }
        if !self.versions.has_seen_until(version.run, after) {
            // Changes before it were missed.
            self.send_to(from, &PeerMessage::NeedRegistry);
        }
        match &change {
            Change::Session { session, .. } => {
                match self.version_of(&session.name) {
                    Some(here) if here > version => {
                        self.versions.saw_after(version, after);
                        return Err((false, Error::LaterChange.into()));
                    }
                    // It came before, with all registrations.
                    Some(here) if here == version => return Ok(()),
                    _ => {}
                }
                let Change::Session { session, replaces, .. } = &change else { return Ok(()) };
                if let Some(trigger) = self.trigger_of_earlier(session, replaces, version) {
                    // It does not count as seen. If this answer is lost, the session is not taken back, and comes again with
                    // all registrations.
                    return Err((true, Error::TriggerTakenOnShard(trigger).into()));
                }
                self.apply_and_replicate(change, encoded);
            }
            _ => self.apply_and_replicate(change, encoded),
        }
        Ok(())
    }

    fn apply_and_replicate(&mut self, change: Change, encoded: &[u8]) {
        self.apply(change);
        self.out.push(Effect::Replicate(encoded.to_vec()));
    }

    /// The version of a session of this shard, active or not.
    fn version_of(&self, name: &str) -> Option<Version> {
        let active = self.sessions.named(name).and_then(|number| self.sessions.get(number));
        let inactive = || self.inactive.get(name).map(|session| Version::of_saved(session.version.as_ref()));
        active.map(|session| session.version).or_else(inactive)
    }

    /// The sessions that have triggers of another one, which does not replace them: the triggers, and the sessions.
    fn holders_of(&self, session: &SavedSession, replaces: &[String]) -> Vec<(String, SessionNo)> {
        let triggers = session.registrations.iter().filter_map(|registration| {
            match PlanSpec::decode(&registration.spec).ok()?.trigger().ok()? {
                Trigger::Command { name, .. } => Some(name),
                _ => None,
            }
        });
        let held = triggers.filter_map(|trigger| {
            let holder = self.registrations.get(self.registrations.command(&trigger)?)?.session;
            let name = &self.sessions.get(holder)?.name;
            let is_replaced = replaces.iter().any(|replaced| **replaced == **name);
            (!is_replaced).then(|| (String::from_utf8_lossy(&trigger).into_owned(), holder))
        });
        held.collect()
    }

    /// A trigger of a session that a session with an earlier version has.
    fn trigger_of_earlier(&self, session: &SavedSession, replaces: &[String], version: Version) -> Option<String> {
        let earlier = |holder: &SessionNo| self.sessions.get(*holder).is_some_and(|holder| holder.version < version);
        self.holders_of(session, replaces).into_iter().find(|(_, holder)| earlier(holder)).map(|(trigger, _)| trigger)
    }

    /// Two sessions with the same trigger were registered on two shards at the same time: that with the earlier version is
    /// active, the other one when the first is removed. Returns the session if it can be active.
    pub(crate) fn settle_conflicts(&mut self, session: SavedSession, replaces: &[String]) -> Option<SavedSession> {
        let version = Version::of_saved(session.version.as_ref());
        if self.trigger_of_earlier(&session, replaces, version).is_some() {
            self.deactivated(&session.name);
            self.inactive.insert(session.name.clone(), session);
            return None;
        }
        let later: BTreeSet<SessionNo> =
            self.holders_of(&session, replaces).into_iter().map(|(_, holder)| holder).collect();
        for number in later {
            let Some(found) = self.sessions.get(number) else { continue };
            let saved = self.saved_session(number, found);
            self.deactivated(&saved.name);
            for registration in self.registrations.of_session(number) {
                self.remove_applied(registration);
            }
            self.inactive.insert(saved.name.clone(), saved);
        }
        Some(session)
    }

    fn deactivated(&mut self, name: &str) {
        let text = format!(
            "rg: the session '{name}' is not active: another shard had registered one of its triggers before. Register it with \
             another trigger"
        );
        self.log(LogLevel::Warning, text);
    }

    /// A session was removed: those that had to wait for its triggers are active from now on.
    pub(crate) fn activate_waiting(&mut self) {
        let ready = self.inactive.values().find(|session| self.holders_of(session, &[]).is_empty());
        let Some(name) = ready.map(|session| session.name.clone()) else { return };
        if let Some(session) = self.inactive.remove(&name) {
            self.apply(Change::Session { session, replaces: vec![name], after: NOT_KNOWN });
        }
    }

    /// Removes a registration as a change that was made elsewhere.
    pub(crate) fn remove_applied(&mut self, number: RegistrationNo) {
        let was_applying = core::mem::replace(&mut self.applying, true);
        self.remove_registration(number, !self.is_called(number));
        self.applying = was_applying;
    }

    /// The digest of all registrations.
    pub(crate) fn registry_digest(&self) -> u64 {
        let registered = self.sessions.iter().filter(|(_, session)| session.registered);
        let active = registered.map(|(_, session)| (&*session.name, session.version));
        let inactive = self.inactive.values();
        let inactive = inactive.map(|session| (session.name.as_str(), Version::of_saved(session.version.as_ref())));
        self.versions.digest(active.chain(inactive))
    }

    /// Tells other shards which registrations there are, from time to time.
    pub(crate) fn compare_registries(&mut self) {
        self.comparing = self.topology.has_several();
        if !self.comparing {
            return;
        }
        if self.makes_changes() {
            let digest = self.registry_digest();
            let others: Vec<ShardId> = self.topology.others().map(|shard| shard.id).collect();
            for shard in others {
                if self.has_link(shard) {
                    self.send_to(shard, &PeerMessage::Registry { digest });
                }
            }
        }
        self.after_ms(DIGEST_MS, Timer::CompareRegistries);
    }

    /// Another shard has registrations with this digest.
    pub(crate) fn registry_compared(&mut self, from: ShardId, digest: u64) {
        let mine = self.registry_digest();
        // A change may be on its way: only what differs twice is asked for.
        if digest == mine {
            self.differs.remove(&from);
        } else if self.differs.insert(from, (digest, mine)) == Some((digest, mine)) {
            self.differs.remove(&from);
            self.send_to(from, &PeerMessage::NeedRegistry);
        }
    }

    /// Another shard asks for all registrations.
    pub(crate) fn send_registry(&mut self, to: ShardId) {
        let change = self.all_saved().encode();
        self.send_to(to, &PeerMessage::WholeRegistry { change: &change });
    }

    /// All registrations of another shard.
    pub(crate) fn registry_arrived(&mut self, from: ShardId, encoded: &[u8]) {
        if self.at.server.paused {
            return self.after_ms(PAUSED_RETRY_MS, Timer::PeerRegistry { from, change: encoded.to_vec() });
        }
        let Ok(Change::All { sessions, seen, .. }) = Change::decode(encoded) else {
            return self.log(LogLevel::Warning, format!("rg: shard {from} sent registrations that are not readable"));
        };
        let seen = Versions::of_saved(&seen);
        let mut changed = false;
        let names: BTreeSet<String> = sessions.iter().map(|session| session.name.clone()).collect();
        let removed: Vec<SessionNo> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.registered && !names.contains(&*session.name))
            .filter(|(_, session)| seen.has_seen(session.version))
            .map(|(number, _)| number)
            .collect();
        for number in removed {
            changed = true;
            for registration in self.registrations.of_session(number) {
                self.remove_applied(registration);
            }
        }
        let is_gone = |session: &SavedSession| {
            !names.contains(&session.name) && seen.has_seen(Version::of_saved(session.version.as_ref()))
        };
        self.inactive.retain(|_, session| !is_gone(session));
        let mut sessions: Vec<(Version, SavedSession)> =
            sessions.into_iter().map(|session| (Version::of_saved(session.version.as_ref()), session)).collect();
        sessions.sort_by_key(|(version, _)| *version);
        for (version, session) in sessions {
            if self.versions.merge(self.version_of(&session.name), version) == Merge::Keep {
                continue;
            }
            changed = true;
            self.apply(Change::Session { replaces: vec![session.name.clone()], session, after: NOT_KNOWN });
        }
        let before = self.versions.clone();
        self.versions.saw_all(&seen);
        if changed || before != self.versions {
            let all = self.all_saved().encode();
            self.out.push(Effect::Replicate(all));
        }
        if changed {
            self.log(LogLevel::Notice, format!("rg: registrations were brought up to date from shard {from}"));
        }
    }
}
