//! Operations on the whole cache: rebuilding the index, sweeping, evicting, verifying.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redgrease_cache_rules::name::{self, Named, SHARDS, SIDECAR, file_name, shard_at};
use redgrease_cache_rules::protocol::{Choice, Op, Reason, Reply, Request};
use redgrease_cache_rules::{Digest, Entry, Key};

use crate::disk::is_planted;
use crate::edge::{Disk, Edge, Listed};
use crate::engine::{BATCH, Building, Doing, Engine, REBUILD_PATIENCE, count, sidecar_of};
use crate::error::{Cause, Result};
use crate::options::micros;
use crate::report::{Depth, Evict, Evicted, Maintained, Problem, ProblemKind, Verification};

/// Maximum number of keys in a report.
const MAX_NAMED: usize = 1000;

/// Slices per round of a sweep.
const MAX_SLICES: u32 = 64;

/// Maximum number of slices of one eviction: more entries than an index can hold.
const MAX_EVICTIONS: u32 = 1 << 26;

/// How long a builder's claim is kept alive while it scans one shard.
const SHARD_PATIENCE: Duration = Duration::from_secs(60);

/// How long damaged files are kept for inspection.
const QUARANTINE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Files younger than this may belong to a lease that this process cannot see yet.
const MIN_AGE: Duration = Duration::from_secs(1);

/// Ends the claim, also after an error.
struct EndBuilding<'a>(&'a Building);

impl Drop for EndBuilding<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// The files of a shard.
struct Shard {
    files: Vec<(Key, Named, Listed)>,
    /// Sidecars without their file, and unknown files.
    others: Vec<Listed>,
}

impl<E: Edge> Engine<E> {
    /// Lists a shard and parses the names; those of long keys with their sidecars.
    async fn shard(&self, doing: Doing<'_>, number: u16) -> Result<Shard> {
        let shard = shard_at(number);
        self.edge
            .on_disk(move |disk| -> std::io::Result<Shard> {
                let mut found = Shard { files: Vec::new(), others: Vec::new() };
                let mut sidecars: HashMap<String, Listed> = HashMap::new();
                let mut there = std::collections::HashSet::new();
                for listed in disk.list(&shard)? {
                    if let Some(main) = listed.name.strip_suffix(SIDECAR)
                        && name::parse(main).is_some_and(|named| named.sidecar)
                    {
                        sidecars.insert(main.to_owned(), listed);
                        continue;
                    }
                    there.insert(listed.name.clone());
                    let Some(named) = name::parse(&listed.name) else {
                        found.others.push(listed);
                        continue;
                    };
                    let key = match &named.key {
                        Some(key) => Some(key.clone()),
                        None => sidecar_of(disk, &format!("{shard}/{}", listed.name))?.map(|sidecar| sidecar.key),
                    };
                    match key {
                        Some(key) if name::shard(&key) == shard => found.files.push((key, named, listed)),
                        _ => found.others.push(listed),
                    }
                }
                sidecars.retain(|main, _| !there.contains(main));
                found.others.extend(sidecars.into_values());
                Ok(found)
            })
            .await
            .map_err(|error| crate::error::Error::io(doing.operation, None, error))
    }

    /// Reconciles the index with the directory: builds one that is lost, completes one that may lack the latest operations.
    /// If another process does it already, waits for that.
    /// `until`: the deadline of the wait, if any.
    pub async fn recover(&self, doing: Doing<'_>, until: Option<Duration>) -> Result<()> {
        // One at a time in this process.
        let heard = self.flights.listen(b"");
        let Ok(_flight) = self.flights.take(b"", None) else {
            let left = until.map_or(Duration::MAX, |until| until.saturating_sub(self.edge.elapsed()));
            self.edge.pause(heard, left.min(Duration::from_secs(1))).await;
            return Ok(());
        };
        self.rebuild(doing, false, until).await
    }

