//! The length of error texts: an error is for people, and a long one costs everyone who is shown it.

use alloc::borrow::Cow;
use alloc::format;

/// The longest text of an error that is kept, in bytes.
pub const ERROR_TEXT_BYTES_MAX: usize = 64 << 10;

/// An error text, cut to [`ERROR_TEXT_BYTES_MAX`] with a note of how much is missing. The note comes on top.
#[must_use]
pub fn cut_error(text: &[u8]) -> Cow<'_, [u8]> {
    if text.len() <= ERROR_TEXT_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    // Not within a character of UTF-8: its continuation bytes are 10xxxxxx.
    let within = |at: &usize| text[*at] & 0xc0 == 0x80;
    let start = (ERROR_TEXT_BYTES_MAX - 3..=ERROR_TEXT_BYTES_MAX).rev().find(|at| !within(at));
    let end = start.unwrap_or(ERROR_TEXT_BYTES_MAX);
    let mut cut = text[..end].to_vec();
    let note = format!("... ({} more bytes: error texts are cut to {ERROR_TEXT_BYTES_MAX})", text.len() - end);
    cut.extend_from_slice(note.as_bytes());
    Cow::Owned(cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;

    #[test]
    fn a_text_of_the_longest_length_stays_as_it_is() {
        let text = vec![b'x'; ERROR_TEXT_BYTES_MAX];
        assert_eq!(cut_error(&text), text.as_slice());
    }

    #[test]
    fn a_longer_text_is_cut_between_characters_and_says_how_much_is_missing() {
        let text = format!("x{}", "é".repeat(ERROR_TEXT_BYTES_MAX));
        let cut = String::from_utf8(cut_error(text.as_bytes()).into_owned()).expect("no half character");
        assert!(cut.len() < ERROR_TEXT_BYTES_MAX + 80, "{}", cut.len());
        assert!(cut.ends_with("é... (65538 more bytes: error texts are cut to 65536)"), "{}", &cut[65_500..]);
    }
}
