//! The asynchronous API: like [`crate::FileCache`], on tokio.
//!
//! A future that is dropped before it completes releases what it held: leases, places in queues, temporary files.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use event_listener::EventListener;
use redgrease_cache_rules::memory::Memory;
use redgrease_cache_rules::name::SHARDS;
use redgrease_cache_rules::protocol::{Answer, Bounds, Mode, Op, Request};
use redgrease_cache_rules::{Entry, Key};

use crate::cache::{BUFFER, CHORE_DELAY, CHORE_RETRY, Cursor, Handle, Keeper, SHARDS_PER_ROUND, read_again};
use crate::disk::Directory;
use crate::doctor;
use crate::edge::{Disk, Edge, Leases, Outage, Page};
use crate::engine::{self, Doing, Draft, Engine, Made, Opened, check_key};
use crate::error::{BoxError, Cause, Error, Result};
use crate::opening::{self, Prepared};
use crate::options::{Limits, Options, Put};
use crate::report::{Depth, Evict, Evicted, Finding, Info, Lock, Maintained, Outcome, Stat, Stats, Verification};
use crate::store::journal::Journal;
use crate::store::redis::{Asynchronous, Blocking, Server};
use crate::wake::Wake;

/// A cache of files, for asynchronous code. See [`crate::FileCache`]; it has to be opened and used on a tokio runtime.
#[derive(Clone)]
pub struct FileCache {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine<World>>,
    runtime: tokio::runtime::Handle,
    prepared: Prepared,
    options: Options,
    shard: AtomicU16,
}

/// The environment of the asynchronous API.
struct World {
    directory: Arc<Directory>,
    index: Index,
    began: Instant,
    wake: Option<Wake>,
}

enum Index {
    Server(Box<Asynchronous>),
    File(Ordered, u64),
}

/// Maximum number of requests that wait for the journal.
const MAX_QUEUE: usize = 16 * 1024;

/// A journal whose requests are executed in the order in which they were made, including those whose future was dropped:
/// the release of a lease does not overtake its request.
struct Ordered {
    journal: Arc<Journal>,
    requests: std::sync::mpsc::SyncSender<(Request, tokio::sync::oneshot::Sender<Result<Answer, Outage>>)>,
}

impl Ordered {
    fn new(journal: Journal) -> std::io::Result<Self> {
        let journal = Arc::new(journal);
        let (requests, queue) = std::sync::mpsc::sync_channel::<(Request, tokio::sync::oneshot::Sender<_>)>(MAX_QUEUE);
        let worker = Arc::clone(&journal);
        std::thread::Builder::new().name("filecache-journal".to_owned()).spawn(move || {
            for (request, answer) in queue {
                // The requester may have been cancelled.
                let _ = answer.send(worker.ask(&request));
            }
        })?;
        Ok(Self { journal, requests })
    }

    async fn ask(&self, request: Request) -> Result<Answer, Outage> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let ended = || Outage::Unavailable("the journal's thread has ended".to_owned());
        self.requests.try_send((request, answer)).map_err(|refused| match refused {
            std::sync::mpsc::TrySendError::Full(_) => {
                Outage::Unavailable(format!("{MAX_QUEUE} requests already wait for the journal"))
            }
            std::sync::mpsc::TrySendError::Disconnected(_) => ended(),
        })?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// Runs a blocking operation where it does not block other tasks.
async fn aside<R: Send + 'static>(job: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(job).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down: this task will not be polled again either.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Edge for World {
    type Disk = Directory;

    async fn ask(&self, request: Request) -> Result<Answer, Outage> {
        match &self.index {
            Index::Server(server) => server.ask(&request).await,
            Index::File(journal, _) => journal.ask(request).await,
        }
    }

    async fn page(&self, cursor: Option<Vec<u8>>, count: usize) -> Result<Page, Outage> {
        match &self.index {
            Index::Server(server) => server.page(cursor, count).await,
            Index::File(journal, _) => {
                let journal = Arc::clone(&journal.journal);
                aside(move || journal.page(cursor, count)).await
            }
        }
    }

    async fn leases(&self) -> Result<Leases, Outage> {
        match &self.index {
            Index::Server(server) => server.leases().await,
            Index::File(journal, _) => {
                let journal = Arc::clone(&journal.journal);
                aside(move || journal.leases()).await
            }
        }
    }

