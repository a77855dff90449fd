//! Processed entries: they are acknowledged, and removed when all registrations have acknowledged them.
//!
//! Entries are removed by their ids: trimming by length could remove entries that were added meanwhile.

use redgrease_core::frame::LogLevel;
use redgrease_core::id::{Database, RegistrationNo};

use crate::asked::Asked;
use crate::effect::{Effect, Question};
use crate::engine::Engine;
use crate::id::{BatchNo, RemovalNo};
use crate::input::Actor;
use crate::limits::{ACKNOWLEDGEMENTS_AT_ONCE, PAUSED_RETRIES_MAX, PAUSED_RETRY_MS, STEP_MS};
use crate::planted::Bug;
use crate::prelude::*;
use crate::registrations::registry::STREAM_GROUP;
use crate::streams::batch::{Batch, Removal};
use crate::streams::held::Release;
use crate::streams::run::StreamSource;
use crate::streams::runs::{EntryId, GroupProgress, acknowledged_by_all};
use crate::timers::Timer;

impl Engine {
    /// Acknowledges the entries of a run.
    pub(crate) fn acknowledge(&mut self, batch: Batch) {
        if self.planted(Bug::BatchForgotten) {
            return self.act(batch.source.registration, batch.then);
        }
        let number = self.batches.add(batch);
        self.acknowledge_next(number);
    }

    /// The next entries of a batch that yielded to others.
    pub(crate) fn acknowledge_more(&mut self) {
        let Some(number) = self.batches.ready.pop_front() else { return };
        if let Some(batch) = self.batches.get_mut(number) {
            batch.commands = 0;
        }
        self.acknowledge_next(number);
    }

    /// The next entries of a batch.
    pub(crate) fn acknowledge_next(&mut self, number: BatchNo) {
        if self.at.server.replica {
            self.batches.remove(number);
            return;
        }
        let paused = self.at.server.paused;
        let Some(batch) = self.batches.get_mut(number) else { return };
        if batch.done >= batch.ids.len() {
            let (registration, then) = (batch.source.registration, batch.then.take());
            self.batches.remove(number);
            return self.act(registration, then);
        }
        if paused {
            batch.tries += 1;
            if batch.tries > PAUSED_RETRIES_MAX {
                self.batches.remove(number);
                let text = "rg: a batch was not acknowledged: clients are paused for longer than 10 minutes";
                return self.log(LogLevel::Warning, text);
            }
            return self.after_ms(PAUSED_RETRY_MS, Timer::Acknowledge(number));
        }
        if batch.commands >= ACKNOWLEDGEMENTS_AT_ONCE {
            return self.batches.ready.push_back(number);
        }
        batch.commands += 1;
        let actor = Actor { user: Rc::clone(&batch.source.actor.user), database: batch.database };
        let effect = Effect::Acknowledge {
            batch: number,
            actor,
            stream: batch.stream.clone(),
            group: batch.source.group.clone(),
            ids: batch.next_ids().to_vec(),
        };
        self.out.push(effect);
    }

    /// Entries of a batch were acknowledged, or not: if trimming is on, those that all have acknowledged are removed.
    pub(crate) fn acknowledged(&mut self, number: BatchNo, result: Result<u64, String>) {
        let Some(batch) = self.batches.get_mut(number) else { return };
        let ids = batch.next_ids().to_vec();
        batch.done += ids.len();
        let (source, database, stream) = (Rc::clone(&batch.source), batch.database, batch.stream.clone());
        let acknowledged = match result {
            // Another stream has replaced the one that was read: its entries are not those of the batch.
            Ok(count) => count > 0,
            Err(reason) => {
                let name = String::from_utf8_lossy(&stream);
                let text = format!("rg: XACK on stream '{name}': {reason}");
                self.log(LogLevel::Warning, text);
                false
            }
        };
        // Entries in another database than the registration's are left to the registrations there.
        if !acknowledged || database != source.actor.database {
            return self.acknowledge_next(number);
        }
        let others = self.sources(database, &stream, Some(source.registration));
        match trimming(&source, &others) {
            None => self.acknowledge_next(number),
            Some(trimming) if others.is_empty() => {
                self.remove_entries(&trimming, stream, ids);
                self.acknowledge_next(number);
            }
            Some(_) => {
                let groups = others.iter().map(|other| other.group.clone()).collect();
                self.ask_groups(database, stream, groups, ids.clone(), Asked::GroupsOfBatch { batch: number, ids });
            }
        }
    }

    fn ask_groups(
        &mut self,
        database: Database,
        stream: Vec<u8>,
        groups: Vec<Vec<u8>>,
        ids: Vec<EntryId>,
        asked: Asked,
    ) {
        let (Some(first), Some(last)) = (ids.first().copied(), ids.last().copied()) else { return };
        self.ask(Question::Groups { database, stream, groups, first, last }, asked);
    }

    /// The state of the other groups for the entries of a batch is known.
    pub(crate) fn groups_of_batch_known(&mut self, number: BatchNo, ids: &[EntryId], groups: &[Option<GroupProgress>]) {
        let Some(batch) = self.batches.get_mut(number) else { return };
        let (source, database, stream) = (Rc::clone(&batch.source), batch.database, batch.stream.clone());
        let others = self.sources(database, &stream, Some(source.registration));
        if let Some(trimming) = trimming(&source, &others) {
            let free = acknowledged_by_all(ids, groups);
            self.remove_entries(&trimming, stream.clone(), free.clone());
            self.held.remove(database, &stream, &free);
            self.held.add(database, &stream, ids.iter().filter(|id| !free.contains(id)).copied());
        }
        self.acknowledge_next(number);
    }

