//! How an execution ended.

use redgrease_core::codec::Reader;
use redgrease_core::render::{Answers, Reply, Style, one_line, records};

use crate::error::Error;
use crate::executions::execution::Status;
use crate::prelude::*;

/// How an execution ended, for clients that wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Done or aborted.
    pub status: Status,
    /// Encoded results.
    pub results: Vec<u8>,
    /// Error texts.
    pub errors: Vec<Vec<u8>>,
    /// How results are rendered.
    pub style: Style,
}

impl Outcome {
    /// The array `[results, errors]` that a run is answered with.
    #[must_use]
    pub fn of_run(&self) -> Reply {
        let errors = self.errors.iter().map(Reply::bulk).collect();
        Reply::Array(vec![self.rendered(Answers::Run), Reply::Array(errors)])
    }

    /// What a triggered function is answered with: its results, or its first error.
    #[must_use]
    pub fn of_trigger(&self) -> Reply {
        match self.errors.first() {
            Some(error) => Reply::Error(one_line(error)),
            None => self.rendered(Answers::Trigger),
        }
    }

    /// What a command that a function replaced is answered with: the only result, or the first error.
    #[must_use]
    pub fn of_hook(&self) -> Reply {
        match self.single() {
            Err(text) => Reply::Error(one_line(text.as_bytes())),
            Ok(value) => match records(value, self.style, Answers::Trigger) {
                Ok(mut replies) => replies.pop().unwrap_or(Reply::Null),
                Err(error) => Reply::Error(format!("INTERNAL the result is not readable: {error}")),
            },
        }
    }

    /// The only result, encoded; an error if there is not exactly one.
    ///
    /// # Errors
    /// The first error, or the number of results is wrong.
    pub(crate) fn single(&self) -> Result<&[u8], String> {
        if let Some(error) = self.errors.first() {
            return Err(String::from_utf8_lossy(error).into_owned());
        }
        let mut reader = Reader::new(&self.results);
        match (reader.encoded_value(), reader.is_empty()) {
            (Ok(value), true) => Ok(value),
            _ => Err(Error::NotOneResult.into()),
        }
    }

    fn rendered(&self, answers: Answers) -> Reply {
        match records(&self.results, self.style, answers) {
            Ok(replies) => Reply::Array(replies),
            Err(error) => Reply::Error(format!("INTERNAL results are not readable: {error}")),
        }
    }
}
