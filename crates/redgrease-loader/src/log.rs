//! Lines of the log: their levels, and where they are written.

use std::fmt;
use std::sync::Arc;

/// The importance of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// What was looked at and why nothing was done.
    Debug,
    /// What was done.
    Info,
    /// What may be a mistake.
    Warning,
    /// What failed.
    Error,
}

impl Level {
    /// All levels, the least important first.
    pub const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warning, Self::Error];

    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// Writes lines of the log. Messages may have several lines, as tracebacks do.
pub type Log = Arc<dyn Fn(Level, &str) + Send + Sync>;
