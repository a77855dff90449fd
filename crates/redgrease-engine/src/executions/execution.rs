//! Executions and the list of them.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;

use thiserror::Error;

use redgrease_core::frame::Records;
use redgrease_core::id::{ExecutionNo, Identifier, RegistrationNo, ShardId};
use redgrease_core::plan::PlanSpec;
use redgrease_core::render::Style;

use crate::limits::KEPT_RESULT_BYTES_MAX;

/// The status of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Waits for its turn.
    Created,
    /// Other shards of the execution are not ready.
    PendingReceive,
    /// This shard is ready, and its initiator has not begun.
    PendingRun,
    /// Its code runs.
    Running,
    /// The part of this shard has ended, those of others have not.
    PendingCluster,
    /// Ended by itself, with or without errors.
    Done,
    /// Aborted before or between steps.
    Aborted,
}

impl Status {
    /// The name in dumps.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::PendingReceive => "pending_receive",
            Status::PendingRun => "pending_run",
            Status::Running => "running",
            Status::PendingCluster => "pending_cluster",
            Status::Done => "done",
            Status::Aborted => "aborted",
        }
    }

    /// Whether its state is final.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Status::Done | Status::Aborted)
    }
}

/// One run of a plan, as shown to users.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Its identifier, the same on all shards.
    pub id: Identifier,
    status: Status,
    /// The registration that started it.
    pub registration: Option<RegistrationNo>,
    /// Name of the user that its code acts as.
    pub owner: Option<Rc<str>>,
    /// How its results are rendered.
    pub style: Style,
    /// Encoded results.
    pub results: Vec<u8>,
    /// Number of results.
    pub result_count: u64,
    /// Error texts.
    pub errors: Vec<Vec<u8>>,
    /// Its plan.
    pub spec: Option<Rc<PlanSpec>>,
    /// Time between its start and its end, in milliseconds; 0 before its end.
    pub run_ms: u64,
    /// Time in its reader, in microseconds, if it was profiled.
    pub read_micros: u64,
    /// Time in each step of its plan, in microseconds, if it was profiled.
    pub step_micros: Vec<u64>,
    /// Its place in the order of ends, if it has ended.
    ended: Option<u64>,
    /// Its results and errors in bytes, if it has ended.
    kept_bytes: usize,
}

impl Execution {
    /// Its status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Appends results of a worker, or of native steps.
    pub fn add_results(&mut self, records: &Records<'_>) {
        self.results.extend_from_slice(records.bytes);
        self.result_count += records.count;
    }
}

/// Why an execution is not dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DropError {
    /// It does not exist.
    #[error("execution plan does not exist")]
    Unknown,
    /// It has not ended.
    #[error("can not drop a not yet finished execution, abort it first.")]
    NotFinished,
}

/// All executions of this shard.
///
/// Ids are assigned in order and never reused. The list that users see holds at most `max` of them, those of registrations
/// that have not ended not counted, and more only while more have not ended: only ended ones are removed, first those of
/// registrations and then those whose results a client may still read, each in the order of their ends.
/// (In RedisGears, running executions could be removed, too.)
#[derive(Debug)]
pub struct Executions {
    next: u64,
    all: BTreeMap<ExecutionNo, Execution>,
    /// Those that other shards began.
    of_others: BTreeMap<Identifier, ExecutionNo>,
    next_end: u64,
    /// Ended executions in the order of their ends: of registrations, and of runs.
    ends: [BTreeMap<u64, ExecutionNo>; 2],
    /// Executions of registrations that have not ended.
    live_registered: usize,
    /// Results and errors of all executions that have ended.
    kept_bytes: usize,
    max: usize,
}

impl Executions {
    /// An empty list of at most `max` executions; 0: no limit.
    #[must_use]
    pub fn new(max: usize) -> Executions {
        Executions {
            next: 0,
            all: BTreeMap::new(),
            of_others: BTreeMap::new(),
            next_end: 0,
            ends: Default::default(),
            live_registered: 0,
            kept_bytes: 0,
            max,
        }
    }

