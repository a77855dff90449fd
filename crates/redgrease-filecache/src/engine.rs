//! The flows: what a read, a write, a sweep are made of, step by step, in any world (see [`edge`](crate::edge)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redgrease_core::cache::name::{self, file_name};
use redgrease_core::cache::protocol::{Answer, Bounds, Choice, Doomed, Info, Mode, Op, Reason, Reply, Request, Token};
use redgrease_core::cache::{Entry, Key, MAX_KEY_BYTES};

use crate::edge::{self, Disk, Draft as _, Edge, Outage};
use crate::error::{Cause, Error, Result};
use crate::flights::{Flight, Flights};
use crate::options::{Check, MAX_METADATA_BYTES, Metadata, OnOutage, Put, micros};
use crate::report::Stats;
use crate::session::Sessions;

/// What the flows are told once.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub lease: Duration,
    pub check: Check,
    pub on_outage: OnOutage,
    pub owner: String,
    pub namespace: String,
    /// Bounds for an index that has to be made.
    pub bounds: Bounds,
    /// Leave no trace, not even that something was used.
    pub read_only: bool,
}

/// How long the making of an index is waited for.
const REBUILD_PATIENCE: Duration = Duration::from_secs(300);

/// Longest pause between two looks at what somebody else is doing.
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// Most rounds of making room for one entry.
const MAX_ROOM_ROUNDS: u32 = 64;

/// Entries of one request to restore, and files of one request to judge.
pub(crate) const BATCH: usize = 256;

/// A cache in some world.
pub(crate) struct Engine<E: Edge> {
    pub edge: E,
    pub rules: Rules,
    pub cache: u64,
    pub sessions: Arc<Sessions>,
    pub flights: Arc<Flights>,
    pub counters: Counters,
    pub chores: Arc<Chores>,
    /// The bounds as this process last saw them; only hints.
    pub known_largest: AtomicU64,
    pub known_min_free: AtomicU64,
}

/// What can be done a little later, together; whoever does it is woken.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    list: std::sync::Mutex<List>,
    pub added: event_listener::Event,
}

#[derive(Debug, Default)]
pub(crate) struct List {
    pub releases: Vec<(Key, Token)>,
    /// Temporary files that nobody will finish.
    pub temporaries: Vec<String>,
    /// Fences of files that are known to be gone.
    pub unlinked: Vec<u64>,
    /// Contents whose commit was not answered, and until when to try again.
    pub commits: Vec<(Duration, Op)>,
}

impl Chores {
    pub fn list(&self) -> std::sync::MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn are_waiting(&self) -> bool {
        let list = self.list();
        !list.releases.is_empty() || !list.temporaries.is_empty() || !list.commits.is_empty()
    }
}

/// A lease that is held or wished for. Dropping it gives it back, however that comes about: an error, a panic, a cancelled
/// task.
#[derive(Debug)]
pub(crate) struct Hold {
    sessions: Arc<Sessions>,
    chores: Arc<Chores>,
    process: u32,
    key: Key,
    pub token: Token,
    /// Whether the index may know it.
    known: bool,
    temporary: Option<String>,
}

impl Hold {
    /// Whether it ran out.
    pub fn is_lost(&self) -> bool {
        self.sessions.is_lost(self.token)
    }

    /// Begins anew in the present session.
    fn exchange(&mut self) {
        self.sessions.give_back(self.token);
        self.token = self.sessions.token();
        self.known = false;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // After a fork the leases are still the parent's; and its other threads may have left locks locked.
        if self.process != std::process::id() {
            return;
        }
        self.sessions.give_back(self.token);
        if !self.known && self.temporary.is_none() {
            return;
        }
        let mut list = self.chores.list();
        if self.known {
            list.releases.push((std::mem::take(&mut self.key), self.token));
        }
        list.temporaries.extend(self.temporary.take());
        drop(list);
        self.chores.added.notify(usize::MAX);
    }
}

macro_rules! counters {
    ($($name:ident),*) => {
        /// What is counted.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub $name: AtomicU64),* }
        impl Counters {
            pub fn read(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed)),*, ..Stats::default() }
            }
            pub fn reset(&self) {
                $(self.$name.store(0, Ordering::Relaxed);)*
            }
        }
    };
}
counters!(
    hits,
    misses,
    waits,
    creates,
    busy,
    timeouts,
    unlinked,
    bytes_read,
    bytes_written,
    lease_losses,
    corrupt,
    rebuilds,
    index_errors
);

/// Who is in the way of somebody who is in its own way.
const ITSELF: &str = "this very thread or task";

/// Counts.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What somebody is doing, for errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doing<'a> {
    pub operation: &'static str,
    pub key: Option<&'a [u8]>,
}

impl<'a> Doing<'a> {
    pub fn to(operation: &'static str, key: &'a [u8]) -> Self {
        Self { operation, key: Some(key) }
    }

    pub fn all(operation: &'static str) -> Self {
        Self { operation, key: None }
    }

    pub fn failed(self, cause: Cause) -> Error {
        Error::new(self.operation, self.key, cause)
    }

    fn io(self, error: std::io::Error) -> Error {
        Error::io(self.operation, self.key, error)
    }

    fn key(self) -> &'a [u8] {
        self.key.unwrap_or_default()
    }
}

/// Refuses what is not a key, before anything is done.
pub(crate) fn check_key(operation: &'static str, key: &[u8]) -> Result<()> {
    let problem = match key.len() {
        0 => "it is empty".to_owned(),
        length if length > MAX_KEY_BYTES => format!("it has {length} bytes"),
        _ => return Ok(()),
    };
    Err(Error::new(operation, Some(key), Cause::BadKey(problem)))
}

