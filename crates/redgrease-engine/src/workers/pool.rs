//! The pool: how many workers there are, which sessions use them, and when another one is started.
//!
//! A session has its own worker while there are fewer than `workers_max`; one ready worker more than is in use
//! is kept as a spare. A worker whose session registered something stays with it; any other returns when the
//! session's last execution ended, and is replaced after `sessions_max` of them.
//!
//! The first session binds its worker to an [`Owner`] for the worker's life: code of one user changes the interpreter that
//! later sessions run in, so no session of another user, or of another environment, is ever served there. If no
//! further worker may be started, sessions of the same owner share one, an idle worker of another owner is ended in their
//! favour, and otherwise a session waits.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use redgrease_core::id::{SessionNo, WorkerNo};
use redgrease_core::python::PythonVersion;

/// The longest pause between two attempts to start a worker, in milliseconds.
pub const BACK_OFF_MS_MAX: u64 = 10_000;

const BACK_OFF_MS_MIN: u64 = 100;

/// Bounds of the pool.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Workers at any time.
    pub workers_max: usize,
    /// Sessions that one worker serves before it is replaced.
    pub sessions_max: u64,
}

/// The owner of the sessions that a worker serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The user that the sessions act as.
    pub user: String,
    /// The set of requirements; empty: none.
    pub environment: String,
    /// The interpreter; `None`: the default one.
    pub python: Option<PythonVersion>,
}

/// The answer to a lease request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// This one.
    Granted(WorkerNo),
    /// None is free: request it again when one is ready, released or gone.
    Wait,
}

#[derive(Debug, Default)]
struct Slot {
    /// The interpreter; `None`: the default one.
    python: Option<PythonVersion>,
    ready: bool,
    retired: bool,
    /// Set by the first lease.
    owner: Option<Owner>,
    sessions: BTreeSet<SessionNo>,
    served: u64,
    idle_since_ms: u64,
}

impl Slot {
    /// Whether it has served no session yet; it may be starting.
    fn is_unbound(&self) -> bool {
        self.owner.is_none() && !self.retired
    }
}

/// The state of the pool.
#[derive(Debug)]
pub struct Pool {
    limits: Limits,
    slots: BTreeMap<WorkerNo, Slot>,
    next: u64,
    failures: u32,
    start_not_before_ms: u64,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(limits: Limits) -> Pool {
        Pool { limits, slots: BTreeMap::new(), next: 1, failures: 0, start_not_before_ms: 0 }
    }

    /// Sessions that a worker serves, and sessions that were leased to it.
    #[must_use]
    pub fn counts(&self, worker: WorkerNo) -> (u64, u64) {
        self.slots.get(&worker).map_or((0, 0), |slot| (slot.sessions.len() as u64, slot.served))
    }

