//! Errors of the client, as errors with a class and the fix.

use redgrease::{Error as ClientError, PythonError};

use crate::error::{Class, Error};

/// The error behind an error of the client; `place` is the address of the server.
pub fn of_client(error: ClientError, place: &str) -> Error {
    match error {
        ClientError::Argument { problem, fix } => Error::new(Class::Usage, problem, fix),
        ClientError::Authentication { reason } if reason.starts_with("NOAUTH") => Error::new(
            Class::Denied,
            format!("{place} asks for a password: {reason}"),
            "put it into REDISCLI_AUTH, and name the user with --user if it is not the default one",
        ),
        ClientError::Authentication { reason } => {
            let what = format!("{place} refused user and password: {reason}");
            Error::new(Class::Denied, what, "correct --user, and the password in REDISCLI_AUTH")
        }
        ClientError::NoPermission { reason } => {
            // Servers name the command: ... has no permissions to run the 'rg.pyexecute' command.
            let command = reason.split_once("to run the '").and_then(|(_, rest)| rest.split_once("' command"));
            let rule = command.map_or(String::new(), |(command, _)| format!(", ACL SETUSER NAME +{command}"));
            let fix = format!("let an administrator allow it{rule}, or name another user with --user");
            Error::new(Class::Denied, reason, fix)
        }
        ClientError::NoModule { .. } => Error::new(
            Class::NoModule,
            format!("the server at {place} does not have the module redgrease, or another version"),
            "start one that has it with `redgrease serve`, or load it: MODULE LOAD /path/to/libredgrease.so (see \
             docs/configuration.md)",
        ),
        ClientError::Timeout { .. } => Error::new(
            Class::Timeout,
            format!("{place} did not answer in time"),
            "wait longer with --timeout, or see what the server is doing with `redgrease top`",
        ),
        ClientError::Disconnected { reason, .. } => Error::new(
            Class::Unreachable,
            format!("the connection to {place} broke: {reason}"),
            "look at the log of the server: it may have stopped",
        ),
        ClientError::Unreachable { .. } => Error::plain(Class::Unreachable, error.what()),
        ClientError::Tls { .. } => Error::plain(Class::Tls, error.what()),
        ClientError::Server(_) => of_server(&error, place),
        _ => Error { class: Class::Failed, what: error.what().into_owned(), fix: error.fix().map(Into::into) },
    }
}

fn of_server(error: &ClientError, place: &str) -> Error {
    let what = error.what();
    match error.code() {
        Some("READONLY") => Error::new(
            Class::Failed,
            format!("{place} is a replica: {what}"),
            "name its master with --server and --port",
        ),
        Some("MOVED" | "ASK") => {
            let fix = "the key belongs to another node of the cluster: name that one with --server and --port";
            Error::new(Class::Failed, what, fix)
        }
        Some("LOADING" | "MASTERDOWN" | "BUSY") => {
            Error::new(Class::Unreachable, format!("{place} is not ready: {what}"), "wait until it is")
        }
        _ => Error { class: Class::Failed, what: what.into_owned(), fix: error.fix().map(Into::into) },
    }
}

/// The exception, and its traceback if it has one, in which it is the last line.
pub fn exception_first(error: &PythonError) -> String {
    match error.traceback() {
        [_] => error.summary().into_owned(),
        _ => format!("{}\n{error}", error.summary()),
    }
}

/// A file that cannot be read.
pub fn unreadable(name: &str, error: &std::io::Error) -> Error {
    Error::new(Class::Path, format!("{name} cannot be read: {error}"), "correct its name, or its permissions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exception_is_in_front_of_its_traceback() {
        let error = PythonError::new(r"['Traceback:\n', 'E: no\n']".to_owned());
        assert_eq!(exception_first(&error), "E: no\nTraceback:\nE: no");
        assert_eq!(exception_first(&PythonError::new("WORKERDIED it has ended".to_owned())), "WORKERDIED it has ended");
    }

    fn explained(reply: &str) -> Error {
        let error = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()).and_then(|value| match value {
            redis::Value::ServerError(error) => Err(error.into()),
            other => Ok(other),
        });
        of_client(error.unwrap_err().into(), "there:1")
    }

    #[test]
    fn error_replies_have_a_class_and_most_a_fix() {
        for (text, class, fix) in [
            ("NOAUTH Authentication required.", Class::Denied, "put it into REDISCLI_AUTH"),
            ("WRONGPASS invalid username-password pair or user is disabled.", Class::Denied, "correct --user"),
            (
                "NOPERM User ada has no permissions to run the 'rg.pystats' command",
                Class::Denied,
                "allow it, ACL SETUSER NAME +rg.pystats, or name",
            ),
            ("NOPERM No permissions to access a key", Class::Denied, "let an administrator allow it, or name"),
            ("MOVED 15495 127.0.0.1:39297", Class::Failed, "belongs to another node"),
            ("ERR unknown command 'RG.PYSTATS', with args beginning with: ", Class::NoModule, "redgrease serve"),
            ("READONLY You can't write against a read only replica.", Class::Failed, "name its master"),
            ("LOADING the dataset", Class::Unreachable, "wait"),
            ("ERR unknown command 'NOPE', with args beginning with: ", Class::Failed, ""),
            ("execution does not exist", Class::Failed, ""),
        ] {
            let error = explained(text);
            assert_eq!(error.class, class, "{text}");
            assert_eq!(error.fix.is_some(), !fix.is_empty(), "{text}: {error}");
            assert!(error.fix.is_none_or(|it| it.contains(fix)), "{text}");
            assert_eq!(error.what.lines().count(), 1, "{text}");
        }
    }
}
