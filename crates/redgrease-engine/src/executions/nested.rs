//! Outcomes of executions that user code started and did not wait for yet.
//!
//! `run()` in a function returns an awaitable object, and the execution may end before it is awaited. The newest outcomes are
//! kept, bounded in number and size.

use redgrease_core::id::ExecutionNo;

use crate::executions::outcome::Outcome;
use crate::limits::{NESTED_BYTES_MAX, NESTED_MAX};
use crate::prelude::*;

/// The outcomes that are kept.
#[derive(Debug, Default)]
pub(crate) struct Nested {
    outcomes: BTreeMap<ExecutionNo, Outcome>,
    order: VecDeque<ExecutionNo>,
    bytes: usize,
}

fn size(outcome: &Outcome) -> usize {
    outcome.results.len() + outcome.errors.iter().map(Vec::len).sum::<usize>()
}

impl Nested {
    /// Keeps an outcome; the oldest ones are removed if there are too many.
    pub(crate) fn keep(&mut self, number: ExecutionNo, outcome: Outcome) {
        self.bytes += size(&outcome);
        self.outcomes.insert(number, outcome);
        self.order.push_back(number);
        while self.order.len() > NESTED_MAX || self.bytes > NESTED_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.forget(oldest);
        }
    }

    /// Takes the outcome of an execution.
    pub(crate) fn take(&mut self, number: ExecutionNo) -> Option<Outcome> {
        self.order.retain(|other| *other != number);
        self.forget(number)
    }

    fn forget(&mut self, number: ExecutionNo) -> Option<Outcome> {
        let outcome = self.outcomes.remove(&number)?;
        self.bytes -= size(&outcome);
        Some(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executions::execution::Status;
    use redgrease_core::render::Style;

    fn outcome(len: usize) -> Outcome {
        Outcome { status: Status::Done, results: vec![0; len], errors: Vec::new(), style: Style::Compat }
    }

    #[test]
    fn the_oldest_outcomes_are_removed() {
        let mut nested = Nested::default();
        for number in 0..=NESTED_MAX as u64 {
            nested.keep(ExecutionNo(number), outcome(1));
        }
        assert!(nested.take(ExecutionNo(0)).is_none());
        assert!(nested.take(ExecutionNo(1)).is_some() && nested.take(ExecutionNo(1)).is_none());
        nested.keep(ExecutionNo(5000), outcome(NESTED_BYTES_MAX));
        assert!(nested.take(ExecutionNo(2)).is_none(), "it is as large as all together may be");
        assert!(nested.take(ExecutionNo(5000)).is_some());
        nested.keep(ExecutionNo(5001), outcome(NESTED_BYTES_MAX + 1));
        assert!(nested.take(ExecutionNo(5001)).is_none() && nested.bytes == 0);
    }
}
