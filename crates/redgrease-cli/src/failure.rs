//! What failed, and the fix: the failures that subcommands share.

use redis::RedisError;

pub use redgrease_loader::error::{Class, Error as Failure};

/// A file that cannot be read.
pub fn of_file(name: &str, error: &std::io::Error) -> Failure {
    Failure::new(Class::Path, format!("{name} cannot be read: {error}"), "correct its name, or its permissions")
}

/// The failure behind an error of a command that was sent to a server at this place.
pub fn of_command(error: &RedisError, place: &str) -> Failure {
    match error.code() {
        Some(code) => of_reply(&format!("{code} {}", error.detail().unwrap_or_default())),
        None if error.is_timeout() => Failure::new(
            Class::Timeout,
            format!("{place} did not answer in time"),
            "wait longer with --timeout, or see what the server is doing with `redgrease top`",
        ),
        None if error.is_io_error() || error.is_connection_dropped() => Failure::new(
            Class::Unreachable,
            format!("{place} closed the connection: {error}"),
            "look at the log of the server: it may have stopped",
        ),
        None => Failure::plain(Class::Failed, format!("{place} sent a reply that was not expected: {error}")),
    }
}

/// The failure behind the text of an error reply.
pub fn of_reply(text: &str) -> Failure {
    let text = text.trim_end();
    match text.split(' ').next().unwrap_or_default() {
        "NOAUTH" => Failure::new(
            Class::Denied,
            text,
            "put the password into the environment variable REDISCLI_AUTH, and name the user with --user if it is not \
             the default one",
        ),
        "WRONGPASS" => Failure::new(Class::Denied, text, "correct --user and the password in REDISCLI_AUTH"),
        "NOPERM" => Failure::new(
            Class::Denied,
            text,
            "let an administrator allow it, for example ACL SETUSER NAME +RG.PYEXECUTE, or name another user with --user",
        ),
        "ERR" => match unknown_command(text) {
            Some(command) => Failure::new(
                Class::NoModule,
                format!(
                    "the server does not know {command}: it does not have the module redgrease, or another version"
                ),
                "start one that has it with `redgrease serve`, or load it into yours: MODULE LOAD \
                 /path/to/libredgrease.so (see docs/configuration.md)",
            ),
            None => Failure::plain(Class::Failed, text),
        },
        _ => Failure::plain(Class::Failed, text),
    }
}

/// The command of the module that a server does not know.
fn unknown_command(text: &str) -> Option<String> {
    let (_, command) = text.split_once("unknown command ")?;
    let command = command.trim_start_matches(['\'', '`']).split(['\'', '`', ',']).next()?.to_ascii_uppercase();
    command.starts_with("RG.").then_some(command)
}

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
            assert_eq!(of_reply(text).class, class, "{text}");
        }
    }

    #[test]
    fn a_failure_is_one_line_what_and_one_line_the_fix() {
        let lines = of_reply("NOAUTH Authentication required.\r\n").to_string();
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!((lines.len(), lines[0]), (2, "NOAUTH Authentication required."));
        assert!(lines[1].starts_with("fix: put the password"), "{lines:?}");
    }
}
