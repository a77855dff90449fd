//! The executions of a worker: their input, the queues and lanes in which they wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use redgrease_core::frame::StartFlags;
use redgrease_core::id::ExecutionNo;

use crate::exit::fatal;
use crate::run::{Batch, Mailbox, News, Route, Routed, Run};

use super::task::Turn;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Behind another execution of its lane.
    InLane,
    /// Its plan is being loaded.
    Loading,
    Queued,
    Running,
    /// Its input is consumed, more will come.
    Waiting,
    /// It waits for coroutines or futures.
    Parked,
}

#[derive(Debug)]
struct Execution {
    start: Start,
    input: VecDeque<Batch>,
    last: bool,
    begun: bool,
    abort: bool,
    /// It was aborted while it waited for coroutines or futures.
    aborted_parked: bool,
    /// A result has come while it ran.
    woken: bool,
    /// It has waited: it is in no lane, and nobody waits for it any more.
    has_parked: bool,
    phase: Phase,
    run: Option<Box<Run>>,
    /// On a shard of several: its input is not here.
    routed: Option<Routed>,
}

impl Execution {
    fn has_news(&self) -> bool {
        self.routed.as_ref().is_some_and(|routed| routed.mailbox.has_news())
    }
}

/// How an execution starts.
#[derive(Debug)]
pub struct Start {
    /// Number of its plan.
    pub plan: u64,
    /// Executions of the same lane run one after the other. 0: none.
    pub lane: u64,
    /// How to run.
    pub flags: StartFlags,
    /// The first step that the server has not executed itself.
    pub first_step: u64,
}

/// What an abort does to an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// It is unknown, is to continue, or ends when it runs again.
    Nothing,
    /// It had not begun and was removed.
    Removed,
    /// It is running: its thread has to be interrupted.
    Interrupt,
}

/// How a turn continues when its input is consumed.
pub enum More {
    /// With more input.
    Input { input: VecDeque<Batch>, last: bool },
    /// It ends after [`Executions::suspend`]: more input will come, or other executions wait.
    Suspend,
    /// The execution is being aborted.
    Abort,
    /// The execution is unknown.
    Unknown,
}

/// Executions that have not ended.
#[derive(Debug, Default)]
pub struct Executions {
    known: HashMap<ExecutionNo, Execution>,
    /// Those that the server's main thread waits for.
    sync: VecDeque<ExecutionNo>,
    queue: VecDeque<(ExecutionNo, Instant)>,
    /// Those that run on several shards: each shard has to run them soon, whatever else it runs.
    queue_of_routed: VecDeque<(ExecutionNo, Instant)>,
    /// Those that will start on several shards.
    routed: HashMap<ExecutionNo, Routed>,
    lanes: HashMap<u64, VecDeque<ExecutionNo>>,
    /// Plans that are being loaded, and the executions that wait for them.
    loading: HashMap<u64, Vec<ExecutionNo>>,
}

impl Executions {
    /// Adds an execution, with its first input.
    pub fn start(&mut self, id: ExecutionNo, start: Start, input: Option<Batch>) {
        if self.known.contains_key(&id) {
            fatal(&format!("the server started execution {id} twice"));
        }
        let routed = self.routed.remove(&id);
        let mut phase = Phase::Queued;
        // Those before it on other shards may wait for it.
        if start.lane != 0 && routed.is_none() {
            let lane = self.lanes.entry(start.lane).or_default();
            lane.push_back(id);
            if lane.len() > 1 {
                phase = Phase::InLane;
            }
        }
        if let Some(waiting) = self.loading.get_mut(&start.plan)
            && phase == Phase::Queued
        {
            phase = Phase::Loading;
            waiting.push(id);
        }
        let last = start.flags.has(StartFlags::LAST);
        let input = match &routed {
            None => input.into_iter().collect(),
            Some(routed) => {
                routed.mailbox.put(News::Fed { batch: input, last });
                VecDeque::new()
            }
        };
        let execution = Execution {
            start,
            input,
            last,
            begun: false,
            abort: false,
            aborted_parked: false,
            woken: false,
            has_parked: false,
            phase,
            run: None,
            routed,
        };
        self.known.insert(id, execution);
        if phase == Phase::Queued {
            self.enqueue(id);
        }
    }

    /// An execution that starts next is one of several shards.
    pub fn route(&mut self, id: ExecutionNo, route: Route) {
        let routed = Routed { route: Arc::new(route), mailbox: Arc::new(Mailbox::default()) };
        if self.known.contains_key(&id) || self.routed.insert(id, routed).is_some() {
            fatal(&format!("the server sent a second route of execution {id}"));
        }
    }

