//! The operations on the index of a cache, and their replies.
//!
//! Each operation is atomic and may be repeated if its reply was lost: the second reply is the same,
//! except that files to unlink are then left to [`Op::Sweep`].

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{Digest, Entry, Key, Micros};

/// Identifies a lease: its session, and its number within the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The session.
    pub session: u64,
    /// The number, assigned by the session.
    pub number: u64,
}

impl Token {
    /// Its encoding in the index, 16 bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.session.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    /// Decodes the output of [`Token::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let [session, number] = [0, 8].map(|at| u64::from_be_bytes(bytes[at..][..8].try_into().expect("eight bytes")));
        Self { session, number }
    }
}

/// The session that sends a request, and how long it lasts without renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Random, never used twice.
    pub id: u64,
    /// How long its leases last without renewal, in microseconds.
    pub lease: Micros,
    /// Whether a new session may be created.
    pub new: bool,
    /// The owner, for people: `host:pid`.
    pub owner: String,
}

/// The purpose of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Make the first content of a key; refused if it has content.
    Create,
    /// Replace its content.
    Replace,
}

/// The bounds of a cache; 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bounds {
    /// Sum of all sizes, in bytes.
    pub max_bytes: u64,
    /// Number of entries.
    pub max_entries: u64,
    /// Maximum size of one entry; 0: `max_bytes`.
    pub max_entry_bytes: u64,
    /// Microseconds after which an entry expires, regardless of its own time to live.
    pub max_age: Micros,
    /// Microseconds after which an unused entry expires.
    pub max_idle: Micros,
    /// Bytes to keep free on the file system.
    pub min_free_bytes: u64,
    /// How far an eviction goes below a bound, in thousandths of it.
    pub low_mark: u64,
}

impl Bounds {
    /// The largest entry that is accepted; 0: any.
    pub fn largest_entry(&self) -> u64 {
        match (self.max_entry_bytes, self.max_bytes) {
            (0, cap) | (cap, 0) => cap,
            (entry, cap) => entry.min(cap),
        }
    }
}

/// Maximum number of entries that one operation evicts to free space.
pub const SLICE: usize = 64;

/// How many entries beyond a slice are examined if the oldest ones cannot be evicted.
pub const WINDOW: usize = 256;

/// How long a waiting writer keeps its place in the queue without polling.
pub const PLACE: Micros = 2_000_000;

/// Why an entry is removed, for statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// On request.
    Deleted,
    /// Its file is missing.
    Gone,
    /// Its file is damaged.
    Corrupt,
}

/// Which entries an explicit eviction removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice {
    /// Least recently used ones, until the sum of sizes is at most this.
    ToBytes(u64),
    /// Those unused since this time.
    UsedBefore(Micros),
    /// All, including pinned ones and those with readers.
    Everything,
}

/// How long garbage is left to the process that was asked to unlink it.
pub const GRACE: Micros = 5_000_000;

/// Maximum length of the queue of one key; further waiters poll without a place.
pub const MAX_PLACES: usize = 1024;

/// One atomic operation on the index. [`Request`] names the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are described with their operation")]
pub enum Op {
    /// Does the index exist, and to which cache does it belong? `instance`: the server's run id. After a restart the latest
    /// operations may be lost, so that the directory has to be scanned.
    Open { instance: u64 },
    /// Read the content of a key; with a token, its file is not unlinked until [`Op::Release`].
    Lookup { key: Key, pin: Option<(Token, Session)> },
    /// Like [`Op::Lookup`], without changing anything.
    Peek { key: Key },
    /// Become the writer of a key. `wait`: take a place in the queue; `hit`: existing content is returned
    /// (and pinned). `releases`: executed first, like [`Op::Release`].
    Acquire {
        key: Key,
        token: Token,
        session: Session,
        mode: Mode,
        reserve: u64,
        wait: bool,
        hit: bool,
        releases: Vec<(Key, Token)>,
    },
    /// Reserve more space for a writer: `bytes` in total.
    Reserve { key: Key, token: Token, bytes: u64 },
    /// The writer's file has its final name: make it the content. The index sets the entry's times. `unlinked`: keys and
    /// fences of files that are known to be unlinked. `pin`: the lease continues as a reader's.
    Commit { key: Key, token: Token, mode: Mode, entry: Entry, unlinked: Vec<(Key, u64)>, pin: bool },
    /// The writer aborts.
    Abort { key: Key, token: Token },
    /// End the leases of readers, waiters and aborted writers.
    Release { leases: Vec<(Key, Token)> },
    /// Remove a key's content; with a fence, only that generation.
    Remove { key: Key, fence: Option<u64>, reason: Reason },
    /// Mark as used now; with a time to live in microseconds, expire that much later (0: never).
    Touch { key: Key, ttl: Option<Micros> },
    /// Exempt it from eviction, or stop that.
    Pin { key: Key, pinned: bool },
    /// Renew the session. `unlinked` as in [`Op::Commit`].
    Renew { session: Session, unlinked: Vec<(Key, u64)> },
    /// End the session and its leases.
    Close { session: u64 },
    /// Evict entries, at most [`SLICE`].
    Evict { choice: Choice },
    /// Process everything that is due: expired sessions and their leases, expired entries, bounds, garbage. One slice
    /// at a time.
    Sweep,
    /// Which of these files (key, fence, digest) may be unlinked?
    Judge { files: Vec<(Key, u64, Digest)> },
    /// Which of these sessions are alive?
    Alive { sessions: Vec<u64> },
    /// Revoke the writer's lease of a key.
    Break { key: Key },
    /// Change the bounds.
    Configure { bounds: Bounds },
    /// Statistics.
    Info,
    /// Verify the sums; `repair`: correct them.
    Audit { repair: bool },
    /// Begin to reconcile the index with the directory: all others wait. `wipe`: drop everything, including data of
    /// another directory. The reply is [`Reply::Granted`] if the index is empty, and [`Reply::Changed`] otherwise.
    Rebuild { session: Session, instance: u64, bounds: Bounds, wipe: bool },
    /// Entries that were found, and when their files were last used; the newest generation wins.
    Restore { session: u64, entries: Vec<(Key, Entry, Micros)> },
    /// The index is complete.
    Finish { session: u64, instance: u64 },
}

