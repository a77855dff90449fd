//! How results look to a client.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{CodecError, Reader, Value};

/// A reply, independent of the protocol version of the client.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// A simple string; must be one line.
    Simple(String),
    /// An error; its first word is the code.
    Error(String),
    /// A bulk string.
    Bulk(Vec<u8>),
    /// An integer.
    Int(i64),
    /// A double: a bulk string for clients of RESP2.
    Double(f64),
    /// A boolean: an integer for clients of RESP2.
    Bool(bool),
    /// Nothing.
    Null,
    /// An array.
    Array(Vec<Reply>),
    /// Pairs: a flat array for clients of RESP2.
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    /// A bulk string from text.
    #[must_use]
    pub fn bulk(text: impl AsRef<[u8]>) -> Reply {
        Reply::Bulk(text.as_ref().to_vec())
    }
}

/// How records become replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As RedisGears 1.x: a value without a RESP form is the text `PY RECORD`.
    Compat,
    /// Plain values for a client that knows nothing of us.
    Plain,
    /// A pickle of each record, as the runtime of RedGrease 0.3 returned them.
    Pickled,
    /// The encoded value itself, in a bulk, for a client that announced the codec.
    Tagged,
    /// The same for results of scripts that were written for RedisGears: text as bytes, as such clients got it.
    TaggedCompat,
}

impl Style {
    /// The style for a client that announced the codec.
    #[must_use]
    pub fn tagged(self) -> Style {
        match self {
            Style::Compat | Style::TaggedCompat => Style::TaggedCompat,
            Style::Plain | Style::Pickled | Style::Tagged => Style::Tagged,
        }
    }

    /// Whether results are wanted with everything that the codec can carry.
    #[must_use]
    pub fn is_tagged(self) -> bool {
        matches!(self, Style::Tagged | Style::TaggedCompat)
    }
}

/// What a reply answers, which decides whether a text may choose the kind of its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// A run: all results are data.
    Run,
    /// A triggered command: a text that begins with `+` or `-` and a letter is a status or an error.
    Trigger,
}

/// What RedisGears answered in place of a value that has no reply of its own.
const PY_RECORD: &str = "PY RECORD";

/// Renders encoded records, one reply each.
///
/// # Errors
/// When the bytes are not records.
pub fn records(bytes: &[u8], style: Style, answers: Answers) -> Result<Vec<Reply>, CodecError> {
    let mut reader = Reader::new(bytes);
    let mut replies = Vec::new();
    while !reader.is_empty() {
        replies.push(match style {
            Style::Tagged => Reply::Bulk(reader.encoded_value()?.to_vec()),
            Style::TaggedCompat => Reply::Bulk(as_bytes(reader.value()?).encode()),
            Style::Compat => compat(reader.value()?, answers),
            Style::Plain => plain(reader.value()?),
            Style::Pickled => pickled(reader.value()?),
        });
    }
    Ok(replies)
}

fn compat(value: Value, answers: Answers) -> Reply {
    let text = |bytes| if answers == Answers::Trigger { compat_text(bytes) } else { Reply::Bulk(bytes) };
    match value {
        Value::Bool(flag) => Reply::Int(i64::from(flag)),
        Value::Int(number) => Reply::Int(number),
        Value::BigInt(digits) => Reply::Bulk(digits.into_bytes()),
        Value::Float(number) => Reply::Bulk(fixed_point(number).into_bytes()),
        Value::Str(string) => text(string.into_bytes()),
        Value::Raw(bytes) => text(bytes),
        Value::Bytes(bytes) => Reply::Bulk(bytes),
        Value::Error(bytes) => text(bytes),
        Value::List(items) => Reply::Array(items.into_iter().map(|item| compat(item, answers)).collect()),
        Value::None
        | Value::Complex(..)
        | Value::ByteArray(_)
        | Value::Pickle(_)
        | Value::Opaque(_)
        | Value::Tuple(_)
        | Value::Set(_)
        | Value::FrozenSet(_)
        | Value::Dict(_) => Reply::bulk(PY_RECORD),
    }
}

/// C's `%lf`, which RedisGears used.
fn fixed_point(number: f64) -> String {
    if number.is_nan() {
        "nan".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "inf".to_owned() } else { "-inf".to_owned() }
    } else {
        format!("{number:.6}")
    }
}

