//! Errors of the cache: one type with a stable code.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

/// An error of a producer, unchanged.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Kinds of errors; the names are stable: they are exit codes of the command and attributes of Python's exceptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The key has no content.
    Missing,
    /// The key already has content.
    Exists,
    /// Another call writes the key.
    Busy,
    /// Waiting ended at its deadline.
    Timeout,
    /// The lease expired during the operation.
    LeaseLost,
    /// Larger than an entry may be.
    TooLarge,
    /// No space in the cache or on the disk, and nothing to evict.
    NoSpace,
    /// The operating system or the server's access list forbids it.
    Denied,
    /// The file differs from what was written.
    Corrupt,
    /// The server cannot be reached or does not answer.
    Unavailable,
    /// The file system failed.
    Io,
    /// Not a valid key.
    BadKey,
    /// Wrong options, or a directory and an index that do not belong together.
    BadConfig,
    /// The producer failed.
    Producer,
}

impl Code {
    /// The name of the code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Exists => "exists",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::LeaseLost => "lease-lost",
            Self::TooLarge => "too-large",
            Self::NoSpace => "no-space",
            Self::Denied => "denied",
            Self::Corrupt => "corrupt",
            Self::Unavailable => "unavailable",
            Self::Io => "io",
            Self::BadKey => "bad-key",
            Self::BadConfig => "bad-config",
            Self::Producer => "producer",
        }
    }

    /// The exit code of the command line. 0, 1 and 2 are not used.
    pub fn exit_status(self) -> u8 {
        10 + self as u8
    }
}

/// An error: operation, key and cause.
pub struct Error {
    operation: &'static str,
    key: Option<Vec<u8>>,
    cause: Box<Cause>,
}

/// The cause of an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Cause {
    #[error("it has no content")]
    Missing,
    #[error("it already has content; replace it or delete it first")]
    Exists,
    #[error("{who} is writing it; wait with a timeout")]
    Busy { who: String },
    #[error("the same thread is writing it, and cannot wait for itself")]
    Own,
    #[error("{who} was still writing it after {waited:.1?}; the timeout is too short, or `locks` shows the holder")]
    Timeout { who: String, waited: Duration },
    #[error("waiting was interrupted")]
    Interrupted,
    #[error("the lease is lost: {0}; nothing was published")]
    LeaseLost(&'static str),
    #[error("larger than {limit} bytes, the limit of one entry; raise max_entry_bytes or max_bytes")]
    TooLarge { limit: u64 },
    #[error("no space: {0}")]
    NoSpace(String),
    #[error("not permitted: {0}")]
    Denied(String),
    #[error("its file was damaged ({what}); {left}")]
    Corrupt { what: String, left: String },
    #[error("the index cannot be used: {0}")]
    Unavailable(String),
    #[error("{0}")]
    Io(io::Error),
    #[error("not a key: {0}; a key is 1 to 4096 bytes")]
    BadKey(String),
    #[error("{0}")]
    BadConfig(String),
    #[error("the producer failed: {0}")]
    Producer(BoxError),
}

impl Error {
    pub(crate) fn new(operation: &'static str, key: Option<&[u8]>, cause: Cause) -> Self {
        Self { operation, key: key.map(<[u8]>::to_vec), cause: Box::new(cause) }
    }

    /// The code.
    pub fn code(&self) -> Code {
        match *self.cause {
            Cause::Missing => Code::Missing,
            Cause::Exists => Code::Exists,
            Cause::Busy { .. } | Cause::Own => Code::Busy,
            Cause::Timeout { .. } | Cause::Interrupted => Code::Timeout,
            Cause::LeaseLost(_) => Code::LeaseLost,
            Cause::TooLarge { .. } => Code::TooLarge,
            Cause::NoSpace(_) => Code::NoSpace,
            Cause::Denied(_) => Code::Denied,
            Cause::Corrupt { .. } => Code::Corrupt,
            Cause::Unavailable(_) => Code::Unavailable,
            Cause::Io(_) => Code::Io,
            Cause::BadKey(_) => Code::BadKey,
            Cause::BadConfig(_) => Code::BadConfig,
            Cause::Producer(_) => Code::Producer,
        }
    }

    /// The cause, without operation and key.
    pub(crate) fn reason(&self) -> String {
        self.cause.to_string()
    }

    /// The operation: the name of the method.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The key, if there is one.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// The operating system's error number, if there is one.
    pub fn os_error(&self) -> Option<i32> {
        match &*self.cause {
            Cause::Io(error) => error.raw_os_error(),
            _ => None,
        }
    }

    /// The producer's own error, if it is one.
    pub fn into_producer_error(self) -> Result<BoxError, Self> {
        match *self.cause {
            Cause::Producer(error) => Ok(error),
            cause => Err(Self { cause: Box::new(cause), ..self }),
        }
    }

    /// An error of the file system.
    pub(crate) fn io(operation: &'static str, key: Option<&[u8]>, error: io::Error) -> Self {
        let cause = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Cause::Denied(error.to_string()),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Cause::NoSpace(error.to_string()),
            _ => Cause::Io(error),
        };
        Self::new(operation, key, cause)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.key {
            Some(key) => write!(formatter, "{} {}: {}", self.operation, Shown(key), self.cause),
            None => write!(formatter, "{}: {}", self.operation, self.cause),
        }
    }
}

/// Readable output: the key is shown as text.
impl std::fmt::Debug for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Error({}: {self})", self.code().as_str())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The message contains the cause, so the source is the cause's own source.
        match &*self.cause {
            Cause::Io(error) => error.source(),
            Cause::Producer(error) => error.source(),
            _ => None,
        }
    }
}

/// A key for messages: quoted, escaped and shortened to a line.
pub(crate) struct Shown<'a>(pub &'a [u8]);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MOST: usize = 80;
        formatter.write_char('"')?;
        for chunk in self.0[..self.0.len().min(MOST)].utf8_chunks() {
            write!(formatter, "{}", chunk.valid().escape_debug())?;
            chunk.invalid().iter().try_for_each(|byte| write!(formatter, "\\x{byte:02x}"))?;
        }
        formatter.write_char('"')?;
        if self.0.len() > MOST {
            write!(formatter, "... ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_operation_and_key_and_hides_nothing_dangerous_in_it() {
        let error = Error::new("read", Some(b"a\n\xff\x1b[2J"), Cause::Missing);
        assert_eq!(error.to_string(), r#"read "a\n\xff\u{1b}[2J": it has no content"#);
        assert_eq!((error.code(), error.code().as_str(), error.code().exit_status()), (Code::Missing, "missing", 10));
        let long = Error::new("read", Some(&[b'x'; 4096]), Cause::Missing).to_string();
        assert!(long.len() < 200 && long.contains("(4096 bytes)"), "{long}");
    }
}
