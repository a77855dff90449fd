//! How a connected shard is greeted, and what its answers mean.

use redgrease_core::frame::LogLevel;
use redgrease_core::id::ShardId;
use redgrease_core::peer::link::{HELLO_FUNCTION, LinkHello, Terms, code_of_reply, is_redgrease_run, shown_reply};
use redgrease_core::peer::pushed::OWN_ID_AT;

use crate::cluster::contact::Contact;
use crate::cluster::incoming::Run;
use crate::cluster::links::{At, Links, Notice, Sizes};
use crate::cluster::outbox::{Receipt, Tired};
use crate::cluster::outgoing::{Open, Protocol, Sent, Stage, State};
use crate::error::Error;
use crate::id::LinkNo;
use crate::input::LinkReply;
use crate::limits::{LINK_ROUNDS_MAX, RUN_ID_BYTES_MAX};
use crate::planted::Bug;
use crate::prelude::*;

/// What a reply is, for messages.
fn kind(reply: &LinkReply) -> &'static str {
    match reply {
        LinkReply::Status(_) => "a status",
        LinkReply::Bulk(_) => "a bulk string",
        LinkReply::Error(_) => "an error",
        LinkReply::Other => "something else than a string",
    }
}

impl Links {
    /// A link is connected and authenticated.
    pub fn opened(&mut self, at: At, link: LinkNo) {
        let Some(shard) = self.shard_of(link) else { return };
        let name = self.name(shard);
        let Some(contact) = self.contacts.get_mut(&shard) else { return };
        let is_own = contact.run.as_deref().is_some_and(is_redgrease_run);
        let Some(outgoing) = contact.outgoing.as_mut() else { return };
        if !matches!(outgoing.state, State::Opening { .. }) {
            return;
        }
        outgoing.state = State::Open(Open {
            link,
            stage: Stage::Greeting,
            awaiting: VecDeque::new(),
            run: Rc::from([]),
            rounds: 0,
            refused: false,
            relayed: false,
            beat_ms: at.now_ms,
        });
        let relays = outgoing.relay;
        // A message that is left out leaves a gap, which only shards without redgrease accept.
        match outgoing.outbox.rewind(at.attempts_max, !is_own) {
            Tired::None => {}
            Tired::Own => self.lose(at, shard, &Error::PeerRetries { peer: name, attempts: at.attempts_max }, None),
            Tired::Plain(count) => {
                let attempts = at.attempts_max;
                let text = format!("shard {name} did not acknowledge {count} messages that were sent {attempts} times");
                self.log(LogLevel::Warning, text);
            }
        }
        if relays {
            self.relay(at, shard);
        }
        self.greet(at, shard);
    }

    /// Pushes the topology that was pushed here, with the id of the receiver.
    fn relay(&mut self, at: At, shard: ShardId) {
        let Some(pushed) = self.pushed.clone() else { return };
        let mut args: Vec<&[u8]> = pushed.iter().map(Vec::as_slice).collect();
        if let Some(name) = args.first_mut() {
            *name = b"RG.CLUSTERSETFROMSHARD";
        }
        if let Some(id) = args.get_mut(OWN_ID_AT) {
            *id = shard.as_str().as_bytes();
        }
        self.command(at, shard, &args, Sent::Topology);
        if let Some(open) = self.open_mut(shard) {
            open.relayed = true;
        }
    }

    /// Sends `RG.HELLO`.
    pub(super) fn greet(&mut self, at: At, shard: ShardId) {
        if let Some(open) = self.open_mut(shard) {
            open.stage = Stage::Greeting;
        }
        self.command(at, shard, &[b"RG.HELLO"], Sent::Greeting);
    }

    fn open_mut(&mut self, shard: ShardId) -> Option<&mut Open> {
        self.contacts.get_mut(&shard)?.outgoing.as_mut()?.open_mut()
    }

    /// The hello of this shard. `shard` is its id, or that of the shard which it is meant for.
    pub(super) fn hello_of(&self, shard: ShardId, epoch: u64, received: Option<u64>) -> Vec<u8> {
        let Sizes { window_bytes, part_bytes, .. } = self.sizes;
        let terms = Terms { shard, epoch, received, window_bytes, part_bytes };
        LinkHello { versions: self.versions, terms: Some(terms) }.encode()
    }

