//! What failed, and the fix: an error with a class, which is the exit code of the program.

use std::fmt;

/// The class of an error. The numbers are the exit codes, listed in docs/cli.md; 10 and above are those of the file cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// It ran, and what it did failed: an error reply, an exception, a script that was not loaded.
    Failed = 1,
    /// An option, an environment variable or a configuration file is wrong.
    Usage = 2,
    /// No server answers.
    Unreachable = 3,
    /// The server does not have the module.
    NoModule = 4,
    /// The user may not do this, or did not authenticate.
    Denied = 5,
    /// No encrypted connection.
    Tls = 6,
    /// A deadline passed.
    Timeout = 7,
    /// A file or directory does not exist, or cannot be read.
    Path = 8,
}

impl Class {
    /// The exit code.
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

/// An error: one line what, and one line the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What kind of error it is.
    pub class: Class,
    /// What failed, with the value seen.
    pub what: String,
    /// How to fix it; `None` if `what` says all, as the traceback of a script does.
    pub fix: Option<String>,
}

impl Error {
    /// An error whose fix is known.
    pub fn new(class: Class, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { class, what: what.into(), fix: Some(fix.into()) }
    }

    /// An error whose text says all.
    pub fn plain(class: Class, what: impl Into<String>) -> Self {
        Self { class, what: what.into(), fix: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)?;
        match &self.fix {
            Some(fix) => write!(formatter, "\nfix: {fix}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
