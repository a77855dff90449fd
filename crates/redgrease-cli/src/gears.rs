//! Connections to servers with the module.

use std::time::Duration;

use redis::{Connection, ProtocolVersion};

use crate::connection::{ConnectionOptions, Target};
use crate::failure::{self, Failure};

pub use crate::failure::of_client as failed;

/// Deadline of replies that come at once.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects for commands that are answered at once.
pub fn connect(options: &ConnectionOptions) -> Result<Connection, Failure> {
    open(&options.target()?, Some(REPLY_TIMEOUT))
}

/// Connects to a server; `reply_timeout` bounds every wait for a reply.
pub fn open(target: &Target, reply_timeout: Option<Duration>) -> Result<Connection, Failure> {
    target.connect(ProtocolVersion::RESP3, reply_timeout)
}

/// The text of INFO; some of its sections, or all.
pub fn info(connection: &mut Connection, sections: &[&str]) -> Result<String, Failure> {
    redis::cmd("INFO").arg(sections).query(connection).map_err(|error| failure::of_command(error, "the server"))
}