    async fn memory(&self) -> Option<Memory> {
        match &self.index {
            Index::Server(server) => server.memory().await,
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
        let directory = Arc::clone(&self.directory);
        aside(move || job(&directory)).await
    }

    async fn pause(&self, event: EventListener, longest: Duration) {
        let _ = tokio::time::timeout(longest, event).await;
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn random(&self) -> u64 {
        getrandom::u64().unwrap_or_else(|_| fastrand::u64(..))
    }

    fn listen(&self) {
        self.wake.iter().for_each(Wake::listen);
    }
}

impl FileCache {
    /// Opens a cache; creates it if the directory is empty or missing.
    ///
    /// # Errors
    /// Like [`crate::FileCache::open`].
    pub async fn open(options: Options) -> Result<Self> {
        let given = options.clone();
        let prepared = aside(move || opening::prepare(&given)).await?;
        let directory = Arc::clone(&prepared.directory);
        let (index, wake) = match &options.url {
            Some(url) => {
                let server = Asynchronous::new(Server::new(url, &options)?);
                let _ = server.ping().await;
                (Index::Server(Box::new(server)), Some(Wake::new(&options)))
            }
            None => {
                let journal = Journal::open(Arc::clone(&directory), options.command_timeout).and_then(Ordered::new);
                let journal = journal.map_err(|error| Error::io("open", None, error))?;
                (Index::File(journal, Journal::instance()), None)
            }
        };
        let world = World { directory, index, began: Instant::now(), wake };
        let engine = Engine::new(world, prepared.rules.clone(), prepared.cache);
        engine.edge.wake.iter().for_each(|wake| wake.deliver_to(&engine.flights));
        let (engine, runtime) = (Arc::new(engine), tokio::runtime::Handle::current());
        let inner =
            Arc::new(Inner { engine, runtime, prepared, options, shard: AtomicU16::new(fastrand::u16(..SHARDS)) });
        if !inner.options.read_only {
            Inner::keep(&inner);
        }
        inner.prepared.arrive(&inner.engine, &inner.options).await?;
        if !inner.options.read_only {
            inner.prepared.adopt_files(&inner.engine, &inner.options).await?;
        }
        Ok(Self { inner })
    }

    /// The options of the cache.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Like [`crate::FileCache::warnings`].
    pub fn warnings(&self) -> Vec<String> {
        self.inner.prepared.warnings()
    }

    fn writable(&self, operation: &'static str, key: Option<&[u8]>) -> Result<&Engine<World>> {
        if let Some(key) = key {
            check_key(operation, key)?;
        }
        if self.inner.options.read_only {
            return Err(Error::new(operation, key, Cause::Denied("the cache was opened read-only".to_owned())));
        }
        Ok(&self.inner.engine)
    }

    /// Like [`crate::FileCache::read`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn read(&self, key: impl AsRef<[u8]>, timeout: Duration) -> Result<Vec<u8>> {
        let key = key.as_ref();
        check_key("read", key)?;
        self.inner.engine.read(Doing::to("read", key), timeout, Vec::new()).await
    }

    /// Like [`crate::FileCache::open_read`]. Reading from the handle blocks as long as the disk takes.
    ///
    /// # Errors
    /// Those of that method.
    pub async fn open_read(&self, key: impl AsRef<[u8]>, timeout: Duration) -> Result<Handle> {
        let key = key.as_ref();
        check_key("open_read", key)?;
        let opened = self.inner.engine.open(Doing::to("open_read", key), true, timeout).await?;
        Ok(self.inner.handle(key, opened))
    }

    /// Like [`crate::FileCache::exists`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        check_key("exists", key)?;
        Ok(self.inner.engine.peek(Doing::to("exists", key)).await?.is_some())
    }

