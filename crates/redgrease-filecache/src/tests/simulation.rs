//! Many simulated processes on a simulated clock, disk and index, with crashes between any two steps, stalls longer
//! than the lease, lost requests and replies, an index that is lost or falls back to an older state. The operations are
//! the real ones.
//!
//! A run is a function of its seed, which a failure prints; `REDGREASE_TEST_SEED=n` runs only that one,
//! `REDGREASE_TEST_ROUNDS=n` runs more than usual.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use event_listener::EventListener;
use redgrease_cache_rules::name::{self, SHARDS, file_name};
use redgrease_cache_rules::protocol::{Answer, Bounds, Mode, Op, Reply, Request, Session};
use redgrease_cache_rules::{Index, Key};

use crate::edge::{Disk, Draft, Edge, Leases, Listed, Outage, Page};
use crate::engine::{Begun, Doing, Engine, Rules};
use crate::error::Code;
use crate::lock::lock;
use crate::options::{Check, OnOutage, Put};
use crate::report::Depth;

const LEASE: Duration = Duration::from_millis(1000);
const CACHE: u64 = 0xca;
const KEYS: usize = 5;

/// The shared state of all processes, and a record of events.
struct World {
    random: fastrand::Rng,
    clock: u64,
    index: Index,
    instance: u64,
    /// An older state of the index, to fall back to.
    snapshot: Option<Index>,
    files: BTreeMap<String, Vec<u8>>,
    temporaries: BTreeMap<String, Vec<u8>>,
    /// Contents whose creation was acknowledged: key, fence, content.
    acknowledged: BTreeMap<(Key, u64), Vec<u8>>,
    /// Those of them that had to be the first content of their key.
    created: BTreeSet<(Key, u64)>,
    /// Generations that an operation removed from the index.
    removed: BTreeSet<(Key, u64)>,
    /// How many times the index was lost or fell back.
    losses: u32,
    faults: bool,
    /// Something happened, so that time need not pass.
    progress: bool,
    /// The current process is to be stopped at the most dangerous point.
    stop_now: bool,
    /// The next request is one of these:
    delay_next: bool,
    /// Requests whose caller has stopped waiting, and when they arrive.
    late: Vec<Late>,
    sleepers: Vec<u64>,
    log: Vec<Event>,
}

/// A request in transit; it is lost if the server restarts meanwhile.
struct Late {
    due: u64,
    instance: u64,
    process: usize,
    request: Request,
}

/// Trace of events; only printed on request.
enum Event {
    Asked { clock: u64, process: usize, exchange: Box<(Request, Answer)> },
    Note(String),
}

