//! Operations that make and remove content.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redgrease_cache_rules::name::{self, MAX_NUMBER, file_name};
use redgrease_cache_rules::protocol::{Answer, Doomed, Mode, Op, Reason, Reply};
use redgrease_cache_rules::{Entry, Key};

use super::hold::{Doubt, Hold, InIndex, TakenReleases};
use super::read::{Opened, named};
use super::sidecar::Sidecar;
use super::{Doing, Engine, MAX_PAUSE, count};
use crate::edge::{Disk, Draft as _, Edge};
use crate::error::{Cause, Code, Error, Result};
use crate::flights::Flight;
use crate::options::{MAX_METADATA_BYTES, Metadata, Put, micros};

/// Maximum number of evictions to free space for one entry.
const MAX_ROOM_ROUNDS: u32 = 64;

/// New content in progress. Dropping it aborts.
pub(crate) struct Draft<D: Disk> {
    pub key: Key,
    pub mode: Mode,
    pub hold: Hold,
    pub fence: u64,
    pub temporary: String,
    pub file: Option<D::Draft>,
    /// A write has failed: the file is not the complete content.
    pub torn: bool,
    pub hasher: blake3::Hasher,
    pub size: u64,
    pub reserved: u64,
    pub ttl: u64,
    pub metadata: Vec<u8>,
    pub flight: Option<Flight>,
}

/// Content that was committed, and opened if requested.
pub(crate) struct Made<D: Disk> {
    pub entry: Entry,
    pub file: Option<D::File>,
    pub hold: Option<Hold>,
}

/// The outcome of a request to write.
pub(crate) enum Begun<D: Disk> {
    Draft(Box<Draft<D>>),
    Hit { opened: Opened<D::File>, waited: bool },
}

/// How long a call waits, and whether it had to.
struct Patience {
    timeout: Duration,
    began: Duration,
    waited: bool,
}

