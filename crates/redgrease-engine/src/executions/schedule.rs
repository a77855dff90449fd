//! Decides which execution may be sent to its worker.
//!
//! At most `threads` executions run at once over all workers. A worker with work holds one permit; if its running
//! executions are slow while others wait in its queue, it gets another permit if one is free. Several
//! executions may be in transit to a worker per permit, so that short ones need no round trip each; they count
//! as running only one at a time.
//!
//! No execution can be preempted, so endless ones would keep their permits from all other workers. An
//! execution that has been running for [`LONG_TICKS`] ticks while a worker waits for a permit is *long*: it no longer
//! counts, up to a bound, when a worker without a permit requests its first one. With a single thread this does not
//! apply: one thread means that executions run one after the other.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use redgrease_core::id::{ExecutionNo, WorkerNo};

/// Executions that may be in transit per permit.
const DEPTH: usize = 64;

/// Executions that are sent to a worker at once while another worker waits for a permit.
const TURN: usize = 256;

/// Ticks after which a running execution, while other workers wait, no longer counts against them.
pub const LONG_TICKS: u32 = 3;

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Send this execution.
    Start(ExecutionNo, WorkerNo),
    /// The worker may run this many at the same time.
    Threads(WorkerNo, usize),
}

#[derive(Debug, Default)]
struct Sent {
    /// It has been running for a while.
    slow: bool,
    /// Ticks since it was found to be slow.
    ticks: u32,
}

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<ExecutionNo>,
    /// In transit or running.
    sent: BTreeMap<ExecutionNo, Sent>,
    permits: usize,
    sent_this_turn: usize,
}

impl Lane {
    fn slow(&self) -> usize {
        self.sent.values().filter(|sent| sent.slow).count()
    }

    fn long(&self) -> usize {
        self.sent.values().filter(|sent| sent.ticks >= LONG_TICKS).count().min(self.permits)
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.sent.is_empty()
    }
}

/// The state of the schedule.
#[derive(Debug)]
pub struct Schedule {
    threads: usize,
    lanes: BTreeMap<WorkerNo, Lane>,
    /// Workers with work and no permit, in the order of arrival.
    waiting: VecDeque<WorkerNo>,
    granted: usize,
    /// Permits of long executions.
    long: usize,
    long_max: usize,
    homes: BTreeMap<ExecutionNo, WorkerNo>,
}

impl Schedule {
    /// A schedule for at most `threads` executions at once (at least one), and `long_max` long ones besides.
    #[must_use]
    pub fn new(threads: usize, long_max: usize) -> Schedule {
        Schedule {
            threads: threads.max(1),
            lanes: BTreeMap::new(),
            waiting: VecDeque::new(),
            granted: 0,
            long: 0,
            long_max: if threads > 1 { long_max } else { 0 },
            homes: BTreeMap::new(),
        }
    }

    /// An execution is ready to run in a worker.
    pub fn enqueue(&mut self, execution: ExecutionNo, worker: WorkerNo, decisions: &mut Vec<Decision>) {
        let lane = self.lanes.entry(worker).or_default();
        lane.queue.push_back(execution);
        self.homes.insert(execution, worker);
        if lane.permits == 0 && !self.waiting.contains(&worker) {
            self.waiting.push_back(worker);
        }
        self.advance(worker, decisions);
    }

    /// An execution has been running for a while.
    pub fn turned_slow(&mut self, execution: ExecutionNo, decisions: &mut Vec<Decision>) {
        let Some(worker) = self.homes.get(&execution).copied() else { return };
        if let Some(sent) = self.lanes.get_mut(&worker).and_then(|lane| lane.sent.get_mut(&execution)) {
            sent.slow = true;
        }
        self.advance(worker, decisions);
    }

    /// Whether [`Schedule::tick`] may help: a worker waits for a permit.
    #[must_use]
    pub fn wants_ticks(&self) -> bool {
        self.long_max > 0 && !self.waiting.is_empty()
    }

    /// A fixed time has passed; called while [`Schedule::wants_ticks`].
    pub fn tick(&mut self, decisions: &mut Vec<Decision>) {
        for lane in self.lanes.values_mut() {
            lane.sent.values_mut().filter(|sent| sent.slow).for_each(|sent| sent.ticks = sent.ticks.saturating_add(1));
        }
        self.count_long();
        self.grant_waiting(decisions);
    }

