//! What server and worker say to each other.
//!
//! A frame on the wire is its length (four bytes, little-endian, not counting itself) and its body: a kind byte and
//! fields written with [`codec`](crate::codec) primitives. Records inside a frame stay encoded; a frame carries their
//! number. The order of frames is the order of the facts: a worker handles what concerns one execution in the order
//! received, and a server does the same with what a worker says.
//!
//! The server calls nothing in a worker without a number that the worker gives back (`request`, `exec`), and answers
//! each [`FromWorker::Call`] with exactly one [`ToWorker::Reply`]. Everything that comes from a worker is hostile until parsed.

use alloc::vec::Vec;

use crate::codec::{CodecError, Reader, Result, Writer};
use crate::id::{ExecutionNo, PlanNo, SessionNo, WorkerNo};

/// Version of this protocol; both sides refuse another one in the handshake.
pub const PROTOCOL_VERSION: u64 = 2;

/// The longest body of a frame, in bytes. A sender splits or refuses longer ones; a receiver treats them as a protocol violation.
pub const FRAME_BYTES_MAX: usize = 512 << 20;

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

/// How a [`ToWorker::Start`] wants to be run: a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StartFlags(pub u8);

impl StartFlags {
    /// No further records follow: the execution's input ends with this frame.
    pub const LAST: StartFlags = StartFlags(1);
    /// The server's main thread is waiting: run at once, before anything queued.
    pub const SYNC: StartFlags = StartFlags(2);
    /// Time each step.
    pub const PROFILE: StartFlags = StartFlags(4);
    /// Error texts carry the traceback (`PythonAttemptTraceback`).
    pub const TRACEBACK: StartFlags = StartFlags(8);
    /// The client asked for tagged values: results without a tag of their own are pickled; otherwise they become
    /// opaque texts.
    pub const TAGGED: StartFlags = StartFlags(16);
    /// No coroutine or future may be made: the caller cannot be blocked.
    pub const NO_ASYNC: StartFlags = StartFlags(32);

