//! What several frames have.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize, Serializer};
use serde_bytes::Bytes;

use crate::id::PlanNo;

/// How a [`ToWorker::Start`](super::ToWorker::Start) wants to be run: a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    /// Each result is pickled as a whole.
    pub const PICKLED: StartFlags = StartFlags(64);

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "(u64, &[u8])")]
pub struct Records<'a> {
    /// Number of records.
    pub count: u64,
    /// Their encoded form.
    #[serde(with = "serde_bytes")]
    pub bytes: &'a [u8],
}

impl<'a> TryFrom<(u64, &'a [u8])> for Records<'a> {
    type Error = &'static str;

    fn try_from((count, bytes): (u64, &'a [u8])) -> Result<Records<'a>, &'static str> {
        if count > bytes.len() as u64 { Err("more records than bytes") } else { Ok(Records { count, bytes }) }
    }
}

/// A function that a client sent as plan and callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function<'a> {
    /// The number that the plan gets.
    pub plan: PlanNo,
    /// An encoded plan: see [`crate::plan::PlanSpec`].
    #[serde(with = "serde_bytes")]
    pub spec: &'a [u8],
    /// Pickle of the plan with its callbacks, as the client made it.
    #[serde(with = "serde_bytes")]
    pub callbacks: &'a [u8],
}

/// How important a line of the log is: the server's own levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogLevel {
    /// For developers.
    Debug,
    /// More than operators usually want.
    Verbose,
    /// What an operator wants to know.
    Notice,
    /// What an operator must know.
    Warning,
}

impl LogLevel {
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

/// Writes each byte string in one piece; serde itself writes them byte by byte.
pub(crate) fn byte_strings<S: Serializer>(strings: &Vec<&[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(strings.iter().map(|string| Bytes::new(string)))
}
