//! Several shards, their workers, clients and the network between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use redgrease_core::codec::{Value, Writer};
use redgrease_core::command::{Action, Function, PyExecute};
use redgrease_core::id::{Database, ShardId, WorkerNo};
use redgrease_core::render::Reply;
use redgrease_core::saved::Change;
use redgrease_engine::cluster::topology::{Address, Shard as Described, Topology};
use redgrease_engine::effect::Argv;
use redgrease_engine::frames::Frames;
use redgrease_engine::id::{ClientNo, LinkNo, TimerNo};
use redgrease_engine::input::LinkFailure;
use redgrease_engine::input::{Caller, Command, Inside, LinkReply, Slice};
use redgrease_engine::planted::Bug;
use redgrease_engine::reader::Reader;
use redgrease_engine::{
    Capabilities, Config, Effect, Engine, Fact, Input, Machine, Question, ServerState, Situation, Work,
};

use crate::plans;
use crate::random::Random;
use crate::worker::Worker;

/// What is not true.
pub struct Violation {
    /// What should have been.
    pub invariant: &'static str,
    /// What was.
    pub text: String,
}

/// Ends the run: something is not true that must be.
pub fn violated(invariant: &'static str, text: impl Into<String>) -> ! {
    std::panic::panic_any(Violation { invariant, text: text.into() })
}

/// A connection from one shard to another.
struct Connection {
    to: usize,
    opens_ms: Option<u64>,
    requests: VecDeque<(u64, Argv)>,
    replies: VecDeque<(u64, LinkReply)>,
}

/// What a client asked for.
pub enum Asked {
    /// A run, with what it has to return if nothing goes wrong.
    Run { expected: Vec<Vec<u8>>, began_ms: u64 },
    /// A registration of a session.
    Register { name: String, number: u64 },
    /// The removal of a registration.
    Unregister { name: String },
    /// A trigger.
    Trigger { began_ms: u64 },
    /// A command of another shard.
    Peer { link: (usize, LinkNo) },
}

impl Connection {
    /// When something arrives on it next.
    fn arrives_ms(&self) -> u64 {
        let first = [self.opens_ms, self.requests.front().map(|(at, _)| *at), self.replies.front().map(|(at, _)| *at)];
        first.into_iter().flatten().min().unwrap_or(u64::MAX)
    }
}

/// One shard.
pub struct Shard {
    pub id: ShardId,
    pub engine: Engine,
    pub up: bool,
    pub stopped_until_ms: u64,
    keys: Vec<String>,
    saved: Option<Vec<u8>>,
    timers: BTreeSet<(u64, TimerNo)>,
    workers: BTreeMap<WorkerNo, Worker>,
    starting: Vec<(u64, WorkerNo)>,
    clients: BTreeMap<ClientNo, Asked>,
    rows: BTreeMap<ClientNo, Vec<Reply>>,
    next_client: u64,
    links: BTreeMap<LinkNo, Connection>,
    /// Nothing arrives on its connections before.
    arrives_ms: u64,
    runs: u64,
    loading: bool,
}

/// The world.
pub struct World {
    pub now_ms: u64,
    pub random: Random,
    pub shards: Vec<Shard>,
    /// How slow the network is, in milliseconds at most.
    pub latency_ms: u64,
    /// Nothing goes wrong any more.
    pub calm: bool,
    /// Number of things that went wrong.
    pub faults: u64,
    /// Slots of each shard, as first and last.
    slots: Vec<(u16, u16)>,
    /// Sessions that every shard has acknowledged, by name, and that nobody has removed since they were registered.
    pub acknowledged: BTreeSet<String>,
    /// Sessions that some shards get when they are back, and the shard where they were registered, which has not restarted since.
    pub on_its_way: BTreeMap<String, usize>,
    /// Names of sessions of which a registration was refused, or may have been. It may have replaced another one of that name, on
    /// a shard with a clock that is behind also one that was made later.
    pub refused: BTreeSet<String>,
    /// The number of the last registration of each name: an earlier one may be replaced, and what replaces it be refused.
    latest: BTreeMap<String, u64>,
    /// Clients have registered so many sessions.
    registers: u64,
    /// So many they had when one last asked for the removal of the session of that name, or was answered: it may remove what
    /// is not acknowledged yet.
    removals: BTreeMap<String, u64>,
    /// Messages between shards, and their bytes.
    pub sent: [u64; 2],
    /// Answers by kind: completed runs, runs with errors, registrations.
    pub counts: [u64; 3],
    pub trace: Option<VecDeque<String>>,
    pub prints: bool,
    bug: Option<Bug>,
    /// The registrations of each shard, for the trace.
    last_seen: BTreeMap<usize, Vec<(String, String)>>,
}

