//! What can go wrong, whether a retry helps, and what to do.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use redgrease_core::error_code;
use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::traceback::PythonError;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Whether the same request can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// Not before something was changed.
    No,
    /// A moment later.
    Later,
    /// On a new connection. The server may have run the request: ask it before a function is sent again.
    MayHaveRun,
}

/// Why something did not work.
///
/// Its text has a line with what happened and, where something can be done, a second one with the fix.
/// [`Error::what`] and [`Error::fix`] are these lines. `Debug`, which `main` and `unwrap` print, puts the variant in front.
#[derive(Clone)]
#[non_exhaustive]
pub enum Error {
    /// There is no connection to the server.
    Unreachable {
        /// The address.
        address: String,
        /// What the operating system, or the library of connections, said.
        reason: String,
    },
    /// The encrypted connection was not established.
    Tls {
        /// The address.
        address: String,
        /// What the TLS library said.
        reason: String,
    },
    /// The server refused user name and password, or wants them.
    Authentication {
        /// What the server said.
        reason: String,
    },
    /// The server does not have the command: the module is not loaded.
    NoModule {
        /// The command.
        command: String,
    },
    /// The user of the connection may not do that.
    NoPermission {
        /// What the server said.
        reason: String,
    },
    /// Any other error that the server answered.
    Server(ServerError),
    /// An execution ended with errors.
    Execution {
        /// The errors, at least one.
        errors: Vec<PythonError>,
    },
    /// No reply arrived in the time that the connection waits.
    Timeout {
        /// The command.
        command: String,
    },
    /// The connection broke before the reply arrived.
    Disconnected {
        /// The command.
        command: String,
        /// What the operating system said.
        reason: String,
    },
    /// The reply is not what the command answers.
    Reply {
        /// The command.
        command: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A result is not of the type that was asked for.
    Decode {
        /// What does not fit.
        problem: String,
    },
    /// An argument was refused before anything was sent.
    Argument {
        /// What is wrong with it.
        problem: String,
        /// What to do.
        fix: String,
    },
    /// Anything else that the library of connections refuses.
    Client(RedisError),
}

impl Error {
    pub(crate) fn argument(problem: impl Into<String>, fix: impl Into<String>) -> Error {
        Error::Argument { problem: problem.into(), fix: fix.into() }
    }

    pub(crate) fn reply(command: &str, problem: impl Into<String>) -> Error {
        Error::Reply { command: command.to_owned(), problem: problem.into() }
    }

    /// The error of a command.
    pub(crate) fn of_command(error: RedisError, command: &str) -> Error {
        if error.is_timeout() {
            return Error::Timeout { command: command.to_owned() };
        }
        if error.is_io_error() {
            return Error::Disconnected { command: command.to_owned(), reason: one_line(&error.to_string()) };
        }
        match error.code() {
            Some(code) => Error::of_text(&text_of(error.kind(), code, error.detail()), command),
            None => Error::Client(error),
        }
    }

    /// The error of a connection that is opened.
    pub(crate) fn of_connecting(error: RedisError, address: &str) -> Error {
        let (address, mut reason) = (address.to_owned(), one_line(&error.to_string()));
        if error.is_timeout() {
            "it did not answer in time".clone_into(&mut reason);
        }
        match error.kind() {
            // A server without TLS waits for the end of what is no command.
            _ if error.is_timeout() && address.starts_with("rediss://") => Error::Tls { address, reason },
            ErrorKind::InvalidClientConfig if reason.contains("TLS") => Error::Tls { address, reason },
            ErrorKind::InvalidClientConfig => Error::argument(
                format!("'{address}' is not the address of a server: {reason}"),
                "Addresses are redis://[user:password@]host[:port][/database], or rediss:// with TLS.",
            ),
            ErrorKind::AuthenticationFailed => Error::Authentication { reason },
            ErrorKind::Io if is_of_tls(&error) => Error::Tls { address, reason },
            // There is a server, which closes what is not TLS.
            ErrorKind::Io if is_broken(&error) => Error::Disconnected { command: "HELLO".to_owned(), reason },
            ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => Error::Unreachable { address, reason },
            _ => Error::of_command(error, "HELLO"),
        }
    }

