//! What a cache tells about itself.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use redgrease_cache_rules::{Digest, Entry, Micros};
use serde::Serialize;

use crate::options::{Limits, Metadata};

/// What is known about an entry.
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
    /// When it was last read, touched or made; `None` where that is not asked for, and for pinned entries.
    pub last_used: Option<SystemTime>,
    /// When it ends; `None`: never.
    pub expires: Option<SystemTime>,
    /// Whether limits leave it alone.
    pub pinned: bool,
    /// The first 16 bytes of the BLAKE3 hash of the content.
    pub digest: Digest,
    /// Its media type.
    pub content_type: Option<String>,
    /// What else the user keeps with it.
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

/// How `get_or_create` came to its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was there.
    Hit,
    /// The producer made it.
    Created,
    /// Somebody else was making it.
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
    /// Entries.
    pub entries: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// What writers have reserved.
    pub reserved_bytes: u64,
    /// Sum of the sizes of files that are no longer content and not known to be unlinked.
    pub garbage_bytes: u64,
    /// Its bounds.
    pub limits: Limits,
    /// Sessions that were heard of.
    pub sessions: u64,
    /// Writers.
    pub writers: u64,
    /// Keys with readers' leases.
    pub readers: u64,
    /// Entries that were evicted since the index was made.
    pub evicted: u64,
    /// Free bytes of the file system.
    pub free_bytes: u64,
}

/// What this process did with this cache since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Reads and `get_or_create` that found content.
    pub hits: u64,
    /// Those that did not.
    pub misses: u64,
    /// Times that somebody else was waited for.
    pub waits: u64,
    /// Contents that were committed.
    pub creates: u64,
    /// Refusals because somebody else was writing.
    pub busy: u64,
    /// Waits that came to their deadline.
    pub timeouts: u64,
    /// Files that were unlinked for limits or age, or after a deletion.
    pub unlinked: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes committed.
    pub bytes_written: u64,
    /// Leases that ran out while they were needed.
    pub lease_losses: u64,
    /// Damaged files that were found.
    pub corrupt: u64,
    /// Times that the index was rebuilt or brought in line with the directory.
    pub rebuilds: u64,
    /// Failures of the server or the way to it.
    pub index_errors: u64,
    /// Requests to the index.
    pub round_trips: u64,
}

/// A lease that somebody holds or waits for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Lock {
    /// The key.
    pub key: Vec<u8>,
    /// What it is.
    pub kind: LockKind,
    /// Who: `host:pid`, or `?` when the session is gone.
    pub owner: String,
    /// How long it has been held; `None` for those who wait.
    pub age: Option<Duration>,
    /// How much longer it lasts unless it is renewed; zero: it has expired, and is removed by the next sweep.
    pub left: Duration,
    /// A writer's fence or the generation that a reader reads; 0 for those who wait.
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

/// What to evict: what meets all conditions that are given; without any, nothing. Pinned entries stay; who has one open goes on
/// reading it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evict {
    /// The least recently used ones, until so many bytes are left.
    pub to_bytes: Option<u64>,
    /// Those made longer ago.
    pub older_than: Option<Duration>,
    /// Those not used for so long.
    pub idle_for: Option<Duration>,
    /// Those whose key begins so.
    pub prefix: Option<Vec<u8>>,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What went, or would go.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evicted {
    /// How many.
    pub entries: u64,
    /// The sum of their sizes.
    pub bytes: u64,
    /// The first 1000 keys.
    pub keys: Vec<Vec<u8>>,
}

/// What a round of maintenance did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maintained {
    /// Files of entries that were unlinked.
    pub unlinked: u64,
    /// Files without an entry that were unlinked.
    pub orphans: u64,
    /// Temporary files of dead sessions that were unlinked.
    pub temporaries: u64,
}

/// How closely `verify` looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// The sums and members of the index.
    Index,
    /// Also that files are there, as long as they should be, and no others.
    Sizes,
    /// Also their content.
    Digests,
}

/// What `verify` found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verification {
    /// Entries that were looked at.
    pub entries: u64,
    /// Files that were looked at.
    pub files: u64,
    /// The sum of the entries' sizes.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// What kind of thing.
    pub kind: ProblemKind,
    /// The file or key. Bytes that are no text are shown as `\xff`; all others are as they are, so escape it for terminals.
    pub name: String,
    /// What is wrong with it.
    pub message: String,
    /// Whether `repair` set it right.
    pub repaired: bool,
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A file that no entry points to.
    OrphanFile,
    /// An entry without its file.
    MissingFile,
    /// A file of another length than its entry says.
    SizeMismatch,
    /// A file with other content than its entry says.
    DigestMismatch,
    /// A sum that is not the sum.
    TotalDrift,
    /// A member of the order of use that is no entry, or the other way round.
    StrayMember,
    /// A lease of a session that is dead.
    DeadLease,
    /// A temporary file that nobody writes.
    OrphanTemporary,
    /// More bytes or entries than the limits allow.
    OverLimit,
    /// Something in the directory that the cache did not make.
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

/// What `doctor` says about one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// The thing.
    pub name: &'static str,
    /// What is, and what to do.
    pub message: String,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but may not for long or not well.
    Warning,
    /// It does not work.
    Error,
}
