//! What is done behind the effects before it.

use redgrease_core::id::{ExecutionNo, WorkerNo};

use crate::calls::caller::PendingCall;
use crate::clients::Client;
use crate::events::sync::SyncRun;
use crate::prelude::*;

/// A step that an effect hands back to the engine ([`Effect::Then`](crate::Effect::Then)).
#[derive(Debug)]
pub struct Step(pub(crate) Next);

/// What it is.
#[derive(Debug)]
pub(crate) enum Next {
    /// A worker's process was told to end, and its output is logged: what it had ends or moves.
    RemoveWorker {
        /// The worker.
        worker: WorkerNo,
        /// How it ended: what is said of it after "worker 3 (pid 7)".
        how: String,
    },
    /// A worker left too much unread.
    EndWorker {
        /// The worker.
        worker: WorkerNo,
        /// Why.
        reason: String,
    },
    /// Sync executions that commands fired run, one after the other.
    RunOwed,
    /// A sync execution runs.
    RunSync(SyncRun),
    /// The execution that was started first reads what it starts with.
    ReadFirst,
    /// A sync execution of a key event has ended.
    SyncKeyEnded,
    /// The next sync execution over a stream runs, unless this go has lasted long enough.
    SyncStream,
    /// What a command that a function ran fired has run: the function gets the reply.
    AnswerCall {
        /// The call.
        call: PendingCall,
        /// Its result.
        result: Result<Vec<u8>, String>,
    },
    /// A sync execution that a client triggered has ended.
    AnswerTrigger {
        /// The client.
        client: Client,
        /// The execution.
        execution: ExecutionNo,
    },
}
