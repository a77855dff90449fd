//! Reading a reply in the server's protocol, without copies. The server has parsed nothing yet at this point: its own functions for
//! parts of replies build a tree of them first (measured over 420,000 parts: a seventh of a scan that reads values).

/// What a reply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// A simple or bulk string.
    String,
    /// An error.
    Error,
    /// An integer.
    Int,
    /// An array of so many replies.
    Array(usize),
    /// Nothing.
    Null,
    /// Something that RESP2 does not know.
    Other,
}

/// A reply, or a part of one.
#[derive(Debug, Clone, Copy)]
pub struct ReplyView<'a> {
    /// The reply, and what follows it.
    bytes: &'a [u8],
}

impl<'a> ReplyView<'a> {
    /// The reply that these bytes begin with.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> ReplyView<'a> {
        ReplyView { bytes }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> ReplyKind {
        let Some((tag, line, _)) = first_line(self.bytes) else { return ReplyKind::Other };
        match tag {
            b'+' => ReplyKind::String,
            b'-' => ReplyKind::Error,
            b':' => ReplyKind::Int,
            b'_' => ReplyKind::Null,
            b'$' => count(line).map_or(ReplyKind::Null, |_| ReplyKind::String),
            b'*' => count(line).map_or(ReplyKind::Null, ReplyKind::Array),
            _ => ReplyKind::Other,
        }
    }

    /// The bytes of a string or an error; none for other kinds.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        match first_line(self.bytes) {
            Some((b'+' | b'-', line, _)) => line,
            Some((b'$', line, rest)) => count(line).and_then(|len| rest.get(..len)).unwrap_or_default(),
            _ => &[],
        }
    }

    /// The number of an integer; 0 for other kinds.
    #[must_use]
    pub fn int(&self) -> i64 {
        match first_line(self.bytes) {
            Some((b':', line, _)) => number(line),
            _ => 0,
        }
    }

    /// An element of an array.
    #[must_use]
    pub fn element(&self, index: usize) -> Option<ReplyView<'a>> {
        self.elements().nth(index)
    }

    /// The elements of an array; nothing for other kinds.
    #[must_use]
    pub fn elements(&self) -> Elements<'a> {
        match first_line(self.bytes) {
            Some((b'*', line, rest)) => Elements { bytes: rest, left: count(line).unwrap_or_default(), is_first: true },
            _ => Elements { bytes: &[], left: 0, is_first: true },
        }
    }
}

/// The elements of an array.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    /// The element that was returned last, or the first one, and what follows it.
    bytes: &'a [u8],
    left: usize,
    is_first: bool,
}

impl<'a> Iterator for Elements<'a> {
    type Item = ReplyView<'a>;

    fn next(&mut self) -> Option<ReplyView<'a>> {
        self.left = self.left.checked_sub(1)?;
        if !std::mem::replace(&mut self.is_first, false) {
            // Only now: the last element of an array, which may be long, is never skipped.
            self.bytes = after(self.bytes)?;
        }
        Some(ReplyView { bytes: self.bytes })
    }
}

/// What follows the first reply.
fn after(mut bytes: &[u8]) -> Option<&[u8]> {
    let mut left = 1_usize;
    while left > 0 {
        let (tag, line, rest) = first_line(bytes)?;
        left -= 1;
        bytes = match tag {
            b'$' | b'=' | b'!' => count(line).map_or(Some(rest), |len| rest.get(len.checked_add(2)?..))?,
            b'*' | b'~' | b'>' => {
                left = left.checked_add(count(line).unwrap_or_default())?;
                rest
            }
            b'%' => {
                left = left.checked_add(count(line).unwrap_or_default().checked_mul(2)?)?;
                rest
            }
            // Attributes come before the reply that they belong to.
            b'|' => {
                left = left.checked_add(count(line).unwrap_or_default().checked_mul(2)?.checked_add(1)?)?;
                rest
            }
            _ => rest,
        };
    }
    Some(bytes)
}

/// The type of a reply, the rest of its first line, and what follows.
fn first_line(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    Some((*tag, &rest[..end], rest.get(end + 2..)?))
}

/// A length; `None` if it is negative, which means that there is nothing.
fn count(line: &[u8]) -> Option<usize> {
    usize::try_from(number(line)).ok()
}

