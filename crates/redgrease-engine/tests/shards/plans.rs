//! Plans of simulated functions, and what they have to return.
//!
//! Records are texts, numbers, pairs of key and value, or lists; callbacks are simple functions of them that each simulated
//! worker and the model share. The model runs all operators as one row over the records of all shards.

use std::collections::BTreeMap;

use redgrease_core::codec::Value;
use redgrease_core::plan::{Arg, Exchange, Lowered, Op, Partial, PlanSpec};

use crate::random::Random;

/// A plan, encoded, with a step `collect` at the end.
pub fn draw(random: &mut Random) -> Vec<u8> {
    let mut steps = Vec::new();
    for _ in 0..random.below(4) {
        let name = random.pick(&[
            "map",
            "filter",
            "flatmap",
            "groupby",
            "batchgroupby",
            "repartition",
            "collect",
            "aggregate",
            "aggregateby",
            "count",
            "countby",
            "avg",
            "sort",
            "distinct",
        ]);
        steps.push(step(name, random));
    }
    steps.push(step("collect", random));
    spec("KeysOnlyReader", "async", steps, reader_args())
}

/// A plan with these steps, encoded, with a step `collect` at the end.
pub fn of_steps(names: &[&str], random: &mut Random) -> Vec<u8> {
    let steps = names.iter().chain(&["collect"]).map(|name| step(name, random)).collect();
    spec("KeysOnlyReader", "async", steps, reader_args())
}

/// A function with that trigger, which counts the records of all shards.
pub fn command(name: &str, mode: &str, random: &mut Random) -> Vec<u8> {
    let args = vec![
        ("trigger", Value::text(name)),
        ("inorder", Value::Bool(false)),
        ("hook", Value::None),
        ("keyprefix", Value::None),
    ];
    spec("CommandReader", mode, vec![step("count", random), step("collect", random)], args)
}

fn reader_args() -> Vec<(&'static str, Value)> {
    vec![
        ("pattern", Value::text("*")),
        ("noScan", Value::Bool(false)),
        ("count", Value::Int(10)),
        ("readValue", Value::Bool(false)),
    ]
}

fn step(name: &str, random: &mut Random) -> Value {
    let flag = |name: &str, value: bool| Value::Dict(vec![(Value::text(name), Value::Bool(value))]);
    let mut parts = vec![Value::text(name)];
    match name {
        "flatmap" => parts.push(flag("inOrder", random.chance(50))),
        "sort" => parts.push(flag("reverse", random.chance(50))),
        "countby" | "avg" => parts.push(flag("extractor", true)),
        _ => {}
    }
    Value::List(parts)
}

fn spec(reader: &str, mode: &str, steps: Vec<Value>, args: Vec<(&str, Value)>) -> Vec<u8> {
    let dict = |pairs: Vec<(&str, Value)>| {
        Value::Dict(pairs.into_iter().map(|(name, value)| (Value::text(name), value)).collect())
    };
    dict(vec![
        ("reader", Value::text(reader)),
        ("desc", Value::None),
        ("mode", Value::text(mode)),
        ("reply", Value::text("plain")),
        ("steps", Value::List(steps)),
        ("args", dict(args)),
    ])
    .encode()
}

/// A number for each record.
fn weight(record: &Value) -> i64 {
    match record {
        Value::Str(text) => text.len() as i64,
        Value::Int(number) => *number,
        Value::List(items) => items.iter().map(weight).sum(),
        other => other.get("value").map_or(1, weight),
    }
}

/// The key of a record.
pub fn key(record: &Value) -> String {
    match record {
        Value::Str(text) => text.chars().take(2).collect(),
        other => format!("{other:?}"),
    }
}

fn pair(key: String, value: Value) -> Value {
    Value::Dict(vec![(Value::text("key"), Value::text(key)), (Value::text("value"), value)])
}

fn record_key(record: &Value) -> String {
    match record.get("key") {
        Some(Value::Str(key)) => key.clone(),
        _ => String::new(),
    }
}

/// The state of one operator.
#[derive(Debug, Default, Clone)]
pub struct State {
    number: Option<i64>,
    count: i64,
    keys: BTreeMap<String, i64>,
    records: Vec<Value>,
}

