//! Options of commands.

/// The arguments of a triggered function that takes none.
pub const NO_ARGUMENTS: &[&str] = &[];

/// What happens to executions that wait when their registration ends or pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Pending {
    /// They still run.
    #[default]
    Run,
    /// They are aborted.
    Abort,
}

/// The shards on which to look for an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Locality {
    /// The one that is asked.
    Shard,
    /// All.
    Cluster,
}

/// Which sessions are listed, and how.
///
/// ```
/// use redgrease::SessionQuery;
///
/// let query = SessionQuery::all().verbose();
/// ```
#[derive(Debug, Clone, Default)]
pub struct SessionQuery {
    pub(crate) verbose: bool,
    pub(crate) dead: bool,
    pub(crate) ids: Option<Vec<String>>,
}

impl SessionQuery {
    /// All sessions.
    #[must_use]
    pub fn all() -> SessionQuery {
        SessionQuery::default()
    }

    /// These sessions.
    #[must_use]
    pub fn of(ids: impl IntoIterator<Item = impl Into<String>>) -> SessionQuery {
        SessionQuery { ids: Some(ids.into_iter().map(Into::into).collect()), ..SessionQuery::default() }
    }

    /// With all that the server knows of their requirements and registrations.
    #[must_use]
    pub fn verbose(mut self) -> SessionQuery {
        self.verbose = true;
        self
    }

    /// Only those that exist until their executions end.
    #[must_use]
    pub fn dead(mut self) -> SessionQuery {
        self.dead = true;
        self
    }
}
