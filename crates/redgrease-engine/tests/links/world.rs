//! Simulated shards and the network between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use redgrease_core::id::ShardId;
use redgrease_core::peer::link::{
    LinkHello, MESSAGE_FUNCTION, NETWORK_TEST_FUNCTION, NETWORK_TEST_PAYLOAD, Versions, run_id,
};
use redgrease_engine::Effect;
use redgrease_engine::cluster::links::{At, Links, Notice, Sizes};
use redgrease_engine::cluster::receiving::{PeerCommand, Received};
use redgrease_engine::cluster::topology::{Address, Shard, Topology};
use redgrease_engine::id::LinkNo;
use redgrease_engine::input::LinkFailure;
use redgrease_engine::input::LinkReply;
use redgrease_engine::limits::{LINK_TICK_MS, UNKNOWN_SENDERS_MAX};
use redgrease_engine::planted::Bug;

use crate::promises::Promises;
use crate::random::Random;

/// Lines of the trace that are kept.
const TRACE_LINES: usize = 80;

/// How long things go wrong.
const STORM_MS: u64 = 30_000;

/// How long something from before may be on its way then.
const REST_MS: u64 = 4000;

/// How long links may need to become ready after that.
const SETTLE_MS_MAX: u64 = 30_000;

/// How long shards send messages then.
const CALM_MS: u64 = 5000;

/// How long the last messages may need.
const REST_MS_MAX: u64 = 120_000;

const SIZES: Sizes = Sizes { window_bytes: 16 << 10, part_bytes: 4 << 10, soft_bytes: (32 << 10, 64 << 10) };

/// What the network and the shards do.
#[derive(Debug, Clone, Copy)]
struct Taste {
    /// Nothing happens that may lose messages.
    gentle: bool,
    delay_ms_max: u64,
    /// Chances in a thousand, in each step.
    cuts: u64,
    blocks: u64,
    stops: u64,
    restarts: u64,
    topologies: u64,
    sends: u64,
    long: u64,
    idle_ms: u64,
    attempts_max: u64,
}

/// A shard.
struct Node {
    links: Links,
    /// Counts its runs.
    run: u64,
    /// When it is started again; `None`: it runs.
    starts_ms: Option<u64>,
    /// Until when it is stopped by a signal.
    stopped_ms: u64,
    ticks_ms: u64,
    versions: Versions<'static>,
    /// The shards that its topology has.
    view: BTreeSet<usize>,
    /// Counts the addresses of each shard in it.
    ports: BTreeMap<usize, u16>,
    /// Connections whose last message is not acknowledged.
    held: Vec<(ShardId, u64)>,
    run_name: String,
}

/// A connection that is being made, or the news that one is gone.
struct News {
    at_ms: u64,
    to: usize,
    run: u64,
    link: LinkNo,
    what: What,
}

enum What {
    /// It is made if the other shard accepts it.
    Open(usize),
    Closed(LinkFailure),
}

/// A connection: commands in one direction, replies in the other.
struct Connection {
    id: u64,
    from: usize,
    from_run: u64,
    link: LinkNo,
    to: usize,
    to_run: u64,
    commands: VecDeque<(u64, Vec<Vec<u8>>)>,
    replies: VecDeque<(u64, LinkReply)>,
    /// Replies do not arrive any more.
    dead: bool,
    /// The last command is answered later.
    held: bool,
    /// Bytes of messages that were sent and not answered, as the sender sees it.
    unanswered: VecDeque<u64>,
}

/// The world.
pub struct World {
    pub now_ms: u64,
    pub trace: VecDeque<String>,
    /// Whether there is a trace.
    pub traces: bool,
    /// Lines of the trace are printed.
    pub prints: bool,
    random: Random,
    taste: Taste,
    nodes: Vec<Node>,
    connections: Vec<Connection>,
    news: Vec<News>,
    /// Until when nothing gets from one shard to another one.
    blocked: BTreeMap<(usize, usize), u64>,
    /// When something went wrong last between two shards, for gentle networks.
    quiet_ms: u64,
    promises: Promises,
    counter: u64,
    calm: bool,
    bug: Option<Bug>,
}

