//! Links of one shard, with a peer that the test plays.

use redgrease_core::id::ShardId;
use redgrease_core::peer::link::{LinkHello, LinkPayload, MESSAGE_FUNCTION, Terms, Versions, run_id};
use redgrease_engine::Effect;
use redgrease_engine::cluster::links::{At, LinkRow, Links, Notice};
use redgrease_engine::cluster::receiving::{PeerCommand, Received};
use redgrease_engine::cluster::topology::{Address, Shard, Topology};
use redgrease_engine::id::LinkNo;
use redgrease_engine::input::LinkFailure;
use redgrease_engine::input::LinkReply;
use redgrease_engine::limits::LINK_TICK_MS;

/// The id of a shard with this short name.
pub fn id(name: &str) -> ShardId {
    ShardId::padded(name.as_bytes()).unwrap()
}

/// A topology of shards, each with a port.
pub fn topology(me: &str, shards: &[(&str, u16)]) -> Topology {
    let shards = shards.iter().enumerate().map(|(index, (name, port))| Shard {
        id: id(name),
        address: Address { host: "h".into(), port: *port, unix_socket: None, password: None },
        slots: vec![(index as u16, index as u16)],
    });
    Topology { me: id(me), shards: shards.collect() }
}

/// The hello of a shard of redgrease.
pub fn hello(shard: &str, epoch: u64, received: Option<u64>) -> Vec<u8> {
    let terms = Terms { shard: id(shard), epoch, received, window_bytes: 8 << 20, part_bytes: 511 << 10 };
    LinkHello { versions: Versions::OURS, terms: Some(terms) }.encode()
}

/// A whole message.
pub fn whole(epoch: u64, message: &[u8]) -> Vec<u8> {
    LinkPayload::Whole { epoch, message }.encode()
}

pub fn status(text: &str) -> LinkReply {
    LinkReply::Status(text.into())
}

pub fn bulk(bytes: impl Into<Vec<u8>>) -> LinkReply {
    LinkReply::Bulk(bytes.into())
}

pub fn error(text: &str) -> LinkReply {
    LinkReply::Error(text.into())
}

/// Shard `1` of a cluster with shard `2`, which the test plays.
pub struct Tested {
    pub links: Links,
    pub now_ms: u64,
    pub idle_ms: u64,
    pub attempts_max: u64,
    /// The id of its run.
    pub run: String,
    /// Lines that were logged.
    pub log: Vec<String>,
    /// Topologies that were asked for.
    pub reads: usize,
    opened: Vec<(LinkNo, u16)>,
    closed: Vec<LinkNo>,
    sent: Vec<(LinkNo, Vec<Vec<u8>>)>,
}

impl Tested {
    /// Shards 1 and 2.
    pub fn new() -> Tested {
        let mut tested = Tested::alone();
        tested.does(|links, at| links.set_topology(at, &topology("1", &[("1", 7001), ("2", 7002)]), None));
        tested
    }

