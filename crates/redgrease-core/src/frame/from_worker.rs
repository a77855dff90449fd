//! What a worker tells the server.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::fields::{LogLevel, Records, byte_strings};
use super::wire::{self, FrameError};
use crate::id::{ExecutionNo, PlanNo, SessionNo};

/// What a worker tells the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromWorker<'a> {
    /// Answer to [`ToWorker::Hello`](super::ToWorker::Hello).
    Ready {
        /// [`PROTOCOL_VERSION`](wire::PROTOCOL_VERSION) of the worker.
        protocol: u64,
        /// [`CODEC_VERSION`](crate::codec::CODEC_VERSION) of the worker.
        codec: u64,
        /// Its process id, for the log (the server knows better).
        pid: u64,
        /// Version of the interpreter, such as `3.11.7`.
        python: &'a str,
        /// Version of the Python package.
        package: &'a str,
        /// What the kernel keeps it from doing, as words; `off` if nothing was requested.
        isolation: &'a str,
    },
    /// A script or a restoration ended.
    ScriptDone {
        /// The number asked with.
        request: u64,
        /// Error text, when it failed.
        error: Option<&'a str>,
        /// Pickle of all plans that the script registered (empty when there is none): with it
        /// [`ToWorker::Restore`](super::ToWorker::Restore) builds them again under the same numbers.
        #[serde(with = "serde_bytes")]
        blob: &'a [u8],
    },
    /// User code wants something of the server and waits for the [`ToWorker::Reply`](super::ToWorker::Reply).
    Call {
        /// Execution that is calling; `None` when it is a script or a callback of a session.
        exec: Option<ExecutionNo>,
        /// Number of the session that is calling.
        session: SessionNo,
        /// Number of the call, unique in this worker.
        call: u64,
        /// What it wants.
        #[serde(borrow)]
        op: Call<'a>,
    },
    /// An execution has been running for a while (a few milliseconds), or its step changed since the last such frame.
    Progress {
        /// Number of the execution.
        exec: ExecutionNo,
        /// Index of the step that was running.
        step: u64,
    },
    /// Results so far; more follow.
    Output {
        /// Number of the execution.
        exec: ExecutionNo,
        /// Results.
        #[serde(borrow)]
        records: Records<'a>,
    },
    /// An execution ended.
    Done {
        /// Number of the execution.
        exec: ExecutionNo,
        /// It was aborted before its first step began.
        aborted: bool,
        /// The last results.
        #[serde(borrow)]
        records: Records<'a>,
        /// All error texts.
        #[serde(borrow, serialize_with = "byte_strings")]
        errors: Vec<&'a [u8]>,
        /// Time spent in each step, in microseconds; empty unless profiled.
        step_micros: Vec<u64>,
    },
    /// Consumed input in bytes: the server may send as much again.
    Consumed {
        /// Number of the execution.
        exec: ExecutionNo,
        /// Encoded bytes of records, as counted in [`Records::bytes`].
        bytes: u64,
    },
    /// No further record can change the result: the reader should stop.
    Stop {
        /// Number of the execution.
        exec: ExecutionNo,
    },
    /// A line for the server's log.
    Log {
        /// Number of the session that is speaking; `None` for the worker itself.
        session: Option<SessionNo>,
        /// How important it is.
        level: LogLevel,
        /// The text.
        #[serde(with = "serde_bytes")]
        message: &'a [u8],
    },
    /// An execution waits for coroutines or futures for the first time. It does not count as running any more, and if the
    /// server's main thread waits for it, that ends.
    Parked {
        /// Number of the execution.
        exec: ExecutionNo,
    },
    /// Answer to [`ToWorker::Profile`](super::ToWorker::Profile).
    Answered {
        /// The number asked with.
        request: u64,
        /// A text, or that of an error.
        #[serde(borrow)]
        result: Result<&'a str, &'a str>,
    },
    /// Records of an execution with a [`ToWorker::Route`](super::ToWorker::Route) that go to another shard.
    Moved {
        /// Number of the execution.
        exec: ExecutionNo,
        /// The stage that they are for, 1 or more.
        stage: u64,
        /// Position of the shard.
        shard: u64,
        /// The records.
        #[serde(borrow)]
        records: Records<'a>,
    },
    /// No further records for that stage will move from this shard.
    StageEnded {
        /// Number of the execution.
        exec: ExecutionNo,
        /// The stage, 1 or more.
        stage: u64,
    },
    /// Records of other shards for a stage were consumed.
    Taken {
        /// Number of the execution.
        exec: ExecutionNo,
        /// The stage.
        stage: u64,
        /// Encoded bytes, as counted in [`Records::bytes`].
        bytes: u64,
    },
    /// No further record for that stage or one before it can change the result on this shard.
    StageClosed {
        /// Number of the execution.
        exec: ExecutionNo,
        /// The stage, 1 or more.
        stage: u64,
    },
}

