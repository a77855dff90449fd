//! Sync executions that clients triggered: they run at the end of a turn, in groups. A group is sent to its worker in one go, which
//! runs it in order; the main thread waits for one after the other.

use redgrease_core::id::ExecutionNo;

use crate::limits::{SYNC_GROUP_MAX, SYNC_GROUP_MS};
use crate::prelude::*;

/// The executions that wait, and the group that is being run.
#[derive(Debug)]
pub(crate) struct SyncTriggers {
    waiting: VecDeque<ExecutionNo>,
    /// The group that was sent; the main thread waits for the first one.
    sent: VecDeque<ExecutionNo>,
    sent_ms: u64,
    /// Executions in the next group at most.
    size: usize,
}

impl Default for SyncTriggers {
    fn default() -> SyncTriggers {
        SyncTriggers { waiting: VecDeque::new(), sent: VecDeque::new(), sent_ms: 0, size: 1 }
    }
}

impl SyncTriggers {
    /// Adds one behind those that wait.
    pub(crate) fn push(&mut self, execution: ExecutionNo) {
        self.waiting.push_back(execution);
    }

    /// Whether there is something to be run.
    pub(crate) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.sent.is_empty()
    }

    /// The first one that waits.
    pub(crate) fn next(&mut self) -> Option<ExecutionNo> {
        self.waiting.pop_front()
    }

    /// Puts one back that does not belong to the group.
    pub(crate) fn put_back(&mut self, execution: ExecutionNo) {
        self.waiting.push_front(execution);
    }

    /// Whether a group is being run.
    pub(crate) fn is_running(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Whether the group takes one more.
    pub(crate) fn has_space(&self) -> bool {
        self.sent.len() < self.size
    }

    /// Adds one to the group.
    pub(crate) fn add_sent(&mut self, execution: ExecutionNo, now_ms: u64) {
        if self.sent.is_empty() {
            self.sent_ms = now_ms;
        }
        self.sent.push_back(execution);
    }

    /// The one that the main thread waits for, or is about to wait for.
    pub(crate) fn first_sent(&self) -> Option<ExecutionNo> {
        self.sent.front().copied()
    }

    /// The first one has ended, or is not run in this group.
    pub(crate) fn pop_sent(&mut self, now_ms: u64) {
        self.sent.pop_front();
        if self.sent.is_empty() {
            self.size = next_size(self.size, now_ms.saturating_sub(self.sent_ms));
        }
    }

    /// Takes those out of the group that their worker has not begun: it begins one when it has ended the one before.
    pub(crate) fn take_not_begun(&mut self) -> Vec<ExecutionNo> {
        if self.sent.is_empty() { Vec::new() } else { self.sent.drain(1..).collect() }
    }

    /// All that wait or are being run.
    #[cfg(feature = "simulation")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = ExecutionNo> {
        self.waiting.iter().chain(&self.sent).copied()
    }
}

/// The size of the group behind one of that size that took so long: as many as take about [`SYNC_GROUP_MS`].
fn next_size(size: usize, took_ms: u64) -> usize {
    if took_ms > SYNC_GROUP_MS {
        (size as u64 * SYNC_GROUP_MS / took_ms).max(1) as usize
    } else if took_ms < SYNC_GROUP_MS / 2 {
        (size * 2).min(SYNC_GROUP_MAX)
    } else {
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_grow_while_they_are_quick_and_shrink_when_they_are_not() {
        let mut size = 1;
        for expected in [2, 4, 8, 16, 32, 64, 128, 256, 256] {
            size = next_size(size, 0);
            assert_eq!(size, expected);
        }
        assert_eq!(next_size(256, 3), 256);
        assert_eq!(next_size(256, 50), 25);
        assert_eq!(next_size(1, 5000), 1);
    }

    #[test]
    fn what_was_not_begun_is_all_but_the_first() {
        let mut triggers = SyncTriggers::default();
        assert!(triggers.take_not_begun().is_empty() && !triggers.has_work());
        for number in [1, 2, 3] {
            triggers.add_sent(ExecutionNo(number), 0);
        }
        assert_eq!(triggers.take_not_begun(), [ExecutionNo(2), ExecutionNo(3)]);
        assert_eq!(triggers.first_sent(), Some(ExecutionNo(1)));
        assert!(triggers.is_running() && !triggers.has_space());
        triggers.pop_sent(0);
        assert!(!triggers.has_work() && triggers.has_space());
    }
}
