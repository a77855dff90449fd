//! Keys are arbitrary bytes: parsing from the command line, and safe display.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use anyhow::Result;
use serde_json::{Value, json};

use super::args::KeyForm;
use crate::misuse::Misuse;

impl KeyForm {
    /// Parses the key of a command-line argument.
    pub fn key(&self, word: &OsStr) -> Result<Vec<u8>> {
        parse(word, self.key_hex)
    }
}

/// Parses the key of a command-line argument: its bytes, or hex digits.
pub fn parse(word: &OsStr, is_hex: bool) -> Result<Vec<u8>> {
    if !is_hex {
        return Ok(word.as_bytes().to_vec());
    }
    let wrong = || Misuse(format!("--key-hex: {word:?} is not a key in hex: write two hex digits for each byte"));
    let digits = word.to_str().filter(|text| text.is_ascii() && text.len() % 2 == 0).ok_or_else(wrong)?;
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let key: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
    // from_str_radix would accept a sign.
    Ok(key.filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit())).ok_or_else(wrong)?)
}

/// A key as text on one line: unprintable bytes are escaped, so that no control character reaches the terminal and no
/// two keys look the same. Keys that begin or end in a blank, or begin with a quote, are quoted.
pub fn shown(key: &[u8]) -> String {
    let mut text = String::with_capacity(key.len());
    for chunk in key.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\'' | '"' => text.push(character),
                other => text.extend(other.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    let blank = |character: Option<char>| character.is_none_or(char::is_whitespace);
    if blank(text.chars().next()) || blank(text.chars().next_back()) || text.starts_with('"') {
        text = format!("\"{}\"", text.replace('"', "\\\""));
    }
    text
}

/// A key in JSON: text if it is UTF-8, otherwise `{"hex": "..."}`.
pub fn json(key: &[u8]) -> Value {
    match std::str::from_utf8(key) {
        Ok(text) => json!(text),
        Err(_) => json!({ "hex": hex(key) }),
    }
}

/// Two digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_keys_are_shown_on_one_line_and_told_apart() {
        for (key, expected) in [
            (&b"plain.bin"[..], "plain.bin"),
            ("größe/ключ".as_bytes(), "größe/ключ"),
            (b"a\nb\t\x1b[2J", "a\\nb\\t\\u{1b}[2J"),
            (b"\xff\x00\xc3", "\\xff\\0\\xc3"),
            (b"back\\slash", "back\\\\slash"),
            (b" blank ", "\" blank \""),
            (b"", "\"\""),
            (b"\"quoted\"", "\"\\\"quoted\\\"\""),
            (b"it's \"so\"", "it's \"so\""),
            ("\u{202e}txt".as_bytes(), "\\u{202e}txt"),
        ] {
            assert_eq!(shown(key), expected);
        }
    }

    #[test]
    fn keys_in_json_lose_no_byte() {
        assert_eq!(json("é\n".as_bytes()).to_string(), r#""é\n""#);
        assert_eq!(json(b"\xff\x0a").to_string(), r#"{"hex":"ff0a"}"#);
    }

    #[test]
    fn keys_can_be_written_in_hex() {
        assert_eq!(parse("00fF".as_ref(), true).unwrap(), [0, 255]);
        assert_eq!(parse("00fF".as_ref(), false).unwrap(), b"00fF");
        for wrong in ["0", "0g", "+1", "é", "0x"] {
            let error = parse(wrong.as_ref(), true).unwrap_err();
            assert!(error.is::<Misuse>() && error.to_string().contains("two hex digits"), "{wrong}");
        }
    }
}
