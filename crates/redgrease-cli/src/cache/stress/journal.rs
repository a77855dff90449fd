//! Journals that survive a killed worker: acknowledged creates and violations.
//!
//! There is one file for each worker number; successive workers with this number append to it. Other workers read it to
//! learn the existing keys, and the final checks use it as the list of entries that must exist.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An entry was created and the cache acknowledged it.
    Created(Created),
    /// The cache listed an entry with this key.
    Listed(u64),
    /// A failed check, as text.
    Fault(String),
}

/// One generation of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    /// The number of the key.
    pub number: u64,
    pub fence: u64,
    pub digest: [u8; 16],
}

/// The file of a worker; number 0 is the parent.
pub fn path(folder: &Path, worker: u32) -> PathBuf {
    folder.join(format!("journal-{worker}"))
}

/// Appends lines; the kernel has each when `add` returns.
pub struct Journal {
    file: File,
    line: Vec<u8>,
}

impl Journal {
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::options().create(true).append(true).open(path)?;
        // A worker that was killed may have left an incomplete line.
        file.write_all(b"\n")?;
        Ok(Self { file, line: Vec::new() })
    }

    pub fn add(&mut self, entry: &Entry) -> io::Result<()> {
        self.line.clear();
        write_line(entry, &mut self.line);
        self.file.write_all(&self.line)
    }

    /// Adds many with few writes.
    pub fn add_all(&mut self, entries: impl Iterator<Item = Entry>) -> io::Result<()> {
        self.line.clear();
        entries.for_each(|entry| write_line(&entry, &mut self.line));
        self.file.write_all(&self.line)
    }
}

fn write_line(entry: &Entry, line: &mut Vec<u8>) {
    match entry {
        Entry::Created(Created { number, fence, digest }) => {
            writeln!(line, "c {number:x} {fence:x} {:032x}", u128::from_be_bytes(*digest))
        }
        Entry::Listed(number) => writeln!(line, "l {number:x}"),
        Entry::Fault(words) => writeln!(line, "f {}", words.escape_debug()),
    }
    .expect("memory takes everything");
}

/// Parses a line; `None` for an incomplete line of a killed worker.
fn read_line(line: &str) -> Option<Entry> {
    let (kind, rest) = line.split_once(' ')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    match kind {
        "c" => {
            let mut fields = rest.split(' ');
            let (key, fence) = (number(fields.next()?)?, number(fields.next()?)?);
            let digest = fields.next().filter(|digits| digits.len() == 32)?;
            let digest = u128::from_str_radix(digest, 16).ok()?.to_be_bytes();
            Some(Entry::Created(Created { number: key, fence, digest }))
        }
        "l" => number(rest).map(Entry::Listed),
        "f" => Some(Entry::Fault(rest.to_owned())),
        _ => None,
    }
}

/// Follows the journal of another worker.
pub struct Follower {
    path: PathBuf,
    file: Option<File>,
    /// Data after the last complete line.
    rest: Vec<u8>,
}

impl Follower {
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, rest: Vec::new() }
    }

    /// Returns new lines; none if the file does not exist yet.
    pub fn read_new(&mut self, mut take: impl FnMut(Entry)) -> io::Result<()> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let file = self.file.as_mut().expect("just opened");
        file.read_to_end(&mut self.rest)?;
        let whole = self.rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        String::from_utf8_lossy(&self.rest[..whole]).lines().filter_map(read_line).for_each(&mut take);
        self.rest.drain(..whole);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(number: u64) -> Entry {
        Entry::Created(Created { number, fence: number + 1, digest: [number as u8; 16] })
    }

    fn new(follower: &mut Follower) -> Vec<Entry> {
        let mut entries = Vec::new();
        follower.read_new(|entry| entries.push(entry)).unwrap();
        entries
    }

    #[test]
    fn what_is_added_is_read_by_those_who_follow() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), 3);
        let mut follower = Follower::new(path.clone());
        assert_eq!(new(&mut follower), []);
        let mut journal = Journal::open(&path).unwrap();
        journal.add(&created(7)).unwrap();
        assert_eq!(new(&mut follower), [created(7)]);
        let more = [Entry::Listed(u64::MAX), Entry::Fault("two\nlines".to_owned()), created(41002 << 32)];
        journal.add_all(more.clone().into_iter()).unwrap();
        let read = new(&mut follower);
        assert_eq!((&read[0], &read[2]), (&more[0], &more[2]));
        assert_eq!(read[1], Entry::Fault("two\\nlines".to_owned()));
        assert_eq!(new(&mut follower), []);
    }

    #[test]
    fn half_a_line_of_a_killed_worker_spoils_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), 1);
        let mut whole = Vec::new();
        write_line(&created(5), &mut whole);
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut follower = Follower::new(path.clone());
            assert_eq!(new(&mut follower), [], "{length}");
            Journal::open(&path).unwrap().add(&created(6)).unwrap();
            let read = new(&mut follower);
            assert_eq!(read.last(), Some(&created(6)), "{length}");
            // A line that lacks only its newline is complete.
            assert!(read.len() == 1 || length == whole.len() - 1, "{length}: {read:?}");
        }
    }
}
