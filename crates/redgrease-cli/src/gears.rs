//! Connections to servers with the module.

use std::time::Duration;

use anyhow::Result;
use redgrease::Error;
use redis::{Connection, ProtocolVersion};

use crate::connection::{ConnectionOptions, Target};
use crate::failure::{self, Class, Failure};
use crate::misuse::misuse;

/// Deadline of replies that come at once.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects for commands that are answered at once.
pub fn connect(options: &ConnectionOptions) -> Result<Connection> {
    open(&options.target()?, Some(REPLY_TIMEOUT))
}

/// Connects to a server; `reply_timeout` bounds every wait for a reply.
pub fn open(target: &Target, reply_timeout: Option<Duration>) -> Result<Connection> {
    Ok(target.connect(ProtocolVersion::RESP3, reply_timeout)?)
}

/// The failure behind an error of the client.
pub fn failed(error: Error) -> anyhow::Error {
    let what = error.what().into_owned();
    let failure = match &error {
        Error::Argument { fix, .. } => return misuse(format!("{what}: {fix}")),
        Error::Authentication { reason } | Error::NoPermission { reason } => failure::of_reply(reason),
        Error::NoModule { command } => failure::of_reply(&format!("ERR unknown command '{command}'")),
        Error::Unreachable { .. } | Error::Disconnected { .. } => {
            Failure::new(Class::Unreachable, what, "look at the log of the server: it may have stopped")
        }
        Error::Tls { .. } => Failure::plain(Class::Tls, what),
        Error::Timeout { .. } => {
            Failure::new(Class::Timeout, what, "see what the server is doing with `redgrease top`, or wait longer")
        }
        Error::Server(_) | Error::Execution { .. } => {
            Failure { class: Class::Failed, what, fix: error.fix().map(|fix| fix.into_owned()) }
        }
        _ => Failure::plain(Class::Failed, what),
    };
    failure.into()
}

/// The text of INFO; some of its sections, or all.
pub fn info(connection: &mut Connection, sections: &[&str]) -> Result<String> {
    redis::cmd("INFO").arg(sections).query(connection).map_err(|error| failure::of_command(&error, "the server").into())
}
