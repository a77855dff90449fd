//! An index in a file, for the processes of one host.
//!
//! The file is a snapshot of the [`Index`] followed by the requests since. To execute a request, a process takes the
//! lock, reads what others appended, applies it to its own copy, applies its request, appends it, and releases the
//! lock. All copies are equal because the index is a pure function of its requests and their times. A process that dies
//! while it appends leaves an incomplete record, which the next one truncates.
//!
//! The file has no content, so nothing is lost with it. Damage is truncated, too, and the index reconciled with the
//! directory. A process without write permission does that in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redgrease_cache_rules::protocol::{Answer, Bounds, Op, Reply, Request, Session};
use redgrease_cache_rules::{Index, Micros};
use rustix::fs::{FallocateFlags, FlockOperation, Stat, fallocate, fstat};

use crate::disk::{Directory, JOURNAL};
use crate::edge::{Leases, Outage, Page};
use crate::lock::lock;

const LOCK: &str = "JOURNAL.lock";
const NEW: &str = "JOURNAL.new";
const RESERVE: &str = "JOURNAL.reserve";
const MAGIC: &[u8; 8] = b"rgcache1";

/// The prefix of the journals of all versions.
const FAMILY: &[u8; 7] = b"rgcache";

/// The journal is rewritten when it is this many times as long as its snapshot.
const GROWTH: u64 = 4;

/// Shorter journals are not rewritten.
const SMALL: u64 = 1 << 20;

/// Disk space kept for the journal's growth.
const AHEAD: u64 = 128 * 1024;

/// Maximum length of a record, which guards against damaged lengths.
const MAX_RECORD: u32 = 1 << 30;

/// The index of a cache without a server.
pub(crate) struct Journal {
    directory: std::sync::Arc<Directory>,
    /// No file yet, for a process without write permission.
    lock: OnceLock<File>,
    patience: Duration,
    state: Mutex<State>,
}

/// The lock, until it is dropped.
struct Locked<'a>(&'a File);

impl<'a> Locked<'a> {
    fn take(lock: &'a File, patience: Duration) -> io::Result<Self> {
        let began = Instant::now();
        for turn in 0_u32.. {
            match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(lock)),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if began.elapsed() > patience {
                let message =
                    format!("{LOCK} has been held by another process for {patience:.1?}; that process may be stopped");
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            if turn < 20 {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(u64::from(20 * turn).min(5000)));
            }
        }
        unreachable!("the loop ends by returning")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Closing the file would release it, too.
        let _ = rustix::fs::flock(self.0, FlockOperation::Unlock);
    }
}

struct State {
    file: Option<File>,
    inode: u64,
    /// Offset up to which this copy has read.
    read: u64,
    /// Length of the snapshot at the beginning.
    snapshot: u64,
    index: Index,
    last: Micros,
    /// The cache that the requests are for.
    cache: Option<u64>,
    /// The state of the file when it was last checked.
    stamp: Stamp,
    /// The state of the file when this copy diverged from it, which happens only in read-only caches.
    own: Option<Stamp>,
}

/// Detects that a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, u64),
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self { inode: stat.st_ino, length: stat.st_size as u64, changed: (stat.st_mtime, stat.st_mtime_nsec) }
    }
}

impl Journal {
    /// Opens it; `patience`: how long other processes may hold its lock.
    pub fn open(directory: std::sync::Arc<Directory>, patience: Duration) -> io::Result<Self> {
        let journal = Self { directory, lock: OnceLock::new(), patience, state: Mutex::new(State::new()) };
        journal.lock()?;
        journal.set_aside();
        Ok(journal)
    }

