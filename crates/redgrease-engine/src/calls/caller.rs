//! The code that a call comes from.

use redgrease_core::id::{ExecutionNo, SessionNo, WorkerNo};

/// Code that may call the server: an execution, or (without one) a script or callback of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The execution.
    pub(crate) exec: Option<ExecutionNo>,
    /// The session.
    pub(crate) session: SessionNo,
}

/// The origin of a `run` or `register` action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requester {
    /// A call of user code, which is answered.
    Call(PendingCall),
    /// The client whose function is that of this session.
    Client(SessionNo),
}

impl Requester {
    /// The caller.
    pub(crate) fn caller(self) -> Caller {
        match self {
            Requester::Call(call) => call.caller,
            Requester::Client(session) => Caller { exec: None, session },
        }
    }
}

/// A call that has to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PendingCall {
    /// The worker that is calling.
    pub(crate) worker: WorkerNo,
    /// Number of the call there.
    pub(crate) call: u64,
    /// The caller.
    pub(crate) caller: Caller,
    /// It runs the command that the execution replaces, as the client that called it.
    pub(crate) as_client: bool,
}
