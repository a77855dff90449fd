//! The blocking API.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use event_listener::{Event, EventListener, Listener};
use pollster::block_on;
use redgrease_cache_rules::memory::Memory;
use redgrease_cache_rules::name::{SHARDS, file_name};
use redgrease_cache_rules::protocol::{Answer, Bounds, Mode, Op, Request};
use redgrease_cache_rules::{Entry, Key};

use crate::disk::Directory;
use crate::doctor;
use crate::edge::{Disk, Edge, Leases, Outage, Page};
use crate::engine::{self, Doing, Draft, Engine, Hold, Made, Opened, check_key};
use crate::error::{BoxError, Cause, Error, Result};
use crate::opening::{self, Prepared};
use crate::options::{Limits, Options, Put};
use crate::report::{Depth, Evict, Evicted, Finding, Info, Lock, Maintained, Outcome, Stat, Stats, Verification};
use crate::store::journal::Journal;
use crate::store::redis::{Blocking, IDLE_TIME, Server};
use crate::wake::Wake;

/// A cache of files in one directory, shared by threads, processes and hosts.
///
/// Cheap to clone; all clones share one session. After a `fork` the child has its own session.
///
/// ```
/// use redgrease_filecache::{FileCache, Options, Outcome, Put};
///
/// let directory = std::env::temp_dir().join(format!("cache-of-{}", std::process::id()));
/// let cache = FileCache::open(Options::new(&directory))?;
/// let put = Put::waiting(std::time::Duration::from_secs(60));
/// let (image, outcome) = cache.get_or_create("image.png", &put, |file| {
///     use std::io::Write;
///     Ok(file.write_all(b"expensive")?)
/// })?;
/// assert_eq!((image.into_bytes()?, outcome), (b"expensive".to_vec(), Outcome::Created));
/// assert_eq!(cache.read("image.png", std::time::Duration::ZERO)?, b"expensive");
/// # drop(cache); std::fs::remove_dir_all(directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct FileCache {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    process: u32,
    inner: Arc<Open>,
    /// State of a forked child, without locks that a thread of the parent may have left locked.
    child: OnceLock<Arc<Shared>>,
    interrupt: Arc<Interrupt>,
}

/// Called while a thread waits; returns whether to stop.
#[derive(Default)]
struct Interrupt(OnceLock<Box<dyn Fn() -> bool + Send + Sync>>);

/// The open cache of one process.
struct Inner {
    engine: Engine<World>,
    prepared: Prepared,
    /// Start of the next round of maintenance.
    shard: AtomicU16,
    ended: AtomicBool,
    ending: Event,
}

/// Shared by caches, handles and writers: when the last of them is dropped, leases are released at once.
struct Open {
    inner: Arc<Inner>,
    process: u32,
}

impl std::ops::Deref for Open {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        self.inner.ended.store(true, Ordering::Release);
        self.inner.ending.notify(usize::MAX);
        if !self.inner.prepared.rules.read_only {
            block_on(self.inner.engine.close());
        }
        self.inner.engine.chores.added.notify(usize::MAX);
    }
}

/// What a handle needs from the cache that opened it.
pub(crate) trait Keeper: Send + Sync {
    /// Time since the cache was opened.
    fn elapsed(&self) -> Duration;

    /// Removes damaged content.
    fn quarantine(&self, key: &[u8], entry: &Entry, what: &str) -> Error;
}

impl Keeper for Open {
    fn elapsed(&self) -> Duration {
        self.engine.edge.elapsed()
    }

    fn quarantine(&self, key: &[u8], entry: &Entry, what: &str) -> Error {
        if self.process != std::process::id() {
            return Error::new(
                "read",
                Some(key),
                Cause::Corrupt { what: what.to_owned(), left: format!("it was not moved: {FORKED}") },
            );
        }
        block_on(self.engine.quarantine(Doing::to("read", key), entry, what.to_owned()))
    }
}

/// Shards of one round of background maintenance.
pub(crate) const SHARDS_PER_ROUND: u16 = 8;

/// How long deferred work is collected before it is done.
pub(crate) const CHORE_DELAY: Duration = Duration::from_millis(10);

/// Pause before failed deferred work is retried.
pub(crate) const CHORE_RETRY: Duration = Duration::from_millis(100);

/// The environment of the blocking API.
struct World {
    directory: Arc<Directory>,
    index: Index,
    began: Instant,
    wake: Option<Wake>,
    interrupt: Arc<Interrupt>,
}

enum Index {
    Server(Box<Blocking>),
    File(Box<Journal>, u64),
}

impl Edge for World {
    type Disk = Directory;

    async fn ask(&self, request: Request) -> Result<Answer, Outage> {
        match &self.index {
            Index::Server(server) => server.ask(&request),
            Index::File(journal, _) => journal.ask(&request),
        }
    }

