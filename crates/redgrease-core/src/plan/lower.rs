//! Lowering: from the steps that users know to rows of operators.
//!
//! An operator works on one record at a time and keeps its own state. What has to gather records of all shards becomes a
//! local part and a merging part in the next segment: records move between shards from one [`Segment`] to the next. Where
//! all parts run in one place, the segments are one row ([`Lowered::ops`]). On a shard of several the row contains the
//! exchanges, too ([`Lowered::ops_and_exchanges`]).

use alloc::vec;
use alloc::vec::Vec;

use super::step::{Step, StepKind};

/// A callback: its position among those of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arg(pub usize);

/// One operator. `C` stands for a callback: an [`Arg`], or what is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<C> {
    /// `f(record)` is the record.
    Map(C),
    /// The record goes on if `f(record)` is true.
    Filter(C),
    /// `f(record)` is called, the record goes on.
    ForEach(C),
    /// The items of the list `f(record)`, last one first unless `in_order`.
    FlatMap {
        /// Makes the list.
        f: C,
        /// In the order of the list.
        in_order: bool,
    },
    /// `acc = f(acc, record)`.
    Accumulate(C),
    /// `acc = f(acc, record)`, beginning with a copy of `zero`.
    Fold {
        /// The first accumulator.
        zero: C,
        /// Makes the next one.
        f: C,
    },
    /// `acc[key] = f(key, acc[key], record)`.
    AccumulateByKey {
        /// Makes the key.
        extractor: C,
        /// Makes the next accumulator.
        f: C,
    },
    /// The same, beginning with a copy of `zero`.
    FoldByKey {
        /// Makes the key.
        extractor: C,
        /// The first accumulator.
        zero: C,
        /// Makes the next one.
        f: C,
    },
    /// The same over records that are `{'key', 'value'}` already.
    MergeByKey {
        /// The first accumulator.
        zero: C,
        /// Makes the next one.
        f: C,
    },
    /// `f(key, records)` once all records are there.
    GroupByKey {
        /// Makes the key.
        extractor: C,
        /// Makes the record of a key.
        f: C,
    },
    /// The key is extracted and the record goes on.
    Extract(C),
    /// Partial results of several shards become one; without other shards, one partial result is the whole.
    Merge(Partial),
    /// Records number `offset` to `offset + length - 1` go on.
    Limit {
        /// Records before the first that goes on.
        offset: u64,
        /// Records that go on.
        length: u64,
    },
    /// The text of the record.
    ToStr,
    /// Number of records.
    Count,
    /// Number of records of each key; no extractor: the record itself is the key.
    CountByKey {
        /// Makes the key.
        extractor: Option<C>,
    },
    /// Sum and number; no extractor: the record itself is the number.
    Sum {
        /// Makes the number.
        extractor: Option<C>,
    },
    /// All sums divided by all numbers.
    Quotient,
    /// All records in order.
    Sort {
        /// In reverse; they are emitted last one first.
        reverse: bool,
    },
    /// The set of all records.
    Distinct,
    /// The items of sets.
    Union,
    /// The record moves to its shard.
    Move(Exchange<C>),
}