fn caller() -> Caller {
    Caller { user: Some("default".into()), database: Database(0), administers: true, inside: Inside::Nothing }
}

impl World {
    /// A cluster of a random number of shards, all down and linked with nobody.
    pub fn new(seed: u64, shards_max: u64, bug: Option<Bug>) -> World {
        let mut random = Random(seed);
        let count = match random.below(20) {
            0 => random.between(3, shards_max),
            _ => random.between(3, 7),
        } as usize;
        let latency_ms = random.pick(&[0, 1, 20, 300]);
        let mut world = World::of(random, count, latency_ms, bug);
        let keys = world.random.below(if count > 10 { 60 } else { 200 });
        for number in 0..keys {
            let letter = char::from(b'a' + (world.random.below(20) as u8));
            world.add_key(format!("{letter}{number}"));
        }
        world
    }

    /// Gives a key to the shard that has its slot.
    pub fn add_key(&mut self, key: String) {
        let slot = plans::slot(&key);
        let owner = self.slots.iter().position(|(first, last)| *first <= slot && slot <= *last).unwrap();
        self.shards[owner].keys.push(key);
    }

    /// So many shards without keys, all down and linked with nobody.
    pub fn of(random: Random, count: usize, latency_ms: u64, bug: Option<Bug>) -> World {
        let slots: Vec<(u16, u16)> = (0..count)
            .map(|index| ((index * 16384 / count) as u16, ((index + 1) * 16384 / count - 1) as u16))
            .collect();
        let mut world = World {
            now_ms: 0,
            shards: Vec::new(),
            latency_ms,
            calm: false,
            faults: 0,
            slots,
            acknowledged: BTreeSet::new(),
            on_its_way: BTreeMap::new(),
            refused: BTreeSet::new(),
            latest: BTreeMap::new(),
            registers: 0,
            removals: BTreeMap::new(),
            counts: [0; 3],
            sent: [0; 2],
            trace: None,
            prints: false,
            bug,
            last_seen: BTreeMap::new(),
            random,
        };
        for index in 0..count {
            let id = ShardId::padded(format!("{:02x}", index + 1).as_bytes()).unwrap();
            let engine = world.new_engine(index, 0);
            world.shards.push(Shard {
                id,
                engine,
                up: false,
                stopped_until_ms: 0,
                keys: Vec::new(),
                saved: None,
                timers: BTreeSet::new(),
                workers: BTreeMap::new(),
                starting: Vec::new(),
                clients: BTreeMap::new(),
                rows: BTreeMap::new(),
                next_client: 0,
                links: BTreeMap::new(),
                arrives_ms: u64::MAX,
                runs: 0,
                loading: false,
            });
        }
        world
    }

    fn new_engine(&mut self, index: usize, runs: u64) -> Engine {
        let config = Config::new(Machine { cores: 2, memory_bytes: 0 });
        let run_id = format!("{:032x}", 0xabc0_0000 + index as u64 * 1000 + runs);
        let mut engine = Engine::new(config, Ok("python".to_owned()), run_id, Capabilities { jobs: true })
            .with_time_of_day(0, 1_700_000_000_000 + self.random.below(5000));
        if let Some(bug) = self.bug {
            engine.plant(bug);
        }
        engine
    }