    /// Both sets.
    #[must_use]
    pub fn with(self, other: StartFlags) -> StartFlags {
        StartFlags(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn has(self, other: StartFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Encoded records, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Records<'a> {
    /// Number of records.
    pub count: u64,
    /// Their encoded form.
    pub bytes: &'a [u8],
}

/// A function that a client sent as plan and callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function<'a> {
    /// The number that the plan gets.
    pub plan: PlanNo,
    /// An encoded plan: see [`crate::plan::PlanSpec`].
    pub spec: &'a [u8],
    /// Pickle of the plan with its callbacks, as the client made it.
    pub callbacks: &'a [u8],
}

/// What the server tells a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum ToWorker<'a> {
    /// First frame: identity and limits.
    Hello {
        /// [`PROTOCOL_VERSION`] of the server.
        protocol: u64,
        /// The module's version.
        version: &'a str,
        /// Number of this worker.
        worker: WorkerNo,
        /// Executions that may run at once in this worker.
        threads: u64,
        /// Longest record, in bytes.
        record_bytes_max: u64,
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
        source: &'a [u8],
        /// Directories of installed requirements, to be put on the path of imports.
        paths: Vec<&'a str>,
        /// Whether error texts carry the traceback.
        traceback: bool,
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
        function: Option<Function<'a>>,
        /// Pickles, as sent in [`FromWorker::ScriptDone`] and [`Call::Register`].
        blobs: Vec<&'a [u8]>,
        /// Directories of installed requirements.
        paths: Vec<&'a str>,
    },
    /// Load the function of a client: its plan can be started at once, and waits until it is loaded. Answered by
    /// [`FromWorker::ScriptDone`].
    Load {
        /// Number to answer with.
        request: u64,
        /// Number of the session.
        session: SessionNo,
        /// The session's id as users see it.
        name: &'a str,
        /// The function.
        function: Function<'a>,
        /// Directories of installed requirements.
        paths: Vec<&'a str>,
        /// Whether error texts carry the traceback.
        traceback: bool,
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
        records: Records<'a>,
    },
    /// More records for an execution.
    Feed {
        /// Number of the execution.
        exec: ExecutionNo,
        /// Whether its input ends here.
        last: bool,
        /// Records.
        records: Records<'a>,
    },
    /// End an execution: take it from the queue, or interrupt its code until it yields.
    Abort {
        /// Number of the execution.
        exec: ExecutionNo,
        /// Also if it has begun; otherwise such an execution continues.
        begun: bool,
    },
    /// Answer to a [`FromWorker::Call`].
    Reply {
        /// Number of the call.
        call: u64,
        /// One encoded value, or the text of an error.
        result: core::result::Result<&'a [u8], &'a str>,
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
    /// Finish: no more frames follow.
    Shutdown,
}

/// What a worker tells the server.
#[derive(Debug, Clone, PartialEq)]
pub enum FromWorker<'a> {
    /// Answer to [`ToWorker::Hello`].
    Ready {
        /// [`PROTOCOL_VERSION`] of the worker.
        protocol: u64,
        /// [`CODEC_VERSION`](crate::codec::CODEC_VERSION) of the worker.
        codec: u64,
        /// Its process id, for the log (the server knows better).
        pid: u64,
        /// Version of the interpreter, such as `3.11.7`.
        python: &'a str,
        /// Version of the Python package.
        package: &'a str,
    },
    /// A script or a restoration ended.
    ScriptDone {
        /// The number asked with.
        request: u64,
        /// Error text, when it failed.
        error: Option<&'a str>,
        /// Pickle of all plans that the script registered (empty when there is none): with it
        /// [`ToWorker::Restore`] builds them again under the same numbers.
        blob: &'a [u8],
    },
    /// User code wants something of the server and waits for the [`ToWorker::Reply`].
    Call {
        /// Number of the call, unique in this worker.
        call: u64,
        /// Execution that is calling; `None` when it is a script or a callback of a session.
        exec: Option<ExecutionNo>,
        /// Number of the session that is calling.
        session: SessionNo,
        /// What it wants.
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
        records: Records<'a>,
    },
    /// An execution ended.
    Done {
        /// Number of the execution.
        exec: ExecutionNo,
        /// It was aborted before its first step began.
        aborted: bool,
        /// The last results.
        records: Records<'a>,
        /// All error texts.
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
        message: &'a [u8],
    },
}

/// What user code asks of the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Call<'a> {
    /// Run a command.
    Execute {
        /// Command name and arguments.
        argv: Vec<&'a [u8]>,
    },
    /// Start an execution of a plan (the `run` action).
    Run {
        /// Number that the worker gave the plan.
        plan: PlanNo,
        /// An encoded plan: see [`crate::plan::PlanSpec`].
        spec: &'a [u8],
    },
    /// Register a plan (the `register` action).
    Register {
        /// Number that the worker gave the plan.
        plan: PlanNo,
        /// An encoded plan: see [`crate::plan::PlanSpec`].
        spec: &'a [u8],
        /// Pickle of this plan alone, for a registration made while no script runs.
        blob: &'a [u8],
    },
    /// Keep all other clients out until [`Call::AtomicExit`].
    AtomicEnter,
    /// End of the atomic block.
    AtomicExit,
    /// Value of a configuration key, or none.
    ConfigGet {
        /// The key.
        key: &'a [u8],
    },
    /// A short text that hashes to a slot of this shard.
    HashTag,
}

/// How important a line of the log is: the server's own levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LogLevel {
    /// For developers.
    Debug = 0,
    /// More than operators usually want.
    Verbose = 1,
    /// What an operator wants to know.
    Notice = 2,
    /// What an operator must know.
    Warning = 3,
}

impl LogLevel {
    fn from_byte(byte: u8, at: usize) -> Result<LogLevel> {
        match byte {
            0 => Ok(LogLevel::Debug),
            1 => Ok(LogLevel::Verbose),
            2 => Ok(LogLevel::Notice),
            3 => Ok(LogLevel::Warning),
            other => Err(CodecError::BadField { what: "log level", value: u64::from(other), at }),
        }
    }

    /// The level's name in the server's log API and in `log(message, level)`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Verbose => "verbose",
            LogLevel::Notice => "notice",
            LogLevel::Warning => "warning",
        }
    }
}

