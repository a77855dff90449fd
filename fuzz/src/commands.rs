//! The arguments of commands, and what they hold: plans, patterns of keys, identifiers.

use redgrease_core::command::PyExecute;
use redgrease_core::id::{SHARD_ID_LEN, ShardId};
use redgrease_core::pattern::{KeyFilter, Literal};
use redgrease_core::plan::{PlanError, PlanSpec, Trigger, primitives};

/// Bytes that the text of an error about a plan may have: none grows with the plan.
const PLAN_ERROR_BYTES_MAX: usize = 2048;

/// The first byte of an input selects what the rest is; parts are separated by line breaks.
///
/// - `o`: options of `RG.PYEXECUTE`;
/// - `p`: an encoded plan;
/// - `k`: a pattern and the name of a key;
/// - `i`: an identifier of an execution, behind the id of the shard.
pub fn check(input: &[u8]) {
    match input {
        [b'o', rest @ ..] => options(rest),
        [b'p', rest @ ..] => plan(rest),
        [b'k', rest @ ..] => {
            let mut parts = rest.splitn(2, |byte| *byte == b'\n');
            let pattern = parts.next().unwrap_or_default();
            filter(pattern, parts.next().unwrap_or_default());
        }
        [b'i', rest @ ..] => identifier(rest),
        _ => {}
    }
}

fn options(text: &[u8]) {
    let words: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let parsed = match PyExecute::parse(words[0], &words[1..]) {
        Ok(parsed) => parsed,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(parsed.script, words[0]);
    if let Some(id) = parsed.id {
        assert!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    }
    assert!(words.ends_with(&parsed.requirements));
    if let Some(function) = parsed.function {
        plan(function.plan);
    }
}

fn plan(encoded: &[u8]) {
    let spec = match PlanSpec::decode(encoded) {
        Ok(spec) => spec,
        Err(error) => return short(&error),
    };
    if let Err(error) = spec.run_reader() {
        short(&error);
    } else {
        assert!(spec.reader.can_run());
    }
    match spec.trigger() {
        Err(error) => short(&error),
        Ok(trigger) => {
            assert!(spec.reader.can_register());
            if let Trigger::Keys { filter, .. } | Trigger::Stream { filter, .. } = &trigger {
                check_filter(filter, b"key:1");
            }
            if let Err(error) = spec.check_events(&trigger, |name| name == "hexpire", |name| name == "get") {
                short(&error);
            }
        }
    }
    steps(&spec);
}

fn short(error: &PlanError) {
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() <= PLAN_ERROR_BYTES_MAX, "{} bytes: {text:.200}", text.len());
}

fn steps(spec: &PlanSpec) {
    let steps = spec.steps.len() as u64;
    let lowered = spec.lower();
    assert!(!lowered.segments.is_empty());
    assert!(lowered.ops().all(|op| u64::from(op.step) < steps));
    let timed = primitives(&spec.steps).iter().filter(|primitive| primitive.step.is_some()).count();
    assert_eq!(timed as u64, steps);
    if let Some(next) = spec.native_prefix().and_then(|native| native.next_step()) {
        assert!(spec.step_name(next).is_some());
    }
    assert_eq!(spec.step_name(steps), None);
}

fn filter(pattern: &[u8], key: &[u8]) {
    let filter = match KeyFilter::new(pattern) {
        Ok(filter) => filter,
        Err(error) => return assert_eq!(error.len, pattern.len()),
    };
    assert_eq!(filter.text(), pattern);
    check_filter(&filter, key);
}

/// What a filter says about the keys that pass is true for `key`.
fn check_filter(filter: &KeyFilter, key: &[u8]) {
    let passes = filter.matches(key);
    match filter.literal() {
        Literal::Name(name) => {
            assert_eq!(passes, key == name);
            assert_eq!(filter.fixed().as_deref(), Some(name));
        }
        Literal::Prefix(prefix) => {
            assert!(!passes || key.starts_with(prefix));
            if let Some(fixed) = filter.fixed() {
                assert_eq!(fixed.strip_suffix(b"*"), Some(prefix));
                assert_eq!(passes, key.starts_with(prefix));
            }
        }
    }
}

fn identifier(counter: &[u8]) {
    let shard = ShardId::standalone();
    let identifier = [&[b'0'; SHARD_ID_LEN], counter].concat();
    if let Some(number) = shard.counter(&identifier) {
        assert_eq!(shard.identifier(number).as_bytes(), identifier);
    }
}