    /// The file to lock. There is none if it was never written and this process may not create it.
    fn lock(&self) -> io::Result<Option<&File>> {
        if self.lock.get().is_none() {
            match self.directory.open_journal(LOCK, false) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.directory.is_read_only() => {}
                lock => drop(self.lock.set(lock?)),
            }
        }
        Ok(self.lock.get())
    }

    /// Reserves disk space for the time when the disk is full.
    fn set_aside(&self) {
        if self.directory.is_read_only() {
            return;
        }
        // Not all file systems can, and a full disk cannot.
        if let Ok(file) = self.directory.open_journal(RESERVE, false) {
            let _ = fallocate(&file, FallocateFlags::empty(), 0, AHEAD);
        }
    }

    /// The boot id of the host: data that was not synced may be lost after the next boot.
    pub fn instance() -> u64 {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|id| u64::from_str_radix(id.replace('-', "").trim().get(..16)?, 16).ok())
            .unwrap_or(1)
    }

    /// Runs `job` on an up-to-date index, with the lock held.
    fn locked<R>(
        &self,
        cache: Option<u64>,
        job: impl FnOnce(&mut State, Micros) -> io::Result<R>,
    ) -> Result<R, Outage> {
        let mut state = lock(&self.state);
        let run = || -> io::Result<R> {
            let _locked = self.lock()?.map(|lock| Locked::take(lock, self.patience)).transpose()?;
            state.cache = cache.or(state.cache);
            state.catch_up(&self.directory)?;
            let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            // If the clock was set back, time does not advance until it has caught up.
            let now = state.last.max(crate::options::micros(clock));
            job(&mut state, now)
        };
        run().map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => Outage::Denied(format!("the file {JOURNAL}: {error}")),
            _ => Outage::Unavailable(format!("the file {JOURNAL}: {error}")),
        })
    }

    pub fn ask(&self, request: &Request) -> Result<Answer, Outage> {
        self.locked(Some(request.cache), |state, now| {
            if Index::is_silent(&request.op) {
                return Ok(state.index.apply(now, request));
            }
            if self.directory.is_read_only() {
                return Ok(state.look(now, request));
            }
            let mut appended = state.append(now, request);
            if appended.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull) {
                if let Op::Lookup { key, pin: None } = &request.op {
                    // Content is returned; its use is not recorded.
                    let op = Op::Peek { key: key.clone() };
                    return Ok(state.index.apply(now, &Request { cache: request.cache, op }));
                }
                // Reserved for this case, so that entries can be removed.
                self.directory.unlink_journal(RESERVE)?;
                appended = state.append(now, request);
            }
            appended?;
            let answer = state.index.apply(now, request);
            state.last = now;
            if state.read > SMALL && state.read > GROWTH * state.snapshot {
                match state.compact(&self.directory) {
                    Ok(()) => self.set_aside(),
                    // It was executed; the journal is rewritten at a later time.
                    Err(error) => tracing::warn!(%error, "the journal cannot be rewritten"),
                }
            }
            Ok(answer)
        })
    }

    pub fn page(&self, cursor: Option<Vec<u8>>, count: usize) -> Result<Page, Outage> {
        self.locked(None, |state, _| {
            let page = state.index.page(cursor.as_ref(), count);
            let next = if page.len() < count { None } else { page.last().map(|(key, ..)| key.clone()) };
            Ok((page, next))
        })
    }

    pub fn leases(&self) -> Result<Leases, Outage> {
        self.locked(None, |state, now| {
            let sessions = state.index.sessions().map(|(id, until, owner)| (id, until, owner.to_owned())).collect();
            Ok(Leases { held: state.index.held(), sessions, now })
        })
    }
}

impl State {
    fn new() -> Self {
        Self {
            file: None,
            inode: 0,
            read: 0,
            snapshot: 0,
            index: Index::default(),
            last: 0,
            cache: None,
            stamp: Stamp::default(),
            own: None,
        }
    }