    /// The error whose text a server answered to a command.
    pub(crate) fn of_text(text: &str, command: &str) -> Error {
        let word = text.split([' ', '\n']).next().unwrap_or_default();
        match word {
            "NOPERM" => Error::NoPermission { reason: one_line(text) },
            "NOAUTH" | "WRONGPASS" => Error::Authentication { reason: one_line(text) },
            _ if is_unknown_command(text) => Error::NoModule { command: command.to_owned() },
            _ => Error::Server(ServerError { text: text.to_owned() }),
        }
    }

    /// The first word of the server's error, by which programs tell errors apart, such as `WORKERDIED`: see
    /// `docs/errors.md`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Server(error) => error.code(),
            Error::NoPermission { .. } => Some("NOPERM"),
            _ => None,
        }
    }

    /// Whether the same request can succeed.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Error::Unreachable { .. } => Retry::Later,
            Error::Timeout { .. } | Error::Disconnected { .. } => Retry::MayHaveRun,
            Error::Server(error) => retry_of(&error.text),
            Error::Execution { errors } => match errors.iter().all(|each| retry_of(each.text()) == Retry::Later) {
                true => Retry::Later,
                false => Retry::No,
            },
            _ => Retry::No,
        }
    }

    /// What happened, in one line (unless the server's text, such as the message of an exception, has several).
    #[must_use]
    pub fn what(&self) -> Cow<'_, str> {
        match self {
            Error::Unreachable { address, reason } => format!("no server answers at {address}: {reason}").into(),
            Error::Tls { address, reason } => format!("no TLS connection to {address}: {reason}").into(),
            Error::Authentication { reason } => format!("the server refused the user: {reason}").into(),
            Error::NoModule { command } => {
                format!("the server does not know {command}: the module redgrease is not loaded").into()
            }
            Error::NoPermission { reason } => reason.into(),
            Error::Server(error) => error.what(),
            Error::Execution { errors } => {
                let first = errors.first().map_or(Cow::Borrowed("without a text"), PythonError::summary);
                match errors.len() {
                    0 | 1 => format!("the execution failed: {first}").into(),
                    count => format!("the execution failed with {count} errors, the first one: {first}").into(),
                }
            }
            Error::Timeout { command } => format!("no reply to {command} in the time that the connection waits").into(),
            Error::Disconnected { command, reason } => {
                format!("the connection broke before {command} was answered: {reason}").into()
            }
            Error::Reply { command, problem } => format!("the reply to {command} was not understood: {problem}").into(),
            Error::Decode { problem } => format!("the result is not of the type that was asked for: {problem}").into(),
            Error::Argument { problem, .. } => problem.into(),
            Error::Client(error) => one_line(&error.to_string()).into(),
        }
    }

    /// What to do about it, in one line.
    #[must_use]
    pub fn fix(&self) -> Option<Cow<'_, str>> {
        let fix = match self {
            Error::Unreachable { .. } => "Start a server with `redgrease serve`, or correct the address.",
            Error::Tls { reason, .. } if reason.contains("feature is not enabled") => {
                "Enable the feature `tls` of the crate redgrease."
            }
            Error::Tls { .. } => {
                "Use redis:// if the server has no TLS; else make its certificate, or its authority, known to this host."
            }
            Error::Authentication { .. } => "Put the credentials into the address: redis://user:password@host:port.",
            Error::NoModule { .. } => {
                "Start the server with `redgrease serve`, or with `--loadmodule /path/to/libredgrease.so`."
            }
            Error::NoPermission { .. } => {
                "Grant it (`ACL SETUSER name +rg.pyexecute`, `~key`), or connect as another user."
            }
            Error::Server(error) => return error.fix().map(Cow::Borrowed),
            Error::Execution { errors } => {
                return errors.first().and_then(|error| remedy(error.text())).map(Cow::Borrowed);
            }
            Error::Timeout { .. } => "Raise the connection's read timeout; list what runs with rg_dump_executions().",
            Error::Disconnected { .. } => {
                "Connect again; list what runs with rg_dump_executions() before a function is sent again. A server that wants \
                 TLS needs rediss://."
            }
            Error::Reply { .. } => "Use the same version of redgrease for client and server.",
            Error::Decode { .. } => "Ask for another type, or change the last step of the function.",
            Error::Argument { fix, .. } => return Some(fix.into()),
            Error::Client(_) => return None,
        };
        Some(fix.into())
    }
}