    /// Number of workers, starting ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no worker at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Failed starts since the last worker that became ready.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The workers to start now, with their interpreters, when sessions that need these interpreters have none; they count
    /// as starting from here on.
    pub fn starts(&mut self, waiting: &[Option<PythonVersion>], now_ms: u64) -> Vec<(WorkerNo, Option<PythonVersion>)> {
        if now_ms < self.start_not_before_ms {
            return Vec::new();
        }
        // Bound idle workers cannot serve the waiting sessions: they would have been leased. One without requirements
        // is as good a spare as an unbound one.
        let idle = |slot: &Slot| slot.sessions.is_empty() && !slot.retired;
        let plain = |slot: &Slot| slot.owner.as_ref().is_some_and(|owner| owner.environment.is_empty());
        let has_spare = self.slots.values().any(|slot| slot.python.is_none() && idle(slot) && plain(slot));
        let spare = (!has_spare).then_some(None);
        let mut unbound: BTreeMap<Option<PythonVersion>, usize> = BTreeMap::new();
        for slot in self.slots.values().filter(|slot| slot.is_unbound()) {
            *unbound.entry(slot.python).or_default() += 1;
        }
        let mut wanted: Vec<Option<PythonVersion>> = waiting.iter().copied().chain(spare).collect();
        wanted.retain(|python| match unbound.get_mut(python) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        });
        // While starts fail, one attempt at a time is enough to learn whether they still do.
        let max = if self.failures > 0 { 1 } else { usize::MAX };
        let room = self.limits.workers_max.saturating_sub(self.slots.len());
        wanted.truncate(max.min(room));
        let starts: Vec<_> = wanted.into_iter().zip(self.next..).map(|(python, no)| (WorkerNo(no), python)).collect();
        self.next += starts.len() as u64;
        for (worker, python) in &starts {
            self.slots.insert(*worker, Slot { python: *python, ..Slot::default() });
        }
        starts
    }

    /// If starting is deferred after failures: the time at which to call [`Pool::starts`] again.
    #[must_use]
    pub fn retry_at_ms(&self, now_ms: u64) -> Option<u64> {
        (self.start_not_before_ms > now_ms).then_some(self.start_not_before_ms)
    }

    /// A worker finished its handshake.
    pub fn ready(&mut self, worker: WorkerNo) {
        if let Some(slot) = self.slots.get_mut(&worker) {
            slot.ready = true;
            self.failures = 0;
            self.start_not_before_ms = 0;
        }
    }

    /// A worker is about to end: it is not leased any more.
    pub fn retire(&mut self, worker: WorkerNo) {
        if let Some(slot) = self.slots.get_mut(&worker) {
            slot.retired = true;
        }
    }

    /// A worker has ended; returns its sessions.
    pub fn gone(&mut self, worker: WorkerNo, now_ms: u64) -> Vec<SessionNo> {
        let Some(slot) = self.slots.remove(&worker) else { return Vec::new() };
        if !slot.ready {
            let pause = BACK_OFF_MS_MIN.saturating_mul(1 << self.failures.min(10)).min(BACK_OFF_MS_MAX);
            self.failures += 1;
            self.start_not_before_ms = now_ms + pause;
        }
        slot.sessions.into_iter().collect()
    }

    /// A session of `owner` requests a worker.
    pub fn lease(&mut self, session: SessionNo, owner: &Owner) -> Lease {
        let free = |slot: &&Slot| slot.ready && !slot.retired && slot.sessions.is_empty();
        let fits = |slot: &&Slot| slot.python == owner.python && slot.owner.as_ref().is_none_or(|bound| bound == owner);
        // A worker of this owner first: its modules are loaded.
        let best = self
            .slots
            .iter()
            .filter(|(_, slot)| free(slot) && fits(slot))
            .min_by_key(|(_, slot)| (slot.owner.is_none(), core::cmp::Reverse(slot.served)))
            .map(|(worker, _)| *worker);
        let best = best.or_else(|| self.shared(owner));
        match best.and_then(|worker| Some((worker, self.slots.get_mut(&worker)?))) {
            None => Lease::Wait,
            Some((worker, slot)) => {
                slot.owner.get_or_insert_with(|| owner.clone());
                slot.sessions.insert(session);
                slot.served += 1;
                Lease::Granted(worker)
            }
        }
    }

    /// The owner's worker with the fewest sessions, when no further worker may be started.
    fn shared(&self, owner: &Owner) -> Option<WorkerNo> {
        if self.slots.len() < self.limits.workers_max || self.slots.values().any(|slot| !slot.ready) {
            return None;
        }
        self.slots
            .iter()
            .filter(|(_, slot)| !slot.retired && slot.owner.as_ref() == Some(owner))
            .min_by_key(|(_, slot)| slot.sessions.len())
            .map(|(worker, _)| *worker)
    }

    /// The idle worker to end so that one with the interpreter `python` can be started for the last of `waiting` sessions
    /// that need it: it can serve none of them, no further worker may be started, and those that are starting are for the
    /// others.
    #[must_use]
    pub fn evictable(&self, python: Option<PythonVersion>, waiting: usize) -> Option<WorkerNo> {
        let unbound = self.slots.values().filter(|slot| slot.python == python && slot.is_unbound()).count();
        if self.slots.len() < self.limits.workers_max || unbound >= waiting {
            return None;
        }
        let useless = |slot: &Slot| slot.owner.is_some() || slot.python != python;
        self.slots
            .iter()
            .filter(|(_, slot)| slot.ready && slot.sessions.is_empty() && useless(slot))
            .min_by_key(|(_, slot)| (slot.owner.is_none(), slot.idle_since_ms))
            .map(|(worker, _)| *worker)
    }

    /// A surplus worker: idle for `idle_ms`, while another one is kept as a spare.
    #[must_use]
    pub fn superfluous(&self, now_ms: u64, idle_ms: u64) -> Option<WorkerNo> {
        if self.spare_count() <= 1 {
            return None;
        }
        let idle = |slot: &Slot| slot.ready && slot.sessions.is_empty() && slot.idle_since_ms + idle_ms <= now_ms;
        self.slots
            .iter()
            .filter(|(_, slot)| idle(slot))
            // An unbound worker with the default interpreter can serve anybody.
            .min_by_key(|(_, slot)| (slot.python.is_none() && slot.owner.is_none(), slot.idle_since_ms))
            .map(|(worker, _)| *worker)
    }

    /// A session ended; returns its worker if that must be replaced now.
    pub fn release(&mut self, session: SessionNo, now_ms: u64) -> Option<WorkerNo> {
        let (worker, slot) = self.slots.iter_mut().find(|(_, slot)| slot.sessions.contains(&session))?;
        slot.sessions.remove(&session);
        slot.idle_since_ms = now_ms;
        if slot.sessions.is_empty() && slot.served >= self.limits.sessions_max {
            slot.retired = true;
            return Some(*worker);
        }
        None
    }

    /// Code of a worker was interrupted: it may have left something half done, such as an import. The worker is replaced
    /// when its sessions have ended.
    pub fn wear_out(&mut self, worker: WorkerNo) {
        if let Some(slot) = self.slots.get_mut(&worker) {
            slot.served = self.limits.sessions_max;
        }
    }

    /// The interpreter of a worker; `None`: the default one.
    #[must_use]
    pub fn python(&self, worker: WorkerNo) -> Option<PythonVersion> {
        self.slots.get(&worker).and_then(|slot| slot.python)
    }

    /// Whether no session uses a worker.
    #[must_use]
    pub fn is_unused(&self, worker: WorkerNo) -> bool {
        self.slots.get(&worker).is_some_and(|slot| slot.sessions.is_empty())
    }

    /// Workers that are shared by several sessions.
    #[must_use]
    pub fn shared_count(&self) -> usize {
        self.slots.values().filter(|slot| slot.sessions.len() > 1).count()
    }

    /// Workers without a session.
    #[must_use]
    pub fn spare_count(&self) -> usize {
        self.slots.values().filter(|slot| slot.ready && slot.sessions.is_empty()).count()
    }

    /// The sessions of each worker.
    #[cfg(feature = "simulation")]
    pub(crate) fn leases(&self) -> impl Iterator<Item = (WorkerNo, &BTreeSet<SessionNo>)> {
        self.slots.iter().map(|(worker, slot)| (*worker, &slot.sessions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn pool(workers_max: usize) -> Pool {
        Pool::new(Limits { workers_max, sessions_max: 3 })
    }

    fn owner(user: &str, environment: &str) -> Owner {
        Owner { user: user.into(), environment: environment.into(), python: None }
    }

    fn with(environment: &str) -> Owner {
        owner("default", environment)
    }

    fn start(pool: &mut Pool, waiting: usize) -> Vec<WorkerNo> {
        let started: Vec<WorkerNo> =
            pool.starts(&vec![None; waiting], 0).into_iter().map(|(worker, _)| worker).collect();
        for worker in &started {
            pool.ready(*worker);
        }
        started
    }

    #[test]
    fn a_worker_that_is_about_to_end_is_not_leased() {
        let mut pool = Pool::new(Limits { workers_max: 3, sessions_max: 10 });
        let [(worker, None)] = pool.starts(&[], 0)[..] else { panic!("one spare is started") };
        pool.ready(worker);
        pool.retire(worker);
        let owner = Owner { user: "u".into(), environment: String::new(), python: None };
        assert_eq!(pool.lease(SessionNo(1), &owner), Lease::Wait);
        assert_eq!(pool.starts(&[None; 1], 0).len(), 2);
    }

    #[test]
    fn a_session_gets_a_worker_with_its_interpreter_only() {
        let mut pool = pool(2);
        let other = PythonVersion::parse("3.9");
        let spare = start(&mut pool, 0)[0];
        let owner = Owner { python: other, ..with("") };
        assert_eq!(pool.lease(SessionNo(1), &owner), Lease::Wait);
        let [(worker, python)] = pool.starts(&[other], 0)[..] else { panic!("one is started beside the spare") };
        assert_eq!((python, pool.python(worker), pool.python(spare)), (other, other, None));
        assert!(pool.starts(&[other], 0).is_empty());
        pool.ready(worker);
        assert_eq!(pool.lease(SessionNo(1), &owner), Lease::Granted(worker));
        assert_eq!(pool.lease(SessionNo(2), &with("")), Lease::Granted(spare));
    }

    #[test]
    fn an_idle_worker_of_another_interpreter_is_ended_for_a_session() {
        let mut pool = pool(1);
        let other = PythonVersion::parse("3.9");
        let spare = start(&mut pool, 0)[0];
        assert_eq!((pool.evictable(None, 1), pool.evictable(other, 1)), (None, Some(spare)));
        pool.gone(spare, 0);
        assert_eq!(pool.starts(&[other], 0).into_iter().map(|(_, python)| python).collect::<Vec<_>>(), [other]);
    }

    #[test]
    fn of_idle_workers_the_one_that_serves_anybody_is_kept() {
        let mut pool = pool(4);
        let first = start(&mut pool, 2)[0];
        assert_eq!(pool.lease(SessionNo(1), &with("numpy")), Lease::Granted(first));
        assert_eq!(pool.release(SessionNo(1), 1000), None);
        assert_eq!(pool.superfluous(9000, 3000), Some(first));
    }

    #[test]
    fn one_spare_is_kept_beside_those_in_use() {
        let mut pool = pool(8);
        let first = start(&mut pool, 0);
        assert_eq!(first.len(), 1);
        assert!(pool.starts(&[None; 0], 0).is_empty());
        assert_eq!(pool.lease(SessionNo(1), &with("")), Lease::Granted(first[0]));
        assert_eq!(pool.starts(&[None; 0], 0).len(), 1);
    }

    #[test]
    fn a_released_worker_is_used_again_until_it_has_served_its_share() {
        let mut pool = pool(8);
        let worker = start(&mut pool, 0)[0];
        for session in 1..=3 {
            assert_eq!(pool.lease(SessionNo(session), &with("")), Lease::Granted(worker));
            let retired = pool.release(SessionNo(session), 0);
            assert_eq!(retired, (session == 3).then_some(worker));
        }
        assert_eq!(pool.lease(SessionNo(4), &with("")), Lease::Wait);
    }

    #[test]
    fn environments_never_share_a_worker() {
        let mut pool = pool(2);
        start(&mut pool, 1);
        assert!(matches!(pool.lease(SessionNo(1), &with("requests")), Lease::Granted(_)));
        assert!(matches!(pool.lease(SessionNo(2), &with("numpy")), Lease::Granted(_)));
        assert_eq!(pool.lease(SessionNo(3), &with("")), Lease::Wait);
        assert_eq!(pool.evictable(None, 1), None);
        pool.release(SessionNo(1), 0);
        assert_eq!(pool.lease(SessionNo(3), &with("")), Lease::Wait);
        assert!(pool.evictable(None, 1).is_some());
    }

    #[test]
    fn a_worker_serves_one_user_in_its_life() {
        let mut pool = pool(8);
        let first = start(&mut pool, 0)[0];
        assert_eq!(pool.lease(SessionNo(1), &owner("a", "")), Lease::Granted(first));
        pool.release(SessionNo(1), 0);
        assert_eq!(pool.lease(SessionNo(2), &owner("b", "")), Lease::Wait);
        let second = start(&mut pool, 1)[0];
        assert_eq!(pool.lease(SessionNo(2), &owner("b", "")), Lease::Granted(second));
        assert_eq!(pool.lease(SessionNo(3), &owner("a", "")), Lease::Granted(first));
    }

    #[test]
    fn a_worker_that_served_a_session_without_requirements_serves_none_with_them() {
        let mut pool = pool(8);
        start(&mut pool, 0);
        pool.lease(SessionNo(1), &with(""));
        pool.release(SessionNo(1), 0);
        assert_eq!(pool.lease(SessionNo(2), &with("numpy")), Lease::Wait);
        assert_eq!(pool.starts(&[None; 1], 0).len(), 1);
    }

    #[test]
    fn users_do_not_share_a_worker_when_no_further_one_may_be_started() {
        let mut pool = pool(1);
        let worker = start(&mut pool, 1)[0];
        assert_eq!(pool.lease(SessionNo(1), &owner("a", "")), Lease::Granted(worker));
        assert_eq!(pool.lease(SessionNo(2), &owner("b", "")), Lease::Wait);
        assert_eq!(pool.evictable(None, 1), None);
        pool.release(SessionNo(1), 0);
        assert_eq!(pool.lease(SessionNo(2), &owner("b", "")), Lease::Wait);
        assert_eq!(pool.evictable(None, 1), Some(worker));
        pool.gone(worker, 0);
        assert_eq!((pool.evictable(None, 1), start(&mut pool, 1).len()), (None, 1));
        assert!(matches!(pool.lease(SessionNo(2), &owner("b", "")), Lease::Granted(_)));
    }

    #[test]
    fn a_worker_that_is_starting_for_a_session_evicts_no_other() {
        let mut pool = pool(2);
        let worker = start(&mut pool, 0)[0];
        pool.lease(SessionNo(1), &owner("a", ""));
        pool.release(SessionNo(1), 0);
        assert_eq!(pool.starts(&[None; 1], 0).len(), 1);
        assert_eq!(pool.evictable(None, 1), None);
        assert_eq!(pool.evictable(None, 2), Some(worker));
    }

    #[test]
    fn sessions_share_only_when_no_further_worker_may_be_started() {
        let mut pool = pool(2);
        let workers = start(&mut pool, 1);
        assert_eq!(workers.len(), 2);
        let mut used = BTreeSet::new();
        for session in 1..=2 {
            let Lease::Granted(worker) = pool.lease(SessionNo(session), &with("")) else { panic!("no worker") };
            used.insert(worker);
        }
        assert_eq!((used.len(), pool.shared_count()), (2, 0));
        assert!(matches!(pool.lease(SessionNo(3), &with("")), Lease::Granted(_)));
        assert_eq!(pool.shared_count(), 1);
    }

    #[test]
    fn failing_starts_back_off_up_to_a_limit_and_one_success_ends_it() {
        let mut pool = pool(4);
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let started = pool.starts(&[None; 2], now);
            for (worker, _) in started {
                pool.gone(worker, now);
            }
            let retry = pool.retry_at_ms(now).expect("a pause after a failure");
            assert!(pool.starts(&[None; 2], retry - 1).is_empty());
            pauses.push(retry - now);
            now = retry;
        }
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses.last(), Some(&BACK_OFF_MS_MAX));
        let (worker, _) = pool.starts(&[None; 1], now)[0];
        pool.ready(worker);
        assert_eq!((pool.failures(), pool.retry_at_ms(now)), (0, None));
    }

    #[test]
    fn idle_workers_go_after_a_while_but_one() {
        let mut pool = pool(8);
        start(&mut pool, 3);
        assert_eq!((pool.len(), pool.superfluous(99, 100)), (4, None));
        let mut dismissed = 0;
        while let Some(worker) = pool.superfluous(100, 100) {
            pool.gone(worker, 100);
            dismissed += 1;
        }
        assert_eq!((dismissed, pool.spare_count()), (3, 1));
    }

    #[test]
    fn idle_workers_of_another_environment_do_not_keep_a_session_waiting() {
        let mut pool = pool(8);
        start(&mut pool, 1);
        for session in 1..=2 {
            pool.lease(SessionNo(session), &with("numpy"));
            pool.release(SessionNo(session), 0);
        }
        pool.lease(SessionNo(3), &with("requests"));
        assert_eq!(pool.lease(SessionNo(4), &with("pandas")), Lease::Wait);
        assert!(!pool.starts(&[None; 1], 0).is_empty());
    }

    #[test]
    fn a_dead_worker_names_its_sessions() {
        let mut pool = pool(4);
        let worker = start(&mut pool, 0)[0];
        pool.lease(SessionNo(7), &with(""));
        assert_eq!(pool.gone(worker, 0), [SessionNo(7)]);
        assert_eq!(pool.failures(), 0);
    }
}
