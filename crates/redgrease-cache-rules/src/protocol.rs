//! The operations on the index of a cache, and their answers.
//!
//! Each operation is one atomic step, and may be sent again when its answer was lost: the second answer says the same,
//! except that files to unlink are then left to [`Op::Sweep`].

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{Digest, Entry, Key, Micros};

/// Names one lease: the session that holds it, and which of its leases it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The session.
    pub session: u64,
    /// Counted by the session.
    pub number: u64,
}

impl Token {
    /// Its 16 bytes in the index.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.session.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    /// Reads what [`Token::to_bytes`] wrote.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let [session, number] = [0, 8].map(|at| u64::from_be_bytes(bytes[at..][..8].try_into().expect("eight bytes")));
        Self { session, number }
    }
}

/// Who asks, and for how long it lives without being heard of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Random, never used twice.
    pub id: u64,
    /// How long its leases last after it was last heard of, in microseconds.
    pub lease: Micros,
    /// Whether the index may meet it for the first time.
    pub new: bool,
    /// Who it is, for people: `host:pid`.
    pub owner: String,
}

/// What a writer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Make the key's first content; refused when it has one.
    Create,
    /// Rebuild its content.
    Replace,
}

/// The bounds of a cache; 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bounds {
    /// Sum of all sizes, in bytes.
    pub max_bytes: u64,
    /// Number of entries.
    pub max_entries: u64,
    /// Size of one entry; when 0, `max_bytes` is it.
    pub max_entry_bytes: u64,
    /// Microseconds after which an entry ends, whatever its own time to live.
    pub max_age: Micros,
    /// Microseconds after which an entry ends that nobody used.
    pub max_idle: Micros,
    /// Free bytes that the file system shall keep.
    pub min_free_bytes: u64,
    /// How far an eviction goes below a bound, in thousandths of it.
    pub low_mark: u64,
}

impl Bounds {
    /// The largest entry that may come in; 0: any.
    pub fn largest_entry(&self) -> u64 {
        match (self.max_entry_bytes, self.max_bytes) {
            (0, cap) | (cap, 0) => cap,
            (entry, cap) => entry.min(cap),
        }
    }
}

/// Most entries that one operation takes out of the index to make room.
pub const SLICE: usize = 64;

/// How many entries beyond a slice are looked at when the oldest ones cannot go.
pub const WINDOW: usize = 256;

/// How long somebody who waits for a key to become free keeps its place without asking again.
pub const PLACE: Micros = 2_000_000;

/// Why an entry goes, for the record of evictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Somebody asked for it.
    Deleted,
    /// Its file was not there.
    Gone,
    /// Its file was not what it should be.
    Corrupt,
}

/// Which entries an explicit eviction takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice {
    /// Least recently used ones, until the sum of sizes is at most this.
    ToBytes(u64),
    /// Those not used since this time.
    UsedBefore(Micros),
    /// All, also pinned ones and those with readers.
    Everything,
}

/// How long garbage is left to the process that was told to unlink it.
pub const GRACE: Micros = 5_000_000;

/// Most places in the queue of one key; who comes later has to try its luck.
pub const MAX_PLACES: usize = 1024;

/// One atomic step on the index. `cache` in [`Request`] says of which cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "fields are described with their operation")]
pub enum Op {
    /// Is the index there, and whose is it? `instance`: the server's run; another one than last time may have lost the
    /// latest steps, so that the directory has to be looked through.
    Open { instance: u64 },
    /// The content of a key; with a token, kept from being unlinked until [`Op::Release`].
    Lookup { key: Key, pin: Option<(Token, Session)> },
    /// As [`Op::Lookup`], changing nothing.
    Peek { key: Key },
    /// To become the writer of a key. `wait` keeps a place among those who wait; `hit` makes present content a hit
    /// (and pins it). `releases`: as [`Op::Release`], before that.
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
    /// More room for a writer: `bytes` in all.
    Reserve { key: Key, token: Token, bytes: u64 },
    /// The writer's file has its name: make it the content. The index fills in the entry's times. `unlinked`: keys and
    /// fences of files that are known to be gone. `pin`: the lease goes on as a reader's.
    Commit { key: Key, token: Token, mode: Mode, entry: Entry, unlinked: Vec<(Key, u64)>, pin: bool },
    /// The writer gives up.
    Abort { key: Key, token: Token },
    /// Readers, waiters and writers that gave up are done.
    Release { leases: Vec<(Key, Token)> },
    /// Take a key's content away; with a fence, only that generation.
    Remove { key: Key, fence: Option<u64>, reason: Reason },
    /// Used now; with a time to live in microseconds, ends that much later (0: never).
    Touch { key: Key, ttl: Option<Micros> },
    /// Leave it alone when room is made, or no longer.
    Pin { key: Key, pinned: bool },
    /// The session lives. `unlinked` as in [`Op::Commit`].
    Renew { session: Session, unlinked: Vec<(Key, u64)> },
    /// The session ends, and its leases with it.
    Close { session: u64 },
    /// Take entries out, at most [`SLICE`].
    Evict { choice: Choice },
    /// Everything that falls due by time: dead sessions and their leases, ended entries, bounds, garbage. A slice at a time.
    Sweep,
    /// Which of these files (key, fence, digest) may be unlinked?
    Judge { files: Vec<(Key, u64, Digest)> },
    /// Which of these sessions live?
    Alive { sessions: Vec<u64> },
    /// Take the place of the key's writer away from it.
    Break { key: Key },
    /// Change the bounds.
    Configure { bounds: Bounds },
    /// Numbers for people.
    Info,
    /// Are the sums right? `repair`: set them right.
    Audit { repair: bool },
    /// To bring the index in line with the directory: all others wait. `wipe`: forget everything, including the data of another directory.
    /// The answer is [`Reply::Granted`] when there is nothing in it yet, [`Reply::Changed`] when there is.
    Rebuild { session: Session, instance: u64, bounds: Bounds, wipe: bool },
    /// Entries that were found, and when their files were last used; newer generations win.
    Restore { session: u64, entries: Vec<(Key, Entry, Micros)> },
    /// The index is complete.
    Finish { session: u64, instance: u64 },
}