    /// Builds the index; `wipe`: replaces any contents.
    pub async fn rebuild(&self, doing: Doing<'_>, wipe: bool, until: Option<Duration>) -> Result<()> {
        let session = self.sessions.another(self.edge.random());
        let instance = self.edge.instance();
        let ask = async |op: Op| {
            let request = Request { cache: self.cache, op };
            self.edge.ask(request).await.map(|answer| answer.reply).map_err(|outage| self.outage(doing, outage))
        };
        // They may have changed since this process opened the cache.
        let bounds = self.edge.on_disk(|disk| disk.bounds()).await.unwrap_or(self.rules.bounds);
        let mut wipe = wipe;
        let until = until.unwrap_or_else(|| self.edge.elapsed().saturating_add(REBUILD_PATIENCE));
        let existed = loop {
            let op = Op::Rebuild { session: session.clone(), instance, bounds, wipe };
            match ask(op).await? {
                Reply::Granted { .. } => break false,
                Reply::Changed => break true,
                Reply::Done => return Ok(()),
                Reply::Rebuilding if self.edge.elapsed() < until => {
                    let heard = self.flights.listen(b"\0rebuild");
                    self.edge.pause(heard, Duration::from_millis(50)).await;
                }
                Reply::Rebuilding => {
                    let message = "it is being rebuilt by another process, and was not ready in time".to_owned();
                    return Err(doing.failed(Cause::Unavailable(message)));
                }
                Reply::Foreign { cache } => return Err(doing.failed(Cause::BadConfig(self.foreign(cache)))),
                reply => return Err(self.unexpected(doing, &reply)),
            }
            wipe = false;
        };
        tracing::info!(namespace = self.rules.namespace, "bringing the index in line with the directory");
        count(&self.counters.rebuilds, 1);
        let claim = EndBuilding(&self.building);
        let mut alive = self.edge.elapsed();
        for number in 0..SHARDS {
            self.building.set(Some((session.clone(), self.edge.elapsed() + SHARD_PATIENCE)));
            let listed = match self.shard(doing, number).await {
                Ok(shard) => self.restored(doing, number, shard.files).await,
                Err(error) => Err(error),
            };
            let restored = match listed {
                Ok(restored) => restored,
                Err(error) => {
                    // So that the next caller need not wait until the claim expires.
                    let _ = ask(Op::Close { session: session.id }).await;
                    return Err(error);
                }
            };
            for batch in restored.chunks(BATCH) {
                match ask(Op::Restore { session: session.id, entries: batch.to_vec() }).await? {
                    Reply::Done => {}
                    // Another process considered this one dead and took over, or the index was lost again.
                    Reply::LeaseLost | Reply::Lost => return Ok(()),
                    reply => return Err(self.unexpected(doing, &reply)),
                }
            }
            if self.edge.elapsed() - alive > self.rules.lease / 4 {
                alive = self.edge.elapsed();
                ask(Op::Renew { session: session.clone(), unlinked: Vec::new() }).await?;
            }
        }
        drop(claim);
        match ask(Op::Finish { session: session.id, instance }).await? {
            Reply::Done | Reply::LeaseLost => {}
            // It was lost again; the next request starts over.
            Reply::Lost => return Ok(()),
            reply => return Err(self.unexpected(doing, &reply)),
        }
        ask(Op::Close { session: session.id }).await?;
        if existed {
            self.forget_missing(doing).await?;
        }
        Ok(())
    }

