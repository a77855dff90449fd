//! Clients that wait for the functions of the events that their commands fired.

use redgrease_core::id::{ExecutionNo, RegistrationNo};
use redgrease_core::render::Reply;

use crate::clients::Client;
use crate::effect::Argv;
use crate::events::pending::KeyEvent;
use crate::id::Counter;
use crate::prelude::*;

/// A client that waits for the functions of the events that its command fired.
#[derive(Debug)]
pub(crate) struct Intercepted {
    /// The client.
    pub(crate) client: Client,
    /// Its command.
    pub(crate) argv: Argv,
    /// The registrations whose functions it waits for.
    pub(crate) registrations: Vec<RegistrationNo>,
    /// The client can be blocked.
    pub(crate) can_wait: bool,
    /// The command has ended.
    pub(crate) done: bool,
    /// It was blocked.
    pub(crate) blocked: bool,
    /// Sync functions, which run when the command has ended.
    pub(crate) events: Vec<KeyEvent>,
    /// Executions that have not ended.
    pub(crate) running: BTreeSet<ExecutionNo>,
    /// The reply that a function gave.
    pub(crate) reply: Option<Reply>,
}

/// Those clients, by a number.
#[derive(Debug, Default)]
pub(crate) struct Interceptions {
    /// Makes the numbers.
    pub(crate) counter: Counter,
    /// The clients.
    pub(crate) all: BTreeMap<u64, Intercepted>,
    /// The one whose command is running.
    pub(crate) current: Option<u64>,
}

impl Interceptions {
    /// Number of the clients.
    #[cfg(feature = "simulation")]
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether the running command is one whose client waits for events of a registration.
    pub(crate) fn waits_for(&self, registration: RegistrationNo) -> bool {
        let current = self.current.and_then(|current| self.all.get(&current));
        current.is_some_and(|current| current.registrations.contains(&registration))
    }
}
