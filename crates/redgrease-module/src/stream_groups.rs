//! Consumer groups of stream registrations: reading through them, acknowledging, removing entries, and what becomes of
//! a group when its registration goes.
//!
//! Each registration has a group of its own, so that each sees every entry. An entry is removed from its stream when
//! one of the live registrations that match the stream trims it and all of them have acknowledged it.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use redgrease_core::codec::Writer;
use redgrease_core::id::{Database, RegistrationNo};
use redgrease_core::stream::{Action, EntryId, GroupProgress, Left, RunKind, acknowledged_by_all};
use redgrease_ffi::call::ReplyView;
use redgrease_ffi::keyspace::Access;
use redgrease_ffi::{CallOptions, CallReply, LogLevel};

use crate::engine::{Actor, Engine, engine};
use crate::pump::SLICE;
use crate::streams::StreamRun;

/// Name that RedisGears gave its consumer: data files hold it (`RDR-STREAM-13`).
const CONSUMER: &[u8] = b"__gears_client__";

/// Entries that are read, acknowledged or removed with one command.
const ENTRIES_PER_COMMAND: usize = 128;

/// Keys that one step of the removal of a group looks at.
const KEYS_PER_STEP: &[u8] = b"500";

/// Pause before something is tried again that cannot be done while clients are paused, in milliseconds.
pub const RETRY_MS: u64 = 20;

/// Times that it is tried: ten minutes.
const RETRIES_MAX: u32 = 30_000;

/// Entries of all streams that are remembered because a registration has yet to acknowledge them.
const HELD_MAX: usize = 1_000_000;

/// How a registration reads its streams.
#[derive(Debug)]
pub struct Source {
    /// The registration.
    pub registration: RegistrationNo,
    /// Its user and its database.
    pub actor: Actor,
    /// Its consumer group.
    pub group: Vec<u8>,
    /// Whether entries are removed when they were processed.
    pub trim: bool,
}

/// Entries of a run that are to be acknowledged.
pub struct Acknowledgement {
    source: Rc<Source>,
    database: Database,
    stream: Vec<u8>,
    ids: Vec<EntryId>,
    done: usize,
    then: Option<Action>,
    tries: u32,
}

impl Acknowledgement {
    /// Acknowledges the entries of a run, and does `then` afterwards.
    pub fn new(run: StreamRun, then: Option<Action>) -> Acknowledgement {
        let StreamRun { source, database, stream, ids, .. } = run;
        Acknowledgement { source, database, stream, ids, done: 0, then, tries: 0 }
    }
}

/// Entries that some registrations acknowledged and others did not yet, by stream.
#[derive(Default)]
pub struct Held {
    streams: std::collections::BTreeMap<(Database, Vec<u8>), BTreeSet<EntryId>>,
    count: usize,
}

impl Held {
    fn add(&mut self, database: Database, stream: &[u8], ids: impl IntoIterator<Item = EntryId>) {
        let held = self.streams.entry((database, stream.to_vec())).or_default();
        for id in ids {
            if self.count >= HELD_MAX {
                break;
            }
            self.count += usize::from(held.insert(id));
        }
    }

    fn remove(&mut self, database: Database, stream: &[u8], ids: &[EntryId]) {
        let place = (database, stream.to_vec());
        let Some(held) = self.streams.get_mut(&place) else { return };
        self.count -= ids.iter().filter(|id| held.remove(id)).count();
        if held.is_empty() {
            self.streams.remove(&place);
        }
    }

    fn forget(&mut self, database: Database, stream: &[u8]) {
        if let Some(held) = self.streams.remove(&(database, stream.to_vec())) {
            self.count -= held.len();
        }
    }

    /// A few of the entries of a stream behind an id.
    fn some_after(&self, database: Database, stream: &[u8], after: Option<EntryId>) -> Vec<EntryId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let Some(held) = self.streams.get(&(database, stream.to_vec())) else { return Vec::new() };
        let from = after.map_or(Unbounded, Excluded);
        held.range((from, Unbounded)).take(ENTRIES_PER_COMMAND).copied().collect()
    }

    /// The data of two databases changed places.
    pub fn swapped(&mut self, one: Database, other: Database) {
        let streams = std::mem::take(&mut self.streams);
        self.streams = streams
            .into_iter()
            .map(|((database, stream), ids)| ((database.after_swap(one, other), stream), ids))
            .collect();
    }
}

/// A part of the entries of a run that was read.
pub struct Part {
    /// Records that were written.
    pub records: u64,
    /// Whether the run has more to read.
    pub more: bool,
}