fn id_of(node: usize) -> ShardId {
    ShardId::padded(format!("{node}").as_bytes()).unwrap()
}

fn node_of(shard: ShardId) -> usize {
    shard.as_str().trim_start_matches('0').parse().unwrap_or(0)
}

impl World {
    pub fn new(seed: u64, bug: Option<Bug>) -> World {
        let mut random = Random(seed);
        let gentle = random.chance(25);
        let may = |random: &mut Random, most: u64| if random.chance(70) { random.below(most + 1) } else { 0 };
        let taste = Taste {
            gentle,
            delay_ms_max: random.pick(&[1, 5, 50, 300]),
            cuts: may(&mut random, 20),
            blocks: may(&mut random, 5),
            stops: may(&mut random, 3),
            restarts: if gentle { 0 } else { may(&mut random, 3) },
            topologies: if gentle { 0 } else { may(&mut random, 5) },
            sends: random.between(50, 900),
            long: random.below(40),
            idle_ms: if gentle { 5000 } else { random.pick(&[1000, 2000, 5000]) },
            attempts_max: if gentle { 0 } else { random.pick(&[0, 1, 3, 3]) },
        };
        let count = random.between(2, 8) as usize;
        let odd = random.chance(10).then(|| random.below(count as u64) as usize);
        let mut world = World {
            now_ms: random.below(10_000),
            trace: VecDeque::new(),
            traces: false,
            prints: false,
            random,
            taste,
            nodes: Vec::new(),
            connections: Vec::new(),
            news: Vec::new(),
            blocked: BTreeMap::new(),
            quiet_ms: 0,
            promises: Promises::default(),
            counter: 0,
            calm: false,
            bug,
        };
        for index in 0..count {
            let other = Versions { peer: Versions::OURS.peer + 1, ..Versions::OURS };
            let versions = if odd == Some(index) { other } else { Versions::OURS };
            let mut node = Node {
                links: Links::new(String::new(), versions),
                run: 0,
                starts_ms: None,
                stopped_ms: 0,
                ticks_ms: 0,
                versions,
                view: (0..count).collect(),
                ports: BTreeMap::new(),
                held: Vec::new(),
                run_name: String::new(),
            };
            world.counter += 1;
            world.start(&mut node, seed, index);
            world.nodes.push(node);
        }
        for index in 0..count {
            world.tell_topology(index);
        }
        world
    }

    /// A new run of a shard.
    fn start(&mut self, node: &mut Node, seed: u64, index: usize) {
        node.run += 1;
        node.run_name = run_id(&format!("{seed:08x}{index:04x}{:08x}", node.run));
        node.links = Links::new(node.run_name.clone(), node.versions);
        node.links.set_sizes(SIZES);
        if let Some(bug) = self.bug {
            node.links.plant(bug);
        }
        node.starts_ms = None;
        node.held.clear();
    }

    fn at(&self) -> At {
        At { now_ms: self.now_ms, idle_ms: self.taste.idle_ms, attempts_max: self.taste.attempts_max }
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if !self.traces {
            return;
        }
        let line = format!("{}: {}", self.now_ms, text());
        if self.prints {
            println!("{line}");
        }
        self.trace.push_back(line);
        if self.trace.len() > TRACE_LINES {
            self.trace.pop_front();
        }
    }

    fn is_awake(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        node.starts_ms.is_none() && node.stopped_ms <= self.now_ms
    }

    fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.get(&(from, to)).is_some_and(|until_ms| *until_ms > self.now_ms)
    }

    fn speaks_otherwise(&self, one: usize, other: usize) -> bool {
        self.nodes[one].versions != self.nodes[other].versions
    }

    fn tell_topology(&mut self, index: usize) {
        let node = &self.nodes[index];
        let shards = node.view.iter().map(|other| Shard {
            id: id_of(*other),
            address: Address {
                host: format!("node-{other}"),
                port: node.ports.get(other).copied().unwrap_or(1),
                unix_socket: None,
                password: None,
            },
            slots: vec![(*other as u16, *other as u16)],
        });
        let topology = Topology { me: id_of(index), shards: shards.collect() };
        let at = self.at();
        self.nodes[index].links.set_topology(at, &topology, None);
        self.perform(index);
    }

    /// Performs what the links of a shard want.
    fn perform(&mut self, index: usize) {
        for effect in self.nodes[index].links.take_effects() {
            let run = self.nodes[index].run;
            match effect {
                Effect::OpenLink { link, address } => {
                    let to = address.host.trim_start_matches("node-").parse().unwrap();
                    let at_ms = self.now_ms + self.delay();
                    self.news.push(News { at_ms, to: index, run, link, what: What::Open(to) });
                }
                Effect::CloseLink(link) => {
                    self.note(|| format!("{index} closes link {link}"));
                    self.news.retain(|news| (news.to, news.run, news.link) != (index, run, link));
                    self.kill(|connection| {
                        (connection.from, connection.from_run, connection.link) == (index, run, link)
                    });
                }
                Effect::SendOnLink { link, command } => {
                    let at_ms = self.now_ms + self.delay();
                    let args: Vec<Vec<u8>> = command.args().into_iter().map(<[u8]>::to_vec).collect();
                    let connection = self
                        .connections
                        .iter_mut()
                        .find(|connection| !connection.dead && (connection.from, connection.link) == (index, link));
                    if let Some(connection) = connection {
                        let of_message = args.get(3).is_some_and(|function| function == MESSAGE_FUNCTION);
                        connection.unanswered.push_back(if of_message { args[4].len() as u64 } else { 0 });
                        let at_ms = connection.commands.back().map_or(at_ms, |(last_ms, _)| at_ms.max(*last_ms));
                        connection.commands.push_back((at_ms, args));
                    }
                }
                Effect::Log { text, .. } => self.note(|| format!("{index} logs: {text}")),
                Effect::ReadTopology => {
                    // The topology is as it is told; later, when it changes.
                }
                other => panic!("unexpected effect {other:?}"),
            }
        }
    }

    fn delay(&mut self) -> u64 {
        self.random.below(self.taste.delay_ms_max + 1)
    }

    /// Connections end: a part of what is on its way still arrives, and no reply.
    fn kill(&mut self, is_meant: impl Fn(&Connection) -> bool) {
        for connection in self.connections.iter_mut().filter(|connection| !connection.dead && is_meant(connection)) {
            connection.dead = true;
            connection.replies.clear();
            let rest = self.random.below(connection.commands.len() as u64 + 1) as usize;
            connection.commands.truncate(rest);
            // What waits in the receiver's socket may be read after what comes on the next connection.
            let late_ms = if self.random.chance(30) { self.random.below(3000) } else { 0 };
            connection.commands.iter_mut().for_each(|(at_ms, _)| *at_ms += late_ms);
        }
    }

    /// Connections are reset: their sender is told.
    fn cut(&mut self, is_meant: impl Fn(&Connection) -> bool) {
        let cut: Vec<_> =
            self.connections.iter().filter(|connection| !connection.dead && is_meant(connection)).collect();
        let cut: Vec<_> =
            cut.iter().map(|connection| (connection.from, connection.from_run, connection.link)).collect();
        self.kill(is_meant);
        for (to, run, link) in cut {
            let at_ms = self.now_ms + self.delay();
            let what = What::Closed(LinkFailure::Lost("reset".into()));
            self.news.push(News { at_ms, to, run, link, what });
        }
    }

    /// Runs everything.
    pub fn run(&mut self) -> Result<(), String> {
        let end_ms = self.now_ms + STORM_MS;
        while self.now_ms < end_ms {
            self.go_wrong();
            self.send_some();
            self.step()?;
        }
        self.calm = true;
        self.note(|| "calm".to_owned());
        self.blocked.clear();
        for index in 0..self.nodes.len() {
            self.nodes[index].stopped_ms = 0;
            if self.nodes[index].starts_ms.is_some() {
                self.restart(index);
            }
            self.nodes[index].view = (0..self.nodes.len()).collect();
            self.tell_topology(index);
        }
        // What is still on its way arrives.
        let end_ms = self.now_ms + REST_MS;
        while self.now_ms < end_ms {
            self.step()?;
        }
        self.step_until(SETTLE_MS_MAX, |world| world.check_ready())?;
        let losses = self.promises.losses;
        let end_ms = self.now_ms + CALM_MS;
        while self.now_ms < end_ms {
            self.send_some();
            self.step()?;
        }
        self.step_until(REST_MS_MAX, |world| world.check_ready().and_then(|()| world.check_end()))?;
        let has_odd = self.nodes.iter().any(|node| node.versions != self.nodes[0].versions);
        if self.promises.losses > losses && !has_odd {
            return Err(format!("{} losses in a calm network", self.promises.losses - losses));
        }
        Ok(())
    }

    /// Time passes until something holds.
    fn step_until(&mut self, ms: u64, holds: impl Fn(&World) -> Result<(), String>) -> Result<(), String> {
        let end_ms = self.now_ms + ms;
        loop {
            self.step()?;
            match holds(self) {
                Err(reason) if self.now_ms >= end_ms => return Err(format!("after {ms} ms: {reason}")),
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Something goes wrong, or the topology changes.
    fn go_wrong(&mut self) {
        if self.taste.gentle && self.now_ms < self.quiet_ms {
            return;
        }
        let count = self.nodes.len() as u64;
        let (one, other) = (self.random.below(count) as usize, self.random.below(count) as usize);
        let happens = |random: &mut Random, chance: u64| random.below(1000) < chance;
        // In a gentle network, nothing lasts half as long as messages are kept.
        let longest_ms = if self.taste.gentle { 1500 } else { 12_000 };
        if happens(&mut self.random, self.taste.cuts) {
            self.note(|| format!("connections of {one} and {other} are reset"));
            self.cut(|connection| (connection.from, connection.to) == (one, other));
            self.quiet_ms = self.now_ms + 4000;
        }
        if happens(&mut self.random, self.taste.blocks) {
            let until_ms = self.now_ms + self.random.below(longest_ms);
            self.note(|| format!("nothing gets from {one} to {other} until {until_ms}"));
            self.blocked.insert((one, other), until_ms);
            if self.random.chance(50) {
                self.blocked.insert((other, one), until_ms);
            }
            if self.random.chance(50) {
                self.cut(|connection| (connection.from, connection.to) == (one, other));
            }
            self.quiet_ms = self.now_ms + longest_ms + 4000;
        }
        if happens(&mut self.random, self.taste.stops) && self.is_awake(one) {
            let until_ms = self.now_ms + self.random.below(longest_ms);
            self.note(|| format!("{one} is stopped until {until_ms}"));
            self.nodes[one].stopped_ms = until_ms;
            self.quiet_ms = self.now_ms + longest_ms + 4000;
        }
        if happens(&mut self.random, self.taste.restarts) && self.nodes[one].starts_ms.is_none() {
            let starts_ms = self.now_ms + self.random.below(longest_ms);
            self.note(|| format!("{one} ends, and is started at {starts_ms}"));
            self.nodes[one].starts_ms = Some(starts_ms);
            self.kill(|connection| connection.from == one);
            self.news.retain(|news| news.to != one);
            self.cut(|connection| connection.to == one);
            self.connections.retain(|connection| connection.to != one);
        }
        if happens(&mut self.random, self.taste.topologies) && one != other && self.is_awake(one) {
            match self.random.below(3) {
                0 => {
                    self.nodes[one].view.remove(&other);
                }
                1 => {
                    self.nodes[one].view.insert(other);
                }
                _ => *self.nodes[one].ports.entry(other).or_insert(1) += 1,
            }
            let view = self.nodes[one].view.clone();
            self.note(|| format!("the topology of {one} is {view:?}, with another address of {other}"));
            self.tell_topology(one);
        }
    }

    fn restart(&mut self, index: usize) {
        let mut node = std::mem::replace(
            &mut self.nodes[index],
            Node {
                links: Links::new(String::new(), Versions::OURS),
                run: 0,
                starts_ms: None,
                stopped_ms: 0,
                ticks_ms: 0,
                versions: Versions::OURS,
                view: BTreeSet::new(),
                ports: BTreeMap::new(),
                held: Vec::new(),
                run_name: String::new(),
            },
        );
        self.start(&mut node, 0xabc, index);
        self.nodes[index] = node;
        self.note(|| format!("{index} is started"));
        self.tell_topology(index);
    }

    fn send_some(&mut self) {
        let count = self.nodes.len() as u64;
        if self.random.below(1000) >= self.taste.sends {
            return;
        }
        let (from, to) = (self.random.below(count) as usize, self.random.below(count) as usize);
        if from == to || !self.is_awake(from) {
            return;
        }
        let at = self.at();
        if self.random.chance(3) {
            self.nodes[from].links.broadcast(at, NETWORK_TEST_FUNCTION, NETWORK_TEST_PAYLOAD);
            return self.perform(from);
        }
        for _ in 0..self.random.between(1, 4) {
            let len = if self.random.below(1000) < self.taste.long { self.random.below(60_000) } else { 0 };
            let stamp = self.promises.sends(from, self.nodes[from].run, to);
            self.note(|| format!("{from} sends {}:{} to {to}, {len} bytes", stamp.loss, stamp.number));
            self.nodes[from].links.send(at, id_of(to), stamp.encode(len as usize));
            self.perform(from);
        }
    }

    /// Time passes, and everything that is due happens.
    fn step(&mut self) -> Result<(), String> {
        self.now_ms += self.random.below(40);
        for index in 0..self.nodes.len() {
            if self.nodes[index].starts_ms.is_some_and(|starts_ms| starts_ms <= self.now_ms) {
                self.restart(index);
            }
        }
        self.tell_news();
        self.run_connections();
        for index in 0..self.nodes.len() {
            if !self.is_awake(index) {
                continue;
            }
            if self.nodes[index].ticks_ms <= self.now_ms {
                self.nodes[index].ticks_ms = self.now_ms + LINK_TICK_MS;
                let at = self.at();
                self.nodes[index].links.tick(at);
                self.perform(index);
            }
            for _ in 0..self.random.below(12) {
                self.work(index)?;
            }
            self.check(index)?;
        }
        Ok(())
    }

    fn tell_news(&mut self) {
        let now_ms = self.now_ms;
        let due: Vec<usize> = (0..self.news.len()).filter(|index| self.news[*index].at_ms <= now_ms).rev().collect();
        let mut due: Vec<News> = due.into_iter().map(|index| self.news.remove(index)).collect();
        due.reverse();
        for news in due {
            let from = news.to;
            if self.nodes[from].run != news.run || self.nodes[from].starts_ms.is_some() {
                continue;
            }
            let waits = match news.what {
                // A connection that leads nowhere, or to a shard that is stopped, is not made.
                What::Open(to) => self.is_blocked(from, to) || self.is_blocked(to, from) || !self.is_awake(to),
                What::Closed(_) => false,
            };
            let is_down = matches!(news.what, What::Open(to) if self.nodes[to].starts_ms.is_some());
            if !self.is_awake(from) || (waits && !is_down) {
                self.news.push(News { at_ms: now_ms + 10, ..news });
                continue;
            }
            let at = self.at();
            match news.what {
                What::Open(_) if is_down => {
                    let failure = LinkFailure::Unreachable("refused".into());
                    self.nodes[from].links.closed(at, news.link, failure);
                }
                What::Open(to) => {
                    self.counter += 1;
                    self.connections.push(Connection {
                        id: self.counter,
                        from,
                        from_run: news.run,
                        link: news.link,
                        to,
                        to_run: self.nodes[to].run,
                        commands: VecDeque::new(),
                        replies: VecDeque::new(),
                        dead: false,
                        held: false,
                        unanswered: VecDeque::new(),
                    });
                    self.note(|| format!("{from} has link {} to {to}", news.link));
                    self.nodes[from].links.opened(at, news.link);
                }
                What::Closed(failure) => {
                    self.note(|| format!("{from} is told of the end of link {}", news.link));
                    self.nodes[from].links.closed(at, news.link, failure);
                }
            }
            self.perform(from);
        }
    }

    fn run_connections(&mut self) {
        let mut ids: Vec<u64> = self.connections.iter().map(|connection| connection.id).collect();
        for index in (1..ids.len()).rev() {
            ids.swap(index, self.random.below(index as u64 + 1) as usize);
        }
        for id in ids {
            self.run_commands(id);
            self.run_replies(id);
        }
        self.connections.retain(|connection| !connection.dead || !connection.commands.is_empty());
    }

    fn connection(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    fn run_commands(&mut self, id: u64) {
        for _ in 0..self.random.between(1, 8) {
            let now_ms = self.now_ms;
            let Some(connection) = self.connections.iter().find(|connection| connection.id == id) else { return };
            let (from, to, to_run) = (connection.from, connection.to, connection.to_run);
            let is_due = connection.commands.front().is_some_and(|(at_ms, _)| *at_ms <= now_ms);
            let arrives = connection.dead || !self.is_blocked(from, to);
            if !is_due || connection.held || !arrives || !self.is_awake(to) {
                return;
            }
            if self.nodes[to].run != to_run {
                self.connections.retain(|connection| connection.id != id);
                return;
            }
            let Some((_, args)) = self.connection(id).and_then(|connection| connection.commands.pop_front()) else {
                return;
            };
            let reply = self.serve(id, to, &args);
            let at_ms = now_ms + self.delay();
            let Some(connection) = self.connection(id) else { return };
            match reply {
                _ if connection.dead => {}
                Some(reply) => {
                    let at_ms = connection.replies.back().map_or(at_ms, |(last_ms, _)| at_ms.max(*last_ms));
                    connection.replies.push_back((at_ms, reply));
                }
                None => connection.held = true,
            }
        }
    }

    /// What a shard answers; `None`: later.
    fn serve(&mut self, id: u64, node: usize, args: &[Vec<u8>]) -> Option<LinkReply> {
        if args[0] == b"RG.HELLO" {
            return Some(LinkReply::Bulk(self.nodes[node].run_name.clone().into_bytes()));
        }
        let [_, sender, run, function, payload, number] = args else { panic!("unexpected command {args:?}") };
        let command = PeerCommand { sender, run, function, payload, number };
        let at = self.at();
        let received = self.nodes[node].links.receive(at, &command);
        self.note(|| {
            let [function, number] = [function, number].map(|text| String::from_utf8_lossy(text));
            let sender = node_of(ShardId::parse(sender).unwrap());
            let answer = match &received {
                Received::Hello(hello) => format!("{:?}", LinkHello::decode(hello)),
                other => format!("{other:?}"),
            };
            format!("{node} gets {function} {number} of {sender}: {answer}")
        });
        self.perform(node);
        match received {
            Received::Ok => Some(LinkReply::Status(b"OK".to_vec())),
            Received::Duplicate => Some(LinkReply::Status(b"duplicate message ignored".to_vec())),
            Received::Hello(hello) => Some(LinkReply::Bulk(hello)),
            Received::Refused(error) => Some(LinkReply::Error(error.to_string().into_bytes())),
            Received::OkLater(shard) => {
                self.nodes[node].held.push((shard, id));
                None
            }
        }
    }

    fn run_replies(&mut self, id: u64) {
        loop {
            let now_ms = self.now_ms;
            let Some(connection) = self.connections.iter().find(|connection| connection.id == id) else { return };
            let (from, to, link) = (connection.from, connection.to, connection.link);
            let is_due = connection.replies.front().is_some_and(|(at_ms, _)| *at_ms <= now_ms);
            if connection.dead || !is_due || self.is_blocked(to, from) || !self.is_awake(from) {
                return;
            }
            let Some(connection) = self.connection(id) else { return };
            connection.unanswered.pop_front();
            let Some((_, reply)) = connection.replies.pop_front() else { return };
            let at = self.at();
            self.nodes[from].links.reply(at, link, reply);
            self.perform(from);
        }
    }

    /// One piece of work of a shard.
    fn work(&mut self, index: usize) -> Result<(), String> {
        let run = self.nodes[index].run;
        match self.nodes[index].links.next_notice() {
            Some(Notice::Ready(shard)) => {
                self.note(|| format!("{index}: {} is ready", node_of(shard)));
                self.promises.ready(index, run, node_of(shard))?;
            }
            Some(Notice::Lost { shard, reason }) => {
                self.note(|| format!("{index}: {} is lost: {reason}", node_of(shard)));
                self.promises.lost(index, run, node_of(shard));
                if self.taste.gentle && !self.speaks_otherwise(index, node_of(shard)) {
                    return Err(format!("{index} lost {} in a gentle network: {reason}", node_of(shard)));
                }
            }
            Some(Notice::Message { from, bytes }) => {
                let stamp = self.promises.delivers(index, run, node_of(from), &bytes)?;
                self.note(|| format!("{index} has {}:{} of {}", stamp.loss, stamp.number, stamp.from));
            }
            None => {}
        }
        let at = self.at();
        self.nodes[index].links.send_more(at);
        self.perform(index);
        let held = std::mem::take(&mut self.nodes[index].held);
        for (shard, id) in held {
            if !self.nodes[index].links.has_room(shard) {
                self.nodes[index].held.push((shard, id));
                continue;
            }
            let at_ms = self.now_ms + self.delay();
            if let Some(connection) = self.connection(id) {
                connection.held = false;
                if !connection.dead {
                    connection.replies.push_back((at_ms, LinkReply::Status(b"OK".to_vec())));
                }
            }
        }
        Ok(())
    }

    /// What holds at any time.
    fn check(&self, index: usize) -> Result<(), String> {
        let links = &self.nodes[index].links;
        if let Some(found) = links.audit().first() {
            return Err(format!("{index}: {found}"));
        }
        if links.contact_count() > self.nodes.len() + UNKNOWN_SENDERS_MAX {
            return Err(format!("{index} remembers {} shards", links.contact_count()));
        }
        // Of each shard, what is acknowledged late and the parts of one message.
        let received_max = self.nodes.len() * ((64 << 10) + 60_100) + SIZES.soft_bytes.1;
        if links.received_bytes() > received_max {
            return Err(format!("{index} holds {} bytes of messages", links.received_bytes()));
        }
        for connection in self.connections.iter().filter(|connection| connection.from == index && !connection.dead) {
            let bytes: u64 = connection.unanswered.iter().sum();
            if bytes > SIZES.window_bytes {
                return Err(format!("{index} has sent {bytes} bytes to {} without an answer", connection.to));
            }
        }
        Ok(())
    }

    /// All links are ready.
    fn check_ready(&self) -> Result<(), String> {
        for (index, node) in self.nodes.iter().enumerate() {
            let rows = node.links.rows();
            if rows.len() + 1 != self.nodes.len() {
                return Err(format!("{index} has {} links", rows.len()));
            }
            for row in rows {
                let other = node_of(row.shard);
                let is_ready = node.links.is_ready(row.shard);
                if self.speaks_otherwise(index, other) {
                    let is_told = row.problem.as_ref().is_some_and(|problem| problem.starts_with("PEERVERSION "));
                    if !is_told || is_ready {
                        return Err(format!("{index} and {other} have other versions: {row:?}"));
                    }
                } else if row.state != "ready" || row.problem.is_some() || !is_ready {
                    return Err(format!("{index} is not linked with {other}: {row:?}"));
                }
            }
        }
        Ok(())
    }

    /// All messages have arrived and are acknowledged.
    fn check_end(&self) -> Result<(), String> {
        for (index, node) in self.nodes.iter().enumerate() {
            for row in node.links.rows() {
                let other = node_of(row.shard);
                if self.speaks_otherwise(index, other) {
                    continue;
                }
                if row.pending > 0 || row.pending_bytes > 0 {
                    return Err(format!("{index} has messages for {other}: {row:?}"));
                }
                self.promises.all_arrived((index, node.run), (other, self.nodes[other].run))?;
            }
            if node.links.received_bytes() > 0 || node.links.has_more() || !node.held.is_empty() {
                return Err(format!("{index} has work left"));
            }
        }
        Ok(())
    }
}
