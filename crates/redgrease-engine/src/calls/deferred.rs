//! Calls that wait until clients are no longer paused.

use crate::calls::caller::PendingCall;
use crate::effect::Argv;
use crate::error::Error;
use crate::limits::{DEFERRED_BYTES_MAX, DEFERRED_COST_BYTES, DEFERRED_MAX};
use crate::prelude::*;

/// The action of a waiting call.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// Run a command.
    Execute(Argv),
    /// Enter an atomic block.
    Atomic,
}

/// A waiting call.
#[derive(Debug)]
pub(crate) struct DeferredCall {
    /// The caller.
    pub(crate) call: PendingCall,
    /// The action.
    pub(crate) wanted: Wanted,
    /// Its deadline.
    pub(crate) deadline_ms: u64,
}

impl DeferredCall {
    fn cost_bytes(&self) -> usize {
        DEFERRED_COST_BYTES
            + match &self.wanted {
                Wanted::Execute(argv) => argv.cost_bytes(),
                Wanted::Atomic => 0,
            }
    }
}

/// The waiting calls, oldest first, bounded in number and bytes.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    calls: VecDeque<DeferredCall>,
    bytes: usize,
}

impl Deferred {
    /// Adds a call.
    ///
    /// # Errors
    /// Too many calls wait already; the text is for the function.
    pub(crate) fn push(&mut self, call: DeferredCall) -> Result<(), Error> {
        if self.calls.len() >= DEFERRED_MAX {
            return Err(Error::TooManyDeferred);
        }
        let bytes = self.bytes + call.cost_bytes();
        if bytes > DEFERRED_BYTES_MAX {
            return Err(Error::DeferredTooBig(self.bytes));
        }
        self.bytes = bytes;
        self.calls.push_back(call);
        Ok(())
    }

    /// Whether no call waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Whether the oldest call can be served: clients are not `paused`, or its deadline has passed.
    pub(crate) fn is_due(&self, paused: bool, now_ms: u64) -> bool {
        self.calls.front().is_some_and(|first| !paused || first.deadline_ms <= now_ms)
    }

    /// Removes the oldest call.
    pub(crate) fn pop(&mut self) -> Option<DeferredCall> {
        let call = self.calls.pop_front()?;
        self.bytes -= call.cost_bytes();
        Some(call)
    }

    /// Number of the waiting calls, and the bytes that they count as.
    #[cfg(feature = "simulation")]
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.calls.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::caller::Caller;
    use redgrease_core::id::{SessionNo, WorkerNo};

    fn call(bytes: usize, deadline_ms: u64) -> DeferredCall {
        let caller = Caller { exec: None, session: SessionNo(1) };
        let argv = vec![b'x'; bytes];
        let wanted = if bytes == 0 { Wanted::Atomic } else { Wanted::Execute(Argv::new(&[&argv])) };
        DeferredCall {
            call: PendingCall { worker: WorkerNo(1), call: 1, caller, as_client: false },
            wanted,
            deadline_ms,
        }
    }

    #[test]
    fn calls_are_due_when_clients_are_not_paused_or_their_deadline_has_passed() {
        let mut deferred = Deferred::default();
        deferred.push(call(1, 100)).unwrap();
        assert!(!deferred.is_due(true, 99) && deferred.is_due(false, 0) && deferred.is_due(true, 100));
        assert!(deferred.pop().is_some() && deferred.is_empty() && deferred.bytes == 0);
    }

    #[test]
    fn number_and_bytes_are_bounded_and_the_error_says_so() {
        let mut deferred = Deferred::default();
        deferred.push(call(DEFERRED_BYTES_MAX - 300, 0)).unwrap();
        assert!(deferred.push(call(100, 0)).unwrap_err().to_string().contains("the limit is 67108864 bytes"));
        let mut deferred = Deferred::default();
        for _ in 0..DEFERRED_MAX {
            deferred.push(call(0, 0)).unwrap();
        }
        assert!(deferred.push(call(0, 0)).unwrap_err().to_string().contains("10000 calls"));
    }
}
