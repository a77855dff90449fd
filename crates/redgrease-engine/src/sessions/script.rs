//! A script that has not ended.

use redgrease_core::id::{ExecutionNo, RegistrationNo};

use crate::clients::Client;
use crate::input::Caller;
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
    /// What its client asked it to replace.
    pub(crate) replacing: Replacing,
    /// What that is.
    pub(crate) replaces: Option<Replaced>,
    /// Requirements are installed again even if they are there.
    pub(crate) force_reinstall: bool,
}

/// Which session or registration a client wants to be replaced.
#[derive(Debug)]
pub(crate) struct Replacing {
    /// The client.
    pub(crate) caller: Caller,
    /// The id of the new session.
    pub(crate) id: Option<String>,
    /// A session of that id is replaced.
    pub(crate) upgrade: bool,
    /// The id of the session or registration that is replaced.
    pub(crate) replace_with: Option<String>,
}
