//! A simulated worker process, which runs parts of executions.

use std::collections::{BTreeMap, VecDeque};

use redgrease_core::codec::{CODEC_VERSION, Reader, Value};
use redgrease_core::frame::{FromWorker, PROTOCOL_VERSION, Records, StartFlags, ToWorker, split};
use redgrease_core::id::{ExecutionNo, PlanNo, SessionNo};
use redgrease_core::peer::SlotRange;
use redgrease_core::plan::{Arg, Exchange, Op, PlanSpec};

use crate::plans::{self, State};
use crate::random::Random;

/// Where records of an execution go.
#[derive(Debug, Clone)]
struct Route {
    here: u64,
    slots: Vec<SlotRange>,
    window: u64,
}

/// One stage of an execution.
#[derive(Debug, Default)]
struct Stage {
    ops: Vec<Op<Arg>>,
    states: Vec<State>,
    /// Records to be processed, with the bytes that they take.
    input: VecDeque<(u64, Vec<Value>)>,
    /// No further input comes from elsewhere.
    closed: bool,
    ended: bool,
    /// Records for this stage of other shards.
    output: VecDeque<(u64, Vec<u8>)>,
    outstanding: u64,
    end_sent: bool,
}

#[derive(Debug)]
struct Execution {
    route: Option<Route>,
    stages: Vec<Stage>,
    exchanges: Vec<Exchange<Arg>>,
    results: Vec<u8>,
    count: u64,
    aborted: bool,
}

/// The worker.
#[derive(Debug, Default)]
pub struct Worker {
    /// Bytes from the server.
    pub to_worker: Vec<u8>,
    /// Bytes for the server.
    pub from_worker: Vec<u8>,
    plans: BTreeMap<PlanNo, (Vec<u8>, SessionNo)>,
    routes: BTreeMap<ExecutionNo, Route>,
    executions: BTreeMap<ExecutionNo, Execution>,
}

fn values(records: &Records<'_>) -> Vec<Value> {
    let mut reader = Reader::new(records.bytes);
    (0..records.count).map(|_| text_of(reader.value().unwrap())).collect()
}

/// Names of keys are texts.
fn text_of(value: Value) -> Value {
    match value {
        Value::Raw(bytes) => Value::text(String::from_utf8(bytes).unwrap()),
        Value::List(items) => Value::List(items.into_iter().map(text_of).collect()),
        other => other,
    }
}

impl Worker {
    /// Whether it has something to do.
    pub fn is_busy(&self) -> bool {
        !self.to_worker.is_empty() || !self.from_worker.is_empty() || self.executions.values().any(Execution::can_work)
    }

    /// Reads, and works for a moment.
    pub fn go_on(&mut self, random: &mut Random) {
        let inbox = std::mem::take(&mut self.to_worker);
        let mut at = 0;
        while let Some((body, taken)) = split(&inbox[at..]).unwrap() {
            self.receive(ToWorker::parse(body).unwrap());
            at += taken;
        }
        assert_eq!(at, inbox.len(), "frames are written whole");
        let numbers: Vec<ExecutionNo> = self.executions.keys().copied().collect();
        for number in numbers {
            if random.chance(70) {
                self.advance(number);
            }
        }
    }

    fn send(&mut self, frame: &FromWorker<'_>) {
        frame.write(&mut self.from_worker);
    }

