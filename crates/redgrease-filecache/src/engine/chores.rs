//! Leases that are held, and what is done a little later: giving them back, saying that we live.

use std::sync::Arc;
use std::time::Duration;

use redgrease_cache_rules::Key;
use redgrease_cache_rules::name;
use redgrease_cache_rules::protocol::{Doomed, Op, Reply, Request, Token};

use super::{Doing, Engine};
use crate::edge::{Disk, Edge};
use crate::lock::lock;
use crate::session::Sessions;

/// What can be done a little later, together; whoever does it is woken.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    list: std::sync::Mutex<List>,
    pub added: event_listener::Event,
}

#[derive(Debug, Default)]
pub(crate) struct List {
    pub releases: Vec<(Key, Token)>,
    /// Leases whose request was not answered, and how many more times they are given back: the request may still be on its
    /// way, and come after what gave its lease back.
    pub late: Vec<(u8, Key, Token)>,
    /// Temporary files that nobody will finish.
    pub temporaries: Vec<String>,
    /// Files that are known to be gone.
    pub unlinked: Vec<(Key, u64)>,
    /// Contents whose commit was not answered, and until when to try again.
    pub commits: Vec<(Duration, Op)>,
    /// Files that were published by somebody who was cancelled before it heard whether they are content.
    pub doubtful: Vec<Doomed>,
}

/// How often chores are looked for at the end.
const MAX_CLOSING_ROUNDS: u32 = 8;

/// Most leases that wait to be given back, and most contents that wait to be committed.
const MAX_RELEASES: usize = 10_000;

/// How many times, a quarter of a lease apart, a lease is given back whose request was not answered.
const LATE_ROUNDS: u8 = 8;

/// From so many on, files that are gone are told to the index without waiting for an occasion.
const MANY_UNLINKED: usize = 256;