    /// Removes the entries whose files are missing: an index that is older than its directory has such entries.
    async fn forget_missing(&self, doing: Doing<'_>) -> Result<()> {
        let mut cursor = None;
        loop {
            let (page, next) = self.edge.page(cursor, BATCH).await.map_err(|outage| self.outage(doing, outage))?;
            let missing = self
                .edge
                .on_disk(move |disk| {
                    let is_missing = |key: &Key, entry: &Entry| {
                        disk.open(&file_name(key, entry))
                            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
                    };
                    page.into_iter().filter(|(key, entry, _)| is_missing(key, entry)).collect::<Vec<_>>()
                })
                .await;
            for (key, entry, _) in missing {
                let op = Op::Remove { key, fence: Some(entry.fence), reason: Reason::Gone };
                let request = Request { cache: self.cache, op };
                // If that cannot be sent now, the next reader of the key detects it.
                let answer = self.edge.ask(request).await.map_err(|outage| self.outage(doing, outage))?;
                self.unlink(answer.doomed).await;
            }
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// The entries of the files of a shard.
    async fn restored(
        &self,
        doing: Doing<'_>,
        number: u16,
        files: Vec<(Key, Named, Listed)>,
    ) -> Result<Vec<(Key, Entry, u64)>> {
        let shard = shard_at(number);
        self.edge
            .on_disk(move |disk| -> std::io::Result<Vec<(Key, Entry, u64)>> {
                let mut restored = Vec::with_capacity(files.len());
                for (key, named, listed) in files {
                    let metadata = if named.sidecar {
                        // Without the sidecar, metadata would be lost unnoticed.
                        let Some(sidecar) = sidecar_of(disk, &format!("{shard}/{}", listed.name))? else { continue };
                        sidecar.metadata
                    } else {
                        Vec::new()
                    };
                    // The fence is the time of the lease, or slightly later.
                    let created = named.fence;
                    let expires = if named.ttl == 0 { 0 } else { created.saturating_add(named.ttl) };
                    let (fence, ttl, digest) = (named.fence, named.ttl, named.digest);
                    let entry =
                        Entry { fence, size: listed.size, created, expires, ttl, pinned: false, digest, metadata };
                    restored.push((key, entry, listed.used));
                }
                Ok(restored)
            })
            .await
            .map_err(|error| crate::error::Error::io(doing.operation, None, error))
    }

    /// Processes what is due in the index.
    pub async fn sweep_index(&self, doing: Doing<'_>) -> Result<u64> {
        let before = self.counters.unlinked.load(Ordering::Relaxed);
        for _ in 0..MAX_SLICES {
            match self.ask(doing, Op::Sweep).await? {
                Reply::More => {}
                Reply::Done => break,
                reply => return Err(self.unexpected(doing, &reply)),
            }
        }
        Ok(self.counters.unlinked.load(Ordering::Relaxed) - before)
    }

    /// One round of maintenance of these shards.
    pub async fn maintain(&self, doing: Doing<'_>, shards: impl Iterator<Item = u16>) -> Result<Maintained> {
        let mut maintained = Maintained { unlinked: self.sweep_index(doing).await?, ..Maintained::default() };
        let min_free = self.known_min_free.load(Ordering::Relaxed);
        if min_free > 0 {
            for _ in 0..MAX_SLICES {
                let free = self.edge.on_disk(|disk| disk.free_bytes()).await.unwrap_or(u64::MAX);
                if free >= min_free {
                    break;
                }
                let gone = self.evict_bytes(doing, min_free - free).await?;
                maintained.unlinked += gone as u64;
                if gone == 0 {
                    break;
                }
            }
        }
        for number in shards {
            maintained.orphans += self.sweep_shard(doing, number, true).await?.len() as u64;
        }
        let _ = self.edge.on_disk(|disk| disk.empty_quarantine(QUARANTINE)).await;
        maintained.temporaries = self.sweep_temporaries(doing, true).await?.len() as u64;
        // Reports unlinked files to the index now, not with the next renewal.
        self.report_unlinked(doing).await?;
        Ok(maintained)
    }

    /// Reports unlinked files to the index.
    pub async fn report_unlinked(&self, doing: Doing<'_>) -> Result<()> {
        let unlinked = std::mem::take(&mut self.chores.list().unlinked);
        for batch in unlinked.chunks(1024) {
            // A report of any session is accepted.
            let session = self.sessions.another(0);
            self.ask(doing, Op::Renew { session, unlinked: batch.to_vec() }).await?;
        }
        Ok(())
    }

    /// Finds (and unlinks) files of a shard without an entry; returns their names.
    pub async fn sweep_shard(&self, doing: Doing<'_>, number: u16, unlink: bool) -> Result<Vec<String>> {
        let shard = self.shard(doing, number).await?;
        let mut orphans: Vec<String> = Vec::new();
        let old = |listed: &Listed| listed.age >= MIN_AGE;
        let candidates: Vec<_> = shard.files.iter().collect();
        for batch in candidates.chunks(BATCH) {
            let files: Vec<(Key, u64, Digest)> =
                batch.iter().map(|(key, named, _)| (key.clone(), named.fence, named.digest)).collect();
            match self.ask(doing, Op::Judge { files }).await? {
                Reply::Flags(flags) if flags.len() == batch.len() => {
                    orphans.extend(
                        batch
                            .iter()
                            .zip(flags)
                            .filter(|(_, flag)| *flag)
                            .map(|((_, _, listed), _)| listed.name.clone()),
                    );
                }
                reply => return Err(self.unexpected(doing, &reply)),
            }
        }
        // A sidecar is written before its file: a young one may still get it.
        orphans.extend(
            shard
                .others
                .iter()
                .filter(|listed| listed.name.ends_with(SIDECAR) && old(listed) && listed.age >= self.rules.lease)
                .map(|listed| listed.name.clone()),
        );
        let names: Vec<String> = orphans.iter().map(|name| format!("{}/{name}", shard_at(number))).collect();
        if unlink && !names.is_empty() {
            let doomed = names.clone();
            self.edge.on_disk(move |disk| doomed.iter().for_each(|name| drop(disk.unlink(name)))).await;
        }
        Ok(names)
    }

    /// Finds (and unlinks) the temporary files of dead sessions.
    pub async fn sweep_temporaries(&self, doing: Doing<'_>, unlink: bool) -> Result<Vec<String>> {
        let io = |error| crate::error::Error::io(doing.operation, None, error);
        let listed = self.edge.on_disk(|disk| disk.list_temporaries()).await.map_err(io)?;
        let ours: Vec<(u64, String)> = listed
            .into_iter()
            .filter(|listed| listed.age >= MIN_AGE)
            .filter_map(|listed| Some((name::session_of_temporary(&listed.name)?, listed.name)))
            .collect();
        let mut sessions: Vec<u64> = ours.iter().map(|(session, _)| *session).collect();
        sessions.sort_unstable();
        sessions.dedup();
        let mut dead = Vec::new();
        for batch in sessions.chunks(BATCH) {
            match self.ask(doing, Op::Alive { sessions: batch.to_vec() }).await? {
                Reply::Flags(flags) if flags.len() == batch.len() => {
                    dead.extend(batch.iter().zip(flags).filter(|(_, alive)| !alive).map(|(session, _)| *session));
                }
                reply => return Err(self.unexpected(doing, &reply)),
            }
        }
        let names: Vec<String> =
            ours.into_iter().filter(|(session, _)| dead.binary_search(session).is_ok()).map(|(_, name)| name).collect();
        if unlink && !names.is_empty() {
            let doomed = names.clone();
            self.edge.on_disk(move |disk| doomed.iter().for_each(|name| drop(disk.unlink_temporary(name)))).await;
        }
        Ok(names)
    }

    /// Evicts the selected entries.
    pub async fn evict(&self, doing: Doing<'_>, what: &Evict) -> Result<Evicted> {
        let mut evicted = Evicted::default();
        let now = self.info(doing).await?.now;
        let ago = |duration: Duration| now.saturating_sub(micros(duration));
        let conditions =
            [what.to_bytes.is_some(), what.older_than.is_some(), what.idle_for.is_some(), what.prefix.is_some()];
        let conditions = conditions.into_iter().filter(|is_given| *is_given).count();
        if conditions == 0 {
            return Ok(evicted);
        }
        let listing = what.dry_run || conditions > 1 || what.older_than.is_some() || what.prefix.is_some();
        if !listing {
            let choices = [what.to_bytes.map(Choice::ToBytes), what.idle_for.map(|idle| Choice::UsedBefore(ago(idle)))];
            for choice in choices.into_iter().flatten() {
                for _ in 0..MAX_EVICTIONS {
                    let answer = self.ask_index(doing, Op::Evict { choice }).await?;
                    for doomed in &answer.doomed {
                        note(&mut evicted, &doomed.key, doomed.entry.size);
                    }
                    let more = matches!(answer.reply, Reply::More);
                    self.unlink(answer.doomed).await;
                    if !more {
                        break;
                    }
                }
            }
            return Ok(evicted);
        }
        // By age or prefix, or as a dry run: iterates over the entries in the order of eviction.
        let mut all = self.entries(doing).await?;
        all.retain(|(key, entry, _)| {
            !entry.pinned && what.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix))
        });
        all.sort_by_key(|(_, _, used)| *used);
        let mut left: u64 = all.iter().map(|(_, entry, _)| entry.size).sum();
        for (key, entry, used) in all {
            let older = what.older_than.is_none_or(|age| entry.created <= ago(age));
            let idle = what.idle_for.is_none_or(|idle| used.is_some_and(|used| used <= ago(idle)));
            let over = what.to_bytes.is_none_or(|bytes| left > bytes);
            if !(older && idle && over) {
                continue;
            }
            left -= entry.size;
            if !what.dry_run {
                let op = Op::Remove { key: key.clone(), fence: Some(entry.fence), reason: Reason::Deleted };
                if !self.done_or_missing(doing, op).await? {
                    continue;
                }
            }
            note(&mut evicted, &key, entry.size);
        }
        Ok(evicted)
    }

