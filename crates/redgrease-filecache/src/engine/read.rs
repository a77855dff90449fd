//! Operations that find, open and read content.

use std::time::Duration;

use redgrease_cache_rules::name::{self, file_name};
use redgrease_cache_rules::protocol::{Op, Reason, Reply, Token};
use redgrease_cache_rules::{Entry, Micros};

use super::hold::{Hold, InIndex};
use super::sidecar::sidecar_of;
use super::{Doing, Engine, count};
use crate::edge::{self, Disk, Edge};
use crate::error::{Cause, Code, Error, Result};
use crate::options::{Check, OnOutage};

/// An open file, and the lease that protects it.
pub(crate) struct Opened<F> {
    pub entry: Entry,
    pub file: F,
    pub hold: Option<Hold>,
}

pub(super) fn named(owner: Option<String>) -> String {
    owner.unwrap_or_else(|| "a caller that has waited for longer".to_owned())
}

impl<E: Edge> Engine<E> {
    /// Finds the content of a key; if it is being made, waits as long as the deadline allows.
    pub async fn find(&self, doing: Doing<'_>, leased: bool, timeout: Duration) -> Result<(Entry, Option<Hold>)> {
        let began = self.edge.elapsed();
        let doing = doing.until(began.saturating_add(timeout));
        let mut retries = self.retries(doing, began);
        let mut hold = (leased && !self.rules.read_only).then(|| self.hold(doing.key()));
        for turn in 0.. {
            let heard = (timeout > Duration::ZERO).then(|| self.flights.listen(doing.key()));
            let pin = hold.as_mut().map(|hold| {
                hold.in_index = InIndex::Asked;
                (hold.token, self.sessions.of(hold.token))
            });
            let key = doing.key().to_vec();
            let op = if self.rules.read_only { Op::Peek { key } } else { Op::Lookup { key, pin } };
            let asked = self.edge.elapsed();
            let reply = self.ask(doing, op).await?;
            hold.iter_mut().for_each(|hold| hold.in_index = InIndex::Yes);
            if let (Some(hold), Reply::Missing | Reply::Busy { .. } | Reply::SessionLost) = (&mut hold, &reply) {
                hold.in_index = InIndex::No;
            }
            match reply {
                Reply::Hit(entry) | Reply::Seen { entry, .. } => {
                    hold.iter().for_each(|hold| self.sessions.is_known(hold.token.session, asked));
                    count(&self.counters.hits, 1);
                    return Ok((entry, hold));
                }
                Reply::Missing => {
                    count(&self.counters.misses, 1);
                    return Err(doing.failed(Cause::Missing));
                }
                Reply::Busy { owner } => {
                    let waited = self.edge.elapsed() - began;
                    // A caller that waited for itself would never continue.
                    if self.flights.is_held_by(doing.key(), self.edge.who()) {
                        return Err(self.own(doing));
                    }
                    if waited >= timeout {
                        return Err(self.busy(doing, named(owner), timeout, waited));
                    }
                    if turn == 0 {
                        count(&self.counters.waits, 1);
                        self.edge.listen();
                    }
                    self.pause_on(heard.expect("there is time"), turn, timeout - waited).await;
                    self.go_on(doing)?;
                }
                Reply::SessionLost => {
                    let hold = hold.as_mut().expect("only leases need a session");
                    self.session_lost(hold.token);
                    hold.exchange();
                    self.pause_after_loss(doing, &mut retries, began).await?;
                }
                reply => return Err(self.unexpected(doing, &reply)),
            }
        }
        unreachable!("the loop ends by returning")
    }

    pub(super) fn session_lost(&self, token: Token) {
        count(&self.counters.lease_losses, 1);
        self.sessions.lost(token.session, self.edge.random());
    }

    pub(super) fn own(&self, doing: Doing<'_>) -> Error {
        count(&self.counters.busy, 1);
        doing.failed(Cause::Own)
    }

