//! The part of one shard in an execution on several shards.
//!
//! The shard that begins the execution, its *initiator*, sends the plan to all others, waits until each is ready, starts its
//! own part and tells the others to begin. From then on records move directly between shards. A part ends when its last stage
//! has ended; the execution ends when all parts have. Stages and exchanges: see [`Exchange`](redgrease_core::plan::Exchange).

use redgrease_core::id::{Identifier, ShardId};
use redgrease_core::peer::Route;
use redgrease_core::plan::{Exchange, PlanSpec};

use crate::cluster::functions::SharedJob;
use crate::limits::{EXCHANGE_BYTES_MAX, EXCHANGE_WINDOW_MAX, EXCHANGE_WINDOW_MIN};
use crate::prelude::*;

/// What a part waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Initiator: other shards are not ready.
    Preparing,
    /// Another shard: its worker is not ready.
    Starting,
    /// Another shard: the initiator has not said that all are ready.
    Ready,
    /// Records are read and moved.
    Running,
    /// Initiator: its own part has ended, others have not.
    Waiting,
}

/// A stage with records of other shards.
#[derive(Debug, Default)]
struct Stage {
    /// Shards that have no more records for it.
    ended: BTreeSet<u64>,
    /// Records in the worker, in the order in which they were sent to it: of which shard, and bytes.
    unconsumed: VecDeque<(u64, u64)>,
    /// The worker knows that there are no more.
    closed: bool,
    /// Encoded bytes that were sent to other shards for it, and that these have not consumed.
    outstanding: u64,
}

/// The part of this shard.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The execution, on all shards.
    pub(crate) id: Identifier,
    /// The shards, and where records go.
    pub(crate) route: Route,
    /// Position of this shard.
    pub(crate) here: u64,
    /// What it waits for.
    pub(crate) phase: Phase,
    /// Initiator: what the other shards run.
    pub(crate) job: Option<SharedJob>,
    /// It belongs to a registration of this shard.
    pub(crate) of_registration: bool,
    /// The reader of this shard has records.
    pub(crate) reads: bool,
    /// Its `Start` was sent to its worker.
    pub(crate) started: bool,
    /// Its worker reported the end.
    pub(crate) own_ended: bool,
    /// Something went wrong that ends it on all shards, or it is being aborted.
    pub(crate) failed: bool,
    /// Initiator: the other shards were told to end.
    pub(crate) aborted_others: bool,
    /// Initiator: shards that are not ready, or have not ended.
    pub(crate) waits_for: BTreeSet<u64>,
    /// Number of shards whose parts have ended.
    pub(crate) parts_ended: u64,
    /// How records move into each stage but the first one.
    collects: Vec<bool>,
    stages: Vec<Stage>,
}

/// Credit to be returned for records that a worker has consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credit {
    /// The shard that sent them.
    pub(crate) shard: ShardId,
    /// Encoded bytes.
    pub(crate) bytes: u64,
}

impl Shared {
    /// A part of an execution with these steps.
    pub(crate) fn new(id: Identifier, route: Route, here: u64, phase: Phase, spec: &PlanSpec) -> Shared {
        let exchanges = spec.lower().exchanges;
        let collects: Vec<bool> = exchanges.iter().map(|(exchange, _)| *exchange == Exchange::Collect).collect();
        let others = (0..route.shards.len() as u64).filter(|position| *position != here);
        Shared {
            id,
            here,
            phase,
            job: None,
            of_registration: false,
            reads: true,
            started: false,
            own_ended: false,
            failed: false,
            aborted_others: false,
            waits_for: if here == 0 { others.collect() } else { BTreeSet::new() },
            parts_ended: 0,
            stages: collects.iter().map(|_| Stage::default()).collect(),
            collects,
            route,
        }
    }

    /// Whether this shard has begun the execution.
    pub(crate) fn is_initiator(&self) -> bool {
        self.here == 0
    }

    /// The initiator.
    pub(crate) fn initiator(&self) -> ShardId {
        self.route.shards.first().copied().unwrap_or_else(ShardId::standalone)
    }

    /// All other shards.
    pub(crate) fn others(&self) -> Vec<ShardId> {
        let all = self.route.shards.iter().enumerate();
        all.filter(|(position, _)| *position as u64 != self.here).map(|(_, shard)| *shard).collect()
    }

    /// Position of a shard that takes part.
    pub(crate) fn position(&self, shard: ShardId) -> Option<u64> {
        self.route.shards.iter().position(|other| *other == shard).map(|position| position as u64)
    }