    async fn page(&self, cursor: Option<Vec<u8>>, count: usize) -> Result<Page, Outage> {
        match &self.index {
            Index::Server(server) => server.page(cursor, count),
            Index::File(journal, _) => journal.page(cursor, count),
        }
    }

    async fn leases(&self) -> Result<Leases, Outage> {
        match &self.index {
            Index::Server(server) => server.leases(),
            Index::File(journal, _) => journal.leases(),
        }
    }

    async fn memory(&self) -> Option<Memory> {
        match &self.index {
            Index::Server(server) => server.memory(),
            Index::File(..) => None,
        }
    }

    fn instance(&self) -> u64 {
        match &self.index {
            Index::Server(server) => server.server.instance(),
            Index::File(_, instance) => *instance,
        }
    }

    async fn on_disk<R: Send + 'static>(&self, job: impl FnOnce(&Directory) -> R + Send + 'static) -> R {
        job(&self.directory)
    }

    async fn pause(&self, event: EventListener, longest: Duration) {
        event.wait_timeout(longest);
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn random(&self) -> u64 {
        // Not from this thread's sequence: after a fork parent and child would draw the same.
        getrandom::u64().unwrap_or_else(|_| fastrand::u64(..))
    }

    fn listen(&self) {
        self.wake.iter().for_each(Wake::listen);
    }

    fn who(&self) -> Option<u64> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        thread_local!(static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
        Some(NUMBER.with(|number| *number))
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt.0.get().is_some_and(|asks| asks())
    }
}

impl Inner {
    fn open(options: &Options, interrupt: &Arc<Interrupt>) -> Result<Arc<Open>> {
        let prepared = opening::prepare(options)?;
        // Sessions and tokens are random: seeded by the system, also in the child of a fork.
        fastrand::seed(getrandom::u64().map_err(|error| Error::io("open", None, io::Error::other(error.to_string())))?);
        let directory = Arc::clone(&prepared.directory);
        let (index, wake) = match &options.url {
            Some(url) => {
                let server = Blocking::new(Server::new(url, options)?);
                // The first connection identifies the run of the server.
                let _ = server.pipe(redis::pipe().cmd("PING"));
                (Index::Server(Box::new(server)), Some(Wake::new(options)))
            }
            None => {
                let journal = Journal::open(Arc::clone(&directory), options.command_timeout)
                    .map_err(|error| Error::io("open", None, error))?;
                (Index::File(Box::new(journal), Journal::instance()), None)
            }
        };
        let world = World { directory, index, began: Instant::now(), wake, interrupt: Arc::clone(interrupt) };
        let engine = Engine::new(world, prepared.rules.clone(), prepared.cache);
        engine.edge.wake.iter().for_each(|wake| wake.deliver_to(&engine.flights));
        let (shard, ended) = (AtomicU16::new(fastrand::u16(..SHARDS)), AtomicBool::new(false));
        let inner = Arc::new(Self { engine, prepared, shard, ended, ending: Event::new() });
        // An error after this point must end what was begun.
        let open = Open { inner: Arc::clone(&inner), process: std::process::id() };
        if !options.read_only {
            Self::keep(&inner, options).map_err(|error| Error::io("open", None, error))?;
        }
        if options.read_only && options.url.is_some() {
            Self::keep_lines(&inner).map_err(|error| Error::io("open", None, error))?;
        }
        block_on(inner.prepared.arrive(&inner.engine, options))?;
        if !options.read_only {
            block_on(inner.prepared.adopt_files(&inner.engine, options))?;
        }
        Ok(Arc::new(open))
    }

    /// Starts the thread of a read-only cache: it closes unused connections.
    fn keep_lines(inner: &Arc<Self>) -> io::Result<()> {
        let caretaker = Arc::clone(inner);
        let run = move || {
            loop {
                let ended = caretaker.ending.listen();
                if caretaker.ended.load(Ordering::Acquire) {
                    return;
                }
                ended.wait_timeout(IDLE_TIME);
                caretaker.close_idle();
            }
        };
        std::thread::Builder::new().name("filecache-keeper".to_owned()).spawn(run).map(drop)
    }

