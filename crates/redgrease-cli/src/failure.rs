//! What failed, and the fix: the failures that subcommands share.

use redis::RedisError;

pub use redgrease_loader::error::{Class, Error as Failure};
use redgrease_loader::explain;
pub use redgrease_loader::explain::unreadable;

/// The failure behind an error of redis-rs; `place` is the server that the command was sent to.
pub fn of_command(error: RedisError, place: &str) -> Failure {
    explain::of_client(error.into(), place)
}

/// The failure behind an error of the client.
pub fn of_client(error: redgrease::Error) -> Failure {
    explain::of_client(error, "the server")
}