    /// Like [`crate::FileCache::stat`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn stat(&self, key: impl AsRef<[u8]>) -> Result<Option<Stat>> {
        let key = key.as_ref();
        check_key("stat", key)?;
        let seen = self.inner.engine.peek(Doing::to("stat", key)).await?;
        Ok(seen.map(|(entry, used)| Stat::new(key, &entry, used)))
    }

    /// Like [`crate::FileCache::write`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn write(&self, key: impl AsRef<[u8]>, content: Vec<u8>, put: &Put) -> Result<Stat> {
        self.put("write", Mode::Create, key.as_ref(), content, put).await
    }

    /// Like [`crate::FileCache::replace`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn replace(&self, key: impl AsRef<[u8]>, content: Vec<u8>, put: &Put) -> Result<Stat> {
        self.put("replace", Mode::Replace, key.as_ref(), content, put).await
    }

    async fn put(&self, operation: &'static str, mode: Mode, key: &[u8], content: Vec<u8>, put: &Put) -> Result<Stat> {
        let engine = self.writable(operation, Some(key))?;
        let entry = engine.put(Doing::to(operation, key), mode, content, put).await?;
        Ok(Stat::new(key, &entry, None))
    }

    /// Like [`crate::FileCache::open_write`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn open_write(&self, key: impl AsRef<[u8]>, put: &Put) -> Result<Writer> {
        self.begin_writing("open_write", Mode::Create, key.as_ref(), put).await
    }

    /// Like [`crate::FileCache::open_replace`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn open_replace(&self, key: impl AsRef<[u8]>, put: &Put) -> Result<Writer> {
        self.begin_writing("open_replace", Mode::Replace, key.as_ref(), put).await
    }

    async fn begin_writing(&self, operation: &'static str, mode: Mode, key: &[u8], put: &Put) -> Result<Writer> {
        match self.writable(operation, Some(key))?.begin(Doing::to(operation, key), mode, false, put).await? {
            engine::Begun::Draft(draft) => Ok(Writer::new(&self.inner, operation, *draft)),
            engine::Begun::Hit { .. } => unreachable!("hits were not requested"),
        }
    }

    /// Like [`crate::FileCache::begin`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn begin(&self, key: impl AsRef<[u8]>, put: &Put) -> Result<Begun> {
        self.begin_or_hit("begin", key.as_ref(), put).await
    }

    async fn begin_or_hit(&self, operation: &'static str, key: &[u8], put: &Put) -> Result<Begun> {
        if self.inner.options.read_only {
            // The entry exists.
            match self.open_read(key, put.timeout).await {
                Err(error) if error.code() == crate::Code::Missing => {}
                opened => return opened.map(|handle| Begun::Hit(Box::new(handle), Outcome::Hit)),
            }
        }
        let engine = self.writable(operation, Some(key))?;
        Ok(match engine.begin(Doing::to(operation, key), Mode::Create, true, put).await? {
            engine::Begun::Draft(draft) => Begun::Create(Box::new(Writer::new(&self.inner, operation, *draft))),
            engine::Begun::Hit { opened, waited } => {
                let outcome = if waited { Outcome::Waited } else { Outcome::Hit };
                Begun::Hit(Box::new(self.inner.handle(key, opened)), outcome)
            }
        })
    }

    /// Like [`crate::FileCache::get_or_create`]; the producer takes the writer and gives it back when it is done.
    ///
    /// # Errors
    /// Those of that method.
    pub async fn get_or_create<F, P>(&self, key: impl AsRef<[u8]>, put: &Put, producer: P) -> Result<(Handle, Outcome)>
    where
        P: FnOnce(Writer) -> F,
        F: Future<Output = Result<Writer, BoxError>>,
    {
        let key = key.as_ref();
        match self.begin_or_hit("get_or_create", key, put).await? {
            Begun::Hit(handle, outcome) => Ok((*handle, outcome)),
            Begun::Create(writer) => match producer(*writer).await {
                Ok(writer) => Ok((writer.commit_and_open().await?, Outcome::Created)),
                Err(error) => Err(Error::new("get_or_create", Some(key), Cause::Producer(error))),
            },
        }
    }

    /// Like [`crate::FileCache::delete`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        self.writable("delete", Some(key))?.delete(Doing::to("delete", key)).await
    }

    /// Like [`crate::FileCache::touch`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn touch(&self, key: impl AsRef<[u8]>, ttl: Option<Duration>) -> Result<bool> {
        let key = key.as_ref();
        let ttl = engine::check_ttl(Doing::to("touch", key), ttl)?;
        let op = Op::Touch { key: key.to_vec(), ttl };
        self.writable("touch", Some(key))?.done_or_missing(Doing::to("touch", key), op).await
    }

    /// Like [`crate::FileCache::pin`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn pin(&self, key: impl AsRef<[u8]>, pinned: bool) -> Result<bool> {
        let key = key.as_ref();
        let op = Op::Pin { key: key.to_vec(), pinned };
        self.writable("pin", Some(key))?.done_or_missing(Doing::to("pin", key), op).await
    }

    /// Like [`crate::FileCache::list`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn list(&self, cursor: Cursor, count: usize) -> Result<(Vec<Stat>, Option<Cursor>)> {
        let engine = &self.inner.engine;
        let page = engine.edge.page(cursor.0, count.max(1)).await;
        let (page, next) = page.map_err(|outage| engine.outage(Doing::all("list"), outage))?;
        let stats = page.iter().map(|(key, entry, used)| Stat::new(key, entry, *used)).collect();
        Ok((stats, next.map(|next| Cursor(Some(next)))))
    }

    /// Like [`crate::FileCache::info`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn info(&self) -> Result<Info> {
        self.info_for("info").await
    }

    async fn info_for(&self, operation: &'static str) -> Result<Info> {
        let info = self.inner.engine.info(Doing::all(operation)).await?;
        let free_bytes = self.inner.engine.edge.on_disk(|disk| disk.free_bytes()).await.unwrap_or(0);
        Ok(crate::report_of(self.inner.engine.cache, &self.inner.options.namespace, &info, free_bytes))
    }

    /// Like [`crate::FileCache::stats`].
    pub fn stats(&self) -> Stats {
        let mut stats = self.inner.engine.counters.read();
        if let Index::Server(server) = &self.inner.engine.edge.index {
            stats.round_trips = server.server.round_trips.load(Ordering::Relaxed);
        }
        stats
    }

    /// Resets the counters.
    pub fn reset_stats(&self) {
        self.inner.engine.counters.reset();
        if let Index::Server(server) = &self.inner.engine.edge.index {
            server.server.round_trips.store(0, Ordering::Relaxed);
        }
    }

    /// Like [`crate::FileCache::locks`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn locks(&self) -> Result<Vec<Lock>> {
        let engine = &self.inner.engine;
        let leases = engine.edge.leases().await;
        Ok(crate::locks_of(leases.map_err(|outage| engine.outage(Doing::all("locks"), outage))?))
    }

    /// Revokes the write lease of a key and clears its queue; returns whether there was one.
    ///
    /// # Errors
    /// Those of the index.
    pub async fn break_lock(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let op = Op::Break { key: key.to_vec() };
        self.writable("break_lock", Some(key))?.done_or_missing(Doing::to("break_lock", key), op).await
    }

    /// Like [`crate::FileCache::evict`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn evict(&self, what: &Evict) -> Result<Evicted> {
        let engine = if what.dry_run { &self.inner.engine } else { self.writable("evict", None)? };
        // Leases that were just released no longer protect entries.
        engine.do_chores().await;
        engine.evict(Doing::all("evict"), what).await
    }

    /// Like [`crate::FileCache::clear`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn clear(&self) -> Result<u64> {
        self.writable("clear", None)?.clear(Doing::all("clear")).await
    }

    /// Changes the limits for all users of the cache.
    ///
    /// # Errors
    /// [`Code::BadConfig`](crate::Code::BadConfig) for invalid limits, and those of the index.
    pub async fn configure(&self, limits: &Limits) -> Result<()> {
        limits.check("configure")?;
        let engine = self.writable("configure", None)?;
        let doing = Doing::all("configure");
        let (inner, remembered) = (Arc::clone(&self.inner), *limits);
        let result = aside(move || inner.prepared.remember(&remembered)).await;
        result.map_err(|error| Error::io("configure", None, error))?;
        engine.done_or_missing(doing, Op::Configure { bounds: Bounds::from(*limits) }).await?;
        engine.info(doing).await?;
        Ok(())
    }

    /// Like [`crate::FileCache::maintain`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn maintain(&self) -> Result<Maintained> {
        let engine = self.writable("maintain", None)?;
        engine.do_chores().await;
        engine.info(Doing::all("maintain")).await?;
        engine.maintain(Doing::all("maintain"), 0..SHARDS).await
    }

    /// Compares index and directory without changing anything. `progress` gets the numbers of checked and of all entries,
    /// and returns whether to continue; otherwise the findings so far are returned. It is called between two entries, on
    /// the thread of the task, and should not block.
    ///
    /// # Errors
    /// Those of index and disk; a problem of the cache is not an error but a [`crate::Problem`].
    pub async fn verify(
        &self,
        depth: Depth,
        progress: &mut (dyn FnMut(u64, u64) -> bool + Send),
    ) -> Result<Verification> {
        self.inner.engine.verify(Doing::all("verify"), depth, false, progress).await
    }

    /// Like [`FileCache::verify`], and repairs problems: entries without a valid file are removed (a damaged file goes to
    /// `quarantine/`), files without an entry are removed, sums are rebuilt. Safe during normal use, and repeatable.
    ///
    /// # Errors
    /// As [`FileCache::verify`].
    pub async fn repair(
        &self,
        depth: Depth,
        progress: &mut (dyn FnMut(u64, u64) -> bool + Send),
    ) -> Result<Verification> {
        self.writable("repair", None)?.verify(Doing::all("repair"), depth, true, progress).await
    }

    /// Like [`crate::FileCache::doctor`].
    ///
    /// # Errors
    /// Those of that method.
    pub async fn doctor(&self) -> Result<Vec<Finding>> {
        let info = self.info_for("doctor").await;
        let (directory, options) = (Arc::clone(&self.inner.prepared.directory), self.inner.options.clone());
        aside(move || {
            // It reads the settings over its own connection.
            let server = options.url.as_ref().map(|url| Server::new(url, &options)).transpose()?.map(Blocking::new);
            Ok(doctor::examine(&info, &directory, server.as_ref(), &options))
        })
        .await
    }

    /// For the end of a process: waits up to `patience` for cancelled tasks to release their leases, and ends the session.
    /// Remaining handles and writers have lost their leases then.
    pub async fn end(&self, patience: Duration) {
        self.inner.engine.end(patience).await;
    }

    /// Like [`crate::FileCache::close`]. Without it the same happens a little later, if the runtime still exists then.
    pub async fn close(&self) {
        self.inner.engine.close().await;
    }
}