    fn remove_entries(&mut self, trimming: &StreamSource, stream: Vec<u8>, ids: Vec<EntryId>) {
        if !ids.is_empty() {
            self.out.push(Effect::RemoveEntries { actor: trimming.actor.clone(), stream, ids });
        }
    }

    /// The live registrations that match a stream, except one.
    fn sources(&self, database: Database, stream: &[u8], without: Option<RegistrationNo>) -> Vec<Rc<StreamSource>> {
        let numbers = self.registrations.for_stream(database, stream);
        let others = numbers.into_iter().filter(|number| Some(*number) != without);
        others.filter_map(|number| Some(Rc::clone(&self.streams.get(&number)?.source))).collect()
    }

    /// A stream registration was removed: its group is removed unless a later registration resumes it, and
    /// entries that only this registration had yet to acknowledge are removed.
    pub(crate) fn stream_unregistered(&mut self, source: &Rc<StreamSource>) {
        let database = source.actor.database;
        for stream in self.held.streams_of(database) {
            self.after_ms(STEP_MS, Timer::ReleaseHeld(Release { database, stream, after: None, tries: 0 }));
        }
        if source.group != STREAM_GROUP.as_bytes() {
            let removal = Removal { source: Rc::clone(source), cursor: b"0".to_vec(), tries: 0 };
            let removal = self.batches.add_removal(removal);
            self.after_ms(STEP_MS, Timer::RemoveGroup(removal));
        }
    }

    fn may_change_streams(&self) -> bool {
        Engine::may_work(&self.at) && !self.at.server.paused && !self.at.server.replica
    }

    /// Removes entries of a stream that waited for a removed registration, a few at a time.
    pub(crate) fn release_held_entries(&mut self, release: Release) {
        if !self.may_change_streams() {
            if release.tries < PAUSED_RETRIES_MAX {
                let tries = release.tries + 1;
                self.after_ms(PAUSED_RETRY_MS, Timer::ReleaseHeld(Release { tries, ..release }));
            }
            return;
        }
        let sources = self.sources(release.database, &release.stream, None);
        if !sources.iter().any(|source| source.trim) {
            return self.held.forget(release.database, &release.stream);
        }
        let ids = self.held.some_after(release.database, &release.stream, release.after);
        if ids.is_empty() {
            return;
        }
        let groups = sources.iter().map(|source| source.group.clone()).collect();
        let (database, stream) = (release.database, release.stream.clone());
        self.ask_groups(database, stream, groups, ids.clone(), Asked::GroupsOfRelease { release, ids });
    }

    /// The state of the remaining groups for the entries is known.
    pub(crate) fn groups_of_release_known(
        &mut self,
        release: Release,
        ids: &[EntryId],
        groups: &[Option<GroupProgress>],
    ) {
        let sources = self.sources(release.database, &release.stream, None);
        let Some(trimming) = sources.into_iter().find(|source| source.trim) else { return };
        let free = acknowledged_by_all(ids, groups);
        self.held.remove(release.database, &release.stream, &free);
        self.remove_entries(&trimming, release.stream.clone(), free);
        self.after_ms(STEP_MS, Timer::ReleaseHeld(Release { after: ids.last().copied(), tries: 0, ..release }));
    }

    /// Removes the group of a removed registration from all streams, a few keys at a time; a batch in progress ends first.
    pub(crate) fn remove_group(&mut self, number: RemovalNo) {
        let may = self.may_change_streams();
        let Some(removal) = self.batches.removal_mut(number) else { return };
        let source = Rc::clone(&removal.source);
        let cursor = removal.cursor.clone();
        // An upgrade passes the group on.
        if self.streams.values().any(|followed| followed.source.group == source.group) {
            self.batches.remove_removal(number);
            return;
        }
        let in_work = !self.batches.is_empty() || self.live.values().any(|live| live.reads_for(source.registration));
        if !may || in_work {
            let Some(removal) = self.batches.removal_mut(number) else { return };
            removal.tries += 1;
            if removal.tries > PAUSED_RETRIES_MAX {
                self.batches.remove_removal(number);
            } else {
                self.after_ms(PAUSED_RETRY_MS, Timer::RemoveGroup(number));
            }
            return;
        }
        let (database, group) = (source.actor.database, source.group.clone());
        self.out.push(Effect::RemoveGroup { removal: number, database, group, cursor });
    }

    /// A group was removed from some streams.
    pub(crate) fn group_removed(&mut self, number: RemovalNo, next: Option<Vec<u8>>) {
        match (next, self.batches.removal_mut(number)) {
            (Some(next), Some(removal)) => {
                (removal.cursor, removal.tries) = (next, 0);
                self.after_ms(STEP_MS, Timer::RemoveGroup(number));
            }
            _ => {
                self.batches.remove_removal(number);
            }
        }
    }
}

/// The registration that removes entries: the one that read them, or another one that trims.
fn trimming(source: &Rc<StreamSource>, others: &[Rc<StreamSource>]) -> Option<Rc<StreamSource>> {
    core::iter::once(source).chain(others).find(|source| source.trim).map(Rc::clone)
}
