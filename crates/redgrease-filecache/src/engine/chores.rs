//! Deferred work: releasing leases, unlinking, renewing the session.

use std::time::Duration;

use redgrease_cache_rules::Key;
use redgrease_cache_rules::name;
use redgrease_cache_rules::protocol::{Doomed, Op, Reply, Request, Token};

use super::hold::{Hold, List, MANY_UNLINKED, TakenReleases};
use super::{Doing, Engine};
use crate::edge::{Disk, Edge};

/// Pause between checks for remaining work at the end.
const MAX_CLOSING_ROUNDS: u32 = 8;

impl<E: Edge> Engine<E> {
    pub(super) fn hold(&self, key: &[u8]) -> Hold {
        Hold::new(&self.sessions, &self.chores, key)
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

    /// Sends deferred work to the index; returns whether the index was reached.
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
                        // Remaining ones are swept after the session has ended.
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
            // Their leases were released above. The sweep finds what cannot be requested now.
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

    /// Performs deferred work and ends the session if no lease belongs to it.
    pub async fn close(&self) {
        // Cancelled calls may add work meanwhile.
        for _ in 0..MAX_CLOSING_ROUNDS {
            if !self.do_chores().await || self.report_unlinked(Doing::all("close")).await.is_err() {
                // The index would not be reached for the rest either.
                return;
            }
            if !self.chores.are_waiting() {
                break;
            }
        }
        self.end_if_idle().await;
    }

    /// For a process that ends: waits briefly for cancelled calls, and ends the session with all its leases.
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

    /// Renews the session if any lease depends on it. Does not access the disk, so that a slow disk costs no lease.
    pub async fn renew(&self) {
        if let Some(session) = self.building.to_renew(self.edge.elapsed()) {
            let op = Op::Renew { session, unlinked: Vec::new() };
            // A builder that was considered dead learns it from its next step.
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

    /// Runs each quarter of a lease, in addition to the renewal: releases again what may have been granted late, and
    /// ends the session if no lease belongs to it.
    pub async fn tidy_up(&self) {
        self.chores.repeat_late_releases();
        self.end_if_idle().await;
    }

    /// Ends the session if no lease belongs to it.
    async fn end_if_idle(&self) {
        if let Some(session) = self.sessions.end_if_idle(self.edge.random()) {
            let _ = self.ask(Doing::all("close"), Op::Close { session }).await;
        }
    }
}
