//! The links to all other shards, as a state machine: what the driver reports in, effects and [`Notice`]s out.
//!
//! A link is one client connection to another shard, on which this shard sends commands; the other shard's commands come on
//! its own connection. Messages have numbers, from 0 for each run of the receiver. A message stays in the queue until it is
//! acknowledged, and is sent again on the next connection. The receiver ignores numbers that it has had.
//!
//! When a shard cannot be reached for `ExecutionMaxIdleTime`, everything that is in progress with it is given up, on both
//! sides: the *epoch* of the two shards is raised, and each of them reports [`Notice::Lost`] when it learns of it. Messages of
//! an earlier epoch are refused. The same happens when one of both restarts.
//!
//! What is said on a connection, in this order:
//! 1. `RG.CLUSTERSETFROMSHARD`, if the shard has said that it knows no topology and this one's was pushed;
//! 2. `RG.HELLO`, answered with the id of the run. If that is not one of redgrease, messages of RedisGears follow;
//! 3. a hello with versions and terms, which is repeated each second and shows that the shard is alive;
//! 4. messages.

use redgrease_core::frame::LogLevel;
use redgrease_core::id::ShardId;
use redgrease_core::peer::link::Versions;

use crate::cluster::contact::Contact;
use crate::cluster::inbox::Inbox;
pub use crate::cluster::inbox::Notice;
use crate::cluster::outbox::Body;
use crate::cluster::outgoing::{Outgoing, Protocol, Sent, Stage, State};
use crate::cluster::topology::Topology;
use crate::effect::{Argv, Effect};
use crate::error::Error;
use crate::id::{Counter, LinkNo};
use crate::input::LinkFailure;
use crate::limits::{
    BROADCAST_MESSAGES_MAX, HELLO_AGAIN_MS, LINK_BEAT_MS, LINK_BURST_BYTES, LINK_MESSAGE_BYTES_MAX, LINK_OPEN_MS_MAX,
    LINK_PART_BYTES, LINK_STALL_MS, LINK_TICK_MS, LINK_WINDOW_BYTES, RECEIVED_ALL_BYTES_SOFT, RECEIVED_BYTES_SOFT,
};
use crate::planted::Bug;
use crate::prelude::*;

/// The time, and the configuration at this time.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// Milliseconds of a monotonic clock.
    pub now_ms: u64,
    /// `ExecutionMaxIdleTime`.
    pub idle_ms: u64,
    /// `SendMsgRetries`: connections on which a message is sent; 0: no limit.
    pub attempts_max: u64,
}

/// How much may be on its way.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Bytes of payloads that are sent to a shard before it acknowledges them.
    pub window_bytes: u64,
    /// The longest payload.
    pub part_bytes: u64,
    /// Bytes of received messages of one shard, and of all shards, from which on acknowledgements come later.
    pub soft_bytes: (usize, usize),
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            window_bytes: LINK_WINDOW_BYTES,
            part_bytes: LINK_PART_BYTES,
            soft_bytes: (RECEIVED_BYTES_SOFT, RECEIVED_ALL_BYTES_SOFT),
        }
    }
}

/// A link, for `RG.INFOCLUSTER` and `INFO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRow {
    /// The shard.
    pub shard: ShardId,
    /// Its run, once it has answered.
    pub run: Option<Vec<u8>>,
    /// Messages that are not acknowledged.
    pub pending: usize,
    /// Their bytes.
    pub pending_bytes: usize,
    /// `ready`, `plain` (it is not redgrease), `greeting`, `connecting` or `down`.
    pub state: &'static str,
    /// What went wrong last, until the link is ready again.
    pub problem: Option<String>,
}