mod kind {
    pub const HELLO: u8 = 1;
    pub const SCRIPT: u8 = 2;
    pub const RESTORE: u8 = 3;
    pub const REGISTERED: u8 = 4;
    pub const START: u8 = 5;
    pub const FEED: u8 = 6;
    pub const ABORT: u8 = 7;
    pub const REPLY: u8 = 8;
    pub const FORGET_PLANS: u8 = 9;
    pub const FORGET_SESSION: u8 = 10;
    pub const THREADS: u8 = 11;
    pub const SHUTDOWN: u8 = 12;
    pub const LOAD: u8 = 13;

    pub const READY: u8 = 65;
    pub const SCRIPT_DONE: u8 = 66;
    pub const CALL: u8 = 67;
    pub const PROGRESS: u8 = 68;
    pub const OUTPUT: u8 = 69;
    pub const DONE: u8 = 70;
    pub const CONSUMED: u8 = 71;
    pub const STOP: u8 = 72;
    pub const LOG: u8 = 73;

    pub const EXECUTE: u8 = 1;
    pub const RUN: u8 = 2;
    pub const REGISTER: u8 = 3;
    pub const ATOMIC_ENTER: u8 = 4;
    pub const ATOMIC_EXIT: u8 = 5;
    pub const CONFIG_GET: u8 = 6;
    pub const HASH_TAG: u8 = 7;
}

/// Appends a frame (prefix and body) to `buf` and returns the number of bytes appended.
fn append(buf: &mut Vec<u8>, body: impl FnOnce(&mut Writer)) -> usize {
    let start = buf.len();
    let mut writer = Writer::append_to(core::mem::take(buf));
    writer.encoded(&[0; PREFIX_BYTES]);
    body(&mut writer);
    *buf = writer.into_bytes();
    let len = buf.len() - start - PREFIX_BYTES;
    debug_assert!(len <= FRAME_BYTES_MAX, "a sender splits or refuses what is longer than FRAME_BYTES_MAX");
    buf[start..start + PREFIX_BYTES].copy_from_slice(&(len as u32).to_le_bytes());
    len + PREFIX_BYTES
}

/// Finds the first whole frame of `buf`: its body, and the number of bytes it takes with its prefix.
///
/// `Ok(None)` when more bytes are needed.
///
/// # Errors
/// [`CodecError::BadField`] when the announced length exceeds [`FRAME_BYTES_MAX`] or is zero.
pub fn split(buf: &[u8]) -> Result<Option<(&[u8], usize)>> {
    let Some(prefix) = buf.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let len = u32::from_le_bytes(*prefix) as usize;
    if len == 0 || len > FRAME_BYTES_MAX {
        return Err(CodecError::BadField { what: "frame length", value: len as u64, at: 0 });
    }
    Ok(buf.get(PREFIX_BYTES..PREFIX_BYTES + len).map(|body| (body, PREFIX_BYTES + len)))
}

/// An execution's number as it stands in frames: 0 stands for none, so that numbers are one higher there.
#[must_use]
pub fn wire_number(execution: Option<ExecutionNo>) -> u64 {
    execution.map_or(0, |execution| execution.0 + 1)
}

fn write_execution(w: &mut Writer, execution: ExecutionNo) {
    w.varint(wire_number(Some(execution)));
}

fn read_optional_execution(r: &mut Reader<'_>) -> Result<Option<ExecutionNo>> {
    Ok(r.varint()?.checked_sub(1).map(ExecutionNo))
}

fn read_execution(r: &mut Reader<'_>) -> Result<ExecutionNo> {
    let at = r.position();
    read_optional_execution(r)?.ok_or(CodecError::BadField { what: "execution", value: 0, at })
}

fn write_records(w: &mut Writer, records: &Records<'_>) {
    w.varint(records.count);
    w.blob(records.bytes);
}

fn read_records<'a>(r: &mut Reader<'a>) -> Result<Records<'a>> {
    let at = r.position();
    let (count, bytes) = (r.varint()?, r.blob()?);
    if count > bytes.len() as u64 {
        return Err(CodecError::BadField { what: "record count", value: count, at });
    }
    Ok(Records { count, bytes })
}

