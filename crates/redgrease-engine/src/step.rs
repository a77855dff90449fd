//! Steps that run after the effects before them.

use redgrease_core::id::{ExecutionNo, WorkerNo};

use crate::calls::caller::PendingCall;
use crate::clients::Client;
use crate::events::pending::KeyEvent;
use crate::events::sync::SyncRun;
use crate::prelude::*;

/// A step that an effect hands back to the engine ([`Effect::Then`](crate::Effect::Then)).
#[derive(Debug)]
pub struct Step(pub(crate) Next);

/// The kind of the step.
#[derive(Debug)]
pub(crate) enum Next {
    /// A worker's process is being ended, and its output is logged: its executions end or move.
    RemoveWorker {
        /// The worker.
        worker: WorkerNo,
        /// How it ended: the text that follows "worker 3 (pid 7)".
        how: String,
    },
    /// A worker left too much unread.
    EndWorker {
        /// The worker.
        worker: WorkerNo,
        /// The reason.
        reason: String,
    },
    /// Sync executions that commands fired run, one after the other.
    RunOwed,
    /// A sync execution runs.
    RunSync(SyncRun),
    /// The execution that was started first reads its first records.
    ReadFirst,
    /// A command that was run for a client has ended.
    CommandIntercepted {
        /// The client's number among those that wait for events.
        number: u64,
        /// The one whose command was running before.
        before: Option<u64>,
    },
    /// A sync function of an event runs, for which a client waits.
    RunIntercepted {
        /// The event.
        event: KeyEvent,
        /// The client's number.
        number: u64,
    },
    /// A client that waits for the functions of events is answered if they have ended.
    AnswerIntercepted(u64),
    /// A sync execution of a key event has ended.
    SyncKeyEnded,
    /// The next sync execution over a stream runs, unless this series has lasted long enough.
    SyncStream,
    /// Executions that were triggered by a function's command have run: the function gets the reply.
    AnswerCall {
        /// The call.
        call: PendingCall,
        /// Its result.
        result: Result<Vec<u8>, String>,
    },
    /// The main thread waits for the next one of the group of sync executions that was sent.
    ServeGroup,
    /// A sync execution that a client triggered has ended.
    AnswerTrigger {
        /// It replaces a command.
        is_hook: bool,
        /// The client.
        client: Client,
        /// The execution.
        execution: ExecutionNo,
    },
}