/// A file that is open, and the lease that keeps it there.
pub(crate) struct Opened<F> {
    pub entry: Entry,
    pub file: F,
    pub hold: Option<Hold>,
}

/// New content under way. One that is dropped is taken back.
pub(crate) struct Draft<D: Disk> {
    pub key: Key,
    pub mode: Mode,
    pub hold: Hold,
    pub fence: u64,
    pub temporary: String,
    pub file: Option<D::Draft>,
    /// Something that was to be written was not: what is there is not the content.
    pub torn: bool,
    pub hasher: blake3::Hasher,
    pub size: u64,
    pub reserved: u64,
    pub ttl: u64,
    pub metadata: Vec<u8>,
    pub flight: Option<Flight>,
}

/// What became of the wish to write.
pub(crate) enum Begun<D: Disk> {
    Draft(Box<Draft<D>>),
    Hit { opened: Opened<D::File>, waited: bool },
}

/// How long somebody waits, and whether it had to.
struct Patience {
    timeout: Duration,
    began: Duration,
    waited: bool,
}

/// What [`Engine::lease`] gives.
enum Leased {
    Granted { hold: Hold, fence: u64 },
    Hit { hold: Hold, entry: Entry },
}

impl<E: Edge> Engine<E> {
    pub fn new(edge: E, rules: Rules, cache: u64) -> Self {
        let sessions = Arc::new(Sessions::new(edge.random(), rules.lease, rules.owner.clone()));
        Self {
            edge,
            cache,
            sessions,
            flights: Arc::default(),
            counters: Counters::default(),
            chores: Arc::default(),
            known_largest: AtomicU64::new(rules.bounds.largest_entry()),
            known_min_free: AtomicU64::new(rules.bounds.min_free_bytes),
            rules,
        }
    }

    fn hold(&self, key: &[u8]) -> Hold {
        Hold {
            sessions: Arc::clone(&self.sessions),
            chores: Arc::clone(&self.chores),
            process: std::process::id(),
            key: key.to_vec(),
            token: self.sessions.token(),
            known: false,
            temporary: None,
        }
    }

    pub fn outage(&self, doing: Doing<'_>, outage: Outage) -> Error {
        count(&self.counters.index_errors, 1);
        doing.failed(match outage {
            Outage::Unavailable(message) => Cause::Unavailable(message),
            Outage::Refused(message) => Cause::NoSpace(format!("the server refuses writes: {message}")),
            Outage::Denied(message) => Cause::Denied(message),
        })
    }

    /// Asks the index, however it is: one that is lost is made anew first, one that is being made is waited for. Unlinks
    /// what the answer says.
    pub async fn ask(&self, doing: Doing<'_>, op: Op) -> Result<Reply> {
        let answer = self.ask_index(doing, op).await?;
        self.unlink(answer.doomed).await;
        Ok(answer.reply)
    }

    pub async fn ask_index(&self, doing: Doing<'_>, op: Op) -> Result<Answer> {
        let began = self.edge.elapsed();
        loop {
            let answer = self
                .edge
                .ask(Request { cache: self.cache, op: op.clone() })
                .await
                .map_err(|outage| self.outage(doing, outage))?;
            let patient = self.edge.elapsed() - began < REBUILD_PATIENCE;
            match answer.reply {
                // Whoever makes it may have died: then it is taken over.
                Reply::Lost | Reply::Changed | Reply::Rebuilding if patient => {
                    self.recover(doing).await?;
                    self.go_on(doing)?;
                }
                Reply::Lost | Reply::Changed | Reply::Rebuilding => {
                    return Err(doing.failed(Cause::Unavailable(format!(
                        "the index is being made anew, since {:?}",
                        self.edge.elapsed() - began
                    ))));
                }
                Reply::Foreign { cache } => return Err(doing.failed(Cause::BadConfig(self.foreign(cache)))),
                _ => return Ok(answer),
            }
        }
    }

    pub fn foreign(&self, cache: u64) -> String {
        format!(
            "the namespace {} of this server belongs to cache {cache:016x}, the directory to {:016x}; choose another \
             namespace or directory, or take the namespace over with adopt",
            self.rules.namespace, self.cache
        )
    }

    /// Waits a little for somebody else, longer with each turn.
    async fn pause(&self, key: &[u8], turn: u32) {
        self.pause_on(self.flights.listen(key), turn, MAX_PAUSE).await;
    }

    async fn pause_on(&self, event: event_listener::EventListener, turn: u32, longest: Duration) {
        let pause = Duration::from_millis(2 << turn.min(8)).min(MAX_PAUSE);
        let share = 0.5 + (self.edge.random() % 1000) as f64 / 2000.0;
        self.edge.pause(event, pause.mul_f64(share).min(longest)).await;
    }

    /// Unlinks files that nobody uses.
    pub async fn unlink(&self, doomed: Vec<Doomed>) {
        if doomed.is_empty() {
            return;
        }
        let unlinked = self
            .edge
            .on_disk(move |disk| {
                let gone = |doomed: &Doomed| disk.unlink(&file_name(&doomed.key, &doomed.entry)).is_ok();
                // What cannot be unlinked now stays garbage; the next sweep tries again.
                doomed.iter().filter(|doomed| gone(doomed)).map(|doomed| doomed.entry.fence).collect::<Vec<_>>()
            })
            .await;
        count(&self.counters.unlinked, unlinked.len() as u64);
        self.chores.list().unlinked.extend(unlinked);
    }