    /// Writes a line of the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let Some(trace) = &mut self.trace else { return };
        let mut line = format!("{:>7} ms {}", self.now_ms, line());
        line.truncate((0..=400.min(line.len())).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0));
        if self.prints {
            println!("{line}");
        }
        if trace.len() >= 400 {
            trace.pop_front();
        }
        trace.push_back(line);
    }

    /// Starts the server of a shard, with what it had saved.
    pub fn start(&mut self, index: usize) {
        if self.shards[index].up {
            return;
        }
        self.shards[index].runs += 1;
        let runs = self.shards[index].runs;
        let engine = self.new_engine(index, runs);
        let shard = &mut self.shards[index];
        shard.engine = engine;
        shard.up = true;
        shard.stopped_until_ms = 0;
        let saved = shard.saved.clone();
        self.note(|| format!("shard {index} starts"));
        self.hand_in(index, Input::Started);
        if let Some(saved) = saved {
            self.shards[index].loading = true;
            self.hand_in(index, Input::LoadingBegan);
            self.hand_in(index, Input::Change(Change::decode(&saved).unwrap()));
            self.shards[index].loading = false;
        }
        let topology = self.topology(index);
        self.hand_in(index, Input::Topology(topology));
    }

    /// `kill -9` of the server of a shard, with all of its workers.
    pub fn kill(&mut self, index: usize) {
        self.note(|| format!("shard {index} is killed"));
        // It may start again with older data.
        self.on_its_way.retain(|_, made_on| *made_on != index);
        let shard = &mut self.shards[index];
        self.refused.extend(shard.clients.values().filter_map(|asked| match asked {
            Asked::Register { name, .. } => Some(name.clone()),
            _ => None,
        }));
        shard.up = false;
        shard.timers.clear();
        shard.workers.clear();
        shard.starting.clear();
        shard.clients.clear();
        shard.rows.clear();
        shard.links.clear();
        self.cut_to(index);
    }

    /// Kills one worker of a shard.
    pub fn kill_worker(&mut self, index: usize) {
        let workers: Vec<WorkerNo> = self.shards[index].workers.keys().copied().collect();
        if workers.is_empty() || !self.shards[index].up {
            return;
        }
        let worker = self.random.pick(&workers);
        self.note(|| format!("worker {worker} of shard {index} is killed"));
        self.shards[index].workers.remove(&worker);
        self.hand_in(index, Input::ConnectionClosed(worker));
        let how = Some("was killed by signal 9 (SIGKILL)".to_owned());
        self.hand_in(index, Input::ProcessEnded { worker, how });
    }

    /// All connections to a shard break.
    fn cut_to(&mut self, target: usize) {
        for from in 0..self.shards.len() {
            let broken: Vec<LinkNo> = self.shards[from]
                .links
                .iter()
                .filter(|(_, connection)| connection.to == target)
                .map(|(link, _)| *link)
                .collect();
            for link in broken {
                self.break_link(from, link);
            }
        }
    }

    /// One connection breaks: what is under way is lost.
    pub fn break_link(&mut self, from: usize, link: LinkNo) {
        if self.shards[from].links.remove(&link).is_some() {
            let failure = LinkFailure::Lost("connection reset".to_owned());
            self.hand_in(from, Input::LinkClosed { link, failure });
        }
    }

    /// A connection of a shard.
    pub fn any_link(&mut self, from: usize) -> Option<LinkNo> {
        let links: Vec<LinkNo> = self.shards[from].links.keys().copied().collect();
        (!links.is_empty()).then(|| self.random.pick(&links))
    }

    fn topology(&self, index: usize) -> Topology {
        let describe = |(at, shard): (usize, &Shard)| Described {
            id: shard.id,
            address: Address { host: at.to_string(), port: 7000, unix_socket: None, password: None },
            slots: vec![self.slots[at]],
        };
        Topology { me: self.shards[index].id, shards: self.shards.iter().enumerate().map(describe).collect() }
    }

    fn situation(&self, index: usize) -> Situation {
        let loading = self.shards[index].loading;
        let server = ServerState { cluster: true, loading, ..ServerState::default() };
        Situation { now_ms: self.now_ms, server }
    }

    /// Hands an input in, and performs what comes of it.
    fn hand_in(&mut self, index: usize, input: Input<'_>) {
        let mut effects = Vec::new();
        self.handle(index, input, &mut effects);
        while let Some(effect) = effects.pop() {
            self.note(|| format!("  {index} -> {effect:?}"));
            if let Some(input) = self.perform(index, effect) {
                self.handle(index, input, &mut effects);
            }
        }
    }

    fn handle(&mut self, index: usize, input: Input<'_>, effects: &mut Vec<Effect>) {
        self.note(|| format!("{index}: {input:?}"));
        let situation = self.situation(index);
        let before = effects.len();
        self.shards[index].engine.handle(&situation, input, effects);
        effects[before..].reverse();
        if self.trace.is_some() {
            let now = registrations(&self.shards[index].engine);
            if self.last_seen.insert(index, now.clone()) != Some(now.clone()) {
                self.note(|| format!("  {index} has registrations {now:?}"));
            }
        }
    }

    fn latency(&mut self) -> u64 {
        if self.latency_ms == 0 { 0 } else { self.random.below(self.latency_ms + 1) }
    }

    fn perform(&mut self, index: usize, effect: Effect) -> Option<Input<'static>> {
        match effect {
            Effect::Reply { client, answer } => self.answered(index, client, answer.into_reply()),
            Effect::Row { client, row } => self.shards[index].rows.entry(client).or_default().push(row),
            Effect::EndRows(client) => {
                let rows = self.shards[index].rows.remove(&client).unwrap_or_default();
                self.answered(index, client, Reply::Array(rows));
            }
            Effect::StartWorker { worker, .. } => {
                let at = self.now_ms + self.random.below(30);
                self.shards[index].starting.push((at, worker));
            }
            Effect::Kill(worker) => {
                self.shards[index].workers.remove(&worker)?;
                return Some(Input::ProcessEnded { worker, how: Some("was killed by signal 9 (SIGKILL)".into()) });
            }
            Effect::Close { worker, .. } => {
                self.shards[index].workers.remove(&worker);
            }
            Effect::SetTimer { timer, ms } => {
                let at = self.now_ms.saturating_add(ms);
                self.shards[index].timers.insert((at, timer));
            }
            Effect::Ask { question, about } => return Some(Input::Answer { question, fact: fact(&about) }),
            Effect::ReadSlice { execution, reader, .. } => {
                let (reader, slice) = self.read(index, reader);
                return Some(Input::SliceRead { execution, reader, slice });
            }
            Effect::Replicate(change) => {
                if Change::decode(&change).is_err() {
                    violated("replicas can read changes", "a change is not readable");
                }
                // The append-only file has every change; a data file is written from time to time.
                if self.random.chance(70) {
                    self.shards[index].saved = self.shards[index].engine.saved();
                }
            }
            Effect::OpenLink { link, address } => {
                let to: usize = address.host.parse().unwrap();
                let at = self.now_ms + self.latency();
                let connection =
                    Connection { to, opens_ms: Some(at), requests: VecDeque::new(), replies: VecDeque::new() };
                let shard = &mut self.shards[index];
                shard.links.insert(link, connection);
                shard.arrives_ms = shard.arrives_ms.min(at);
            }
            Effect::SendOnLink { link, command } => {
                let at = self.now_ms + self.latency();
                self.sent[0] += 1;
                self.sent[1] += command.args().iter().map(|arg| arg.len() as u64).sum::<u64>();
                let shard = &mut self.shards[index];
                shard.arrives_ms = shard.arrives_ms.min(at);
                let connection = shard.links.get_mut(&link);
                let connection =
                    connection.unwrap_or_else(|| violated("commands are sent on open links", format!("{link}")));
                if connection.opens_ms.is_some() {
                    violated("commands are sent on open links", format!("{link}"));
                }
                let at = connection.requests.back().map_or(at, |(last, _)| at.max(*last));
                connection.requests.push_back((at, command));
            }
            Effect::CloseLink(link) => {
                self.shards[index].links.remove(&link);
            }
            Effect::ReadTopology => return Some(Input::Topology(self.topology(index))),
            Effect::Then(step) => return Some(Input::Then(step)),
            Effect::DrainOutput { worker, session } => return Some(Input::OutputDrained { worker, session }),
            Effect::Log { text, .. } if text.contains("INTERNAL") => violated("nothing internal is wrong", text),
            _ => {}
        }
        None
    }

    fn read(&mut self, index: usize, reader: Reader) -> (Reader, Slice) {
        let Reader::Scan(mut scan) = reader else { unreachable!("functions read names of keys") };
        let keys = &self.shards[index].keys;
        let from: usize = String::from_utf8_lossy(&scan.cursor).parse().unwrap();
        let until = (from + 1 + self.random.below(40) as usize).min(keys.len());
        let mut writer = Writer::new();
        keys[from..until].iter().for_each(|key| writer.raw(key.as_bytes()));
        scan.cursor = until.to_string().into_bytes();
        scan.more = until < keys.len();
        let ended = !scan.more;
        let slice = Slice { count: (until - from) as u64, records: writer.into_bytes(), ended, ..Slice::default() };
        (Reader::Scan(scan), slice)
    }
}

