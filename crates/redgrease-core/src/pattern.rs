//! How names are matched: the server's glob rules for scans, and the prefix rule of registrations.

/// Whether `text` matches the glob `pattern`, by the rules of the server's `KEYS` and `SCAN ... MATCH`:
/// `*`, `?`, `[abc]`, `[^a]`, `[a-z]` and `\x`; bytes, case-sensitive.
#[must_use]
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a comparison fails: behind the last star, with one more byte swallowed by it. One level is
    // enough, and keeps the time within pattern length times text length.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            retry = Some((p + 1, t));
            p += 1;
            continue;
        }
        if t == text.len() {
            return pattern[p..].iter().all(|&byte| byte == b'*');
        }
        match match_one(&pattern[p..], text[t]) {
            Some(taken) => {
                p += taken;
                t += 1;
            }
            None => match retry {
                None => return false,
                Some((after_star, from)) => {
                    p = after_star;
                    t = from + 1;
                    retry = Some((after_star, t));
                }
            },
        }
    }
}

/// Length of the pattern's first element if it matches `byte`.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        b'[' => match_class(pattern, byte),
        literal => (literal == byte).then_some(1),
    }
}

/// As the server reads a class: an unclosed one ends with the pattern.
fn match_class(pattern: &[u8], byte: u8) -> Option<usize> {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&b'^');
    if negated {
        at += 1;
    }
    let mut found = false;
    loop {
        match pattern.get(at) {
            None => break,
            Some(b']') => {
                at += 1;
                break;
            }
            Some(b'\\') if at + 1 < pattern.len() => {
                found |= pattern[at + 1] == byte;
                at += 2;
            }
            Some(&low) if pattern.get(at + 1) == Some(&b'-') && at + 2 < pattern.len() => {
                let high = pattern[at + 2];
                found |= (low.min(high)..=low.max(high)).contains(&byte);
                at += 3;
            }
            Some(&literal) => {
                found |= literal == byte;
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

/// The key filter of a registration (`RDR-COMMON-11`): a text that ends in `*` means all keys that start with what
/// stands before it, any other text means exactly that key. No other character is special.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFilter {
    text: Vec<u8>,
}

impl KeyFilter {
    /// The filter with that text.
    #[must_use]
    pub fn new(text: impl Into<Vec<u8>>) -> KeyFilter {
        KeyFilter { text: text.into() }
    }

    /// The text as given.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether a key passes.
    #[must_use]
    pub fn matches(&self, key: &[u8]) -> bool {
        match self.text.strip_suffix(b"*") {
            Some(prefix) => key.starts_with(prefix),
            None => key == self.text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_the_servers_do() {
        let table: [(&str, &str, bool); 22] = [
            ("*", "", true),
            ("*", "anything", true),
            ("user:*", "user:1", true),
            ("user:*", "user", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            (r"h\*llo", "h*llo", true),
            (r"h\*llo", "hello", false),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
            ("a**b", "ab", true),
            ("[abc", "a", true),
            ("", "", true),
            ("", "a", false),
            ("a*", "b", false),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} against {text}");
        }
    }

    #[test]
    fn a_hostile_pattern_does_not_take_exponential_time() {
        let pattern = b"a*".repeat(40);
        let text = [b"a".repeat(200), b"b".to_vec()].concat();
        assert!(glob(&pattern, &text));
        assert!(!glob(&[&pattern[..], b"c"].concat(), &text));
    }

    #[test]
    fn a_filter_is_a_prefix_only_with_a_star_at_its_end() {
        let table: [(&str, &str, bool); 7] = [
            ("*", "k", true),
            ("person*", "person:1", true),
            ("person", "person:1", false),
            ("person", "person", true),
            ("p?rson*", "person", false),
            ("p?rson*", "p?rson1", true),
            ("", "", true),
        ];
        for (filter, key, expected) in table {
            assert_eq!(KeyFilter::new(filter).matches(key.as_bytes()), expected, "{filter} against {key}");
        }
    }
}