/// A text that starts with `+` and a letter becomes a status reply, one that starts with `-` and a letter an error.
/// Everything else is data: `-7`, `-inf` and `+49 170`, too.
fn compat_text(bytes: Vec<u8>) -> Reply {
    match bytes.as_slice() {
        [b'+' | b'-', ..] if is_number(&bytes) => Reply::Bulk(bytes),
        [b'+', first, ..] if first.is_ascii_alphabetic() => Reply::Simple(one_line(&bytes[1..])),
        [b'-', first, ..] if first.is_ascii_alphabetic() => Reply::Error(one_line(&bytes[1..])),
        _ => Reply::Bulk(bytes),
    }
}

/// Whether a text is that of a number, also of an imaginary one.
fn is_number(text: &[u8]) -> bool {
    let text = text.strip_suffix(b"j").unwrap_or(text);
    core::str::from_utf8(text).is_ok_and(|text| text.parse::<f64>().is_ok())
}

/// Text for a place where the protocol ends a line: line breaks and NUL are shown as escapes.
#[must_use]
pub fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !text.contains(['\r', '\n', '\0']) {
        return text.into_owned();
    }
    text.replace('\r', "\\r").replace('\n', "\\n").replace('\0', "\\0")
}

/// Bytes of user code as one line of a log: control characters and bytes that are not UTF-8 are escaped.
#[must_use]
pub fn log_line(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() && c != '\t' {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
        }
        for byte in chunk.invalid() {
            line.push_str(&format!("\\x{byte:02x}"));
        }
    }
    line
}

/// Text becomes bytes; also in lists, which are all that such clients get nested.
fn as_bytes(value: Value) -> Value {
    match value {
        Value::Str(text) => Value::Bytes(text.into_bytes()),
        Value::Raw(bytes) => Value::Bytes(bytes),
        Value::List(items) => Value::List(items.into_iter().map(as_bytes).collect()),
        other => other,
    }
}

fn plain(value: Value) -> Reply {
    match value {
        Value::None => Reply::Null,
        Value::Bool(flag) => Reply::Bool(flag),
        Value::Int(number) => Reply::Int(number),
        Value::BigInt(digits) => Reply::Bulk(digits.into_bytes()),
        Value::Float(number) => Reply::Double(number),
        Value::Complex(re, im) => Reply::bulk(format!("{re}{im:+}j")),
        Value::Str(text) => Reply::Bulk(text.into_bytes()),
        Value::Opaque(text) => Reply::Bulk(text.into_bytes()),
        Value::Bytes(bytes)
        | Value::ByteArray(bytes)
        | Value::Raw(bytes)
        | Value::Pickle(bytes)
        | Value::Error(bytes) => Reply::Bulk(bytes),
        Value::List(items) | Value::Tuple(items) | Value::Set(items) | Value::FrozenSet(items) => {
            Reply::Array(items.into_iter().map(plain).collect())
        }
        Value::Dict(pairs) => Reply::Map(pairs.into_iter().map(|(key, value)| (plain(key), plain(value))).collect()),
    }
}

