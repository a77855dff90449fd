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

/// Why the index did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outage {
    /// It cannot be reached, or broke off. The request may have been carried out.
    Unavailable(String),
    /// It refuses for lack of memory or writability; nothing was done.
    Refused(String),
    /// The user lacks the permission.
    Denied(String),
    /// The server has no such database.
    Misnamed(String),
}

/// A page of entries and when they were last used, and where the next one begins.
pub type Page = (Vec<(Key, Entry, Option<Micros>)>, Option<Vec<u8>>);

/// The leases of a cache, its sessions (until when they live, who they are), and the clock of the index.
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

    /// Performs one operation.
    fn ask(&self, request: Request) -> impl Future<Output = Result<Answer, Outage>> + Send;

    /// Entries, `count` or a few more or fewer, from a cursor that an earlier page gave (`None`: from the beginning).
    /// Entries that are there the whole time are seen at least once.
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

    /// Time since the cache was opened; never goes back.
    fn elapsed(&self) -> Duration;

    /// A random number.
    fn random(&self) -> u64;

    /// The calling thread or task; `None`: unknown.
    fn who(&self) -> Option<u64> {
        None
    }

    /// Whether the waiting call shall stop.
    fn is_interrupted(&self) -> bool {
        false
    }

    /// Requests events of other processes; called when a call begins to wait.
    fn listen(&self) {}
}

/// A directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, without the directory; not UTF-8 ones are given with replacements and are never ours.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last read or changed, microseconds since 1970 by the clock of the file system.
    pub used: Micros,
    /// How long ago it was changed, by the clock of the file system.
    pub age: Duration,
}

/// The directory of a cache. Names are those of [`redgrease_cache_rules::name`].
pub trait Disk: Send + Sync + 'static {
    /// A temporary file that is being written.
    type Draft: Draft;
    /// A published file that is open for reading.
    type File: Send + 'static;

    /// Makes a temporary file; an error if it is there.
    fn create(&self, temporary: &str) -> io::Result<Self::Draft>;

    /// Writes a small temporary file, as durable as the cache is.
    fn write_small(&self, temporary: &str, content: &[u8]) -> io::Result<()>;

    /// Gives a temporary file its name; names are unique, so nothing is replaced. With `sync`, what was published in its
    /// shard is then as durable as the cache is.
    fn publish(&self, temporary: &str, name: &str, sync: bool) -> io::Result<()>;

    /// Opens a published file, with its length.
    fn open(&self, name: &str) -> io::Result<(Self::File, u64)>;

    /// Reads what is left of a published file, at most `most` bytes, into the memory of `buffer`; what it holds is dropped.
    fn read(&self, file: &mut Self::File, most: u64, buffer: Vec<u8>) -> io::Result<Vec<u8>>;

    /// Hashes what is left of a published file.
    fn digest(&self, file: &mut Self::File) -> io::Result<[u8; 16]>;

    /// Unlinks a published file; whether it was there.
    fn unlink(&self, name: &str) -> io::Result<bool>;

    /// Unlinks a temporary file; whether it was there.
    fn unlink_temporary(&self, name: &str) -> io::Result<bool>;

    /// Unlinks what has been in quarantine for so long.
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

    /// The bounds that the directory was given, as they are now; an index that was lost gets them back.
    fn bounds(&self) -> Option<Bounds>;

    /// Free bytes of the file system.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// A temporary file that is being written.
pub trait Draft: Send + 'static {
    /// Appends. After an error some of it may be there.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Truncates to this length.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// Ends writing, as durable as the cache is; errors that only closing brings are errors of this.
    fn finish(self) -> io::Result<()>;
}

/// Hashes content.
pub fn digest(content: &[u8]) -> [u8; 16] {
    blake3::hash(content).as_bytes()[..16].try_into().expect("32 bytes have a first half")
}