    /// Hands over what concerns the stages of an execution.
    pub fn deliver(&mut self, id: ExecutionNo, news: News) {
        if let Some(routed) = self.routed.get(&id) {
            return routed.mailbox.put(news);
        }
        // One that has ended may still be sent something.
        let Some(exec) = self.known.get(&id) else { return };
        let Some(routed) = &exec.routed else {
            fatal(&format!("the server sent something for a stage of execution {id}, which has no route"));
        };
        routed.mailbox.put(news);
        if exec.phase == Phase::Waiting {
            self.enqueue(id);
        }
    }

    /// Adds input.
    pub fn feed(&mut self, id: ExecutionNo, last: bool, batch: Option<Batch>) {
        // An execution that stopped early may have ended while its input is still being sent.
        let Some(exec) = self.known.get_mut(&id) else { return };
        if exec.routed.is_some() {
            return self.deliver(id, News::Fed { batch, last });
        }
        exec.input.extend(batch);
        exec.last |= last;
        if exec.phase == Phase::Waiting {
            self.enqueue(id);
        }
    }

    /// From now on executions of this plan wait until it is loaded.
    pub fn plan_is_loading(&mut self, plan: u64) {
        self.loading.insert(plan, Vec::new());
    }

    /// A plan was loaded, or cannot be: its executions find that out.
    pub fn plan_is_loaded(&mut self, plan: u64) {
        for id in self.loading.remove(&plan).unwrap_or_default() {
            if self.known.get(&id).is_some_and(|exec| exec.phase == Phase::Loading) {
                self.enqueue(id);
            }
        }
    }

    fn enqueue(&mut self, id: ExecutionNo) {
        let Some(exec) = self.known.get_mut(&id) else { return };
        exec.phase = Phase::Queued;
        if exec.start.flags.has(StartFlags::SYNC) && !exec.has_parked {
            self.sync.push_back(id);
        } else if exec.routed.is_some() {
            self.queue_of_routed.push_back((id, Instant::now()));
        } else {
            self.queue.push_back((id, Instant::now()));
        }
    }

    /// Aborts an execution; one that has begun only if `begun`.
    pub fn abort(&mut self, id: ExecutionNo, begun: bool) -> Abort {
        self.routed.remove(&id);
        let Some(exec) = self.known.get_mut(&id) else { return Abort::Nothing };
        if exec.begun && !begun {
            return Abort::Nothing;
        }
        exec.abort = true;
        match exec.phase {
            Phase::Running => Abort::Interrupt,
            Phase::Waiting => {
                self.enqueue(id);
                Abort::Nothing
            }
            Phase::Parked => {
                exec.aborted_parked = true;
                self.enqueue(id);
                Abort::Nothing
            }
            Phase::Queued | Phase::InLane | Phase::Loading if exec.begun => Abort::Nothing,
            Phase::Queued | Phase::InLane | Phase::Loading => {
                self.queue.retain(|(queued, _)| *queued != id);
                self.queue_of_routed.retain(|(queued, _)| *queued != id);
                self.sync.retain(|queued| *queued != id);
                self.end(id);
                Abort::Removed
            }
        }
    }

    /// Ends an execution: the next one of its lane may begin.
    pub fn end(&mut self, id: ExecutionNo) {
        let Some(exec) = self.known.remove(&id) else { return };
        self.leave_lane(id, exec.start.lane);
    }

    fn leave_lane(&mut self, id: ExecutionNo, lane_no: u64) {
        let Some(lane) = self.lanes.get_mut(&lane_no) else { return };
        let was_first = lane.front() == Some(&id);
        lane.retain(|queued| *queued != id);
        match lane.front().copied() {
            None => {
                self.lanes.remove(&lane_no);
            }
            Some(next) if was_first => self.enqueue(next),
            Some(_) => {}
        }
    }

    /// Takes a sync execution from its queue.
    pub fn pop_sync(&mut self) -> Option<ExecutionNo> {
        self.sync.pop_front()
    }

    /// Takes an execution from the queue.
    pub fn pop_queued(&mut self) -> Option<ExecutionNo> {
        self.queue.pop_front().map(|(id, _)| id)
    }

    /// Takes an execution of several shards from their queue.
    pub fn pop_routed(&mut self) -> Option<ExecutionNo> {
        self.queue_of_routed.pop_front().map(|(id, _)| id)
    }