    /// All entries.
    async fn entries(&self, doing: Doing<'_>) -> Result<Vec<(Key, Entry, Option<u64>)>> {
        let mut entries: HashMap<Key, (Entry, Option<u64>)> = HashMap::new();
        let mut cursor = None;
        loop {
            let (page, next) = self.edge.page(cursor, 1000).await.map_err(|outage| self.outage(doing, outage))?;
            entries.extend(page.into_iter().map(|(key, entry, used)| (key, (entry, used))));
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(entries.into_iter().map(|(key, (entry, used))| (key, entry, used)).collect()),
            }
        }
    }

    /// Removes everything.
    pub async fn clear(&self, doing: Doing<'_>) -> Result<u64> {
        let mut cleared = 0;
        loop {
            let before = self.info(doing).await?.entries;
            let answer = self.ask_index(doing, Op::Evict { choice: Choice::Everything }).await?;
            let more = matches!(answer.reply, Reply::More);
            let after = before.saturating_sub(answer.doomed.len() as u64);
            cleared += before - after;
            self.unlink(answer.doomed).await;
            if !more {
                break;
            }
        }
        self.maintain(doing, 0..SHARDS).await?;
        let _ = self.edge.on_disk(|disk| disk.empty_quarantine(Duration::ZERO)).await;
        Ok(cleared)
    }

    /// Looks for problems, and repairs them on request.
    pub async fn verify(
        &self,
        doing: Doing<'_>,
        depth: Depth,
        repair: bool,
        progress: &mut (dyn FnMut(u64, u64) -> bool + Send),
    ) -> Result<Verification> {
        let mut found = Verification::default();
        if repair {
            self.sweep_index(doing).await?;
        }
        self.verify_index(doing, repair, &mut found).await?;
        let planted = self.edge.on_disk(|disk| disk.planted()).await;
        let is_planted = |name: &str| planted.iter().any(|(planted, _)| planted == name);
        let (is_hidden, has_drafts) = (is_planted("files"), !is_planted("temporary"));
        for (name, message) in &planted {
            found.problems.push(problem(ProblemKind::Foreign, name.clone(), message.clone(), false));
        }
        let entries = self.entries(doing).await?;
        found.entries = entries.len() as u64;
        found.bytes = entries.iter().map(|(_, entry, _)| entry.size).sum();
        // What cannot be examined is not reported as missing.
        if depth == Depth::Index || is_hidden {
            return Ok(found);
        }
        for (done, (key, entry, _)) in entries.iter().enumerate() {
            if !progress(done as u64, found.entries) {
                return Ok(found);
            }
            self.verify_entry(doing, key, entry, depth, repair, &mut found).await?;
        }
        progress(found.entries, found.entries);
        for number in 0..SHARDS {
            let shard = self.shard(doing, number).await?;
            found.files += shard.files.len() as u64;
            for listed in shard.others.iter().filter(|listed| !listed.name.ends_with(SIDECAR)) {
                let name = format!("{}/{}", shard_at(number), listed.name);
                let message = "the cache did not make it; it is left alone";
                found.problems.push(problem(ProblemKind::Foreign, name, message.to_owned(), false));
            }
            for name in self.sweep_shard(doing, number, repair).await? {
                let message = "no entry points to it".to_owned();
                found.problems.push(problem(ProblemKind::OrphanFile, name, message, repair));
            }
        }
        let orphans = if has_drafts { self.sweep_temporaries(doing, repair).await? } else { Vec::new() };
        for name in orphans {
            let message = "its writer is dead".to_owned();
            found.problems.push(problem(ProblemKind::OrphanTemporary, name, message, repair));
        }
        self.report_unlinked(doing).await?;
        Ok(found)
    }

    async fn verify_index(&self, doing: Doing<'_>, repair: bool, found: &mut Verification) -> Result<()> {
        let audit = match self.ask(doing, Op::Audit { repair }).await? {
            Reply::Audited(audit) => audit,
            reply => return Err(self.unexpected(doing, &reply)),
        };
        for (name, (kept, real)) in
            [("bytes", audit.bytes), ("reserved bytes", audit.reserved), ("garbage bytes", audit.garbage)]
        {
            if kept != real {
                let message = format!("{kept} are kept, {real} are the sum");
                found.problems.push(problem(ProblemKind::TotalDrift, name.to_owned(), message, repair));
            }
        }
        if audit.strays > 0 {
            let message = format!("{} members of one of them only", audit.strays);
            found.problems.push(problem(ProblemKind::StrayMember, "order of use".to_owned(), message, repair));
        }
        if audit.dead_leases > 0 {
            let message = format!("{} leases of sessions that have ended", audit.dead_leases);
            found.problems.push(problem(ProblemKind::DeadLease, "leases".to_owned(), message, repair));
        }
        let info = self.info(doing).await?;
        let over = |name: &str, is: u64, may: u64| {
            let message = format!("{is}; the limit is {may}");
            (may > 0 && is > may).then(|| problem(ProblemKind::OverLimit, name.to_owned(), message, false))
        };
        found.problems.extend(over("bytes", info.bytes, info.bounds.max_bytes));
        found.problems.extend(over("entries", info.entries, info.bounds.max_entries));
        Ok(())
    }

    async fn verify_entry(
        &self,
        doing: Doing<'_>,
        key: &[u8],
        entry: &Entry,
        depth: Depth,
        repair: bool,
        found: &mut Verification,
    ) -> Result<()> {
        let (file, size, digest) = (file_name(key, entry), entry.size, entry.digest);
        let looked = self
            .edge
            .on_disk(move |disk| -> std::io::Result<Option<(ProblemKind, String)>> {
                let (mut file, length) = disk.open(&file)?;
                if length != size {
                    return Ok(Some((ProblemKind::SizeMismatch, format!("{length} bytes, not {size}"))));
                }
                if depth == Depth::Digests && disk.digest(&mut file)? != digest {
                    return Ok(Some((ProblemKind::DigestMismatch, "other content than was written".to_owned())));
                }
                Ok(None)
            })
            .await;
        let (kind, message) = match looked {
            Ok(None) => return Ok(()),
            Ok(Some(problem)) => problem,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (ProblemKind::MissingFile, error.to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                (ProblemKind::DigestMismatch, error.to_string())
            }
            // A file in its place is a separate problem.
            Err(error) if is_planted(&error) => return Ok(()),
            Err(error) => return Err(crate::error::Error::io(doing.operation, Some(key), error)),
        };
        // It may have been replaced or evicted in the meantime.
        let now = self.peek(Doing::to(doing.operation, key)).await?;
        if now.is_none_or(|(now, _)| now.fence != entry.fence) {
            return Ok(());
        }
        if repair {
            if kind != ProblemKind::MissingFile {
                let file = file_name(key, entry);
                let _ = self.edge.on_disk(move |disk| disk.quarantine(&file)).await;
            }
            let reason = if kind == ProblemKind::MissingFile { Reason::Gone } else { Reason::Corrupt };
            let op = Op::Remove { key: key.to_vec(), fence: Some(entry.fence), reason };
            self.done_or_missing(Doing::to(doing.operation, key), op).await?;
        }
        found.problems.push(problem(kind, text(key), message, repair));
        Ok(())
    }
}

/// A key as text; bytes that are not text are escaped.
fn text(key: &[u8]) -> String {
    let mut text = String::with_capacity(key.len());
    for chunk in key.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

fn problem(kind: ProblemKind, name: String, message: String, repaired: bool) -> Problem {
    Problem { kind, name, message, repaired }
}

fn note(evicted: &mut Evicted, key: &[u8], size: u64) {
    evicted.entries += 1;
    evicted.bytes += size;
    if evicted.keys.len() < MAX_NAMED {
        evicted.keys.push(key.to_vec());
    }
}