/// Whether a registration was answered with the shards that get it later, and has no other problem.
fn gets_later(reply: &Reply) -> bool {
    let is_later =
        |row: &Reply| matches!(row, Reply::Error(text) if text.ends_with("it gets the change when it is back"));
    matches!(reply, Reply::Array(rows) if !rows.is_empty() && rows.iter().all(is_later))
}

fn fact(about: &Question) -> Fact {
    match about {
        Question::Command(_) => Fact::Command(None),
        Question::Protection => Fact::Protection(Default::default()),
        Question::AdoptProcess { .. } | Question::MayRead { .. } | Question::MayRun { .. } => Fact::Permission(Ok(())),
        Question::ResidentBytes(_) | Question::TotalBytes(_) => Fact::Number(Some(1 << 20)),
        Question::Progress(_) => Fact::Progress { unfinished_bytes: 0, stopped: false },
        Question::ClientIsGone(_) => Fact::Flag(false),
        Question::ProcessIsGone(_) | Question::DirectoriesExist(_) => Fact::Flag(true),
        Question::DatabaseSize(_) => Fact::Number(None),
        other => unreachable!("nothing asks for {other:?}"),
    }
}

// Clients.
impl World {
    fn client(&mut self, index: usize, asked: Asked) -> ClientNo {
        let shard = &mut self.shards[index];
        shard.next_client += 1;
        let client = ClientNo(shard.next_client);
        shard.clients.insert(client, asked);
        client
    }

