//! Deterministic simulation of pool, schedule and execution list together: sessions come, executions run for a simulated
//! time, turn slow, are aborted, workers crash and fail to start. Every run prints its seed when it fails.

use std::collections::{BTreeMap, HashMap, HashSet};

use redgrease_core::id::{ExecutionNo, SessionNo, ShardId, WorkerNo};
use redgrease_core::python::PythonVersion;
use redgrease_core::render::Style;
use redgrease_engine::executions::execution::{Executions, Status};
use redgrease_engine::executions::schedule::{Decision, Schedule};
use redgrease_engine::workers::pool::{Lease, Limits, Owner, Pool};

#[path = "simulation/random.rs"]
mod random;
use random::Random;

#[derive(Default)]
struct SimWorker {
    ready: bool,
    python: Option<PythonVersion>,
    /// The owner of all sessions that it ever served.
    owner: Option<Owner>,
    threads: usize,
    /// What was sent, in order, with the time it takes.
    queue: Vec<(ExecutionNo, u64)>,
}

struct Simulation {
    seed: u64,
    random: Random,
    now_ms: u64,
    threads: usize,
    pool: Pool,
    schedule: Schedule,
    executions: Executions,
    workers: BTreeMap<WorkerNo, SimWorker>,
    /// Session: its owner, its worker, executions to do.
    sessions: BTreeMap<SessionNo, (Owner, Option<WorkerNo>, Vec<ExecutionNo>)>,
    waiting: Vec<SessionNo>,
    owner: HashMap<ExecutionNo, SessionNo>,
    ended: HashSet<ExecutionNo>,
    created: usize,
    next_session: u64,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = Random(seed);
        let threads = 1 + random.below(4) as usize;
        let limits = Limits { workers_max: 1 + random.below(5) as usize, sessions_max: 1 + random.below(6) };
        Simulation {
            seed,
            now_ms: 0,
            threads,
            pool: Pool::new(limits),
            schedule: Schedule::new(threads, 0),
            executions: Executions::new(0),
            workers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            waiting: Vec::new(),
            owner: HashMap::new(),
            ended: HashSet::new(),
            created: 0,
            next_session: 1,
            random,
        }
    }

    fn apply(&mut self, decisions: Vec<Decision>) {
        for decision in decisions {
            match decision {
                Decision::Start(execution, worker) => {
                    let time = 1 + self.random.below(30);
                    let worker = self.workers.get_mut(&worker).expect("a decision names a worker that lives");
                    worker.queue.push((execution, time));
                }
                Decision::Threads(worker, threads) => {
                    if let Some(worker) = self.workers.get_mut(&worker) {
                        worker.threads = threads;
                    }
                }
            }
        }
        let granted: usize = self.workers.values().filter(|worker| !worker.queue.is_empty()).count();
        assert!(granted <= self.threads, "seed {}: {granted} workers run, {} threads", self.seed, self.threads);
    }

    fn end(&mut self, execution: ExecutionNo, status: Status) {
        assert!(self.ended.insert(execution), "seed {}: {execution} ended twice", self.seed);
        self.executions.finish(execution, status);
        let mut decisions = Vec::new();
        self.schedule.ended(execution, &mut decisions);
        self.apply(decisions);
        let session = self.owner[&execution];
        let (_, _, left) = self.sessions.get_mut(&session).expect("an execution holds its session");
        left.retain(|other| *other != execution);
        if left.is_empty() {
            self.sessions.remove(&session);
            if let Some(retired) = self.pool.release(session, self.now_ms) {
                self.kill(retired);
            }
        }
    }

    fn kill(&mut self, number: WorkerNo) {
        self.workers.remove(&number);
        let sessions = self.pool.gone(number, self.now_ms);
        let mut decisions = Vec::new();
        let (sent, queued) = self.schedule.worker_gone(number, &mut decisions);
        self.apply(decisions);
        for session in &sessions {
            if let Some((_, worker, _)) = self.sessions.get_mut(session) {
                *worker = None;
                self.waiting.push(*session);
            }
        }
        for execution in sent {
            self.end(execution, Status::Done);
        }
        // What was not sent is enqueued again when its session has a worker: see `serve`.
        drop(queued);
    }

    fn serve(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for session in waiting {
            let Some((owner, None, _)) = self.sessions.get(&session) else { continue };
            match self.pool.lease(session, owner) {
                Lease::Wait => {
                    let python = owner.python;
                    self.waiting.push(session);
                    let needs_it = |other: &&SessionNo| self.sessions[other].0.python == python;
                    let needing = self.waiting.iter().filter(needs_it).count();
                    if let Some(worker) = self.pool.evictable(python, needing) {
                        self.kill(worker);
                    }
                }
                Lease::Granted(worker) => {
                    assert!(self.workers[&worker].ready, "seed {}: leased before it was ready", self.seed);
                    self.check_owner(worker, session);
                    let (_, place, left) = self.sessions.get_mut(&session).expect("looked up above");
                    *place = Some(worker);
                    let mut decisions = Vec::new();
                    for execution in left.clone() {
                        self.schedule.enqueue(execution, worker, &mut decisions);
                    }
                    self.apply(decisions);
                }
            }
        }
        let waiting: Vec<_> = self.waiting.iter().map(|session| self.sessions[session].0.python).collect();
        for (number, python) in self.pool.starts(&waiting, self.now_ms) {
            self.workers.insert(number, SimWorker { ready: false, python, owner: None, threads: 1, queue: Vec::new() });
        }
    }

    fn check_owner(&mut self, worker: WorkerNo, session: SessionNo) {
        let owner = &self.sessions[&session].0;
        let worker = self.workers.get_mut(&worker).expect("a lease names a worker that lives");
        assert_eq!(worker.python, owner.python, "seed {}: a worker of another interpreter", self.seed);
        let first = worker.owner.get_or_insert_with(|| owner.clone());
        assert_eq!(first, owner, "seed {}: a worker serves two owners", self.seed);
    }

    fn step(&mut self, calm: bool) {
        self.now_ms += 1;
        if !calm && self.random.chance(20) {
            let session = SessionNo(self.next_session);
            self.next_session += 1;
            let environment = ["", "", "numpy", "requests"][self.random.below(4) as usize].to_owned();
            let user = ["default", "default", "alice"][self.random.below(3) as usize].to_owned();
            let count = 1 + self.random.below(80);
            let mut executions = Vec::new();
            for _ in 0..count {
                let execution = self.executions.create(ShardId::standalone(), None, Style::Compat);
                self.owner.insert(execution, session);
                executions.push(execution);
                self.created += 1;
            }
            let python = [None, None, None, PythonVersion::parse("3.9")][self.random.below(4) as usize];
            self.sessions.insert(session, (Owner { user, environment, python }, None, executions));
            self.waiting.push(session);
        }
        let numbers: Vec<WorkerNo> = self.workers.keys().copied().collect();
        for number in numbers {
            let Some(worker) = self.workers.get_mut(&number) else { continue };
            if !worker.ready {
                if !calm && self.random.chance(10) {
                    self.kill(number);
                } else if self.random.chance(30) {
                    worker.ready = true;
                    self.pool.ready(number);
                }
                continue;
            }
            if !calm && self.random.chance(1) {
                self.kill(number);
                continue;
            }
            let mut done = Vec::new();
            let mut slow = Vec::new();
            for (execution, left) in worker.queue.iter_mut().take(worker.threads) {
                *left -= 1;
                if *left == 0 {
                    done.push(*execution);
                } else if *left % 5 == 0 {
                    slow.push(*execution);
                }
            }
            worker.queue.retain(|(execution, _)| !done.contains(execution));
            for execution in slow {
                let mut decisions = Vec::new();
                self.schedule.turned_slow(execution, &mut decisions);
                self.apply(decisions);
            }
            for execution in done {
                self.end(execution, Status::Done);
            }
        }
        if !calm && self.random.chance(5) {
            self.abort_one();
        }
        self.serve();
    }

    /// Aborts an execution that was not sent: nobody else has to be asked.
    fn abort_one(&mut self) {
        let pending = self.owner.keys().filter(|execution| !self.ended.contains(execution)).min().copied();
        if let Some(execution) = pending
            && !self.schedule.is_sent(execution)
        {
            self.end(execution, Status::Aborted);
        }
    }

    fn run(&mut self) {
        for _ in 0..400 {
            self.step(false);
        }
        let mut calm_steps = 0;
        while self.ended.len() < self.created {
            self.step(true);
            calm_steps += 1;
            assert!(
                calm_steps < 200_000,
                "seed {}: {} of {} executions never ended",
                self.seed,
                self.created - self.ended.len(),
                self.created
            );
        }
        assert!(self.sessions.is_empty(), "seed {}: sessions are left over", self.seed);
        assert!(self.executions.iter().all(|(_, execution)| execution.status().is_final()));
    }
}

#[test]
fn every_execution_ends_exactly_once_whatever_workers_do() {
    for seed in 0..30 {
        Simulation::new(seed).run();
    }
}
