//! Reports about entries and caches.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use redgrease_cache_rules::{Digest, Entry, Micros};
use serde::Serialize;

use crate::options::{Limits, Metadata};

/// Size, times and metadata of an entry.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Stat {
    /// The key.
    pub key: Vec<u8>,
    /// The fence of the lease that made it: a later content of the same key has a larger one.
    pub fence: u64,
    /// Length in bytes.
    pub size: u64,
    /// When it was committed, by the clock of the index.
    pub created: SystemTime,
    /// When it was last read, touched or made; `None` if not requested, and for pinned entries.
    pub last_used: Option<SystemTime>,
    /// When it expires; `None`: never.
    pub expires: Option<SystemTime>,
    /// Whether it is exempt from eviction.
    pub pinned: bool,
    /// The first 16 bytes of the BLAKE3 hash of the content.
    pub digest: Digest,
    /// Its media type.
    pub content_type: Option<String>,
    /// Other metadata of the user.
    pub user: BTreeMap<String, String>,
}

pub(crate) fn time(at: Micros) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(at)
}

impl Stat {
    pub(crate) fn new(key: &[u8], entry: &Entry, used: Option<Micros>) -> Self {
        let Metadata { content_type, user } = Metadata::unpack(&entry.metadata);
        Self {
            key: key.to_vec(),
            fence: entry.fence,
            size: entry.size,
            created: time(entry.created),
            last_used: used.map(time),
            expires: (entry.expires != 0).then(|| time(entry.expires)),
            pinned: entry.pinned,
            digest: entry.digest,
            content_type,
            user,
        }
    }
}

/// The outcome of `get_or_create`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The entry existed.
    Hit,
    /// This caller's producer made it.
    Created,
    /// Another call was making it.
    Waited,
}

impl Outcome {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Created => "created",
            Self::Waited => "waited",
        }
    }
}

/// Numbers of the whole cache.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Info {
    /// The random number that directory and index share.
    pub id: u64,
    /// The namespace.
    pub namespace: String,
    /// Number of entries.
    pub entries: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// Bytes reserved by writers.
    pub reserved_bytes: u64,
    /// Total size of files without an entry that are not unlinked yet.
    pub garbage_bytes: u64,
    /// Its limits.
    pub limits: Limits,
    /// Known sessions.
    pub sessions: u64,
    /// Writers.
    pub writers: u64,
    /// Keys with readers' leases.
    pub readers: u64,
    /// Entries evicted since the index was made.
    pub evicted: u64,
    /// Free bytes of the file system.
    pub free_bytes: u64,
}

/// Counters of this process since it opened the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Reads and `get_or_create` that found content.
    pub hits: u64,
    /// Reads and `get_or_create` that did not find content.
    pub misses: u64,
    /// Calls that waited for another one.
    pub waits: u64,
    /// Contents that were committed.
    pub creates: u64,
    /// Calls refused because another one was writing.
    pub busy: u64,
    /// Calls that failed at their deadline.
    pub timeouts: u64,
    /// Files unlinked because of limits, age or deletion.
    pub unlinked: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes committed.
    pub bytes_written: u64,
    /// Leases lost while in use.
    pub lease_losses: u64,
    /// Damaged files found.
    pub corrupt: u64,
    /// Number of times that the index was rebuilt or reconciled with the directory.
    pub rebuilds: u64,
    /// Failed requests to the index.
    pub index_errors: u64,
    /// Requests to the index.
    pub round_trips: u64,
}

/// A lease that is held or waited for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Lock {
    /// The key.
    pub key: Vec<u8>,
    /// Its kind.
    pub kind: LockKind,
    /// Its owner: `host:pid`, or `?` if the session has ended.
    pub owner: String,
    /// How long it has been held; `None` for waiting writers.
    pub age: Option<Duration>,
    /// How much longer it lasts unless it is renewed; zero: it has expired, and is removed by the next sweep.
    pub left: Duration,
    /// A writer's fence or the generation that a reader reads; 0 for waiting writers.
    pub fence: u64,
}

/// Kinds of leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Makes content.
    Writer,
    /// Keeps a file from being unlinked.
    Reader,
    /// Waits to become the writer.
    Waiting,
}

impl LockKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Waiting => "waiting",
        }
    }
}

/// Conditions of an eviction. Entries must meet all given conditions; without any, nothing is evicted. Pinned entries stay,
/// and open handles continue to read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evict {
    /// Evict the least recently used entries until this many bytes are left.
    pub to_bytes: Option<u64>,
    /// Only entries older than this.
    pub older_than: Option<Duration>,
    /// Only entries unused for this time.
    pub idle_for: Option<Duration>,
    /// Only keys with this prefix.
    pub prefix: Option<Vec<u8>>,
    /// Only report the entries.
    pub dry_run: bool,
}

/// The evicted entries, or those that would be evicted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evicted {
    /// Their number.
    pub entries: u64,
    /// Their total size.
    pub bytes: u64,
    /// The first 1000 keys.
    pub keys: Vec<Vec<u8>>,
}

/// The result of a round of maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maintained {
    /// Unlinked files of entries.
    pub unlinked: u64,
    /// Unlinked files without an entry.
    pub orphans: u64,
    /// Unlinked temporary files of dead sessions.
    pub temporaries: u64,
}

/// The depth of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// The sums and members of the index.
    Index,
    /// Also existence and length of files, and unknown files.
    Sizes,
    /// Also their contents.
    Digests,
}

/// The result of a verification.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verification {
    /// Checked entries.
    pub entries: u64,
    /// Checked files.
    pub files: u64,
    /// Total size of the entries.
    pub bytes: u64,
    /// The problems found.
    pub problems: Vec<Problem>,
}

/// A problem.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Its kind.
    pub kind: ProblemKind,
    /// The file or key. Bytes that are not text are shown as `\xff`; others are unchanged, so escape it for terminals.
    pub name: String,
    /// Description of the problem.
    pub message: String,
    /// Whether `repair` fixed it.
    pub repaired: bool,
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A file without an entry.
    OrphanFile,
    /// An entry without its file.
    MissingFile,
    /// A file whose length differs from its entry.
    SizeMismatch,
    /// A file whose digest differs from its entry.
    DigestMismatch,
    /// A stored total that differs from the sum.
    TotalDrift,
    /// A member of the order of use without an entry, or the reverse.
    StrayMember,
    /// A lease of an ended session.
    DeadLease,
    /// A temporary file without a writer.
    OrphanTemporary,
    /// More bytes or entries than the limits allow.
    OverLimit,
    /// A file or directory that the cache did not make.
    Foreign,
}

impl ProblemKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrphanFile => "orphan-file",
            Self::MissingFile => "missing-file",
            Self::SizeMismatch => "size-mismatch",
            Self::DigestMismatch => "digest-mismatch",
            Self::TotalDrift => "total-drift",
            Self::StrayMember => "stray-member",
            Self::DeadLease => "dead-lease",
            Self::OrphanTemporary => "orphan-temporary",
            Self::OverLimit => "over-limit",
            Self::Foreign => "foreign",
        }
    }
}

/// One finding of `doctor`.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Its severity.
    pub level: Level,
    /// The part that was examined.
    pub name: &'static str,
    /// The observation and the fix.
    pub message: String,
}

/// The severity of a [`Finding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// No problem.
    Ok,
    /// It works, but may fail later or work badly.
    Warning,
    /// It fails.
    Error,
}