/// The links to all other shards.
#[derive(Debug)]
pub struct Links {
    /// The id of this shard.
    pub(super) me: ShardId,
    /// The id of this run.
    pub(super) run: String,
    pub(super) versions: Versions<'static>,
    pub(super) sizes: Sizes,
    pub(super) contacts: BTreeMap<ShardId, Contact>,
    pub(super) inbox: Inbox,
    /// Bytes of parts of messages that are being received.
    pub(super) part_bytes: usize,
    /// The command that pushed the topology.
    pub(super) pushed: Option<Vec<Vec<u8>>>,
    /// When the topology was read because a shard sent something that it does not have.
    pub(super) read_ms: Option<u64>,
    by_link: BTreeMap<LinkNo, ShardId>,
    counter: Counter,
    /// Shards to which more can be sent, in turn.
    turns: VecDeque<ShardId>,
    /// When links were looked at last.
    ticked_ms: Option<u64>,
    random: u32,
    pub(super) out: Vec<Effect>,
    #[cfg(feature = "simulation")]
    planted: Option<Bug>,
}

impl Links {
    /// No links. `run` is the id of this run.
    #[must_use]
    pub fn new(run: String, versions: Versions<'static>) -> Links {
        let random = run.bytes().fold(1, |random: u32, byte| random.wrapping_mul(31).wrapping_add(u32::from(byte)));
        Links {
            me: ShardId::standalone(),
            run,
            versions,
            sizes: Sizes::default(),
            contacts: BTreeMap::new(),
            inbox: Inbox::default(),
            part_bytes: 0,
            pushed: None,
            read_ms: None,
            by_link: BTreeMap::new(),
            counter: Counter::default(),
            turns: VecDeque::new(),
            ticked_ms: None,
            random,
            out: Vec::new(),
            #[cfg(feature = "simulation")]
            planted: None,
        }
    }

    /// Changes how much may be on its way.
    #[cfg(feature = "simulation")]
    pub fn set_sizes(&mut self, sizes: Sizes) {
        self.sizes = sizes;
    }

    /// Plants a fault.
    #[cfg(feature = "simulation")]
    pub fn plant(&mut self, bug: Bug) {
        self.planted = Some(bug);
    }

    /// Whether a fault was planted.
    #[cfg(feature = "simulation")]
    pub(super) fn planted(&self, bug: Bug) -> bool {
        self.planted == Some(bug)
    }

    /// Whether a fault was planted: never.
    #[cfg(not(feature = "simulation"))]
    #[expect(clippy::unused_self, reason = "the same signature as with the feature")]
    #[inline(always)]
    pub(super) const fn planted(&self, _: Bug) -> bool {
        false
    }