impl Chores {
    pub fn list(&self) -> std::sync::MutexGuard<'_, List> {
        lock(&self.list)
    }

    fn repeat_late_releases(&self) {
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

/// A lease that is held or wished for. Dropping it gives it back, however that comes about: an error, a panic, a cancelled
/// task.
#[derive(Debug)]
pub(crate) struct Hold {
    sessions: Arc<Sessions>,
    chores: Arc<Chores>,
    process: u32,
    key: Key,
    pub token: Token,
    /// Whether the index may know it.
    pub(super) known: bool,
    /// Whether a request for it is on its way, or was not answered.
    pub(super) unanswered: bool,
    pub(super) temporary: Option<String>,
}

impl Hold {
    /// Whether it ran out, or may have, at this time of the process's clock.
    pub fn is_lost(&self, now: Duration) -> bool {
        self.sessions.is_lost(self.token, now)
    }

    /// Begins anew in the present session.
    pub(super) fn exchange(&mut self) {
        self.sessions.give_back(self.token);
        self.token = self.sessions.token();
        self.known = false;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // After a fork the leases are still the parent's; and its other threads may have left locks locked.
        if self.process != std::process::id() {
            return;
        }
        self.sessions.give_back(self.token);
        if !self.known && self.temporary.is_none() {
            return;
        }
        let mut list = self.chores.list();
        if self.known && list.releases.len() < MAX_RELEASES {
            if self.unanswered && list.late.len() < MAX_RELEASES {
                list.late.push((LATE_ROUNDS, self.key.clone(), self.token));
            }
            list.releases.push((std::mem::take(&mut self.key), self.token));
        } else if self.known {
            // The index could not be told for long: the session's end says it for all of them.
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

/// Releases that are on their way; if they do not arrive, they are chores again.
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

impl<E: Edge> Engine<E> {
    pub(super) fn hold(&self, key: &[u8]) -> Hold {
        Hold {
            sessions: Arc::clone(&self.sessions),
            chores: Arc::clone(&self.chores),
            process: std::process::id(),
            key: key.to_vec(),
            token: self.sessions.token(),
            known: false,
            unanswered: false,
            temporary: None,
        }
    }

    pub(super) fn take_releases(&self, most: usize) -> Vec<(Key, Token)> {
        let mut list = self.chores.list();
        let most = list.releases.len().min(most);
        list.releases.drain(..most).collect()
    }

    pub(super) fn take_unlinked(&self) -> Vec<(Key, u64)> {
        let mut chores = self.chores.list();
        let most = chores.unlinked.len().min(1024);
        chores.unlinked.drain(..most).collect()
    }

    /// Tells the index what was put off; whether it could be reached.
    pub async fn do_chores(&self) -> bool {
        let releases = TakenReleases { list: self.take_releases(1024), chores: &self.chores };
        if !releases.list.is_empty() {
            let op = Op::Release { leases: releases.list.clone() };
            if self.ask(Doing::all("release"), op).await.is_err() {
                return false;
            }
            releases.are_done();
        }
        if self.chores.list().unlinked.len() >= MANY_UNLINKED {
            let _ = self.report_unlinked(Doing::all("unlink")).await;
        }
        let (temporaries, commits, doubtful) = {
            let mut list = self.chores.list();
            let List { temporaries, commits, doubtful, .. } = &mut *list;
            (std::mem::take(temporaries), std::mem::take(commits), std::mem::take(doubtful))
        };
        if !temporaries.is_empty() {
            self.edge
                .on_disk(move |disk| {
                    for temporary in temporaries {
                        // Those that stay are swept when the session is over.
                        let _ = disk.unlink_temporary(&format!("{temporary}{}", name::SIDECAR));
                        let _ = disk.unlink_temporary(&temporary);
                    }
                })
                .await;
        }
        for (until, op) in commits {
            let Op::Commit { key, entry, .. } = &op else { continue };
            match self.ask(Doing::to("commit", key), op.clone()).await {
                Ok(Reply::Committed(_)) => self.flights.wake(key),
                Ok(_) => self.forget_file(key, entry).await,
                Err(_) if self.edge.elapsed() < until => self.chores.list().commits.push((until, op)),
                Err(_) => {}
            }
        }
        if !doubtful.is_empty() {
            // Their leases were given back above. What cannot be asked now is found by the sweep.
            let file = |doomed: &Doomed| (doomed.key.clone(), doomed.entry.fence, doomed.entry.digest);
            let op = Op::Judge { files: doubtful.iter().map(file).collect() };
            if let Ok(Reply::Flags(flags)) = self.ask(Doing::all("judge"), op).await {
                let garbage = doubtful.into_iter().zip(flags).filter(|(_, garbage)| *garbage);
                for (doomed, _) in garbage {
                    self.forget_file(&doomed.key, &doomed.entry).await;
                }
            }
        }
        true
    }

    /// Does what was put off and ends the session if nothing belongs to it.
    pub async fn close(&self) {
        // While it is done, what was cancelled may add to it.
        for _ in 0..MAX_CLOSING_ROUNDS {
            if !self.do_chores().await || self.report_unlinked(Doing::all("close")).await.is_err() {
                // The index would not hear the rest either.
                return;
            }
            if !self.chores.are_waiting() {
                break;
            }
        }
        self.end_if_idle().await;
    }

    /// For a process that ends: waits a little for what was cancelled, and ends the session with all that belongs to it.
    pub async fn end(&self, patience: Duration) {
        let until = self.edge.elapsed() + patience;
        self.close().await;
        while self.sessions.holds_anything() && self.edge.elapsed() < until {
            self.edge.pause(self.chores.added.listen(), Duration::from_millis(5)).await;
            self.close().await;
        }
        if let Some(session) = self.sessions.end(self.edge.random()) {
            let _ = self.ask(Doing::all("close"), Op::Close { session }).await;
        }
    }

    /// Says that the session lives, if anything depends on it. Touches no disk, so that a slow one costs no lease.
    pub async fn renew(&self) {
        if let Some(session) = self.building.to_renew(self.edge.elapsed()) {
            let op = Op::Renew { session, unlinked: Vec::new() };
            // A builder that was thought dead hears it with its next step.
            let _ = self.edge.ask(Request { cache: self.cache, op }).await;
        }
        let Some(session) = self.sessions.to_renew() else { return };
        let (id, asked, unlinked) = (session.id, self.edge.elapsed(), self.take_unlinked());
        let op = Op::Renew { session, unlinked: unlinked.clone() };
        match self.edge.ask(Request { cache: self.cache, op }).await.map(|answer| answer.reply) {
            Ok(Reply::Done) => self.sessions.is_known(id, asked),
            Ok(Reply::SessionLost | Reply::Lost | Reply::Foreign { .. }) => {
                self.session_lost(Token { session: id, number: 0 });
            }
            Ok(_) | Err(_) => self.chores.list().unlinked.extend(unlinked),
        }
    }

    /// What is done each quarter of a lease, beside renewing it: gives back once more what may have been granted late, and
    /// ends the session if nothing belongs to it.
    pub async fn tidy_up(&self) {
        self.chores.repeat_late_releases();
        self.end_if_idle().await;
    }

    /// Ends the session if nothing belongs to it.
    async fn end_if_idle(&self) {
        if let Some(session) = self.sessions.end_if_idle(self.edge.random()) {
            let _ = self.ask(Doing::all("close"), Op::Close { session }).await;
        }
    }
}
