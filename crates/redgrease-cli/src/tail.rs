//! Reading logs that other processes write.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};

use crate::records::Record;

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

    /// Data written since the last call.
    pub fn read_new(&mut self) -> Result<Vec<u8>> {
        let mut news = Vec::new();
        self.file.read_to_end(&mut news)?;
        Ok(news)
    }
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
            let all = log.tail.read_new()?;
            log.write(last.map_or(&all[..], |count| last_lines(&all, count)), out)?;
        }
        Ok(out.flush()?)
    }

    /// Copies data written since the last call.
    pub fn copy_new(&mut self, out: &mut impl Write) -> Result<()> {
        self.copy_so_far(None, out)
    }
}

impl Log {
    fn write(&mut self, text: &[u8], out: &mut impl Write) -> std::io::Result<()> {
        if self.label.is_empty() {
            return out.write_all(text);
        }
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            self.begun.extend_from_slice(line);
            if line.ends_with(b"\n") {
                out.write_all(self.label.as_bytes())?;
                out.write_all(&self.begun)?;
                self.begun.clear();
            }
        }
        Ok(())
    }
}

/// The last `count` lines of a text, including a last line without newline.
pub fn last_lines(text: &[u8], count: usize) -> &[u8] {
    if count == 0 {
        return &[];
    }
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let starts = body.iter().enumerate().rev().filter(|&(_, &byte)| byte == b'\n').map(|(position, _)| position + 1);
    match starts.take(count).nth(count - 1) {
        Some(start) => &text[start..],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_text() {
        for (text, count, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 5, "a\nb\n"),
            ("a\n\n", 1, "\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(last_lines(text.as_bytes(), count), expected.as_bytes(), "{text:?} {count}");
        }
    }

    #[test]
    fn only_news_are_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"old\n").unwrap();
        let mut tail = Tail::open(file.path(), 4).unwrap();
        assert_eq!(tail.read_new().unwrap(), b"");
        file.write_all(b"new\n").unwrap();
        assert_eq!(tail.read_new().unwrap(), b"new\n");
        assert_eq!(tail.read_new().unwrap(), b"");
    }
}