    pub(super) fn busy(&self, doing: Doing<'_>, who: String, timeout: Duration, waited: Duration) -> Error {
        if timeout.is_zero() {
            count(&self.counters.busy, 1);
            doing.failed(Cause::Busy { who })
        } else {
            count(&self.counters.timeouts, 1);
            doing.failed(Cause::Timeout { who, waited })
        }
    }

    /// Reads the whole content into `buffer`.
    pub async fn read(&self, doing: Doing<'_>, timeout: Duration, mut buffer: Vec<u8>) -> Result<Vec<u8>> {
        let (mut attempt, mut missed) = (0, 0);
        loop {
            let entry = match self.find(doing, false, timeout).await {
                Ok((entry, _)) => entry,
                Err(error) => return self.read_in_outage(doing, error).await,
            };
            let (file, size) = (file_name(doing.key(), &entry), entry.size);
            let expected = self.is_to_check().then_some(entry.digest);
            let memory = std::mem::take(&mut buffer);
            let read = self
                .edge
                .on_disk(move |disk| -> std::io::Result<std::result::Result<Vec<u8>, String>> {
                    let (mut file, length) = disk.open(&file)?;
                    if length != size {
                        return Ok(Err(format!("{length} bytes, not {size}")));
                    }
                    let content = disk.read(&mut file, size, memory)?;
                    Ok(if content.len() as u64 != size {
                        Err(format!("{} bytes, not {size}", content.len()))
                    } else if expected.is_some_and(|expected| edge::digest(&content) != expected) {
                        Err("other content than was written".to_owned())
                    } else {
                        Ok(content)
                    })
                })
                .await;
            match read {
                Ok(Ok(content)) => {
                    count(&self.counters.bytes_read, size);
                    return Ok(content);
                }
                Ok(Err(what)) => return Err(self.quarantine(doing, &entry, what).await),
                Err(error) => self.after_failed_open(doing, &entry, error, &mut attempt, &mut missed).await?,
            }
        }
    }

    pub fn is_to_check(&self) -> bool {
        match self.rules.check {
            Check::Always => true,
            Check::Sampled => self.edge.random().is_multiple_of(16),
            Check::Never => false,
        }
    }

    /// Handles an entry whose file could not be opened: unlinked meanwhile, not yet visible on this host, or lost.
    async fn after_failed_open(
        &self,
        doing: Doing<'_>,
        entry: &Entry,
        error: std::io::Error,
        attempt: &mut u32,
        missed: &mut u64,
    ) -> Result<()> {
        if error.kind() == std::io::ErrorKind::InvalidData {
            return Err(self.quarantine(doing, entry, error.to_string()).await);
        }
        if error.kind() != std::io::ErrorKind::NotFound {
            return Err(doing.io(error));
        }
        *attempt += 1;
        if *missed == entry.fence && *attempt > 2 {
            let gone = Op::Remove { key: doing.key().to_vec(), fence: Some(entry.fence), reason: Reason::Gone };
            self.ask(doing, gone).await?;
            count(&self.counters.misses, 1);
            return Err(doing.failed(Cause::Missing));
        }
        if *missed == entry.fence {
            self.pause(b"", 3 + *attempt).await;
        }
        *missed = entry.fence;
        if *attempt > 100 {
            return Err(
                doing.failed(Cause::Unavailable("the content changed 100 times while it was opened".to_owned()))
            );
        }
        Ok(())
    }