    /// Starts two threads: one renews the session, and waits only for the index; the other performs deferred work and
    /// maintenance, which may wait for the disk.
    fn keep(inner: &Arc<Self>, options: &Options) -> io::Result<()> {
        let (renewal, maintenance) = (options.lease / 4, options.maintenance);
        let (renewer, caretaker) = (Arc::clone(inner), Arc::clone(inner));
        std::thread::Builder::new().name("filecache-renewal".to_owned()).spawn(move || {
            let mut next = Instant::now() + renewal;
            loop {
                let ended = renewer.ending.listen();
                if renewer.ended.load(Ordering::Acquire) {
                    return;
                }
                ended.wait_deadline(next);
                if Instant::now() >= next {
                    next = Instant::now() + renewal;
                    block_on(renewer.engine.renew());
                }
            }
        })?;
        std::thread::Builder::new().name("filecache-keeper".to_owned()).spawn(move || {
            let chores = &caretaker.engine.chores;
            // So that processes that were started together do not sweep together.
            let every = maintenance.map(|every| every.mul_f64(0.75 + fastrand::f64() / 2.0));
            let (mut maintained, mut idle) = (Instant::now(), Instant::now());
            loop {
                let added = chores.added.listen();
                if caretaker.ended.load(Ordering::Acquire) {
                    return;
                }
                if !chores.are_waiting() {
                    let due = every.map_or(renewal, |every| every.saturating_sub(maintained.elapsed()));
                    let idle_lines = caretaker.close_idle();
                    let longest = if idle_lines { renewal.min(due).min(IDLE_TIME) } else { renewal.min(due) };
                    added.wait_timeout(longest.max(Duration::from_millis(1)));
                }
                if chores.are_waiting() {
                    std::thread::sleep(CHORE_DELAY);
                    block_on(caretaker.engine.do_chores());
                    if chores.are_waiting() {
                        std::thread::sleep(CHORE_RETRY);
                    }
                }
                if idle.elapsed() >= renewal {
                    idle = Instant::now();
                    block_on(caretaker.engine.tidy_up());
                }
                if every.is_some_and(|every| maintained.elapsed() >= every) {
                    maintained = Instant::now();
                    caretaker.maintain_connections();
                }
            }
        })?;
        Ok(())
    }

    /// Closes unused connections; returns whether more are open.
    fn close_idle(&self) -> bool {
        match &self.engine.edge.index {
            Index::Server(server) => server.close_idle(),
            Index::File(..) => false,
        }
    }

    fn maintain_connections(&self) {
        let first = self.shard.fetch_add(SHARDS_PER_ROUND, Ordering::Relaxed) % SHARDS;
        let shards = (first..first + SHARDS_PER_ROUND).map(|shard| shard % SHARDS);
        let doing = Doing::all("maintain");
        // Other processes may have changed the limits.
        let _ = block_on(self.engine.info(doing));
        if let Err(error) = block_on(self.engine.maintain(doing, shards)) {
            tracing::warn!(%error, "maintenance");
        }
    }
}

impl Open {
    fn handle(self: &Arc<Self>, key: &[u8], opened: Opened<File>) -> Handle {
        Handle::new(&self.engine, &self.prepared.directory, Arc::clone(self) as Arc<dyn Keeper>, key, opened)
    }
}

impl Shared {
    fn inner(&self) -> Result<Arc<Open>> {
        if self.process == std::process::id() {
            return Ok(Arc::clone(&self.inner));
        }
        if let Some(child) = self.child.get() {
            return child.inner();
        }
        // The parent has already adopted the files.
        let options = Options { adopt: false, ..self.options.clone() };
        let opened = FileCache::open_with(options, Arc::clone(&self.interrupt))?;
        // If two threads of the child open the cache, one result is dropped.
        self.child.get_or_init(|| opened.shared).inner()
    }
}

impl FileCache {
    /// Opens a cache; creates it if the directory is empty or missing.
    ///
    /// # Errors
    /// [`Code::BadConfig`](crate::Code::BadConfig) for invalid options and for a directory and an index that do not
    /// belong together; [`Code::Unavailable`](crate::Code::Unavailable) if the server cannot be reached.
    pub fn open(options: Options) -> Result<Self> {
        Self::open_with(options, Arc::default())
    }

    fn open_with(options: Options, interrupt: Arc<Interrupt>) -> Result<Self> {
        let inner = Inner::open(&options, &interrupt)?;
        let process = std::process::id();
        Ok(Self { shared: Arc::new(Shared { options, process, inner, child: OnceLock::new(), interrupt }) })
    }

    /// The options of the cache.
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// Warnings from opening the cache, for example about a server that may evict the index. `doctor` examines more.
    pub fn warnings(&self) -> Vec<String> {
        self.shared.inner.prepared.warnings()
    }

    /// Calls `asks` periodically (at least each quarter of a second) on the waiting thread while a call waits. If it
    /// returns `true`, the wait ends with [`Code::Timeout`](crate::Code::Timeout). For languages whose signal handlers cannot run
    /// during a call. Can be set once.
    pub fn set_interrupt(&self, asks: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.shared.interrupt.0.set(Box::new(asks));
    }

    /// Releases unused leases, and the session if no lease is in use, now instead of a little later. The cache stays
    /// usable.
    pub fn close(&self) {
        if let Ok(inner) = self.inner() {
            block_on(inner.engine.close());
        }
    }

    /// Lets the leases expire, as in a stopped process.
    #[cfg(test)]
    pub(crate) fn stop_renewing(&self) {
        self.shared.inner.ended.store(true, Ordering::Release);
        self.shared.inner.ending.notify(usize::MAX);
    }

    /// The open cache of this process; opens it again after a fork.
    fn inner(&self) -> Result<Arc<Open>> {
        self.shared.inner()
    }