    fn count_long(&mut self) {
        self.long = self.lanes.values().map(Lane::long).sum::<usize>().min(self.long_max);
    }

    /// An execution ended, or will not run; returns whether it was still waiting here.
    pub fn ended(&mut self, execution: ExecutionNo, decisions: &mut Vec<Decision>) -> bool {
        let Some(worker) = self.homes.remove(&execution) else { return false };
        // A lane ends with its last execution: those that `forget_waiting` removed from it may end later.
        let Some(lane) = self.lanes.get_mut(&worker) else { return true };
        let sent = lane.sent.remove(&execution);
        let was_waiting = sent.is_none();
        if was_waiting {
            lane.queue.retain(|other| *other != execution);
        } else if lane.permits > 1 && !self.waiting.is_empty() {
            // Another worker has none: this one returns the permits beyond its first.
            lane.permits -= 1;
            self.granted -= 1;
            decisions.push(Decision::Threads(worker, lane.permits));
        }
        if sent.is_some_and(|sent| sent.ticks >= LONG_TICKS) {
            self.count_long();
        }
        self.advance(worker, decisions);
        was_waiting
    }

    /// Removes executions that have not been sent from the queues; [`Schedule::ended`] of each follows.
    pub fn forget_waiting<'a>(&mut self, executions: impl IntoIterator<Item = &'a ExecutionNo>) {
        let executions: BTreeSet<ExecutionNo> = executions.into_iter().copied().collect();
        let workers: BTreeSet<WorkerNo> =
            executions.iter().filter_map(|execution| self.homes.get(execution)).copied().collect();
        for worker in workers {
            if let Some(lane) = self.lanes.get_mut(&worker) {
                lane.queue.retain(|execution| !executions.contains(execution));
            }
        }
    }

    /// Whether an execution is on its way to the worker, or running there.
    #[must_use]
    pub fn is_busy(&self, worker: WorkerNo) -> bool {
        self.lanes.get(&worker).is_some_and(|lane| !lane.sent.is_empty())
    }

    /// Whether an execution has been sent and not ended.
    #[must_use]
    pub fn is_sent(&self, execution: ExecutionNo) -> bool {
        let lane = self.homes.get(&execution).and_then(|worker| self.lanes.get(worker));
        lane.is_some_and(|lane| lane.sent.contains_key(&execution))
    }

    /// A worker has ended; returns what was sent to it and what waited for it, each in order.
    pub fn worker_gone(
        &mut self,
        worker: WorkerNo,
        decisions: &mut Vec<Decision>,
    ) -> (Vec<ExecutionNo>, Vec<ExecutionNo>) {
        let Some(lane) = self.lanes.remove(&worker) else { return (Vec::new(), Vec::new()) };
        self.waiting.retain(|other| *other != worker);
        self.granted -= lane.permits;
        self.count_long();
        let mut sent: Vec<_> = lane.sent.into_keys().collect();
        sent.sort_unstable();
        let queued: Vec<_> = lane.queue.into();
        for execution in sent.iter().chain(&queued) {
            self.homes.remove(execution);
        }
        self.grant_waiting(decisions);
        (sent, queued)
    }

    fn advance(&mut self, worker: WorkerNo, decisions: &mut Vec<Decision>) {
        self.release_if_idle(worker, decisions);
        self.grant_waiting(decisions);
        self.widen(worker, decisions);
        self.send(worker, decisions);
    }

    fn release_if_idle(&mut self, worker: WorkerNo, decisions: &mut Vec<Decision>) {
        let Some(lane) = self.lanes.get_mut(&worker) else { return };
        let must_yield = lane.sent.is_empty() && lane.sent_this_turn >= TURN && !self.waiting.is_empty();
        if !lane.is_idle() && !must_yield {
            return;
        }
        self.granted -= lane.permits;
        if lane.permits > 1 {
            decisions.push(Decision::Threads(worker, 1));
        }
        lane.permits = 0;
        lane.sent_this_turn = 0;
        if lane.is_idle() {
            self.lanes.remove(&worker);
            self.waiting.retain(|other| *other != worker);
        } else if !self.waiting.contains(&worker) {
            self.waiting.push_back(worker);
        }
    }

    fn grant_waiting(&mut self, decisions: &mut Vec<Decision>) {
        while self.granted < self.threads + self.long {
            let Some(worker) = self.waiting.pop_front() else { break };
            let Some(lane) = self.lanes.get_mut(&worker) else { continue };
            lane.permits = 1;
            lane.sent_this_turn = 0;
            self.granted += 1;
            self.send(worker, decisions);
        }
    }

    fn widen(&mut self, worker: WorkerNo, decisions: &mut Vec<Decision>) {
        if self.granted >= self.threads || !self.waiting.is_empty() {
            return;
        }
        let Some(lane) = self.lanes.get_mut(&worker) else { return };
        let behind = lane.sent.len() + lane.queue.len();
        if lane.permits > 0 && lane.slow() >= lane.permits && behind > lane.permits {
            lane.permits += 1;
            self.granted += 1;
            decisions.push(Decision::Threads(worker, lane.permits));
        }
    }

    fn send(&mut self, worker: WorkerNo, decisions: &mut Vec<Decision>) {
        let others_wait = !self.waiting.is_empty();
        let Some(lane) = self.lanes.get_mut(&worker) else { return };
        while lane.permits > 0 && lane.sent.len() < lane.permits * DEPTH {
            if others_wait && lane.sent_this_turn >= TURN {
                break;
            }
            let Some(execution) = lane.queue.pop_front() else { break };
            lane.sent.insert(execution, Sent::default());
            lane.sent_this_turn += 1;
            decisions.push(Decision::Start(execution, worker));
        }
    }

    /// Whether an execution waits here or was sent.
    #[cfg(feature = "simulation")]
    pub(crate) fn holds(&self, execution: ExecutionNo) -> bool {
        self.homes.contains_key(&execution)
    }

    /// Inconsistencies of the state.
    #[cfg(feature = "simulation")]
    pub(crate) fn inconsistencies(&self) -> Vec<alloc::string::String> {
        use alloc::format;
        let mut found = Vec::new();
        let permits: usize = self.lanes.values().map(|lane| lane.permits).sum();
        if permits != self.granted {
            found.push(format!("the schedule counts {} permits, its workers have {permits}", self.granted));
        }
        if self.granted > self.threads + self.long_max {
            found.push(format!("{} permits are granted, {} threads exist", self.granted, self.threads));
        }
        for (worker, lane) in &self.lanes {
            if lane.permits == 0 && !lane.queue.is_empty() && !self.waiting.contains(worker) {
                found.push(format!("worker {worker} has executions and waits for no permit"));
            }
            if lane.sent.len() > self.threads * DEPTH {
                found.push(format!("worker {worker} was sent {} executions", lane.sent.len()));
            }
            for execution in lane.sent.keys().chain(&lane.queue) {
                if self.homes.get(execution) != Some(worker) {
                    found.push(format!("execution {execution} is in the lane of worker {worker} and not its own"));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: WorkerNo = WorkerNo(1);
    const B: WorkerNo = WorkerNo(2);

    fn started(decisions: &[Decision]) -> Vec<u64> {
        decisions
            .iter()
            .filter_map(|decision| match decision {
                Decision::Start(execution, _) => Some(execution.0),
                Decision::Threads(..) => None,
            })
            .collect()
    }

    #[test]
    fn with_one_thread_a_second_worker_waits_for_the_first() {
        let mut schedule = Schedule::new(1, 4);
        let mut out = Vec::new();
        schedule.enqueue(ExecutionNo(1), A, &mut out);
        schedule.enqueue(ExecutionNo(2), B, &mut out);
        assert_eq!(started(&out), [1]);
        assert!(!schedule.is_sent(ExecutionNo(2)));
        out.clear();
        schedule.ended(ExecutionNo(1), &mut out);
        assert_eq!(out, [Decision::Start(ExecutionNo(2), B)]);
    }

    #[test]
    fn a_slow_execution_with_another_behind_it_gets_its_worker_a_second_thread() {
        let mut schedule = Schedule::new(3, 4);
        let mut out = Vec::new();
        schedule.enqueue(ExecutionNo(1), A, &mut out);
        schedule.enqueue(ExecutionNo(2), A, &mut out);
        out.clear();
        schedule.turned_slow(ExecutionNo(1), &mut out);
        assert_eq!(out, [Decision::Threads(A, 2)]);
        out.clear();
        schedule.ended(ExecutionNo(1), &mut out);
        schedule.ended(ExecutionNo(2), &mut out);
        assert_eq!(out, [Decision::Threads(A, 1)]);
    }

    /// Workers 1 to `count` with an endless execution each, numbered like them.
    fn endless(schedule: &mut Schedule, count: u64) {
        let mut out = Vec::new();
        for number in 1..=count {
            schedule.enqueue(ExecutionNo(number), WorkerNo(number), &mut out);
            schedule.turned_slow(ExecutionNo(number), &mut out);
        }
    }

    fn ticks(schedule: &mut Schedule, count: u32) -> Vec<Decision> {
        let mut out = Vec::new();
        (0..count).for_each(|_| schedule.tick(&mut out));
        out
    }

    #[test]
    fn endless_executions_do_not_keep_other_workers_waiting() {
        let mut schedule = Schedule::new(2, 2);
        endless(&mut schedule, 2);
        assert!(!schedule.wants_ticks());
        let mut out = Vec::new();
        schedule.enqueue(ExecutionNo(8), WorkerNo(8), &mut out);
        assert!(out.is_empty() && schedule.wants_ticks());
        assert!(ticks(&mut schedule, LONG_TICKS - 1).is_empty());
        assert_eq!(started(&ticks(&mut schedule, 1)), [8]);
        assert!(!schedule.wants_ticks());
    }

    #[test]
    fn endless_executions_of_one_worker_take_no_more_than_the_threads() {
        let mut schedule = Schedule::new(3, 1);
        let mut out = Vec::new();
        for number in 0..20 {
            schedule.enqueue(ExecutionNo(number), A, &mut out);
        }
        for number in 0..20 {
            schedule.turned_slow(ExecutionNo(number), &mut out);
        }
        assert_eq!(schedule.granted, 3);
        out.clear();
        schedule.enqueue(ExecutionNo(50), B, &mut out);
        assert_eq!(started(&ticks(&mut schedule, LONG_TICKS)), [50]);
        assert_eq!(schedule.granted, 4);
        // Permits that become free go to waiting workers.
        schedule.enqueue(ExecutionNo(60), WorkerNo(3), &mut out);
        out.clear();
        schedule.ended(ExecutionNo(0), &mut out);
        assert_eq!(out[0], Decision::Threads(A, 2));
        assert_eq!(started(&out)[0], 60);
    }

    #[test]
    fn long_executions_beyond_the_bound_count() {
        let mut schedule = Schedule::new(2, 1);
        endless(&mut schedule, 2);
        let mut out = Vec::new();
        schedule.enqueue(ExecutionNo(8), WorkerNo(8), &mut out);
        schedule.enqueue(ExecutionNo(9), WorkerNo(9), &mut out);
        assert_eq!(started(&ticks(&mut schedule, 10)), [8]);
        out.clear();
        schedule.ended(ExecutionNo(1), &mut out);
        assert_eq!(started(&out), [9]);
    }

    #[test]
    fn one_thread_runs_executions_one_after_the_other_however_long_they_are() {
        let mut schedule = Schedule::new(1, 4);
        endless(&mut schedule, 1);
        let mut out = Vec::new();
        schedule.enqueue(ExecutionNo(8), WorkerNo(8), &mut out);
        assert!(!schedule.wants_ticks());
        assert!(ticks(&mut schedule, 100).is_empty());
    }

    #[test]
    fn what_waits_can_be_taken_out_and_is_reported_as_waiting() {
        let mut schedule = Schedule::new(1, 4);
        let mut out = Vec::new();
        schedule.enqueue(ExecutionNo(1), A, &mut out);
        schedule.enqueue(ExecutionNo(2), B, &mut out);
        assert!(schedule.ended(ExecutionNo(2), &mut out));
        assert!(!schedule.ended(ExecutionNo(1), &mut out));
        assert_eq!(started(&out), [1]);
    }

    #[test]
    fn many_that_wait_are_taken_out_at_once_and_those_sent_stay() {
        let mut schedule = Schedule::new(1, 4);
        let mut out = Vec::new();
        for number in 0..DEPTH as u64 + 10 {
            schedule.enqueue(ExecutionNo(number), A, &mut out);
        }
        let all: BTreeSet<ExecutionNo> = (0..DEPTH as u64 + 10).map(ExecutionNo).collect();
        schedule.forget_waiting(&all);
        out.clear();
        for number in 0..DEPTH as u64 + 10 {
            assert_eq!(schedule.ended(ExecutionNo(number), &mut out), number >= DEPTH as u64);
        }
        assert!(out.is_empty());
        assert_eq!(schedule.granted, 0);
    }

    #[test]
    fn a_dead_worker_gives_back_its_permit_and_its_executions() {
        let mut schedule = Schedule::new(1, 4);
        let mut out = Vec::new();
        for number in 0..100 {
            schedule.enqueue(ExecutionNo(number), A, &mut out);
        }
        schedule.enqueue(ExecutionNo(200), B, &mut out);
        assert_eq!(started(&out).len(), DEPTH);
        out.clear();
        let (sent, queued) = schedule.worker_gone(A, &mut out);
        assert_eq!(sent, (0..DEPTH as u64).map(ExecutionNo).collect::<Vec<_>>());
        assert_eq!(queued, (DEPTH as u64..100).map(ExecutionNo).collect::<Vec<_>>());
        assert_eq!(started(&out), [200]);
    }

    #[test]
    fn a_busy_worker_gives_way_to_a_waiting_one() {
        let mut schedule = Schedule::new(1, 4);
        let mut out = Vec::new();
        for number in 0..1000 {
            schedule.enqueue(ExecutionNo(number), A, &mut out);
        }
        schedule.enqueue(ExecutionNo(5000), B, &mut out);
        let mut ended = 0;
        while !started(&out).contains(&5000) {
            let next = out
                .iter()
                .find_map(|decision| match decision {
                    Decision::Start(execution, worker) if schedule.is_sent(*execution) => Some((*execution, *worker)),
                    _ => None,
                })
                .expect("something is running");
            schedule.ended(next.0, &mut out);
            ended += 1;
            assert!(ended < 600, "the waiting worker starves");
        }
    }

    proptest! {
        #[test]
        fn everything_that_was_enqueued_is_started_once_and_permits_never_exceed_the_threads(
            threads in 1usize..4,
            steps in prop::collection::vec((0u8..5, 0u64..4, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut schedule = Schedule::new(threads, 4);
            let mut next = 0u64;
            let mut running: Vec<ExecutionNo> = Vec::new();
            let mut seen = alloc::collections::BTreeSet::new();
            let mut enqueued = 0usize;
            let mut apply = |decisions: Vec<Decision>, running: &mut Vec<ExecutionNo>| {
                for decision in decisions {
                    if let Decision::Start(execution, _) = decision {
                        assert!(seen.insert(execution), "{execution} started twice");
                        running.push(execution);
                    }
                }
            };
            for (kind, worker, index) in steps {
                let mut out = Vec::new();
                match kind {
                    0 | 1 => {
                        schedule.enqueue(ExecutionNo(next), WorkerNo(worker), &mut out);
                        next += 1;
                        enqueued += 1;
                    }
                    2 if !running.is_empty() => {
                        let execution = running.swap_remove(index.index(running.len()));
                        schedule.ended(execution, &mut out);
                    }
                    3 if !running.is_empty() => {
                        schedule.turned_slow(running[index.index(running.len())], &mut out);
                    }
                    4 => schedule.tick(&mut out),
                    _ => {}
                }
                apply(out, &mut running);
                let long_max = if threads > 1 { 4 } else { 0 };
                prop_assert!(schedule.granted <= threads + long_max);
            }
            while let Some(execution) = running.pop() {
                let mut out = Vec::new();
                schedule.ended(execution, &mut out);
                apply(out, &mut running);
            }
            prop_assert_eq!(seen.len(), enqueued);
            prop_assert_eq!(schedule.granted, 0);
        }
    }
}