    /// A client runs a plan on a shard.
    pub fn run(&mut self, index: usize) {
        if !self.shards[index].up {
            return;
        }
        let plan = plans::draw(&mut self.random);
        self.run_plan(index, &plan);
    }

    /// A client runs that plan on a shard.
    pub fn run_plan(&mut self, index: usize, plan: &[u8]) {
        let keys = self.shards.iter().flat_map(|shard| shard.keys.iter().map(|key| Value::text(key.as_str())));
        let expected = plans::expected(plan, keys);
        let began_ms = self.now_ms;
        let client = self.client(index, Asked::Run { expected, began_ms });
        self.execute(index, client, Action::Run, plan, None);
    }

    /// A client registers a function with a trigger.
    pub fn register(&mut self, index: usize) {
        if !self.shards[index].up {
            return;
        }
        let number = self.random.below(6);
        let trigger = format!("trigger{}", self.random.below(4) + number / 3 * 10);
        self.register_named(index, &format!("session{number}"), &trigger);
    }

    /// The same, of a session with this name and this trigger.
    pub fn register_named(&mut self, index: usize, name: &str, trigger: &str) {
        let mode = self.random.pick(&["async", "async", "async_local"]);
        let plan = plans::command(trigger, mode, &mut self.random);
        self.acknowledged.remove(name);
        self.on_its_way.remove(name);
        self.registers += 1;
        self.latest.insert(name.to_owned(), self.registers);
        let client = self.client(index, Asked::Register { name: name.to_owned(), number: self.registers });
        self.execute(index, client, Action::Register, &plan, Some(name));
    }

    fn execute(&mut self, index: usize, client: ClientNo, action: Action, plan: &[u8], id: Option<&str>) {
        let arguments = PyExecute {
            script: b"function",
            function: Some(Function { action, plan, callbacks: b"callbacks" }),
            unblocking: false,
            id,
            description: None,
            upgrade: id.is_some(),
            replace_with: None,
            force_reinstall: false,
            python: None,
            requirements: vec![],
        };
        let new_id = format!("{:040}", self.shards[index].next_client);
        let command = Command::PyExecute { arguments, new_id: &new_id, tagged: true };
        self.hand_in(index, Input::Command { client, caller: &caller(), command });
    }

    /// A client removes a registration.
    pub fn unregister(&mut self, index: usize) {
        if !self.shards[index].up {
            return;
        }
        let registered = registrations(&self.shards[index].engine);
        if registered.is_empty() {
            return;
        }
        let (name, id) = registered[self.random.below(registered.len() as u64) as usize].clone();
        self.removes(name.clone());
        let client = self.client(index, Asked::Unregister { name });
        let command = Command::Unregister { registration: id.as_bytes(), abort_pending: false };
        self.hand_in(index, Input::Command { client, caller: &caller(), command });
    }