    /// Removes damaged content.
    pub async fn quarantine(&self, doing: Doing<'_>, entry: &Entry, what: String) -> Error {
        count(&self.counters.corrupt, 1);
        tracing::warn!(key = %crate::error::Shown(doing.key()), what, "damaged file");
        let file = file_name(doing.key(), entry);
        let left = match self.edge.on_disk(move |disk| disk.quarantine(&file)).await {
            Ok(true) => "it was moved to quarantine".to_owned(),
            Ok(false) => "it was removed in the meantime".to_owned(),
            Err(error) => {
                tracing::warn!(%error, "cannot move it to quarantine");
                format!("its entry was removed, but it cannot be moved to quarantine: {error}")
            }
        };
        let op = Op::Remove { key: doing.key().to_vec(), fence: Some(entry.fence), reason: Reason::Corrupt };
        match self.ask(doing, op).await {
            Ok(_) => doing.failed(Cause::Corrupt { what, left }),
            Err(error) => error,
        }
    }

    /// Without the index: the newest file of the key, checked against the digest in its name.
    async fn read_in_outage(&self, doing: Doing<'_>, error: Error) -> Result<Vec<u8>> {
        if self.rules.on_outage == OnOutage::Fail || error.code() != Code::Unavailable {
            return Err(error);
        }
        let key = doing.key().to_vec();
        let found = self
            .edge
            .on_disk(move |disk| -> std::io::Result<Option<Vec<u8>>> {
                let shard = name::shard(&key);
                let (stem, readable) = name::stem(&key);
                let mut files = disk.list(&shard)?;
                files.retain(|listed| listed.name.split('~').next() == Some(&stem));
                let mut named: Vec<_> = files
                    .iter()
                    .filter_map(|listed| Some((name::parse(&listed.name)?, listed)))
                    .filter(|(named, _)| readable == named.key.is_some())
                    .collect();
                named.sort_by_key(|(named, _)| std::cmp::Reverse(named.fence));
                for (named, listed) in named {
                    let path = format!("{shard}/{}", listed.name);
                    if !readable && sidecar_of(disk, &path)?.is_none_or(|sidecar| sidecar.key != key) {
                        continue;
                    }
                    let (mut file, size) = disk.open(&path)?;
                    let content = disk.read(&mut file, size, Vec::new())?;
                    if edge::digest(&content) == named.digest {
                        return Ok(Some(content));
                    }
                }
                Ok(None)
            })
            .await;
        match found {
            Ok(Some(content)) => Ok(content),
            _ => Err(error),
        }
    }

    /// Opens the content and protects it from being unlinked.
    pub async fn open(
        &self,
        doing: Doing<'_>,
        leased: bool,
        timeout: Duration,
    ) -> Result<Opened<<E::Disk as Disk>::File>> {
        let (mut attempt, mut missed) = (0, 0);
        loop {
            let (entry, hold) = self.find(doing, leased, timeout).await?;
            if let Some(opened) = self.open_entry(doing, entry, hold, &mut attempt, &mut missed).await? {
                return Ok(opened);
            }
        }
    }

    pub async fn open_entry(
        &self,
        doing: Doing<'_>,
        entry: Entry,
        hold: Option<Hold>,
        attempt: &mut u32,
        missed: &mut u64,
    ) -> Result<Option<Opened<<E::Disk as Disk>::File>>> {
        let file = file_name(doing.key(), &entry);
        match self.edge.on_disk(move |disk| disk.open(&file)).await {
            Ok((_, length)) if length != entry.size => {
                let what = format!("{length} bytes, not {}", entry.size);
                Err(self.quarantine(doing, &entry, what).await)
            }
            Ok((file, _)) => Ok(Some(Opened { entry, file, hold })),
            Err(error) => {
                drop(hold);
                self.after_failed_open(doing, &entry, error, attempt, missed).await?;
                Ok(None)
            }
        }
    }

    /// Looks up a key without changing anything.
    pub async fn peek(&self, doing: Doing<'_>) -> Result<Option<(Entry, Option<Micros>)>> {
        match self.ask(doing, Op::Peek { key: doing.key().to_vec() }).await? {
            Reply::Seen { entry, used } => Ok(Some((entry, used))),
            Reply::Missing | Reply::Busy { .. } => Ok(None),
            reply => Err(self.unexpected(doing, &reply)),
        }
    }
}