    fn take_releases(&self, most: usize) -> Vec<(Key, Token)> {
        let mut list = self.chores.list();
        let most = list.releases.len().min(most);
        list.releases.drain(..most).collect()
    }

    fn take_unlinked(&self) -> Vec<u64> {
        let mut chores = self.chores.list();
        let most = chores.unlinked.len().min(1024);
        chores.unlinked.drain(..most).collect()
    }

    /// Finds the content of a key, waiting for one that is being made if there is time.
    pub async fn find(&self, doing: Doing<'_>, leased: bool, timeout: Duration) -> Result<(Entry, Option<Hold>)> {
        let began = self.edge.elapsed();
        let mut hold = (leased && !self.rules.read_only).then(|| self.hold(doing.key()));
        for turn in 0.. {
            let heard = (timeout > Duration::ZERO).then(|| self.flights.listen(doing.key()));
            let pin = hold.as_mut().map(|hold| {
                hold.known = true;
                (hold.token, self.sessions.of(hold.token))
            });
            let key = doing.key().to_vec();
            let op = if self.rules.read_only { Op::Peek { key } } else { Op::Lookup { key, pin } };
            let reply = self.ask(doing, op).await?;
            if let (Some(hold), Reply::Missing | Reply::Busy { .. } | Reply::SessionLost) = (&mut hold, &reply) {
                hold.known = false;
            }
            match reply {
                Reply::Hit(entry) => {
                    hold.iter().for_each(|hold| self.sessions.is_known(hold.token));
                    count(&self.counters.hits, 1);
                    return Ok((entry, hold));
                }
                Reply::Missing => {
                    count(&self.counters.misses, 1);
                    return Err(doing.failed(Cause::Missing));
                }
                Reply::Busy { session } => {
                    let waited = self.edge.elapsed() - began;
                    // Nobody can wait for itself.
                    if self.flights.is_held_by(doing.key(), self.edge.who()) {
                        return Err(self.busy(doing, ITSELF.to_owned(), Duration::ZERO, waited));
                    }
                    if waited >= timeout {
                        return Err(self.busy(doing, self.name_of(session), timeout, waited));
                    }
                    if turn == 0 {
                        count(&self.counters.waits, 1);
                        self.edge.listen();
                    }
                    self.pause_on(heard.expect("there is time"), turn, timeout - waited).await;
                    self.go_on(doing)?;
                }
                Reply::SessionLost => {
                    let hold = hold.as_mut().expect("only leases need a session");
                    self.session_lost(hold.token);
                    hold.exchange();
                }
                reply => return Err(self.unexpected(doing, &reply)),
            }
        }
        unreachable!("the loop ends by returning")
    }

    fn session_lost(&self, token: Token) {
        count(&self.counters.lease_losses, 1);
        self.sessions.lost(token.session, self.edge.random());
    }

    fn name_of(&self, session: Option<u64>) -> String {
        match session {
            Some(session) => format!("session {session:016x}"),
            None => "somebody who waits since longer".to_owned(),
        }
    }

    fn busy(&self, doing: Doing<'_>, who: String, timeout: Duration, waited: Duration) -> Error {
        if timeout.is_zero() {
            count(&self.counters.busy, 1);
            doing.failed(Cause::Busy { who })
        } else {
            count(&self.counters.timeouts, 1);
            doing.failed(Cause::Timeout { who, waited })
        }
    }

    pub fn unexpected(&self, doing: Doing<'_>, reply: &Reply) -> Error {
        doing.failed(Cause::Unavailable(format!("the index answered {reply:?}; versions differ?")))
    }

    /// Reads the whole content.
    pub async fn read(&self, doing: Doing<'_>, timeout: Duration) -> Result<Vec<u8>> {
        let (mut attempt, mut missed) = (0, 0);
        loop {
            let entry = match self.find(doing, false, timeout).await {
                Ok((entry, _)) => entry,
                Err(error) => return self.read_in_outage(doing, error).await,
            };
            let (file, size) = (file_name(doing.key(), &entry), entry.size);
            let expected = self.is_to_check().then_some(entry.digest);
            let read = self
                .edge
                .on_disk(move |disk| -> std::io::Result<std::result::Result<Vec<u8>, String>> {
                    let (mut file, length) = disk.open(&file)?;
                    if length != size {
                        return Ok(Err(format!("{length} bytes, not {size}")));
                    }
                    let content = disk.read(&mut file, size.saturating_add(1))?;
                    Ok(if content.len() as u64 != size {
                        Err(format!("{} bytes, not {size}", content.len()))
                    } else if expected.is_some_and(|expected| edge::digest(&content) != expected) {
                        Err("other content than was written".to_owned())
                    } else {
                        Ok(content)
                    })
                })
                .await;
            match read {
                Ok(Ok(content)) => {
                    count(&self.counters.bytes_read, size);
                    return Ok(content);
                }
                Ok(Err(what)) => return Err(self.quarantine(doing, &entry, what).await),
                Err(error) => self.after_failed_open(doing, &entry, error, &mut attempt, &mut missed).await?,
            }
        }
    }

    pub fn is_to_check(&self) -> bool {
        match self.rules.check {
            Check::Always => true,
            Check::Sampled => self.edge.random().is_multiple_of(16),
            Check::Never => false,
        }
    }