    /// A shard has answered; returns whether it had not before.
    pub(crate) fn answered(&mut self, shard: ShardId) -> bool {
        self.position(shard).is_some_and(|position| self.waits_for.remove(&position))
    }

    /// From now on the initiator waits for the ends of all other parts.
    pub(crate) fn wait_for_all(&mut self) {
        self.waits_for = (1..self.route.shards.len() as u64).collect();
    }

    /// Initiator: number of other shards that are ready.
    pub(crate) fn shards_ready(&self) -> u64 {
        let others = self.route.shards.len().saturating_sub(1) as u64;
        match self.phase {
            Phase::Preparing => others - (self.waits_for.len() as u64).min(others),
            _ if self.is_initiator() => others,
            _ => 0,
        }
    }

    /// Initiator: the shards whose parts may not have ended.
    pub(crate) fn unended(&self) -> Vec<ShardId> {
        match self.phase {
            Phase::Preparing | Phase::Starting | Phase::Ready => self.others(),
            Phase::Running | Phase::Waiting => {
                self.waits_for.iter().filter_map(|position| self.shard_at(*position)).collect()
            }
        }
    }

    /// Initiator: whether the part of a shard has ended.
    pub(crate) fn has_ended(&self, shard: ShardId) -> bool {
        self.is_initiator() && self.started && !self.unended().contains(&shard)
    }

    /// The shard at a position.
    pub(crate) fn shard_at(&self, position: u64) -> Option<ShardId> {
        self.route.shards.get(usize::try_from(position).ok()?).copied()
    }

    /// Encoded bytes that this shard may send to others for one stage without that they were consumed.
    pub(crate) fn window(&self) -> u64 {
        let of_all = EXCHANGE_BYTES_MAX / (self.route.shards.len() as u64).max(1);
        of_all.clamp(EXCHANGE_WINDOW_MIN, EXCHANGE_WINDOW_MAX)
    }

    /// Whether the records of a stage are collected on the initiator; `None`: there is no such stage.
    pub(crate) fn is_collected(&self, stage: u64) -> Option<bool> {
        let index = usize::try_from(stage.checked_sub(1)?).ok()?;
        self.collects.get(index).copied()
    }

    /// The shards that learn that this one has no more records for a stage.
    pub(crate) fn told_of_end(&self, stage: u64) -> Vec<ShardId> {
        match self.is_collected(stage) {
            None => Vec::new(),
            Some(true) if self.is_initiator() => Vec::new(),
            Some(true) => vec![self.initiator()],
            Some(false) => self.others(),
        }
    }

    /// Whether a shard may send records for a stage to this one.
    pub(crate) fn takes(&self, stage: u64, from: u64) -> bool {
        let collected = self.is_collected(stage).is_some_and(|collected| !collected || self.is_initiator());
        collected && self.stage(stage).is_some_and(|found| !found.closed && !found.ended.contains(&from))
    }

    /// Records of a shard are sent to the worker.
    pub(crate) fn sent_to_worker(&mut self, stage: u64, from: u64, bytes: u64) {
        if let Some(stage) = self.stage_mut(stage) {
            stage.unconsumed.push_back((from, bytes));
        }
    }

    /// The worker has consumed the oldest records of a stage: whom they came from. `None`: there are none, or others.
    pub(crate) fn taken(&mut self, stage: u64, bytes: u64) -> Option<Credit> {
        let stage = self.stage_mut(stage)?;
        if stage.unconsumed.front()?.1 != bytes {
            return None;
        }
        let (from, bytes) = stage.unconsumed.pop_front()?;
        self.shard_at(from).map(|shard| Credit { shard, bytes })
    }

    /// Records are sent to another shard; returns the bytes that others have not consumed, or `None` if there is no such
    /// stage.
    pub(crate) fn moved(&mut self, stage: u64, bytes: u64) -> Option<u64> {
        let stage = self.stage_mut(stage)?;
        stage.outstanding = stage.outstanding.saturating_add(bytes);
        Some(stage.outstanding)
    }

    /// Another shard has consumed records.
    pub(crate) fn consumed(&mut self, stage: u64, bytes: u64) {
        if let Some(stage) = self.stage_mut(stage) {
            stage.outstanding = stage.outstanding.saturating_sub(bytes);
        }
    }

    /// A shard has no more records for a stage.
    pub(crate) fn stage_ended_by(&mut self, stage: u64, from: u64) {
        if let Some(stage) = self.stage_mut(stage) {
            stage.ended.insert(from);
        }
    }

