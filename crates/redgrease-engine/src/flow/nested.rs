//! Executions that wait for coroutines and futures, and those whose results other executions wait for.

use redgrease_core::codec::{Reader, Writer};
use redgrease_core::frame::FRAME_BYTES_MAX;
use redgrease_core::id::{ExecutionNo, Identifier, WorkerNo};

use crate::calls::caller::PendingCall;
use crate::engine::Engine;
use crate::error::Error;
use crate::executions::live::{Launch, Waiter};
use crate::executions::outcome::Outcome;
use crate::prelude::*;

/// The longest answer with results, in bytes: a frame has some more.
const ANSWER_BYTES_MAX: usize = FRAME_BYTES_MAX - 1024;

impl Engine {
    /// An execution waits for coroutines or futures: it runs in the background from now on, and others take its place.
    ///
    /// # Errors
    /// It may not wait: its caller cannot be blocked.
    pub(crate) fn parked(&mut self, worker: WorkerNo, number: ExecutionNo) -> Result<(), String> {
        if !self.runs_in(number, worker) {
            return Ok(());
        }
        let Some(live) = self.live.get_mut(&number) else { return Ok(()) };
        if live.launch == (Launch::Sync { no_async: true }) {
            return Err("an execution waits although its caller cannot be blocked".to_owned());
        }
        live.launch = Launch::Async;
        live.parked = true;
        self.executions.start(number);
        self.schedule(|schedule, decisions| schedule.ended(number, decisions));
        Ok(())
    }

    /// User code waits for the results of an execution.
    pub(crate) fn results_asked(&mut self, call: PendingCall, identifier: &str) {
        // An execution that has ended may not be in the list any more: one that user code started has the number of its id.
        let id = Identifier::parse(identifier.as_bytes());
        let ended = |id: Identifier| Some(ExecutionNo(id.counter)).filter(|_| id.shard == self.shard);
        let number = id.and_then(|id| self.executions.find(id).or_else(|| ended(id)));
        if let Some(number) = number.filter(|number| self.live.contains_key(number)) {
            return self.on_end(number, Waiter::Call(call));
        }
        match number.and_then(|number| self.nested.take(number)) {
            Some(outcome) => self.answer_results(&call, &outcome),
            None => self.answer_call(&call, Err(Error::NoResults(identifier.to_owned()).into())),
        }
    }

    /// Answers a call with results and errors.
    pub(crate) fn answer_results(&mut self, call: &PendingCall, outcome: &Outcome) {
        let answer = encoded(outcome);
        if answer.len() > ANSWER_BYTES_MAX {
            let error = Error::ResultsTooBigForCall { len: answer.len(), max: ANSWER_BYTES_MAX };
            return self.answer_call(call, Err(error.into()));
        }
        self.answer_call(call, Ok(answer));
    }
}

/// The lists of results and of errors.
fn encoded(outcome: &Outcome) -> Vec<u8> {
    let mut reader = Reader::new(&outcome.results);
    let mut count = 0;
    while !reader.is_empty() && reader.skip().is_ok() {
        count += 1;
    }
    let mut writer = Writer::new();
    writer.list(2);
    writer.list(count);
    writer.encoded(&outcome.results);
    writer.list(outcome.errors.len());
    for error in &outcome.errors {
        writer.raw(error);
    }
    writer.into_bytes()
}
