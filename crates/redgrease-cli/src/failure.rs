//! What failed, and the fix: an error with a class, which is the exit code.

use std::fmt;

use redis::RedisError;

/// The class of a failure. The numbers are the exit codes, listed in docs/cli.md; 10 and above are those of the file
/// cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// The command ran, and what it did failed: an error reply, a function that raised an exception.
    Failed = 1,
    /// No server answers.
    Unreachable = 3,
    /// The server does not have the module.
    NoModule = 4,
    /// The user may not do this, or did not authenticate.
    Denied = 5,
    /// No encrypted connection.
    Tls = 6,
    /// A deadline passed.
    Timeout = 7,
    /// A file does not exist, or cannot be read.
    Path = 8,
}

/// A failure: one line what, one line the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub class: Class,
    pub what: String,
    pub fix: Option<String>,
}

impl Failure {
    /// A failure whose fix is known.
    pub fn new(class: Class, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { class, what: what.into(), fix: Some(fix.into()) }
    }

    /// A failure whose text says all.
    pub fn plain(class: Class, what: impl Into<String>) -> Self {
        Self { class, what: what.into(), fix: None }
    }

    /// A file that cannot be read.
    pub fn of_file(name: &str, error: &std::io::Error) -> Self {
        Self::new(Class::Path, format!("{name} cannot be read: {error}"), "correct its name, or its permissions")
    }

    /// The failure behind an error of a command that was sent to a server at this place.
    pub fn of_command(error: &RedisError, place: &str) -> Self {
        match error.code() {
            Some(code) => Self::of_reply(&format!("{code} {}", error.detail().unwrap_or_default())),
            None if error.is_timeout() => Self::new(
                Class::Timeout,
                format!("{place} did not answer in time"),
                "wait longer with --timeout, or see what the server is doing with `redgrease top`",
            ),
            None if error.is_io_error() || error.is_connection_dropped() => Self::new(
                Class::Unreachable,
                format!("{place} closed the connection: {error}"),
                "look at the log of the server: it may have stopped",
            ),
            None => Self::plain(Class::Failed, format!("{place} sent a reply that was not expected: {error}")),
        }
    }

    /// The failure behind the text of an error reply.
    pub fn of_reply(text: &str) -> Self {
        let text = text.trim_end();
        match text.split(' ').next().unwrap_or_default() {
            "NOAUTH" => Self::new(
                Class::Denied,
                text,
                "put the password into the environment variable REDISCLI_AUTH, and name the user with --user if it is not \
                 the default one",
            ),
            "WRONGPASS" => Self::new(Class::Denied, text, "correct --user and the password in REDISCLI_AUTH"),
            "NOPERM" => Self::new(
                Class::Denied,
                text,
                "let an administrator allow it, for example ACL SETUSER NAME +RG.PYEXECUTE, or name another user with --user",
            ),
            "ERR" => match unknown_command(text) {
                Some(command) => Self::new(
                    Class::NoModule,
                    format!(
                        "the server does not know {command}: it does not have the module redgrease, or another version"
                    ),
                    "start one that has it with `redgrease serve`, or load it into yours: MODULE LOAD \
                     /path/to/libredgrease.so (see docs/configuration.md)",
                ),
                None => Self::plain(Class::Failed, text),
            },
            _ => Self::plain(Class::Failed, text),
        }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.class as u8
    }
}

/// The command of the module that a server does not know.
fn unknown_command(text: &str) -> Option<String> {
    let (_, command) = text.split_once("unknown command ")?;
    let command = command.trim_start_matches(['\'', '`']).split(['\'', '`', ',']).next()?.to_ascii_uppercase();
    command.starts_with("RG.").then_some(command)
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)?;
        match &self.fix {
            Some(fix) => write!(formatter, "\nfix: {fix}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_replies_have_a_class() {
        for (text, class) in [
            ("NOAUTH Authentication required.", Class::Denied),
            ("WRONGPASS invalid username-password pair or user is disabled.", Class::Denied),
            ("NOPERM this user has no permissions to run the 'rg.pyexecute' command", Class::Denied),
            ("ERR unknown command 'RG.PYSTATS', with args beginning with: ", Class::NoModule),
            ("ERR unknown command 'NOPE', with args beginning with: ", Class::Failed),
            ("BADPLAN step 2", Class::Failed),
        ] {
            assert_eq!(Failure::of_reply(text).class, class, "{text}");
        }
    }

    #[test]
    fn a_failure_is_one_line_what_and_one_line_the_fix() {
        let lines = Failure::of_reply("NOAUTH Authentication required.\r\n").to_string();
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!((lines.len(), lines[0]), (2, "NOAUTH Authentication required."));
        assert!(lines[1].starts_with("fix: put the password"), "{lines:?}");
    }
}
