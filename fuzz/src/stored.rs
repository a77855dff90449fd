//! Stored and exchanged data: values of the codec, saved registrations, exported requirements.

use redgrease_core::codec::{Reader, Value};
use redgrease_core::render::{self, Answers, Style};
use redgrease_core::requirement::{Requirement, is_wheel_name};
use redgrease_core::saved::Change;

/// An input is read as each of them.
pub fn check(input: &[u8]) {
    value(input);
    replies(input);
    match Change::decode(input) {
        Ok(change) => assert_eq!(Change::decode(&change.encode()), Ok(change)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match Requirement::decode(input) {
        Ok(requirement) => {
            assert!(requirement.wheels.iter().all(|wheel| is_wheel_name(&wheel.file)));
            assert_eq!(Requirement::decode(&requirement.encode()), Ok(requirement));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A value that is read can be written and read again. Compared as bytes: not-a-number is not equal to itself.
fn value(input: &[u8]) {
    let (mut reader, mut skipping) = (Reader::new(input), Reader::new(input));
    let read = reader.value();
    assert_eq!(read.as_ref().map(drop), skipping.skip().as_ref().map(drop));
    let Ok(value) = read else { return };
    assert_eq!(reader.position(), skipping.position());
    assert_eq!(Value::decode(input).is_ok(), reader.is_empty());
    let encoded = value.encode();
    let again = Value::decode(&encoded).expect("what was read can be read again");
    assert_eq!(again.encode(), encoded);
}

/// Records become the same number of replies in each style.
fn replies(input: &[u8]) {
    let count = |style, answers| render::records(input, style, answers).map(|replies| replies.len());
    let expected = count(Style::Tagged, Answers::Run);
    for style in [Style::Compat, Style::Plain, Style::TaggedCompat] {
        for answers in [Answers::Run, Answers::Trigger] {
            assert_eq!(count(style, answers), expected);
        }
    }
}
