//! Clients that wait for the profile of a session.

use redgrease_core::id::WorkerNo;

use crate::clients::Client;
use crate::id::Counter;
use crate::prelude::*;

/// Clients that wait for the profile of a session, by the number of their request.
#[derive(Debug, Default)]
pub(crate) struct Profiles {
    /// Makes the numbers.
    pub(crate) counter: Counter,
    /// The clients.
    pub(crate) waiting: BTreeMap<u64, Waiting>,
}

/// A client that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The client.
    pub(crate) client: Client,
    /// The worker that was asked.
    pub(crate) worker: WorkerNo,
    /// It wants the statistics: it is answered with them.
    pub(crate) statistics: bool,
}

impl Profiles {
    /// Number of the clients.
    #[cfg(feature = "simulation")]
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}