/// An operation of one cache, named by the random number that its directory and its index share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The cache.
    pub cache: u64,
    /// The step.
    pub op: Op,
}

/// A file to unlink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doomed {
    /// Its key.
    pub key: Key,
    /// What it was.
    pub entry: Entry,
}

/// The answer to an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What came of it.
    pub reply: Reply,
    /// Files that the asker shall unlink, in this order; nobody uses them. When one of a key cannot be unlinked, the later ones
    /// of this key stay as well: should the index be lost, the newest file of a key is never one that was replaced.
    pub doomed: Vec<Doomed>,
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are described with their reply")]
pub enum Reply {
    /// Done.
    Done,
    /// Nothing to do it to.
    Missing,
    /// The content.
    Hit(Entry),
    /// The content, and when it was last used; not for one that limits leave alone.
    Seen { entry: Entry, used: Option<Micros> },
    /// Somebody else writes the key: this owner of a session; `None`: somebody waits since longer.
    Busy { owner: Option<String> },
    /// The asker is the writer. `after_dead`: the one before died, and may have left a file.
    Granted { fence: u64, after_dead: bool },
    /// The key has content already.
    Exists,
    /// The content is committed.
    Committed(Entry),
    /// The asker's lease was taken away.
    LeaseLost,
    /// The session was not heard of for too long; all its leases are gone.
    SessionLost,
    /// Larger than an entry may be.
    TooLarge { limit: u64 },
    /// No room, and nothing that could go. With doomed files: ask again once they are unlinked.
    Full { limit: u64 },
    /// One answer for each that was asked for.
    Flags(Vec<bool>),
    /// Numbers, see [`Info`].
    Info(Box<Info>),
    /// What [`Op::Audit`] found.
    Audited(Audit),
    /// More of the same remains.
    More,
    /// The index is not there.
    Lost,
    /// The index is of another run of the server.
    Changed,
    /// The index is being rebuilt.
    Rebuilding,
    /// The index belongs to another cache.
    Foreign { cache: u64 },
}

/// Numbers of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Info {
    /// Its bounds.
    pub bounds: Bounds,
    /// The clock of the index.
    pub now: Micros,
    /// Entries.
    pub entries: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// What writers have reserved.
    pub reserved: u64,
    /// Sum of the sizes of files that are no longer content and not known to be unlinked.
    pub garbage: u64,
    /// Sessions, dead ones that nobody swept included.
    pub sessions: u64,
    /// Writers, likewise.
    pub writers: u64,
    /// Keys with readers' leases, likewise.
    pub readers: u64,
    /// Entries that were taken out to make room or because their time was over, since the index was made.
    pub evicted: u64,
    /// The latest fence.
    pub fence: u64,
}

/// What [`Op::Audit`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Audit {
    /// The sum as it is kept, and as it is.
    pub bytes: (u64, u64),
    /// Reserved bytes as they are kept, and as they are.
    pub reserved: (u64, u64),
    /// Garbage bytes as they are kept, and as they are.
    pub garbage: (u64, u64),
    /// Members of the order of use that are no entries, and entries that are not in it.
    pub strays: u64,
    /// Leases of sessions that are dead.
    pub dead_leases: u64,
}

/// A lease, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The key.
    pub key: Key,
    /// Who holds it.
    pub token: Token,
    /// A writer's fence or the generation that a reader uses; 0 for those who wait.
    pub fence: u64,
    /// Since when; 0 when not known.
    pub since: Micros,
    /// What it is.
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