fn write_function(w: &mut Writer, function: &Function<'_>) {
    w.varint(function.plan.0);
    w.blob(function.spec);
    w.blob(function.callbacks);
}

fn read_function<'a>(r: &mut Reader<'a>) -> Result<Function<'a>> {
    Ok(Function { plan: PlanNo(r.varint()?), spec: r.blob()?, callbacks: r.blob()? })
}

fn write_list<T>(w: &mut Writer, items: &[T], mut write: impl FnMut(&mut Writer, &T)) {
    w.varint(items.len() as u64);
    for item in items {
        write(w, item);
    }
}

fn read_list<'a, T>(r: &mut Reader<'a>, mut read: impl FnMut(&mut Reader<'a>) -> Result<T>) -> Result<Vec<T>> {
    let count = r.count(1)?;
    (0..count).map(|_| read(r)).collect()
}

fn read_bool(r: &mut Reader<'_>) -> Result<bool> {
    let at = r.position();
    match r.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(CodecError::BadField { what: "flag", value: u64::from(other), at }),
    }
}

fn finished<T>(r: &Reader<'_>, frame: T) -> Result<T> {
    if r.is_empty() {
        Ok(frame)
    } else {
        Err(CodecError::BadField { what: "trailing bytes", value: r.rest().len() as u64, at: r.position() })
    }
}

impl<'a> ToWorker<'a> {
    /// Appends this frame to `buf`; returns the number of bytes appended.
    pub fn write(&self, buf: &mut Vec<u8>) -> usize {
        append(buf, |w| match self {
            ToWorker::Hello { protocol, version, worker, threads, record_bytes_max } => {
                w.byte(kind::HELLO);
                w.varint(*protocol);
                w.blob(version.as_bytes());
                w.varint(worker.0);
                w.varint(*threads);
                w.varint(*record_bytes_max);
            }
            ToWorker::Script { request, session, name, source, paths, traceback } => {
                w.byte(kind::SCRIPT);
                w.varint(*request);
                w.varint(session.0);
                w.blob(name.as_bytes());
                w.blob(source);
                write_list(w, paths, |w, path| w.blob(path.as_bytes()));
                w.byte(u8::from(*traceback));
            }
            ToWorker::Restore { request, session, name, function, blobs, paths } => {
                w.byte(kind::RESTORE);
                w.varint(*request);
                w.varint(session.0);
                w.blob(name.as_bytes());
                w.byte(u8::from(function.is_some()));
                if let Some(function) = function {
                    write_function(w, function);
                }
                write_list(w, blobs, |w, blob| w.blob(blob));
                write_list(w, paths, |w, path| w.blob(path.as_bytes()));
            }
            ToWorker::Load { request, session, name, function, paths, traceback } => {
                w.byte(kind::LOAD);
                w.varint(*request);
                w.varint(session.0);
                w.blob(name.as_bytes());
                write_function(w, function);
                write_list(w, paths, |w, path| w.blob(path.as_bytes()));
                w.byte(u8::from(*traceback));
            }
            ToWorker::Registered { plan } => {
                w.byte(kind::REGISTERED);
                w.varint(plan.0);
            }
            ToWorker::Start { exec, plan, lane, flags, first_step, records } => {
                w.byte(kind::START);
                write_execution(w, *exec);
                w.varint(plan.0);
                w.varint(*lane);
                w.byte(flags.0);
                w.varint(*first_step);
                write_records(w, records);
            }
            ToWorker::Feed { exec, last, records } => {
                w.byte(kind::FEED);
                write_execution(w, *exec);
                w.byte(u8::from(*last));
                write_records(w, records);
            }
            ToWorker::Abort { exec, begun } => {
                w.byte(kind::ABORT);
                write_execution(w, *exec);
                w.byte(u8::from(*begun));
            }
            ToWorker::Reply { call, result } => {
                w.byte(kind::REPLY);
                w.varint(*call);
                match result {
                    Ok(value) => {
                        w.byte(1);
                        w.encoded(value);
                    }
                    Err(text) => {
                        w.byte(0);
                        w.blob(text.as_bytes());
                    }
                }
            }
            ToWorker::ForgetPlans { plans } => {
                w.byte(kind::FORGET_PLANS);
                write_list(w, plans, |w, plan| w.varint(plan.0));
            }
            ToWorker::ForgetSession { session } => {
                w.byte(kind::FORGET_SESSION);
                w.varint(session.0);
            }
            ToWorker::Threads { threads } => {
                w.byte(kind::THREADS);
                w.varint(*threads);
            }
            ToWorker::Shutdown => w.byte(kind::SHUTDOWN),
        })
    }