    fn writable(&self, operation: &'static str, key: Option<&[u8]>) -> Result<Arc<Open>> {
        if let Some(key) = key {
            check_key(operation, key)?;
        }
        if self.shared.options.read_only {
            return Err(Error::new(operation, key, Cause::Denied("the cache was opened read-only".to_owned())));
        }
        self.inner()
    }

    fn readable(&self, operation: &'static str, key: &[u8]) -> Result<Arc<Open>> {
        check_key(operation, key)?;
        self.inner()
    }

    /// Reads the content of a key. If another call is making it, waits for at most `timeout`.
    ///
    /// # Errors
    /// [`Code::Missing`](crate::Code::Missing); [`Code::Busy`](crate::Code::Busy) (no timeout) or
    /// [`Code::Timeout`](crate::Code::Timeout) while it is being made; [`Code::Corrupt`](crate::Code::Corrupt).
    pub fn read(&self, key: impl AsRef<[u8]>, timeout: Duration) -> Result<Vec<u8>> {
        self.read_into(key, timeout, Vec::new())
    }

    /// Like [`read`](Self::read), into the memory of `buffer`, whose contents are replaced. Reusing a buffer avoids an
    /// allocation for each large content.
    ///
    /// # Errors
    /// Those of [`read`](Self::read); then the buffer is dropped, too.
    pub fn read_into(&self, key: impl AsRef<[u8]>, timeout: Duration, buffer: Vec<u8>) -> Result<Vec<u8>> {
        let key = key.as_ref();
        let inner = self.readable("read", key)?;
        block_on(inner.engine.read(Doing::to("read", key), timeout, buffer))
    }

    /// Opens the content of a key; its file stays at its path until the handle is dropped.
    ///
    /// # Errors
    /// Those of [`FileCache::read`]. The length is compared, the digest is not.
    pub fn open_read(&self, key: impl AsRef<[u8]>, timeout: Duration) -> Result<Handle> {
        let key = key.as_ref();
        let inner = self.readable("open_read", key)?;
        let opened = block_on(inner.engine.open(Doing::to("open_read", key), true, timeout))?;
        Ok(inner.handle(key, opened))
    }

