//! Leases that are held, and the work that their end causes.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use event_listener::Event;
use redgrease_cache_rules::Key;
use redgrease_cache_rules::protocol::{Doomed, Op, Token};

use crate::lock::lock;
use crate::session::Sessions;

/// Work that is deferred and done in batches, by a background thread or task.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    list: Mutex<List>,
    pub added: Event,
}

#[derive(Debug, Default)]
pub(crate) struct List {
    pub releases: Vec<(Key, Token)>,
    /// Leases whose request was not answered, and how many more times they are released: the request may still be in
    /// transit, and arrive after the release.
    pub late: Vec<(u8, Key, Token)>,
    /// Temporary files that no writer will finish.
    pub temporaries: Vec<String>,
    /// Files that are known to be unlinked.
    pub unlinked: Vec<(Key, u64)>,
    /// Contents whose commit was not answered, and until when to retry it.
    pub commits: Vec<(Duration, Op)>,
    /// Files that were published by a call that was cancelled before it learned whether they are content.
    pub doubtful: Vec<Doomed>,
}

/// Maximum number of leases that wait to be released, and of contents that wait to be committed.
const MAX_RELEASES: usize = 10_000;

/// How many times, a quarter of a lease apart, a lease is released whose request was not answered.
const LATE_ROUNDS: u8 = 8;

/// From this number on, unlinked files are reported to the index without waiting for another request.
pub(super) const MANY_UNLINKED: usize = 256;

impl Chores {
    pub fn list(&self) -> MutexGuard<'_, List> {
        lock(&self.list)
    }

    pub(super) fn repeat_late_releases(&self) {
        let mut list = self.list();
        let List { late, releases, .. } = &mut *list;
        late.retain_mut(|(rounds, key, token)| {
            *rounds -= 1;
            if releases.len() < MAX_RELEASES {
                releases.push((key.clone(), *token));
            }
            *rounds > 0
        });
    }

    pub fn are_waiting(&self) -> bool {
        let list = self.list();
        !(list.releases.is_empty()
            && list.temporaries.is_empty()
            && list.commits.is_empty()
            && list.doubtful.is_empty()
            && list.unlinked.len() < MANY_UNLINKED)
    }
}

/// Whether a lease is in the index, as far as this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InIndex {
    No,
    /// A request for it is in transit, or was not answered: the index may grant it at any time.
    Asked,
    Yes,
}

/// A lease that is held or requested. Dropping it releases it, also after an error, a panic or the cancellation of a
/// task.
#[derive(Debug)]
pub(crate) struct Hold {
    sessions: Arc<Sessions>,
    chores: Arc<Chores>,
    process: u32,
    key: Key,
    pub token: Token,
    pub(super) in_index: InIndex,
    pub(super) temporary: Option<String>,
}

impl Hold {
    /// A new lease of this key; not known to the index yet.
    pub(super) fn new(sessions: &Arc<Sessions>, chores: &Arc<Chores>, key: &[u8]) -> Self {
        Self {
            sessions: Arc::clone(sessions),
            chores: Arc::clone(chores),
            process: std::process::id(),
            key: key.to_vec(),
            token: sessions.token(),
            in_index: InIndex::No,
            temporary: None,
        }
    }

    /// Whether it has expired, or may have, at this time of the process's clock.
    pub fn is_lost(&self, now: Duration) -> bool {
        self.sessions.is_lost(self.token, now)
    }

    /// Restarts it in the current session.
    pub(super) fn exchange(&mut self) {
        self.sessions.release_token(self.token);
        self.token = self.sessions.token();
        self.in_index = InIndex::No;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // After a fork the leases belong to the parent, and other threads may have left locks locked.
        if self.process != std::process::id() {
            return;
        }
        self.sessions.release_token(self.token);
        let is_known = self.in_index != InIndex::No;
        if !is_known && self.temporary.is_none() {
            return;
        }
        let mut list = self.chores.list();
        if is_known && list.releases.len() < MAX_RELEASES {
            if self.in_index == InIndex::Asked && list.late.len() < MAX_RELEASES {
                list.late.push((LATE_ROUNDS, self.key.clone(), self.token));
            }
            list.releases.push((std::mem::take(&mut self.key), self.token));
        } else if is_known {
            // The index was unreachable for long: the end of the session ends them all.
            list.releases.clear();
            list.late.clear();
            self.sessions.lost(self.token.session, getrandom::u64().unwrap_or_else(|_| fastrand::u64(..)));
        }
        list.temporaries.extend(self.temporary.take());
        drop(list);
        self.chores.added.notify(usize::MAX);
    }
}

/// A published file, until it is known whether it is content.
pub(super) struct Doubt<'a> {
    pub(super) chores: &'a Chores,
    pub(super) file: Option<Doomed>,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            self.chores.list().doubtful.push(file);
            self.chores.added.notify(usize::MAX);
        }
    }
}

/// Releases in transit; if they do not arrive, they are deferred work again.
pub(super) struct TakenReleases<'a> {
    pub(super) list: Vec<(Key, Token)>,
    pub(super) chores: &'a Chores,
}

impl TakenReleases<'_> {
    pub(super) fn are_done(mut self) {
        self.list.clear();
    }
}

impl Drop for TakenReleases<'_> {
    fn drop(&mut self) {
        if !self.list.is_empty() {
            self.chores.list().releases.append(&mut self.list);
        }
    }
}
