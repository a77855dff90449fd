//! Commands that the driver runs for a reader or a stream registration.

use redgrease_core::id::Database;
use redgrease_engine::input::Actor;
use redgrease_ffi::call::{CallError, ReplyKind};
use redgrease_ffi::keyspace::Access;
use redgrease_ffi::{CallOptions, CallReply};

use super::permissions::missing;
use crate::driver::Driver;
use crate::error::Error;

/// The meaning of an error's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The stream, or its consumer group, does not exist.
    NoGroup,
    /// The user may not run the command, or not with these keys.
    NoPermission,
    /// Clients are paused.
    Paused,
    /// Anything else.
    Other,
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The meaning of its code.
    pub code: Code,
    /// The text, which begins with the code.
    pub text: String,
}

impl From<Failure> for String {
    fn from(failure: Failure) -> String {
        failure.text
    }
}

/// Redis 7.0's text for missing permissions: without the code that clients get.
pub const DENIED_BEFORE_7_2: &str = "ERR acl verification failed, ";

/// Parses the code of an error of the server; no other function does.
fn code_of(text: &str) -> Code {
    if text.starts_with(DENIED_BEFORE_7_2) {
        return Code::NoPermission;
    }
    match text.split(' ').next() {
        Some("NOGROUP") => Code::NoGroup,
        Some("NOPERM") => Code::NoPermission,
        _ => Code::Other,
    }
}

/// Runs a reading command whose reply is not shown to users.
pub fn look_up(driver: &Driver, database: Database, argv: &[&[u8]]) -> Result<CallReply, Failure> {
    call(driver, CallOptions { database: database.0, ..CallOptions::default() }, None, argv)
}

/// Runs a reading command as a user; `key` is its key, if it has one.
pub fn read(driver: &Driver, actor: &Actor, key: Option<&[u8]>, argv: &[&[u8]]) -> Result<CallReply, Failure> {
    let options = CallOptions { database: actor.database.0, user: Some(&actor.user), ..CallOptions::default() };
    call(driver, options, key.map(|key| (key, Access::Read)), argv)
}

/// Runs a command that changes a stream as a user; its effects are replicated.
pub fn write_stream(driver: &Driver, actor: &Actor, stream: &[u8], argv: &[&[u8]]) -> Result<CallReply, Failure> {
    // The server would abort on an assertion. The engine requests no such command while clients are paused, but an
    // effect before this one may have paused them.
    if driver.server.must_not_replicate() {
        return Err(Failure { code: Code::Paused, text: Error::Paused.into() });
    }
    let options =
        CallOptions { database: actor.database.0, user: Some(&actor.user), replicate: true, ..CallOptions::default() };
    call(driver, options, Some((stream, Access::Write)), argv)
}

/// Runs a command. `key` is its key and the access to it: an error says whether the user lacks permission for that. Misses
/// of the command are not events.
pub fn call(
    driver: &Driver,
    options: CallOptions<'_>,
    key: Option<(&[u8], Access)>,
    argv: &[&[u8]],
) -> Result<CallReply, Failure> {
    let result = {
        let _own = driver.muted.enter();
        driver.server.call(argv, options)
    };
    let reply = result.map_err(|error| match error {
        CallError::NoUser(user) => Failure { code: Code::NoPermission, text: Error::NoUser(user).into() },
        _ => Failure { code: Code::Other, text: Error::NotRead.into() },
    })?;
    if reply.view().kind() != ReplyKind::Error {
        return Ok(reply);
    }
    let text = String::from_utf8_lossy(reply.view().bytes()).into_owned();
    let code = code_of(&text);
    let text = match options.user {
        Some(user) if code == Code::NoPermission => missing(driver, user, key, argv[0]).into(),
        _ => text,
    };
    Err(Failure { code, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_an_error_is_its_first_word_only() {
        let table = [
            ("NOGROUP No such key 's' or consumer group 'g'", Code::NoGroup),
            ("NOPERM User bob has no permissions to run the 'get' command", Code::NoPermission),
            ("ERR acl verification failed, can't run this command or subcommand.", Code::NoPermission),
            ("ERR NOGROUP", Code::Other),
            ("NOGROUPS", Code::Other),
            ("MYERROR NOPERM acl verification failed, ", Code::Other),
            ("PAUSED by a function", Code::Other),
            ("", Code::Other),
        ];
        for (text, code) in table {
            assert_eq!(code_of(text), code, "{text}");
        }
    }
}