    /// Sends the hello of this shard, with the number of the message that follows.
    pub(super) fn say_hello(&mut self, at: At, shard: ShardId) {
        let Some(contact) = self.contacts.get_mut(&shard) else { return };
        let epoch = contact.epoch;
        let Some(outgoing) = contact.outgoing.as_mut() else { return };
        let first = outgoing.outbox.first_number();
        let Some(open) = outgoing.open_mut() else { return };
        open.beat_ms = at.now_ms;
        // Messages to another run of the shard had other numbers.
        let number = if contact.run.as_ref() == Some(&open.run) { first } else { 0 };
        let hello = self.hello_of(shard, epoch, None);
        let (me, run, number) = (self.me, self.run.clone(), number.to_string());
        let args: [&[u8]; 6] =
            [b"RG.INNERMSGCOMMAND", me.as_str().as_bytes(), run.as_bytes(), HELLO_FUNCTION, &hello, number.as_bytes()];
        self.command(at, shard, &args, Sent::Terms(epoch));
    }

    /// The epoch was raised, or may be another one: on a connection that was ready, a hello comes first.
    pub(super) fn agree_again(&mut self, at: At, shard: ShardId) {
        let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut()) else {
            return;
        };
        let Some(Protocol::Own { .. }) = outgoing.protocol() else { return };
        outgoing.down_ms = Some(at.now_ms);
        let Some(open) = outgoing.open_mut() else { return };
        open.stage = Stage::Terms;
        // The answer to one that is on its way shows that the epochs differ.
        if !open.has_hello_on_its_way() {
            self.say_hello(at, shard);
        }
    }

    /// The reply to the first command on a link that has none yet.
    pub fn reply(&mut self, at: At, link: LinkNo, reply: LinkReply) {
        let Some(shard) = self.shard_of(link) else { return };
        let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut()) else {
            return;
        };
        outgoing.heard_ms = at.now_ms;
        let Some(sent) = outgoing.open_mut().and_then(|open| open.awaiting.pop_front()) else {
            let (peer, what) = (self.name(shard), format!("{} that answers nothing", kind(&reply)));
            return self.close(at, shard, Error::PeerProtocol { peer, what });
        };
        match sent {
            Sent::Topology => {}
            Sent::Greeting => self.greeted(at, shard, reply),
            Sent::Terms(epoch) => self.terms_answered(at, shard, epoch, &reply),
            Sent::Unit(receipt) => self.unit_answered(at, shard, receipt, reply),
        }
    }

    /// A message, or a part of one, was answered.
    fn unit_answered(&mut self, at: At, shard: ShardId, receipt: Receipt, reply: LinkReply) {
        let doubles = self.planted(Bug::CreditDoubled);
        let forgets = self.planted(Bug::AcknowledgementLost) && reply != LinkReply::Status(b"OK".to_vec());
        let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut()) else {
            return;
        };
        outgoing.outbox.answered(receipt);
        if doubles {
            outgoing.outbox.answered(receipt);
        }
        let is_plain = outgoing.protocol() == Some(Protocol::Plain);
        match reply {
            // What was dropped is neither acknowledged nor sent again.
            _ if !outgoing.outbox.is_current(receipt) => self.pump(at, shard),
            LinkReply::Status(_) => {
                if !forgets {
                    outgoing.outbox.acknowledge(receipt);
                }
                self.pump(at, shard);
            }
            LinkReply::Error(text) if code_of_reply(&text) == "PEERRESET" && !is_plain => self.reset(at, shard),
            LinkReply::Error(text) => self.failed(at, shard, &text),
            LinkReply::Bulk(_) | LinkReply::Other => {
                let what = format!("{} as the answer to a message", kind(&reply));
                let peer = self.name(shard);
                self.close(at, shard, Error::PeerProtocol { peer, what });
            }
        }
    }

    /// The shard gave up messages between both, and refuses those that it did not expect.
    fn reset(&mut self, at: At, shard: ShardId) {
        if let Some(open) = self.open_mut(shard) {
            open.refused = true;
        }
        self.agree_again(at, shard);
    }

    /// A message or a hello was answered with an error.
    fn failed(&mut self, at: At, shard: ShardId, text: &[u8]) {
        let (peer, reason) = (self.name(shard), shown_reply(text));
        let code = code_of_reply(text);
        if code == "ERRCLUSTER"
            && let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut())
        {
            outgoing.relay = true;
        }
        let problem = match code {
            "NOAUTH" | "NOPERM" | "WRONGPASS" => Error::PeerAuth { peer, reason },
            _ => Error::PeerFailed { peer, reason },
        };
        self.close(at, shard, problem);
    }

    /// `RG.HELLO` was answered.
    fn greeted(&mut self, at: At, shard: ShardId, reply: LinkReply) {
        let peer = self.name(shard);
        let foreign = |what: String| Error::PeerForeign { peer: peer.clone(), reason: what };
        let text = match reply {
            LinkReply::Bulk(run)
                if (1..=RUN_ID_BYTES_MAX).contains(&run.len()) && run.iter().all(u8::is_ascii_graphic) =>
            {
                return self.run_is_known(at, shard, run.into());
            }
            LinkReply::Error(text) => text,
            LinkReply::Bulk(bytes) => {
                let problem = foreign(format!("it answers RG.HELLO with a run of {} bytes", bytes.len()));
                return self.greet_again(at, shard, problem);
            }
            LinkReply::Status(_) | LinkReply::Other => {
                let problem = foreign(format!("it answers RG.HELLO with {}", kind(&reply)));
                return self.greet_again(at, shard, problem);
            }
        };
        let reason = shown_reply(&text);
        let problem = match code_of_reply(&text) {
            "ERRCLUSTER" => {
                let problem = Error::PeerFailed { peer, reason };
                let can_relay = self.pushed.is_some();
                let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut()) else {
                    return;
                };
                let was_marked = core::mem::replace(&mut outgoing.relay, true);
                let relayed = outgoing.open().is_some_and(|open| open.relayed);
                // The topology is pushed before the greeting of the next connection.
                if was_marked && can_relay && !relayed {
                    return self.close(at, shard, problem);
                }
                problem
            }
            "NOAUTH" | "NOPERM" | "WRONGPASS" => Error::PeerAuth { peer, reason },
            "ERR" | "" => foreign(format!("it answers RG.HELLO with '{reason}'")),
            _ => Error::PeerFailed { peer, reason },
        };
        self.greet_again(at, shard, problem);
    }

    /// The run of a connected shard is known.
    fn run_is_known(&mut self, at: At, shard: ShardId, run: Run) {
        let is_own = is_redgrease_run(&run);
        let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut()) else {
            return;
        };
        outgoing.relay = false;
        let Some(open) = outgoing.open_mut() else { return };
        open.run = run;
        if !is_own {
            return self.is_plain(at, shard);
        }
        open.stage = Stage::Terms;
        self.say_hello(at, shard);
    }

    /// The shard understands messages of RedisGears only.
    fn is_plain(&mut self, at: At, shard: ShardId) {
        self.meet_run(at, shard);
        let (peer, reason) = (self.name(shard), "it answers as RedisGears does".to_owned());
        let problem = Error::PeerForeign { peer, reason };
        let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut()) else {
            return;
        };
        outgoing.become_ready(Protocol::Plain, at.now_ms);
        let is_new = outgoing.report(problem.clone());
        if is_new {
            self.log(LogLevel::Warning, problem.to_string());
        }
        self.lose(at, shard, &problem, None);
        self.pump(at, shard);
    }

    /// The run that answered is the shard's. Whether messages may be sent to it.
    fn meet_run(&mut self, at: At, shard: ShardId) {
        let Some(run) = self.open_mut(shard).map(|open| Rc::clone(&open.run)) else { return };
        if self.contacts.get(&shard).is_some_and(|contact| contact.run.as_ref() != Some(&run)) {
            self.restarted(at, shard, run);
        }
    }

    /// A shard is another run than before, or is met for the first time.
    pub(super) fn restarted(&mut self, at: At, shard: ShardId, run: Run) {
        let is_first = self.contacts.get(&shard).is_some_and(|contact| contact.run.is_none());
        if !is_first {
            let error = Error::PeerRestarted(self.name(shard));
            self.lose(at, shard, &error, None);
        }
        let Some(contact) = self.contacts.get_mut(&shard) else { return };
        contact.set_run(run);
        if !is_first {
            contact.epoch = 0;
        }
        contact.next_number = 0;
        if let Some(outgoing) = contact.outgoing.as_mut().filter(|_| !is_first) {
            outgoing.outbox.clear();
            outgoing.outbox.renumber(0);
        }
    }

    /// Our hello was answered.
    fn terms_answered(&mut self, at: At, shard: ShardId, sent_epoch: u64, reply: &LinkReply) {
        let peer = self.name(shard);
        let was_ready = self.open_mut(shard).is_some_and(|open| matches!(open.stage, Stage::Ready(_)));
        let violation = |what: String| Error::PeerProtocol { peer: peer.clone(), what };
        let bytes = match reply {
            LinkReply::Bulk(bytes) => bytes,
            LinkReply::Status(_) if !was_ready => return self.is_plain(at, shard),
            LinkReply::Error(text) => return self.failed(at, shard, text),
            LinkReply::Status(_) | LinkReply::Other => {
                let what = format!("{} as the answer to a hello", kind(reply));
                return self.close(at, shard, violation(what));
            }
        };
        let hello = match LinkHello::decode(bytes) {
            Ok(hello) => hello,
            Err(error) => return self.close(at, shard, violation(error.to_string())),
        };
        let Some(terms) = hello.terms.filter(|_| hello.versions.match_with(&self.versions)) else {
            let shown = |module: &str, peer: u64, codec: u64| format!("{module} (messages {peer}, codec {codec})");
            let (theirs, ours) = (hello.versions, self.versions);
            let theirs = shown(theirs.module, theirs.peer, theirs.codec);
            let ours = shown(ours.module, ours.peer, ours.codec);
            return self.close(at, shard, Error::PeerVersion { peer, theirs, ours });
        };
        if terms.shard != shard {
            return self.close(at, shard, Error::PeerAddress { peer, found: terms.shard.to_string() });
        }
        if terms.epoch < sent_epoch {
            let what = format!("epoch {} as the answer to {sent_epoch}", terms.epoch);
            return self.close(at, shard, violation(what));
        }
        let Some(run) = self.open_mut(shard).map(|open| Rc::clone(&open.run)) else { return };
        if self.contacts.get(&shard).is_some_and(|contact| contact.was(&run)) {
            return self.close(at, shard, Error::PeerRestarted(peer));
        }
        self.meet_run(at, shard);
        let Some(contact) = self.contacts.get(&shard) else { return };
        let numbered = contact.outgoing.as_ref().map_or(0, |outgoing| outgoing.outbox.next_number());
        let received = terms.received.map_or(0, |number| number + 1);
        let forgot = received > numbered;
        if terms.epoch > contact.epoch || forgot {
            let epoch = terms.epoch.max(contact.epoch) + u64::from(forgot);
            self.lose(at, shard, &Error::PeerReset(peer.clone()), Some(epoch));
        }
        // The number of messages to the shard was forgotten while there was no link to it for long.
        if let Some(outgoing) = self.contacts.get_mut(&shard).and_then(|contact| contact.outgoing.as_mut())
            && forgot
        {
            outgoing.outbox.renumber(received);
        }
        self.agree(at, shard, sent_epoch, &terms, peer);
    }

    /// Begins to send messages if both shards are in the epoch that was sent; otherwise says hello again.
    fn agree(&mut self, at: At, shard: ShardId, sent_epoch: u64, terms: &Terms, peer: String) {
        let protocol = Protocol::Own {
            window_bytes: terms.window_bytes.min(self.sizes.window_bytes),
            part_bytes: terms.part_bytes.min(self.sizes.part_bytes),
        };
        let Some(Contact { epoch, announced, outgoing: Some(outgoing), .. }) = self.contacts.get_mut(&shard) else {
            return;
        };
        let Some(open) = outgoing.open_mut() else { return };
        let is_on_its_way = open.has_hello_on_its_way();
        if *epoch != sent_epoch {
            open.stage = Stage::Terms;
            open.rounds += 1;
            let rounds = open.rounds;
            outgoing.down_ms.get_or_insert(at.now_ms);
            if rounds > LINK_ROUNDS_MAX {
                let what = format!("no agreement on an epoch after {rounds} hellos");
                self.close(at, shard, Error::PeerProtocol { peer, what });
            } else if !is_on_its_way {
                self.say_hello(at, shard);
            }
            return;
        }
        if open.refused {
            let what = format!("it refuses messages of epoch {sent_epoch} and says that it is in it");
            return self.close(at, shard, Error::PeerProtocol { peer, what });
        }
        if matches!(open.stage, Stage::Ready(_)) {
            return;
        }
        let is_new = outgoing.become_ready(protocol, at.now_ms);
        if !core::mem::replace(announced, true) {
            self.inbox.push(Notice::Ready(shard));
        }
        if is_new {
            self.log(LogLevel::Notice, format!("there is a link to shard {peer}"));
        }
        self.pump(at, shard);
    }
}