/// A decimal number as the server writes it.
fn number(line: &[u8]) -> i64 {
    let (is_negative, digits) = match line {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let add = |sum: i64, digit: &u8| sum.wrapping_mul(10).wrapping_add(i64::from(digit.wrapping_sub(b'0')));
    let number = digits.iter().fold(0, add);
    if is_negative { number.wrapping_neg() } else { number }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    enum Value {
        Simple(String),
        Error(String),
        Bulk(Vec<u8>),
        Int(i64),
        Null(&'static str),
        Array(Vec<Value>),
        Other(&'static str),
    }

    impl Value {
        fn write(&self, out: &mut Vec<u8>) {
            match self {
                Value::Simple(text) => out.extend(format!("+{text}\r\n").bytes()),
                Value::Error(text) => out.extend(format!("-{text}\r\n").bytes()),
                Value::Int(number) => out.extend(format!(":{number}\r\n").bytes()),
                Value::Null(text) | Value::Other(text) => out.extend(text.bytes()),
                Value::Bulk(bytes) => {
                    out.extend(format!("${}\r\n", bytes.len()).bytes());
                    out.extend(bytes);
                    out.extend(b"\r\n");
                }
                Value::Array(values) => {
                    out.extend(format!("*{}\r\n", values.len()).bytes());
                    values.iter().for_each(|value| value.write(out));
                }
            }
        }

        fn check(&self, view: ReplyView<'_>) -> Result<(), TestCaseError> {
            let (kind, bytes, int) = match self {
                Value::Simple(text) => (ReplyKind::String, text.as_bytes(), 0),
                Value::Error(text) => (ReplyKind::Error, text.as_bytes(), 0),
                Value::Bulk(bytes) => (ReplyKind::String, bytes.as_slice(), 0),
                Value::Int(number) => (ReplyKind::Int, &b""[..], *number),
                Value::Null(_) => (ReplyKind::Null, &b""[..], 0),
                Value::Array(values) => (ReplyKind::Array(values.len()), &b""[..], 0),
                Value::Other(_) => (ReplyKind::Other, &b""[..], 0),
            };
            prop_assert_eq!((view.kind(), view.bytes(), view.int()), (kind, bytes, int));
            let values = if let Value::Array(values) = self { values.as_slice() } else { &[] };
            prop_assert_eq!(view.elements().count(), values.len());
            for (index, (value, element)) in values.iter().zip(view.elements()).enumerate() {
                value.check(element)?;
                value.check(view.element(index).unwrap())?;
            }
            prop_assert!(view.element(values.len()).is_none());
            Ok(())
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let others =
            ["%1\r\n+a\r\n*1\r\n:1\r\n", "~2\r\n:1\r\n:2\r\n", ",1.5\r\n", "#t\r\n", "(123\r\n", "=5\r\ntxt:\r\r\n"];
        let leaf = prop_oneof![
            "[^\r\n]{0,8}".prop_map(Value::Simple),
            "[^\r\n]{0,8}".prop_map(Value::Error),
            prop::collection::vec(any::<u8>(), 0..12).prop_map(Value::Bulk),
            any::<i64>().prop_map(Value::Int),
            prop::sample::select(vec!["$-1\r\n", "*-1\r\n", "_\r\n"]).prop_map(Value::Null),
            prop::sample::select(others.to_vec()).prop_map(Value::Other),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Value::Array))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in values(), behind: Vec<u8>) {
            let mut bytes = Vec::new();
            value.write(&mut bytes);
            let len = bytes.len();
            bytes.extend(&behind);
            value.check(ReplyView::new(&bytes))?;
            prop_assert_eq!(after(&bytes), Some(&bytes[len..]));
        }

        #[test]
        fn nonsense_is_read_without_a_panic(bytes in "[*$:+\r\n0-9-]{0,40}") {
            let view = ReplyView::new(bytes.as_bytes());
            let parts = view.elements().take(100).map(|element| element.bytes().len()).sum::<usize>();
            prop_assert!(parts <= 100 * bytes.len() && view.bytes().len() <= bytes.len());
            let _ = (view.kind(), view.int(), view.element(3));
        }
    }

    #[test]
    fn lengths_that_cannot_be_end_the_elements() {
        for bytes in [
            "*3\r\n$9223372036854775807\r\nab\r\n",
            "*3\r\n*9223372036854775807\r\n*9223372036854775807\r\n",
            "*3\r\n%9223372036854775807\r\n",
        ] {
            assert_eq!(ReplyView::new(bytes.as_bytes()).elements().count(), 1, "{bytes:?}");
        }
        let numbers = ["9223372036854775807", "-9223372036854775808", "-0", "0"].map(|text| number(text.as_bytes()));
        assert_eq!(numbers, [i64::MAX, i64::MIN, 0, 0]);
    }
}
