//! What Python's `repr` prints of plain values, read back.
//!
//! Text scripts make texts of their results, and servers print a traceback as the list of its lines.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::str::Chars;

use crate::codec::{DEPTH_MAX, Value};

/// The value that `repr` prints as this text; `None` for any other text, and for objects that are no plain values.
///
/// Halves of surrogate pairs, which Rust's texts cannot hold, become U+FFFD.
///
/// ```
/// use redgrease_core::codec::Value;
/// use redgrease_core::repr;
///
/// assert_eq!(repr::parse("[1, 'a', None]"), Some(Value::List(vec![Value::Int(1), Value::text("a"), Value::None])));
/// assert_eq!(repr::parse("<object>"), None);
/// ```
#[must_use]
pub fn parse(text: &str) -> Option<Value> {
    let mut reader = Reader { rest: text };
    let value = reader.value(0)?;
    reader.rest.is_empty().then_some(value)
}

/// The texts of a printed list that has nothing else in it, and is not empty: the lines of a traceback.
///
/// ```
/// use redgrease_core::repr;
///
/// assert_eq!(repr::texts(r"['first\n', 'second\n']").unwrap().concat(), "first\nsecond\n");
/// assert_eq!(repr::texts("trigger already registered"), None);
/// ```
#[must_use]
pub fn texts(text: &str) -> Option<Vec<String>> {
    let Value::List(items) = parse(text)? else { return None };
    let texts = items.into_iter().map(|item| if let Value::Str(text) = item { Some(text) } else { None });
    texts.collect::<Option<Vec<_>>>().filter(|texts| !texts.is_empty())
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Option<()> {
        self.take(token).then_some(())
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        let first = self.rest.chars().next()?;
        match first {
            '\'' | '"' => self.text().map(Value::Str),
            '[' => {
                self.expect("[")?;
                self.items("]", depth).map(Value::List)
            }
            '(' => self.tuple(depth),
            '{' => self.dict_or_set(depth),
            '-' | '0'..='9' => self.number(),
            _ => self.word(depth),
        }
    }

    /// A value that begins with a letter.
    fn word(&mut self, depth: usize) -> Option<Value> {
        let plain = [
            ("None", Value::None),
            ("True", Value::Bool(true)),
            ("False", Value::Bool(false)),
            ("inf", Value::Float(f64::INFINITY)),
            ("nan", Value::Float(f64::NAN)),
            ("set()", Value::Set(Vec::new())),
            ("frozenset()", Value::FrozenSet(Vec::new())),
        ];
        for (word, value) in plain {
            if self.take(word) {
                return Some(value);
            }
        }
        if self.take("bytearray(") {
            let bytes = self.bytes()?;
            self.expect(")")?;
            return Some(Value::ByteArray(bytes));
        }
        if self.take("frozenset({") {
            let first = self.value(depth + 1)?;
            let items = self.items_after(first, "}", depth)?;
            self.expect(")")?;
            return Some(Value::FrozenSet(items));
        }
        self.bytes().map(Value::Bytes)
    }

    /// The elements of a container up to its closing bracket.
    fn items(&mut self, close: &str, depth: usize) -> Option<Vec<Value>> {
        if self.take(close) {
            return Some(Vec::new());
        }
        let first = self.value(depth + 1)?;
        self.items_after(first, close, depth)
    }

    fn items_after(&mut self, first: Value, close: &str, depth: usize) -> Option<Vec<Value>> {
        let mut items = vec![first];
        while !self.take(close) {
            self.separator(',')?;
            items.push(self.value(depth + 1)?);
        }
        Some(items)
    }

    fn tuple(&mut self, depth: usize) -> Option<Value> {
        self.expect("(")?;
        if self.take(")") {
            return Some(Value::Tuple(Vec::new()));
        }
        let first = self.value(depth + 1)?;
        if self.take(",)") {
            return Some(Value::Tuple(vec![first]));
        }
        // A value alone in parentheses is no tuple.
        self.items_after(first, ")", depth).filter(|items| items.len() > 1).map(Value::Tuple)
    }

    fn dict_or_set(&mut self, depth: usize) -> Option<Value> {
        self.expect("{")?;
        if self.take("}") {
            return Some(Value::Dict(Vec::new()));
        }
        let mut key = self.value(depth + 1)?;
        if !self.rest.starts_with(':') {
            return self.items_after(key, "}", depth).map(Value::Set);
        }
        let mut pairs = Vec::new();
        loop {
            self.separator(':')?;
            pairs.push((key, self.value(depth + 1)?));
            if self.take("}") {
                return Some(Value::Dict(pairs));
            }
            self.separator(',')?;
            key = self.value(depth + 1)?;
        }
    }

    /// A comma or colon, and blanks.
    fn separator(&mut self, mark: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(mark)?.trim_start_matches(' ');
        Some(())
    }

    fn number(&mut self) -> Option<Value> {
        if self.take("-inf") {
            return Some(Value::Float(f64::NEG_INFINITY));
        }
        let is_of_number = |each: char| each.is_ascii_digit() || matches!(each, '-' | '+' | '.' | 'e');
        let end = self.rest.find(|each| !is_of_number(each)).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        let digits = number.strip_prefix('-').unwrap_or(number);
        let is_whole = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        let value = match number.parse() {
            Ok(number) => Value::Int(number),
            Err(_) if is_whole => Value::BigInt(number.into()),
            Err(_) => Value::Float(number.parse().ok()?),
        };
        self.rest = rest;
        Some(value)
    }

    /// A text in quotes.
    fn text(&mut self) -> Option<String> {
        let mut chars = self.rest.chars();
        let quote = quote(&mut chars)?;
        let mut text = String::new();
        loop {
            match chars.next()? {
                '\\' => text.push(char::from_u32(escaped(&mut chars, false)?).unwrap_or(char::REPLACEMENT_CHARACTER)),
                each if each == quote => break,
                each => text.push(each),
            }
        }
        self.rest = chars.as_str();
        Some(text)
    }

    /// `b'...'`.
    fn bytes(&mut self) -> Option<Vec<u8>> {
        self.expect("b")?;
        let mut chars = self.rest.chars();
        let quote = quote(&mut chars)?;
        let mut bytes = Vec::new();
        loop {
            let byte = match chars.next()? {
                '\\' => escaped(&mut chars, true)?,
                each if each == quote => break,
                each if each.is_ascii() => each.into(),
                _ => return None,
            };
            bytes.push(u8::try_from(byte).ok()?);
        }
        self.rest = chars.as_str();
        Some(bytes)
    }
}

