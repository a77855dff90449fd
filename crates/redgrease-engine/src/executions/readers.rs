//! Executions whose reader has more to read, in turn.

use redgrease_core::id::ExecutionNo;

use crate::prelude::*;

/// The readers: those that may read, and those whose worker has enough unconsumed records.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    ready: VecDeque<ExecutionNo>,
    blocked: BTreeSet<ExecutionNo>,
}

impl Readers {
    /// Adds a reader.
    pub(crate) fn add(&mut self, execution: ExecutionNo) {
        self.ready.push_back(execution);
    }

    /// Whether a reader may read.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the next one.
    pub(crate) fn pop(&mut self) -> Option<ExecutionNo> {
        self.ready.pop_front()
    }

    /// A reader has to wait for its worker.
    pub(crate) fn block(&mut self, execution: ExecutionNo) {
        self.blocked.insert(execution);
    }

    /// Waiting readers for which `room` is true may read again.
    pub(crate) fn unblock(&mut self, mut room: impl FnMut(ExecutionNo) -> bool) {
        if self.blocked.is_empty() {
            return;
        }
        let free: Vec<ExecutionNo> = self.blocked.iter().copied().filter(|execution| room(*execution)).collect();
        for execution in free {
            self.blocked.remove(&execution);
            self.ready.push_back(execution);
        }
    }

    /// Removes a reader; returns whether it existed.
    pub(crate) fn remove(&mut self, execution: ExecutionNo) -> bool {
        let before = self.ready.len();
        self.ready.retain(|other| *other != execution);
        self.blocked.remove(&execution) || self.ready.len() < before
    }

    /// Whether a reader may read.
    #[cfg(feature = "simulation")]
    pub(crate) fn is_ready(&self, execution: ExecutionNo) -> bool {
        self.ready.contains(&execution)
    }

    /// The readers that wait for their workers.
    #[cfg(feature = "simulation")]
    pub(crate) fn blocked(&self) -> impl Iterator<Item = ExecutionNo> {
        self.blocked.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_reader_comes_back_behind_the_others() {
        let mut readers = Readers::default();
        let [one, two] = [ExecutionNo(1), ExecutionNo(2)];
        readers.add(one);
        readers.add(two);
        let first = readers.pop().unwrap();
        readers.block(first);
        readers.unblock(|_| false);
        assert_eq!((readers.pop(), readers.has_ready()), (Some(two), false));
        readers.unblock(|execution| execution == one);
        assert!(readers.has_ready() && readers.remove(one) && !readers.remove(one));
        readers.block(two);
        assert!(readers.remove(two) && !readers.has_ready());
    }
}
