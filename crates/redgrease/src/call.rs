//! Commands before they are sent: what is sent where, and what the reply means.
//!
//! Nothing here sends: connections of all kinds run the same calls.

use redgrease_core::codec::CODEC_VERSION;
use redis::{Cmd, ToRedisArgs, Value};

use crate::error::{Error, Result, error_reply};
use crate::reply::shown;

/// The shards of a cluster that get a request. Without a cluster the server gets all requests.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// One of the masters.
    Any,
    /// All masters; their replies, arrays, are put together.
    AllArrays,
    /// All masters: the reply is that of one of them.
    AllAlike,
    /// All masters: the reply is a map of addresses to replies.
    AllByAddress,
    /// The shard with this id.
    Shard(String),
    /// The master of this key's slot.
    Key(Vec<u8>),
}

/// A command, and where it is sent.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The command.
    pub command: Cmd,
    /// Where it is sent.
    pub target: Target,
    /// Its name, for errors.
    pub name: &'static str,
}

/// A command whose reply has a type.
pub struct Call<T> {
    request: Request,
    decode: Box<dyn FnOnce(Value) -> Result<T> + Send>,
}

impl<T> Call<T> {
    pub(crate) fn new(command: Command, decode: impl FnOnce(Value) -> Result<T> + Send + 'static) -> Call<T> {
        Call { request: command.0, decode: Box::new(decode) }
    }

    /// What has to be sent.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// What the reply means.
    ///
    /// # Errors
    /// The reply is an error, or not what the command answers.
    pub fn finish(self, reply: redis::RedisResult<Value>) -> Result<T> {
        let name = self.request.name;
        match reply.map_err(|error| Error::of_command(error, name))? {
            Value::ServerError(error) => Err(error_reply(&error, name)),
            value => (self.decode)(value),
        }
    }
}

/// Builds a request.
pub(crate) struct Command(Request);

impl Command {
    pub(crate) fn new(name: &'static str) -> Command {
        let command = redis::cmd(name);
        Command(Request { command, target: Target::Any, name })
    }

    /// A command whose results are tagged values.
    pub(crate) fn tagged(name: &'static str) -> Command {
        let mut command = redis::cmd("RG.WITHCODEC");
        command.arg(CODEC_VERSION).arg(name);
        Command(Request { command, target: Target::Any, name })
    }

    pub(crate) fn to(mut self, target: Target) -> Command {
        self.0.target = target;
        self
    }

    pub(crate) fn arg(mut self, argument: impl ToRedisArgs) -> Command {
        self.0.command.arg(argument);
        self
    }

    pub(crate) fn option(self, word: &'static str, given: bool) -> Command {
        if given { self.arg(word) } else { self }
    }

    /// Its reply is `OK`.
    pub(crate) fn ok(self) -> Call<()> {
        let name = self.0.name;
        Call::new(self, move |value| match value {
            Value::Okay => Ok(()),
            Value::SimpleString(text) if text == "OK" => Ok(()),
            other => Err(Error::reply(name, format!("expected OK, got {}", shown(&other)))),
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.0.name
    }
}