    /// The file of an entry could not be opened: unlinked meanwhile, not yet seen by this host, or gone for good.
    async fn after_failed_open(
        &self,
        doing: Doing<'_>,
        entry: &Entry,
        error: std::io::Error,
        attempt: &mut u32,
        missed: &mut u64,
    ) -> Result<()> {
        if error.kind() == std::io::ErrorKind::InvalidData {
            return Err(self.quarantine(doing, entry, error.to_string()).await);
        }
        if error.kind() != std::io::ErrorKind::NotFound {
            return Err(doing.io(error));
        }
        *attempt += 1;
        if *missed == entry.fence && *attempt > 2 {
            let gone = Op::Remove { key: doing.key().to_vec(), fence: Some(entry.fence), reason: Reason::Gone };
            self.ask(doing, gone).await?;
            count(&self.counters.misses, 1);
            return Err(doing.failed(Cause::Missing));
        }
        if *missed == entry.fence {
            self.pause(b"", 3 + *attempt).await;
        }
        *missed = entry.fence;
        if *attempt > 100 {
            return Err(
                doing.failed(Cause::Unavailable("the content changed 100 times while it was opened".to_owned()))
            );
        }
        Ok(())
    }

    /// Takes damaged content out.
    pub async fn quarantine(&self, doing: Doing<'_>, entry: &Entry, what: String) -> Error {
        count(&self.counters.corrupt, 1);
        tracing::warn!(key = %crate::error::Shown(doing.key()), what, "damaged file");
        let file = file_name(doing.key(), entry);
        if let Err(error) = self.edge.on_disk(move |disk| disk.quarantine(&file)).await {
            tracing::warn!(%error, "cannot put it into quarantine");
        }
        let op = Op::Remove { key: doing.key().to_vec(), fence: Some(entry.fence), reason: Reason::Corrupt };
        match self.ask(doing, op).await {
            Ok(_) => doing.failed(Cause::Corrupt(what)),
            Err(error) => error,
        }
    }

    /// When the index cannot be asked: the newest file of the key, checked by the digest in its name.
    async fn read_in_outage(&self, doing: Doing<'_>, error: Error) -> Result<Vec<u8>> {
        if self.rules.on_outage == OnOutage::Fail || error.code() != crate::error::Code::Unavailable {
            return Err(error);
        }
        let key = doing.key().to_vec();
        let found = self
            .edge
            .on_disk(move |disk| -> std::io::Result<Option<Vec<u8>>> {
                let shard = name::shard(&key);
                let (stem, readable) = name::stem(&key);
                let mut files = disk.list(&shard)?;
                files.retain(|listed| listed.name.split('~').next() == Some(&stem));
                let mut named: Vec<_> = files
                    .iter()
                    .filter_map(|listed| Some((name::parse(&listed.name)?, listed)))
                    .filter(|(named, _)| readable == named.key.is_some())
                    .collect();
                named.sort_by_key(|(named, _)| std::cmp::Reverse(named.fence));
                for (named, listed) in named {
                    let path = format!("{shard}/{}", listed.name);
                    if !readable && sidecar_of(disk, &path).is_none_or(|sidecar| sidecar.key != key) {
                        continue;
                    }
                    let (mut file, size) = disk.open(&path)?;
                    let content = disk.read(&mut file, size)?;
                    if edge::digest(&content) == named.digest {
                        return Ok(Some(content));
                    }
                }
                Ok(None)
            })
            .await;
        match found {
            Ok(Some(content)) => Ok(content),
            _ => Err(error),
        }
    }

    /// Opens the content and keeps it from being unlinked.
    pub async fn open(
        &self,
        doing: Doing<'_>,
        leased: bool,
        timeout: Duration,
    ) -> Result<Opened<<E::Disk as Disk>::File>> {
        let (mut attempt, mut missed) = (0, 0);
        loop {
            let (entry, hold) = self.find(doing, leased, timeout).await?;
            if let Some(opened) = self.open_entry(doing, entry, hold, &mut attempt, &mut missed).await? {
                return Ok(opened);
            }
        }
    }

    pub async fn open_entry(
        &self,
        doing: Doing<'_>,
        entry: Entry,
        hold: Option<Hold>,
        attempt: &mut u32,
        missed: &mut u64,
    ) -> Result<Option<Opened<<E::Disk as Disk>::File>>> {
        let file = file_name(doing.key(), &entry);
        match self.edge.on_disk(move |disk| disk.open(&file)).await {
            Ok((_, length)) if length != entry.size => {
                let what = format!("{length} bytes, not {}", entry.size);
                Err(self.quarantine(doing, &entry, what).await)
            }
            Ok((file, _)) => Ok(Some(Opened { entry, file, hold })),
            Err(error) => {
                drop(hold);
                self.after_failed_open(doing, &entry, error, attempt, missed).await?;
                Ok(None)
            }
        }
    }