    /// The effects since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        core::mem::take(&mut self.out)
    }

    /// The shards of the cluster, and the command that pushed them. Links to shards that stay where they are are kept. A
    /// replica has no links.
    pub fn set_topology(&mut self, at: At, topology: &Topology, pushed: Option<&[&[u8]]>) {
        self.pushed = pushed.map(|args| args.iter().map(|arg| arg.to_vec()).collect());
        if topology.me != self.me {
            self.forget_all(at);
            self.me = topology.me;
        }
        let takes_part = pushed.is_some() || topology.shards.iter().any(|shard| shard.id == topology.me);
        let others = topology.others().filter(|_| topology.has_several() && takes_part);
        let others: BTreeMap<_, _> = others.map(|shard| (shard.id, &shard.address)).collect();
        for shard in self.linked() {
            if !others.contains_key(&shard) {
                self.remove(at, shard);
            }
        }
        for (shard, address) in others {
            let contact = self.contacts.entry(shard).or_default();
            match &mut contact.outgoing {
                Some(outgoing) if outgoing.address == *address => {}
                Some(outgoing) => {
                    let link = outgoing.link();
                    outgoing.move_to(address.clone(), at.now_ms);
                    if let Some(link) = link {
                        self.by_link.remove(&link);
                        self.out.push(Effect::CloseLink(link));
                    }
                    self.open(at, shard);
                }
                None => {
                    let mut outgoing = Outgoing::new(address.clone(), at.now_ms);
                    outgoing.outbox.renumber(contact.next_number);
                    contact.outgoing = Some(outgoing);
                    self.open(at, shard);
                }
            }
        }
        if self.needs_ticks() {
            self.ticked_ms.get_or_insert(at.now_ms);
        } else {
            self.ticked_ms = None;
        }
    }

    /// This server has another id: for other shards it is another shard.
    fn forget_all(&mut self, at: At) {
        for shard in self.linked() {
            self.remove(at, shard);
        }
        for shard in self.contacts.keys().copied().collect::<Vec<_>>() {
            self.forget(at, shard);
        }
    }

    /// Removes a link: the topology does not have the shard any more.
    fn remove(&mut self, at: At, shard: ShardId) {
        let error = Error::PeerGone(self.name(shard));
        self.disconnect(shard);
        self.lose(at, shard, &error, None);
        if let Some(contact) = self.contacts.get_mut(&shard) {
            contact.next_number = contact.outgoing.take().map_or(0, |outgoing| outgoing.outbox.next_number());
            contact.heard_ms = at.now_ms;
        }
        self.turns.retain(|other| *other != shard);
    }

    /// Forgets a shard without a link.
    pub(super) fn forget(&mut self, at: At, shard: ShardId) {
        let error = Error::PeerGone(self.name(shard));
        self.lose(at, shard, &error, None);
        self.contacts.remove(&shard);
    }

    /// Shards with links.
    fn linked(&self) -> Vec<ShardId> {
        let linked = self.contacts.iter().filter(|(_, contact)| contact.outgoing.is_some());
        linked.map(|(shard, _)| *shard).collect()
    }

    /// How messages name a shard.
    pub(super) fn name(&self, shard: ShardId) -> String {
        match self.contacts.get(&shard).and_then(|contact| contact.outgoing.as_ref()) {
            Some(outgoing) => format!("{shard} ({})", outgoing.address),
            None => shard.to_string(),
        }
    }

    pub(super) fn log(&mut self, level: LogLevel, text: String) {
        self.out.push(Effect::Log { level, text });
    }

    /// Sends a message: it arrives after those that were sent before, once, or [`Notice::Lost`] follows.
    pub fn send(&mut self, at: At, shard: ShardId, message: Vec<u8>) {
        if self.inbox.is_losing(shard) {
            return;
        }
        match self.queue(shard, message) {
            Ok(()) => self.pump(at, shard),
            Err(error) => self.refuse(at, shard, &error),
        }
    }

    /// Adds a message to those that wait for a shard.
    fn queue(&mut self, shard: ShardId, message: Vec<u8>) -> Result<(), Error> {
        let len = message.len();
        let problem = match self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut()) {
            None => None,
            Some(outgoing) if outgoing.failing || outgoing.protocol() == Some(Protocol::Plain) => {
                outgoing.problem.clone()
            }
            Some(_) if len > LINK_MESSAGE_BYTES_MAX => Some(Error::PeerMessageTooLong { peer: self.name(shard), len }),
            Some(outgoing) => match outgoing.outbox.push(Body::Own(message)) {
                Ok(()) => return Ok(()),
                Err(_) => Some(Error::PeerQueueFull(self.name(shard))),
            },
        };
        Err(problem.unwrap_or_else(|| Error::PeerGone(self.name(shard))))
    }

    /// Sends a message of RedisGears to all other shards that have room for it.
    pub fn broadcast(&mut self, at: At, function: &'static [u8], payload: &'static [u8]) {
        for shard in self.linked() {
            let outgoing = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut());
            let Some(outgoing) = outgoing.filter(|outgoing| outgoing.outbox.len() < BROADCAST_MESSAGES_MAX) else {
                continue;
            };
            if outgoing.outbox.push(Body::Plain(function, payload)).is_ok() {
                self.pump(at, shard);
            }
        }
    }

    /// A message is not sent.
    fn refuse(&mut self, at: At, shard: ShardId, error: &Error) {
        match self.contacts.get(&shard) {
            Some(contact) if contact.is_engaged() => self.lose(at, shard, error, None),
            _ => self.inbox.push(Notice::Lost { shard, reason: error.to_string() }),
        }
    }

    /// Gives up everything that is in progress with a shard. `epoch` is that of the shard if it did the same.
    pub(super) fn lose(&mut self, at: At, shard: ShardId, error: &Error, epoch: Option<u64>) {
        let Some(contact) = self.contacts.get_mut(&shard) else { return };
        if !contact.is_engaged() {
            contact.epoch = epoch.unwrap_or(contact.epoch);
            return;
        }
        contact.epoch = epoch.unwrap_or(contact.epoch + 1);
        contact.announced = false;
        contact.incoming.established = None;
        self.part_bytes -= contact.incoming.drop_parts();
        if let Some(outgoing) = &mut contact.outgoing {
            outgoing.outbox.clear();
            if let Some(open) = outgoing.open_mut() {
                open.refused = false;
            }
        }
        let logs = contact.logged_ms.is_none_or(|logged_ms| at.now_ms - logged_ms >= LINK_BEAT_MS);
        if logs {
            contact.logged_ms = Some(at.now_ms);
            self.log(LogLevel::Warning, format!("what was in progress with another shard has ended: {error}"));
        }
        self.inbox.push(Notice::Lost { shard, reason: error.to_string() });
        self.agree_again(at, shard);
    }

    /// A shard is given up until a link to it is ready.
    fn fail(&mut self, at: At, shard: ShardId) {
        let name = self.name(shard);
        let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut()) else {
            return;
        };
        outgoing.failing = true;
        let silent = Error::PeerSilent { peer: name, ms: at.idle_ms };
        let problem = outgoing.problem.get_or_insert(silent).clone();
        self.lose(at, shard, &problem, None);
    }

    /// Opens a link.
    fn open(&mut self, at: At, shard: ShardId) {
        let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut()) else {
            return;
        };
        let link = LinkNo(self.counter.next());
        outgoing.state = State::Opening { link, since_ms: at.now_ms };
        outgoing.opened_ms = at.now_ms;
        self.by_link.insert(link, shard);
        self.out.push(Effect::OpenLink { link, address: outgoing.address.clone() });
    }

    /// Closes the connection to a shard, if there is one.
    fn disconnect(&mut self, shard: ShardId) {
        let outgoing = self.contacts.get(&shard).and_then(|contact| contact.outgoing.as_ref());
        if let Some(link) = outgoing.and_then(Outgoing::link) {
            self.by_link.remove(&link);
            self.out.push(Effect::CloseLink(link));
        }
    }

    /// Closes a link, to be opened again.
    pub(super) fn close(&mut self, at: At, shard: ShardId, problem: Error) {
        self.disconnect(shard);
        self.is_closed(at, shard, problem);
    }

    fn is_closed(&mut self, at: At, shard: ShardId, problem: Error) {
        let random = self.next_random();
        let Some(contact) = self.contacts.get_mut(&shard) else { return };
        let announced = contact.announced;
        let Some(outgoing) = contact.outgoing.as_mut() else { return };
        let passes_not = match problem {
            Error::PeerVersion { .. } => true,
            Error::PeerAuth { .. } | Error::PeerTls { .. } | Error::PeerForeign { .. } => !announced,
            _ => false,
        };
        outgoing.failing |= passes_not;
        let pause_ms = outgoing.pause_ms(at.idle_ms, random);
        let text = problem.to_string();
        if outgoing.become_closed(problem, pause_ms, at.now_ms) {
            self.log(LogLevel::Warning, text);
        }
        if passes_not {
            self.fail(at, shard);
        }
    }

    fn next_random(&mut self) -> u32 {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.random >> 16
    }

    /// A link could not be opened, or was lost.
    pub fn closed(&mut self, at: At, link: LinkNo, failure: LinkFailure) {
        let Some(shard) = self.by_link.remove(&link) else { return };
        let peer = self.name(shard);
        let problem = match failure {
            LinkFailure::Unreachable(reason) | LinkFailure::Lost(reason) => Error::PeerDown { peer, reason },
            LinkFailure::Tls(reason) => Error::PeerTls { peer, reason },
            LinkFailure::Authentication(reason) => Error::PeerAuth { peer, reason },
            LinkFailure::Protocol(reason) => Error::PeerForeign { peer, reason },
        };
        self.is_closed(at, shard, problem);
    }

    /// The shard that a link leads to.
    pub(super) fn shard_of(&self, link: LinkNo) -> Option<ShardId> {
        self.by_link.get(&link).copied()
    }

    /// Whether [`Links::tick`] has to be called each [`LINK_TICK_MS`].
    #[must_use]
    pub fn needs_ticks(&self) -> bool {
        self.contacts.values().any(|contact| contact.outgoing.is_some())
    }

    /// Time has passed.
    pub fn tick(&mut self, at: At) {
        let passed_ms = self.ticked_ms.map_or(0, |ticked_ms| at.now_ms - ticked_ms);
        self.ticked_ms = Some(at.now_ms);
        let stood_still_ms = if passed_ms > LINK_STALL_MS { passed_ms - LINK_TICK_MS } else { 0 };
        for shard in self.linked() {
            if let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut()) {
                outgoing.forgive(stood_still_ms, at.now_ms);
            }
            self.look_at(at, shard);
        }
    }

    /// Does what is due on a link.
    fn look_at(&mut self, at: At, shard: ShardId) {
        let now_ms = at.now_ms;
        let Some(outgoing) = self.contacts.get(&shard).and_then(|contact| contact.outgoing.as_ref()) else { return };
        match &outgoing.state {
            State::Closed { until_ms } if now_ms >= *until_ms => self.open(at, shard),
            State::Opening { since_ms, .. } if now_ms - since_ms >= LINK_OPEN_MS_MAX => {
                let problem = Error::PeerSilent { peer: self.name(shard), ms: LINK_OPEN_MS_MAX };
                self.close(at, shard, problem);
            }
            State::Closed { .. } | State::Opening { .. } => {}
            State::Open(open) if !open.awaiting.is_empty() && now_ms - outgoing.heard_ms >= at.idle_ms => {
                let problem = Error::PeerSilent { peer: self.name(shard), ms: at.idle_ms };
                self.close(at, shard, problem);
            }
            State::Open(open) => match open.stage {
                Stage::GreetAgain { at_ms } if now_ms >= at_ms => self.greet(at, shard),
                Stage::Ready(Protocol::Own { .. })
                    if now_ms - open.beat_ms >= LINK_BEAT_MS && !open.has_hello_on_its_way() =>
                {
                    self.say_hello(at, shard);
                }
                _ => {}
            },
        }
        let Some(outgoing) = self.contacts.get(&shard).and_then(|contact| contact.outgoing.as_ref()) else { return };
        if !outgoing.failing && outgoing.down_ms.is_some_and(|down_ms| now_ms - down_ms >= at.idle_ms) {
            self.fail(at, shard);
        }
    }

    /// Sends a command on a link.
    pub(super) fn command(&mut self, at: At, shard: ShardId, args: &[&[u8]], sent: Sent) {
        let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut()) else {
            return;
        };
        let Some(link) = outgoing.link() else { return };
        outgoing.await_answer(sent, at.now_ms);
        self.out.push(Effect::SendOnLink { link, command: Argv::new(args) });
    }

    /// Sends messages as far as the shard accepts them, up to [`LINK_BURST_BYTES`]; the rest follows in pieces of work.
    pub(super) fn pump(&mut self, at: At, shard: ShardId) {
        let (me, run) = (self.me, self.run.clone());
        let mut burst = 0;
        while let Some(contact) = self.contacts.get_mut(&shard)
            && let Some(outgoing) = contact.outgoing.as_mut()
            && let Some(protocol) = outgoing.protocol()
        {
            if burst >= LINK_BURST_BYTES {
                if !core::mem::replace(&mut outgoing.has_turn, true) {
                    self.turns.push_back(shard);
                }
                return;
            }
            let (window_bytes, part_bytes) = match protocol {
                Protocol::Own { window_bytes, part_bytes } => (window_bytes, part_bytes),
                Protocol::Plain => (LINK_BURST_BYTES, LINK_BURST_BYTES),
            };
            let Some(unit) = outgoing.outbox.next(window_bytes, part_bytes, contact.epoch) else { return };
            burst += unit.payload.len() as u64;
            let number = unit.number.to_string();
            let args: [&[u8]; 6] = [
                b"RG.INNERMSGCOMMAND",
                me.as_str().as_bytes(),
                run.as_bytes(),
                unit.function,
                &unit.payload,
                number.as_bytes(),
            ];
            self.command(at, shard, &args, Sent::Unit(unit.receipt));
        }
    }

    /// Whether more can be sent to a shard.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Sends more to the shard whose turn it is.
    pub fn send_more(&mut self, at: At) {
        let Some(shard) = self.turns.pop_front() else { return };
        if let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut()) {
            outgoing.has_turn = false;
            self.pump(at, shard);
        }
    }

    /// Whether there is something to be handled.
    #[must_use]
    pub fn has_notice(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// What has happened and was not handled yet, in order.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.inbox.pop()
    }

    /// Whether messages to a shard would be sent at once.
    #[must_use]
    pub fn is_ready(&self, shard: ShardId) -> bool {
        let contact = self.contacts.get(&shard).filter(|contact| contact.announced);
        let protocol = contact.and_then(|contact| contact.outgoing.as_ref()?.protocol());
        matches!(protocol, Some(Protocol::Own { .. })) && !self.inbox.is_losing(shard)
    }

    /// All links, ordered by the ids of the shards.
    #[must_use]
    pub fn rows(&self) -> Vec<LinkRow> {
        let rows = self.contacts.iter().filter_map(|(shard, contact)| {
            let outgoing = contact.outgoing.as_ref()?;
            let state = match (&outgoing.state, outgoing.protocol()) {
                (State::Closed { .. }, _) => "down",
                (State::Opening { .. }, _) => "connecting",
                (State::Open(_), None) => "greeting",
                (State::Open(_), Some(Protocol::Plain)) => "plain",
                (State::Open(_), Some(Protocol::Own { .. })) => "ready",
            };
            Some(LinkRow {
                shard: *shard,
                run: contact.run.as_ref().map(|run| run.to_vec()),
                pending: outgoing.outbox.len(),
                pending_bytes: outgoing.outbox.bytes(),
                state,
                problem: outgoing.problem.as_ref().map(ToString::to_string),
            })
        });
        rows.collect()
    }

    /// When `RG.HELLO` is sent again.
    pub(super) fn greet_again(&mut self, at: At, shard: ShardId, problem: Error) {
        let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut()) else {
            return;
        };
        if let Some(open) = outgoing.open_mut() {
            open.stage = Stage::GreetAgain { at_ms: at.now_ms + HELLO_AGAIN_MS };
        }
        let text = problem.to_string();
        if outgoing.report(problem) {
            self.log(LogLevel::Warning, text);
        }
    }
}

