//! A server over redis-rs.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{Cmd, Connection, ConnectionLike, RedisError, Value};

use crate::connection::Target;
use crate::error::{Class, Error};
use crate::server::{Outcome, Script, Server};

/// The longest wait for the reply of a command that is not a script.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// A server, and the connection to it.
pub struct RedisServer {
    target: Target,
    connection: Option<Connection>,
}

impl RedisServer {
    /// The server at this address; it is not connected yet.
    pub fn new(target: Target) -> Self {
        Self { target, connection: None }
    }

    fn send(&mut self, command: &Cmd, timeout: Duration) -> Result<Value, Error> {
        if self.connection.is_none() {
            self.connection = Some(self.target.connect()?);
        }
        let Some(connection) = &mut self.connection else {
            return Err(Error::plain(Class::Unreachable, format!("no connection to {}", self.target.place())));
        };
        let value = connection
            .set_read_timeout(Some(timeout))
            .and_then(|()| connection.set_write_timeout(Some(timeout)))
            .and_then(|()| connection.req_command(command))
            .and_then(Value::extract_error_of_reply);
        value.map_err(|error| self.failed(&error))
    }

    /// A connection without a reply is of no use: the reply of this command could be taken for that of the next.
    fn failed(&mut self, error: &RedisError) -> Error {
        if error.code().is_none() {
            self.connection = None;
        }
        self.target.explain_reply(error)
    }

    fn unexpected(&self, command: &str, value: &Value) -> Error {
        Error::plain(Class::Failed, format!("{} answered {command} with {value:?}", self.target.place()))
    }
}

/// An error that is the whole reply.
trait ErrorOfReply: Sized {
    fn extract_error_of_reply(self) -> Result<Self, RedisError>;
}

impl ErrorOfReply for Value {
    fn extract_error_of_reply(self) -> Result<Self, RedisError> {
        match self {
            Self::ServerError(error) => Err(error.into()),
            other => Ok(other),
        }
    }
}

impl Server for RedisServer {
    fn connect(&mut self) -> Result<(), Error> {
        self.connection = None;
        // Answered by servers with the module, also if there is no such session.
        self.registrations(&["none".to_owned()]).map(|_| ())
    }

    fn ping(&mut self) -> Result<(), Error> {
        match self.send(&redis::cmd("PING"), REPLY_TIMEOUT) {
            // A refusal is an answer.
            Err(error) if error.class != Class::Denied => Err(error),
            _ => Ok(()),
        }
    }

    fn execute(&mut self, script: &Script<'_>) -> Result<Outcome, Error> {
        let mut command = redis::cmd("RG.PYEXECUTE");
        command.arg(script.text);
        if script.unblocking {
            command.arg("UNBLOCKING");
        }
        if let Some(session) = script.session {
            command.arg("ID").arg(session).arg("DESCRIPTION").arg(script.description).arg("UPGRADE");
        }
        if !script.requirements.is_empty() {
            command.arg("REQUIREMENTS").arg(script.requirements);
        }
        let value = self.send(&command, script.timeout)?;
        outcome(&value).ok_or_else(|| self.unexpected("RG.PYEXECUTE", &value))
    }

    fn registrations(&mut self, sessions: &[String]) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let mut command = redis::cmd("RG.PYDUMPSESSIONS");
        command.arg("SESSIONS").arg(sessions);
        match self.send(&command, REPLY_TIMEOUT)? {
            Value::Array(rows) => Ok(rows.iter().filter_map(session).collect()),
            other => Err(self.unexpected("RG.PYDUMPSESSIONS", &other)),
        }
    }

    fn unregister(&mut self, registration: &str) -> Result<bool, Error> {
        match self.send(redis::cmd("RG.UNREGISTER").arg(registration), REPLY_TIMEOUT) {
            Ok(_) => Ok(true),
            Err(error) if error.what.contains("does not exist") => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn write_hash(&mut self, key: &[u8], fields: &[(&str, String)]) -> Result<(), Error> {
        self.send(redis::cmd("HSET").arg(key).arg(fields), REPLY_TIMEOUT).map(|_| ())
    }

    fn read_hash(&mut self, key: &[u8], field: &str) -> Result<Option<String>, Error> {
        Ok(text(&self.send(redis::cmd("HGET").arg(key).arg(field), REPLY_TIMEOUT)?))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Error> {
        self.send(redis::cmd("DEL").arg(key), REPLY_TIMEOUT).map(|_| ())
    }

    fn place(&self) -> String {
        self.target.place()
    }
}

/// `OK`, the id of an execution, or results and errors.
fn outcome(value: &Value) -> Option<Outcome> {
    match value {
        Value::Okay => Some(Outcome::default()),
        Value::Array(parts) => match parts.as_slice() {
            [Value::Array(results), Value::Array(errors)] => Some(Outcome {
                results: Some(results.len()),
                errors: errors.iter().map(|error| text(error).unwrap_or_else(|| format!("{error:?}"))).collect(),
                execution: None,
            }),
            _ => None,
        },
        other => text(other).map(|id| Outcome { execution: Some(id), ..Outcome::default() }),
    }
}

/// A row of `RG.PYDUMPSESSIONS`: id and registrations. The row of a session that does not exist is a text.
fn session(row: &Value) -> Option<(String, Vec<String>)> {
    let Value::Array(fields) = row else { return None };
    let field =
        |name: &str| fields.chunks_exact(2).find(|pair| text(&pair[0]).as_deref() == Some(name)).map(|pair| &pair[1]);
    let Some(Value::Array(registrations)) = field("registrations") else { return None };
    Some((text(field("ID")?)?, registrations.iter().filter_map(text).collect()))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        Value::ServerError(error) => Some(format!("{} {}", error.code(), error.details().unwrap_or_default())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn replies_to_scripts() {
        let ran = Value::Array(vec![Value::Array(vec![bulk("1"), bulk("2")]), Value::Array(vec![bulk("E")])]);
        assert_eq!(outcome(&Value::Okay), Some(Outcome::default()));
        assert_eq!(outcome(&ran), Some(Outcome { results: Some(2), errors: vec!["E".to_owned()], execution: None }));
        assert_eq!(outcome(&bulk("0-1")).unwrap().execution.as_deref(), Some("0-1"));
        assert_eq!(outcome(&Value::Nil), None);
    }

    #[test]
    fn rows_of_sessions() {
        let row = Value::Array(vec![
            bulk("ID"),
            bulk("a"),
            bulk("registrations"),
            Value::Array(vec![bulk("0-1"), bulk("0-2")]),
        ]);
        assert_eq!(session(&row), Some(("a".to_owned(), vec!["0-1".to_owned(), "0-2".to_owned()])));
        assert_eq!(session(&bulk("Session b does not exists")), None);
    }
}