    /// Whether a key has content.
    ///
    /// # Errors
    /// Those of the index.
    pub fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let inner = self.readable("exists", key)?;
        Ok(block_on(inner.engine.peek(Doing::to("exists", key)))?.is_some())
    }

    /// Size, times and metadata of a key's content. Does not count as use.
    ///
    /// # Errors
    /// Those of the index.
    pub fn stat(&self, key: impl AsRef<[u8]>) -> Result<Option<Stat>> {
        let key = key.as_ref();
        let inner = self.readable("stat", key)?;
        let seen = block_on(inner.engine.peek(Doing::to("stat", key)))?;
        Ok(seen.map(|(entry, used)| Stat::new(key, &entry, used)))
    }

    /// Makes the first content of a key.
    ///
    /// # Errors
    /// [`Code::Exists`](crate::Code::Exists) if there is content; [`Code::Busy`](crate::Code::Busy) or
    /// [`Code::Timeout`](crate::Code::Timeout) while another call writes it; [`Code::TooLarge`](crate::Code::TooLarge);
    /// [`Code::NoSpace`](crate::Code::NoSpace); [`Code::LeaseLost`](crate::Code::LeaseLost) if this process was stopped
    /// for longer than its lease. Except after [`Code::Unavailable`](crate::Code::Unavailable), nothing was published.
    pub fn write(&self, key: impl AsRef<[u8]>, content: &[u8], put: &Put) -> Result<Stat> {
        self.put("write", Mode::Create, key.as_ref(), content, put)
    }

    /// Makes new content for a key, whether it has content or not. Open handles continue to read the old content.
    ///
    /// # Errors
    /// Those of [`FileCache::write`], except `Exists`.
    pub fn replace(&self, key: impl AsRef<[u8]>, content: &[u8], put: &Put) -> Result<Stat> {
        self.put("replace", Mode::Replace, key.as_ref(), content, put)
    }

    fn put(&self, operation: &'static str, mode: Mode, key: &[u8], content: &[u8], put: &Put) -> Result<Stat> {
        let inner = self.writable(operation, Some(key))?;
        let entry = block_on(inner.engine.put(Doing::to(operation, key), mode, content.to_vec(), put))?;
        Ok(Stat::new(key, &entry, None))
    }

    /// Begins to make the first content of a key, piece by piece.
    ///
    /// # Errors
    /// Those of [`FileCache::write`].
    pub fn open_write(&self, key: impl AsRef<[u8]>, put: &Put) -> Result<Writer> {
        self.begin_writing("open_write", Mode::Create, key.as_ref(), put)
    }

    /// Begins to replace the content of a key, piece by piece.
    ///
    /// # Errors
    /// Those of [`FileCache::replace`].
    pub fn open_replace(&self, key: impl AsRef<[u8]>, put: &Put) -> Result<Writer> {
        self.begin_writing("open_replace", Mode::Replace, key.as_ref(), put)
    }

    fn begin_writing(&self, operation: &'static str, mode: Mode, key: &[u8], put: &Put) -> Result<Writer> {
        let inner = self.writable(operation, Some(key))?;
        match block_on(inner.engine.begin(Doing::to(operation, key), mode, false, put))? {
            engine::Begun::Draft(draft) => Ok(Writer::new(&inner, operation, *draft)),
            engine::Begun::Hit { .. } => unreachable!("hits were not requested"),
        }
    }

    /// Opens the content of a key, or makes the caller its writer. There is only one writer among all threads, processes
    /// and hosts; other callers wait for at most `put.timeout`.
    ///
    /// # Errors
    /// Those of [`FileCache::write`], except `Exists`.
    pub fn begin(&self, key: impl AsRef<[u8]>, put: &Put) -> Result<Begun> {
        self.begin_or_hit("begin", key.as_ref(), put)
    }

    fn begin_or_hit(&self, operation: &'static str, key: &[u8], put: &Put) -> Result<Begun> {
        if self.shared.options.read_only {
            // The entry exists.
            match self.open_read(key, put.timeout) {
                Err(error) if error.code() == crate::Code::Missing => {}
                opened => return opened.map(|handle| Begun::Hit(Box::new(handle), Outcome::Hit)),
            }
        }
        let inner = self.writable(operation, Some(key))?;
        Ok(match block_on(inner.engine.begin(Doing::to(operation, key), Mode::Create, true, put))? {
            engine::Begun::Draft(draft) => Begun::Create(Box::new(Writer::new(&inner, operation, *draft))),
            engine::Begun::Hit { opened, waited } => {
                let outcome = if waited { Outcome::Waited } else { Outcome::Hit };
                Begun::Hit(Box::new(inner.handle(key, opened)), outcome)
            }
        })
    }

    /// Opens the content of a key; `producer` makes it if there is none. One producer of a key runs at a time among all
    /// threads, processes and hosts; other callers wait for at most `put.timeout`. If it fails, the next waiting caller
    /// runs its own.
    ///
    /// # Errors
    /// [`Code::Producer`](crate::Code::Producer) with the producer's error; otherwise those of [`FileCache::begin`].
    pub fn get_or_create(
        &self,
        key: impl AsRef<[u8]>,
        put: &Put,
        producer: impl FnOnce(&mut Writer) -> Result<(), BoxError>,
    ) -> Result<(Handle, Outcome)> {
        let key = key.as_ref();
        match self.begin_or_hit("get_or_create", key, put)? {
            Begun::Hit(handle, outcome) => Ok((*handle, outcome)),
            Begun::Create(mut writer) => match producer(&mut writer) {
                Ok(()) => Ok((writer.commit_and_open()?, Outcome::Created)),
                Err(error) => {
                    writer.abort();
                    Err(Error::new("get_or_create", Some(key), Cause::Producer(error)))
                }
            },
        }
    }

    /// Deletes the content of a key; returns whether there was any. Open handles continue to read it.
    ///
    /// # Errors
    /// Those of the index.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let inner = self.writable("delete", Some(key))?;
        block_on(inner.engine.delete(Doing::to("delete", key)))
    }

    /// Marks a key as just used, and with a `ttl` restarts its time to live. Returns whether the key exists.
    ///
    /// # Errors
    /// Those of the index.
    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: Option<Duration>) -> Result<bool> {
        let key = key.as_ref();
        let inner = self.writable("touch", Some(key))?;
        let ttl = engine::check_ttl(Doing::to("touch", key), ttl)?;
        let op = Op::Touch { key: key.to_vec(), ttl };
        block_on(inner.engine.done_or_missing(Doing::to("touch", key), op))
    }

    /// Exempts a key from eviction, or ends that. Returns whether the key exists.
    ///
    /// # Errors
    /// Those of the index.
    pub fn pin(&self, key: impl AsRef<[u8]>, pinned: bool) -> Result<bool> {
        let key = key.as_ref();
        let inner = self.writable("pin", Some(key))?;
        let op = Op::Pin { key: key.to_vec(), pinned };
        block_on(inner.engine.done_or_missing(Doing::to("pin", key), op))
    }

    /// Returns a page of about `count` entries, in no order, and the cursor of the next page. Entries that exist all the
    /// time are listed at least once, perhaps twice.
    ///
    /// # Errors
    /// Those of the index.
    pub fn list(&self, cursor: Cursor, count: usize) -> Result<(Vec<Stat>, Option<Cursor>)> {
        let inner = self.inner()?;
        let page = block_on(inner.engine.edge.page(cursor.0, count.max(1)));
        let (page, next) = page.map_err(|outage| inner.engine.outage(Doing::all("list"), outage))?;
        let stats = page.iter().map(|(key, entry, used)| Stat::new(key, entry, *used)).collect();
        Ok((stats, next.map(|next| Cursor(Some(next)))))
    }

    /// Numbers of the whole cache.
    ///
    /// # Errors
    /// Those of the index.
    pub fn info(&self) -> Result<Info> {
        self.info_for("info", &*self.inner()?)
    }

    fn info_for(&self, operation: &'static str, inner: &Inner) -> Result<Info> {
        let info = block_on(inner.engine.info(Doing::all(operation)))?;
        let free_bytes = inner.prepared.directory.free_bytes().unwrap_or(0);
        Ok(crate::report_of(inner.engine.cache, &self.shared.options.namespace, &info, free_bytes))
    }

    /// Counters of this process.
    pub fn stats(&self) -> Stats {
        let Ok(inner) = self.inner() else { return Stats::default() };
        let mut stats = inner.engine.counters.read();
        if let Index::Server(server) = &inner.engine.edge.index {
            stats.round_trips = server.server.round_trips.load(Ordering::Relaxed);
        }
        stats
    }

    /// Resets the counters.
    pub fn reset_stats(&self) {
        let Ok(inner) = self.inner() else { return };
        inner.engine.counters.reset();
        if let Index::Server(server) = &inner.engine.edge.index {
            server.server.round_trips.store(0, Ordering::Relaxed);
        }
    }

    /// Current readers, writers and waiting writers.
    ///
    /// # Errors
    /// Those of the index.
    pub fn locks(&self) -> Result<Vec<Lock>> {
        let inner = self.inner()?;
        let leases = block_on(inner.engine.edge.leases());
        Ok(crate::locks_of(leases.map_err(|outage| inner.engine.outage(Doing::all("locks"), outage))?))
    }

    /// Revokes the write lease of a key and clears its queue; returns whether there was one.
    ///
    /// # Errors
    /// Those of the index.
    pub fn break_lock(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let inner = self.writable("break_lock", Some(key))?;
        block_on(inner.engine.done_or_missing(Doing::to("break_lock", key), Op::Break { key: key.to_vec() }))
    }

    /// Evicts entries.
    ///
    /// # Errors
    /// Those of the index.
    pub fn evict(&self, what: &Evict) -> Result<Evicted> {
        let inner = if what.dry_run { self.inner()? } else { self.writable("evict", None)? };
        block_on(async {
            // Leases that were just released no longer protect entries.
            inner.engine.do_chores().await;
            inner.engine.evict(Doing::all("evict"), what).await
        })
    }

    /// Removes all entries, including pinned ones; returns their number.
    ///
    /// # Errors
    /// Those of the index.
    pub fn clear(&self) -> Result<u64> {
        let inner = self.writable("clear", None)?;
        block_on(inner.engine.clear(Doing::all("clear")))
    }

    /// Changes the limits for all users of the cache.
    ///
    /// # Errors
    /// [`Code::BadConfig`](crate::Code::BadConfig) for invalid limits, and those of the index.
    pub fn configure(&self, limits: &Limits) -> Result<()> {
        limits.check("configure")?;
        let inner = self.writable("configure", None)?;
        let doing = Doing::all("configure");
        inner.prepared.remember(limits).map_err(|error| Error::io("configure", None, error))?;
        block_on(inner.engine.done_or_missing(doing, Op::Configure { bounds: Bounds::from(*limits) }))?;
        block_on(inner.engine.info(doing))?;
        Ok(())
    }

    /// Runs one round of maintenance: removes expired, idle and excess entries, leases of ended sessions and orphaned
    /// files. Also runs in the background, in pieces.
    ///
    /// # Errors
    /// Those of index and disk.
    pub fn maintain(&self) -> Result<Maintained> {
        let inner = self.writable("maintain", None)?;
        block_on(async {
            inner.engine.do_chores().await;
            inner.engine.info(Doing::all("maintain")).await?;
            inner.engine.maintain(Doing::all("maintain"), 0..SHARDS).await
        })
    }

    /// Compares index and directory without changing anything. `progress` gets the numbers of checked and of all entries,
    /// and returns whether to continue; otherwise the findings so far are returned.
    ///
    /// # Errors
    /// Those of index and disk; a problem of the cache is not an error but a [`crate::Problem`].
    pub fn verify(&self, depth: Depth, progress: &mut (dyn FnMut(u64, u64) -> bool + Send)) -> Result<Verification> {
        let inner = self.inner()?;
        block_on(inner.engine.verify(Doing::all("verify"), depth, false, progress))
    }

    /// Like [`FileCache::verify`], and repairs problems: entries without a valid file are removed (a damaged file goes to
    /// `quarantine/`), files without an entry are removed, sums are rebuilt. Safe during normal use, and repeatable.
    ///
    /// # Errors
    /// Those of [`FileCache::verify`].
    pub fn repair(&self, depth: Depth, progress: &mut (dyn FnMut(u64, u64) -> bool + Send)) -> Result<Verification> {
        let inner = self.writable("repair", None)?;
        block_on(inner.engine.verify(Doing::all("repair"), depth, true, progress))
    }

    /// Examines configuration of the server, permissions and limits. A part that cannot be examined is a finding.
    ///
    /// # Errors
    /// None today.
    pub fn doctor(&self) -> Result<Vec<Finding>> {
        let inner = match self.inner() {
            Ok(inner) => inner,
            Err(failure) => return Ok(Self::doctor_unopened(&self.shared.options, &failure)),
        };
        let server = match &inner.engine.edge.index {
            Index::Server(server) => Some(&**server),
            Index::File(..) => None,
        };
        let info = self.info_for("doctor", &inner);
        Ok(doctor::examine(&info, &inner.prepared.directory, server, &self.shared.options))
    }

    /// Like [`doctor`](Self::doctor), for a cache that cannot be opened, with the reason. Changes nothing.
    pub fn doctor_unopened(options: &Options, failure: &Error) -> Vec<Finding> {
        doctor::examine_unopened(options, failure)
    }
}