    /// No topology.
    pub fn alone() -> Tested {
        let run = run_id("aaaa");
        Tested {
            links: Links::new(run.clone(), Versions::OURS),
            now_ms: 1_000_000,
            idle_ms: 5000,
            attempts_max: 3,
            run,
            log: Vec::new(),
            reads: 0,
            opened: Vec::new(),
            closed: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Does something, and keeps the effects.
    pub fn does<T>(&mut self, act: impl FnOnce(&mut Links, At) -> T) -> T {
        let at = At { now_ms: self.now_ms, idle_ms: self.idle_ms, attempts_max: self.attempts_max };
        let result = act(&mut self.links, at);
        for effect in self.links.take_effects() {
            match effect {
                Effect::OpenLink { link, address } => self.opened.push((link, address.port)),
                Effect::CloseLink(link) => self.closed.push(link),
                Effect::SendOnLink { link, command } => {
                    self.sent.push((link, command.args().into_iter().map(<[u8]>::to_vec).collect()));
                }
                Effect::Log { text, .. } => self.log.push(text),
                Effect::ReadTopology => self.reads += 1,
                other => panic!("unexpected effect {other:?}"),
            }
        }
        assert_eq!(self.links.audit(), [""; 0]);
        result
    }

    /// Time passes.
    pub fn pass(&mut self, ms: u64) {
        for _ in 0..ms / LINK_TICK_MS {
            self.now_ms += LINK_TICK_MS;
            self.does(Links::tick);
        }
    }

    /// The link that was opened last since the last call, and its port.
    pub fn take_opened(&mut self) -> Option<(LinkNo, u16)> {
        std::mem::take(&mut self.opened).pop()
    }

    /// The links that were closed since the last call.
    pub fn take_closed(&mut self) -> Vec<LinkNo> {
        std::mem::take(&mut self.closed)
    }

    /// The commands that were sent since the last call.
    pub fn take_sent(&mut self) -> Vec<Vec<Vec<u8>>> {
        std::mem::take(&mut self.sent).into_iter().map(|(_, command)| command).collect()
    }

    /// The same as text: ids without zeros in front, own messages and hellos as they are read.
    pub fn take_commands(&mut self) -> Vec<String> {
        let shown = |command: Vec<Vec<u8>>| {
            let words: Vec<String> = command.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
            let is_message = words.get(3).is_some_and(|function| function.as_bytes() == MESSAGE_FUNCTION);
            match words.first().map(String::as_str) {
                Some("RG.INNERMSGCOMMAND") if is_message => match LinkPayload::decode(&command[4]).unwrap() {
                    LinkPayload::Whole { epoch, message } => {
                        format!("message {} in {epoch}: {}", words[5], String::from_utf8_lossy(message))
                    }
                    LinkPayload::Part { epoch, offset, .. } => format!("part {} in {epoch}: at {offset}", words[5]),
                },
                Some("RG.INNERMSGCOMMAND") => match LinkHello::decode(&command[4]) {
                    Ok(LinkHello { terms: Some(terms), .. }) => format!("hello {} in {}", words[5], terms.epoch),
                    _ => format!("{} {} {}", words[3], words[4], words[5]),
                },
                _ => words.join(" "),
            }
        };
        self.take_sent().into_iter().map(shown).collect()
    }

    /// What is reported, as text.
    pub fn take_notices(&mut self) -> Vec<String> {
        let shown = |notice| match notice {
            Notice::Ready(shard) => format!("ready {}", shard.as_str().trim_start_matches('0')),
            Notice::Message { from, bytes } => {
                format!("{}: {}", from.as_str().trim_start_matches('0'), String::from_utf8_lossy(&bytes))
            }
            Notice::Lost { shard, reason } => {
                let code = reason.split(' ').next().unwrap_or_default();
                format!("lost {}: {code}", shard.as_str().trim_start_matches('0'))
            }
        };
        std::iter::from_fn(|| self.links.next_notice()).map(shown).collect()
    }

    /// The connection that was asked for, or will be, is there.
    pub fn connects(&mut self) -> LinkNo {
        let (link, _) = self
            .take_opened()
            .or_else(|| {
                (0..110).find_map(|_| {
                    self.pass(LINK_TICK_MS);
                    self.take_opened()
                })
            })
            .expect("a link is opened");
        self.does(|links, at| links.opened(at, link));
        link
    }

    /// The peer answers the first command.
    pub fn answers(&mut self, link: LinkNo, reply: LinkReply) {
        self.does(|links, at| links.reply(at, link, reply));
    }

    /// The connection is lost.
    pub fn is_cut(&mut self, link: LinkNo) {
        self.does(|links, at| links.closed(at, link, LinkFailure::Lost("reset".into())));
    }

    /// The peer is a shard of redgrease with this run and epoch; the link is ready.
    pub fn meets(&mut self, run: &str, epoch: u64) -> LinkNo {
        let link = self.connects();
        assert_eq!(self.take_commands().last().map(String::as_str), Some("RG.HELLO"));
        self.answers(link, bulk(run_id(run)));
        self.take_sent();
        self.answers(link, bulk(hello("2", epoch, None)));
        link
    }

    /// The peer is RedisGears, or a mock, with this run.
    pub fn meets_plain(&mut self, run: &str) -> LinkNo {
        let link = self.connects();
        assert_eq!(self.take_commands(), ["RG.HELLO"]);
        self.answers(link, bulk(run));
        link
    }

    pub fn sends(&mut self, message: &str) {
        self.does(|links, at| links.send(at, id("2"), message.into()));
    }

    /// Shard `2` sends a command.
    pub fn receives(&mut self, run: &str, function: &[u8], payload: &[u8], number: u64) -> Received {
        let number = number.to_string();
        let (run, number) = (run.as_bytes(), number.as_bytes());
        self.does(|links, at| links.receive(at, &PeerCommand { sender: b"2", run, function, payload, number }))
    }

    pub fn row(&self) -> LinkRow {
        self.links.rows().into_iter().find(|row| row.shard == id("2")).expect("there is a link to shard 2")
    }
}
