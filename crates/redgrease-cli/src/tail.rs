//! Reading a log that another process writes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};

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

    /// Copies data written since the last call.
    pub fn copy_new(&mut self, out: &mut impl Write) -> std::io::Result<()> {
        std::io::copy(&mut self.file, out)?;
        out.flush()
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