    fn receive(&mut self, frame: ToWorker<'_>) {
        match frame {
            ToWorker::Hello { .. } => self.send(&FromWorker::Ready {
                protocol: PROTOCOL_VERSION,
                codec: CODEC_VERSION,
                pid: 7,
                python: "3.11.7",
                package: "1.0.0",
                isolation: "off",
            }),
            ToWorker::Load { request, session, function, .. } => {
                self.plans.insert(function.plan, (function.spec.to_vec(), session));
                self.send(&FromWorker::ScriptDone { request, error: None, blob: b"" });
            }
            ToWorker::Restore { request, session, function, .. } => {
                let function = function.expect("only functions of clients are run");
                self.plans.insert(function.plan, (function.spec.to_vec(), session));
                self.send(&FromWorker::ScriptDone { request, error: None, blob: b"" });
            }
            ToWorker::Route { exec, here, slots, window, .. } => {
                self.routes.insert(exec, Route { here, slots, window });
            }
            ToWorker::Start { exec, plan, flags, records, .. } => self.start(exec, plan, flags, &records),
            ToWorker::Feed { exec, last, records } => {
                if let Some(execution) = self.executions.get_mut(&exec) {
                    execution.take(0, last, &records);
                }
            }
            ToWorker::Arrived { exec, stage, last, records } => {
                if let Some(execution) = self.executions.get_mut(&exec) {
                    execution.take(stage as usize, last, &records);
                }
            }
            ToWorker::Room { exec, stage, bytes } => {
                if let Some(execution) = self.executions.get_mut(&exec) {
                    let stage = &mut execution.stages[stage as usize];
                    stage.outstanding = stage.outstanding.checked_sub(bytes).expect("credit is returned once");
                }
            }
            ToWorker::Abort { exec, begun } => {
                if begun && let Some(execution) = self.executions.get_mut(&exec) {
                    execution.aborted = true;
                }
            }
            ToWorker::ForgetPlans { plans } => plans.iter().for_each(|plan| {
                self.plans.remove(plan);
            }),
            ToWorker::ForgetSession { session } => self.plans.retain(|_, (_, of)| *of != session),
            ToWorker::Registered { .. }
            | ToWorker::Reply { .. }
            | ToWorker::Threads { .. }
            | ToWorker::CloseStage { .. }
            | ToWorker::Cluster { .. }
            | ToWorker::Shutdown => {}
            ToWorker::Script { .. } | ToWorker::Profile { .. } => unreachable!("nobody asks for it"),
        }
    }

    fn start(&mut self, exec: ExecutionNo, plan: PlanNo, flags: StartFlags, records: &Records<'_>) {
        let (spec, _) = self.plans.get(&plan).expect("what is started was loaded").clone();
        let lowered = PlanSpec::decode(&spec).unwrap().lower();
        let route = self.routes.remove(&exec);
        let exchanges: Vec<Exchange<Arg>> = lowered.exchanges.iter().map(|(exchange, _)| *exchange).collect();
        let rows = match &route {
            Some(_) => plans::rows(&lowered),
            None => vec![lowered.ops().map(|op| op.op).collect()],
        };
        let stages =
            rows.into_iter().map(|ops| Stage { states: vec![State::default(); ops.len()], ops, ..Stage::default() });
        let mut execution =
            Execution { route, stages: stages.collect(), exchanges, results: Vec::new(), count: 0, aborted: false };
        execution.take(0, flags.has(StartFlags::LAST), records);
        assert!(self.executions.insert(exec, execution).is_none(), "an execution is started once");
    }

    /// Processes one batch of one stage, sends what it may send, and ends what has ended.
    fn advance(&mut self, number: ExecutionNo) {
        let Some(mut execution) = self.executions.remove(&number) else { return };
        let mut frames = Vec::new();
        if execution.aborted {
            let errors = vec![b"Execution was aborted".as_slice()];
            let records = Records::default();
            return self.send(&FromWorker::Done { exec: number, aborted: false, records, errors, step_micros: vec![] });
        }
        execution.process(number, &mut frames);
        execution.send_output(number, &mut frames);
        execution.end_stages(number, &mut frames);
        self.from_worker.append(&mut frames);
        if execution.stages.iter().all(|stage| stage.ended && stage.output.is_empty()) {
            let records = Records { count: execution.count, bytes: &execution.results };
            let done = FromWorker::Done { exec: number, aborted: false, records, errors: vec![], step_micros: vec![] };
            return self.send(&done);
        }
        self.executions.insert(number, execution);
    }

    /// Number of executions.
    pub fn executions(&self) -> usize {
        self.executions.len()
    }
}

