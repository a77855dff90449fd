//! Executions and the list of them.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::codec::Writer;
use crate::frame::Records;
use crate::id::{ExecutionNo, RegistrationNo};
use crate::render::Style;

/// Where an execution is in its life (`EXE-STATUS-02`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Waits for its turn.
    Created,
    /// Its code runs.
    Running,
    /// Ended by itself, with or without errors.
    Done,
    /// Ended before or between steps, on demand.
    Aborted,
}

impl Status {
    /// The name in dumps.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Done => "done",
            Status::Aborted => "aborted",
        }
    }

    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Status::Done | Status::Aborted)
    }
}

/// One run of a plan: what is known of it.
#[derive(Debug, Clone)]
pub struct Execution {
    status: Status,
    /// The registration that started it.
    pub registration: Option<RegistrationNo>,
    /// How its results are rendered.
    pub style: Style,
    /// Encoded results.
    pub results: Vec<u8>,
    /// Number of results.
    pub result_count: u64,
    /// Error texts.
    pub errors: Vec<Vec<u8>>,
    drop_when_final: bool,
}

impl Execution {
    /// Where it is in its life.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Takes results from a worker.
    pub fn add_results(&mut self, records: &Records<'_>) {
        self.results.extend_from_slice(records.bytes);
        self.result_count += records.count;
    }

    /// Takes one result made in the server.
    pub fn add_result(&mut self, write: impl FnOnce(&mut Writer)) {
        let mut writer = Writer::append_to(std::mem::take(&mut self.results));
        write(&mut writer);
        self.results = writer.into_bytes();
        self.result_count += 1;
    }
}

/// Why an execution is not dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DropError {
    /// Nobody knows it.
    #[error("execution plan does not exist")]
    Unknown,
    /// It has not ended.
    #[error("can not drop a not yet finished execution, abort it first.")]
    NotFinished,
}

/// All executions of this shard.
///
/// Numbers are given in order and never again. The list that users see holds at most `max` of them: the oldest go
/// first, at once when they have ended and otherwise when they end (`EXE-LIST-01`).
#[derive(Debug)]
pub struct Executions {
    next: u64,
    all: BTreeMap<ExecutionNo, Execution>,
    listed: BTreeSet<ExecutionNo>,
    max: usize,
}

impl Executions {
    /// An empty list of at most `max` executions; 0: no limit.
    #[must_use]
    pub fn new(max: usize) -> Executions {
        Executions { next: 0, all: BTreeMap::new(), listed: BTreeSet::new(), max }
    }

    /// Takes a number for an operation that is not listed (`EXE-ID-03`).
    pub fn skip_number(&mut self) {
        self.next += 1;
    }

    /// Adds an execution.
    pub fn create(&mut self, registration: Option<RegistrationNo>, style: Style) -> ExecutionNo {
        while self.max > 0 && self.listed.len() >= self.max {
            let Some(oldest) = self.listed.pop_first() else { break };
            self.drop_when_final(oldest);
        }
        let number = ExecutionNo(self.next);
        self.next += 1;
        let execution = Execution {
            status: Status::Created,
            registration,
            style,
            results: Vec::new(),
            result_count: 0,
            errors: Vec::new(),
            drop_when_final: false,
        };
        self.all.insert(number, execution);
        self.listed.insert(number);
        number
    }

    /// The execution with that number.
    #[must_use]
    pub fn get(&self, number: ExecutionNo) -> Option<&Execution> {
        self.all.get(&number)
    }

    /// The execution with that number.
    pub fn get_mut(&mut self, number: ExecutionNo) -> Option<&mut Execution> {
        self.all.get_mut(&number)
    }

    /// Its code begins to run.
    pub fn start(&mut self, number: ExecutionNo) {
        if let Some(execution) = self.all.get_mut(&number)
            && execution.status == Status::Created
        {
            execution.status = Status::Running;
        }
    }

    /// Takes an execution out of everything, with what it has.
    pub fn take(&mut self, number: ExecutionNo) -> Option<Execution> {
        self.listed.remove(&number);
        self.all.remove(&number)
    }

    /// It ended. Whoever waits for it must read it before [`Executions::settle`].
    pub fn finish(&mut self, number: ExecutionNo, status: Status) {
        debug_assert!(status.is_final());
        if let Some(execution) = self.all.get_mut(&number)
            && !execution.status.is_final()
        {
            execution.status = status;
        }
    }

    /// Forgets it if that was wanted for the time after its end.
    pub fn settle(&mut self, number: ExecutionNo) {
        if self.all.get(&number).is_some_and(|execution| execution.drop_when_final && execution.status.is_final()) {
            self.all.remove(&number);
            self.listed.remove(&number);
        }
    }

    /// Forgets it now if it has ended, or as soon as it ends.
    pub fn drop_when_final(&mut self, number: ExecutionNo) {
        if let Some(execution) = self.all.get_mut(&number) {
            execution.drop_when_final = true;
        }
        self.settle(number);
    }

    /// Forgets an execution that has ended.
    ///
    /// # Errors
    /// It is unknown, or has not ended.
    pub fn drop_finished(&mut self, number: ExecutionNo) -> Result<(), DropError> {
        let execution = self.all.get(&number).filter(|_| self.listed.contains(&number)).ok_or(DropError::Unknown)?;
        if !execution.status.is_final() {
            return Err(DropError::NotFinished);
        }
        self.all.remove(&number);
        self.listed.remove(&number);
        Ok(())
    }

    /// The listed executions, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (ExecutionNo, &Execution)> {
        self.listed.iter().filter_map(|number| Some((*number, self.all.get(number)?)))
    }

    /// Number of listed executions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.listed.len()
    }

    /// Whether none is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(max: usize) -> Executions {
        Executions::new(max)
    }

    fn numbers(executions: &Executions) -> Vec<u64> {
        executions.iter().map(|(number, _)| number.0).collect()
    }

    #[test]
    fn a_full_list_loses_its_oldest_finished_execution_first() {
        let mut executions = list(3);
        for _ in 0..3 {
            let number = executions.create(None, Style::Compat);
            executions.finish(number, Status::Done);
        }
        executions.create(None, Style::Compat);
        assert_eq!(numbers(&executions), [1, 2, 3]);
    }

    #[test]
    fn an_unfinished_execution_leaves_the_list_but_lives_until_it_ends() {
        let mut executions = list(1);
        let first = executions.create(None, Style::Compat);
        executions.create(None, Style::Compat);
        assert_eq!(numbers(&executions), [1]);
        executions.start(first);
        executions.finish(first, Status::Done);
        assert!(executions.get(first).is_some());
        executions.settle(first);
        assert!(executions.get(first).is_none());
    }

    #[test]
    fn only_a_finished_execution_can_be_dropped() {
        let mut executions = list(0);
        assert_eq!(executions.drop_finished(ExecutionNo(0)), Err(DropError::Unknown));
        let number = executions.create(None, Style::Compat);
        assert_eq!(executions.drop_finished(number), Err(DropError::NotFinished));
        executions.finish(number, Status::Aborted);
        assert_eq!(executions.drop_finished(number), Ok(()));
        assert!(executions.is_empty());
    }

    #[test]
    fn the_first_end_counts() {
        let mut executions = list(0);
        let number = executions.create(None, Style::Compat);
        executions.finish(number, Status::Aborted);
        executions.finish(number, Status::Done);
        executions.start(number);
        assert_eq!(executions.get(number).map(Execution::status), Some(Status::Aborted));
    }
}
