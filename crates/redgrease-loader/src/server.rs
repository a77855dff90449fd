//! What the loader needs of a server.

use std::collections::BTreeMap;
use std::time::Duration;

use redgrease::PythonError;

use crate::error::Error;

/// A script to run.
#[derive(Debug, Clone)]
pub struct Script<'a> {
    /// Its text.
    pub text: &'a [u8],
    /// The session that it belongs to: what this session registered before is replaced. `None`: one of its own.
    pub session: Option<&'a str>,
    /// Describes the session in lists.
    pub description: &'a str,
    /// Do not wait for what it runs.
    pub unblocking: bool,
    /// The packages that it needs.
    pub requirements: &'a [String],
    /// The longest time to wait for the reply.
    pub timeout: Duration,
}

/// What a script did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The number of results, if it ran a function.
    pub results: Option<usize>,
    /// What its functions raised.
    pub errors: Vec<PythonError>,
    /// The execution that it began, if it was not waited for.
    pub execution: Option<String>,
}

/// A server with the module.
pub trait Server: Send {
    /// Connects again, after an error of the connection.
    ///
    /// # Errors
    /// No connection, or the server does not have the module.
    fn connect(&mut self) -> Result<(), Error>;

    /// Whether the connection works.
    ///
    /// # Errors
    /// It does not.
    fn ping(&mut self) -> Result<(), Error>;

    /// Runs a script.
    ///
    /// # Errors
    /// The script raised an exception, whose text has the traceback, or could not be run.
    fn execute(&mut self, script: &Script<'_>) -> Result<Outcome, Error>;

    /// The ids of the registrations of these sessions, in order. Sessions that do not exist are left out.
    ///
    /// # Errors
    /// The server did not answer, or refused.
    fn registrations(&mut self, sessions: &[String]) -> Result<BTreeMap<String, Vec<String>>, Error>;

    /// Removes a registration; whether it existed.
    ///
    /// # Errors
    /// The server did not answer, or refused.
    fn unregister(&mut self, registration: &str) -> Result<bool, Error>;

    /// Writes fields of a hash.
    ///
    /// # Errors
    /// The server did not answer, or refused.
    fn write_hash(&mut self, key: &[u8], fields: &[(&str, String)]) -> Result<(), Error>;

    /// Reads a field of a hash.
    ///
    /// # Errors
    /// The server did not answer, or refused.
    fn read_hash(&mut self, key: &[u8], field: &str) -> Result<Option<String>, Error>;

    /// Deletes a key.
    ///
    /// # Errors
    /// The server did not answer, or refused.
    fn delete(&mut self, key: &[u8]) -> Result<(), Error>;

    /// Its address, for messages.
    fn place(&self) -> String;
}
