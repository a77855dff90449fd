//! How registrations match the names of keys. (Scans match by the server's own glob rules, in the server.)

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