    fn removes(&mut self, name: String) {
        self.acknowledged.remove(&name);
        self.on_its_way.remove(&name);
        self.removals.insert(name, self.registers);
    }

    /// A client triggers a function.
    pub fn trigger(&mut self, index: usize) {
        if !self.shards[index].up {
            return;
        }
        let name = format!("trigger{}", self.random.below(4) + self.random.below(2) * 10);
        let began_ms = self.now_ms;
        let client = self.client(index, Asked::Trigger { began_ms });
        let args: [&[u8]; 2] = [name.as_bytes(), b"x"];
        self.hand_in(
            index,
            Input::Command { client, caller: &caller(), command: Command::Trigger { args: &args, tagged: true } },
        );
    }

    fn answered(&mut self, index: usize, client: ClientNo, reply: Reply) {
        let asked = self.shards[index].clients.remove(&client);
        let asked = asked.unwrap_or_else(|| violated("each client is answered once", format!("{client}: {reply:?}")));
        self.note(|| format!("  {index} answers {client}: {reply:?}"));
        match asked {
            Asked::Run { expected, began_ms } => self.run_answered(&expected, began_ms, &reply),
            Asked::Register { name, number } => {
                let is_ok = reply == Reply::Simple("OK".into());
                self.counts[2] += u64::from(is_ok);
                if !is_ok && !gets_later(&reply) {
                    self.refused.insert(name.clone());
                }
                if self.removals.get(&name).is_none_or(|until| *until < number) {
                    if is_ok {
                        self.acknowledged.insert(name);
                    } else if gets_later(&reply) && self.latest.get(&name) == Some(&number) {
                        self.on_its_way.insert(name, index);
                    }
                }
            }
            Asked::Unregister { name } => self.removes(name),
            Asked::Trigger { began_ms } => {
                self.check_time(began_ms);
                let expected = [1, self.shards.len() as i64].map(|count| Value::Int(count).encode());
                if let Reply::Array(results) = &reply
                    && !matches!(results.as_slice(), [Reply::Bulk(result)] if expected.contains(result))
                {
                    violated("a trigger counts one record of each shard", format!("{reply:?}"));
                }
            }
            Asked::Peer { link: (from, link) } => {
                let at = self.now_ms + self.latency();
                let shard = &mut self.shards[from];
                if let Some(connection) = shard.links.get_mut(&link) {
                    shard.arrives_ms = shard.arrives_ms.min(at);
                    let reply = match reply {
                        Reply::Simple(text) => LinkReply::Status(text.into_bytes()),
                        Reply::Bulk(bytes) => LinkReply::Bulk(bytes),
                        Reply::Error(text) => LinkReply::Error(text.into_bytes()),
                        _ => LinkReply::Other,
                    };
                    let at = connection.replies.back().map_or(at, |(last, _)| at.max(*last));
                    connection.replies.push_back((at, reply));
                }
            }
        }
    }

    fn check_time(&self, began_ms: u64) {
        // A worker's wait, the silence of a shard that was stopped, and some time for each message.
        let most = 90_000 + self.latency_ms * 200;
        if self.now_ms - began_ms > most {
            violated("each command ends within its deadline", format!("{} ms", self.now_ms - began_ms));
        }
    }

    fn run_answered(&mut self, expected: &[Vec<u8>], began_ms: u64, reply: &Reply) {
        self.check_time(began_ms);
        let Reply::Array(parts) = reply else {
            self.counts[1] += 1;
            if !matches!(reply, Reply::Error(_)) || self.faults == 0 {
                violated("a run is answered with its results", format!("{reply:?}"));
            }
            return;
        };
        let [Reply::Array(results), Reply::Array(errors)] = parts.as_slice() else {
            violated("a run is answered with results and errors", format!("{reply:?}"));
        };
        if !errors.is_empty() {
            self.counts[1] += 1;
            if self.faults == 0 {
                let texts = errors.iter().map(|error| match error {
                    Reply::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
                    other => format!("{other:?}"),
                });
                violated("a run without faults has no errors", texts.collect::<Vec<_>>().join("; "));
            }
            return;
        }
        let mut results: Vec<Vec<u8>> = results
            .iter()
            .map(|result| match result {
                Reply::Bulk(bytes) => bytes.clone(),
                other => violated("results are tagged", format!("{other:?}")),
            })
            .collect();
        results.sort();
        self.counts[0] += 1;
        if results != expected {
            violated(
                "results are those of one server",
                format!("{} instead of {}: {results:?} {expected:?}", results.len(), expected.len()),
            );
        }
    }
}

