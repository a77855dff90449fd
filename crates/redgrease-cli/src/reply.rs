//! Replies as text: with their types as redis-cli prints them on a terminal, raw, or as JSON.

use redis::{ServerError, Value};
use serde_json::{Value as Json, json};

/// The text of an error reply.
pub fn error_text(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

/// The reply with types, quotes and numbered elements, ending in a newline.
pub fn typed(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_typed(value, "", &mut out);
    out
}

fn write_typed(value: &Value, indent: &str, out: &mut Vec<u8>) {
    let line = match value {
        Value::Nil => "(nil)".to_owned(),
        Value::Int(number) => format!("(integer) {number}"),
        Value::Double(number) => format!("(double) {number}"),
        Value::Boolean(truth) => format!("({truth})"),
        Value::Okay => "OK".to_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::VerbatimString { text, .. } => text.clone(),
        Value::BulkString(bytes) => quoted(bytes),
        Value::ServerError(error) => format!("(error) {}", error_text(error)),
        Value::Array(elements) => return write_elements("array", ')', elements, indent, out),
        Value::Set(elements) => return write_elements("set", '~', elements, indent, out),
        Value::Push { data, .. } => return write_elements("push", '>', data, indent, out),
        Value::Map(pairs) => return write_pairs(pairs, indent, out),
        Value::Attribute { data, .. } => return write_typed(data, indent, out),
        other => format!("(big number) {}", big_number(other)),
    };
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
}

/// Elements on separate lines. The first one continues the caller's line, without indent.
fn write_elements(kind: &str, mark: char, elements: &[Value], indent: &str, out: &mut Vec<u8>) {
    if elements.is_empty() {
        out.extend_from_slice(format!("(empty {kind})\n").as_bytes());
    }
    let width = elements.len().to_string().len();
    let deeper = format!("{indent}{:width$}  ", "");
    for (index, element) in elements.iter().enumerate() {
        let before = if index == 0 { "" } else { indent };
        out.extend_from_slice(format!("{before}{:>width$}{mark} ", index + 1).as_bytes());
        write_typed(element, &deeper, out);
    }
}

fn write_pairs(pairs: &[(Value, Value)], indent: &str, out: &mut Vec<u8>) {
    if pairs.is_empty() {
        out.extend_from_slice(b"(empty hash)\n");
    }
    let width = pairs.len().to_string().len();
    let deeper = format!("{indent}{:width$}  ", "");
    for (index, (key, value)) in pairs.iter().enumerate() {
        let before = if index == 0 { "" } else { indent };
        out.extend_from_slice(format!("{before}{:>width$}# ", index + 1).as_bytes());
        write_typed(key, &deeper, out);
        out.pop();
        out.extend_from_slice(b" => ");
        write_typed(value, &deeper, out);
    }
}

/// Bytes in quotes; unprintable bytes are escaped, so that no byte is lost and no control character reaches the terminal.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for &byte in bytes {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x07 => text.push_str("\\a"),
            0x08 => text.push_str("\\b"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push('"');
    text
}

/// The bytes of the reply, one element per line, ending in a newline.
pub fn raw(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_raw(value, &mut out);
    out
}

fn write_raw(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Nil => {}
        Value::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Double(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Boolean(truth) => out.extend_from_slice(truth.to_string().as_bytes()),
        Value::Okay => out.extend_from_slice(b"OK"),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => out.extend_from_slice(text.as_bytes()),
        Value::BulkString(bytes) => out.extend_from_slice(bytes),
        Value::ServerError(error) => out.extend_from_slice(error_text(error).as_bytes()),
        Value::Array(elements) | Value::Set(elements) | Value::Push { data: elements, .. } => {
            return write_raw_lines(elements.iter(), out);
        }
        Value::Map(pairs) => return write_raw_lines(pairs.iter().flat_map(|(key, value)| [key, value]), out),
        Value::Attribute { data, .. } => return write_raw(data, out),
        other => out.extend_from_slice(big_number(other).as_bytes()),
    }
    out.push(b'\n');
}

fn write_raw_lines<'a>(elements: impl Iterator<Item = &'a Value>, out: &mut Vec<u8>) {
    let before = out.len();
    for element in elements {
        write_raw(element, out);
    }
    if out.len() == before {
        out.push(b'\n');
    }
}