impl std::fmt::Debug for FileCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let options = &self.shared.options;
        formatter
            .debug_struct("FileCache")
            .field("directory", &options.directory)
            .field("namespace", &options.namespace)
            .field("server", &options.url.is_some())
            .finish_non_exhaustive()
    }
}

/// Cursor of a page of [`FileCache::list`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor(pub(crate) Option<Vec<u8>>);

/// The result of [`FileCache::begin`].
pub enum Begun {
    /// The content.
    Hit(Box<Handle>, Outcome),
    /// There is no content: the caller makes it.
    Create(Box<Writer>),
}

/// Content opened for reading. Its file stays at its path until the handle is dropped, even if the key is deleted or
/// replaced.
///
/// Files of a cache never change and never shrink, so they can be mapped into memory: with the crate `memmap2`,
/// `unsafe { Mmap::map(handle.file())? }` is sound as long as only the cache writes to its directory.
pub struct Handle {
    file: File,
    entry: Entry,
    key: Key,
    hold: Option<Hold>,
    directory: Arc<Directory>,
    /// The hash of the content read so far, if it was read from the beginning.
    hasher: Option<Box<blake3::Hasher>>,
    position: u64,
    keeper: Arc<dyn Keeper>,
}

impl Handle {
    pub(crate) fn new<E: Edge>(
        engine: &Engine<E>,
        directory: &Arc<Directory>,
        keeper: Arc<dyn Keeper>,
        key: &[u8],
        opened: Opened<File>,
    ) -> Self {
        let Opened { entry, file, hold } = opened;
        let hasher = engine.is_to_check().then(Box::default);
        let directory = Arc::clone(directory);
        Self { file, entry, key: key.to_vec(), hold, directory, hasher, position: 0, keeper }
    }