#[derive(Clone)]
struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn new(random: fastrand::Rng, faults: bool) -> Self {
        Self(Arc::new(Mutex::new(World {
            random,
            clock: 1_700_000_000_000_000,
            index: Index::default(),
            instance: 1,
            snapshot: None,
            files: BTreeMap::new(),
            temporaries: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            created: BTreeSet::new(),
            removed: BTreeSet::new(),
            losses: 0,
            faults,
            progress: false,
            stop_now: false,
            delay_next: false,
            late: Vec::new(),
            sleepers: Vec::new(),
            log: Vec::new(),
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.0)
    }
}

/// The view of one process.
struct SimEdge {
    shared: Shared,
    disk: SimDisk,
    connection: Mutex<Connection>,
}

/// Like a real connection: it breaks when the server restarts, and a new one first asks for the owner of the index.
#[derive(Default)]
struct Connection {
    instance: u64,
    checked: bool,
}

#[derive(Clone)]
struct SimDisk {
    shared: Shared,
    process: usize,
    /// Steps on the disk until this process dies; `None`: not soon.
    fuse: Arc<Mutex<Option<u32>>>,
    dead: Arc<std::sync::atomic::AtomicBool>,
}

impl SimDisk {
    /// A step that changes something: the process may die before it.
    fn step(&self) -> io::Result<MutexGuard<'_, World>> {
        let mut fuse = self.fuse.lock().unwrap();
        match &mut *fuse {
            Some(0) => {
                self.dead.store(true, std::sync::atomic::Ordering::Relaxed);
                return Err(io::Error::other("died"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(self.shared.world())
    }
}

struct SimDraft {
    disk: SimDisk,
    name: String,
}

impl Draft for SimDraft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Half of it may arrive.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for part in [first, second] {
            let mut world = self.disk.step()?;
            // Unlinked meanwhile: the write has no effect, as on a real disk.
            if let Some(content) = world.temporaries.get_mut(&self.name) {
                content.extend_from_slice(part);
            }
        }
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let mut world = self.disk.step()?;
        if let Some(content) = world.temporaries.get_mut(&self.name) {
            content.truncate(length as usize)
        }
        Ok(())
    }

    fn finish(self) -> io::Result<()> {
        self.disk.step().map(drop)
    }
}

impl Disk for SimDisk {
    type Draft = SimDraft;
    type File = (Vec<u8>, usize);

    fn create(&self, temporary: &str) -> io::Result<SimDraft> {
        let mut world = self.step()?;
        assert!(world.temporaries.insert(temporary.to_owned(), Vec::new()).is_none(), "{temporary} was there");
        Ok(SimDraft { disk: self.clone(), name: temporary.to_owned() })
    }

    fn write_small(&self, temporary: &str, content: &[u8]) -> io::Result<()> {
        let mut draft = self.create(temporary)?;
        draft.write(content)?;
        draft.finish()
    }

    fn publish(&self, temporary: &str, name: &str, sync: bool) -> io::Result<()> {
        let mut world = self.step()?;
        let content = world.temporaries.remove(temporary).ok_or(io::ErrorKind::NotFound)?;
        let process = self.process;
        world.stop_now |= world.faults && world.random.u8(..6) == 0;
        world.log.push(Event::Note(format!("p{process} publishes {name}")));
        let old = world.files.insert(name.to_owned(), content);
        assert!(old.is_none(), "{name} was there: a generation was overwritten\n{}", world.history());
        drop(world);
        // The directory is synced: another step.
        if sync { self.step().map(drop) } else { Ok(()) }
    }

    fn open(&self, name: &str) -> io::Result<(Self::File, u64)> {
        let world = self.shared.world();
        let content = world.files.get(name).ok_or(io::ErrorKind::NotFound)?.clone();
        let size = content.len() as u64;
        Ok(((content, 0), size))
    }

    fn read(&self, file: &mut Self::File, most: u64, _buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        let end = file.0.len().min(file.1 + most as usize);
        let part = file.0[file.1..end].to_vec();
        file.1 = end;
        Ok(part)
    }

    fn digest(&self, file: &mut Self::File) -> io::Result<[u8; 16]> {
        Ok(crate::edge::digest(&file.0[file.1..]))
    }

    fn unlink(&self, name: &str) -> io::Result<bool> {
        let mut world = self.step()?;
        world.check_unlink(self.process, name);
        let sidecar = world.files.remove(&format!("{name}{}", name::SIDECAR));
        drop(sidecar);
        Ok(world.files.remove(name).is_some())
    }

    fn unlink_temporary(&self, name: &str) -> io::Result<bool> {
        Ok(self.step()?.temporaries.remove(name).is_some())
    }

    fn empty_quarantine(&self, _: Duration) -> io::Result<()> {
        Ok(())
    }

    fn quarantine(&self, name: &str) -> io::Result<bool> {
        let world = self.shared.world();
        panic!("{name} was found damaged\n{}", world.history());
    }

    fn list(&self, shard: &str) -> io::Result<Vec<Listed>> {
        let world = self.shared.world();
        let prefix = format!("{shard}/");
        let listed = |(name, content): (&String, &Vec<u8>)| Listed {
            name: name[prefix.len()..].to_owned(),
            size: content.len() as u64,
            used: world.clock,
            age: Duration::from_secs(3600),
        };
        Ok(world.files.iter().filter(|(name, _)| name.starts_with(&prefix)).map(listed).collect())
    }

    fn list_temporaries(&self) -> io::Result<Vec<Listed>> {
        let world = self.shared.world();
        let listed = |(name, content): (&String, &Vec<u8>)| Listed {
            name: name.clone(),
            size: content.len() as u64,
            used: world.clock,
            age: Duration::from_secs(3600),
        };
        Ok(world.temporaries.iter().map(listed).collect())
    }

    fn bounds(&self) -> Option<Bounds> {
        None
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl World {
    fn deliver_late(&mut self) {
        let (clock, instance) = (self.clock, self.instance);
        let due: Vec<Late> = self.late.extract_if(.., |late| late.due <= clock).collect();
        for late in due.into_iter().filter(|late| late.instance == instance) {
            self.log.push(Event::Note("a request comes late:".to_owned()));
            // The reply, with the files to unlink, is not received.
            self.apply(late.process, &late.request);
        }
    }

    fn history(&self) -> String {
        let written = |event: &Event| match event {
            Event::Asked { clock, process, exchange } => {
                format!("{clock} p{process} {:?} -> {:?}", exchange.0.op, exchange.1)
            }
            Event::Note(note) => note.clone(),
        };
        let latest = &self.log[self.log.len().saturating_sub(150)..];
        latest.iter().map(written).collect::<Vec<_>>().join("\n")
    }

    /// The entries of the index, by key.
    fn current(&self) -> BTreeMap<Key, u64> {
        self.index.page(None, 100).into_iter().map(|(key, entry, _)| (key, entry.fence)).collect()
    }

    /// A file that is content, and was not removed from the index, is never unlinked.
    fn check_unlink(&mut self, process: usize, file: &str) {
        self.log.push(Event::Note(format!("p{process} unlinks {file}")));
        for (key, entry, _) in self.index.page(None, 100) {
            let taken = self.removed.contains(&(key.clone(), entry.fence));
            assert!(taken || file_name(&key, &entry) != file, "content of {key:?} unlinked\n{}", self.history());
        }
    }

    fn apply(&mut self, process: usize, request: &Request) -> Answer {
        let before = self.current();
        let answer = self.index.apply(self.clock, request);
        let after = self.current();
        for (key, fence) in &before {
            if after.get(key) != Some(fence) {
                self.removed.insert((key.clone(), *fence));
            }
        }
        let cap = match self.index.apply(self.clock, &Request { cache: CACHE, op: Op::Info }).reply {
            Reply::Info(info) => (info.bounds.max_bytes, info.bytes + info.reserved),
            _ => (0, 0),
        };
        assert!(cap.0 == 0 || cap.1 <= cap.0, "{} bytes of {}\n{}", cap.1, cap.0, self.history());
        let exchange = Box::new((request.clone(), answer.clone()));
        self.log.push(Event::Asked { clock: self.clock, process, exchange });
        answer
    }
}

/// Yields to the other processes once.
async fn step() {
    let mut asked = false;
    std::future::poll_fn(|_| if std::mem::replace(&mut asked, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl Edge for SimEdge {
    type Disk = SimDisk;

    async fn ask(&self, request: Request) -> Result<Answer, Outage> {
        step().await;
        let lost = |what: &str| Err(Outage::Unavailable(what.to_owned()));
        let answer = {
            let mut world = self.shared.world();
            world.progress = true;
            let mut connection = self.connection.lock().unwrap();
            if connection.instance != world.instance {
                *connection = Connection { instance: world.instance, checked: false };
            }
            if !connection.checked && !crate::store::redis::needs_no_check(&request.op) {
                let open = Request { cache: request.cache, op: Op::Open { instance: world.instance } };
                let answer = world.apply(self.disk.process, &open);
                if answer.reply != Reply::Done {
                    return Ok(answer);
                }
                connection.checked = true;
            }
            let delayed = std::mem::take(&mut world.delay_next);
            if delayed || (world.faults && world.random.u16(..200) == 0) {
                if delayed || world.random.bool() {
                    let due = world.clock + world.random.u64(..2_000_000);
                    let late = Late { due, instance: world.instance, process: self.disk.process, request };
                    world.late.push(late);
                }
                return lost("the request was lost");
            }
            let answer = world.apply(self.disk.process, &request);
            if world.faults && world.random.u16(..100) == 0 {
                return lost("the answer was lost");
            }
            answer
        };
        step().await;
        Ok(answer)
    }

    async fn page(&self, cursor: Option<Vec<u8>>, count: usize) -> Result<Page, Outage> {
        step().await;
        let world = self.shared.world();
        let page = world.index.page(cursor.as_ref(), count);
        let next = if page.len() < count { None } else { page.last().map(|(key, ..)| key.clone()) };
        Ok((page, next))
    }

    async fn leases(&self) -> Result<Leases, Outage> {
        Ok(Leases::default())
    }

    fn instance(&self) -> u64 {
        self.connection.lock().unwrap().instance
    }

    async fn on_disk<R: Send + 'static>(&self, job: impl FnOnce(&SimDisk) -> R + Send + 'static) -> R {
        step().await;
        self.shared.world().progress = true;
        let result = job(&self.disk);
        step().await;
        result
    }

    async fn pause(&self, mut event: EventListener, longest: Duration) {
        let until = {
            let mut world = self.shared.world();
            let until = world.clock + longest.as_micros() as u64 + 1;
            world.sleepers.push(until);
            until
        };
        std::future::poll_fn(|context| {
            let over = self.shared.world().clock >= until;
            if over || Pin::new(&mut event).poll(context).is_ready() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.shared.world().progress = true;
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.shared.world().clock)
    }

    fn random(&self) -> u64 {
        self.shared.world().random.u64(..)
    }
}

struct Process {
    tasks: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
    disk: SimDisk,
    stalled_until: u64,
}

fn rules(random: &mut fastrand::Rng) -> Rules {
    Rules {
        lease: LEASE,
        check: Check::Always,
        on_outage: OnOutage::Fail,
        owner: "sim".to_owned(),
        namespace: "sim".to_owned(),
        bounds: Bounds { max_bytes: if random.bool() { 900 } else { 0 }, low_mark: 800, ..Bounds::default() },
        read_only: false,
        patience: Duration::from_secs(5),
    }
}

fn spawn(shared: &Shared, number: usize, rules: &Rules, operations: u32) -> Process {
    let fuse = {
        let mut world = shared.world();
        (world.faults && world.random.u8(..3) > 0).then(|| world.random.u32(..120))
    };
    let disk =
        SimDisk { shared: shared.clone(), process: number, fuse: Arc::new(Mutex::new(fuse)), dead: Arc::default() };
    let edge = SimEdge { shared: shared.clone(), disk: disk.clone(), connection: Mutex::default() };
    let engine = Arc::new(Engine::new(edge, rules.clone(), CACHE));
    let done = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let mut tasks: Vec<Pin<Box<dyn Future<Output = ()> + Send>>> = Vec::new();
    for _ in 0..2 {
        let (engine, shared, done) = (Arc::clone(&engine), shared.clone(), Arc::clone(&done));
        tasks.push(Box::pin(async move {
            for _ in 0..operations {
                operate(&engine, &shared, number).await;
            }
            done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }));
    }
    // The background task: renews the session, until nothing is left to do.
    let (engine, done) = (Arc::clone(&engine), Arc::clone(&done));
    tasks.push(Box::pin(async move {
        while done.load(std::sync::atomic::Ordering::Relaxed) < 2 {
            engine.edge.pause(engine.chores.added.listen(), LEASE / 4).await;
            engine.do_chores().await;
            engine.renew().await;
            engine.tidy_up().await;
        }
        engine.close().await;
    }));
    Process { tasks, disk, stalled_until: 0 }
}

/// One random operation of a user.
async fn operate(engine: &Engine<SimEdge>, shared: &Shared, process: usize) {
    let (what, key, patient, serial) = {
        let mut world = shared.world();
        let key = format!("k{}", world.random.usize(..KEYS)).into_bytes();
        // One of them has a key that cannot be decoded from its name.
        let key = if key == b"k4" { vec![b'L'; 300] } else { key };
        (world.random.u8(..20), key, world.random.bool(), world.random.u32(..))
    };
    let timeout = if patient { Duration::from_millis(1500) } else { Duration::ZERO };
    let content =
        format!("{}#p{process}#{serial}#{}", String::from_utf8_lossy(&key[..2]), "x".repeat(serial as usize % 150));
    let content = content.into_bytes();
    let doing = Doing::to("simulate", &key);
    let put = Put { timeout, size: Some(content.len() as u64), ..Put::default() };
    let acknowledge = |fence: u64, mode: Mode| {
        let mut world = shared.world();
        if mode == Mode::Create {
            world.created.insert((key.clone(), fence));
        }
        world.log.push(Event::Note(format!("p{process} has made {:?} {fence}", String::from_utf8_lossy(&key[..2]))));
        let twice = world.acknowledged.insert((key.clone(), fence), content.clone());
        assert!(twice.is_none(), "fence {fence} was used twice");
    };
    let result = match what {
        0..6 => match engine.read(doing, timeout, Vec::new()).await {
            Ok(read) => {
                let beginning = [&key[..2], b"#p"].concat();
                assert!(read.starts_with(&beginning), "{:?} is not content of {key:?}", String::from_utf8_lossy(&read));
                Ok(())
            }
            Err(error) => Err(error),
        },
        6..10 => {
            let mode = if what < 9 { Mode::Create } else { Mode::Replace };
            engine.put(doing, mode, content.clone(), &put).await.map(|entry| acknowledge(entry.fence, mode))
        }
        10..13 => match engine.begin(doing, Mode::Create, true, &put).await {
            Ok(Begun::Hit { opened, .. }) => {
                {
                    let mut world = shared.world();
                    world.stop_now |= world.random.u8(..6) == 0;
                }
                step().await;
                let now = engine.edge.elapsed();
                // What a lease protects stays, unless the lease or the index was lost.
                let world = shared.world();
                let file = file_name(&key, &opened.entry);
                let kept = opened.hold.as_ref().is_some_and(|hold| !hold.is_lost(now)) && world.losses == 0;
                let alive = world.index.sessions().any(|(id, until, _)| {
                    opened.hold.as_ref().is_some_and(|hold| hold.token.session == id) && until > world.clock
                });
                assert!(
                    !kept || !alive || world.files.contains_key(&file),
                    "{file} went while it was read\n{}",
                    world.history()
                );
                Ok(())
            }
            Ok(Begun::Draft(mut draft)) => {
                let parts = content.split_at(content.len() / 3);
                match engine.append(doing, &mut draft, parts.0.to_vec()).await {
                    Err(error) => {
                        engine.abort(*draft).await;
                        Err(error)
                    }
                    Ok(()) if serial % 7 == 0 => {
                        engine.abort(*draft).await;
                        Ok(())
                    }
                    // Dropped, like a cancelled task.
                    Ok(()) if serial % 7 == 1 => Ok(()),
                    Ok(()) => {
                        let keep = serial % 2 == 0;
                        engine
                            .commit(doing, *draft, parts.1.to_vec(), keep)
                            .await
                            .map(|made| acknowledge(made.entry.fence, Mode::Create))
                    }
                }
            }
            Err(error) => Err(error),
        },
        13 => engine.delete(doing).await.map(drop),
        14 => engine.done_or_missing(doing, Op::Touch { key: key.clone(), ttl: None }).await.map(drop),
        15 | 17 => engine.maintain(Doing::all("maintain"), 0..SHARDS).await.map(drop),
        16 => engine.evict_bytes(Doing::all("evict"), 200).await.map(drop),
        _ => {
            let heard = engine.flights.listen(b"nobody");
            engine.edge.pause(heard, Duration::from_millis(u64::from(serial % 400))).await;
            Ok(())
        }
    };
    if let Err(error) = result {
        let usual = [
            Code::Missing,
            Code::Exists,
            Code::Busy,
            Code::Timeout,
            Code::LeaseLost,
            Code::Unavailable,
            Code::NoSpace,
            Code::Io,
        ];
        assert!(usual.contains(&error.code()), "{error}\n{}", shared.world().history());
    }
}

fn run(seed: u64) -> (u64, usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let rules = rules(&mut random);
    let shared = Shared::new(random, true);
    let losses = shared.world().random.bool();
    let mut processes: Vec<Process> = (0..4).map(|number| spawn(&shared, number, &rules, 12)).collect();
    let (mut spawned, mut steps, mut idle) = (4, 0u64, 0);
    while !processes.is_empty() {
        steps += 1;
        assert!(steps < 400_000, "no end in sight\n{}", shared.world().history());
        let at = {
            let mut world = shared.world();
            world.clock += world.random.u64(..60);
            world.deliver_late();
            if losses && world.random.u16(..3000) == 0 {
                world.losses += 1;
                world.instance += 1;
                let snapshot = world.snapshot.take().filter(|_| world.losses.is_multiple_of(2));
                let kind = if snapshot.is_some() { "falls back" } else { "is lost" };
                world.log.push(Event::Note(format!("the index {kind}")));
                world.index = snapshot.unwrap_or_default();
            }
            if world.random.u16(..500) == 0 {
                world.snapshot = Some(world.index.clone());
            }
            world.random.usize(..processes.len())
        };
        let process = &mut processes[at];
        let mut world = shared.world();
        if process.stalled_until > world.clock {
            idle += 1;
        } else {
            if world.random.u16(..2000) == 0 {
                let longer_than_the_lease = world.random.u64(..3_000_000);
                process.stalled_until = world.clock + longer_than_the_lease;
                let (number, until) = (process.disk.process, process.stalled_until);
                world.log.push(Event::Note(format!("p{number} is stopped until {until}")));
                world.sleepers.push(until);
                continue;
            }
            if world.random.u16(..3000) == 0 {
                process.disk.dead.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            world.progress = false;
            let task = world.random.usize(..process.tasks.len());
            drop(world);
            let finished = process.tasks[task].as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
            if finished {
                drop(process.tasks.swap_remove(task));
            }
            world = shared.world();
            idle = if world.progress || finished { 0 } else { idle + 1 };
            if std::mem::take(&mut world.stop_now) {
                // Usually for longer than a lease, so that others consider it dead.
                process.stalled_until = world.clock + world.random.u64(..4_000_000);
                let (number, until) = (process.disk.process, process.stalled_until);
                world.log.push(Event::Note(format!("p{number} is stopped until {until}")));
                world.sleepers.push(until);
            }
        }
        if idle > 12 * processes.len() {
            // All processes wait: time passes.
            let clock = world.clock;
            world.sleepers.retain(|until| *until > clock);
            world.clock = world.sleepers.iter().copied().min().unwrap_or(clock + 1000);
            idle = 0;
        }
        drop(world);
        let process = &processes[at];
        let died = process.disk.dead.load(std::sync::atomic::Ordering::Relaxed);
        if died || process.tasks.is_empty() {
            let number = processes.remove(at).disk.process;
            shared.world().log.push(Event::Note(format!("p{number} {}", if died { "dies" } else { "is done" })));
            if died && spawned < 12 {
                processes.push(spawn(&shared, spawned, &rules, 8));
                spawned += 1;
            }
        }
    }
    at_rest(&shared, &rules);
    let acknowledged = shared.world().acknowledged.len();
    (steps, acknowledged)
}

#[test]
fn a_request_that_comes_late_keeps_nobody_out_for_long() {
    let mut random = fastrand::Rng::with_seed(1);
    let rules = rules(&mut random);
    let shared = Shared::new(random, false);
    let engine = |process| {
        let disk = SimDisk { shared: shared.clone(), process, fuse: Arc::default(), dead: Arc::default() };
        Engine::new(SimEdge { shared: shared.clone(), disk, connection: Mutex::default() }, rules.clone(), CACHE)
    };
    let (first, second) = (engine(1), engine(2));
    let put = Put::default();
    let create = async |engine: &Engine<SimEdge>| {
        engine
            .put(Doing::to("create", b"key"), Mode::Create, b"content".to_vec(), &put)
            .await
            .map_err(|error| error.code())
    };
    finish(&shared, async {
        // Renews its session.
        let other = first.begin(Doing::to("create", b"other"), Mode::Create, false, &put).await.unwrap();
        shared.world().delay_next = true;
        assert_eq!(create(&first).await.unwrap_err(), Code::Unavailable);
        first.do_chores().await;
        let due = shared.world().late[0].due;
        shared.world().clock = due;
        shared.world().deliver_late();
        assert_eq!(create(&second).await.unwrap_err(), Code::Busy);
        first.tidy_up().await;
        first.do_chores().await;
        create(&second).await.unwrap();
        drop(other);
    });
}

#[test]
fn a_builder_that_needs_long_for_a_shard_keeps_its_claim() {
    let mut random = fastrand::Rng::with_seed(1);
    let rules = rules(&mut random);
    let shared = Shared::new(random, false);
    let disk = SimDisk { shared: shared.clone(), process: 1, fuse: Arc::default(), dead: Arc::default() };
    let edge = SimEdge { shared: shared.clone(), disk, connection: Mutex::default() };
    let engine = Engine::new(edge, rules, CACHE);
    let claim = || {
        let session = Session { id: 99, lease: LEASE.as_micros() as u64, new: true, owner: "other".to_owned() };
        let op = Op::Rebuild { session, instance: 1, bounds: Bounds::default(), wipe: false };
        shared.world().apply(2, &Request { cache: CACHE, op }).reply
    };
    let begin = || {
        let mut building = Box::pin(engine.rebuild(Doing::all("open"), false, None));
        while engine.building.to_renew(engine.edge.elapsed()).is_none() {
            assert!(building.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        building
    };
    let pass = |quarters| {
        for _ in 0..quarters {
            shared.world().clock += LEASE.as_micros() as u64 / 4;
            finish(&shared, engine.renew());
        }
    };
    let building = begin();
    pass(12);
    assert_eq!(claim(), Reply::Rebuilding);
    finish(&shared, async {
        building.await.unwrap();
        engine.info(Doing::all("info")).await.unwrap();
    });
    // A process that hangs is eventually replaced, a cancelled one as soon as its lease has expired.
    for hangs in [true, false] {
        shared.world().index = Index::default();
        let mut building = Some(begin());
        if !hangs {
            building = None;
        }
        pass(if hangs { 60 * 4 * 1000 / LEASE.as_millis() as usize + 8 } else { 6 });
        assert_eq!(claim(), Reply::Changed, "{hangs}");
        drop(building);
    }
}

/// Invariants after all activity has ended and dead sessions have expired.
fn at_rest(shared: &Shared, rules: &Rules) {
    {
        let mut world = shared.world();
        world.faults = false;
        world.clock += 3 * LEASE.as_micros() as u64 + 10_000_000;
    }
    let disk = SimDisk { shared: shared.clone(), process: 99, fuse: Arc::default(), dead: Arc::default() };
    let edge = SimEdge { shared: shared.clone(), disk, connection: Mutex::default() };
    let engine = Engine::new(edge, rules.clone(), CACHE);
    let doing = Doing::all("verify");
    finish(shared, async {
        engine.maintain(doing, 0..SHARDS).await.unwrap();
        shared.world().clock += 10_000_000;
        engine.maintain(doing, 0..SHARDS).await.unwrap();
        let found = engine.verify(doing, Depth::Digests, false, &mut |_, _| true).await.unwrap();
        assert_eq!(found.problems, [], "{}", shared.world().history());
        let info = engine.info(doing).await.unwrap();
        let nothing = (info.writers, info.readers, info.reserved, info.garbage);
        assert_eq!(nothing, (0, 0, 0, 0), "{}", shared.world().history());
    });
    let world = shared.world();
    assert!(world.temporaries.is_empty(), "{:?}\n{}", world.temporaries.keys(), world.history());
    // No existing content was made again: content was created after all older content had been removed.
    for (key, fence) in &world.created {
        let mut older = world.acknowledged.keys().filter(|(other, older)| other == key && older < fence);
        let still_there = older.find(|generation| !world.removed.contains(*generation));
        assert!(still_there.is_none(), "{still_there:?} was there when {fence} was created\n{}", world.history());
    }
    // No acknowledged content is lost: it exists, or something newer does, or it was removed.
    let current = world.current();
    for ((key, fence), content) in &world.acknowledged {
        let there = current.get(key).is_some_and(|now| now >= fence);
        let gone = world.removed.contains(&(key.clone(), *fence));
        assert!(
            there || gone,
            "{:?} {fence} was acknowledged and is lost\n{}",
            String::from_utf8_lossy(&key[..2]),
            world.history()
        );
        // No older content is restored in its place.
        let newest = current.get(key).is_none_or(|now| now >= fence);
        assert!(
            newest,
            "{:?} {fence} was acknowledged, and something older is there\n{}",
            String::from_utf8_lossy(&key[..2]),
            world.history()
        );
        if current.get(key) == Some(fence) {
            let entry = world.index.entry(key).unwrap();
            assert_eq!(&world.files[&file_name(key, entry)], content, "other content than was acknowledged");
        }
    }
}

/// Runs a future to completion, alone.
fn finish(shared: &Shared, future: impl Future<Output = ()>) {
    let mut future = std::pin::pin!(future);
    for _ in 0..1_000_000 {
        shared.world().clock += 100;
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
    }
    panic!("no end in sight");
}

#[test]
fn nothing_is_lost_torn_or_made_twice_whatever_happens() {
    if let Some(seed) = std::env::var("REDGREASE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        run(seed);
        return;
    }
    let first = fastrand::u64(..1 << 40);
    let rounds = std::env::var("REDGREASE_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(150);
    let (mut steps, mut acknowledged) = (0, 0);
    for seed in first..first + rounds {
        let result = std::panic::catch_unwind(|| run(seed));
        let (more, contents) = result.unwrap_or_else(|panic| {
            eprintln!("REDGREASE_TEST_SEED={seed}");
            std::panic::resume_unwind(panic)
        });
        steps += more;
        acknowledged += contents;
    }
    println!("{steps} steps, {acknowledged} contents");
    assert!(
        acknowledged as u64 > 2 * rounds,
        "only {acknowledged} contents were made: the simulation does not simulate"
    );
}