impl Inner {
    fn handle(self: &Arc<Self>, key: &[u8], opened: Opened<File>) -> Handle {
        Handle::new(
            &self.engine,
            &self.prepared.directory,
            Arc::new(Caretaker(Arc::clone(self))) as Arc<dyn Keeper>,
            key,
            opened,
        )
    }

    /// Starts two tasks: one renews the session, and waits only for the index; the other performs deferred work and
    /// maintenance.
    fn keep(inner: &Arc<Self>) {
        let (weak, renewal) = (Arc::downgrade(inner), inner.options.lease / 4);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(renewal).await;
                let Some(inner) = weak.upgrade() else { return };
                inner.engine.renew().await;
            }
        });
        let weak = Arc::downgrade(inner);
        let chores = Arc::clone(&inner.engine.chores);
        let every = inner.options.maintenance.map(|every| every.mul_f64(0.75 + fastrand::f64() / 2.0));
        tokio::spawn(async move {
            let (mut maintained, mut idle) = (Instant::now(), Instant::now());
            loop {
                let added = chores.added.listen();
                if !chores.are_waiting() {
                    let due = every.map_or(renewal, |every| every.saturating_sub(maintained.elapsed()));
                    let _ = tokio::time::timeout(renewal.min(due).max(Duration::from_millis(1)), added).await;
                }
                let Some(inner) = weak.upgrade() else { return };
                if chores.are_waiting() {
                    tokio::time::sleep(CHORE_DELAY).await;
                    inner.engine.do_chores().await;
                    if chores.are_waiting() {
                        tokio::time::sleep(CHORE_RETRY).await;
                    }
                }
                if idle.elapsed() >= renewal {
                    idle = Instant::now();
                    inner.engine.tidy_up().await;
                }
                if every.is_some_and(|every| maintained.elapsed() >= every) {
                    maintained = Instant::now();
                    let first = inner.shard.fetch_add(SHARDS_PER_ROUND, Ordering::Relaxed) % SHARDS;
                    let shards = (first..first + SHARDS_PER_ROUND).map(|shard| shard % SHARDS);
                    let doing = Doing::all("maintain");
                    let _ = inner.engine.info(doing).await;
                    if let Err(error) = inner.engine.maintain(doing, shards).await {
                        tracing::warn!(%error, "maintenance");
                    }
                }
            }
        });
    }
}