/// What an operator does to a record: the records that go on.
pub fn apply(op: &Op<Arg>, state: &mut State, record: Value) -> Vec<Value> {
    match op {
        Op::Map(_) | Op::ForEach(_) | Op::Extract(_) | Op::ToStr => vec![record],
        Op::Filter(_) => {
            if weight(&record) % 3 == 0 {
                vec![]
            } else {
                vec![record]
            }
        }
        Op::FlatMap { .. } => vec![record.clone(), record],
        Op::Accumulate(_) | Op::Fold { .. } | Op::Merge(Partial::Count) => {
            *state.number.get_or_insert(0) += weight(&record);
            vec![]
        }
        Op::Count => {
            *state.number.get_or_insert(0) += 1;
            vec![]
        }
        Op::AccumulateByKey { .. } | Op::CountByKey { .. } | Op::GroupByKey { .. } => {
            *state.keys.entry(key(&record)).or_default() += 1;
            vec![]
        }
        Op::FoldByKey { .. } => {
            *state.keys.entry(key(&record)).or_default() += weight(&record);
            vec![]
        }
        Op::MergeByKey { .. } | Op::Merge(Partial::CountByKey) => {
            *state.keys.entry(record_key(&record)).or_default() += weight(&record);
            vec![]
        }
        Op::Sum { .. } => {
            *state.number.get_or_insert(0) += weight(&record);
            state.count += 1;
            vec![]
        }
        Op::Quotient => {
            if let Value::List(parts) = &record {
                *state.number.get_or_insert(0) += weight(&parts[0]);
                state.count += weight(&parts[1]);
            }
            vec![]
        }
        Op::Sort { .. } | Op::Distinct => {
            state.records.push(record);
            vec![]
        }
        Op::Union => {
            if let Value::List(items) = record {
                state.records.extend(items);
            }
            vec![]
        }
        Op::Limit { .. } | Op::Move(_) => unreachable!("no plan has limits, and no row has moves"),
    }
}

/// What an operator emits when its input has ended.
pub fn end(op: &Op<Arg>, state: &mut State) -> Vec<Value> {
    let State { number, count, keys, mut records } = std::mem::take(state);
    match op {
        Op::Sum { .. } => number.map(|sum| Value::List(vec![Value::Int(sum), Value::Int(count)])).into_iter().collect(),
        Op::Quotient => number.map(|sum| Value::Int(sum / count.max(1))).into_iter().collect(),
        Op::Sort { .. } => {
            records.sort_by_key(Value::encode);
            records
        }
        Op::Distinct | Op::Union => {
            records.sort_by_key(Value::encode);
            records.dedup();
            let is_set = matches!(op, Op::Distinct) && !records.is_empty();
            if is_set { vec![Value::List(records)] } else { records }
        }
        _ => {
            let numbers = number.map(Value::Int).into_iter();
            numbers.chain(keys.into_iter().map(|(key, value)| pair(key, Value::Int(value)))).collect()
        }
    }
}

/// Runs records through a row of operators until it ends or the records leave it.
pub fn flow(ops: &[Op<Arg>], states: &mut [State], from: usize, record: Value, out: &mut Vec<Value>) {
    let Some(op) = ops.get(from) else { return out.push(record) };
    for next in apply(op, &mut states[from], record) {
        flow(ops, states, from + 1, next, out);
    }
}

/// Ends all operators of a row.
pub fn finish(ops: &[Op<Arg>], states: &mut [State], out: &mut Vec<Value>) {
    for index in 0..ops.len() {
        for record in end(&ops[index], &mut states[index]) {
            flow(ops, states, index + 1, record, out);
        }
    }
}

/// The operators of each segment.
pub fn rows(lowered: &Lowered) -> Vec<Vec<Op<Arg>>> {
    lowered.segments.iter().map(|segment| segment.ops.iter().map(|op| op.op).collect()).collect()
}

/// The key that decides where a record moves.
pub fn exchange_key(exchange: &Exchange<Arg>, record: &Value) -> Option<String> {
    match exchange {
        Exchange::Collect => None,
        Exchange::ByExtractedKey | Exchange::ByKeyOf(_) => Some(key(record)),
        Exchange::ByRecordKey => Some(record_key(record)),
    }
}

/// What a plan returns for these records, in the order of the encoded forms.
pub fn expected(spec: &[u8], records: impl IntoIterator<Item = Value>) -> Vec<Vec<u8>> {
    let lowered = PlanSpec::decode(spec).unwrap().lower();
    let ops: Vec<Op<Arg>> = lowered.ops().map(|op| op.op).collect();
    let mut states = vec![State::default(); ops.len()];
    let mut out = Vec::new();
    for record in records {
        flow(&ops, &mut states, 0, record, &mut out);
    }
    finish(&ops, &mut states, &mut out);
    let mut encoded: Vec<Vec<u8>> = out.iter().map(Value::encode).collect();
    encoded.sort();
    encoded
}

/// The hash slot of a key (CRC16 of XMODEM); keys of the simulation have no hash tags.
pub fn slot(key: &str) -> u16 {
    let crc = key.bytes().fold(0u16, |crc, byte| {
        (0..8)
            .fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 })
    });
    crc % 16384
}
