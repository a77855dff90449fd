//! A script that has not ended.

use redgrease_core::id::{ExecutionNo, RegistrationNo};

use crate::clients::Client;
use crate::prelude::*;
use crate::registrations::registry::{Registration, Replaced};

/// A script, or a function sent without one, that has not ended: it waits for requirements or a worker, or runs.
#[derive(Debug)]
pub(crate) struct Script {
    /// The client that sent it.
    pub(crate) client: Client,
    /// The client wants the id of the execution and not its results.
    pub(crate) unblocking: bool,
    /// Results are tagged.
    pub(crate) tagged: bool,
    /// The execution that it requested, which starts when the script has ended.
    pub(crate) run: Option<ExecutionNo>,
    /// Its registrations, which become active when the script has ended.
    pub(crate) pending: Vec<(RegistrationNo, Registration)>,
    /// What it replaces.
    pub(crate) replaces: Option<Replaced>,
    /// Requirements are installed again even if they are there.
    pub(crate) force_reinstall: bool,
}