/// Workers pickle their results. What the engine itself makes of a plan is a number, or its text.
fn pickled(value: Value) -> Reply {
    const PROTOCOL_4: [u8; 2] = [0x80, 4];
    match value {
        Value::Int(number) => Reply::Bulk([&PROTOCOL_4, format!("I{number}\n.").as_bytes()].concat()),
        Value::Str(text) => {
            let len = u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes();
            Reply::Bulk([&PROTOCOL_4, b"\x8d".as_slice(), &len, text.as_bytes(), b"."].concat())
        }
        other => plain(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn example() -> Value {
        Value::List(vec![
            Value::Int(1),
            Value::Float(2.5),
            Value::text("x"),
            Value::None,
            Value::List(vec![Value::Bool(true), Value::Bytes(b"y".to_vec())]),
            Value::Dict(vec![(Value::text("a"), Value::Int(1))]),
            Value::text("+fine"),
            Value::text("-bad thing"),
            Value::text("+"),
        ])
    }

    #[test]
    fn compat_is_what_redisgears_answered() {
        let expected = Reply::Array(vec![
            Reply::Int(1),
            Reply::bulk("2.500000"),
            Reply::bulk("x"),
            Reply::bulk("PY RECORD"),
            Reply::Array(vec![Reply::Int(1), Reply::bulk("y")]),
            Reply::bulk("PY RECORD"),
            Reply::Simple("fine".into()),
            Reply::Error("bad thing".into()),
            Reply::bulk("+"),
        ]);
        assert_eq!(records(&example().encode(), Style::Compat, Answers::Trigger).unwrap(), [expected]);
    }

    #[test]
    fn plain_keeps_every_value_readable() {
        let Reply::Array(items) = records(&example().encode(), Style::Plain, Answers::Run).unwrap().remove(0) else {
            panic!()
        };
        assert_eq!(items[1], Reply::Double(2.5));
        assert_eq!(items[3], Reply::Null);
        assert_eq!(items[4], Reply::Array(vec![Reply::Bool(true), Reply::bulk("y")]));
        assert_eq!(items[5], Reply::Map(vec![(Reply::bulk("a"), Reply::Int(1))]));
        assert_eq!(items[6], Reply::bulk("+fine"));
    }

    #[test]
    fn tagged_hands_out_the_bytes_of_each_record() {
        let bytes = [example().encode(), Value::None.encode()].concat();
        let expected = [Reply::Bulk(example().encode()), Reply::Bulk(vec![0])];
        assert_eq!(records(&bytes, Style::Tagged, Answers::Run).unwrap(), expected);
    }

    #[test]
    fn scripts_written_for_redisgears_keep_giving_bytes_to_a_client_with_the_codec() {
        let value = Value::List(vec![Value::text("a"), Value::Int(1), Value::Raw(b"k".to_vec())]);
        let expected = Value::List(vec![Value::Bytes(b"a".to_vec()), Value::Int(1), Value::Bytes(b"k".to_vec())]);
        assert_eq!(
            records(&value.encode(), Style::Compat.tagged(), Answers::Run).unwrap(),
            [Reply::Bulk(expected.encode())]
        );
    }

    #[test]
    fn each_pickled_record_is_a_pickle_that_python_3_6_loads() {
        let rendered = |value: Value| records(&value.encode(), Style::Pickled, Answers::Trigger).unwrap();
        assert_eq!(rendered(Value::Pickle(b"\x80\x04N.".to_vec())), [Reply::bulk(b"\x80\x04N.")]);
        assert_eq!(rendered(Value::Int(-300)), [Reply::bulk(b"\x80\x04I-300\n.")]);
        assert_eq!(rendered(Value::text("+5")), [Reply::bulk(b"\x80\x04\x8d\x02\0\0\0\0\0\0\0+5.")]);
        assert_eq!(Style::Pickled.tagged(), Style::Tagged);
    }

    #[test]
    fn text_never_breaks_the_line_of_a_simple_reply() {
        let value = Value::text("+a\r\nb\0c");
        assert_eq!(
            records(&value.encode(), Style::Compat, Answers::Trigger).unwrap(),
            [Reply::Simple("a\\r\\nb\\0c".into())]
        );
    }

    #[test]
    fn numbers_and_results_of_runs_are_data() {
        for text in ["-5", "+49 170", "-", "+", "--x", "-\u{e4}", "", "-OK", "+OK"] {
            let value = Value::text(text).encode();
            assert_eq!(records(&value, Style::Compat, Answers::Run).unwrap(), [Reply::bulk(text)], "{text}");
        }
        for text in ["-5", "+49 170", "-", "--x", "-\u{e4}", "+1", "- x", "-inf", "-nan", "-Infinity", "-infj"] {
            let value = Value::text(text).encode();
            assert_eq!(records(&value, Style::Compat, Answers::Trigger).unwrap(), [Reply::bulk(text)], "{text}");
        }
        let status = records(&Value::text("+OK").encode(), Style::Compat, Answers::Trigger).unwrap();
        assert_eq!(status, [Reply::Simple("OK".into())]);
    }

    #[test]
    fn a_line_of_the_log_is_one_line_whatever_is_logged() {
        assert_eq!(log_line(b"a\r\nb\0\t\xff\xc4"), "a\\r\\nb\\u{0}\t\\xff\\xc4");
        assert_eq!(log_line("100 % Ā".as_bytes()), "100 % Ā");
    }
}
