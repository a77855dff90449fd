//! Whose code is calling.

use redgrease_core::id::{ExecutionNo, SessionNo, WorkerNo};

/// Code that may call the server: an execution, or (without one) a script or callback of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The execution.
    pub(crate) exec: Option<ExecutionNo>,
    /// The session.
    pub(crate) session: SessionNo,
}

/// Who wants a plan to be run or registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requester {
    /// Code that called: it is answered.
    Call(PendingCall),
    /// The client whose function is that of this session.
    Client(SessionNo),
}

impl Requester {
    /// Whose code it is.
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
    /// Whose code it is.
    pub(crate) caller: Caller,
}
