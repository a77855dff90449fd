//! An execution on one shard of several: its stages, their input, and what blocks them.
//!
//! A stage is a part of the row between two moves of records. Stage 0 gets the records of the reader, each other one those
//! that stay here when they move, at once, and those that arrive from other shards. Work that is further down the row goes
//! first, so that pending records of a later stage are always on top of the stack.
//!
//! When the others have no room for what moves to a stage, all work before that stage stops. Work of that stage and of
//! later ones continues: the last stage needs room of nobody, so the stage before it gets room again, and so on. Shards
//! cannot wait for each other in a circle.

use pyo3::prelude::*;
use redgrease_core::codec::{Reader, Token};
use redgrease_core::frame::{FromWorker, Records};

use crate::exit::fatal;
use crate::plan::{Op, Source};

use super::input::Input;
use super::mailbox::{Batch, News};
use super::stage::Progress;
use super::{Ctx, Next, Pending, Run, Slot};

/// After so many records other executions get a turn.
const TURN_RECORDS: u32 = 4096;

/// What was done.
enum Done {
    /// A record was processed, or something was ended.
    Something,
    /// The records of a frame are consumed.
    Batch,
    /// Nothing can be done now.
    Nothing,
}

impl Run {
    /// Processes what has come, until nothing can be done or others may run.
    pub fn advance(&mut self, ctx: Ctx<'_, '_>) -> Progress {
        loop {
            if ctx.code.is_aborted() && !self.aborted {
                self.abort(ctx);
            }
            if self.aborted {
                return Progress::Ended;
            }
            self.take_news(ctx);
            self.tell(ctx);
            match self.process_one(ctx) {
                Done::Something => {}
                Done::Batch => return Progress::More,
                Done::Nothing if self.end_one(ctx) => {}
                Done::Nothing if self.has_ended() => return Progress::Ended,
                Done::Nothing => {
                    self.flush_moves(ctx);
                    return if self.waiting.is_empty() { Progress::NeedsNews } else { Progress::NeedsResults };
                }
            }
            if let Some(stages) = &mut self.stages {
                stages.records += 1;
                if stages.records >= TURN_RECORDS {
                    stages.records = 0;
                    return Progress::More;
                }
            }
        }
    }

    /// Takes what the server has sent.
    fn take_news(&mut self, ctx: Ctx<'_, '_>) {
        let Some(stages) = self.stages.as_ref().filter(|stages| stages.mailbox.has_news()) else { return };
        for news in stages.mailbox.take() {
            match news {
                News::Fed { batch, last } => self.take_batch(0, batch, last),
                News::Arrived { stage, batch, last } => {
                    let stage = self.checked_stage(stage);
                    self.take_batch(stage, batch, last);
                }
                News::Room { stage, bytes } => {
                    let stage = self.checked_stage(stage);
                    let send = self.sender(ctx, stage);
                    let outgoing = self.stages.as_mut().map(|stages| &mut stages.outgoing[stage - 1]);
                    if outgoing.is_some_and(|outgoing| !outgoing.consumed(bytes, send)) {
                        self.violation(&format!("{bytes} bytes of stage {stage} as consumed, which were not sent"));
                    }
                }
                News::Close { stage } => {
                    let stage = self.checked_stage(stage);
                    if let Some(stages) = &mut self.stages {
                        stages.inputs[stage].was_told = true;
                    }
                    self.close_all_before(self.row.entry_of(stage));
                }
            }
        }
    }

    fn take_batch(&mut self, stage: usize, batch: Option<Batch>, last: bool) {
        let Some(input) = self.stages.as_mut().map(|stages| &mut stages.inputs[stage]) else { return };
        // A reader may still send while it is told to stop.
        if input.last && batch.is_some() && stage > 0 {
            self.violation(&format!("records for stage {stage} after the last ones"));
        }
        input.batches.extend(batch);
        input.last |= last;
    }

    fn checked_stage(&self, stage: u64) -> usize {
        match usize::try_from(stage) {
            Ok(stage) if (1..=self.row.moves.len()).contains(&stage) => stage,
            _ => self.violation(&format!("stage {stage}, of {}", self.row.moves.len())),
        }
    }

    fn violation(&self, what: &str) -> ! {
        fatal(&format!("the server sent for execution {}: {what}", self.waiter.exec))
    }