/// Keeps the cache alive for a handle.
struct Caretaker(Arc<Inner>);

impl Keeper for Caretaker {
    fn elapsed(&self) -> Duration {
        self.0.engine.edge.elapsed()
    }

    fn quarantine(&self, key: &[u8], entry: &Entry, what: &str) -> Error {
        let left = if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (inner, key, entry, what) = (Arc::clone(&self.0), key.to_vec(), entry.clone(), what.to_owned());
            runtime.spawn(async move { inner.engine.quarantine(Doing::to("read", &key), &entry, what).await });
            "it is being moved to quarantine"
        } else {
            "it was not moved: `repair` removes it"
        };
        Error::new("read", Some(key), Cause::Corrupt { what: what.to_owned(), left: left.to_owned() })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.engine.chores.added.notify(usize::MAX);
        if !self.options.read_only {
            let engine = Arc::clone(&self.engine);
            self.runtime.spawn(async move { engine.close().await });
        }
    }
}

impl std::fmt::Debug for FileCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("aio::FileCache")
            .field("directory", &self.inner.options.directory)
            .field("namespace", &self.inner.options.namespace)
            .finish_non_exhaustive()
    }
}

/// The result of [`FileCache::begin`].
pub enum Begun {
    /// The content.
    Hit(Box<Handle>, Outcome),
    /// There is no content: the caller makes it.
    Create(Box<Writer>),
}