impl<C> Op<C> {
    /// The same operator with other callbacks.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn try_map<D, E>(self, mut f: impl FnMut(C) -> Result<D, E>) -> Result<Op<D>, E> {
        Ok(match self {
            Op::Map(c) => Op::Map(f(c)?),
            Op::Filter(c) => Op::Filter(f(c)?),
            Op::ForEach(c) => Op::ForEach(f(c)?),
            Op::FlatMap { f: c, in_order } => Op::FlatMap { f: f(c)?, in_order },
            Op::Accumulate(c) => Op::Accumulate(f(c)?),
            Op::Fold { zero, f: c } => Op::Fold { zero: f(zero)?, f: f(c)? },
            Op::AccumulateByKey { extractor, f: c } => Op::AccumulateByKey { extractor: f(extractor)?, f: f(c)? },
            Op::FoldByKey { extractor, zero, f: c } => {
                Op::FoldByKey { extractor: f(extractor)?, zero: f(zero)?, f: f(c)? }
            }
            Op::MergeByKey { zero, f: c } => Op::MergeByKey { zero: f(zero)?, f: f(c)? },
            Op::GroupByKey { extractor, f: c } => Op::GroupByKey { extractor: f(extractor)?, f: f(c)? },
            Op::Extract(c) => Op::Extract(f(c)?),
            Op::Merge(partial) => Op::Merge(partial),
            Op::Limit { offset, length } => Op::Limit { offset, length },
            Op::ToStr => Op::ToStr,
            Op::Count => Op::Count,
            Op::CountByKey { extractor } => Op::CountByKey { extractor: extractor.map(f).transpose()? },
            Op::Sum { extractor } => Op::Sum { extractor: extractor.map(f).transpose()? },
            Op::Quotient => Op::Quotient,
            Op::Sort { reverse } => Op::Sort { reverse },
            Op::Distinct => Op::Distinct,
            Op::Union => Op::Union,
            Op::Move(exchange) => Op::Move(match exchange {
                Exchange::Collect => Exchange::Collect,
                Exchange::ByExtractedKey => Exchange::ByExtractedKey,
                Exchange::ByKeyOf(c) => Exchange::ByKeyOf(f(c)?),
                Exchange::ByRecordKey => Exchange::ByRecordKey,
            }),
        })
    }
}

/// What a partial result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partial {
    /// A number of records: of [`Op::Count`].
    Count,
    /// The number of records of one key: of [`Op::CountByKey`].
    CountByKey,
}

/// How records move to the next segment when a plan runs on several shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange<C> {
    /// All to the shard that began the execution.
    Collect,
    /// To the shard with the slot of the key that [`Op::Extract`], the operator before, has made.
    ByExtractedKey,
    /// To the shard with the slot of the key that this makes. The record takes its key along: the next operator has the same
    /// extractor, and does not call it again.
    ByKeyOf(C),
    /// To the shard with the slot of the record's `'key'`: of [`Op::FoldByKey`] and [`Op::CountByKey`].
    ByRecordKey,
}

/// An operator and the index of the step that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepOp<C> {
    /// The operator.
    pub op: Op<C>,
    /// Index of its step.
    pub step: u32,
}

/// Operators that are fused: each record passes them without being written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segment {
    /// The operators, first to last.
    pub ops: Vec<StepOp<Arg>>,
}

/// What is executed of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowered {
    /// Records may move to another shard between two segments. There is at least one.
    pub segments: Vec<Segment>,
    /// How they move to each segment but the first one, and the index of the step that it belongs to.
    pub exchanges: Vec<(Exchange<Arg>, u32)>,
}

impl Lowered {
    /// All operators as one row: for where no record moves.
    pub fn ops(&self) -> impl Iterator<Item = StepOp<Arg>> + '_ {
        self.segments.iter().flat_map(|segment| segment.ops.iter().copied())
    }

    /// All operators as one row, with an [`Op::Move`] between each two segments: for a shard of several.
    pub fn ops_and_exchanges(&self) -> impl Iterator<Item = StepOp<Arg>> + '_ {
        let exchanges = self.exchanges.iter().map(|(exchange, step)| StepOp { op: Op::Move(*exchange), step: *step });
        self.segments
            .iter()
            .zip([None].into_iter().chain(exchanges.map(Some)))
            .flat_map(|(segment, exchange)| exchange.into_iter().chain(segment.ops.iter().copied()))
    }
}