#[cfg(feature = "simulation")]
impl Links {
    /// Inconsistencies, for the simulation.
    #[must_use]
    pub fn audit(&self) -> Vec<String> {
        let mut found = Vec::new();
        let parts: usize = self.contacts.values().map(|contact| contact.incoming.part_bytes()).sum();
        if parts != self.part_bytes {
            found.push(format!("{} bytes of parts are counted, there are {parts}", self.part_bytes));
        }
        for (shard, contact) in &self.contacts {
            let Some(outgoing) = &contact.outgoing else { continue };
            if let Some(link) = outgoing.link()
                && self.by_link.get(&link) != Some(shard)
            {
                found.push(format!("link {link} to {shard} is not known"));
            }
            if outgoing.protocol().is_some() != outgoing.down_ms.is_none() {
                found.push(format!("the link to {shard} is down since {:?}: {:?}", outgoing.down_ms, outgoing.state));
            }
            if outgoing.has_turn != self.turns.contains(shard) {
                found.push(format!("the turn of {shard} is not known"));
            }
        }
        let open = self.contacts.values().filter_map(|contact| contact.outgoing.as_ref()?.link()).count();
        if open != self.by_link.len() {
            found.push(format!("{open} links are open, {} are known", self.by_link.len()));
        }
        found
    }

    /// Bytes that are sent to a shard and not answered.
    #[must_use]
    pub fn in_flight(&self, shard: ShardId) -> u64 {
        let outgoing = self.contacts.get(&shard).and_then(|contact| contact.outgoing.as_ref());
        outgoing.map_or(0, |outgoing| outgoing.outbox.in_flight())
    }

    /// Bytes of messages that have been received and not handled, and of parts of messages.
    #[must_use]
    pub fn received_bytes(&self) -> usize {
        self.inbox.bytes() + self.part_bytes
    }

    /// Shards that are remembered.
    #[must_use]
    pub fn contact_count(&self) -> usize {
        self.contacts.len()
    }
}