/// Content opened for writing. [`Writer::commit`] publishes it; dropping aborts.
pub struct Writer {
    draft: Draft<Directory>,
    buffer: Vec<u8>,
    /// Whether the path was requested: the file is then read again before it is published.
    given_away: bool,
    operation: &'static str,
    inner: Arc<Inner>,
}

impl Writer {
    fn new(inner: &Arc<Inner>, operation: &'static str, draft: Draft<Directory>) -> Self {
        Self { draft, buffer: Vec::new(), given_away: false, operation, inner: Arc::clone(inner) }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.draft.key
    }

    /// Whether the lease has expired: committing will fail.
    pub fn lease_lost(&self) -> bool {
        self.draft.hold.is_lost(self.inner.engine.edge.elapsed())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// Like [`crate::FileCache::write`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER { self.flush().await } else { Ok(()) }
    }

    /// Writes buffered content to the temporary file.
    ///
    /// # Errors
    /// Like [`crate::FileCache::write`].
    pub async fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.buffer);
        let key = self.draft.key.clone();
        self.inner.engine.append(Doing::to(self.operation, &key), &mut self.draft, bytes).await
    }

    /// The temporary file, for programs that write to a file themselves, or replace it by their own file.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn path(&mut self) -> Result<PathBuf> {
        self.flush().await?;
        let key = self.draft.key.clone();
        self.inner.engine.create_file(Doing::to(self.operation, &key), &mut self.draft).await?;
        self.given_away = true;
        Ok(self.inner.prepared.directory.path_of_temporary(&self.draft.temporary))
    }

    /// Publishes the content.
    ///
    /// # Errors
    /// Like [`crate::FileCache::write`].
    pub async fn commit(self) -> Result<Stat> {
        let (key, made, _) = self.finish(false).await?;
        Ok(Stat::new(&key, &made.entry, None))
    }

    /// Publishes the content and opens it.
    ///
    /// # Errors
    /// Like [`crate::FileCache::write`].
    pub async fn commit_and_open(self) -> Result<Handle> {
        let (key, Made { entry, file, hold }, inner) = self.finish(true).await?;
        let file = file.expect("it was asked for");
        Ok(inner.handle(&key, Opened { entry, file, hold }))
    }

    async fn finish(self, keep: bool) -> Result<(Key, Made<Directory>, Arc<Inner>)> {
        let Self { mut draft, buffer, given_away, operation, inner } = self;
        let key = draft.key.clone();
        if given_away {
            let directory = Arc::clone(&inner.prepared.directory);
            let result;
            (draft, result) = aside(move || {
                let result = read_again(&directory, &mut draft);
                (draft, result)
            })
            .await;
            if let Err(error) = result {
                inner.engine.abort(draft).await;
                return Err(Error::io(operation, Some(&key), error));
            }
        }
        let made = inner.engine.commit(Doing::to(operation, &key), draft, buffer, keep).await?;
        Ok((key, made, inner))
    }

    /// Aborts.
    pub async fn abort(self) {
        let Self { draft, inner, .. } = self;
        inner.engine.abort(draft).await;
    }
}
