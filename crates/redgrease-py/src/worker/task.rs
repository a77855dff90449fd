//! Tasks of a thread: requests to sessions, and turns of executions.

use std::collections::VecDeque;

use redgrease_core::frame::{self, StartFlags};
use redgrease_core::id::ExecutionNo;

use crate::run::{Batch, Routed, Run};

/// A task for a thread.
#[derive(Debug)]
pub enum Task {
    /// An execution.
    Turn(Turn),
    /// A request to a session.
    Job(Job),
}

/// One turn of an execution: the input that is available now.
#[derive(Debug)]
pub struct Turn {
    /// The execution.
    pub exec: ExecutionNo,
    /// Number of its plan.
    pub plan: u64,
    /// How to run.
    pub flags: StartFlags,
    /// The first step that the server has not executed itself.
    pub first_step: u64,
    /// The state after the turn before this one.
    pub run: Option<Box<Run>>,
    /// Records.
    pub input: VecDeque<Batch>,
    /// Whether the input ends here.
    pub last: bool,
    /// It was aborted while it waited for coroutines or futures.
    pub parked: bool,
    /// What it has in addition on a shard of several: its input comes from there.
    pub routed: Option<Routed>,
}

/// A request of the server to a session. The fields are those of the frames ([`frame::ToWorker`]).
#[derive(Debug)]
pub enum Job {
    Script {
        request: u64,
        session: u64,
        name: String,
        source: Vec<u8>,
        paths: Vec<String>,
        traceback: bool,
        tagged: bool,
    },
    Load {
        request: u64,
        session: u64,
        name: String,
        function: Function,
        paths: Vec<String>,
        traceback: bool,
    },
    Restore {
        request: u64,
        session: u64,
        name: String,
        function: Option<Function>,
        blobs: Vec<Vec<u8>>,
        paths: Vec<String>,
    },
    Registered {
        plan: u64,
    },
    ForgetPlans {
        plans: Vec<u64>,
    },
    ForgetSession {
        session: u64,
    },
    /// The answer to a call that a coroutine awaits.
    Answer {
        call: u64,
        answer: Result<Vec<u8>, String>,
    },
    Profile {
        request: u64,
        session: u64,
        order: Option<String>,
    },
}

/// A function that a client sent as plan and callbacks.
#[derive(Debug)]
pub struct Function {
    /// Number of the plan.
    pub plan: u64,
    /// The encoded plan.
    pub spec: Vec<u8>,
    /// Pickle of the callbacks.
    pub callbacks: Vec<u8>,
}

impl Function {
    /// The function of a frame.
    pub fn of(function: frame::Function<'_>) -> Function {
        let frame::Function { plan, spec, callbacks } = function;
        Function { plan: plan.0, spec: spec.to_vec(), callbacks: callbacks.to_vec() }
    }
}
