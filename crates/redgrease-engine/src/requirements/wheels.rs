//! Wheels on their way: to replicas and files, to clients that export them, from clients that import them.

use crate::clients::Client;
use crate::id::Counter;
use crate::prelude::*;
use crate::requirements::installs::Owner;

/// What waits until the wheels of a set were sent.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Who waits.
    pub(crate) owner: Owner,
    /// The directories of the set.
    pub(crate) paths: Vec<String>,
}

/// A client that exports a requirement.
#[derive(Debug)]
pub(crate) struct Export {
    /// The client.
    pub(crate) client: Client,
    /// The requirement.
    pub(crate) name: String,
    /// The set that it is in.
    pub(crate) environment: Rc<str>,
}

/// A client that imports a requirement.
#[derive(Debug)]
pub(crate) struct Import {
    /// The client.
    pub(crate) client: Client,
    /// The requirement.
    pub(crate) name: String,
}

/// The wheels.
#[derive(Debug, Default)]
pub(crate) struct Wheels {
    /// Sets of requirements whose wheels replicas and the append-only file have.
    pub(crate) shared: BTreeSet<Rc<str>>,
    /// Sets whose wheels are being sent, and what waits for that.
    pub(crate) sharing: BTreeMap<Rc<str>, Vec<Waiting>>,
    /// Sets of imported requirements.
    pub(crate) imported: BTreeSet<Rc<str>>,
    /// Imports, by their numbers.
    pub(crate) imports: BTreeMap<u64, Import>,
    /// Exports, by their numbers.
    pub(crate) exports: BTreeMap<u64, Export>,
    /// Numbers of exports and imports.
    pub(crate) counter: Counter,
}