/// The reply as JSON. Map keys that are not texts become their JSON; an error is `{"error": "..."}`.
pub fn json(value: &Value) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Int(number) => json!(number),
        Value::Double(number) if number.is_finite() => json!(number),
        Value::Double(number) => json!(number.to_string()),
        Value::Boolean(truth) => json!(truth),
        Value::Okay => json!("OK"),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => json!(text),
        Value::BulkString(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => json!(text),
            Err(_) => json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
        },
        Value::ServerError(error) => json!({ "error": error_text(error) }),
        Value::Array(elements) | Value::Set(elements) | Value::Push { data: elements, .. } => {
            elements.iter().map(json).collect()
        }
        Value::Map(pairs) => Json::Object(pairs.iter().map(|(key, value)| (json_key(key), json(value))).collect()),
        Value::Attribute { data, .. } => json(data),
        other => json!(big_number(other)),
    }
}

fn json_key(key: &Value) -> String {
    match json(key) {
        Json::String(text) => text,
        other => other.to_string(),
    }
}

/// A number that fits no other type, as digits.
fn big_number(value: &Value) -> String {
    match value {
        Value::BigNumber(digits) => String::from_utf8_lossy(digits).into_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn parsed(wire: &str) -> Value {
        redis::parse_redis_value(wire.as_bytes()).unwrap()
    }

    fn typed_text(value: &Value) -> String {
        String::from_utf8(typed(value)).unwrap()
    }

    #[test]
    fn scalars_are_shown_with_their_type() {
        for (value, expected) in [
            (Value::Nil, "(nil)\n"),
            (Value::Int(-7), "(integer) -7\n"),
            (Value::Double(1.5), "(double) 1.5\n"),
            (Value::Boolean(true), "(true)\n"),
            (Value::Okay, "OK\n"),
            (Value::SimpleString("PONG".to_owned()), "PONG\n"),
            (bulk("say \"hi\"\n"), "\"say \\\"hi\\\"\\n\"\n"),
            (Value::BulkString(vec![0, 0xff, b'\\']), "\"\\x00\\xff\\\\\"\n"),
            (parsed("(12345678901234567890123\r\n"), "(big number) 12345678901234567890123\n"),
        ] {
            assert_eq!(typed_text(&value), expected, "{value:?}");
        }
    }

    #[test]
    fn nested_arrays_are_numbered_and_indented() {
        let value = Value::Array(vec![
            Value::Array(vec![bulk("a"), Value::Array(vec![])]),
            Value::Array(vec![Value::Int(1), Value::Array(vec![bulk("b"), Value::Nil])]),
        ]);
        let expected = "1) 1) \"a\"\n   2) (empty array)\n2) 1) (integer) 1\n   2) 1) \"b\"\n      2) (nil)\n";
        assert_eq!(typed_text(&value), expected);
    }

    #[test]
    fn numbers_of_elements_are_aligned() {
        let text = typed_text(&Value::Array((0..10).map(Value::Int).collect()));
        assert!(text.starts_with(" 1) (integer) 0\n 2)") && text.ends_with("\n10) (integer) 9\n"), "{text}");
    }

    #[test]
    fn maps_show_key_and_value() {
        let value = Value::Map(vec![(bulk("a"), Value::Int(1)), (bulk("b"), Value::Array(vec![Value::Nil]))]);
        assert_eq!(typed_text(&value), "1# \"a\" => (integer) 1\n2# \"b\" => 1) (nil)\n");
    }

    #[test]
    fn raw_replies_keep_every_byte_and_put_elements_on_lines() {
        assert_eq!(raw(&Value::BulkString(vec![0, 0xff])), b"\x00\xff\n");
        let nested = Value::Array(vec![bulk("a"), Value::Array(vec![Value::Int(1), Value::Nil]), bulk("b")]);
        assert_eq!(raw(&nested), b"a\n1\n\nb\n");
        assert_eq!(raw(&Value::Array(vec![])), b"\n");
    }

    #[test]
    fn json_loses_no_byte() {
        let value = Value::Array(vec![bulk("é"), Value::BulkString(vec![0xff, 0x0a]), Value::Nil, Value::Int(3)]);
        assert_eq!(json(&value).to_string(), r#"["é",{"hex":"ff0a"},null,3]"#);
        let map = Value::Map(vec![(Value::Int(1), Value::Double(f64::INFINITY))]);
        assert_eq!(json(&map).to_string(), r#"{"1":"inf"}"#);
    }

    #[test]
    fn an_error_keeps_the_words_of_the_server() {
        for text in ["ERR unknown command 'X'", "WRONGTYPE not a list", "BADPLAN step 2 'x'", "ALONE"] {
            let nested = parsed(&format!("*1\r\n-{text}\r\n"));
            assert_eq!(typed_text(&nested), format!("1) (error) {text}\n"));
        }
    }
}
