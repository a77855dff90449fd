//! What the server tells a worker.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize, Serializer};
use serde_bytes::Bytes;

use super::fields::{Function, Records, StartFlags, byte_strings};
use super::wire::{self, FrameError};
use crate::id::{ExecutionNo, PlanNo, SessionNo, WorkerNo};
use crate::peer::SlotRange;

/// What the server tells a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker<'a> {
    /// Finish: no more frames follow.
    Shutdown,
    /// First frame: identity and limits. Its kind is 1 and `protocol` follows it in every version, so that another one is
    /// named as such.
    Hello {
        /// [`PROTOCOL_VERSION`](wire::PROTOCOL_VERSION) of the server.
        protocol: u64,
        /// The module's version.
        version: &'a str,
        /// Number of this worker.
        worker: WorkerNo,
        /// Executions that may run at once in this worker.
        threads: u64,
        /// Longest record, in bytes.
        record_bytes_max: u64,
        /// How long to poll for what the server sends before sleeping, in microseconds.
        spin_micros: u64,
    },
    /// Run a script in a fresh namespace.
    Script {
        /// Number to answer with.
        request: u64,
        /// Number of the session.
        session: SessionNo,
        /// The session's id as users see it.
        name: &'a str,
        /// Python source.
        #[serde(with = "serde_bytes")]
        source: &'a [u8],
        /// Directories of installed requirements, to be put on the path of imports.
        #[serde(borrow)]
        paths: Vec<&'a str>,
        /// Whether error texts carry the traceback.
        traceback: bool,
        /// Whether the client announced the codec.
        tagged: bool,
    },
    /// Rebuild a session from its registered plans.
    Restore {
        /// Number to answer with.
        request: u64,
        /// Number of the session.
        session: SessionNo,
        /// The session's id as users see it.
        name: &'a str,
        /// The function that a client registered without a script.
        #[serde(borrow)]
        function: Option<Function<'a>>,
        /// Pickles, as sent in [`FromWorker::ScriptDone`](super::FromWorker::ScriptDone) and [`Call::Register`](super::Call::Register).
        #[serde(borrow, serialize_with = "byte_strings")]
        blobs: Vec<&'a [u8]>,
        /// Directories of installed requirements.
        #[serde(borrow)]
        paths: Vec<&'a str>,
    },
    /// A plan has become a registration: run its `onRegistered`.
    Registered {
        /// Number of the plan.
        plan: PlanNo,
    },
    /// Begin an execution of a plan.
    Start {
        /// Number of the execution.
        exec: ExecutionNo,
        /// Number of the plan.
        plan: PlanNo,
        /// Executions of the same lane run one after the other, in the order of their frames. 0: none.
        lane: u64,
        /// How to run.
        flags: StartFlags,
        /// Index of the first step to run: those before ran in the server.
        first_step: u64,
        /// First records.
        #[serde(borrow)]
        records: Records<'a>,
    },
    /// More records for an execution.
    Feed {
        /// Number of the execution.
        exec: ExecutionNo,
        /// Whether its input ends here.
        last: bool,
        /// Records.
        #[serde(borrow)]
        records: Records<'a>,
    },
    /// End an execution: take it from the queue, or interrupt its code until it yields.
    Abort {
        /// Number of the execution.
        exec: ExecutionNo,
        /// Also if it has begun; otherwise such an execution continues.
        begun: bool,
    },
    /// Answer to a [`FromWorker::Call`](super::FromWorker::Call).
    Reply {
        /// Number of the call.
        call: u64,
        /// One encoded value, or the text of an error.
        #[serde(borrow, serialize_with = "value_or_error")]
        result: Result<&'a [u8], &'a str>,
    },
    /// These plans will not be started any more.
    ForgetPlans {
        /// Numbers of the plans.
        plans: Vec<PlanNo>,
    },
    /// A session ended: its names and plans may go.
    ForgetSession {
        /// Number of the session.
        session: SessionNo,
    },
    /// So many executions may run at once from now on.
    Threads {
        /// Their number.
        threads: u64,
    },
    /// Load the function of a client: its plan can be started at once, and waits until it is loaded. Answered by
    /// [`FromWorker::ScriptDone`](super::FromWorker::ScriptDone).
    Load {
        /// Number to answer with.
        request: u64,
        /// Number of the session.
        session: SessionNo,
        /// The session's id as users see it.
        name: &'a str,
        /// The function.
        #[serde(borrow)]
        function: Function<'a>,
        /// Directories of installed requirements.
        #[serde(borrow)]
        paths: Vec<&'a str>,
        /// Whether error texts carry the traceback.
        traceback: bool,
    },
    /// The profile of a session's functions. Answered by [`FromWorker::Answered`](super::FromWorker::Answered).
    Profile {
        /// Number to answer with.
        request: u64,
        /// Number of the session.
        session: SessionNo,
        /// The statistics, in this order; `None`: they are forgotten.
        order: Option<&'a str>,
    },
    /// The execution whose [`ToWorker::Start`] follows is one of several, on as many shards: its records move between them
    /// from one stage to the next. Stage 0 has the reader's records; a stage has those that moved at the exchange before it.
    Route {
        /// Number of the execution.
        exec: ExecutionNo,
        /// Position of this shard among all; that of the initiator, where records are collected, is 0.
        here: u64,
        /// Number of shards.
        shards: u64,
        /// Who has which slots, in ascending order; slots may be missing.
        slots: Vec<SlotRange>,
        /// Encoded bytes that may have been sent to other shards for one stage, and not come back as [`ToWorker::Room`].
        window: u64,
    },
    /// Records of other shards for a stage of an execution.
    Arrived {
        /// Number of the execution.
        exec: ExecutionNo,
        /// The stage, 1 or more.
        stage: u64,
        /// Other shards have no more records for this stage.
        last: bool,
        /// The records.
        #[serde(borrow)]
        records: Records<'a>,
    },
    /// Other shards have consumed records of an execution.
    Room {
        /// Number of the execution.
        exec: ExecutionNo,
        /// The stage that they were for.
        stage: u64,
        /// Encoded bytes, as counted in [`Records::bytes`].
        bytes: u64,
    },
    /// No record for this stage or one before it can change the result: what makes them ends.
    CloseStage {
        /// Number of the execution.
        exec: ExecutionNo,
        /// The stage, 1 or more.
        stage: u64,
    },
    /// Whether the server is one of several shards, so that [`Call::Run`](super::Call::Run) contains a pickle; at first it is not.
    Cluster {
        /// There are other shards.
        several: bool,
    },
}

impl<'a> ToWorker<'a> {
    /// Appends this frame to `buf`; returns the number of bytes appended.
    pub fn write(&self, buf: &mut Vec<u8>) -> usize {
        wire::append(self, buf)
    }

    /// Parses the body of a frame.
    ///
    /// # Errors
    /// Any [`FrameError`]: the bytes are not a frame of this protocol.
    pub fn parse(body: &'a [u8]) -> Result<ToWorker<'a>, FrameError> {
        wire::parse(body)
    }
}

fn value_or_error<S: Serializer>(result: &Result<&[u8], &str>, serializer: S) -> Result<S::Ok, S::Error> {
    result.map(Bytes::new).serialize(serializer)
}