    /// Changes the maximum.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
        self.free_space(max, None);
    }

    /// Takes an id for an operation that is not listed, such as a registration (as RedisGears does).
    pub fn skip_number(&mut self) {
        self.next += 1;
    }

    /// Numbers below this one are not taken any more.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Adds an execution that this shard begins.
    pub fn create(&mut self, shard: ShardId, registration: Option<RegistrationNo>, style: Style) -> ExecutionNo {
        let id = Identifier { shard, counter: self.next };
        self.add(id, registration, style)
    }

    /// Adds this shard's part of an execution that another shard began.
    pub fn create_part(&mut self, id: Identifier, registration: Option<RegistrationNo>, style: Style) -> ExecutionNo {
        let number = self.add(id, registration, style);
        self.of_others.insert(id, number);
        number
    }

    fn add(&mut self, id: Identifier, registration: Option<RegistrationNo>, style: Style) -> ExecutionNo {
        self.free_space(self.max.saturating_sub(1), None);
        let number = ExecutionNo(self.next);
        self.next += 1;
        let execution = Execution {
            id,
            status: Status::Created,
            registration,
            owner: None,
            style,
            results: Vec::new(),
            result_count: 0,
            errors: Vec::new(),
            spec: None,
            run_ms: 0,
            read_micros: 0,
            step_micros: Vec::new(),
            ended: None,
            kept_bytes: 0,
        };
        self.live_registered += usize::from(execution.registration.is_some());
        self.all.insert(number, execution);
        number
    }

    /// Removes ended executions, except `kept`, while more than `len_max` count, or their results are too big.
    fn free_space(&mut self, len_max: usize, kept: Option<ExecutionNo>) {
        let too_many = |all: &Executions| all.max > 0 && all.all.len() - all.live_registered > len_max;
        while too_many(self) || self.kept_bytes > KEPT_RESULT_BYTES_MAX {
            let oldest = self.ends.iter().find_map(|ends| ends.values().find(|number| Some(**number) != kept).copied());
            let Some(oldest) = oldest else { return };
            self.take(oldest);
        }
    }

    /// The number of the execution with that identifier.
    #[must_use]
    pub fn find(&self, id: Identifier) -> Option<ExecutionNo> {
        let own = || Some(ExecutionNo(id.counter)).filter(|own| self.all.get(own).is_some_and(|own| own.id == id));
        self.of_others.get(&id).copied().or_else(own)
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

    /// Its code starts to run.
    pub fn start(&mut self, number: ExecutionNo) {
        if let Some(execution) = self.all.get_mut(&number)
            && matches!(execution.status, Status::Created | Status::PendingReceive | Status::PendingRun)
        {
            execution.status = Status::Running;
        }
    }

    /// It waits for other shards.
    pub fn set_phase(&mut self, number: ExecutionNo, status: Status) {
        debug_assert!(!status.is_final());
        if let Some(execution) = self.all.get_mut(&number).filter(|execution| !execution.status.is_final()) {
            execution.status = status;
        }
    }

    /// Removes an execution with all its data.
    pub fn take(&mut self, number: ExecutionNo) -> Option<Execution> {
        let execution = self.all.remove(&number)?;
        self.of_others.remove(&execution.id);
        match execution.ended {
            Some(end) => {
                self.kept_bytes -= execution.kept_bytes;
                self.ends[class(&execution)].remove(&end);
            }
            None => self.live_registered -= usize::from(execution.registration.is_some()),
        }
        Some(execution)
    }

    /// It has ended.
    pub fn finish(&mut self, number: ExecutionNo, status: Status) {
        debug_assert!(status.is_final());
        if let Some(execution) = self.all.get_mut(&number)
            && !execution.status.is_final()
        {
            execution.status = status;
            execution.ended = Some(self.next_end);
            execution.kept_bytes = execution.results.len() + execution.errors.iter().map(Vec::len).sum::<usize>();
            self.kept_bytes += execution.kept_bytes;
            self.ends[class(execution)].insert(self.next_end, number);
            self.live_registered -= usize::from(execution.registration.is_some());
            self.next_end += 1;
        }
    }

    /// After an end: removes others if there are too many.
    pub fn settle(&mut self, number: ExecutionNo) {
        self.free_space(self.max, Some(number));
    }

    /// Removes an execution that has ended.
    ///
    /// # Errors
    /// It does not exist, or has not ended.
    pub fn drop_finished(&mut self, number: ExecutionNo) -> Result<(), DropError> {
        let execution = self.all.get(&number).ok_or(DropError::Unknown)?;
        if !execution.status.is_final() {
            return Err(DropError::NotFinished);
        }
        self.take(number);
        Ok(())
    }

    /// All executions, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (ExecutionNo, &Execution)> {
        self.all.iter().map(|(number, execution)| (*number, execution))
    }

    /// Number of executions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// Which ended executions are removed first: those of registrations.