    /// Reads what other processes have appended.
    fn catch_up(&mut self, directory: &Directory) -> io::Result<()> {
        // It may have been rewritten, which gives it another inode.
        let on_disk = match directory.open_journal(JOURNAL, false) {
            // It was never written, or it was removed: the index is lost.
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory.is_read_only() => None,
            on_disk => Some(on_disk?),
        };
        let stamp = on_disk.as_ref().map(fstat).transpose()?.as_ref().map_or(Stamp::default(), Stamp::of);
        if self.own == Some(stamp) {
            return Ok(());
        }
        // Another process truncates damage: then what was read there is no longer part of the journal.
        let is_another = self.file.is_none() || self.inode != stamp.inode || stamp.length < self.read;
        if is_another || self.own.is_some() {
            *self = Self { file: on_disk, inode: stamp.inode, cache: self.cache, ..Self::new() };
        }
        self.stamp = stamp;
        let Some(file) = self.file.as_ref().filter(|_| stamp.length > self.read) else { return Ok(()) };
        let mut bytes = vec![0; usize::try_from(stamp.length - self.read).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, self.read)?;
        let mut rest = &bytes[..];
        let mut is_damaged = false;
        if self.read == 0 {
            match rest.strip_prefix(MAGIC) {
                Some(behind) => (rest, self.read) = (behind, MAGIC.len() as u64),
                None if rest.starts_with(FAMILY) => return Err(self.another_version()),
                // Of a process that died in its first step: the next record completes it.
                None => (rest, is_damaged) = (&[], !MAGIC.starts_with(rest)),
            }
        }
        loop {
            match next_record(rest) {
                Next::Record(record, behind) => {
                    if self.replay(record).is_none() {
                        return Err(self.another_version());
                    }
                    self.read += (rest.len() - behind.len()) as u64;
                    rest = behind;
                    if self.snapshot == 0 {
                        self.snapshot = self.read;
                    }
                }
                Next::Incomplete => break,
                Next::Damaged => {
                    is_damaged = true;
                    break;
                }
            }
        }
        if is_damaged && !self.record_damage(directory) {
            (self.read, self.snapshot, self.index, self.last) = (0, 0, Index::default(), 0);
        }
        if self.read < stamp.length && !directory.is_read_only() {
            self.file.as_ref().expect("it was read").set_len(self.read)?;
        }
        Ok(())
    }

    fn another_version(&mut self) -> io::Error {
        *self = Self { cache: self.cache, ..Self::new() };
        let message = "another version of this program wrote it; use that one, or end all processes that use the cache and \
                       delete the file: the index is then rebuilt from the directory";
        io::Error::new(io::ErrorKind::InvalidData, message)
    }

    /// The rest is damaged and its content unknown: the index must be reconciled with the directory.
    /// Returns whether what was read is valid.
    fn record_damage(&mut self, directory: &Directory) -> bool {
        tracing::warn!(at = self.read, "the journal is damaged; the index is reconciled with the directory");
        let Some(cache) = self.cache else { return false };
        let now = self.last;
        match self.index.apply(now, &Request { cache, op: Op::Open { instance: 0 } }).reply {
            Reply::Lost | Reply::Foreign { .. } => return true,
            Reply::Done | Reply::Changed => {}
            // It was being built: the missing part is unknown.
            _ => return false,
        }
        // As after a builder that died: the next request rebuilds it.
        let session = Session { id: fastrand::u64(1..), lease: 0, new: true, owner: "damage".to_owned() };
        let op = Op::Rebuild { session, instance: 0, bounds: Bounds::default(), wipe: false };
        let request = Request { cache, op };
        if directory.is_read_only() {
            self.own = Some(self.stamp);
        } else if let Err(error) = self.append(now, &request) {
            tracing::warn!(%error, "the damage cannot be recorded; the index is rebuilt");
            return false;
        }
        self.index.apply(now, &request);
        true
    }

    /// The reply to a request, without recording it. An index that must be rebuilt is rebuilt in memory, which is valid
    /// for this copy until the file changes. Files are left for others to unlink.
    fn look(&mut self, now: Micros, request: &Request) -> Answer {
        let reply = if self.own.is_some() || matches!(request.op, Op::Rebuild { .. }) {
            let reply = self.index.apply(now, request).reply;
            if matches!(reply, Reply::Granted { .. } | Reply::Changed) {
                self.own = Some(self.stamp);
            }
            reply
        } else {
            self.index.clone().apply(now, request).reply
        };
        Answer { reply, doomed: Vec::new() }
    }

