//! Reading logs that other processes write.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};

use crate::records::Record;

/// Bytes that are read at a time: logs may be larger than the memory.
const PIECE: usize = 64 * 1024;

/// A position in a growing file.
pub struct Tail {
    file: File,
}

impl Tail {
    /// Opens the file at an offset.
    pub fn open(path: &Path, offset: u64) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("the log {} cannot be read", path.display()))?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file })
    }

    /// Moves to the last `count` lines of what was written, of which the last one may have no newline.
    pub fn skip_to_last_lines(&mut self, count: usize) -> Result<()> {
        let mut at = self.file.stream_position()?;
        let mut starts = VecDeque::from([at]);
        self.read_new(|piece| {
            for (index, _) in piece.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                starts.push_back(at + index as u64 + 1);
                // One more: a line begins behind the last newline only if something follows.
                if starts.len() > count.saturating_add(1) {
                    starts.pop_front();
                }
            }
            at += piece.len() as u64;
            Ok(())
        })?;
        if starts.back() == Some(&at) {
            starts.pop_back();
        }
        let start = starts.len().checked_sub(count).map_or(starts.front(), |index| starts.get(index));
        self.file.seek(SeekFrom::Start(start.copied().unwrap_or(at)))?;
        Ok(())
    }

    /// Passes what was written since the last call, in pieces.
    pub fn read_new(&mut self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            match self.file.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(length) => take(&piece[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the log cannot be read"),
            }
        }
    }
}

/// The last lines of a file, from an offset on.
pub fn last_lines(path: &Path, offset: u64, count: usize) -> Result<Vec<u8>> {
    let mut tail = Tail::open(path, offset)?;
    tail.skip_to_last_lines(count)?;
    let mut lines = Vec::new();
    tail.read_new(|piece| {
        lines.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(lines)
}

/// The logs of one server, or of several with the port of each before its lines.
pub struct LogReader {
    logs: Vec<Log>,
}

struct Log {
    tail: Tail,
    /// `30001 | `; nothing for a server alone.
    label: String,
    /// A line whose end is not written yet, of a server with a label.
    begun: Vec<u8>,
}

impl LogReader {
    pub fn open<'a>(servers: impl IntoIterator<Item = &'a Record>) -> Result<Self> {
        let servers: Vec<&Record> = servers.into_iter().collect();
        let alone = servers.len() == 1;
        let logs = servers.into_iter().map(|server| {
            let label = if alone { String::new() } else { format!("{} | ", server.port) };
            Ok(Log { tail: Tail::open(&server.log, server.log_start)?, label, begun: Vec::new() })
        });
        Ok(Self { logs: logs.collect::<Result<_>>()? })
    }

    /// Copies what was written until now; of each server only the last lines, if a number is given.
    pub fn copy_so_far(&mut self, last: Option<usize>, out: &mut impl Write) -> Result<()> {
        for log in &mut self.logs {
            if let Some(count) = last {
                log.tail.skip_to_last_lines(count)?;
            }
            let Log { tail, label, begun } = log;
            tail.read_new(|piece| write(piece, label, begun, out).context(NOT_WRITTEN))?;
        }
        out.flush().context(NOT_WRITTEN)
    }

    /// Copies data written since the last call.
    pub fn copy_new(&mut self, out: &mut impl Write) -> Result<()> {
        self.copy_so_far(None, out)
    }
}

const NOT_WRITTEN: &str = "the output cannot be written";

/// Writes a piece of a log; with a label whole lines only, each behind the label.
fn write(piece: &[u8], label: &str, begun: &mut Vec<u8>, out: &mut impl Write) -> io::Result<()> {
    if label.is_empty() {
        return out.write_all(piece);
    }
    for line in piece.split_inclusive(|&byte| byte == b'\n') {
        begun.extend_from_slice(line);
        if line.ends_with(b"\n") {
            out.write_all(label.as_bytes())?;
            out.write_all(begun)?;
            begun.clear();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        file
    }

    #[test]
    fn the_last_lines_of_a_file() {
        for (text, count, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 5, "a\nb\n"),
            ("a\nb\n", usize::MAX, "a\nb\n"),
            ("a\n\n", 1, "\n"),
            ("a\nb\n", 0, ""),
            ("a\nb", 0, ""),
            ("", 3, ""),
        ] {
            let file = file(text.as_bytes());
            assert_eq!(last_lines(file.path(), 0, count).unwrap(), expected.as_bytes(), "{text:?} {count}");
        }
        let file = file(b"one\ntwo\nthree\n");
        assert_eq!(last_lines(file.path(), 4, 5).unwrap(), b"two\nthree\n");
    }

    #[test]
    fn lines_of_many_pieces() {
        let text: String = (0..100_000).map(|number| format!("line {number}\n")).collect();
        let file = file(text.as_bytes());
        assert_eq!(last_lines(file.path(), 0, 2).unwrap(), b"line 99998\nline 99999\n");
        assert_eq!(last_lines(file.path(), 0, 100_000).unwrap(), text.as_bytes());
    }

    #[test]
    fn only_news_are_read() {
        let mut file = file(b"old\n");
        let mut tail = Tail::open(file.path(), 4).unwrap();
        let news = |tail: &mut Tail| {
            let mut all = Vec::new();
            let keep = |piece: &[u8]| {
                all.extend_from_slice(piece);
                Ok(())
            };
            tail.read_new(keep).unwrap();
            all
        };
        assert_eq!(news(&mut tail), b"");
        file.write_all(b"new\n").unwrap();
        assert_eq!(news(&mut tail), b"new\n");
        assert_eq!(news(&mut tail), b"");
    }

    #[test]
    fn lines_of_a_server_with_a_label_are_whole() {
        let (mut begun, mut out) = (Vec::new(), Vec::new());
        for piece in ["on", "e\ntwo\nth", "ree\n"] {
            write(piece.as_bytes(), "7 | ", &mut begun, &mut out).unwrap();
        }
        assert_eq!(out, b"7 | one\n7 | two\n7 | three\n");
    }
}
