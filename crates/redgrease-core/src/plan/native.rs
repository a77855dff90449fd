//! The steps at the front of a plan that need no user code: the engine runs them itself.
//!
//! `count` is the first of them: records that are counted need not be made. What follows on a shard of its own (collecting,
//! counting again, the conversion to text) is done on its one record.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::step::{Step, StepKind};
use crate::codec::Writer;

/// What is done with the number of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The number of numbers.
    Count,
    /// The number as text.
    ToStr,
}

/// The native steps of one execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeRun {
    /// What follows the first count.
    then: Vec<Then>,
    /// Index of the step that follows; `None`: there is none.
    next: Option<u64>,
    count: u64,
}

impl NativeRun {
    /// The native steps of a plan; `None`: the first step needs its records.
    #[must_use]
    pub fn of(steps: &[Step]) -> Option<NativeRun> {
        let mut left = steps.iter().enumerate();
        left.find(|(_, step)| step.kind != StepKind::Collect).filter(|(_, step)| step.kind == StepKind::Count)?;
        let mut then = Vec::new();
        for (index, step) in left {
            match step.kind {
                StepKind::Count => then.push(Then::Count),
                StepKind::ToStr => then.push(Then::ToStr),
                StepKind::Collect => {}
                _ => return Some(NativeRun { then, next: Some(index as u64), count: 0 }),
            }
        }
        Some(NativeRun { then, next: None, count: 0 })
    }

    /// Index of the first step that needs a worker; `None`: the whole plan is native.
    #[must_use]
    pub fn next_step(&self) -> Option<u64> {
        self.next
    }

    /// Takes so many records.
    pub fn feed(&mut self, records: u64) {
        self.count += records;
    }

    /// The end of the input: writes the records that come out, and returns their number.
    pub fn finish(&self, writer: &mut Writer) -> u64 {
        if self.count == 0 {
            // As every aggregation: nothing comes of nothing.
            return 0;
        }
        let (mut number, mut is_text) = (self.count, false);
        for then in &self.then {
            match then {
                Then::Count => (number, is_text) = (1, false),
                Then::ToStr => is_text = true,
            }
        }
        if is_text {
            writer.str(&number.to_string());
        } else {
            writer.int(i64::try_from(number).unwrap_or(i64::MAX));
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Value;
    use proptest::prelude::*;

    fn steps(kinds: &[StepKind]) -> Vec<Step> {
        kinds.iter().map(|kind| Step { kind: *kind }).collect()
    }

    #[test]
    fn native_are_a_count_at_the_front_and_what_follows_without_user_code() {
        use StepKind::{Collect, Count, Map, ToStr};
        let limit = StepKind::Limit { length: 1, offset: 0 };
        let table: [(&[StepKind], Option<Option<u64>>); 10] = [
            (&[Count, Collect], Some(None)),
            (&[Count, ToStr, Collect], Some(None)),
            (&[Collect, Count, Count], Some(None)),
            (&[Count, Map, ToStr], Some(Some(1))),
            (&[Collect, Count, Collect, Map], Some(Some(3))),
            (&[Count, limit], Some(Some(1))),
            (&[Map, Count, ToStr], None),
            (&[ToStr, Count], None),
            (&[Collect], None),
            (&[], None),
        ];
        for (kinds, expected) in table {
            assert_eq!(NativeRun::of(&steps(kinds)).map(|run| run.next_step()), expected, "{kinds:?}");
        }
    }

    /// Each step takes all records of the one before.
    fn naive(kinds: &[StepKind], mut records: Vec<Value>) -> Vec<Value> {
        for kind in kinds {
            records = match kind {
                StepKind::Count if records.is_empty() => Vec::new(),
                StepKind::Count => alloc::vec![Value::Int(records.len() as i64)],
                StepKind::ToStr => records
                    .into_iter()
                    .map(
                        |record| if let Value::Int(number) = record { Value::text(number.to_string()) } else { record },
                    )
                    .collect(),
                StepKind::Collect => records,
                other => unreachable!("{other:?} is not native"),
            };
        }
        records
    }

    proptest! {
        #[test]
        fn native_steps_do_what_a_naive_interpreter_does(
            front in prop::collection::vec(Just(StepKind::Collect), 0..2),
            back in prop::collection::vec(
                prop::sample::select(alloc::vec![StepKind::Count, StepKind::ToStr, StepKind::Collect, StepKind::Map]), 0..6),
            slices in prop::collection::vec(0u64..4, 0..5),
        ) {
            let kinds = [front, alloc::vec![StepKind::Count], back].concat();
            let mut run = NativeRun::of(&steps(&kinds)).unwrap();
            slices.iter().for_each(|records| run.feed(*records));
            let mut writer = Writer::new();
            let count = run.finish(&mut writer);
            let native = kinds.iter().position(|kind| *kind == StepKind::Map);
            prop_assert_eq!(run.next_step(), native.map(|index| index as u64));
            let records = alloc::vec![Value::None; slices.iter().sum::<u64>() as usize];
            let expected = naive(&kinds[..native.unwrap_or(kinds.len())], records);
            prop_assert_eq!(count, expected.len() as u64);
            let mut bytes = Vec::new();
            expected.iter().for_each(|record| bytes.extend(record.encode()));
            prop_assert_eq!(writer.as_bytes(), bytes);
        }
    }
}