    fn replay(&mut self, record: &[u8]) -> Option<()> {
        match postcard::from_bytes::<Record>(record).ok()? {
            Record::Snapshot(at, index) => (self.last, self.index) = (at, *index),
            Record::Request(at, request) => {
                self.index.apply(at, &request);
                self.last = at;
            }
        }
        Some(())
    }

    fn append(&mut self, now: Micros, request: &Request) -> io::Result<()> {
        let file = self.file.as_ref().expect("caught up before");
        let mut bytes = if self.read == 0 { MAGIC.to_vec() } else { Vec::new() };
        write_record(&mut bytes, &RecordRef::Request(now, request))?;
        if self.read / AHEAD != (self.read + bytes.len() as u64) / AHEAD || self.read == 0 {
            // So that entries can be removed when the disk is full. Not all file systems can.
            let _ = fallocate(file, FallocateFlags::KEEP_SIZE, self.read, 2 * AHEAD);
        }
        if let Err(error) = file.write_all_at(&bytes, self.read) {
            // A partial write must not be mistaken for a record.
            file.set_len(self.read)?;
            return Err(error);
        }
        self.read += bytes.len() as u64;
        Ok(())
    }

    /// Rewrites the journal as one snapshot.
    fn compact(&mut self, directory: &Directory) -> io::Result<()> {
        directory.unlink_journal(NEW)?;
        let file = directory.open_journal(NEW, true)?;
        let mut bytes = MAGIC.to_vec();
        write_record(&mut bytes, &RecordRef::Snapshot(self.last, &self.index))?;
        file.write_all_at(&bytes, 0)?;
        directory.rename_journal(NEW, JOURNAL)?;
        self.inode = fstat(&file)?.st_ino;
        self.file = Some(file);
        (self.read, self.snapshot) = (bytes.len() as u64, bytes.len() as u64);
        Ok(())
    }
}

#[derive(serde::Deserialize)]
enum Record {
    Snapshot(Micros, Box<Index>),
    Request(Micros, Request),
}

#[derive(serde::Serialize)]
enum RecordRef<'a> {
    Snapshot(Micros, &'a Index),
    Request(Micros, &'a Request),
}

/// Length, checksum, content.
fn write_record(bytes: &mut Vec<u8>, record: &RecordRef<'_>) -> io::Result<()> {
    let content = postcard::to_allocvec(record).map_err(io::Error::other)?;
    let length = u32::try_from(content.len()).ok().filter(|length| *length <= MAX_RECORD);
    let length = length.ok_or_else(|| io::Error::other("the index is too large for a cache without a server"))?;
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&content).to_le_bytes());
    bytes.extend_from_slice(&content);
    Ok(())
}

/// The next item.
enum Next<'a> {
    /// A record, and the rest after it.
    Record(&'a [u8], &'a [u8]),
    /// Nothing, or an incomplete record: its writer died.
    Incomplete,
    /// Not a record.
    Damaged,
}

fn next_record(bytes: &[u8]) -> Next<'_> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Next::Incomplete };
    let Some((sum, rest)) = rest.split_first_chunk::<4>() else { return Next::Incomplete };
    let length = u32::from_le_bytes(*length);
    // Zeros are left by a power failure.
    let Some(length) = usize::try_from(length).ok().filter(|_| (1..=MAX_RECORD).contains(&length)) else {
        return Next::Damaged;
    };
    let Some((record, behind)) = rest.split_at_checked(length) else { return Next::Incomplete };
    if crc32fast::hash(record) == u32::from_le_bytes(*sum) { Next::Record(record, behind) } else { Next::Damaged }
}
