//! The counters of a worker, and their record, which outlives the worker.

use std::fs::File;
use std::io;
use std::ops::{AddAssign, Index, IndexMut};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::latency::{self, Latency};
use crate::cache::codes::CODES;

/// A counter of a worker. The first seven and `Other` are outcomes: each operation has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    ReadOk,
    ReadBusy,
    ReadMissing,
    WriteOk,
    WriteBusy,
    WriteExists,
    Other,
    ReadBytes,
    WriteBytes,
    /// Requested pauses, in nanoseconds.
    Slept,
    /// Reads with a failed check.
    Torn,
    Changed,
    Stale,
    /// Reads of a missing entry that was acknowledged and not removed.
    Vanished,
    /// Creates by get_or_create that waited for another process.
    Waited,
}

const OUTCOMES: [Count; 7] = [
    Count::ReadOk,
    Count::ReadBusy,
    Count::ReadMissing,
    Count::WriteOk,
    Count::WriteBusy,
    Count::WriteExists,
    Count::Other,
];
const NAMED: usize = Count::Waited as usize + 1;
/// Followed by errors by code, and those with an unknown code.
const LENGTH: usize = NAMED + CODES.len() + 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters([u64; LENGTH]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; LENGTH])
    }
}

impl Index<Count> for Counters {
    type Output = u64;

    fn index(&self, count: Count) -> &u64 {
        &self.0[count as usize]
    }
}

impl IndexMut<Count> for Counters {
    fn index_mut(&mut self, count: Count) -> &mut u64 {
        &mut self.0[count as usize]
    }
}

impl AddAssign<&Counters> for Counters {
    fn add_assign(&mut self, other: &Counters) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

impl Counters {
    /// Operations with any outcome.
    pub fn iterations(&self) -> u64 {
        OUTCOMES.iter().map(|&outcome| self[outcome]).sum()
    }

    /// Counts the error of an operation.
    pub fn note_error(&mut self, code: redgrease_filecache::Code) {
        let index = CODES.iter().position(|known| *known == code).unwrap_or(CODES.len());
        self.0[NAMED + index] += 1;
    }

    /// Errors by the name of their code, without those that did not occur.
    pub fn errors(&self) -> Vec<(&'static str, u64)> {
        let names = CODES.iter().map(|code| code.as_str()).chain(["unknown"]);
        names.zip(self.0[NAMED..].iter().copied()).filter(|(_, count)| *count > 0).collect()
    }
}

/// The kind of operation of a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    /// Busy, missing, exists, failed.
    Refused,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Read, Kind::Write, Kind::Refused];
}

/// All counters and latencies of a worker.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    pub counters: Counters,
    latencies: [Latency; 3],
}

impl Tally {
    pub fn latency(&mut self, kind: Kind) -> &mut Latency {
        &mut self.latencies[kind as usize]
    }

    pub fn latency_of(&self, kind: Kind) -> &Latency {
        &self.latencies[kind as usize]
    }

    pub fn add(&mut self, other: &Tally) {
        self.counters += &other.counters;
        for (mine, theirs) in self.latencies.iter_mut().zip(&other.latencies) {
            mine.merge(theirs);
        }
    }

    pub fn clear(&mut self) {
        self.counters = Counters::default();
        self.latencies.iter_mut().for_each(Latency::clear);
    }
}

/// A file with the tally of one process, which the parent can read even if the process was killed.
pub struct Record {
    file: File,
    buffer: Vec<u8>,
}

impl Record {
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut record = Self { file: File::create(path)?, buffer: Vec::new() };
        record.write_all(&Tally::default())?;
        Ok(record)
    }

    /// Writes the counters: one small write into the kernel's memory.
    pub fn write_counters(&mut self, counters: &Counters) -> io::Result<()> {
        self.write(&counters.0, 0)
    }

    pub fn write_all(&mut self, tally: &Tally) -> io::Result<()> {
        self.write_counters(&tally.counters)?;
        for (index, latency) in tally.latencies.iter().enumerate() {
            self.write(&latency.words(), LENGTH + index * latency::WORDS)?;
        }
        Ok(())
    }

    fn write(&mut self, words: &[u64], at: usize) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self.file.write_all_at(&self.buffer, at as u64 * 8)
    }
}

/// Reads the current record of a process; empty if there is none yet.
pub fn read(path: &Path) -> Tally {
    let bytes = std::fs::read(path).unwrap_or_default();
    let words: Vec<u64> =
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes"))).collect();
    let mut tally = Tally::default();
    if words.len() >= LENGTH {
        tally.counters.0.copy_from_slice(&words[..LENGTH]);
        for (index, latency) in tally.latencies.iter_mut().enumerate() {
            let from = (LENGTH + index * latency::WORDS).min(words.len());
            *latency = Latency::from_words(&words[from..]);
        }
    }
    tally
}

/// Reads only the counters, for frequent updates.
pub fn read_counters(path: &Path) -> Counters {
    let mut bytes = [0; LENGTH * 8];
    let mut counters = Counters::default();
    if File::open(path).and_then(|file| file.read_exact_at(&mut bytes, 0)).is_ok() {
        for (counter, word) in counters.0.iter_mut().zip(bytes.chunks_exact(8)) {
            *counter = u64::from_le_bytes(word.try_into().expect("8 bytes"));
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;
    use redgrease_filecache::Code;
    use std::time::Duration;

    fn tally() -> Tally {
        let mut tally = Tally::default();
        for (number, outcome) in OUTCOMES.into_iter().enumerate() {
            tally.counters[outcome] = 1 << number;
        }
        tally.counters[Count::ReadBytes] = 1000;
        tally.counters.note_error(Code::Unavailable);
        tally.counters.note_error(Code::Unavailable);
        tally.latency(Kind::Write).add(Duration::from_millis(3));
        tally
    }

    #[test]
    fn iterations_are_the_sum_of_the_outcomes_and_of_nothing_else() {
        assert_eq!(tally().counters.iterations(), 127);
    }

    #[test]
    fn errors_are_told_by_name() {
        assert_eq!(tally().counters.errors(), [(Code::Unavailable.as_str(), 2)]);
    }

    #[test]
    fn a_record_brings_back_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        assert_eq!(read(&path), Tally::default());
        let mut record = Record::create(&path).unwrap();
        assert_eq!(read(&path), Tally::default());
        record.write_all(&tally()).unwrap();
        assert_eq!(read(&path), tally());
        assert_eq!(read_counters(&path), tally().counters);
    }

    #[test]
    fn tallies_add_up() {
        let mut sum = tally();
        sum.add(&tally());
        assert_eq!(sum.counters.iterations(), 254);
        assert_eq!(sum.latency_of(Kind::Write).count(), 2);
        sum.clear();
        assert_eq!(sum, Tally::default());
    }
}
