//! Tracebacks in error replies, which are printed lists of Python.

/// The lines of a traceback `['first\n', "second\n"]`, or the text as it is.
pub fn readable(text: &str) -> String {
    let lines = list(text.trim());
    lines.map_or_else(|| text.trim_end().to_owned(), |lines| lines.concat().trim_end().to_owned())
}

/// The last line: the exception.
pub fn last_line(text: &str) -> &str {
    text.trim_end().lines().next_back().unwrap_or_default().trim()
}

/// The texts of a printed list; `None` if it is none.
fn list(text: &str) -> Option<Vec<String>> {
    let mut rest = text.strip_prefix('[')?;
    let mut texts = Vec::new();
    loop {
        let quote = rest.chars().next().filter(|first| "'\"".contains(*first))?;
        let (value, after) = literal(&rest[1..], quote)?;
        texts.push(value);
        match after.strip_prefix(", ") {
            Some(after) => rest = after,
            None => return (after == "]").then_some(texts),
        }
    }
}

/// A text up to its closing quote, and what follows.
fn literal(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, each)) = chars.next() {
        if each == quote {
            return Some((value, &text[at + 1..]));
        }
        if each != '\\' {
            value.push(each);
            continue;
        }
        let (_, escaped) = chars.next()?;
        let digits = match escaped {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if digits > 0 {
            let code: String = chars.by_ref().take(digits).map(|(_, digit)| digit).collect();
            value.push(u32::from_str_radix(&code, 16).ok().and_then(char::from_u32).unwrap_or('\u{fffd}'));
            continue;
        }
        value.push(match escaped {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            other => other,
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_printed_list_becomes_its_lines() {
        let text =
            r#"['Traceback (most recent call last):\n', "  File '<string>', line 1\n", 'E: \'a\' \\ \xe9 \u20ac\n']"#;
        assert_eq!(
            readable(text),
            "Traceback (most recent call last):\n  File '<string>', line 1\nE: 'a' \\ \u{e9} \u{20ac}"
        );
        assert_eq!(last_line(&readable(text)), "E: 'a' \\ \u{e9} \u{20ac}");
    }

    #[test]
    fn other_texts_stay() {
        for text in ["", "[]", "trigger already registered", "['a", "['a' 'b']", "['a']x", "['\\"] {
            assert_eq!(readable(text), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_readable(text in "\\PC*") {
            let _ = readable(&text);
            let _ = readable(&format!("['{text}"));
        }
    }
}