/// An operation on one cache, identified by the random number that its directory and its index share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The cache.
    pub cache: u64,
    /// The operation.
    pub op: Op,
}

/// A file to unlink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doomed {
    /// Its key.
    pub key: Key,
    /// Its entry.
    pub entry: Entry,
}

/// The reply to an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The outcome.
    pub reply: Reply,
    /// Files that the requester must unlink, in this order; no process uses them. If one of a key cannot be unlinked,
    /// the later ones of this key must stay as well: if the index is lost, the newest file of a key must never be one
    /// that was replaced.
    pub doomed: Vec<Doomed>,
}

/// The outcome of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are described with their reply")]
pub enum Reply {
    /// Done.
    Done,
    /// There is nothing to apply it to.
    Missing,
    /// The content.
    Hit(Entry),
    /// The content, and when it was last used; `None` for pinned entries.
    Seen { entry: Entry, used: Option<Micros> },
    /// Another process writes the key: the owner of its session; `None`: another process has waited for longer.
    Busy { owner: Option<String> },
    /// The requester is the writer. `after_dead`: the previous writer died, and may have left a file.
    Granted { fence: u64, after_dead: bool },
    /// The key already has content.
    Exists,
    /// The content is committed.
    Committed(Entry),
    /// The requester's lease was revoked.
    LeaseLost,
    /// The session was not renewed in time; all its leases have ended.
    SessionLost,
    /// Larger than an entry may be.
    TooLarge { limit: u64 },
    /// No space, and nothing to evict. With doomed files: repeat the request once they are unlinked.
    Full { limit: u64 },
    /// One reply per requested item.
    Flags(Vec<bool>),
    /// Statistics, see [`Info`].
    Info(Box<Info>),
    /// What [`Op::Audit`] found.
    Audited(Audit),
    /// More remains; repeat the operation.
    More,
    /// The index does not exist.
    Lost,
    /// The index is of another run of the server.
    Changed,
    /// The index is being rebuilt.
    Rebuilding,
    /// The index belongs to another cache.
    Foreign { cache: u64 },
}

/// Statistics of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Info {
    /// Its bounds.
    pub bounds: Bounds,
    /// The time of the index's clock.
    pub now: Micros,
    /// Number of entries.
    pub entries: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// Bytes reserved by writers.
    pub reserved: u64,
    /// Sum of the sizes of files that are no longer content and not known to be unlinked.
    pub garbage: u64,
    /// Number of sessions, including expired ones that were not swept yet.
    pub sessions: u64,
    /// Number of writers, likewise.
    pub writers: u64,
    /// Number of keys with readers' leases, likewise.
    pub readers: u64,
    /// Entries that were evicted or have expired since the index was made.
    pub evicted: u64,
    /// The latest fence.
    pub fence: u64,
}

/// What [`Op::Audit`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audit {
    /// The stored sum and the actual one.
    pub bytes: (u64, u64),
    /// The stored number of reserved bytes and the actual one.
    pub reserved: (u64, u64),
    /// The stored number of garbage bytes and the actual one.
    pub garbage: (u64, u64),
    /// Members of the order of use without an entry, and entries that are missing from it.
    pub strays: u64,
    /// Leases of expired sessions.
    pub dead_leases: u64,
}

/// A lease, for listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The key.
    pub key: Key,
    /// Its owner.
    pub token: Token,
    /// A writer's fence or the generation that a reader uses; 0 for waiting writers.
    pub fence: u64,
    /// Since when; 0: unknown.
    pub since: Micros,
    /// Its kind.
    pub kind: HeldKind,
}

/// Kinds of [`Held`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldKind {
    /// Writes.
    Writer,
    /// Reads.
    Reader,
    /// Waits to write.
    Waiting,
}