    /// Whether a sync execution is queued.
    pub fn has_sync(&self) -> bool {
        !self.sync.is_empty()
    }

    /// Since when the first execution of the queue waits.
    pub fn queued_since(&self) -> Option<Instant> {
        self.queue.front().map(|(_, since)| *since)
    }

    /// The same for executions of several shards.
    pub fn routed_queued_since(&self) -> Option<Instant> {
        self.queue_of_routed.front().map(|(_, since)| *since)
    }

    /// Begins a turn of an execution that was taken from a queue, and whether it is being aborted.
    pub fn begin_turn(&mut self, id: ExecutionNo) -> (Turn, bool) {
        let exec = self.known.get_mut(&id).expect("what is queued is known");
        exec.phase = Phase::Running;
        exec.begun = true;
        let turn = Turn {
            exec: id,
            plan: exec.start.plan,
            flags: exec.start.flags,
            first_step: exec.start.first_step,
            run: exec.run.take(),
            input: std::mem::take(&mut exec.input),
            last: exec.last,
            parked: std::mem::take(&mut exec.aborted_parked),
            routed: exec.routed.clone(),
        };
        (turn, exec.abort)
    }

    /// The execution waits for coroutines or futures, with what was not consumed; returns it if a result has come meanwhile.
    /// Others of its lane may run: it keeps nothing from them.
    pub fn park(&mut self, id: ExecutionNo, run: Box<Run>, input: VecDeque<Batch>) -> Option<Box<Run>> {
        let Some(exec) = self.known.get_mut(&id) else { return Some(run) };
        for batch in input.into_iter().rev() {
            exec.input.push_front(batch);
        }
        if std::mem::take(&mut exec.woken) || exec.abort {
            return Some(run);
        }
        exec.run = Some(run);
        exec.phase = Phase::Parked;
        if !std::mem::replace(&mut exec.has_parked, true) {
            let lane = exec.start.lane;
            self.leave_lane(id, lane);
        }
        None
    }

    /// The input of a running execution, and whether it ends there.
    pub fn take_input(&mut self, id: ExecutionNo) -> Option<(VecDeque<Batch>, bool)> {
        let exec = self.known.get_mut(&id)?;
        Some((std::mem::take(&mut exec.input), exec.last))
    }

    /// A result has come that an execution waits for; returns whether it was queued.
    pub fn wake(&mut self, id: ExecutionNo) -> bool {
        let Some(exec) = self.known.get_mut(&id) else { return false };
        if matches!(exec.phase, Phase::Parked | Phase::Waiting) {
            self.enqueue(id);
            return true;
        }
        exec.woken = true;
        false
    }

    /// Suspends the running turn of an execution of several shards until something comes for it; returns it if that has come
    /// meanwhile.
    pub fn rest(&mut self, id: ExecutionNo, run: Box<Run>) -> Option<Box<Run>> {
        let Some(exec) = self.known.get_mut(&id) else { return Some(run) };
        if std::mem::take(&mut exec.woken) || exec.has_news() || exec.abort {
            return Some(run);
        }
        exec.run = Some(run);
        exec.phase = Phase::Waiting;
        None
    }

    /// Suspends the running turn of an execution of several shards if others of them are queued; else returns it.
    pub fn let_others_run(&mut self, id: ExecutionNo, run: Box<Run>) -> Option<Box<Run>> {
        if self.queue_of_routed.is_empty() {
            return Some(run);
        }
        let Some(exec) = self.known.get_mut(&id) else { return Some(run) };
        exec.run = Some(run);
        self.enqueue(id);
        None
    }

    /// How the running turn of an execution continues.
    pub fn more(&mut self, id: ExecutionNo) -> More {
        let Some(exec) = self.known.get_mut(&id) else { return More::Unknown };
        if exec.abort {
            return More::Abort;
        }
        let is_waiting = exec.input.is_empty() && !exec.last;
        if !is_waiting && self.queue.is_empty() {
            return More::Input { input: std::mem::take(&mut exec.input), last: exec.last };
        }
        More::Suspend
    }

    /// Suspends the running turn of an execution as [`Executions::more`] decided.
    pub fn suspend(&mut self, id: ExecutionNo, run: Box<Run>) {
        let Some(exec) = self.known.get_mut(&id) else { return };
        exec.run = Some(run);
        if exec.input.is_empty() && !exec.last {
            exec.phase = Phase::Waiting;
        } else {
            // Other executions wait: let them run between two batches.
            exec.phase = Phase::Queued;
            self.queue.push_back((id, Instant::now()));
        }
    }
}