    /// Size, times and metadata of the content.
    pub fn stat(&self) -> Stat {
        Stat::new(&self.key, &self.entry, None)
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.entry.size
    }

    /// Its path. Do not write to it.
    pub fn path(&self) -> PathBuf {
        self.directory.path_of(&file_name(&self.key, &self.entry))
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether the lease has expired because this process was stopped for too long: the path may be gone, the open file
    /// not.
    pub fn lease_lost(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.is_lost(self.keeper.elapsed()))
    }

    /// Reads the rest of the content.
    ///
    /// # Errors
    /// [`Code::Corrupt`](crate::Code::Corrupt) if the complete content differs from what was written, and those of the file
    /// system.
    pub fn into_bytes(mut self) -> Result<Vec<u8>> {
        let failed = |error| Error::io("read", Some(&self.key), error);
        let left = self.entry.size.saturating_sub(self.position);
        let mut content = vec![0; usize::try_from(left).map_err(|error| failed(io::Error::other(error)))?];
        match self.file.read_exact_at(&mut content, self.position) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.keeper.quarantine(&self.key, &self.entry, "shorter than was written"));
            }
            result => result.map_err(failed)?,
        }
        self.compare(&content)?;
        Ok(content)
    }

    /// Updates the hash; compares it after the last byte.
    fn compare(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64;
        let Some(hasher) = &mut self.hasher else { return Ok(()) };
        hasher.update(bytes);
        if self.position < self.entry.size {
            return Ok(());
        }
        let same = self.position == self.entry.size && hasher.finalize().as_bytes()[..16] == self.entry.digest;
        self.hasher = None;
        if same {
            Ok(())
        } else {
            Err(self.keeper.quarantine(&self.key, &self.entry, "other content than was written"))
        }
    }
}

/// Content that is read from beginning to end in one go is compared with its digest: the read that reaches the end of
/// damaged content fails.
impl Read for Handle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Not at the descriptor's own position: a fork would share it.
        let count = self.file.read_at(buffer, self.position)?;
        let ended_early = count == 0 && !buffer.is_empty() && self.position < self.entry.size;
        if ended_early {
            self.hasher = None;
            let error = self.keeper.quarantine(&self.key, &self.entry, "shorter than was written");
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        self.compare(&buffer[..count]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(count)
    }
}