    /// The stages that receive no more records from now on, and whose worker does not know: it is told.
    pub(crate) fn newly_closed(&mut self) -> Vec<u64> {
        if !self.started {
            return Vec::new();
        }
        let (others, is_initiator) = (self.route.shards.len().saturating_sub(1), self.is_initiator());
        let mut closed = Vec::new();
        for (index, (stage, collected)) in self.stages.iter_mut().zip(&self.collects).enumerate() {
            let complete = stage.ended.len() >= others || (*collected && !is_initiator);
            if complete && !stage.closed {
                stage.closed = true;
                closed.push(index as u64 + 1);
            }
        }
        closed
    }

    /// Its state, for the message of a failed check.
    #[cfg(feature = "simulation")]
    pub(crate) fn summary(&self) -> String {
        let Shared { here, phase, started, own_ended, failed, waits_for, stages, .. } = self;
        format!(
            "part {here}, {phase:?}, started {started}, own part ended {own_ended}, failed {failed}, waits for {waits_for:?}, \
             {stages:?}"
        )
    }

    fn stage(&self, stage: u64) -> Option<&Stage> {
        self.stages.get(usize::try_from(stage.checked_sub(1)?).ok()?)
    }

    fn stage_mut(&mut self, stage: u64) -> Option<&mut Stage> {
        self.stages.get_mut(usize::try_from(stage.checked_sub(1)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redgrease_core::codec::Value;
    use redgrease_core::peer::SlotRange;

    fn spec(steps: &[&str]) -> PlanSpec {
        let steps = steps.iter().map(|kind| Value::List(vec![Value::text(*kind)])).collect();
        let pairs = [
            ("reader", Value::text("KeysReader")),
            ("desc", Value::None),
            ("mode", Value::text("async")),
            ("reply", Value::text("compat")),
            ("steps", Value::List(steps)),
            ("args", Value::Dict(vec![])),
        ];
        let pairs = pairs.into_iter().map(|(name, value)| (Value::text(name), value)).collect();
        PlanSpec::decode(&Value::Dict(pairs).encode()).unwrap()
    }

    fn part(here: u64, steps: &[&str]) -> Shared {
        let shards: Vec<ShardId> = [b"a", b"b", b"c"].map(|id| ShardId::padded(id).unwrap()).into();
        let route = Route { shards, slots: vec![SlotRange { first: 0, last: 16383, shard: 0 }] };
        let id = Identifier { shard: route.shards[0], counter: 1 };
        let mut part = Shared::new(id, route, here, Phase::Running, &spec(steps));
        part.started = true;
        part
    }

    #[test]
    fn a_stage_ends_when_all_others_have_said_so() {
        let mut part = part(0, &["groupby", "collect"]);
        assert_eq!(part.newly_closed(), []);
        part.stage_ended_by(1, 1);
        part.stage_ended_by(1, 1);
        assert_eq!(part.newly_closed(), []);
        part.stage_ended_by(2, 2);
        part.stage_ended_by(1, 2);
        assert_eq!(part.newly_closed(), [1]);
        assert_eq!(part.newly_closed(), [], "the worker is told once");
        part.stage_ended_by(2, 1);
        assert_eq!(part.newly_closed(), [2]);
    }

    #[test]
    fn what_is_collected_ends_at_once_where_it_does_not_go() {
        let mut part = part(1, &["groupby", "collect"]);
        assert_eq!(part.newly_closed(), [2]);
        assert_eq!(
            (part.takes(1, 0), part.takes(2, 0), part.takes(3, 0), part.takes(0, 0)),
            (true, false, false, false)
        );
        assert_eq!(part.told_of_end(1), [b"a", b"c"].map(|id| ShardId::padded(id).unwrap()));
        assert_eq!(part.told_of_end(2), [ShardId::padded(b"a").unwrap()]);
    }

    #[test]
    fn credit_goes_back_to_whom_the_records_came_from() {
        let mut part = part(0, &["groupby"]);
        part.sent_to_worker(1, 1, 10);
        part.sent_to_worker(1, 2, 20);
        assert_eq!(part.taken(1, 20), None, "not in the order in which they were sent");
        let shards = [b"b", b"c"].map(|id| ShardId::padded(id).unwrap());
        assert_eq!(part.taken(1, 10), Some(Credit { shard: shards[0], bytes: 10 }));
        assert_eq!(part.taken(1, 20), Some(Credit { shard: shards[1], bytes: 20 }));
        assert_eq!(part.taken(1, 20), None);
        assert_eq!(part.taken(7, 20), None);
    }

    #[test]
    fn a_shard_that_has_ended_a_stage_sends_no_more() {
        let mut part = part(0, &["groupby"]);
        assert!(part.takes(1, 1));
        part.stage_ended_by(1, 1);
        assert!(!part.takes(1, 1) && part.takes(1, 2));
    }
}