fn quote(chars: &mut Chars<'_>) -> Option<char> {
    chars.next().filter(|first| matches!(first, '\'' | '"'))
}

/// The number of the character, or the byte, that is written behind a backslash.
fn escaped(chars: &mut Chars<'_>, of_bytes: bool) -> Option<u32> {
    let digits = match chars.next()? {
        'n' => return Some('\n'.into()),
        't' => return Some('\t'.into()),
        'r' => return Some('\r'.into()),
        each @ ('\\' | '\'' | '"') => return Some(each.into()),
        'x' => 2,
        'u' if !of_bytes => 4,
        'U' if !of_bytes => 8,
        _ => return None,
    };
    (0..digits).try_fold(0, |number: u32, _| Some(number << 4 | chars.next()?.to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    /// What Python prints; `ascii` for texts, so that escapes of all lengths occur.
    fn printed(value: &Value) -> String {
        let all = |items: &[Value]| items.iter().map(printed).collect::<Vec<_>>().join(", ");
        match value {
            Value::None => "None".into(),
            Value::Bool(flag) => if *flag { "True" } else { "False" }.into(),
            Value::Int(number) => number.to_string(),
            Value::BigInt(digits) => digits.clone(),
            Value::Float(number) => format!("{number:?}"),
            Value::Str(text) => quoted(text.chars().map(u32::from), "'"),
            Value::Bytes(bytes) => format!("b{}", quoted(bytes.iter().map(|byte| u32::from(*byte)), "\"")),
            Value::ByteArray(bytes) => format!("bytearray({})", printed(&Value::Bytes(bytes.clone()))),
            Value::List(items) => format!("[{}]", all(items)),
            Value::Tuple(items) if items.len() == 1 => format!("({},)", all(items)),
            Value::Tuple(items) => format!("({})", all(items)),
            Value::Set(items) if items.is_empty() => "set()".into(),
            Value::Set(items) => format!("{{{}}}", all(items)),
            Value::FrozenSet(items) if items.is_empty() => "frozenset()".into(),
            Value::FrozenSet(items) => format!("frozenset({{{}}})", all(items)),
            Value::Dict(pairs) => {
                let pairs = pairs.iter().map(|(key, value)| format!("{}: {}", printed(key), printed(value)));
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
            }
            other => panic!("not a plain value: {other:?}"),
        }
    }

    fn quoted(numbers: impl Iterator<Item = u32>, quote: &str) -> String {
        let one = |number: u32| match char::from_u32(number) {
            Some('\n') => r"\n".into(),
            Some(each @ ('\'' | '"' | '\\')) => format!("\\{each}"),
            Some(each @ ' '..='~') => each.to_string(),
            _ if number < 0x100 => format!("\\x{number:02x}"),
            _ if number < 0x1_0000 => format!("\\u{number:04x}"),
            _ => format!("\\U{number:08x}"),
        };
        format!("{quote}{}{quote}", numbers.map(one).collect::<String>())
    }

    fn plain_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::None),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            "-?[1-9][0-9]{20,40}".prop_map(Value::BigInt),
            prop::num::f64::NORMAL.prop_map(Value::Float),
            Just(Value::Float(f64::NEG_INFINITY)),
            any::<String>().prop_map(Value::Str),
            any::<Vec<u8>>().prop_map(Value::Bytes),
            any::<Vec<u8>>().prop_map(Value::ByteArray),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let items = || prop::collection::vec(inner.clone(), 0..5);
            prop_oneof![
                items().prop_map(Value::List),
                items().prop_map(Value::Tuple),
                items().prop_map(Value::Set),
                items().prop_map(Value::FrozenSet),
                prop::collection::vec((inner.clone(), inner), 0..5).prop_map(Value::Dict),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(value in plain_value()) {
            prop_assert_eq!(parse(&printed(&value)), Some(value));
        }

        #[test]
        fn a_text_with_a_hole_is_another_value_or_none(value in plain_value(), hole in any::<prop::sample::Index>()) {
            let mut text = printed(&value);
            let at = hole.index(text.len());
            // All is ASCII.
            text.remove(at);
            if let Some(read) = parse(&text) {
                prop_assert_eq!(parse(&printed(&read)), Some(read), "{}", text);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), open in r#"[\[({'"b]{0,5}"#) {
            let _ = parse(&text);
            let _ = parse(&format!("{open}{text}"));
        }

        #[test]
        fn lines_are_those_that_were_printed(lines in prop::collection::vec(any::<String>(), 1..10)) {
            let list = Value::List(lines.iter().map(Value::text).collect());
            prop_assert_eq!(texts(&printed(&list)), Some(lines));
        }
    }

    #[test]
    fn forms_that_python_prints() {
        let text = Value::text;
        let table = [
            (r#""it's""#, text("it's")),
            (r"'a\n\t\r\x41\u00e9\U0001f600é'", text("a\n\t\rA\u{e9}\u{1f600}é")),
            (r"'\udc80'", text("\u{fffd}")),
            (r"b'\xff\''", Value::Bytes(vec![0xff, b'\''])),
            ("1e+16", Value::Float(1e16)),
            ("-0.0", Value::Float(-0.0)),
            ("-7", Value::Int(-7)),
            ("123456789012345678901234567890", Value::BigInt("123456789012345678901234567890".into())),
            ("[inf]", Value::List(vec![Value::Float(f64::INFINITY)])),
            ("{1: {2}}", Value::Dict(vec![(Value::Int(1), Value::Set(vec![Value::Int(2)]))])),
            ("((),)", Value::Tuple(vec![Value::Tuple(vec![])])),
        ];
        for (text, value) in table {
            assert_eq!(parse(text), Some(value), "{text}");
        }
        assert!(matches!(parse("nan"), Some(Value::Float(number)) if number.is_nan()));
    }

    #[test]
    fn other_texts_are_none() {
        let deep = "[".repeat(100_000);
        let nested = format!("{}{}", "[".repeat(DEPTH_MAX + 2), "]".repeat(DEPTH_MAX + 2));
        let table = [
            "",
            " ",
            "{",
            "{'a'",
            "{'a': }",
            "{'a': 1, 2}",
            "plain words",
            "[1, 2",
            "1 2",
            "(1)",
            "(1, )",
            "{1, }",
            "[1, ]",
            "frozenset({})",
            "[1,, 2]",
            "-",
            "1.2.3",
            "--1",
            "<object>",
            "{'a': <object>}",
            "'open",
            "'a' 'b'",
            r"'\q'",
            r"'\x+1'",
            r"'\x1'",
            r"b'\u00e9'",
            "b'é'",
            "bytearray(b'a'",
            "frozenset({1}",
            "Nonesuch",
            "infinity",
            "set(",
            "b",
            "b'",
            &deep,
            &nested,
        ];
        for text in table {
            assert_eq!(parse(text), None, "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn a_list_of_lines_has_texts_only() {
        for text in ["[]", "['a', 1]", "[b'a']", "('a',)", "'a'", "", "['a' 'b']", "['a']x", r"['\"] {
            assert_eq!(texts(text), None, "{text}");
        }
    }
}