    /// Parses the body of a frame.
    ///
    /// # Errors
    /// Any [`CodecError`]: the bytes are not a frame of this protocol.
    pub fn parse(body: &'a [u8]) -> Result<ToWorker<'a>> {
        let r = &mut Reader::new(body);
        let frame = match r.byte()? {
            kind::HELLO => ToWorker::Hello {
                protocol: r.varint()?,
                version: r.text()?,
                worker: WorkerNo(r.varint()?),
                threads: r.varint()?,
                record_bytes_max: r.varint()?,
            },
            kind::SCRIPT => ToWorker::Script {
                request: r.varint()?,
                session: SessionNo(r.varint()?),
                name: r.text()?,
                source: r.blob()?,
                paths: read_list(r, Reader::text)?,
                traceback: read_bool(r)?,
            },
            kind::RESTORE => ToWorker::Restore {
                request: r.varint()?,
                session: SessionNo(r.varint()?),
                name: r.text()?,
                function: if read_bool(r)? { Some(read_function(r)?) } else { None },
                blobs: read_list(r, Reader::blob)?,
                paths: read_list(r, Reader::text)?,
            },
            kind::LOAD => ToWorker::Load {
                request: r.varint()?,
                session: SessionNo(r.varint()?),
                name: r.text()?,
                function: read_function(r)?,
                paths: read_list(r, Reader::text)?,
                traceback: read_bool(r)?,
            },
            kind::REGISTERED => ToWorker::Registered { plan: PlanNo(r.varint()?) },
            kind::START => ToWorker::Start {
                exec: read_execution(r)?,
                plan: PlanNo(r.varint()?),
                lane: r.varint()?,
                flags: StartFlags(r.byte()?),
                first_step: r.varint()?,
                records: read_records(r)?,
            },
            kind::FEED => ToWorker::Feed { exec: read_execution(r)?, last: read_bool(r)?, records: read_records(r)? },
            kind::ABORT => ToWorker::Abort { exec: read_execution(r)?, begun: read_bool(r)? },
            kind::REPLY => {
                let call = r.varint()?;
                let result = if read_bool(r)? { Ok(r.encoded_value()?) } else { Err(r.text()?) };
                ToWorker::Reply { call, result }
            }
            kind::FORGET_PLANS => ToWorker::ForgetPlans { plans: read_list(r, |r| Ok(PlanNo(r.varint()?)))? },
            kind::FORGET_SESSION => ToWorker::ForgetSession { session: SessionNo(r.varint()?) },
            kind::THREADS => ToWorker::Threads { threads: r.varint()? },
            kind::SHUTDOWN => ToWorker::Shutdown,
            tag => return Err(CodecError::UnknownTag { tag, at: 0 }),
        };
        finished(r, frame)
    }
}

impl<'a> FromWorker<'a> {
    /// Appends this frame to `buf`; returns the number of bytes appended.
    pub fn write(&self, buf: &mut Vec<u8>) -> usize {
        append(buf, |w| match self {
            FromWorker::Ready { protocol, codec, pid, python, package } => {
                w.byte(kind::READY);
                w.varint(*protocol);
                w.varint(*codec);
                w.varint(*pid);
                w.blob(python.as_bytes());
                w.blob(package.as_bytes());
            }
            FromWorker::ScriptDone { request, error, blob } => {
                w.byte(kind::SCRIPT_DONE);
                w.varint(*request);
                w.optional(error.map(str::as_bytes));
                w.blob(blob);
            }
            FromWorker::Call { call, exec, session, op } => {
                w.byte(kind::CALL);
                w.varint(*call);
                w.varint(wire_number(*exec));
                w.varint(session.0);
                op.write(w);
            }
            FromWorker::Progress { exec, step } => {
                w.byte(kind::PROGRESS);
                write_execution(w, *exec);
                w.varint(*step);
            }
            FromWorker::Output { exec, records } => {
                w.byte(kind::OUTPUT);
                write_execution(w, *exec);
                write_records(w, records);
            }
            FromWorker::Done { exec, aborted, records, errors, step_micros } => {
                w.byte(kind::DONE);
                write_execution(w, *exec);
                w.byte(u8::from(*aborted));
                write_records(w, records);
                write_list(w, errors, |w, error| w.blob(error));
                write_list(w, step_micros, |w, micros| w.varint(*micros));
            }
            FromWorker::Consumed { exec, bytes } => {
                w.byte(kind::CONSUMED);
                write_execution(w, *exec);
                w.varint(*bytes);
            }
            FromWorker::Stop { exec } => {
                w.byte(kind::STOP);
                write_execution(w, *exec);
            }
            FromWorker::Log { session, level, message } => {
                w.byte(kind::LOG);
                w.varint(session.map_or(0, |session| session.0));
                w.byte(*level as u8);
                w.blob(message);
            }
        })
    }