/// The error of a command of redis-rs, so that `?` takes both.
impl From<RedisError> for Error {
    fn from(error: RedisError) -> Error {
        Error::of_command(error, "the command")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())?;
        match self.fix() {
            Some(fix) => write!(f, "\n{fix}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variant = match self {
            Error::Unreachable { .. } => "Unreachable",
            Error::Tls { .. } => "Tls",
            Error::Authentication { .. } => "Authentication",
            Error::NoModule { .. } => "NoModule",
            Error::NoPermission { .. } => "NoPermission",
            Error::Server(_) => "Server",
            Error::Execution { .. } => "Execution",
            Error::Timeout { .. } => "Timeout",
            Error::Disconnected { .. } => "Disconnected",
            Error::Reply { .. } => "Reply",
            Error::Decode { .. } => "Decode",
            Error::Argument { .. } => "Argument",
            Error::Client(_) => "Client",
        };
        write!(f, "{variant}: {self}")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Client(error) => Some(error),
            _ => None,
        }
    }
}

/// What servers answer if there is no execution with that id, no registration with it, or no trigger with that name.
const NOT_FOUND: [&str; 4] = [
    "execution plan does not exist",
    "execution does not exist",
    "execution is not registered",
    "subcommand not found",
];

/// An error that a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    text: String,
}

impl ServerError {
    /// The text without the word `ERR`.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its first word, if that is a code.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        let word = self.text.split([' ', '\n']).next()?;
        let is_code = word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase());
        is_code.then_some(word)
    }

    /// The error of user code, if it is one.
    #[must_use]
    pub fn python(&self) -> Option<PythonError> {
        let error = PythonError::new(self.text.clone());
        error.exception().is_some().then_some(error)
    }

    /// Whether a command of that name is registered already.
    #[must_use]
    pub fn is_duplicate_trigger(&self) -> bool {
        PythonError::new(self.text.clone()).message().contains("trigger already registered")
    }

    /// Whether there is no such execution, registration or trigger.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        // These errors have no code: their texts are those of RedisGears.
        let text = self.text.trim_end();
        let of_id = text.starts_with("Execution ") && text.contains(" does not exists on shard ");
        of_id || NOT_FOUND.contains(&text)
    }

    fn what(&self) -> Cow<'_, str> {
        match self.python() {
            Some(error) => error.summary().into_owned().into(),
            None => self.text.trim_end().into(),
        }
    }

    fn fix(&self) -> Option<&'static str> {
        if self.is_duplicate_trigger() {
            return Some("Unregister the command of that name, or register both with the same session(id).");
        }
        remedy(&self.text)
    }
}

fn remedy(text: &str) -> Option<&'static str> {
    error_code::code_of(text).map(|entry| entry.remedy)
}

fn retry_of(text: &str) -> Retry {
    let word = text.split([' ', '\n']).next().unwrap_or_default();
    let passes = matches!(word, "LOADING" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "BUSY");
    match error_code::code_of(text) {
        Some(entry) if entry.retry == error_code::Retry::Later => Retry::Later,
        None if passes => Retry::Later,
        _ => Retry::No,
    }
}

/// An error reply within a reply.
pub(crate) fn error_reply(error: &redis::ServerError, name: &str) -> Error {
    let kind = error.kind().map_or(redis::ErrorKind::Extension, redis::ErrorKind::Server);
    Error::of_text(&text_of(kind, error.code(), error.details()), name)
}

/// redis-rs takes the first word of any error for its code.
pub(crate) fn text_of(kind: ErrorKind, code: &str, detail: Option<&str>) -> String {
    match (kind, detail) {
        (ErrorKind::Server(ServerErrorKind::ResponseError), detail) => detail.unwrap_or_default().to_owned(),
        (_, Some(detail)) => format!("{code} {detail}"),
        (_, None) => code.to_owned(),
    }
}

fn is_unknown_command(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["unknown command 'rg.", "unknown command `rg.", "unknown command rg."].iter().any(|begin| text.starts_with(begin))
}

/// Whether an error is that of a TLS library: these come as errors of the kind `InvalidData`.
fn is_of_tls(error: &RedisError) -> bool {
    // redis-rs keeps what it was given in an `Arc`.
    let source = std::error::Error::source(error);
    let shared = source.and_then(|source| source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>());
    let io = shared.and_then(|shared| shared.downcast_ref::<io::Error>());
    io.is_some_and(|io| io.kind() == io::ErrorKind::InvalidData)
}

/// Whether a connection was there and broke.
fn is_broken(error: &RedisError) -> bool {
    // Without a source it is the summary of a cluster whose nodes were not reached.
    let has_source = std::error::Error::source(error).is_some();
    has_source && error.is_connection_dropped() && !error.is_connection_refusal()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
