//! Texts that Python's `repr` made of plain values, such as `{'key': 'a', 'value': None}`, as values.
//!
//! The last step of a text script makes texts of its records. Tables read them, to have a column for each key.

use crate::values::Value;

/// Deeper values are left as text.
const DEPTH_MAX: usize = 32;

/// The value that a text is the `repr` of; `None` for any other text.
pub fn parse(text: &str) -> Option<Value> {
    let mut reader = Reader { rest: text };
    let value = reader.value(0)?;
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn take(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start_matches(' ');
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        for (word, value) in [("None", Value::None), ("True", Value::Bool(true)), ("False", Value::Bool(false))] {
            if self.take(word) {
                return Some(value);
            }
        }
        if self.take("{") {
            return self
                .items("}", |reader| {
                    let key = reader.value(depth + 1)?;
                    if !reader.take(":") {
                        return None;
                    }
                    Some((key, reader.value(depth + 1)?))
                })
                .map(Value::Dict);
        }
        for (open, close) in [("[", "]"), ("(", ")")] {
            if self.take(open) {
                return self.items(close, |reader| reader.value(depth + 1)).map(Value::List);
            }
        }
        match self.rest.chars().next()? {
            '\'' | '"' => self.string().map(Value::Text),
            'b' => {
                self.rest = &self.rest[1..];
                self.string().map(Value::Text)
            }
            _ => self.number(),
        }
    }

    fn items<T>(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut found = Vec::new();
        while !self.take(close) {
            found.push(item(self)?);
            if !self.take(",") {
                return self.take(close).then_some(found);
            }
        }
        Some(found)
    }

    fn number(&mut self) -> Option<Value> {
        let end = self.rest.find([',', '}', ']', ')', ':', ' ']).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let value = digits.parse().map(Value::Int).or_else(|_| digits.parse().map(Value::Float)).ok()?;
        self.rest = rest;
        Some(value)
    }

    fn string(&mut self) -> Option<String> {
        let mut chars = self.rest.chars();
        let quote = chars.next().filter(|&c| c == '\'' || c == '"')?;
        let mut text = String::new();
        loop {
            match chars.next()? {
                '\\' => text.push(escaped(&mut chars)?),
                c if c == quote => break,
                c => text.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(text)
    }
}

fn escaped(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let digits = match chars.next()? {
        'n' => return Some('\n'),
        't' => return Some('\t'),
        'r' => return Some('\r'),
        c @ ('\\' | '\'' | '"') => return Some(c),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return None,
    };
    let code: String = chars.by_ref().take(digits).collect();
    char::from_u32(u32::from_str_radix(&code, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repr_makes_is_read() {
        for (text, json) in [
            (
                "{'key': 'k:1', 'value': \"it's\", 'n': [1, -2.5, (True,)], 'event': None}",
                r#"{"key":"k:1","value":"it's","n":[1,-2.5,[true]],"event":null}"#,
            ),
            (r"'a\n\x41\u00e9'", "\"a\\nAé\""),
            ("b'raw'", "\"raw\""),
            ("{}", "{}"),
            ("[]", "[]"),
        ] {
            let expected: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(parse(text).map(|value| value.json()), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_are_none() {
        let deep = "[".repeat(5000);
        for text in
            ["", "{", "{'a'}", "{'a': }", "plain words", "[1, 2", "1 2", "{'a': <object>}", "'open", r"'\q'", &deep]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
