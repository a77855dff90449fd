//! The primitive steps that RedisGears shows for a plan in `RG.GETEXECUTION`.
//!
//! Source: the names and their order are those of RedisGears 1.2. Operations that are one step here were several there.

use alloc::vec::Vec;

use super::step::{Step, StepKind};

/// A primitive step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Primitive {
    /// Its type, such as `map` or `extractkey`.
    pub kind: &'static str,
    /// Name of the operation that it belongs to.
    pub name: &'static str,
    /// Index of the plan's step that it belongs to, if it is the first one of that step: the time of a step is shown
    /// there.
    pub step: Option<usize>,
}

/// The step before all others: it makes a Python object of what the reader read.
const TO_OBJECT: Primitive = Primitive { kind: "map", name: "RedisGearsPy_ToPyRecordMapper", step: None };

/// The primitive steps of a plan, first to last. The reader is none.
#[must_use]
pub fn primitives(steps: &[Step]) -> Vec<Primitive> {
    let mut all = Vec::from([TO_OBJECT]);
    for (index, step) in steps.iter().enumerate() {
        let name = step.kind.name();
        let kinds = kinds(step.kind).iter().enumerate();
        all.extend(kinds.map(|(part, kind)| Primitive { kind, name, step: (part == 0).then_some(index) }));
    }
    all
}

fn kinds(step: StepKind) -> &'static [&'static str] {
    match step {
        StepKind::Map | StepKind::ToStr => &["map"],
        StepKind::Filter => &["filter"],
        StepKind::ForEach => &["foreach"],
        StepKind::FlatMap { .. } => &["map", "flatmap"],
        StepKind::Accumulate => &["accumulate"],
        StepKind::LocalGroupBy | StepKind::LocalAggregateBy => &["extractkey", "accumulatebykey", "map"],
        StepKind::GroupBy => &["extractkey", "repartition", "accumulatebykey", "map"],
        StepKind::BatchGroupBy => &["extractkey", "repartition", "group", "reduce", "map"],
        StepKind::Repartition => &["extractkey", "repartition", "map"],
        StepKind::Collect => &["collect"],
        StepKind::Limit { .. } => &["limit"],
        StepKind::Aggregate | StepKind::Count => &["accumulate", "collect", "accumulate"],
        StepKind::Avg { .. } => &["accumulate", "collect", "accumulate", "map"],
        StepKind::AggregateBy | StepKind::CountBy { .. } => {
            &["extractkey", "accumulatebykey", "map", "extractkey", "repartition", "accumulatebykey", "map"]
        }
        StepKind::Sort { .. } | StepKind::Distinct => &["accumulate", "collect", "accumulate", "map", "flatmap"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_shown_as_its_primitive_steps() {
        let shown = |kinds: &[StepKind]| -> Vec<&'static str> {
            let steps: Vec<Step> = kinds.iter().map(|kind| Step { kind: *kind }).collect();
            primitives(&steps).iter().map(|primitive| primitive.kind).collect()
        };
        assert_eq!(shown(&[StepKind::Map, StepKind::ToStr, StepKind::Collect]), ["map", "map", "map", "collect"]);
        assert_eq!(shown(&[StepKind::Repartition]), ["map", "extractkey", "repartition", "map"]);
        assert_eq!(shown(&[]), ["map"]);
    }

    #[test]
    fn each_step_of_the_plan_has_one_primitive_for_its_time() {
        let steps: Vec<Step> = StepKind::ALL.iter().map(|kind| Step { kind: *kind }).collect();
        let timed: Vec<usize> = primitives(&steps).iter().filter_map(|primitive| primitive.step).collect();
        assert_eq!(timed, (0..steps.len()).collect::<Vec<_>>());
    }
}