/// The result of [`Engine::lease`].
enum Leased {
    Granted { hold: Hold, fence: u64 },
    Hit { hold: Hold, entry: Entry },
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

fn full(limit: u64) -> Cause {
    Cause::NoSpace(format!(
        "the cache is full ({limit} bytes) and nothing can be evicted: all is pinned, read or being written"
    ))
}

/// Converts a time to live to microseconds; refuses values that the index cannot represent.
pub(crate) fn check_ttl(doing: Doing<'_>, ttl: Option<Duration>) -> Result<Option<u64>> {
    match ttl.map(|ttl| (ttl, micros(ttl))) {
        Some((given, ttl)) if ttl == 0 || ttl > MAX_NUMBER => {
            let seconds = given.as_secs_f64();
            let message = format!("ttl of {seconds} s; a time to live is above 0 and up to 142 years (4.5e9 s)");
            Err(doing.failed(Cause::BadConfig(message)))
        }
        ttl => Ok(ttl.map(|(_, ttl)| ttl)),
    }
}

/// The draft's lease and file have ended: nothing is left to release.
fn end<D: Disk>(draft: &mut Draft<D>) {
    draft.hold.in_index = InIndex::No;
    draft.hold.temporary = None;
    draft.flight = None;
}

impl<E: Edge> Engine<E> {
    /// Becomes the writer of a key, or with `hit` finds content.
    async fn lease(
        &self,
        doing: Doing<'_>,
        mode: Mode,
        hit: bool,
        reserve: u64,
        patience: &mut Patience,
    ) -> Result<Leased> {
        let Patience { timeout, began, .. } = *patience;
        let mut retries = self.retries(doing, began);
        let mut hold = self.hold(doing.key());
        let mut rounds = 0;
        for turn in 0.. {
            let heard = (timeout > Duration::ZERO).then(|| self.flights.listen(doing.key()));
            let wait = self.edge.elapsed() - began < timeout;
            // Sends pending releases along, so that they do not delay this request.
            let releases = TakenReleases { list: self.take_releases(64), chores: &self.chores };
            let op = Op::Acquire {
                key: doing.key().to_vec(),
                token: hold.token,
                session: self.sessions.of(hold.token),
                mode,
                reserve,
                wait,
                hit,
                releases: releases.list.clone(),
            };
            let had_place = std::mem::replace(&mut hold.in_index, InIndex::Asked) != InIndex::No;
            let asked = self.edge.elapsed();
            let Answer { reply, doomed } = self.ask_index(doing, op).await?;
            hold.in_index = InIndex::Yes;
            releases.are_done();
            let made_room = !doomed.is_empty();
            self.unlink(doomed).await;
            match &reply {
                Reply::Granted { .. } | Reply::Hit(_) => self.sessions.is_known(hold.token.session, asked),
                Reply::Exists | Reply::SessionLost => hold.in_index = InIndex::No,
                _ if had_place || wait => {}
                _ => hold.in_index = InIndex::No,
            }
            match reply {
                Reply::Granted { fence, after_dead } => {
                    if after_dead {
                        // A file that it published but could not commit is removed before there is a newer one.
                        let number = u16::from_str_radix(&name::shard(doing.key()), 16).unwrap_or(0);
                        self.sweep_shard(doing, number, true).await?;
                        self.sweep_temporaries(doing, true).await?;
                    }
                    return Ok(Leased::Granted { hold, fence });
                }
                Reply::Hit(entry) => return Ok(Leased::Hit { hold, entry }),
                Reply::Exists => return Err(doing.failed(Cause::Exists)),
                Reply::TooLarge { limit } => return Err(doing.failed(Cause::TooLarge { limit })),
                Reply::Full { limit } => self.wait_for_room(doing, limit, made_room, &mut rounds).await?,
                Reply::SessionLost => {
                    self.session_lost(hold.token);
                    hold.exchange();
                    self.pause_after_loss(doing, &mut retries, began).await?;
                }
                Reply::Busy { owner } => {
                    let passed = self.edge.elapsed() - began;
                    if passed >= timeout {
                        return Err(self.busy(doing, named(owner), timeout, passed));
                    }
                    self.begin_to_wait(patience);
                    self.pause_on(heard.expect("there is time"), turn, timeout - passed).await;
                    self.go_on(doing)?;
                }
                reply => return Err(self.unexpected(doing, &reply)),
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Begins to write, or finds content if `hit`.
    pub async fn begin(&self, doing: Doing<'_>, mode: Mode, hit: bool, put: &Put) -> Result<Begun<E::Disk>> {
        let metadata = self.check_put(doing, put)?;
        let mut patience = Patience { timeout: put.timeout, began: self.edge.elapsed(), waited: false };
        let doing = doing.until(patience.began.saturating_add(put.timeout));
        let (mut attempt, mut missed) = (0, 0);
        // A draft of unknown size starts with this reservation, so that small contents need no further request.
        let allowance = (64 << 10).min(self.known_largest.load(Ordering::Relaxed) / 8);
        let reserve = put.size.unwrap_or(allowance);
        loop {
            let heard = self.flights.listen(doing.key());
            let flight = match self.flights.take(doing.key(), self.edge.who()) {
                Ok(flight) => flight,
                Err(other) => {
                    if hit {
                        match self.open(doing, true, Duration::ZERO).await {
                            Ok(opened) => return Ok(Begun::Hit { opened, waited: patience.waited }),
                            Err(error) if matches!(error.code(), Code::Missing | Code::Busy | Code::Corrupt) => {}
                            Err(error) => return Err(error),
                        }
                    }
                    self.wait_for_flight(doing, other, heard, &mut patience).await?;
                    continue;
                }
            };
            match self.lease(doing, mode, hit, reserve, &mut patience).await? {
                Leased::Hit { hold, entry } => {
                    drop(flight);
                    count(&self.counters.hits, 1);
                    match self.open_entry(doing, entry, Some(hold), &mut attempt, &mut missed).await {
                        Ok(Some(opened)) => return Ok(Begun::Hit { opened, waited: patience.waited }),
                        Ok(None) => {}
                        // It was removed before it was opened: make it.
                        Err(error) if matches!(error.code(), Code::Missing | Code::Corrupt) => {}
                        Err(error) => return Err(error),
                    }
                }
                Leased::Granted { mut hold, fence } => {
                    if hit {
                        count(&self.counters.misses, 1);
                    }
                    let temporary = name::temporary(hold.token);
                    hold.temporary = Some(temporary.clone());
                    return Ok(Begun::Draft(Box::new(Draft {
                        key: doing.key().to_vec(),
                        mode,
                        hold,
                        fence,
                        temporary,
                        file: None,
                        torn: false,
                        hasher: blake3::Hasher::new(),
                        size: 0,
                        reserved: reserve,
                        ttl: put.ttl.map_or(0, micros),
                        metadata,
                        flight: Some(flight),
                    })));
                }
            }
        }
    }

    fn check_put(&self, doing: Doing<'_>, put: &Put) -> Result<Vec<u8>> {
        check_ttl(doing, put.ttl)?;
        if put.size.is_some_and(|size| size > MAX_NUMBER) {
            return Err(doing.failed(Cause::BadConfig(format!("the maximum size is {MAX_NUMBER} bytes"))));
        }
        let metadata = Metadata { content_type: put.content_type.clone(), user: put.user.clone() }.pack();
        if metadata.len() > MAX_METADATA_BYTES {
            let what = format!("{} bytes of metadata; the maximum is {MAX_METADATA_BYTES}", metadata.len());
            return Err(doing.failed(Cause::BadConfig(what)));
        }
        Ok(metadata)
    }

    async fn wait_for_flight(
        &self,
        doing: Doing<'_>,
        other: Option<u64>,
        heard: event_listener::EventListener,
        patience: &mut Patience,
    ) -> Result<()> {
        let timeout = patience.timeout;
        let passed = self.edge.elapsed() - patience.began;
        // A caller that waited for itself would never continue.
        if other.is_some() && other == self.edge.who() {
            return Err(self.own(doing));
        }
        if passed >= timeout {
            // Tasks cannot be distinguished: the holder may be the caller.
            let who = if other.is_some() { "another thread of this process" } else { "a task of this process" };
            return Err(self.busy(doing, who.to_owned(), timeout, passed));
        }
        self.begin_to_wait(patience);
        self.edge.pause(heard, (timeout - passed).min(MAX_PAUSE)).await;
        self.go_on(doing)
    }

    fn begin_to_wait(&self, patience: &mut Patience) {
        if !std::mem::replace(&mut patience.waited, true) {
            count(&self.counters.waits, 1);
            self.edge.listen();
        }
    }

    /// Makes the temporary file, unless it exists.
    pub async fn create_file(&self, doing: Doing<'_>, draft: &mut Draft<E::Disk>) -> Result<()> {
        if draft.file.is_none() {
            self.keep_disk_free(doing, draft.reserved).await?;
            let temporary = draft.temporary.clone();
            let created = self.edge.on_disk(move |disk| disk.create(&temporary)).await;
            draft.file = Some(created.map_err(|error| doing.io(error))?);
        }
        Ok(())
    }

    /// Evicts while the file system has less free space than configured.
    async fn keep_disk_free(&self, doing: Doing<'_>, coming: u64) -> Result<()> {
        let min_free = self.known_min_free.load(Ordering::Relaxed);
        if min_free == 0 {
            return Ok(());
        }
        for _ in 0..MAX_ROOM_ROUNDS {
            let free = self.edge.on_disk(|disk| disk.free_bytes()).await.map_err(|error| doing.io(error))?;
            let wanted = min_free.saturating_add(coming);
            if free >= wanted {
                return Ok(());
            }
            if self.evict_bytes(doing, wanted - free).await? == 0 {
                let what =
                    format!("{free} bytes are free on the disk, {wanted} must stay free, and nothing can be evicted");
                return Err(doing.failed(Cause::NoSpace(what)));
            }
        }
        Err(doing.failed(Cause::NoSpace(format!("{min_free} bytes cannot be kept free"))))
    }

    /// Evicts `wanted` bytes on a full disk; returns whether anything was evicted. Evicts nothing for content of
    /// `total` bytes that would not fit even in an empty cache.
    async fn make_disk_room(&self, doing: Doing<'_>, temporary: &str, wanted: u64, total: u64) -> bool {
        let Ok(info) = self.info(doing).await else { return false };
        let temporary = temporary.to_owned();
        let there = self.edge.on_disk(move |disk| -> std::io::Result<u64> {
            let drafts = disk.list_temporaries()?;
            let written = drafts.iter().find(|draft| draft.name == temporary).map_or(0, |draft| draft.size);
            Ok(disk.free_bytes()?.saturating_add(written))
        });
        let Ok(there) = there.await else { return false };
        let most = there.saturating_add(info.bytes).saturating_add(info.garbage);
        most >= total && self.evict_bytes(doing, wanted).await.is_ok_and(|gone| gone > 0)
    }

    /// Reserves space for a draft of unknown length that has grown to `size`.
    pub async fn reserve(&self, doing: Doing<'_>, draft: &mut Draft<E::Disk>, size: u64) -> Result<()> {
        let largest = self.known_largest.load(Ordering::Relaxed);
        if size <= draft.reserved || largest == 0 {
            return Ok(());
        }
        // In advance, so that a long file does not send a request per block; not beyond the limit of one entry.
        const STEP: u64 = 1 << 20;
        let mut wanted = size.max(draft.reserved.saturating_mul(2).min(draft.reserved + 64 * STEP)).max(64 * 1024);
        if size <= largest {
            wanted = wanted.min(largest);
        }
        let mut rounds = 0;
        loop {
            let op = Op::Reserve { key: draft.key.clone(), token: draft.hold.token, bytes: wanted };
            let Answer { reply, doomed } = self.ask_index(doing, op).await?;
            let made_room = !doomed.is_empty();
            self.unlink(doomed).await;
            match reply {
                Reply::Done => {
                    draft.reserved = wanted;
                    return Ok(());
                }
                Reply::TooLarge { .. } | Reply::Full { .. } if wanted > size => wanted = size,
                Reply::TooLarge { limit } => return Err(doing.failed(Cause::TooLarge { limit })),
                Reply::Full { limit } => self.wait_for_room(doing, limit, made_room, &mut rounds).await?,
                Reply::LeaseLost => {
                    return Err(self.lease_lost(
                        doing,
                        "while the content was written it ran out (more time: the option `lease`), went with the index, or was broken",
                    ));
                }
                reply => return Err(self.unexpected(doing, &reply)),
            }
        }
    }

    /// The cache is full. Freed space is used at once; otherwise readers may be about to release their leases.
    async fn wait_for_room(&self, doing: Doing<'_>, limit: u64, made_room: bool, rounds: &mut u32) -> Result<()> {
        *rounds += if made_room { 1 } else { MAX_ROOM_ROUNDS / 8 };
        if *rounds > MAX_ROOM_ROUNDS {
            return Err(doing.failed(full(limit)));
        }
        if !made_room {
            self.do_chores().await;
            if *rounds > MAX_ROOM_ROUNDS / 8 {
                self.pause(b"", 3).await;
            }
        }
        Ok(())
    }

    pub(super) fn lease_lost(&self, doing: Doing<'_>, when: &'static str) -> Error {
        count(&self.counters.lease_losses, 1);
        doing.failed(Cause::LeaseLost(when))
    }

    /// Appends to a draft. If this fails or is cancelled, the draft can no longer be committed.
    pub async fn append(&self, doing: Doing<'_>, draft: &mut Draft<E::Disk>, bytes: Vec<u8>) -> Result<()> {
        draft.torn = true;
        let size = draft.size + bytes.len() as u64;
        self.reserve(doing, draft, size).await?;
        self.create_file(doing, draft).await?;
        draft.hasher.update(&bytes);
        let mut file = draft.file.take().expect("made above");
        let (before, bytes) = (draft.size, Arc::new(bytes));
        let again = Arc::clone(&bytes);
        let write = move |mut file: <E::Disk as Disk>::Draft, bytes: Arc<Vec<u8>>| {
            let result = file.write(&bytes);
            (file, result)
        };
        let mut result;
        (file, result) = self.edge.on_disk(move |_| write(file, bytes)).await;
        if result.as_ref().is_err_and(is_full) {
            // Retried once if something can be evicted.
            let wanted = (again.len() as u64).max(1 << 20);
            if self.make_disk_room(doing, &draft.temporary, wanted, size.max(draft.reserved)).await {
                let rewrite = move |mut file: <E::Disk as Disk>::Draft| {
                    let result = file.cut(before).and_then(|()| file.write(&again));
                    (file, result)
                };
                (file, result) = self.edge.on_disk(move |_| rewrite(file)).await;
            }
        }
        draft.file = Some(file);
        draft.size = size;
        draft.torn = result.is_err();
        result.map_err(|error| doing.io(error))
    }

    /// Publishes a draft, with the content that is still in memory: `rest` is appended to the file. In any case
    /// the draft has ended: committed, aborted, or (if the index cannot be reached) left to be committed later
    /// or swept. `keep`: the lease continues as a reader's.
    pub async fn commit(
        &self,
        doing: Doing<'_>,
        mut draft: Draft<E::Disk>,
        rest: Vec<u8>,
        keep: bool,
    ) -> Result<Made<E::Disk>> {
        draft.size += rest.len() as u64;
        draft.hasher.update(&rest);
        let digest = draft.hasher.finalize().as_bytes()[..16].try_into().expect("32 bytes have a first half");
        let size = draft.size;
        if draft.torn {
            self.abort(draft).await;
            let error = std::io::Error::other("an earlier write to it failed; nothing was published");
            return Err(doing.io(error));
        }
        let prepared = match self.reserve(doing, &mut draft, size).await {
            Ok(()) => self.keep_disk_free(doing, rest.len() as u64).await,
            Err(error) => Err(error),
        };
        if let Err(error) = prepared {
            self.abort(draft).await;
            return Err(error);
        }
        self.publish(doing, draft, Arc::new(rest), digest, keep).await
    }

    /// Creates or replaces with content that is complete: two requests to the index.
    pub async fn put(&self, doing: Doing<'_>, mode: Mode, content: Vec<u8>, put: &Put) -> Result<Entry> {
        let put = Put { size: Some(content.len() as u64), ..put.clone() };
        let Begun::Draft(draft) = self.begin(doing, mode, false, &put).await? else {
            unreachable!("hits were not requested")
        };
        Ok(self.commit(doing, *draft, content, false).await?.entry)
    }

    /// The common end of all writes: content, sidecar, name, directory, index.
    async fn publish(
        &self,
        doing: Doing<'_>,
        mut draft: Draft<E::Disk>,
        rest: Arc<Vec<u8>>,
        digest: [u8; 16],
        keep: bool,
    ) -> Result<Made<E::Disk>> {
        let entry = Entry {
            fence: draft.fence,
            size: draft.size,
            created: 0,
            expires: 0,
            ttl: draft.ttl,
            pinned: false,
            digest,
            metadata: std::mem::take(&mut draft.metadata),
        };
        let file = Doomed { key: draft.key.clone(), entry: entry.clone() };
        let mut doubt = Doubt { chores: &self.chores, file: Some(file) };
        let can_begin_again = draft.file.is_none();
        let mut published = self.publish_file(&mut draft, &entry, &rest, keep).await;
        if can_begin_again && published.as_ref().is_err_and(is_full) {
            // Retried once if something can be evicted.
            let wanted = entry.size.max(1 << 20);
            if self.make_disk_room(doing, &draft.temporary, wanted, entry.size).await {
                published = self.publish_file(&mut draft, &entry, &rest, keep).await;
            }
        }
        let opened = match published {
            Ok(opened) => opened,
            Err(error) => {
                // Only a process that considers us dead unlinks our temporary file.
                let lost = error.kind() == std::io::ErrorKind::NotFound;
                self.forget_file(&draft.key, &entry).await;
                doubt.file = None;
                self.abort(draft).await;
                let when = "before the content was published it ran out (more time: the option `lease`), went with the index, or was broken";
                return Err(if lost { self.lease_lost(doing, when) } else { doing.io(error) });
            }
        };
        let mut op = Op::Commit {
            key: draft.key.clone(),
            token: draft.hold.token,
            mode: draft.mode,
            entry: entry.clone(),
            unlinked: self.take_unlinked(),
            pin: keep,
        };
        let answered = self.ask(doing, op.clone()).await;
        doubt.file = None;
        let reply = match answered {
            Ok(reply) => reply,
            Err(error) => {
                if let Op::Commit { pin, .. } = &mut op {
                    *pin = false;
                }
                // Published, but possibly not known to the index. Retried for as long as the lease lasts; after that the
                // file is found when the index is rebuilt, or swept.
                let until = self.edge.elapsed() + self.rules.lease;
                self.chores.list().commits.push((until, op));
                self.chores.added.notify(usize::MAX);
                end(&mut draft);
                return Err(error);
            }
        };
        if let Reply::Committed(entry) = reply {
            count(&self.counters.creates, 1);
            count(&self.counters.bytes_written, entry.size);
            draft.hold.temporary = None;
            draft.hold.in_index = if keep { InIndex::Yes } else { InIndex::No };
            drop(draft.flight);
            return Ok(Made { entry, file: opened, hold: keep.then_some(draft.hold) });
        }
        end(&mut draft);
        let failure = match reply {
            Reply::Exists => doing.failed(Cause::Exists),
            Reply::TooLarge { limit } => doing.failed(Cause::TooLarge { limit }),
            Reply::LeaseLost => self.lease_lost(
                doing,
                "before the content was published it ran out (more time: the option `lease`), went with the index, or was broken",
            ),
            reply => self.unexpected(doing, &reply),
        };
        self.forget_file(&draft.key, &entry).await;
        Err(failure)
    }

    /// Finishes the temporary file and renames it. With `keep`, opens it before it can be evicted: its maker can always
    /// read it.
    async fn publish_file(
        &self,
        draft: &mut Draft<E::Disk>,
        entry: &Entry,
        rest: &Arc<Vec<u8>>,
        keep: bool,
    ) -> std::io::Result<Option<<E::Disk as Disk>::File>> {
        let sidecar = name::has_sidecar(&draft.key, entry)
            .then(|| Sidecar { key: draft.key.clone(), metadata: entry.metadata.clone() }.pack());
        let (file, temporary) = (file_name(&draft.key, entry), draft.temporary.clone());
        let (begun, rest) = (draft.file.take(), Arc::clone(rest));
        self.edge
            .on_disk(move |disk| {
                let (begins, small) = (begun.is_none(), format!("{temporary}{}", name::SIDECAR));
                let publish = || {
                    let mut content = match begun {
                        Some(content) => content,
                        None => disk.create(&temporary)?,
                    };
                    if !rest.is_empty() {
                        content.write(&rest)?;
                    }
                    content.finish()?;
                    if let Some(sidecar) = sidecar {
                        disk.write_small(&small, &sidecar)?;
                        disk.publish(&small, &format!("{file}{}", name::SIDECAR), false)?;
                    }
                    disk.publish(&temporary, &file, true)?;
                    if keep { disk.open(&file).map(|(file, _)| Some(file)) } else { Ok(None) }
                };
                publish().inspect_err(|error| {
                    if begins && is_full(error) {
                        // So that it can be started again.
                        let _ = disk.unlink_temporary(&small);
                        let _ = disk.unlink_temporary(&temporary);
                    }
                })
            })
            .await
    }

    /// Unlinks a file that is not and will not be content.
    pub(super) async fn forget_file(&self, key: &[u8], entry: &Entry) {
        let file = file_name(key, entry);
        // If it fails, the sweep finds it.
        let _ = self.edge.on_disk(move |disk| disk.unlink(&file)).await;
    }

    /// Aborts a draft.
    pub async fn abort(&self, mut draft: Draft<E::Disk>) {
        draft.file = None;
        let temporary = draft.temporary.clone();
        let _ = self
            .edge
            .on_disk(move |disk| {
                let _ = disk.unlink_temporary(&format!("{temporary}{}", name::SIDECAR));
                disk.unlink_temporary(&temporary)
            })
            .await;
        // If the index does not receive it, the end of the session has the same effect.
        let op = Op::Abort { key: draft.key.clone(), token: draft.hold.token };
        if self.ask(Doing::to("abort", &draft.key), op).await.is_ok() {
            end(&mut draft);
        }
    }

    /// Removes a key's content; returns whether there was any.
    pub async fn delete(&self, doing: Doing<'_>) -> Result<bool> {
        let op = Op::Remove { key: doing.key().to_vec(), fence: None, reason: Reason::Deleted };
        match self.ask(doing, op).await? {
            Reply::Done => Ok(true),
            Reply::Missing => Ok(false),
            reply => Err(self.unexpected(doing, &reply)),
        }
    }
}