impl Execution {
    fn take(&mut self, stage: usize, last: bool, records: &Records<'_>) {
        let stage = &mut self.stages[stage];
        assert!(!stage.closed || (records.count == 0 && !last), "nothing comes after the last records");
        if records.count > 0 {
            stage.input.push_back((records.bytes.len() as u64, values(records)));
        }
        stage.closed |= last;
    }

    fn can_work(&self) -> bool {
        self.aborted
            || self.stages.iter().any(|stage| !stage.input.is_empty() || !stage.output.is_empty())
            || self.next_to_end().is_some()
    }

    fn next_to_end(&self) -> Option<usize> {
        let index = self.stages.iter().position(|stage| !stage.ended)?;
        let stage = &self.stages[index];
        (stage.closed && stage.input.is_empty()).then_some(index)
    }

    /// The last stage with input whose output is not blocked.
    fn process(&mut self, number: ExecutionNo, frames: &mut Vec<u8>) {
        let ready = (0..self.stages.len()).rev().find(|index| {
            let blocked = self.stages.get(index + 1).is_some_and(|next| !next.output.is_empty());
            !self.stages[*index].input.is_empty() && !blocked
        });
        let Some(index) = ready else { return };
        let Some((bytes, records)) = self.stages[index].input.pop_front() else { return };
        for record in records {
            self.flow(index, record);
        }
        match index {
            0 => FromWorker::Consumed { exec: number, bytes }.write(frames),
            _ => FromWorker::Taken { exec: number, stage: index as u64, bytes }.write(frames),
        };
    }

    fn flow(&mut self, index: usize, record: Value) {
        let mut out = Vec::new();
        let stage = &mut self.stages[index];
        plans::flow(&stage.ops, &mut stage.states, 0, record, &mut out);
        self.leave(index, out);
    }

    /// Records leave a stage: to another shard, to the next stage, or they are results.
    fn leave(&mut self, index: usize, records: Vec<Value>) {
        for record in records {
            if index + 1 == self.stages.len() {
                self.results.extend(record.encode());
                self.count += 1;
                continue;
            }
            let Some(route) = &self.route else { unreachable!("one shard has one stage") };
            let target = match plans::exchange_key(&self.exchanges[index], &record) {
                None => 0,
                Some(key) => {
                    let slot = plans::slot(&key);
                    let range = route.slots.iter().find(|range| range.first <= slot && slot <= range.last);
                    range.expect("all slots are covered").shard
                }
            };
            if target == route.here {
                self.flow(index + 1, record);
            } else {
                self.stages[index + 1].output.push_back((target, record.encode()));
            }
        }
    }

    fn send_output(&mut self, number: ExecutionNo, frames: &mut Vec<u8>) {
        let Some(route) = &self.route else { return };
        for (index, stage) in self.stages.iter_mut().enumerate().skip(1) {
            while let Some((shard, bytes)) = stage.output.front() {
                let len = bytes.len() as u64;
                if stage.outstanding > 0 && stage.outstanding + len > route.window {
                    break;
                }
                let records = Records { count: 1, bytes };
                FromWorker::Moved { exec: number, stage: index as u64, shard: *shard, records }.write(frames);
                stage.outstanding += len;
                stage.output.pop_front();
            }
        }
    }

    fn end_stages(&mut self, number: ExecutionNo, frames: &mut Vec<u8>) {
        while let Some(index) = self.next_to_end() {
            // Its end emits records: they wait like others.
            let mut out = Vec::new();
            let stage = &mut self.stages[index];
            plans::finish(&stage.ops, &mut stage.states, &mut out);
            stage.ended = true;
            self.leave(index, out);
        }
        self.send_output(number, frames);
        for index in 1..self.stages.len() {
            let before_ended = self.stages[index - 1].ended;
            let stage = &mut self.stages[index];
            let ends = before_ended && stage.output.is_empty() && !std::mem::replace(&mut stage.end_sent, true);
            if ends && self.route.is_some() {
                FromWorker::StageEnded { exec: number, stage: index as u64 }.write(frames);
            }
        }
    }
}