impl Seek for Handle {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let there = match position {
            SeekFrom::Start(there) => Some(there),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.entry.size.checked_add_signed(by),
        };
        let there = there.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the beginning"))?;
        if there != self.position {
            (self.hasher, self.position) = (None, there);
        }
        Ok(there)
    }
}

/// Why a child cannot continue what its parent began.
const FORKED: &str = "it belongs to the process before the fork";

/// Content opened for writing. [`Writer::commit`] publishes it; dropping it aborts.
pub struct Writer {
    draft: Option<Draft<Directory>>,
    buffer: Vec<u8>,
    /// Whether the path was requested: the file is then read again before it is published.
    given_away: bool,
    operation: &'static str,
    inner: Arc<Open>,
}

/// Size of the buffer.
pub(crate) const BUFFER: usize = 64 * 1024;

impl Writer {
    fn new(inner: &Arc<Open>, operation: &'static str, draft: Draft<Directory>) -> Self {
        Self { draft: Some(draft), buffer: Vec::new(), given_away: false, operation, inner: Arc::clone(inner) }
    }

    fn draft(&self) -> &Draft<Directory> {
        self.draft.as_ref().expect("only committing and aborting end it, and they take the writer")
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.draft().key
    }

    /// Whether the lease has expired: committing will fail.
    pub fn lease_lost(&self) -> bool {
        self.draft().hold.is_lost(self.inner.engine.edge.elapsed())
    }

    /// The temporary file, for programs that write to a file themselves, or replace it by their own file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn path(&mut self) -> Result<PathBuf> {
        self.check_process()?;
        self.flush_buffer()?;
        let key = self.key().to_vec();
        let doing = Doing::to(self.operation, &key);
        let draft = self.draft.as_mut().expect("see above");
        block_on(self.inner.engine.create_file(doing, draft))?;
        self.given_away = true;
        Ok(self.inner.prepared.directory.path_of_temporary(&draft.temporary))
    }

    /// After a fork it belongs to the parent.
    fn check_process(&self) -> Result<()> {
        if self.inner.process == std::process::id() {
            return Ok(());
        }
        Err(Error::new(self.operation, Some(self.key()), Cause::LeaseLost(FORKED)))
    }

    fn flush_buffer(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.check_process()?;
        let bytes = std::mem::take(&mut self.buffer);
        let key = self.key().to_vec();
        let draft = self.draft.as_mut().expect("see above");
        block_on(self.inner.engine.append(Doing::to(self.operation, &key), draft, bytes))
    }

    /// Publishes the content.
    ///
    /// # Errors
    /// Those of [`FileCache::write`].
    pub fn commit(self) -> Result<Stat> {
        let (key, made) = self.finish(false)?;
        Ok(Stat::new(&key, &made.entry, None))
    }

    /// Publishes the content and opens it.
    ///
    /// # Errors
    /// Those of [`FileCache::write`].
    pub fn commit_and_open(self) -> Result<Handle> {
        let inner = Arc::clone(&self.inner);
        let (key, Made { entry, file, hold }) = self.finish(true)?;
        let file = file.expect("it was asked for");
        Ok(inner.handle(&key, Opened { entry, file, hold }))
    }

    fn finish(mut self, keep: bool) -> Result<(Key, Made<Directory>)> {
        let mut draft = self.draft.take().expect("see above");
        let key = draft.key.clone();
        let doing = Doing::to(self.operation, &key);
        if self.inner.process != std::process::id() {
            std::mem::forget(draft);
            return Err(doing.failed(Cause::LeaseLost(FORKED)));
        }
        if self.given_away
            && let Err(error) = read_again(&self.inner.prepared.directory, &mut draft)
        {
            block_on(self.inner.engine.abort(draft));
            return Err(Error::io(self.operation, Some(&key), error));
        }
        let rest = std::mem::take(&mut self.buffer);
        let made = block_on(self.inner.engine.commit(doing, draft, rest, keep))?;
        Ok((key, made))
    }

    /// Aborts.
    pub fn abort(self) {}
}

/// Measures a file that other programs may have written to or replaced.
pub(crate) fn read_again(directory: &Directory, draft: &mut Draft<Directory>) -> io::Result<()> {
    let (file, mut whole) = directory.reopen(&draft.temporary)?;
    draft.hasher = blake3::Hasher::new();
    draft.size = io::copy(&mut whole, &mut draft.hasher)?;
    draft.file = Some(file);
    Ok(())
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER {
            self.flush_buffer().map_err(io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_buffer().map_err(io::Error::other)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(draft) = self.draft.take() {
            if self.inner.process == std::process::id() {
                block_on(self.inner.engine.abort(draft));
            } else {
                // Its file, its lease and possibly locks belong to the parent.
                std::mem::forget(draft);
            }
        }
    }
}