impl<'a> FromWorker<'a> {
    /// Appends this frame to `buf`; returns the number of bytes appended.
    pub fn write(&self, buf: &mut Vec<u8>) -> usize {
        wire::append(self, buf)
    }

    /// Parses the body of a frame.
    ///
    /// # Errors
    /// Any [`FrameError`]: the bytes are not a frame of this protocol.
    pub fn parse(body: &'a [u8]) -> Result<FromWorker<'a>, FrameError> {
        wire::parse(body)
    }
}

/// What user code asks of the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Call<'a> {
    /// Run a command.
    Execute {
        /// Command name and arguments.
        #[serde(borrow, serialize_with = "byte_strings")]
        argv: Vec<&'a [u8]>,
    },
    /// Start an execution of a plan (the `run` action).
    Run {
        /// Number that the worker gave the plan.
        plan: PlanNo,
        /// An encoded plan: see [`crate::plan::PlanSpec`].
        #[serde(with = "serde_bytes")]
        spec: &'a [u8],
        /// Pickle of this plan alone, for other shards; empty if it runs on this one only.
        #[serde(with = "serde_bytes")]
        blob: &'a [u8],
    },
    /// Register a plan (the `register` action).
    Register {
        /// Number that the worker gave the plan.
        plan: PlanNo,
        /// An encoded plan: see [`crate::plan::PlanSpec`].
        #[serde(with = "serde_bytes")]
        spec: &'a [u8],
        /// Pickle of this plan alone, for a registration made while no script runs.
        #[serde(with = "serde_bytes")]
        blob: &'a [u8],
    },
    /// Keep all other clients out until [`Call::AtomicExit`].
    AtomicEnter,
    /// End of the atomic block.
    AtomicExit,
    /// Value of a configuration key, or none.
    ConfigGet {
        /// The key.
        #[serde(with = "serde_bytes")]
        key: &'a [u8],
    },
    /// A short text that hashes to a slot of this shard.
    HashTag,
    /// Run the next hook of the command that the execution replaces, or the command itself.
    CallNext {
        /// The arguments without the command's name.
        #[serde(borrow, serialize_with = "byte_strings")]
        args: Vec<&'a [u8]>,
    },
    /// Call a function again and again. Answered by whether its key was free.
    TimeEvent {
        /// Number that the worker gave its plan.
        plan: PlanNo,
        /// An encoded plan: see [`crate::plan::PlanSpec`].
        #[serde(with = "serde_bytes")]
        spec: &'a [u8],
        /// Pickle of this plan alone.
        #[serde(with = "serde_bytes")]
        blob: &'a [u8],
        /// Seconds between the end of a call and the next one.
        period_s: u64,
        /// The key that stands for it: without the key it ends.
        key: Option<&'a [u8]>,
    },
    /// The command that a client waits for: name and arguments.
    GetCommand,
    /// Another reply for the client that waits.
    OverrideReply {
        /// One encoded value.
        #[serde(with = "serde_bytes")]
        value: &'a [u8],
    },
    /// Results and errors of an execution that user code started, when it has ended: two lists.
    Results {
        /// Its identifier.
        execution: &'a str,
    },
}

/// What a frame of a worker is about, read from its first fields alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// An execution.
    Execution(ExecutionNo),
    /// A script or a callback of a session.
    Session(SessionNo),
    /// A line for the log.
    Log,
    /// The worker itself.
    Worker,
}

/// Kind and first fields of each [`FromWorker`].
#[derive(Deserialize)]
enum Front {
    Ready,
    ScriptDone { request: SessionNo },
    Call { exec: Option<ExecutionNo>, session: SessionNo },
    Progress { exec: ExecutionNo },
    Output { exec: ExecutionNo },
    Done { exec: ExecutionNo },
    Consumed { exec: ExecutionNo },
    Stop { exec: ExecutionNo },
    Log,
    Parked { exec: ExecutionNo },
    Answered,
    Moved { exec: ExecutionNo },
    StageEnded { exec: ExecutionNo },
    Taken { exec: ExecutionNo },
    StageClosed { exec: ExecutionNo },
}

impl Subject {
    /// Looks at the body of a frame of a worker.
    ///
    /// # Errors
    /// Any [`FrameError`]: the bytes are not a frame of this protocol.
    pub fn of(body: &[u8]) -> Result<Subject, FrameError> {
        let (front, _) = wire::first_fields(body)?;
        Ok(match front {
            Front::Ready | Front::Answered => Subject::Worker,
            Front::ScriptDone { request } => Subject::Session(request),
            Front::Call { exec: None, session } => Subject::Session(session),
            Front::Call { exec: Some(exec), .. }
            | Front::Progress { exec }
            | Front::Output { exec }
            | Front::Done { exec }
            | Front::Consumed { exec }
            | Front::Parked { exec }
            | Front::Moved { exec }
            | Front::StageEnded { exec }
            | Front::Taken { exec }
            | Front::StageClosed { exec }
            | Front::Stop { exec } => Subject::Execution(exec),
            Front::Log => Subject::Log,
        })
    }
}
