//! Sync executions of events: when they run.
//!
//! No user code runs inside a notification, nor inside the server's expire or evict cycle. A sync function runs when the
//! command that fired it has ended: after the command of the function that is running, as a job of the server, or, where
//! the server has no jobs, before the next command of any client and before the loop sleeps.

use redgrease_core::id::ExecutionNo;

use crate::events::pending::KeyEvent;
use crate::id::{Counter, JobNo};
use crate::limits::SYNC_WAITING_MAX;
use crate::prelude::*;

/// A sync execution that waits for the end of the command that fired it.
#[derive(Debug)]
pub(crate) enum SyncRun {
    /// For a key event.
    Key(KeyEvent),
    /// For the queued executions over streams.
    Streams,
}

/// Whether an event may come from the server's own iteration over its keys: its expire or evict cycle, or the removal
/// of a hash slot. No user code may run inside one, and a job after a notification would run inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    /// A command fired it.
    No,
    /// The server's own iteration may have fired it.
    Possible,
}

/// The sync executions that wait or run.
#[derive(Debug, Default)]
pub(crate) struct SyncEvents {
    /// Key events that run before the next command, or before the loop sleeps.
    due: VecDeque<KeyEvent>,
    /// Key events of the server's own iterations, for which no client waits.
    walks: VecDeque<KeyEvent>,
    /// Jobs of the server, by number.
    jobs: BTreeMap<JobNo, SyncRun>,
    counter: Counter,
    /// Executions over streams that wait for their turn.
    pub(crate) streams: VecDeque<ExecutionNo>,
    /// Running sync functions of key events: their writes trigger no other sync functions of key events.
    pub(crate) keys_running: u32,
    /// A sync function over a stream is running: likewise for stream registrations.
    pub(crate) streams_running: bool,
    /// The server removed a field of a hash that had expired, in this turn of the loop.
    field_expired: bool,
}

impl SyncEvents {
    /// A turn of the loop begins.
    pub(crate) fn begin_turn(&mut self) {
        self.field_expired = false;
    }

    /// The origin of an event; records what later events need.
    pub(crate) fn walk_of(&mut self, event: &str, cluster: bool) -> Walk {
        match event {
            "hexpired" => {
                self.field_expired = true;
                Walk::Possible
            }
            "expired" | "evicted" => Walk::Possible,
            // A hash whose last field expired, or keys of a slot that moved to another shard.
            "del" if self.field_expired || cluster => Walk::Possible,
            _ => Walk::No,
        }
    }

    /// Queues a run as a job of the server.
    pub(crate) fn add_job(&mut self, run: SyncRun) -> JobNo {
        let number = JobNo(self.counter.next());
        self.jobs.insert(number, run);
        number
    }

    /// Takes a job.
    pub(crate) fn take_job(&mut self, number: JobNo) -> Option<SyncRun> {
        self.jobs.remove(&number)
    }

    /// Queues a key event until no command is running; returns whether it fitted.
    pub(crate) fn push(&mut self, event: KeyEvent, walk: Walk) -> bool {
        let queue = if walk == Walk::Possible { &mut self.walks } else { &mut self.due };
        let fits = queue.len() < SYNC_WAITING_MAX;
        if fits {
            queue.push_back(event);
        }
        fits
    }

    /// Whether commands fired executions that have not run.
    pub(crate) fn owes_runs(&self) -> bool {
        !self.due.is_empty() || (!self.streams.is_empty() && !self.streams_running)
    }

    /// The next key event that a command fired.
    pub(crate) fn pop_due(&mut self) -> Option<KeyEvent> {
        self.due.pop_front()
    }

    /// The next key event of the server's own iterations.
    pub(crate) fn pop_walk(&mut self) -> Option<KeyEvent> {
        self.walks.pop_front()
    }

    /// Whether events of the server's own iterations wait.
    pub(crate) fn has_walks(&self) -> bool {
        !self.walks.is_empty()
    }

    /// Numbers of the jobs, of the events that commands fired, and of those of the server's own iterations.
    #[cfg(feature = "simulation")]
    pub(crate) fn counts(&self) -> [usize; 3] {
        [self.jobs.len(), self.due.len(), self.walks.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redgrease_core::id::RegistrationNo;

    fn event() -> KeyEvent {
        KeyEvent { registration: RegistrationNo(1), key: Box::from(*b"k"), event: "set".into() }
    }

    #[test]
    fn a_del_behind_an_expired_field_belongs_to_the_walk_until_the_turn_ends() {
        let mut sync = SyncEvents::default();
        assert_eq!(sync.walk_of("del", false), Walk::No);
        assert_eq!(sync.walk_of("del", true), Walk::Possible);
        assert_eq!(sync.walk_of("hexpired", false), Walk::Possible);
        assert_eq!(sync.walk_of("del", false), Walk::Possible);
        sync.begin_turn();
        assert_eq!(sync.walk_of("del", false), Walk::No);
        assert_eq!(sync.walk_of("evicted", false), Walk::Possible);
    }

    #[test]
    fn events_that_wait_are_bounded() {
        let mut sync = SyncEvents::default();
        assert!((0..SYNC_WAITING_MAX).all(|_| sync.push(event(), Walk::No)));
        assert!(!sync.push(event(), Walk::No));
        assert!(sync.push(event(), Walk::Possible));
        assert!(sync.owes_runs() && sync.has_walks());
    }

    #[test]
    fn a_job_is_taken_once() {
        let mut sync = SyncEvents::default();
        let job = sync.add_job(SyncRun::Key(event()));
        assert!(sync.take_job(job).is_some() && sync.take_job(job).is_none());
    }
}