    /// Becomes the writer of a key. `hit`: or finds content.
    async fn lease(
        &self,
        doing: Doing<'_>,
        mode: Mode,
        hit: bool,
        reserve: u64,
        patience: &mut Patience,
    ) -> Result<Leased> {
        let Patience { timeout, began, .. } = *patience;
        let mut hold = self.hold(doing.key());
        let mut rounds = 0;
        for turn in 0.. {
            let heard = (timeout > Duration::ZERO).then(|| self.flights.listen(doing.key()));
            let wait = self.edge.elapsed() - began < timeout;
            // What is to be given back goes along, at once for what is kept from going by it.
            let releases = TakenReleases { list: self.take_releases(64), chores: &self.chores };
            let op = Op::Acquire {
                key: doing.key().to_vec(),
                token: hold.token,
                session: self.sessions.of(hold.token),
                mode,
                reserve,
                wait,
                hit,
                releases: releases.list.clone(),
            };
            let had_place = std::mem::replace(&mut hold.known, true);
            let Answer { reply, doomed } = self.ask_index(doing, op).await?;
            releases.are_done();
            let made_room = !doomed.is_empty();
            self.unlink(doomed).await;
            match &reply {
                Reply::Granted { .. } | Reply::Hit(_) => self.sessions.is_known(hold.token),
                Reply::Exists | Reply::SessionLost => hold.known = false,
                _ => hold.known = had_place || wait,
            }
            match reply {
                Reply::Granted { fence } => return Ok(Leased::Granted { hold, fence }),
                Reply::Hit(entry) => return Ok(Leased::Hit { hold, entry }),
                Reply::Exists => return Err(doing.failed(Cause::Exists)),
                Reply::TooLarge { limit } => return Err(doing.failed(Cause::TooLarge { limit })),
                Reply::Full { limit } => self.wait_for_room(doing, limit, made_room, &mut rounds).await?,
                Reply::SessionLost => {
                    self.session_lost(hold.token);
                    hold.exchange();
                }
                Reply::Busy { session } => {
                    let passed = self.edge.elapsed() - began;
                    if passed >= timeout {
                        return Err(self.busy(doing, self.name_of(session), timeout, passed));
                    }
                    self.begin_to_wait(patience);
                    self.pause_on(heard.expect("there is time"), turn, timeout - passed).await;
                    self.go_on(doing)?;
                }
                reply => return Err(self.unexpected(doing, &reply)),
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Begins to write, or finds content if `hit`.
    pub async fn begin(&self, doing: Doing<'_>, mode: Mode, hit: bool, put: &Put) -> Result<Begun<E::Disk>> {
        let metadata = self.check_put(doing, put)?;
        let mut patience = Patience { timeout: put.timeout, began: self.edge.elapsed(), waited: false };
        let (mut attempt, mut missed) = (0, 0);
        // What is not known to be larger is let in with this, so that small contents need no further request.
        let allowance = (64 << 10).min(self.known_largest.load(Ordering::Relaxed) / 8);
        let reserve = put.size.unwrap_or(allowance);
        loop {
            let heard = self.flights.listen(doing.key());
            let flight = match self.flights.take(doing.key(), self.edge.who()) {
                Ok(flight) => flight,
                Err(other) => {
                    if hit {
                        match self.open(doing, true, Duration::ZERO).await {
                            Ok(opened) => return Ok(Begun::Hit { opened, waited: patience.waited }),
                            Err(error)
                                if matches!(error.code(), crate::error::Code::Missing | crate::error::Code::Busy) => {}
                            Err(error) => return Err(error),
                        }
                    }
                    self.wait_for_flight(doing, other, heard, &mut patience).await?;
                    continue;
                }
            };
            match self.lease(doing, mode, hit, reserve, &mut patience).await? {
                Leased::Hit { hold, entry } => {
                    drop(flight);
                    count(&self.counters.hits, 1);
                    if let Some(opened) = self.open_entry(doing, entry, Some(hold), &mut attempt, &mut missed).await? {
                        return Ok(Begun::Hit { opened, waited: patience.waited });
                    }
                }
                Leased::Granted { mut hold, fence } => {
                    if hit {
                        count(&self.counters.misses, 1);
                    }
                    let temporary = name::temporary(hold.token);
                    hold.temporary = Some(temporary.clone());
                    return Ok(Begun::Draft(Box::new(Draft {
                        key: doing.key().to_vec(),
                        mode,
                        hold,
                        fence,
                        temporary,
                        file: None,
                        torn: false,
                        hasher: blake3::Hasher::new(),
                        size: 0,
                        reserved: reserve,
                        ttl: put.ttl.map_or(0, micros),
                        metadata,
                        flight: Some(flight),
                    })));
                }
            }
        }
    }

    fn check_put(&self, doing: Doing<'_>, put: &Put) -> Result<Vec<u8>> {
        if put.ttl.is_some_and(|ttl| ttl.is_zero() || micros(ttl) > 1 << 52) {
            return Err(doing.failed(Cause::BadConfig("a time to live is above 0 and up to 142 years".to_owned())));
        }
        let metadata = Metadata { content_type: put.content_type.clone(), user: put.user.clone() }.pack();
        if metadata.len() > MAX_METADATA_BYTES {
            let what = format!("{} bytes of metadata; at most {MAX_METADATA_BYTES}", metadata.len());
            return Err(doing.failed(Cause::BadConfig(what)));
        }
        Ok(metadata)
    }

    async fn wait_for_flight(
        &self,
        doing: Doing<'_>,
        other: Option<u64>,
        heard: event_listener::EventListener,
        patience: &mut Patience,
    ) -> Result<()> {
        let timeout = patience.timeout;
        let passed = self.edge.elapsed() - patience.began;
        // Nobody can wait for itself.
        if other.is_some() && other == self.edge.who() {
            return Err(self.busy(doing, ITSELF.to_owned(), Duration::ZERO, passed));
        }
        if passed >= timeout {
            return Err(self.busy(doing, "somebody else in this process".to_owned(), timeout, passed));
        }
        self.begin_to_wait(patience);
        self.edge.pause(heard, (timeout - passed).min(MAX_PAUSE)).await;
        self.go_on(doing)
    }

    /// Whoever waits may have been told to stop.
    fn go_on(&self, doing: Doing<'_>) -> Result<()> {
        if self.edge.is_interrupted() { Err(doing.failed(Cause::Interrupted)) } else { Ok(()) }
    }

    fn begin_to_wait(&self, patience: &mut Patience) {
        if !std::mem::replace(&mut patience.waited, true) {
            count(&self.counters.waits, 1);
            self.edge.listen();
        }
    }

    /// Makes the temporary file, if that is not done yet.
    pub async fn create_file(&self, doing: Doing<'_>, draft: &mut Draft<E::Disk>) -> Result<()> {
        if draft.file.is_none() {
            self.keep_disk_free(doing, draft.reserved).await?;
            let temporary = draft.temporary.clone();
            let created = self.edge.on_disk(move |disk| disk.create(&temporary)).await;
            draft.file = Some(created.map_err(|error| doing.io(error))?);
        }
        Ok(())
    }

    /// Evicts while the file system has less free than it shall keep.
    async fn keep_disk_free(&self, doing: Doing<'_>, coming: u64) -> Result<()> {
        let min_free = self.known_min_free.load(Ordering::Relaxed);
        if min_free == 0 {
            return Ok(());
        }
        for _ in 0..MAX_ROOM_ROUNDS {
            let free = self.edge.on_disk(|disk| disk.free_bytes()).await.map_err(|error| doing.io(error))?;
            let wanted = min_free.saturating_add(coming);
            if free >= wanted {
                return Ok(());
            }
            if self.evict_bytes(doing, wanted - free).await? == 0 {
                let what = format!("{free} bytes are free on the disk, {wanted} are to be, and nothing can be evicted");
                return Err(doing.failed(Cause::NoSpace(what)));
            }
        }
        Err(doing.failed(Cause::NoSpace(format!("{min_free} bytes cannot be kept free"))))
    }

    /// Evicts about so many bytes of the least recently used; how many entries went.
    pub async fn evict_bytes(&self, doing: Doing<'_>, bytes: u64) -> Result<usize> {
        let info = self.info(doing).await?;
        let choice = Choice::ToBytes(info.bytes.saturating_sub(bytes));
        let answer = self.ask_index(doing, Op::Evict { choice }).await?;
        let gone = answer.doomed.len();
        self.unlink(answer.doomed).await;
        Ok(gone)
    }

    pub async fn info(&self, doing: Doing<'_>) -> Result<Info> {
        match self.ask(doing, Op::Info).await? {
            Reply::Info(info) => {
                self.known_largest.store(info.bounds.largest_entry(), Ordering::Relaxed);
                self.known_min_free.store(info.bounds.min_free_bytes, Ordering::Relaxed);
                Ok(*info)
            }
            reply => Err(self.unexpected(doing, &reply)),
        }
    }

    /// Makes room for a draft of unknown length that has grown to `size`.
    pub async fn reserve(&self, doing: Doing<'_>, draft: &mut Draft<E::Disk>, size: u64) -> Result<()> {
        let largest = self.known_largest.load(Ordering::Relaxed);
        if size <= draft.reserved || largest == 0 {
            return Ok(());
        }
        // Ahead of the need, so that a long file does not ask for every block; not beyond what one entry may have.
        const STEP: u64 = 1 << 20;
        let mut wanted = size.max(draft.reserved.saturating_mul(2).min(draft.reserved + 64 * STEP)).max(64 * 1024);
        if size <= largest {
            wanted = wanted.min(largest);
        }
        let mut rounds = 0;
        loop {
            let op = Op::Reserve { key: draft.key.clone(), token: draft.hold.token, bytes: wanted };
            let Answer { reply, doomed } = self.ask_index(doing, op).await?;
            let made_room = !doomed.is_empty();
            self.unlink(doomed).await;
            match reply {
                Reply::Done => {
                    draft.reserved = wanted;
                    return Ok(());
                }
                Reply::TooLarge { .. } | Reply::Full { .. } if wanted > size => wanted = size,
                Reply::TooLarge { limit } => return Err(doing.failed(Cause::TooLarge { limit })),
                Reply::Full { limit } => self.wait_for_room(doing, limit, made_room, &mut rounds).await?,
                Reply::LeaseLost => return Err(self.lease_lost(doing, "while it was written")),
                reply => return Err(self.unexpected(doing, &reply)),
            }
        }
    }

    /// The cache is full. Room that was made is used at once; otherwise readers may be about to give their leases back.
    async fn wait_for_room(&self, doing: Doing<'_>, limit: u64, made_room: bool, rounds: &mut u32) -> Result<()> {
        *rounds += if made_room { 1 } else { MAX_ROOM_ROUNDS / 8 };
        if *rounds > MAX_ROOM_ROUNDS {
            return Err(doing.failed(full(limit)));
        }
        if !made_room {
            self.do_chores().await;
            if *rounds > MAX_ROOM_ROUNDS / 8 {
                self.pause(b"", 3).await;
            }
        }
        Ok(())
    }

    fn lease_lost(&self, doing: Doing<'_>, when: &'static str) -> Error {
        count(&self.counters.lease_losses, 1);
        doing.failed(Cause::LeaseLost(when))
    }

    /// Appends to a draft. One that this fails for, or that is dropped meanwhile, cannot be committed any more.
    pub async fn append(&self, doing: Doing<'_>, draft: &mut Draft<E::Disk>, bytes: Vec<u8>) -> Result<()> {
        draft.torn = true;
        let size = draft.size + bytes.len() as u64;
        self.reserve(doing, draft, size).await?;
        self.create_file(doing, draft).await?;
        draft.hasher.update(&bytes);
        let mut file = draft.file.take().expect("made above");
        let (file, result) = self
            .edge
            .on_disk(move |_| {
                let result = file.write(&bytes);
                (file, result)
            })
            .await;
        draft.file = Some(file);
        draft.size = size;
        draft.torn = result.is_err();
        result.map_err(|error| doing.io(error))
    }

    /// Publishes a draft, with the content that is still in memory: `rest` comes behind what was appended. Whatever is
    /// answered, the draft is over: committed, taken back, or (when the index cannot be reached) left to be committed later
    /// or swept. `keep`: the lease goes on as a reader's.
    pub async fn commit(
        &self,
        doing: Doing<'_>,
        mut draft: Draft<E::Disk>,
        rest: Vec<u8>,
        keep: bool,
    ) -> Result<(Entry, Option<Hold>)> {
        draft.size += rest.len() as u64;
        draft.hasher.update(&rest);
        let digest = draft.hasher.finalize().as_bytes()[..16].try_into().expect("32 bytes have a first half");
        let size = draft.size;
        if draft.torn {
            self.abort(draft).await;
            let error = std::io::Error::other("an earlier write to it failed; nothing was published");
            return Err(doing.io(error));
        }
        let prepared = match self.reserve(doing, &mut draft, size).await {
            Ok(()) => self.keep_disk_free(doing, rest.len() as u64).await,
            Err(error) => Err(error),
        };
        if let Err(error) = prepared {
            self.abort(draft).await;
            return Err(error);
        }
        let begun = draft.file.take();
        self.publish(doing, draft, digest, keep, move |disk, temporary| {
            let mut file = match begun {
                Some(file) => file,
                None => disk.create(temporary)?,
            };
            if !rest.is_empty() {
                file.write(&rest)?;
            }
            file.finish()
        })
        .await
    }

    /// Creates or replaces with content that is all there: two requests to the index.
    pub async fn put(&self, doing: Doing<'_>, mode: Mode, content: Vec<u8>, put: &Put) -> Result<Entry> {
        let put = Put { size: Some(content.len() as u64), ..put.clone() };
        let Begun::Draft(draft) = self.begin(doing, mode, false, &put).await? else {
            unreachable!("nobody asked for hits")
        };
        Ok(self.commit(doing, *draft, content, false).await?.0)
    }

    /// The common end of all writes: content, sidecar, name, directory, index.
    async fn publish(
        &self,
        doing: Doing<'_>,
        mut draft: Draft<E::Disk>,
        digest: [u8; 16],
        keep: bool,
        finish: impl FnOnce(&E::Disk, &str) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(Entry, Option<Hold>)> {
        let entry = Entry {
            fence: draft.fence,
            size: draft.size,
            created: 0,
            expires: 0,
            ttl: draft.ttl,
            pinned: false,
            digest,
            metadata: std::mem::take(&mut draft.metadata),
        };
        let sidecar = name::has_sidecar(&draft.key, &entry)
            .then(|| Sidecar { key: draft.key.clone(), metadata: entry.metadata.clone() }.pack());
        let (file, temporary) = (file_name(&draft.key, &entry), draft.temporary.clone());
        let published = self
            .edge
            .on_disk(move |disk| {
                finish(disk, &temporary)?;
                if let Some(sidecar) = sidecar {
                    let small = format!("{temporary}{}", name::SIDECAR);
                    disk.write_small(&small, &sidecar)?;
                    disk.publish(&small, &format!("{file}{}", name::SIDECAR))?;
                }
                disk.publish(&temporary, &file)?;
                disk.sync_shard(file.split_once('/').map_or("", |(shard, _)| shard))
            })
            .await;
        if let Err(error) = published {
            let lost = draft.hold.is_lost() && error.kind() == std::io::ErrorKind::NotFound;
            let full = error.kind() == std::io::ErrorKind::StorageFull;
            let (size, key) = (entry.size, draft.key.clone());
            self.forget_file(&draft.key, &entry).await;
            self.abort(draft).await;
            if lost {
                return Err(self.lease_lost(doing, "before it was published"));
            }
            if full {
                // So that the next one finds room; this one is told.
                let _ = self.evict_bytes(Doing::to(doing.operation, &key), size.max(1 << 20)).await;
            }
            return Err(doing.io(error));
        }
        let op = Op::Commit {
            key: draft.key.clone(),
            token: draft.hold.token,
            mode: draft.mode,
            entry: entry.clone(),
            unlinked: self.take_unlinked(),
            pin: keep,
        };
        let reply = match self.ask(doing, op.clone()).await {
            Ok(reply) => reply,
            Err(error) => {
                // Published, and the index may not know it. Tried again for as long as the lease lasts; after that the
                // file is found by whoever makes the index anew, or swept.
                let until = self.edge.elapsed() + self.rules.lease;
                self.chores.list().commits.push((until, op));
                self.chores.added.notify(usize::MAX);
                end(&mut draft);
                return Err(error);
            }
        };
        if let Reply::Committed(entry) = reply {
            count(&self.counters.creates, 1);
            count(&self.counters.bytes_written, entry.size);
            draft.hold.temporary = None;
            draft.hold.known = keep;
            drop(draft.flight);
            return Ok((entry, keep.then_some(draft.hold)));
        }
        end(&mut draft);
        let failure = match reply {
            Reply::Exists => doing.failed(Cause::Exists),
            Reply::TooLarge { limit } => doing.failed(Cause::TooLarge { limit }),
            Reply::LeaseLost => self.lease_lost(doing, "before it was published"),
            reply => self.unexpected(doing, &reply),
        };
        self.forget_file(&draft.key, &entry).await;
        Err(failure)
    }

    /// Unlinks a file that is not and will not be content.
    async fn forget_file(&self, key: &[u8], entry: &Entry) {
        let file = file_name(key, entry);
        // If it fails, the sweep finds it.
        let _ = self.edge.on_disk(move |disk| disk.unlink(&file)).await;
    }

    /// Takes a draft back.
    pub async fn abort(&self, mut draft: Draft<E::Disk>) {
        draft.file = None;
        let temporary = draft.temporary.clone();
        let _ = self
            .edge
            .on_disk(move |disk| {
                let _ = disk.unlink_temporary(&format!("{temporary}{}", name::SIDECAR));
                disk.unlink_temporary(&temporary)
            })
            .await;
        // If the index does not hear it, the session's end says the same.
        let op = Op::Abort { key: draft.key.clone(), token: draft.hold.token };
        if self.ask(Doing::to("abort", &draft.key), op).await.is_ok() {
            end(&mut draft);
        }
    }

    /// Takes a key's content away; whether there was any.
    pub async fn delete(&self, doing: Doing<'_>) -> Result<bool> {
        let op = Op::Remove { key: doing.key().to_vec(), fence: None, reason: Reason::Deleted };
        match self.ask(doing, op).await? {
            Reply::Done => Ok(true),
            Reply::Missing => Ok(false),
            reply => Err(self.unexpected(doing, &reply)),
        }
    }

    /// Asks for something that is either done or has nothing to be done to.
    pub async fn done_or_missing(&self, doing: Doing<'_>, op: Op) -> Result<bool> {
        match self.ask(doing, op).await? {
            Reply::Done => Ok(true),
            Reply::Missing => Ok(false),
            reply => Err(self.unexpected(doing, &reply)),
        }
    }

    /// Looks without leaving a trace.
    pub async fn peek(&self, doing: Doing<'_>) -> Result<Option<Entry>> {
        match self.ask(doing, Op::Peek { key: doing.key().to_vec() }).await? {
            Reply::Hit(entry) => Ok(Some(entry)),
            Reply::Missing | Reply::Busy { .. } => Ok(None),
            reply => Err(self.unexpected(doing, &reply)),
        }
    }

    /// Tells the index what was put off, and that we live.
    pub async fn do_chores(&self) {
        let releases = TakenReleases { list: self.take_releases(1024), chores: &self.chores };
        let (temporaries, commits) = {
            let mut list = self.chores.list();
            (std::mem::take(&mut list.temporaries), std::mem::take(&mut list.commits))
        };
        if !temporaries.is_empty() {
            self.edge
                .on_disk(move |disk| {
                    for temporary in temporaries {
                        // Those that stay are swept when the session is over.
                        let _ = disk.unlink_temporary(&format!("{temporary}{}", name::SIDECAR));
                        let _ = disk.unlink_temporary(&temporary);
                    }
                })
                .await;
        }
        if !releases.list.is_empty() {
            let op = Op::Release { leases: releases.list.clone() };
            if self.ask(Doing::all("release"), op).await.is_ok() {
                releases.are_done();
            }
        }
        for (until, op) in commits {
            let Op::Commit { key, entry, .. } = &op else { continue };
            match self.ask(Doing::to("commit", key), op.clone()).await {
                Ok(Reply::Committed(_)) => self.flights.wake(key),
                Ok(_) => self.forget_file(key, entry).await,
                Err(_) if self.edge.elapsed() < until => self.chores.list().commits.push((until, op)),
                Err(_) => {}
            }
        }
    }

    /// Does what was put off and ends the session if nothing belongs to it.
    pub async fn close(&self) {
        self.do_chores().await;
        if let Some(session) = self.sessions.end_if_idle(self.edge.random()) {
            let _ = self.ask(Doing::all("close"), Op::Close { session }).await;
        }
    }

    /// Says that the session lives, if anything depends on it.
    pub async fn renew(&self) {
        let Some(session) = self.sessions.to_renew() else { return self.close().await };
        let token = Token { session: session.id, number: 0 };
        let unlinked = self.take_unlinked();
        match self.ask(Doing::all("renew"), Op::Renew { session, unlinked: unlinked.clone() }).await {
            Ok(Reply::SessionLost) => self.session_lost(token),
            Ok(_) => {}
            Err(_) => self.chores.list().unlinked.extend(unlinked),
        }
    }
}

fn full(limit: u64) -> Cause {
    Cause::NoSpace(format!(
        "the cache is full ({limit} bytes) and nothing can be evicted: all is pinned, read or being written"
    ))
}

/// Releases that are on their way; if they do not arrive, they are chores again.
struct TakenReleases<'a> {
    list: Vec<(Key, Token)>,
    chores: &'a Chores,
}

impl TakenReleases<'_> {
    fn are_done(mut self) {
        self.list.clear();
    }
}

impl Drop for TakenReleases<'_> {
    fn drop(&mut self) {
        if !self.list.is_empty() {
            self.chores.list().releases.append(&mut self.list);
        }
    }
}

/// The draft's lease and file are over: nothing is left to give back.
fn end<D: Disk>(draft: &mut Draft<D>) {
    draft.hold.known = false;
    draft.hold.temporary = None;
    draft.flight = None;
}

/// What lies beside a file: what its name has no room for.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Sidecar {
    pub key: Key,
    pub metadata: Vec<u8>,
}

impl Sidecar {
    fn pack(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("bytes can always be written")
    }
}

/// Reads the sidecar of a file; `None` when there is none or it is damaged.
pub(crate) fn sidecar_of<D: Disk>(disk: &D, name: &str) -> Option<Sidecar> {
    let (mut file, size) = disk.open(&format!("{name}{}", name::SIDECAR)).ok()?;
    let most = (MAX_KEY_BYTES + MAX_METADATA_BYTES + 64) as u64;
    let bytes = disk.read(&mut file, most).ok()?;
    (size <= most).then(|| postcard::from_bytes(&bytes).ok())?
}
