//! The stages of an execution on one shard of several: their input, what moves to each, and what is closed.

use std::collections::VecDeque;
use std::sync::Arc;

use redgrease_core::exchange::Outgoing;
use redgrease_core::plan::Exchange;

use crate::plan::{Op, Row};

use super::input::Input;
use super::mailbox::{Batch, Mailbox};
use super::route::{Route, Routed};

/// How far an execution has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It can continue; others may run before.
    More,
    /// It needs frames of the server.
    NeedsNews,
    /// It needs results of coroutines or futures, or frames.
    NeedsResults,
    /// It has ended.
    Ended,
}

/// Input of a stage.
#[derive(Debug, Default)]
pub(super) struct StageInput {
    /// The operator that it enters at.
    pub(super) entry: usize,
    /// Operators from the first one of the stage to this one get no more records.
    pub(super) cut: usize,
    pub(super) current: Option<Input>,
    pub(super) batches: VecDeque<Batch>,
    /// No more follows.
    pub(super) last: bool,
    /// The server has to know that it is closed.
    pub(super) is_news: bool,
    /// The server knows that it is closed.
    pub(super) was_told: bool,
}

impl StageInput {
    pub(super) fn is_empty(&self) -> bool {
        self.current.is_none() && self.batches.is_empty()
    }
}

/// What an execution has in addition on a shard of several.
#[derive(Debug)]
pub(super) struct Stages {
    pub(super) route: Arc<Route>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) row: Arc<Row>,
    pub(super) inputs: Vec<StageInput>,
    /// What moves to stage 1 and following.
    pub(super) outgoing: Vec<Outgoing>,
    /// Whether the server has to know that a stage is closed.
    pub(super) has_news: bool,
    /// Records processed in this turn.
    pub(super) records: u32,
}

impl Stages {
    /// Of an execution whose own records enter at operator `first`.
    pub(super) fn new(routed: Routed, row: &Arc<Row>, first: usize) -> Stages {
        let Routed { route, mailbox } = routed;
        let input = |stage| {
            let entry = row.entry_of(stage);
            StageInput { entry, cut: entry, last: stage > 0 && route.shards == 1, ..StageInput::default() }
        };
        let mut inputs: Vec<StageInput> = (0..=row.moves.len()).map(input).collect();
        inputs[0].entry = first;
        let outgoing = row.moves.iter().map(|_| Outgoing::new(route.shards, route.window)).collect();
        Stages { route, mailbox, row: row.clone(), inputs, outgoing, has_news: false, records: 0 }
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    /// What moves at an operator.
    pub(super) fn outgoing(&mut self, op: usize) -> &mut Outgoing {
        &mut self.outgoing[self.row.stage_of(op)]
    }

    /// Whether an operator is closed although others before its stage are not.
    pub(super) fn is_cut(&self, op: usize) -> bool {
        let stage = self.row.stage_of(op);
        op >= self.row.entry_of(stage) && op < self.inputs[stage].cut
    }

    /// Whether what moves to the stage of an operator comes here only: then nothing before it is of use to others.
    pub(super) fn is_only_destination(&self, row: &Row, op: usize) -> bool {
        let Some(before) = row.stage_of(op).checked_sub(1) else { return true };
        let is_collected = matches!(row.ops[row.moves[before]].0, Op::Move(Exchange::Collect));
        self.route.shards == 1 || (is_collected && self.route.here == 0)
    }

    /// Closes the operators of a stage before that one.
    pub(super) fn cut(&mut self, op: usize) {
        let stage = self.row.stage_of(op);
        let input = &mut self.inputs[stage];
        input.cut = input.cut.max(op);
        self.tell_closed(stage);
    }

    /// All operators before that one are closed.
    pub(super) fn close_before(&mut self, op: usize) {
        let stage = self.row.stage_of(op);
        self.outgoing[..stage].iter_mut().for_each(Outgoing::clear);
        self.tell_closed(stage);
    }

    pub(super) fn tell_closed(&mut self, stage: usize) {
        let input = &mut self.inputs[stage];
        input.is_news = stage > 0 && !input.was_told;
        self.has_news |= input.is_news;
    }

    /// The first operator that may get records now.
    pub(super) fn floor(&self) -> usize {
        let blocked = self.outgoing.iter().rposition(Outgoing::is_blocked);
        blocked.map_or(0, |before| self.row.moves[before] + 1)
    }

    /// Whether a stage has got its whole input, and consumed it.
    pub(super) fn has_all(&self, stage: usize, input_closed: bool) -> bool {
        let input = &self.inputs[stage];
        input.is_empty() && (input.last || (stage == 0 && input_closed))
    }

    /// The last stage that has records which may enter now.
    pub(super) fn ready_stage(&self, floor: usize) -> Option<usize> {
        self.inputs.iter().rposition(|input| !input.is_empty() && input.entry >= floor)
    }
}