fn class(execution: &Execution) -> usize {
    usize::from(execution.registration.is_none())
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
            let number = executions.create(ShardId::standalone(), None, Style::Compat);
            executions.finish(number, Status::Done);
        }
        executions.create(ShardId::standalone(), None, Style::Compat);
        assert_eq!(numbers(&executions), [1, 2, 3]);
    }

    #[test]
    fn results_that_are_too_big_together_cost_the_oldest_execution_its_place() {
        let mut executions = list(0);
        let mut numbers_of = Vec::new();
        for _ in 0..4 {
            let number = executions.create(ShardId::standalone(), None, Style::Compat);
            executions.get_mut(number).unwrap().errors.push(alloc::vec![0; KEPT_RESULT_BYTES_MAX / 3]);
            executions.finish(number, Status::Done);
            executions.settle(number);
            numbers_of.push(number.0);
        }
        assert_eq!(numbers(&executions), numbers_of[1..]);
        executions.drop_finished(ExecutionNo(numbers_of[1])).unwrap();
        let big = executions.create(ShardId::standalone(), None, Style::Compat);
        executions.get_mut(big).unwrap().errors.push(alloc::vec![0; KEPT_RESULT_BYTES_MAX + 1]);
        executions.finish(big, Status::Done);
        executions.settle(big);
        assert_eq!(numbers(&executions), [big.0], "the last one stays, whatever its size");
    }

    fn end(executions: &mut Executions, number: ExecutionNo) {
        executions.finish(number, Status::Done);
        executions.settle(number);
    }

    #[test]
    fn an_execution_that_has_not_ended_stays_in_a_full_list() {
        let mut executions = list(2);
        let slow = executions.create(ShardId::standalone(), None, Style::Compat);
        for _ in 0..5 {
            let quick = executions.create(ShardId::standalone(), None, Style::Compat);
            end(&mut executions, quick);
        }
        assert_eq!(numbers(&executions), [0, 5]);
        end(&mut executions, slow);
        assert_eq!(numbers(&executions), [0, 5]);
        executions.create(ShardId::standalone(), None, Style::Compat);
        assert_eq!(numbers(&executions), [0, 6], "the one that ended first goes first");
    }

    #[test]
    fn an_execution_that_ends_while_too_many_run_can_be_asked_for() {
        let mut executions = list(1);
        let first = executions.create(ShardId::standalone(), None, Style::Compat);
        let second = executions.create(ShardId::standalone(), None, Style::Compat);
        end(&mut executions, second);
        assert_eq!(numbers(&executions), [0, 1]);
        end(&mut executions, first);
        assert_eq!(numbers(&executions), [0]);
    }

    #[test]
    fn executions_of_registrations_leave_before_those_of_runs() {
        let mut executions = list(3);
        let run = executions.create(ShardId::standalone(), None, Style::Compat);
        end(&mut executions, run);
        for _ in 0..1100 {
            let event = executions.create(ShardId::standalone(), Some(RegistrationNo(1)), Style::Compat);
            end(&mut executions, event);
        }
        assert_eq!(numbers(&executions), [0, 1099, 1100]);
        for _ in 0..1100 {
            executions.create(ShardId::standalone(), Some(RegistrationNo(1)), Style::Compat);
        }
        assert!(executions.get(run).is_some(), "what runs for registrations takes nothing from clients");
    }

    #[test]
    fn only_a_finished_execution_can_be_dropped() {
        let mut executions = list(0);
        assert_eq!(executions.drop_finished(ExecutionNo(0)), Err(DropError::Unknown));
        let number = executions.create(ShardId::standalone(), None, Style::Compat);
        assert_eq!(executions.drop_finished(number), Err(DropError::NotFinished));
        executions.finish(number, Status::Aborted);
        assert_eq!(executions.drop_finished(number), Ok(()));
        assert!(executions.is_empty());
    }

    #[test]
    fn the_first_end_counts() {
        let mut executions = list(0);
        let number = executions.create(ShardId::standalone(), None, Style::Compat);
        executions.finish(number, Status::Aborted);
        executions.finish(number, Status::Done);
        executions.start(number);
        assert_eq!(executions.get(number).map(Execution::status), Some(Status::Aborted));
    }
}
