//! How registrations match the names of keys: by the rules of the server's `KEYS` and `SCAN`.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_char;

use thiserror::Error;

/// Longest pattern with wildcards other than one `*` at its end, in bytes. Matching such a pattern takes at most its
/// length times the length of the key.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// A pattern that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "BADPATTERN a pattern with wildcards has at most {PATTERN_BYTES_MAX} bytes, got {len}: shorten it, or use a prefix \
     that ends in '*'"
)]
pub struct PatternError {
    /// Its length in bytes.
    pub len: usize,
}

/// The key filter of a registration: a glob pattern of the server. `*` is any text, `?` any byte, `[a-c]` one of
/// these bytes, `[^a]` any other byte; `\` takes the special meaning from the byte behind it. Case matters.
///
/// A prefix that ends in `*`, and a name without wildcards, are compared directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFilter {
    text: Vec<u8>,
    matcher: Matcher,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Matcher {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    /// The bytes that all keys begin with, and the whole pattern.
    Glob(Vec<u8>, Vec<Token>),
}

/// What a filter fixes of the keys that pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Literal<'a> {
    /// The whole key.
    Name(&'a [u8]),
    /// Its first bytes.
    Prefix(&'a [u8]),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    AnyByte,
    AnyText,
    Class(Box<[u64; 4]>),
}

impl Token {
    fn accepts(&self, byte: u8) -> bool {
        match self {
            Token::Byte(expected) => *expected == byte,
            Token::AnyByte | Token::AnyText => true,
            Token::Class(set) => set[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0,
        }
    }
}

impl KeyFilter {
    /// The filter with that pattern.
    ///
    /// # Errors
    /// The pattern has wildcards, is no prefix, and is longer than [`PATTERN_BYTES_MAX`].
    pub fn new(pattern: impl Into<Vec<u8>>) -> Result<KeyFilter, PatternError> {
        let text = pattern.into();
        let is_plain = |bytes: &[u8]| !bytes.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'));
        let matcher = match text.strip_suffix(b"*") {
            _ if is_plain(&text) => Matcher::Exact(text.clone()),
            Some(prefix) if is_plain(prefix) => Matcher::Prefix(prefix.to_vec()),
            _ if text.len() > PATTERN_BYTES_MAX => return Err(PatternError { len: text.len() }),
            _ => simplified(tokens(&text)),
        };
        Ok(KeyFilter { text, matcher })
    }

    /// The pattern as given.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The one name that passes, or the prefix of those that pass with a `*` behind it; `None` where the pattern fixes
    /// neither.
    #[must_use]
    pub fn fixed(&self) -> Option<Vec<u8>> {
        match &self.matcher {
            Matcher::Exact(name) => Some(name.clone()),
            Matcher::Prefix(prefix) if !prefix.is_empty() => Some([prefix, b"*".as_slice()].concat()),
            Matcher::Prefix(_) | Matcher::Glob(..) => None,
        }
    }

    /// What the pattern fixes of the keys that pass.
    #[must_use]
    pub fn literal(&self) -> Literal<'_> {
        match &self.matcher {
            Matcher::Exact(name) => Literal::Name(name),
            Matcher::Prefix(prefix) | Matcher::Glob(prefix, _) => Literal::Prefix(prefix),
        }
    }

    /// Whether a key passes.
    #[must_use]
    pub fn matches(&self, key: &[u8]) -> bool {
        match &self.matcher {
            Matcher::Exact(name) => key == name,
            Matcher::Prefix(prefix) => key.starts_with(prefix),
            Matcher::Glob(_, tokens) => matches(tokens, key),
        }
    }
}

/// A pattern without wildcards, or with one at its end, as what is compared directly.
fn simplified(tokens: Vec<Token>) -> Matcher {
    let wildcard = tokens.iter().position(|token| !matches!(token, Token::Byte(_)));
    let bytes = |tokens: &[Token]| {
        tokens.iter().filter_map(|token| if let Token::Byte(byte) = token { Some(*byte) } else { None }).collect()
    };
    match wildcard {
        None => Matcher::Exact(bytes(&tokens)),
        Some(at) if at + 1 == tokens.len() && tokens[at] == Token::AnyText => Matcher::Prefix(bytes(&tokens)),
        Some(at) => Matcher::Glob(bytes(&tokens[..at]), tokens),
    }
}

/// Reads a pattern. Several `*` in a row are one.
fn tokens(mut pattern: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(pattern.len());
    while let Some((first, rest)) = pattern.split_first() {
        pattern = rest;
        match (first, rest) {
            (b'*', _) => {
                if tokens.last() != Some(&Token::AnyText) {
                    tokens.push(Token::AnyText);
                }
            }
            (b'?', _) => tokens.push(Token::AnyByte),
            (b'[', _) => {
                let (class, behind) = class(rest);
                tokens.push(class);
                pattern = behind;
            }
            (b'\\', [escaped, behind @ ..]) => {
                tokens.push(Token::Byte(*escaped));
                pattern = behind;
            }
            (byte, _) => tokens.push(Token::Byte(*byte)),
        }
    }
    tokens
}

/// Reads a class behind its `[`; returns it and what follows its `]`. One without `]` ends with the pattern.
fn class(mut rest: &[u8]) -> (Token, &[u8]) {
    let mut set = [0_u64; 4];
    let mut add = |byte: u8| set[usize::from(byte >> 6)] |= 1 << (byte & 63);
    let negated = rest.first() == Some(&b'^');
    if negated {
        rest = &rest[1..];
    }
    let behind = loop {
        match rest {
            [b'\\', byte, behind @ ..] => {
                add(*byte);
                rest = behind;
            }
            [b']', behind @ ..] => break behind,
            [] => break rest,
            [first, b'-', last, behind @ ..] => {
                // The server compares the characters of C, whose sign depends on the machine.
                let order = |byte: &u8| *byte as c_char;
                let (low, high) = (order(first).min(order(last)), order(first).max(order(last)));
                (0..=u8::MAX).filter(|byte| (low..=high).contains(&order(byte))).for_each(&mut add);
                rest = behind;
            }
            [byte, behind @ ..] => {
                add(*byte);
                rest = behind;
            }
        }
    };
    if negated {
        set = set.map(|bits| !bits);
    }
    (Token::Class(Box::new(set)), behind)
}

/// Goes back to the last `*` only: an earlier one need not take more, because the later one already can.
fn matches(tokens: &[Token], key: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < key.len() {
        match tokens.get(token) {
            Some(Token::AnyText) => {
                token += 1;
                star = Some((token, at));
            }
            Some(single) if single.accepts(key[at]) => {
                token += 1;
                at += 1;
            }
            _ => match &mut star {
                Some((behind, from)) => {
                    *from += 1;
                    (token, at) = (*behind, *from);
                }
                None => return false,
            },
        }
    }
    tokens[token..].iter().all(|token| *token == Token::AnyText)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    use super::*;

    fn filter(pattern: impl Into<Vec<u8>>) -> KeyFilter {
        KeyFilter::new(pattern).unwrap()
    }

    #[test]
    fn a_pattern_follows_the_glob_rules_of_the_server() {
        let table: [(&str, &str, bool); 40] = [
            ("*", "k", true),
            ("*", "", true),
            ("person*", "person:1", true),
            ("person", "person:1", false),
            ("person", "person", true),
            ("", "", true),
            ("", "a", false),
            ("p?rson*", "person1", true),
            ("p?rson", "prson", false),
            ("*b*", "abc", true),
            ("*b*", "ac", false),
            ("*b", "ab", true),
            ("*b", "abc", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcdef", false),
            ("a**c", "abc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a[bx]c", "axc", true),
            ("a[bx]c", "ayc", false),
            ("[^a]", "b", true),
            ("[^a]", "a", false),
            ("[^a]", "", false),
            ("[a-c]1", "b1", true),
            ("[c-a]1", "b1", true),
            ("[a-c]1", "d1", false),
            ("[]", "a", false),
            ("[^]", "a", true),
            ("[abc", "b", true),
            ("[abc", "d", false),
            ("a[", "a[", false),
            ("[a\\]]", "]", true),
            ("[a-]", "-", false),
            ("[a-]]", "_]", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a\\?*", "a?b", true),
            ("a\\", "a\\", true),
            ("Person*", "person", false),
            ("*stream*", "my stream:1", true),
        ];
        for (pattern, key, expected) in table {
            assert_eq!(filter(pattern).matches(key.as_bytes()), expected, "{pattern} against {key}");
        }
    }

    #[test]
    fn prefixes_and_names_are_compared_directly() {
        let table = [
            ("a*", Matcher::Prefix(b"a".to_vec())),
            ("*", Matcher::Prefix(vec![])),
            ("a**", Matcher::Prefix(b"a".to_vec())),
            ("a", Matcher::Exact(b"a".to_vec())),
            ("a\\*", Matcher::Exact(b"a*".to_vec())),
            ("a\\?*", Matcher::Prefix(b"a?".to_vec())),
        ];
        for (pattern, expected) in table {
            assert_eq!(filter(pattern).matcher, expected, "{pattern}");
        }
        assert!(matches!(filter("*a").matcher, Matcher::Glob(..)));
        assert_eq!(filter("a\\?*").fixed(), Some(b"a?*".to_vec()));
        assert_eq!(filter("a\\*").fixed(), Some(b"a*".to_vec()));
        assert_eq!((filter("*").fixed(), filter("a?").fixed()), (None, None));
    }

    #[test]
    fn only_patterns_with_wildcards_are_bounded() {
        let long = "x".repeat(PATTERN_BYTES_MAX);
        assert!(filter(long.clone() + "y*").matches((long.clone() + "yz").as_bytes()));
        assert!(filter(long.clone() + "y").matches((long.clone() + "y").as_bytes()));
        assert_eq!(KeyFilter::new(long.clone() + "?"), Err(PatternError { len: PATTERN_BYTES_MAX + 1 }));
        assert!(PatternError { len: 2000 }.to_string().contains("at most 1024 bytes, got 2000"));
    }

    #[test]
    fn a_pattern_of_stars_takes_no_exponential_time() {
        let pattern = "*a".repeat(PATTERN_BYTES_MAX / 2 - 1) + "b";
        assert!(!filter(pattern).matches("a".repeat(20_000).as_bytes()));
    }

    /// The rules again, as plain recursion over the text of the pattern.
    fn naive(pattern: &[u8], key: &[u8]) -> bool {
        match pattern {
            [] => key.is_empty(),
            [b'*', rest @ ..] => (0..=key.len()).any(|from| naive(rest, &key[from..])),
            [b'?', rest @ ..] => !key.is_empty() && naive(rest, &key[1..]),
            [b'[', rest @ ..] => {
                let negated = rest.first() == Some(&b'^');
                let mut at = usize::from(negated);
                let mut found = false;
                let Some(byte) = key.first() else { return false };
                let order = |byte: u8| byte as c_char;
                while at < rest.len() && rest[at] != b']' {
                    if rest[at] == b'\\' && at + 1 < rest.len() {
                        found |= rest[at + 1] == *byte;
                        at += 2;
                    } else if at + 2 < rest.len() && rest[at + 1] == b'-' {
                        let mut ends = [order(rest[at]), order(rest[at + 2])];
                        ends.sort_unstable();
                        found |= ends[0] <= order(*byte) && order(*byte) <= ends[1];
                        at += 3;
                    } else {
                        found |= rest[at] == *byte;
                        at += 1;
                    }
                }
                found != negated && naive(rest.get(at + 1..).unwrap_or_default(), &key[1..])
            }
            [b'\\', byte, rest @ ..] | [byte, rest @ ..] => key.first() == Some(byte) && naive(rest, &key[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_filter_agrees_with_a_naive_matcher(
            pattern in prop::collection::vec(prop::sample::select(b"ab*?[]^-\\\xff".to_vec()), 0..9),
            key in prop::collection::vec(prop::sample::select(b"ab-]^\\\x80\xff".to_vec()), 0..7),
        ) {
            prop_assert_eq!(filter(pattern.clone()).matches(&key), naive(&pattern, &key));
        }

        #[test]
        fn no_pattern_makes_a_match_panic(pattern in prop::collection::vec(any::<u8>(), 0..64), key in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = filter(pattern).matches(&key);
        }
    }
}