    /// Parses the body of a frame.
    ///
    /// # Errors
    /// Any [`CodecError`]: the bytes are not a frame of this protocol.
    pub fn parse(body: &'a [u8]) -> Result<FromWorker<'a>> {
        let r = &mut Reader::new(body);
        let frame = match r.byte()? {
            kind::READY => FromWorker::Ready {
                protocol: r.varint()?,
                codec: r.varint()?,
                pid: r.varint()?,
                python: r.text()?,
                package: r.text()?,
            },
            kind::SCRIPT_DONE => {
                let request = r.varint()?;
                let at = r.position();
                let error = match r.optional()? {
                    None => None,
                    Some(bytes) => Some(core::str::from_utf8(bytes).map_err(|_| CodecError::NotUtf8 { at })?),
                };
                FromWorker::ScriptDone { request, error, blob: r.blob()? }
            }
            kind::CALL => FromWorker::Call {
                call: r.varint()?,
                exec: read_optional_execution(r)?,
                session: SessionNo(r.varint()?),
                op: Call::parse(r)?,
            },
            kind::PROGRESS => FromWorker::Progress { exec: read_execution(r)?, step: r.varint()? },
            kind::OUTPUT => FromWorker::Output { exec: read_execution(r)?, records: read_records(r)? },
            kind::DONE => FromWorker::Done {
                exec: read_execution(r)?,
                aborted: read_bool(r)?,
                records: read_records(r)?,
                errors: read_list(r, Reader::blob)?,
                step_micros: read_list(r, Reader::varint)?,
            },
            kind::CONSUMED => FromWorker::Consumed { exec: read_execution(r)?, bytes: r.varint()? },
            kind::STOP => FromWorker::Stop { exec: read_execution(r)? },
            kind::LOG => {
                let session = Some(r.varint()?).filter(|number| *number > 0).map(SessionNo);
                let at = r.position();
                FromWorker::Log { session, level: LogLevel::from_byte(r.byte()?, at)?, message: r.blob()? }
            }
            tag => return Err(CodecError::UnknownTag { tag, at: 0 }),
        };
        finished(r, frame)
    }
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

impl Subject {
    /// Looks at the body of a frame of a worker.
    ///
    /// # Errors
    /// Any [`CodecError`]: the bytes are not a frame of this protocol.
    pub fn of(body: &[u8]) -> Result<Subject> {
        let r = &mut Reader::new(body);
        Ok(match r.byte()? {
            kind::READY => Subject::Worker,
            kind::SCRIPT_DONE => Subject::Session(SessionNo(r.varint()?)),
            kind::CALL => {
                r.varint()?;
                match read_optional_execution(r)? {
                    Some(execution) => Subject::Execution(execution),
                    None => Subject::Session(SessionNo(r.varint()?)),
                }
            }
            kind::PROGRESS | kind::OUTPUT | kind::DONE | kind::CONSUMED | kind::STOP => {
                Subject::Execution(read_execution(r)?)
            }
            kind::LOG => Subject::Log,
            tag => return Err(CodecError::UnknownTag { tag, at: 0 }),
        })
    }
}

impl<'a> Call<'a> {
    fn write(&self, w: &mut Writer) {
        match self {
            Call::Execute { argv } => {
                w.byte(kind::EXECUTE);
                write_list(w, argv, |w, arg| w.blob(arg));
            }
            Call::Run { plan, spec } => {
                w.byte(kind::RUN);
                w.varint(plan.0);
                w.blob(spec);
            }
            Call::Register { plan, spec, blob } => {
                w.byte(kind::REGISTER);
                w.varint(plan.0);
                w.blob(spec);
                w.blob(blob);
            }
            Call::AtomicEnter => w.byte(kind::ATOMIC_ENTER),
            Call::AtomicExit => w.byte(kind::ATOMIC_EXIT),
            Call::ConfigGet { key } => {
                w.byte(kind::CONFIG_GET);
                w.blob(key);
            }
            Call::HashTag => w.byte(kind::HASH_TAG),
        }
    }

    fn parse(r: &mut Reader<'a>) -> Result<Call<'a>> {
        let at = r.position();
        Ok(match r.byte()? {
            kind::EXECUTE => Call::Execute { argv: read_list(r, Reader::blob)? },
            kind::RUN => Call::Run { plan: PlanNo(r.varint()?), spec: r.blob()? },
            kind::REGISTER => Call::Register { plan: PlanNo(r.varint()?), spec: r.blob()?, blob: r.blob()? },
            kind::ATOMIC_ENTER => Call::AtomicEnter,
            kind::ATOMIC_EXIT => Call::AtomicExit,
            kind::CONFIG_GET => Call::ConfigGet { key: r.blob()? },
            kind::HASH_TAG => Call::HashTag,
            tag => return Err(CodecError::UnknownTag { tag, at }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn to_worker_frames() -> Vec<ToWorker<'static>> {
        let records = Records { count: 2, bytes: &[0, 2] };
        let function = Function { plan: PlanNo(1 << 63), spec: b"spec", callbacks: b"" };
        vec![
            ToWorker::Hello {
                protocol: 1,
                version: "1.0.0",
                worker: WorkerNo(3),
                threads: 4,
                record_bytes_max: 1 << 26,
            },
            ToWorker::Script {
                request: 1,
                session: SessionNo(2),
                name: "s",
                source: b"GB()\0\xff",
                paths: vec!["/a", "/b"],
                traceback: true,
            },
            ToWorker::Restore {
                request: 1,
                session: SessionNo(2),
                name: "s",
                function: None,
                blobs: vec![b"p", b""],
                paths: vec![],
            },
            ToWorker::Restore {
                request: 1,
                session: SessionNo(2),
                name: "s",
                function: Some(function),
                blobs: vec![],
                paths: vec!["/a"],
            },
            ToWorker::Load {
                request: 1,
                session: SessionNo(2),
                name: "s",
                function,
                paths: vec!["/a"],
                traceback: true,
            },
            ToWorker::Registered { plan: PlanNo(4) },
            ToWorker::Start {
                exec: ExecutionNo(9),
                plan: PlanNo(4),
                lane: 0,
                flags: StartFlags::LAST,
                first_step: 1,
                records,
            },
            ToWorker::Feed { exec: ExecutionNo(9), last: true, records },
            ToWorker::Abort { exec: ExecutionNo(9), begun: true },
            ToWorker::Reply { call: 5, result: Ok(&[9, 1, 0]) },
            ToWorker::Reply { call: 5, result: Err("ERR unknown") },
            ToWorker::ForgetPlans { plans: vec![PlanNo(1), PlanNo(2)] },
            ToWorker::ForgetSession { session: SessionNo(2) },
            ToWorker::Threads { threads: 2 },
            ToWorker::Shutdown,
        ]
    }

    fn from_worker_frames() -> Vec<FromWorker<'static>> {
        let records = Records { count: 2, bytes: &[0, 2] };
        let call = |op| FromWorker::Call { call: 1, exec: Some(ExecutionNo(2)), session: SessionNo(3), op };
        vec![
            FromWorker::Ready { protocol: 1, codec: 1, pid: 77, python: "3.11.7", package: "1.0.0" },
            FromWorker::ScriptDone { request: 1, error: Some("['Traceback']"), blob: b"" },
            FromWorker::ScriptDone { request: 1, error: None, blob: b"pickle" },
            call(Call::Execute { argv: vec![b"set", b"\0", b""] }),
            call(Call::Run { plan: PlanNo(1), spec: b"spec" }),
            call(Call::Register { plan: PlanNo(1), spec: b"spec", blob: b"blob" }),
            call(Call::AtomicEnter),
            call(Call::AtomicExit),
            call(Call::ConfigGet { key: b"k" }),
            call(Call::HashTag),
            FromWorker::Progress { exec: ExecutionNo(2), step: 1 },
            FromWorker::Output { exec: ExecutionNo(2), records },
            FromWorker::Done {
                exec: ExecutionNo(2),
                aborted: false,
                records,
                errors: vec![b"boom"],
                step_micros: vec![1, 2],
            },
            FromWorker::Consumed { exec: ExecutionNo(2), bytes: 512 },
            FromWorker::Stop { exec: ExecutionNo(2) },
            FromWorker::Log { session: None, level: LogLevel::Notice, message: b"100 %s \0" },
        ]
    }

    #[test]
    fn each_frame_survives_the_round_trip_and_several_share_a_buffer() {
        let mut buf = Vec::new();
        for frame in to_worker_frames() {
            frame.write(&mut buf);
        }
        let mut rest = &buf[..];
        for frame in to_worker_frames() {
            let (body, taken) = split(rest).unwrap().unwrap();
            assert_eq!(ToWorker::parse(body).unwrap(), frame);
            rest = &rest[taken..];
        }
        assert!(rest.is_empty());
        for frame in from_worker_frames() {
            let mut buf = Vec::new();
            assert_eq!(frame.write(&mut buf), buf.len());
            let (body, taken) = split(&buf).unwrap().unwrap();
            assert_eq!((FromWorker::parse(body).unwrap(), taken), (frame, buf.len()));
        }
    }

    #[test]
    fn the_subject_of_a_frame_is_known_without_parsing_it() {
        for frame in from_worker_frames() {
            let mut buf = Vec::new();
            frame.write(&mut buf);
            let expected = match frame {
                FromWorker::Ready { .. } => Subject::Worker,
                FromWorker::ScriptDone { request, .. } => Subject::Session(SessionNo(request)),
                FromWorker::Call { exec: None, session, .. } => Subject::Session(session),
                FromWorker::Call { exec: Some(exec), .. }
                | FromWorker::Progress { exec, .. }
                | FromWorker::Output { exec, .. }
                | FromWorker::Done { exec, .. }
                | FromWorker::Consumed { exec, .. }
                | FromWorker::Stop { exec } => Subject::Execution(exec),
                FromWorker::Log { .. } => Subject::Log,
            };
            assert_eq!(Subject::of(&buf[PREFIX_BYTES..]), Ok(expected));
        }
        assert!(Subject::of(&[99]).is_err() && Subject::of(&[70, 0]).is_err());
    }

    #[test]
    fn every_truncated_frame_is_an_error() {
        for frame in from_worker_frames() {
            let mut buf = Vec::new();
            frame.write(&mut buf);
            let body = &buf[PREFIX_BYTES..];
            for len in 0..body.len() {
                assert!(FromWorker::parse(&body[..len]).is_err(), "{frame:?} cut to {len} bytes");
            }
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_the_body_arrives() {
        assert!(split(&u32::MAX.to_le_bytes()).is_err());
        assert!(split(&0u32.to_le_bytes()).is_err());
        assert_eq!(split(&[1, 0]), Ok(None));
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = split(&bytes);
            let _ = FromWorker::parse(&bytes);
            let _ = ToWorker::parse(&bytes);
        }
    }
}