/// Sessions with the identifiers of their registrations.
pub fn registrations(engine: &Engine) -> Vec<(String, String)> {
    let Some(Ok(Change::All { sessions, .. })) = engine.saved().map(|saved| Change::decode(&saved)) else {
        return Vec::new();
    };
    let ids = sessions.iter().flat_map(|session| {
        session.registrations.iter().map(|found| {
            (session.name.clone(), format!("{}-{}", found.shard.clone().unwrap_or_default(), found.number))
        })
    });
    ids.collect()
}

// Time.
impl World {
    /// Lets everything happen that happens in this millisecond, then goes on to the next one in which something does.
    pub fn tick(&mut self) {
        let mut moved = true;
        let mut rounds = 0;
        while moved {
            rounds += 1;
            if rounds > 5000 {
                violated("a millisecond ends", String::new());
            }
            moved = false;
            for index in 0..self.shards.len() {
                moved |= self.network(index);
            }
            for index in 0..self.shards.len() {
                moved |= self.turn(index);
            }
        }
        let next = self.next_event();
        self.now_ms = next.clamp(self.now_ms + 1, self.now_ms + 500);
    }

    fn runs(&self, index: usize) -> bool {
        self.shards[index].up && self.shards[index].stopped_until_ms <= self.now_ms
    }

    fn next_event(&self) -> u64 {
        let mut next = self.now_ms + 500;
        for shard in &self.shards {
            if !shard.up {
                continue;
            }
            if shard.stopped_until_ms > self.now_ms {
                next = next.min(shard.stopped_until_ms);
                continue;
            }
            next = next.min(shard.timers.first().map_or(next, |(at, _)| *at));
            next = next.min(shard.starting.iter().map(|(at, _)| *at).min().unwrap_or(next));
            if shard.workers.values().any(Worker::is_busy) {
                next = next.min(self.now_ms + 1);
            }
            for connection in shard.links.values() {
                let at = [
                    connection.opens_ms,
                    connection.requests.front().map(|(at, _)| *at).filter(|_| self.runs(connection.to)),
                    connection.replies.front().map(|(at, _)| *at),
                ];
                next = next.min(at.into_iter().flatten().min().unwrap_or(next));
            }
        }
        next
    }

    /// Delivers what has arrived on the connections of a shard.
    fn network(&mut self, index: usize) -> bool {
        if self.shards[index].arrives_ms > self.now_ms {
            return false;
        }
        let mut moved = false;
        self.shards[index].arrives_ms = u64::MAX;
        let links: Vec<LinkNo> = self.shards[index].links.keys().copied().collect();
        for link in links {
            let Some(connection) = self.shards[index].links.get(&link) else { continue };
            let to = connection.to;
            if let Some(at) = connection.opens_ms {
                // A server that is stopped accepts connections, and answers nothing.
                if at <= self.now_ms && self.runs(index) && self.shards[to].stopped_until_ms <= self.now_ms {
                    moved = true;
                    if self.shards[to].up {
                        if let Some(connection) = self.shards[index].links.get_mut(&link) {
                            connection.opens_ms = None;
                        }
                        self.hand_in(index, Input::LinkOpened(link));
                    } else {
                        self.shards[index].links.remove(&link);
                        let failure = LinkFailure::Unreachable("connection refused".to_owned());
                        self.hand_in(index, Input::LinkClosed { link, failure });
                    }
                }
                continue;
            }
            if self.runs(to) && connection.requests.front().is_some_and(|(at, _)| *at <= self.now_ms) {
                moved = true;
                let request = self.shards[index].links.get_mut(&link).and_then(|found| found.requests.pop_front());
                if let Some((_, command)) = request {
                    self.serve(to, (index, link), &command);
                }
            }
            let reply = self.shards[index].links.get(&link).and_then(|found| found.replies.front());
            if self.runs(index) && reply.is_some_and(|(at, _)| *at <= self.now_ms) {
                moved = true;
                let reply = self.shards[index].links.get_mut(&link).and_then(|found| found.replies.pop_front());
                if let Some((_, reply)) = reply {
                    self.hand_in(index, Input::LinkReply { link, reply });
                }
            }
        }
        let shard = &mut self.shards[index];
        let next = shard.links.values().map(Connection::arrives_ms).min().unwrap_or(u64::MAX);
        shard.arrives_ms = shard.arrives_ms.min(next);
        moved
    }

