//! The form of commands and replies: RESP2.

use redgrease_engine::input::LinkReply;

/// Longest reply. Shards answer with a few words.
const REPLY_BYTES_MAX: usize = 64 << 10;

/// Longest number.
const NUMBER_BYTES_MAX: usize = 20;

/// First bytes of a record of TLS: an alert and a handshake.
const TLS_RECORDS: [u8; 2] = [0x15, 0x16];

/// Appends a command.
pub fn write_command(args: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// Why bytes are not a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// They are a record of TLS.
    Tls,
    /// They are something else.
    Other(String),
}

/// Bytes that were received, and replies in them.
#[derive(Debug, Default)]
pub struct Replies {
    /// Bytes to be read.
    pub bytes: Vec<u8>,
    /// Bytes that were read already.
    start: usize,
}

impl Replies {
    /// The next reply, if all of it was received.
    ///
    /// # Errors
    /// The bytes are not a reply, or it is too long.
    pub fn next(&mut self) -> Result<Option<LinkReply>, Unreadable> {
        let rest = &self.bytes[self.start..];
        match parse(rest)? {
            Some((reply, len)) => {
                self.start += len;
                Ok(Some(reply))
            }
            None if rest.len() > REPLY_BYTES_MAX => {
                Err(Unreadable::Other(format!("a reply is longer than {REPLY_BYTES_MAX} bytes")))
            }
            None => {
                self.bytes.drain(..self.start);
                self.start = 0;
                Ok(None)
            }
        }
    }
}

/// The reply that these bytes begin with, and its length; `None` if its end is missing.
fn parse(bytes: &[u8]) -> Result<Option<(LinkReply, usize)>, Unreadable> {
    let Some((kind, line, mut end)) = line(bytes)? else { return Ok(None) };
    let reply = match kind {
        b'+' => LinkReply::Status(line.to_vec()),
        b'-' => LinkReply::Error(line.to_vec()),
        b':' => LinkReply::Other,
        b'$' => match length(line)? {
            None => LinkReply::Other,
            Some(len) => match bulk(bytes, end, len)? {
                Some(bulk) => {
                    end += len + 2;
                    LinkReply::Bulk(bulk.to_vec())
                }
                None => return Ok(None),
            },
        },
        _ => match after_elements(bytes, end, length(line)?.unwrap_or(0))? {
            Some(after) => {
                end = after;
                LinkReply::Other
            }
            None => return Ok(None),
        },
    };
    Ok(Some((reply, end)))
}

/// The position after so many replies, which begin at `start`.
fn after_elements(bytes: &[u8], start: usize, count: usize) -> Result<Option<usize>, Unreadable> {
    let (mut at, mut left) = (start, count);
    while left > 0 {
        left -= 1;
        let Some((kind, line, len)) = line(&bytes[at..])? else { return Ok(None) };
        at += len;
        match kind {
            b'$' => {
                if let Some(len) = length(line)? {
                    if bulk(bytes, at, len)?.is_none() {
                        return Ok(None);
                    }
                    at += len + 2;
                }
            }
            b'*' => left += length(line)?.unwrap_or(0),
            _ => {}
        }
    }
    Ok(Some(at))
}

/// The kind of a reply, the rest of its first line, and the position after that.
type Line<'a> = (u8, &'a [u8], usize);

/// The first line of a reply; `None` if its end is missing.
fn line(bytes: &[u8]) -> Result<Option<Line<'_>>, Unreadable> {
    let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
    match kind {
        b'+' | b'-' | b':' | b'$' | b'*' => {}
        kind if TLS_RECORDS.contains(kind) => return Err(Unreadable::Tls),
        kind => return Err(Unreadable::Other(format!("a reply begins with the byte 0x{kind:02x}"))),
    }
    let Some(end) = rest.iter().position(|byte| *byte == b'\r') else {
        let is_number = matches!(kind, b':' | b'$' | b'*');
        return if is_number && rest.len() > NUMBER_BYTES_MAX { length(rest).map(|_| None) } else { Ok(None) };
    };
    match rest.get(end + 1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some((*kind, &rest[..end], end + 3))),
        Some(_) => Err(Unreadable::Other("a line of a reply has no end".to_owned())),
    }
}

/// A length; `None`: it is -1, which stands for nothing.
fn length(line: &[u8]) -> Result<Option<usize>, Unreadable> {
    if line == b"-1" {
        return Ok(None);
    }
    let number = std::str::from_utf8(line).ok().and_then(|text| text.parse::<usize>().ok());
    match number {
        Some(number) if number <= REPLY_BYTES_MAX => Ok(Some(number)),
        _ => {
            let shown = String::from_utf8_lossy(&line[..line.len().min(32)]).into_owned();
            Err(Unreadable::Other(format!("a reply has the length '{shown}', the limit is {REPLY_BYTES_MAX}")))
        }
    }
}

/// The bytes of a bulk string; `None` if some are missing.
fn bulk(bytes: &[u8], start: usize, len: usize) -> Result<Option<&[u8]>, Unreadable> {
    match bytes.get(start + len..start + len + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some(&bytes[start..start + len])),
        Some(_) => Err(Unreadable::Other("a string of a reply is longer than it says".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], step: usize) -> Result<Vec<LinkReply>, Unreadable> {
        let (mut replies, mut found) = (Replies::default(), Vec::new());
        for part in bytes.chunks(step) {
            replies.bytes.extend_from_slice(part);
            while let Some(reply) = replies.next()? {
                found.push(reply);
            }
        }
        Ok(found)
    }

    #[test]
    fn replies_are_read_in_pieces_of_any_length() {
        let bytes = b"+OK\r\n$5\r\na\r\nb\0\r\n-ERR no\r\n:1\r\n$-1\r\n*-1\r\n*0\r\n*2\r\n*2\r\n$1\r\nx\r\n:1\r\n+y\r\n$0\r\n\r\n";
        let expected = [
            LinkReply::Status(b"OK".to_vec()),
            LinkReply::Bulk(b"a\r\nb\0".to_vec()),
            LinkReply::Error(b"ERR no".to_vec()),
            LinkReply::Other,
            LinkReply::Other,
            LinkReply::Other,
            LinkReply::Other,
            LinkReply::Other,
            LinkReply::Bulk(Vec::new()),
        ];
        for step in 1..=bytes.len() {
            assert_eq!(all(bytes, step).unwrap(), expected, "{step}");
        }
    }

    #[test]
    fn what_is_not_a_reply_is_refused() {
        let refused = |bytes: &[u8]| all(bytes, bytes.len()).unwrap_err();
        assert_eq!(refused(&[0x15, 3, 1, 0, 2, 2, 70]), Unreadable::Tls);
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"$9999999999\r\n",
            b"$-2\r\n",
            b"$x\r\n",
            b"*65537\r\n",
            b"$1\r\nabc",
            b"+a\rb\r\n",
            b"*1\r\n!1\r\n",
        ] {
            assert!(matches!(refused(bytes), Unreadable::Other(_)), "{bytes:?}");
        }
        let endless = vec![b'+'; REPLY_BYTES_MAX + 2];
        assert_eq!(refused(&endless), Unreadable::Other("a reply is longer than 65536 bytes".to_owned()));
    }

    #[test]
    fn a_command_is_an_array_of_strings() {
        let mut out = Vec::new();
        write_command(&[b"RG.HELLO", b"", b"\0\r\n"], &mut out);
        assert_eq!(out, b"*3\r\n$8\r\nRG.HELLO\r\n$0\r\n\r\n$3\r\n\0\r\n\r\n");
    }
}
