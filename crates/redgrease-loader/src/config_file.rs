//! The syntax of configuration files: `key = value` lines. Parsing only; what the keys mean is in `settings`.

/// An entry of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The number of its line, from 1.
    pub line: usize,
    /// The name of the option, without leading dashes.
    pub key: String,
    /// Its values: one, or those of a list. A key alone has the value `true`.
    pub values: Vec<String>,
}

/// A line that is not an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Parses a file.
///
/// A line is `key = value`, `key: value`, `key value`, or `key` alone, which means `true`. A value in quotes is taken as
/// it is; `[a, b]` is a list. Lines that begin with `#`, `;`, `[` or `---` are skipped, and what follows ` #` or ` ;`
/// is a comment.
///
/// # Errors
/// The first line that is none of these.
pub fn parse(text: &str) -> Result<Vec<Entry>, BadLine> {
    let mut entries = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';', '[']) || line.starts_with("---") {
            continue;
        }
        let (key, values) = entry(line).map_err(|reason| BadLine { line: number + 1, reason })?;
        entries.push(Entry { line: number + 1, key, values });
    }
    Ok(entries)
}

fn entry(line: &str) -> Result<(String, Vec<String>), &'static str> {
    let end = line.find(|each: char| each.is_whitespace() || "=:#;".contains(each)).unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let key = key.trim_start_matches('-');
    if key.is_empty() {
        return Err("it has no key");
    }
    if rest.starts_with(['#', ';']) {
        return Err("a comment begins after a space");
    }
    let after = rest.trim_start();
    let (has_sign, text) = match after.strip_prefix(['=', ':']) {
        Some(text) => (true, text.trim_start()),
        // The space in front of a comment after a key alone.
        None if after.starts_with(['#', ';']) => (false, ""),
        None => (false, after),
    };
    let values = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => vec![quoted(&text[1..], quote)?],
        Some('[') => list(text)?,
        _ => match without_comment(text) {
            "" if has_sign => vec![String::new()],
            "" => vec!["true".to_owned()],
            value => vec![value.to_owned()],
        },
    };
    Ok((key.to_owned(), values))
}

/// The text up to the closing quote, after which only a comment may follow.
fn quoted(text: &str, quote: char) -> Result<String, &'static str> {
    let (value, rest) = text.split_once(quote).ok_or("a quote is not closed")?;
    ends(rest).then(|| value.to_owned()).ok_or("text follows a closing quote")
}

/// The elements of `[a, "b, c"]`.
fn list(text: &str) -> Result<Vec<String>, &'static str> {
    const NOT_CLOSED: &str = "a list is not closed with ]";
    let mut values = Vec::new();
    let mut rest = text[1..].trim_start();
    loop {
        if let Some(after) = rest.strip_prefix(']') {
            return if ends(after) { Ok(values) } else { Err("text follows a list") };
        }
        let (value, after) = match rest.chars().next() {
            None => return Err(NOT_CLOSED),
            Some(quote @ ('"' | '\'')) => {
                let (value, after) = rest[1..].split_once(quote).ok_or("a quote is not closed")?;
                (value, after.trim_start())
            }
            Some(_) => {
                let end = rest.find([',', ']']).ok_or(NOT_CLOSED)?;
                (rest[..end].trim_end(), &rest[end..])
            }
        };
        values.push(value.to_owned());
        rest = match after.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if after.starts_with(']') => after,
            None if after.is_empty() => return Err(NOT_CLOSED),
            None => return Err("a comma is missing between elements of a list"),
        };
    }
}

fn ends(rest: &str) -> bool {
    without_comment(rest).is_empty()
}

/// The text in front of a comment, which begins after a space.
fn without_comment(text: &str) -> &str {
    let begins = |(at, _): &(usize, char)| *at == 0 || text[..*at].ends_with(char::is_whitespace);
    let comment = text.char_indices().filter(|(_, each)| "#;".contains(*each)).find(begins);
    comment.map_or(text, |(at, _)| &text[..at]).trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(line: &str) -> Vec<String> {
        parse(line).unwrap().remove(0).values
    }

    #[test]
    fn the_forms_of_an_entry() {
        for (line, key, value) in [
            ("port = 7000", "port", "7000"),
            ("port=7000", "port", "7000"),
            ("port: 7000", "port", "7000"),
            ("port 7000", "port", "7000"),
            ("--port = 7000", "port", "7000"),
            ("recursive", "recursive", "true"),
            ("recursive # below, too", "recursive", "true"),
            ("server =", "server", ""),
            ("server = '10.0.0.1' # the old one", "server", "10.0.0.1"),
            ("script-pattern = \"# *.py\"", "script-pattern", "# *.py"),
            ("server = a#b", "server", "a#b"),
            ("server = a ; b", "server", "a"),
            ("url = redis://host:7000", "url", "redis://host:7000"),
        ] {
            let found = parse(line).unwrap();
            assert_eq!(found, [Entry { line: 1, key: key.to_owned(), values: vec![value.to_owned()] }], "{line}");
        }
    }

    #[test]
    fn lists() {
        assert_eq!(values("ignore = [_*, test_*]"), ["_*", "test_*"]);
        assert_eq!(values("ignore = ['a, b', \"c]\"] # two"), ["a, b", "c]"]);
        assert!(values("ignore = []").is_empty());
    }

    #[test]
    fn sections_comments_and_empty_lines_are_skipped() {
        let text = "\u{feff}# first\n; second\n[redgrease]\n---\n\n  port = 1\n";
        assert_eq!(parse(text).unwrap(), [Entry { line: 6, key: "port".into(), values: vec!["1".into()] }]);
    }

    #[test]
    fn a_broken_line_is_named_by_its_number() {
        for line in
            ["= 7000", "server = 'a", "ignore = [a", "ignore = [a, ", "ignore = [a] b", "ignore = ['a' b]", "--"]
        {
            let BadLine { line: number, .. } = parse(&format!("port = 1\n\n{line}\n")).unwrap_err();
            assert_eq!(number, 3, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC*") {
            let _parsed = parse(&text);
        }

        #[test]
        fn a_quoted_value_is_taken_as_it_is(value in "[^'\r\n]*") {
            prop_assert_eq!(values(&format!("key = '{value}'")), [value]);
        }
    }
}