    /// A command of another shard.
    fn serve(&mut self, index: usize, link: (usize, LinkNo), command: &Argv) {
        let client = self.client(index, Asked::Peer { link });
        let args = command.args();
        let command = match args.as_slice() {
            [name] if name.eq_ignore_ascii_case(b"rg.hello") => Command::Hello,
            [name, sender, run, function, payload, number] if name.eq_ignore_ascii_case(b"rg.innermsgcommand") => {
                Command::PeerCommand { sender, run, function, payload, number }
            }
            other => violated("links carry commands of shards", format!("{} arguments", other.len())),
        };
        self.hand_in(index, Input::Command { client, caller: &caller(), command });
    }

    /// One turn of the loop of a shard's server.
    fn turn(&mut self, index: usize) -> bool {
        if !self.runs(index) {
            return false;
        }
        let mut moved = false;
        while let Some((at, timer)) = self.shards[index].timers.first().copied() {
            if at > self.now_ms {
                break;
            }
            self.shards[index].timers.remove(&(at, timer));
            self.hand_in(index, Input::Timer(timer));
            moved = true;
        }
        let now = self.now_ms;
        let due: Vec<WorkerNo> =
            self.shards[index].starting.iter().filter(|(at, _)| *at <= now).map(|(_, worker)| *worker).collect();
        self.shards[index].starting.retain(|(at, _)| *at > now);
        for worker in due {
            self.shards[index].workers.insert(worker, Worker::default());
            self.hand_in(index, Input::WorkerStarted { worker, pid: 7 });
            moved = true;
        }
        self.hand_in(index, Input::Turn);
        let workers: Vec<WorkerNo> = self.shards[index].workers.keys().copied().collect();
        for number in &workers {
            let random = &mut self.random;
            let Some(worker) = self.shards[index].workers.get_mut(number) else { continue };
            if worker.is_busy() {
                worker.go_on(random);
            }
            if self.shards[index].engine.wants_input(*number)
                && let Some(worker) = self.shards[index].workers.get_mut(number)
                && let Some(frames) = Frames::cut(&mut worker.from_worker).unwrap()
            {
                self.hand_in(index, Input::Received { worker: *number, frames });
                moved = true;
            }
        }
        for work in Work::ORDER {
            let mut pieces = 0;
            while self.shards[index].engine.has_work(work) && pieces < 20 {
                self.hand_in(index, Input::Work(work));
                pieces += 1;
                moved = true;
            }
        }
        let workers: Vec<WorkerNo> = self.shards[index].workers.keys().copied().collect();
        for number in workers {
            let mut out = Vec::new();
            self.shards[index].engine.take_output(number, &mut out);
            if !out.is_empty() {
                let bytes = out.len() as u64;
                if let Some(worker) = self.shards[index].workers.get_mut(&number) {
                    worker.to_worker.extend(out);
                }
                self.hand_in(index, Input::Written { worker: number, bytes });
                moved = true;
            }
        }
        moved
    }

    /// What clients still wait for.
    pub fn unanswered(&self) -> usize {
        let waits = |asked: &&Asked| !matches!(asked, Asked::Peer { .. });
        self.shards.iter().map(|shard| shard.clients.values().filter(waits).count()).sum()
    }

    /// Whether each shard has links to all others.
    pub fn has_all_links(&self) -> bool {
        self.shards
            .iter()
            .all(|shard| self.shards.iter().all(|other| other.id == shard.id || shard.engine.has_link(other.id)))
    }

    /// All pairs of shards.
    pub fn links(&self) -> Vec<(usize, usize)> {
        let shards = 0..self.shards.len();
        shards
            .clone()
            .flat_map(|from| shards.clone().map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .collect()
    }

    /// Whether a shard has messages for another one that are not acknowledged.
    pub fn has_messages(&self, (from, to): (usize, usize)) -> bool {
        let to = self.shards[to].id;
        self.shards[from].engine.links().iter().any(|row| row.shard == to && row.pending > 0)
    }

    /// Executions that have not ended in any worker.
    pub fn executions(&self) -> usize {
        self.shards.iter().flat_map(|shard| shard.workers.values().map(Worker::executions)).sum()
    }
}