    /// Tells the server what it need not send.
    fn tell(&mut self, ctx: Ctx<'_, '_>) {
        let exec = self.waiter.exec;
        let Some(stages) = &mut self.stages else { return };
        if self.input_closed && !stages.inputs[0].last && !std::mem::replace(&mut self.stop_was_sent, true) {
            ctx.results.send(ctx.py, &FromWorker::Stop { exec });
        }
        if std::mem::take(&mut stages.has_news) {
            for (stage, input) in stages.inputs.iter_mut().enumerate() {
                if std::mem::take(&mut input.is_news) && !std::mem::replace(&mut input.was_told, true) {
                    ctx.results.send(ctx.py, &FromWorker::StageClosed { exec, stage: stage as u64 });
                }
            }
        }
    }

    /// What sends records that move to a stage.
    pub(super) fn sender<'a>(&self, ctx: Ctx<'a, 'a>, stage: usize) -> impl FnMut(usize, Records<'_>) + use<'a> {
        let (exec, stage) = (self.waiter.exec, stage as u64);
        move |shard, records| {
            ctx.results.send(ctx.py, &FromWorker::Moved { exec, stage, shard: shard as u64, records });
        }
    }

    /// Sends all that is gathered for other shards.
    fn flush_moves(&mut self, ctx: Ctx<'_, '_>) {
        for stage in 1..=self.row.moves.len() {
            self.flush_stage(ctx, stage);
        }
    }

    fn flush_stage(&mut self, ctx: Ctx<'_, '_>, stage: usize) {
        let send = self.sender(ctx, stage);
        if let Some(stages) = &mut self.stages {
            stages.outgoing[stage - 1].flush(send);
        }
    }

    /// Processes one record: a result that has come, or a pending one, or one of the input; the one that is furthest down the
    /// row.
    fn process_one(&mut self, ctx: Ctx<'_, '_>) -> Done {
        if matches!(self.stack.last(), Some(Pending::Source { .. })) && self.input_closed {
            self.drop_pending(ctx.py);
            return Done::Something;
        }
        let Some(stages) = &self.stages else { return Done::Nothing };
        if let Some(stage) = (0..stages.inputs.len()).find(|stage| self.is_unused(*stage)) {
            self.drop_input(ctx, stage);
            return Done::Something;
        }
        let floor = stages.floor();
        let pending = self.stack.last().map(Pending::op).filter(|op| *op >= floor);
        let input = stages.ready_stage(floor).map(|stage| (stage, stages.inputs[stage].entry));
        let input = input.filter(|(_, entry)| pending.is_none_or(|op| *entry > op));
        let next = input.map(|(_, entry)| entry).or(pending);
        if !self.waiting.is_empty() {
            let first = next.unwrap_or(floor);
            if self.continue_one(ctx, first) {
                return Done::Something;
            }
            if !self.waiting.takes_at(first) {
                return Done::Nothing;
            }
        }
        match (input, next) {
            (Some((stage, entry)), _) => self.process_input(ctx, stage, entry),
            (None, Some(_)) => {
                if let Next::Record(op, record) = self.next_pending(ctx) {
                    self.flow(ctx, op, record);
                }
                Done::Something
            }
            (None, None) => Done::Nothing,
        }
    }

    /// Whether the input of a stage has records that are of no use.
    fn is_unused(&self, stage: usize) -> bool {
        let Some(input) = self.stages.as_ref().map(|stages| &stages.inputs[stage]) else { return false };
        !input.is_empty() && if stage == 0 { self.input_closed } else { self.is_op_closed(input.entry) }
    }

    fn drop_input(&mut self, ctx: Ctx<'_, '_>, stage: usize) {
        let Some(input) = self.stages.as_mut().map(|stages| &mut stages.inputs[stage]) else { return };
        let current = input.current.take().map(|current| current.bytes.len());
        let sizes: Vec<usize> =
            current.into_iter().chain(input.batches.drain(..).map(|batch| batch.bytes.len())).collect();
        for bytes in sizes {
            self.consumed(ctx, stage, bytes);
        }
    }

    fn consumed(&self, ctx: Ctx<'_, '_>, stage: usize, bytes: usize) {
        let (exec, stage, bytes) = (self.waiter.exec, stage as u64, bytes as u64);
        let frame =
            if stage == 0 { FromWorker::Consumed { exec, bytes } } else { FromWorker::Taken { exec, stage, bytes } };
        ctx.results.send(ctx.py, &frame);
    }

    /// Processes one record of the input of a stage.
    fn process_input(&mut self, ctx: Ctx<'_, '_>, stage: usize, entry: usize) -> Done {
        let Some(input) = self.stages.as_mut().map(|stages| &mut stages.inputs[stage]) else { return Done::Nothing };
        let next = || input.batches.pop_front().map(|batch| Input { bytes: batch.bytes, offset: 0, left: batch.count });
        let Some(mut current) = input.current.take().or_else(next) else { return Done::Nothing };
        if let Some(record) = self.read(ctx, stage, entry, &mut current) {
            self.flow(ctx, entry, record);
        }
        if current.left == 0 {
            self.consumed(ctx, stage, current.bytes.len());
            return Done::Batch;
        }
        if let Some(stages) = &mut self.stages {
            stages.inputs[stage].current = Some(current);
        }
        Done::Something
    }

    /// The next record of a batch; `None`: it was only counted, or is an error.
    fn read<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        stage: usize,
        entry: usize,
        input: &mut Input,
    ) -> Option<Bound<'py, PyAny>> {
        input.left = input.left.checked_sub(1)?;
        let mut reader = Reader::new(&input.bytes[input.offset..]);
        let start = reader.clone();
        let is_counted = matches!(self.row.ops.get(entry), Some((Op::Count, _)));
        let record = match reader.clone().token() {
            Ok(Token::Error(text)) => {
                self.add_error(|| text.to_vec());
                None
            }
            Ok(_) if is_counted && reader.clone().skip().is_ok() => {
                self.count_one(entry);
                None
            }
            _ => match self.read_arrived(ctx, stage, entry, &mut reader) {
                Ok(record) => Some(record),
                Err(error) => {
                    self.fail(ctx, error);
                    None
                }
            },
        };
        if record.is_none() {
            reader = start;
            if reader.skip().is_err() {
                // What follows cannot be found.
                input.left = 0;
            }
        }
        input.offset += reader.position();
        record
    }

    /// Ends the next operator, or begins the source, if it is time for it.
    fn end_one(&mut self, ctx: Ctx<'_, '_>) -> bool {
        let row = self.row.clone();
        let Some(stages) = &self.stages else { return false };
        if stages.floor() <= self.first && stages.has_all(0, self.input_closed) && self.begin_source(ctx) {
            return true;
        }
        let Some(((kind, _), stages)) = row.ops.get(self.ended).zip(self.stages.as_ref()) else { return false };
        let (op, stage) = (self.ended, row.stage_of(self.ended));
        if op < stages.floor() || !stages.has_all(stage, self.input_closed) {
            return false;
        }
        if self.stack.first().is_some_and(|pending| pending.op() <= op) || self.waiting.has_until(op) {
            return false;
        }
        if let Op::Move(_) = kind {
            self.ended += 1;
            self.flush_stage(ctx, stage + 1);
            let (exec, stage) = (self.waiter.exec, stage as u64 + 1);
            ctx.results.send(ctx.py, &FromWorker::StageEnded { exec, stage });
            return true;
        }
        let emits = !self.is_op_closed(op) && !matches!(self.slots[op], Slot::Empty);
        if emits && !self.waiting.takes_at(op) {
            return false;
        }
        self.ended += 1;
        if emits && let Err(error) = self.end(ctx, op) {
            self.fail(ctx, error);
        }
        true
    }

    /// Begins the source if there is one that was not begun.
    fn begin_source(&mut self, ctx: Ctx<'_, '_>) -> bool {
        let plan = self.plan.clone();
        let Source::Python(make) = &plan.source else { return false };
        if self.input_closed || std::mem::replace(&mut self.source_began, true) {
            return false;
        }
        if let Err(error) = self.source(ctx, make) {
            self.fail(ctx, error);
        }
        true
    }

    fn has_ended(&self) -> bool {
        let is_last_over =
            self.stages.as_ref().is_some_and(|stages| stages.has_all(self.row.moves.len(), self.input_closed));
        self.ended == self.row.ops.len() && is_last_over && self.stack.is_empty() && self.waiting.is_empty()
    }
}
