//! Traits for the environment of the operations in [`engine`](crate::engine): an index, a disk, time, random numbers.
//!
//! There are three implementations: the blocking and the asynchronous one of this crate's APIs, and the simulated one of
//! the tests, in which a process may be stalled or killed at every step.

use std::io;
use std::time::Duration;

use event_listener::EventListener;
use redgrease_cache_rules::memory::Memory;
use redgrease_cache_rules::protocol::{Answer, Bounds, Held, Request};
use redgrease_cache_rules::{Entry, Key, Micros};

/// Why the index did not reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outage {
    /// It cannot be reached, or the connection was lost. The request may have been executed.
    Unavailable(String),
    /// It refuses because it is out of memory or read-only; nothing was changed.
    Refused(String),
    /// The user lacks the permission.
    Denied(String),
    /// The server has no such database.
    Misnamed(String),
}

/// A page of entries, when they were last used, and the cursor of the next page.
pub type Page = (Vec<(Key, Entry, Option<Micros>)>, Option<Vec<u8>>);

/// The leases of a cache, its sessions (with expiry and owner), and the clock of the index.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Leases {
    /// All leases.
    pub held: Vec<Held>,
    /// All sessions.
    pub sessions: Vec<(u64, Micros, String)>,
    /// The current time.
    pub now: Micros,
}

/// An environment.
pub trait Edge: Send + Sync + 'static {
    /// Its disk.
    type Disk: Disk;

    /// Executes one operation on the index.
    fn ask(&self, request: Request) -> impl Future<Output = Result<Answer, Outage>> + Send;

    /// A page of about `count` entries, from the cursor of an earlier page (`None`: the first page).
    /// Entries that exist the whole time are returned at least once.
    fn page(&self, cursor: Option<Vec<u8>>, count: usize) -> impl Future<Output = Result<Page, Outage>> + Send;

    /// All leases.
    fn leases(&self) -> impl Future<Output = Result<Leases, Outage>> + Send;

    /// The server's memory settings, if there is a server and it allows reading them.
    fn memory(&self) -> impl Future<Output = Option<Memory>> + Send {
        std::future::ready(None)
    }

    /// The run id of the server.
    fn instance(&self) -> u64;

    /// Runs an operation on the disk.
    fn on_disk<R: Send + 'static>(
        &self,
        job: impl FnOnce(&Self::Disk) -> R + Send + 'static,
    ) -> impl Future<Output = R> + Send;

    /// Waits for an event, at most this long.
    fn pause(&self, event: EventListener, longest: Duration) -> impl Future<Output = ()> + Send;

    /// Time since the cache was opened; monotonic.
    fn elapsed(&self) -> Duration;

    /// A random number.
    fn random(&self) -> u64;

    /// The calling thread or task; `None`: unknown.
    fn who(&self) -> Option<u64> {
        None
    }

    /// Whether the waiting call must stop.
    fn is_interrupted(&self) -> bool {
        false
    }

    /// Requests events of other processes; called when a call begins to wait.
    fn listen(&self) {}
}

/// A directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, without the directory; invalid UTF-8 is replaced, and such names are never ours.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last read or changed, microseconds since 1970 by the clock of the file system.
    pub used: Micros,
    /// Time since its last change, by the clock of the file system.
    pub age: Duration,
}

/// The directory of a cache. Names are those of [`redgrease_cache_rules::name`].
pub trait Disk: Send + Sync + 'static {
    /// A temporary file that is being written.
    type Draft: Draft;
    /// A published file, open for reading.
    type File: Send + 'static;

    /// Makes a temporary file; an error if it exists.
    fn create(&self, temporary: &str) -> io::Result<Self::Draft>;

    /// Writes a small temporary file with the durability of the cache.
    fn write_small(&self, temporary: &str, content: &[u8]) -> io::Result<()>;

    /// Renames a temporary file to its final name; names are unique, so nothing is replaced. With `sync`, what was
    /// published in its shard is then as durable as configured.
    fn publish(&self, temporary: &str, name: &str, sync: bool) -> io::Result<()>;

    /// Opens a published file, with its length.
    fn open(&self, name: &str) -> io::Result<(Self::File, u64)>;

    /// Reads the rest of a published file, at most `most` bytes, into `buffer`, whose contents are replaced.
    fn read(&self, file: &mut Self::File, most: u64, buffer: Vec<u8>) -> io::Result<Vec<u8>>;

    /// Hashes the rest of a published file.
    fn digest(&self, file: &mut Self::File) -> io::Result<[u8; 16]>;

    /// Unlinks a published file; returns whether it existed.
    fn unlink(&self, name: &str) -> io::Result<bool>;

    /// Unlinks a temporary file; returns whether it existed.
    fn unlink_temporary(&self, name: &str) -> io::Result<bool>;

    /// Unlinks files that have been in quarantine for this long.
    fn empty_quarantine(&self, age: Duration) -> io::Result<()>;

    /// Moves a published file to quarantine; returns whether it existed.
    fn quarantine(&self, name: &str) -> io::Result<bool>;

    /// Problems with the cache's sub-directories, with fixes.
    fn planted(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Lists a shard.
    fn list(&self, shard: &str) -> io::Result<Vec<Listed>>;

    /// Lists the temporary files.
    fn list_temporaries(&self) -> io::Result<Vec<Listed>>;

    /// The current bounds in the marker; they are restored to an index that was lost.
    fn bounds(&self) -> Option<Bounds>;

    /// Free bytes on the file system.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// A temporary file that is being written.
pub trait Draft: Send + 'static {
    /// Appends. After an error a part may have been written.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Truncates to this length.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// Ends writing, with the durability of the cache; returns also errors that are only reported on close.
    fn finish(self) -> io::Result<()>;
}

/// Hashes content.
pub fn digest(content: &[u8]) -> [u8; 16] {
    blake3::hash(content).as_bytes()[..16].try_into().expect("32 bytes have a first half")
}
