//! Steps: the operations between reader and action.

use serde::{Deserialize, Deserializer};

use super::range::LIMIT;

/// What a step does, with what it was given beside callbacks. Derived operations are one step here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StepKind {
    /// One record in, one out.
    Map,
    /// Keeps records for which the callback is true.
    Filter,
    /// Side effect only.
    ForEach,
    /// A list becomes its elements.
    FlatMap {
        /// In the order of the list; else the last one first.
        #[serde(rename = "inOrder")]
        in_order: bool,
    },
    /// One accumulator per shard.
    Accumulate,
    /// One accumulator per key and shard.
    LocalGroupBy,
    /// One accumulator per key.
    GroupBy,
    /// All records of a key at once.
    BatchGroupBy,
    /// Moves records to the shard of their key.
    Repartition,
    /// Moves records to the initiator.
    Collect,
    /// Lets a slice pass.
    Limit {
        /// Records that pass.
        #[serde(deserialize_with = "limit")]
        length: u64,
        /// Records before the first of them.
        #[serde(deserialize_with = "limit")]
        offset: u64,
    },
    /// Accumulate per shard, then over shards.
    Aggregate,
    /// The same per key.
    AggregateBy,
    /// The first half of it.
    LocalAggregateBy,
    /// Number of records.
    Count,
    /// Number of records per key.
    CountBy {
        /// A function makes the key; else the record is the key.
        extractor: bool,
    },
    /// Arithmetic mean.
    Avg {
        /// A function makes the number; else the record is the number.
        extractor: bool,
    },
    /// All records in order.
    Sort {
        /// Sorted in reverse, and emitted last one first: ascending.
        reverse: bool,
    },
    /// Each record once.
    Distinct,
    /// Text of the record (what `convertToStr` adds).
    ToStr,
}

impl StepKind {
    /// All kinds, each with what it does when nothing else is said.
    pub const ALL: [StepKind; 20] = [
        StepKind::Map,
        StepKind::Filter,
        StepKind::ForEach,
        StepKind::FlatMap { in_order: false },
        StepKind::Accumulate,
        StepKind::LocalGroupBy,
        StepKind::GroupBy,
        StepKind::BatchGroupBy,
        StepKind::Repartition,
        StepKind::Collect,
        StepKind::Limit { length: 0, offset: 0 },
        StepKind::Aggregate,
        StepKind::AggregateBy,
        StepKind::LocalAggregateBy,
        StepKind::Count,
        StepKind::CountBy { extractor: false },
        StepKind::Avg { extractor: false },
        StepKind::Sort { reverse: true },
        StepKind::Distinct,
        StepKind::ToStr,
    ];

    /// The name in a plan and in errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            StepKind::Map => "map",
            StepKind::Filter => "filter",
            StepKind::ForEach => "foreach",
            StepKind::FlatMap { .. } => "flatmap",
            StepKind::Accumulate => "accumulate",
            StepKind::LocalGroupBy => "localgroupby",
            StepKind::GroupBy => "groupby",
            StepKind::BatchGroupBy => "batchgroupby",
            StepKind::Repartition => "repartition",
            StepKind::Collect => "collect",
            StepKind::Limit { .. } => "limit",
            StepKind::Aggregate => "aggregate",
            StepKind::AggregateBy => "aggregateby",
            StepKind::LocalAggregateBy => "localaggregateby",
            StepKind::Count => "count",
            StepKind::CountBy { .. } => "countby",
            StepKind::Avg { .. } => "avg",
            StepKind::Sort { .. } => "sort",
            StepKind::Distinct => "distinct",
            StepKind::ToStr => "tostr",
        }
    }
}

fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(LIMIT)
}

/// One step of a plan, encoded as `[name]` or `[name, settings]`. Its callbacks are where it runs; here it is known by its
/// position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Value;
    use crate::from_value::from_value;
    use crate::plan::PlanError;
    use alloc::vec;

    fn decoded(name: &str, settings: &[(&str, Value)]) -> Result<StepKind, PlanError> {
        let settings = settings.iter().map(|(name, value)| (Value::text(*name), value.clone())).collect();
        let step: Step = from_value(&Value::List(vec![Value::text(name), Value::Dict(settings)]))?;
        Ok(step.kind)
    }

    #[test]
    fn each_kind_is_known_by_its_name_and_no_two_share_one() {
        for (index, kind) in StepKind::ALL.into_iter().enumerate() {
            assert!(StepKind::ALL[..index].iter().all(|other| other.name() != kind.name()), "{kind:?} twice");
            let settings = [
                ("inOrder", Value::Bool(false)),
                ("length", Value::Int(0)),
                ("offset", Value::Int(0)),
                ("extractor", Value::Bool(false)),
                ("reverse", Value::Bool(true)),
            ];
            assert_eq!(decoded(kind.name(), &settings), Ok(kind));
        }
    }

    #[test]
    fn settings_are_read_and_checked() {
        let limit = |length| decoded("limit", &[("length", length), ("offset", Value::Int(2))]);
        assert_eq!(limit(Value::Int(3)), Ok(StepKind::Limit { length: 3, offset: 2 }));
        assert!(matches!(limit(Value::Int(-1)), Err(PlanError::Unfit { field: "length", .. })));
        assert_eq!(decoded("sort", &[]), Err(PlanError::Missing("reverse")));
        let flatmap = decoded("flatmap", &[("inOrder", Value::Int(1))]);
        assert!(matches!(flatmap, Err(PlanError::Unfit { field: "inOrder", .. })));
    }

    #[test]
    fn an_unknown_step_is_named() {
        assert_eq!(decoded("fly", &[]), Err(PlanError::Step("fly".into())));
        assert!(from_value::<Step>(&Value::List(vec![])).is_err());
    }
}
