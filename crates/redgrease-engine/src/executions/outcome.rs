//! How an execution ended.

use redgrease_core::render::{Answers, Reply, Style, one_line, records};

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

    fn rendered(&self, answers: Answers) -> Reply {
        match records(&self.results, self.style, answers) {
            Ok(replies) => Reply::Array(replies),
            Err(error) => Reply::Error(format!("INTERNAL results are not readable: {error}")),
        }
    }
}