impl Engine {
    /// Reads a part of the entries of a run. Entries that cannot become records are errors of the run; the others are
    /// processed.
    pub fn read_part(
        &self,
        run: &mut StreamRun,
        writer: &mut Writer,
        errors: &mut Vec<String>,
    ) -> Result<Part, String> {
        if self.server.flags().replica() {
            return Ok(Part { records: 0, more: false });
        }
        let wanted = match run.kind {
            RunKind::Pending => ENTRIES_PER_COMMAND as u64,
            RunKind::Batch(batch) => batch.saturating_sub(run.ids.len() as u64).min(ENTRIES_PER_COMMAND as u64),
        };
        let Some(reply) = self.read_group(run, wanted)? else { return Ok(Part { records: 0, more: false }) };
        let (mut records, mut read) = (0, 0);
        let entries = reply.view().element(0).and_then(|stream| stream.element(1));
        for entry in entries.iter().flat_map(|entries| entries.elements()) {
            read += 1;
            run.ids.extend(entry.element(0).and_then(|id| EntryId::parse(id.bytes())));
            match self.write_entry(writer, &run.stream, entry) {
                // Deleted while it waited: nothing to run, but to acknowledge.
                Ok(written) => records += u64::from(written.is_some()),
                Err(reason) => errors.push(reason),
            }
        }
        let full = read == wanted && wanted > 0;
        let complete = matches!(run.kind, RunKind::Batch(batch) if run.ids.len() as u64 >= batch);
        let left = match () {
            () if !full => Left::Exactly(0),
            () if complete => self.left_behind(run, read),
            () => Left::Unknown,
        };
        if let Some(streams) = self.streams.borrow_mut().get_mut(&run.source.registration) {
            streams.runs.read(&run.stream, run.epoch, read, left);
        }
        Ok(Part { records, more: full && !complete })
    }

    /// How many entries follow the last one of a batch, as far as that matters.
    fn left_behind(&self, run: &StreamRun, read: u64) -> Left {
        let look = self
            .streams
            .borrow()
            .get(&run.source.registration)
            .and_then(|streams| streams.runs.look_ahead(&run.stream, read));
        let (Some(look), Some(last)) = (look, run.ids.last()) else { return Left::Unknown };
        let look = look.min(ENTRIES_PER_COMMAND as u64);
        let (from, count) = (format!("({last}"), look.to_string());
        let argv: [&[u8]; 6] = [b"xrange", &run.stream, from.as_bytes(), b"+", b"count", count.as_bytes()];
        match self.read(run.database, &argv) {
            Ok(reply) => match reply.view().elements().count() as u64 {
                found if found < look => Left::Exactly(found),
                found => Left::AtLeast(found),
            },
            Err(_) => Left::Unknown,
        }
    }

