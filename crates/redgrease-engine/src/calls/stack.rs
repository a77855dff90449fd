//! The nested activities of the main thread, innermost last: waits for workers, and commands of functions.

use redgrease_core::id::{ExecutionNo, WorkerNo};

use crate::calls::caller::{Caller, PendingCall};
use crate::events::sync::SyncRun;
use crate::id::{CommandNo, Counter, WaitNo};
use crate::prelude::*;

/// What ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The end of an execution.
    Ended(ExecutionNo),
    /// The end of the atomic block, or of the code that entered it.
    AtomicLeft,
}

/// A wait of the main thread for one worker, in which only frames of one caller are served.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    /// Its number.
    pub(crate) number: WaitNo,
    /// The worker.
    pub(crate) worker: WorkerNo,
    /// The code that is waited for.
    pub(crate) caller: Caller,
    /// The condition that ends it.
    pub(crate) until: Until,
    /// Its deadline. Nested waits share that of the outermost one.
    pub(crate) deadline_ms: u64,
}

/// An atomic block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Atomic {
    /// The call that enters it.
    pub(crate) call: PendingCall,
    /// The command that runs it has begun.
    pub(crate) entered: bool,
    /// Its code has left it.
    pub(crate) left: bool,
}

/// A command of a function that is running.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its number.
    pub(crate) number: CommandNo,
    /// The call that runs it.
    pub(crate) call: PendingCall,
    /// Sync executions that it fired, which run when it has ended.
    pub(crate) runs: Vec<SyncRun>,
}

/// The nesting depth of the main thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    waits: usize,
    commands: usize,
}

/// The stack.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    /// The waits.
    pub(crate) waits: Vec<Wait>,
    /// The atomic block that is served, or is about to be.
    pub(crate) atomic: Option<Atomic>,
    commands: Vec<Running>,
    wait_counter: Counter,
    command_counter: Counter,
}

impl Stack {
    /// Begins a wait; returns its number.
    pub(crate) fn wait(&mut self, worker: WorkerNo, caller: Caller, until: Until, deadline_ms: u64) -> WaitNo {
        let number = WaitNo(self.wait_counter.next());
        let deadline_ms = self.waits.last().map_or(deadline_ms, |outer| outer.deadline_ms.min(deadline_ms));
        self.waits.push(Wait { number, worker, caller, until, deadline_ms });
        number
    }

    /// A wait.
    pub(crate) fn get(&self, number: WaitNo) -> Option<&Wait> {
        self.waits.iter().rfind(|wait| wait.number == number)
    }

    /// Ends a wait, and those that should have ended before it.
    pub(crate) fn end_wait(&mut self, number: WaitNo) -> Option<Wait> {
        let position = self.waits.iter().position(|wait| wait.number == number)?;
        let wait = self.waits[position];
        self.waits.truncate(position);
        Some(wait)
    }

    /// Whether the main thread waits for a caller.
    pub(crate) fn serves(&self, caller: Caller) -> bool {
        self.waits.iter().any(|wait| wait.caller == caller)
    }

    /// Whether the main thread waits for a worker.
    pub(crate) fn waits_for(&self, worker: WorkerNo) -> bool {
        self.waits.iter().any(|wait| wait.worker == worker)
    }

    /// Begins a command; returns its number.
    pub(crate) fn begin_command(&mut self, call: PendingCall) -> CommandNo {
        let number = CommandNo(self.command_counter.next());
        self.commands.push(Running { number, call, runs: Vec::new() });
        number
    }

    /// Ends a command, and those that should have ended before it.
    pub(crate) fn end_command(&mut self, number: CommandNo) -> Option<Running> {
        let position = self.commands.iter().position(|running| running.number == number)?;
        self.commands.drain(position..).next()
    }

    /// The command that is running.
    pub(crate) fn command(&mut self) -> Option<&mut Running> {
        self.commands.last_mut()
    }

    /// The current depth.
    pub(crate) fn depth(&self) -> Depth {
        Depth { waits: self.waits.len(), commands: self.commands.len() }
    }

    /// Ends everything that began after that depth: returns the waits and the commands among it.
    pub(crate) fn unwind(&mut self, depth: Depth) -> (Vec<Wait>, Vec<Running>) {
        let waits = self.waits.split_off(depth.waits.min(self.waits.len()));
        let commands = self.commands.split_off(depth.commands.min(self.commands.len()));
        (waits, commands)
    }

    /// Number of the commands that are running.
    #[cfg(feature = "simulation")]
    pub(crate) fn command_count(&self) -> usize {
        self.commands.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redgrease_core::id::SessionNo;

    const CALLER: Caller = Caller { exec: None, session: SessionNo(1) };

    #[test]
    fn an_inner_wait_ends_no_later_than_the_outer_one() {
        let mut stack = Stack::default();
        let outer = stack.wait(WorkerNo(1), CALLER, Until::AtomicLeft, 100);
        let inner = stack.wait(WorkerNo(2), CALLER, Until::AtomicLeft, 500);
        assert_eq!(stack.get(inner).unwrap().deadline_ms, 100);
        assert!(stack.waits_for(WorkerNo(2)) && stack.serves(CALLER));
        assert!(stack.end_wait(outer).is_some());
        assert!(stack.get(inner).is_none() && !stack.serves(CALLER));
    }

    #[test]
    fn after_a_panic_the_stack_is_as_deep_as_before() {
        let mut stack = Stack::default();
        let call = PendingCall { worker: WorkerNo(1), call: 7, caller: CALLER, as_client: false };
        let first = stack.begin_command(call);
        let depth = stack.depth();
        stack.begin_command(PendingCall { call: 8, ..call });
        stack.wait(WorkerNo(1), CALLER, Until::AtomicLeft, 1);
        let (waits, commands) = stack.unwind(depth);
        assert_eq!(commands.iter().map(|running| running.call.call).collect::<Vec<_>>(), [8]);
        assert_eq!(waits.iter().map(|wait| wait.worker).collect::<Vec<_>>(), [WorkerNo(1)]);
        assert_eq!(stack.depth(), depth);
        assert_eq!(stack.end_command(first).unwrap().call, call);
        assert!(stack.end_command(first).is_none());
    }
}