/// Lowers steps.
#[must_use]
pub fn lower(steps: &[Step]) -> Lowered {
    let mut segments = vec![Segment::default()];
    let mut exchanges = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let (local, moved) = parts(step.kind);
        let of_step = |op| StepOp { op, step: index as u32 };
        if let Some(segment) = segments.last_mut() {
            segment.ops.extend(local.map(of_step));
        }
        if let Some((exchange, op)) = moved {
            exchanges.push((exchange, index as u32));
            segments.push(Segment { ops: op.map(of_step).into_iter().collect() });
        }
    }
    Lowered { segments, exchanges }
}

/// The operator of a step before records move, how they move, and the operator after that; `None`: records stay.
type Parts = (Option<Op<Arg>>, Option<(Exchange<Arg>, Option<Op<Arg>>)>);

fn parts(kind: StepKind) -> Parts {
    let (a, b, c, d) = (Arg(0), Arg(1), Arg(2), Arg(3));
    let local = |op| (Some(op), None);
    let moved = |exchange, op| (None, Some((exchange, Some(op))));
    let both = |op, exchange, merging| (Some(op), Some((exchange, Some(merging))));
    match kind {
        StepKind::Map => local(Op::Map(a)),
        StepKind::Filter => local(Op::Filter(a)),
        StepKind::ForEach => local(Op::ForEach(a)),
        StepKind::FlatMap { in_order } => local(Op::FlatMap { f: a, in_order }),
        StepKind::Accumulate => local(Op::Accumulate(a)),
        StepKind::LocalGroupBy => local(Op::AccumulateByKey { extractor: a, f: b }),
        StepKind::GroupBy => moved(Exchange::ByKeyOf(a), Op::AccumulateByKey { extractor: a, f: b }),
        StepKind::BatchGroupBy => moved(Exchange::ByKeyOf(a), Op::GroupByKey { extractor: a, f: b }),
        StepKind::Repartition => (Some(Op::Extract(a)), Some((Exchange::ByExtractedKey, None))),
        StepKind::Collect => (None, Some((Exchange::Collect, None))),
        StepKind::Limit { length, offset } => local(Op::Limit { offset, length }),
        StepKind::Aggregate => both(Op::Fold { zero: a, f: b }, Exchange::Collect, Op::Fold { zero: a, f: c }),
        StepKind::AggregateBy => {
            both(Op::FoldByKey { extractor: a, zero: b, f: c }, Exchange::ByRecordKey, Op::MergeByKey { zero: b, f: d })
        }
        StepKind::LocalAggregateBy => local(Op::FoldByKey { extractor: a, zero: b, f: c }),
        StepKind::Count => both(Op::Count, Exchange::Collect, Op::Merge(Partial::Count)),
        StepKind::CountBy { extractor } => both(
            Op::CountByKey { extractor: extractor.then_some(a) },
            Exchange::ByRecordKey,
            Op::Merge(Partial::CountByKey),
        ),
        StepKind::Avg { extractor } => {
            both(Op::Sum { extractor: extractor.then_some(a) }, Exchange::Collect, Op::Quotient)
        }
        StepKind::Sort { reverse } => moved(Exchange::Collect, Op::Sort { reverse }),
        StepKind::Distinct => both(Op::Distinct, Exchange::Collect, Op::Union),
        StepKind::ToStr => local(Op::ToStr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(kinds: &[StepKind]) -> Vec<Vec<(Op<Arg>, u32)>> {
        let steps: Vec<Step> = kinds.iter().map(|kind| Step { kind: *kind }).collect();
        let lowered = lower(&steps);
        lowered.segments.iter().map(|segment| segment.ops.iter().map(|op| (op.op, op.step)).collect()).collect()
    }

    #[test]
    fn a_plan_is_cut_where_records_move() {
        let kinds = [
            StepKind::Map,
            StepKind::Filter,
            StepKind::CountBy { extractor: true },
            StepKind::ToStr,
            StepKind::Collect,
        ];
        let expected = [
            vec![(Op::Map(Arg(0)), 0), (Op::Filter(Arg(0)), 1), (Op::CountByKey { extractor: Some(Arg(0)) }, 2)],
            vec![(Op::Merge(Partial::CountByKey), 2), (Op::ToStr, 3)],
            vec![],
        ];
        assert_eq!(rows(&kinds), expected);
        assert_eq!(rows(&[]), [vec![]]);
    }

    #[test]
    fn both_halves_of_an_aggregation_have_its_zero() {
        let expected = [
            vec![(Op::FoldByKey { extractor: Arg(0), zero: Arg(1), f: Arg(2) }, 0)],
            vec![(Op::MergeByKey { zero: Arg(1), f: Arg(3) }, 0)],
        ];
        assert_eq!(rows(&[StepKind::AggregateBy]), expected);
    }

    #[test]
    fn what_needs_all_records_of_a_key_comes_after_the_move() {
        assert_eq!(rows(&[StepKind::Sort { reverse: true }]), [vec![], vec![(Op::Sort { reverse: true }, 0)]]);
        assert_eq!(
            rows(&[StepKind::Repartition, StepKind::Map]),
            [vec![(Op::Extract(Arg(0)), 0)], vec![(Op::Map(Arg(0)), 1)]]
        );
    }

    #[test]
    fn each_move_has_its_kind_and_step() {
        let kinds = [StepKind::Map, StepKind::GroupBy, StepKind::Repartition, StepKind::AggregateBy, StepKind::Count];
        let steps: Vec<Step> = kinds.iter().map(|kind| Step { kind: *kind }).collect();
        let expected = [
            (Exchange::ByKeyOf(Arg(0)), 1),
            (Exchange::ByExtractedKey, 2),
            (Exchange::ByRecordKey, 3),
            (Exchange::Collect, 4),
        ];
        assert_eq!(lower(&steps).exchanges, expected);
        for kind in StepKind::ALL {
            let lowered = lower(&[Step { kind }, Step { kind }]);
            assert_eq!(lowered.exchanges.len() + 1, lowered.segments.len(), "{kind:?}");
        }
    }

    #[test]
    fn a_row_has_exchanges_only_for_a_shard_of_several() {
        let kinds = [StepKind::Collect, StepKind::Repartition, StepKind::Count, StepKind::BatchGroupBy];
        let steps: Vec<Step> = kinds.iter().map(|kind| Step { kind: *kind }).collect();
        let lowered = lower(&steps);
        let row: Vec<_> = lowered.ops_and_exchanges().map(|op| (op.op, op.step)).collect();
        let expected = [
            (Op::Move(Exchange::Collect), 0),
            (Op::Extract(Arg(0)), 1),
            (Op::Move(Exchange::ByExtractedKey), 1),
            (Op::Count, 2),
            (Op::Move(Exchange::Collect), 2),
            (Op::Merge(Partial::Count), 2),
            (Op::Move(Exchange::ByKeyOf(Arg(0))), 3),
            (Op::GroupByKey { extractor: Arg(0), f: Arg(1) }, 3),
        ];
        assert_eq!(row, expected);
        let without: Vec<_> = lowered.ops().map(|op| (op.op, op.step)).collect();
        let moves = |op: &&(Op<Arg>, u32)| matches!(op.0, Op::Move(_));
        assert_eq!(without, expected.iter().filter(|op| !moves(op)).copied().collect::<Vec<_>>());
    }

    #[test]
    fn callbacks_are_attached_to_every_kind_and_the_first_error_ends_it() {
        for kind in StepKind::ALL {
            for op in lower(&[Step { kind }]).ops_and_exchanges() {
                assert_eq!(op.op.try_map(Ok::<_, ()>), Ok(op.op));
            }
        }
        let fold = Op::Fold { zero: Arg(0), f: Arg(1) };
        assert_eq!(fold.try_map(|arg| if arg.0 == 0 { Ok(arg) } else { Err(arg.0) }), Err(1));
    }
}