    /// Reads through the group, which is made when it does not exist; `None` when the stream is gone.
    fn read_group(&self, run: &StreamRun, wanted: u64) -> Result<Option<CallReply>, String> {
        let count = wanted.to_string();
        let from = match (run.kind, run.ids.last()) {
            (RunKind::Batch(_), _) => ">".to_owned(),
            (RunKind::Pending, None) => "0".to_owned(),
            (RunKind::Pending, Some(last)) => last.to_string(),
        };
        let group = &run.source.group;
        let read: [&[u8]; 9] = [
            b"xreadgroup",
            b"group",
            group,
            CONSUMER,
            b"count",
            count.as_bytes(),
            b"streams",
            &run.stream,
            from.as_bytes(),
        ];
        match self.stream_command(run, &read) {
            Err(error) if error.starts_with("NOGROUP") => {}
            reply => return reply.map(Some),
        }
        match self.stream_command(run, &[b"xgroup", b"create", &run.stream, group, b"0"]) {
            Ok(_) => self.stream_command(run, &read).map(Some),
            Err(error) if error.starts_with("NOPERM") || error.starts_with("PAUSED") => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Runs a command on the stream of a run as the function's user; its effects are replicated.
    fn stream_command(&self, run: &StreamRun, argv: &[&[u8]]) -> Result<CallReply, String> {
        self.write_stream(&run.source.actor.user, run.database, &run.stream, argv)
    }

    fn write_stream(&self, user: &str, database: Database, stream: &[u8], argv: &[&[u8]]) -> Result<CallReply, String> {
        if self.server.must_not_replicate() {
            return Err("PAUSED clients are paused".into());
        }
        let options = CallOptions { database: database.0, user: Some(user), replicate: true, ..CallOptions::default() };
        self.call_as(options, Some((stream, Access::Write)), argv)
    }

    /// Acknowledges entries, a slice of time at once, and removes those that all have acknowledged.
    pub fn acknowledge(&self, mut work: Acknowledgement) {
        if self.server.flags().replica() {
            return;
        }
        let deadline = Instant::now() + SLICE;
        while work.done < work.ids.len() {
            if self.server.must_not_replicate() {
                work.tries += 1;
                if work.tries > RETRIES_MAX {
                    let text = "rg: a batch was not acknowledged: clients are paused for longer than 10 minutes";
                    return self.server.log(LogLevel::Warning, text);
                }
                return self.acknowledge_later(RETRY_MS, work);
            }
            let end = work.ids.len().min(work.done + ENTRIES_PER_COMMAND);
            self.acknowledge_some(&work, &work.ids[work.done..end]);
            work.done = end;
            if Instant::now() >= deadline && work.done < work.ids.len() {
                return self.acknowledge_later(1, work);
            }
        }
        self.stream_act(work.source.registration, work.then);
    }

    fn acknowledge_later(&self, ms: u64, work: Acknowledgement) {
        self.acknowledging.set(self.acknowledging.get() + 1);
        self.server.after_ms(ms, move || {
            let Some(engine) = engine() else { return };
            engine.acknowledging.set(engine.acknowledging.get() - 1);
            engine.acknowledge(work);
        });
    }

    fn acknowledge_some(&self, work: &Acknowledgement, ids: &[EntryId]) {
        let (source, stream) = (&*work.source, work.stream.as_slice());
        let texts: Vec<String> = ids.iter().map(EntryId::to_string).collect();
        let mut argv: Vec<&[u8]> = vec![b"xack", stream, &source.group];
        argv.extend(texts.iter().map(String::as_bytes));
        match self.write_stream(&source.actor.user, work.database, stream, &argv) {
            // Another stream took the place of the one that was read: its entries are not those of the batch.
            Ok(reply) if reply.view().int() == 0 => return,
            Ok(_) => {}
            Err(reason) => return self.log_stream_failure("XACK", stream, &reason),
        }
        // In another database than that of the registration entries are left to the registrations there.
        if work.database != source.actor.database {
            return;
        }
        let others = self.sources(work.database, stream, Some(source.registration));
        let trimming =
            if source.trim { Some(source) } else { others.iter().map(|other| &**other).find(|other| other.trim) };
        let Some(trimming) = trimming else { return };
        if others.is_empty() {
            return self.remove_entries(trimming, stream, ids);
        }
        let progress = self.group_progress(work.database, stream, &others, ids);
        let free = acknowledged_by_all(ids, &progress);
        self.remove_entries(trimming, stream, &free);
        let mut held = self.held.borrow_mut();
        held.remove(work.database, stream, &free);
        held.add(work.database, stream, ids.iter().filter(|id| !free.contains(id)).copied());
    }

    /// Entries are removed by their ids: trimming by length would take what others added (`RDR-STREAM-19`).
    fn remove_entries(&self, trimming: &Source, stream: &[u8], ids: &[EntryId]) {
        if ids.is_empty() {
            return;
        }
        let texts: Vec<String> = ids.iter().map(EntryId::to_string).collect();
        let mut argv: Vec<&[u8]> = vec![b"xdel", stream];
        argv.extend(texts.iter().map(String::as_bytes));
        if let Err(reason) = self.write_stream(&trimming.actor.user, trimming.actor.database, stream, &argv) {
            self.log_stream_failure("XDEL", stream, &reason);
        }
    }

    fn log_stream_failure(&self, command: &str, stream: &[u8], reason: &str) {
        let stream = String::from_utf8_lossy(stream);
        self.server.log(LogLevel::Warning, &format!("rg: {command} on stream '{stream}': {reason}"));
    }

    /// The live registrations that match a stream, but for one.
    fn sources(&self, database: Database, stream: &[u8], without: Option<RegistrationNo>) -> Vec<Rc<Source>> {
        let numbers = self.registrations.borrow().for_stream(database, stream);
        let streams = self.streams.borrow();
        let others = numbers.into_iter().filter(|number| Some(*number) != without);
        others.filter_map(|number| Some(Rc::clone(&streams.get(&number)?.source))).collect()
    }

    /// What the groups of registrations have done with entries.
    fn group_progress(
        &self,
        database: Database,
        stream: &[u8],
        sources: &[Rc<Source>],
        ids: &[EntryId],
    ) -> Vec<Option<GroupProgress>> {
        let reply = self.read(database, &[b"xinfo", b"groups", stream]).ok();
        let groups: Vec<ReplyView<'_>> = reply.iter().flat_map(|reply| reply.view().elements()).collect();
        let of = |source: &Rc<Source>| {
            let group =
                groups.iter().find(|group| field(**group, b"name").is_some_and(|name| name.bytes() == source.group))?;
            let last_delivered = EntryId::parse(field(*group, b"last-delivered-id")?.bytes())?;
            let mut pending = Vec::new();
            if field(*group, b"pending")?.int() > 0 {
                let (first, last) = (ids.first()?.to_string(), ids.last()?.to_string());
                let count = ENTRIES_PER_COMMAND.to_string();
                let argv: [&[u8]; 6] =
                    [b"xpending", stream, &source.group, first.as_bytes(), last.as_bytes(), count.as_bytes()];
                let reply = self.read(database, &argv).ok()?;
                let found = reply.view().elements();
                pending.extend(found.filter_map(|entry| EntryId::parse(entry.element(0)?.bytes())));
                // Entries of others lie between: the rest is not known, so nothing is taken for acknowledged.
                if pending.len() >= ENTRIES_PER_COMMAND {
                    return None;
                }
            }
            Some(GroupProgress { last_delivered, pending })
        };
        sources.iter().map(of).collect()
    }

    /// A stream registration is gone: its group goes unless it is the one that a later registration resumes, and
    /// entries that only this registration had yet to acknowledge are removed.
    pub fn stream_unregistered(&self, source: &Rc<Source>) {
        let database = source.actor.database;
        let held: Vec<Vec<u8>> = self
            .held
            .borrow()
            .streams
            .keys()
            .filter(|(other, _)| *other == database)
            .map(|(_, stream)| stream.clone())
            .collect();
        for stream in held {
            self.release_held_later(1, database, stream, None, 0);
        }
        if source.group != redgrease_core::registration::STREAM_GROUP.as_bytes() {
            self.drop_group_later(1, Rc::clone(source), b"0".to_vec(), 0);
        }
    }

    fn release_held_later(&self, ms: u64, database: Database, stream: Vec<u8>, after: Option<EntryId>, tries: u32) {
        self.server.after_ms(ms, move || {
            if let Some(engine) = engine() {
                engine.release_held_entries(database, stream, after, tries);
            }
        });
    }

    /// Removes entries of a stream that waited for a registration that is gone, a few at once.
    fn release_held_entries(&self, database: Database, stream: Vec<u8>, after: Option<EntryId>, tries: u32) {
        if !self.may_change_streams() {
            if tries < RETRIES_MAX {
                self.release_held_later(RETRY_MS, database, stream, after, tries + 1);
            }
            return;
        }
        let sources = self.sources(database, &stream, None);
        let Some(trimming) = sources.iter().find(|source| source.trim) else {
            return self.held.borrow_mut().forget(database, &stream);
        };
        let ids = self.held.borrow().some_after(database, &stream, after);
        let Some(last) = ids.last().copied() else { return };
        let progress = self.group_progress(database, &stream, &sources, &ids);
        let free = acknowledged_by_all(&ids, &progress);
        self.remove_entries(trimming, &stream, &free);
        self.held.borrow_mut().remove(database, &stream, &free);
        self.release_held_later(1, database, stream, Some(last), 0);
    }

    fn may_change_streams(&self) -> bool {
        self.may_work() && !self.server.must_not_replicate() && !self.server.flags().replica()
    }

    fn drop_group_later(&self, ms: u64, source: Rc<Source>, cursor: Vec<u8>, tries: u32) {
        self.server.after_ms(ms, move || {
            if let Some(engine) = engine() {
                engine.drop_group(source, cursor, tries);
            }
        });
    }

    /// Removes the group of a registration that is gone from all streams, a few keys at once; a batch in work ends first.
    fn drop_group(&self, source: Rc<Source>, cursor: Vec<u8>, tries: u32) {
        // An upgrade hands the group on.
        if self.streams.borrow().values().any(|streams| streams.source.group == source.group) {
            return;
        }
        let in_work = || self.live.borrow().values().any(|live| live.reads_for(source.registration));
        if !self.may_change_streams() || self.acknowledging.get() > 0 || in_work() {
            if tries < RETRIES_MAX {
                self.drop_group_later(RETRY_MS, source, cursor, tries + 1);
            }
            return;
        }
        let database = source.actor.database;
        let argv: [&[u8]; 6] = [b"scan", &cursor, b"count", KEYS_PER_STEP, b"type", b"stream"];
        let Ok(reply) = self.read(database, &argv) else { return };
        let (Some(next), Some(keys)) = (reply.view().element(0), reply.view().element(1)) else { return };
        let options = CallOptions { database: database.0, replicate: true, ..CallOptions::default() };
        for key in keys.elements() {
            // It is no error that a stream does not have the group.
            let _ = self.call_as(options, None, &[b"xgroup", b"destroy", key.bytes(), &source.group]);
        }
        if next.bytes() != b"0" {
            self.drop_group_later(1, source, next.bytes().to_vec(), 0);
        }
    }
}

/// A field of a flat map of names and values.
fn field<'a>(map: ReplyView<'a>, name: &[u8]) -> Option<ReplyView<'a>> {
    let index = map.elements().step_by(2).position(|field| field.bytes() == name)?;
    map.element(2 * index + 1)
}
