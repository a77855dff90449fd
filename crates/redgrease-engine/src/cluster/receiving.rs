//! What other shards send: hellos and messages.

use redgrease_core::id::ShardId;
use redgrease_core::peer::link::{
    HELLO_FUNCTION, LinkHello, LinkPayload, MESSAGE_FUNCTION, NETWORK_TEST_FUNCTION, NUMBER_MAX, is_redgrease_run,
    shown_reply,
};

use crate::cluster::contact::Contact;
use crate::cluster::links::{At, Links, Notice};
use crate::cluster::outgoing::State;
use crate::effect::Effect;
use crate::error::Error;
use crate::limits::{LINK_OPEN_MS_MAX, RECEIVED_BYTES_MAX, RUN_ID_BYTES_MAX, UNKNOWN_SENDERS_MAX};
use crate::planted::Bug;
use crate::prelude::*;

/// `RG.INNERMSGCOMMAND`.
#[derive(Debug, Clone, Copy)]
pub struct PeerCommand<'a> {
    /// The id of the sender.
    pub sender: &'a [u8],
    /// The id of its run.
    pub run: &'a [u8],
    /// What the message is for.
    pub function: &'a [u8],
    /// The message.
    pub payload: &'a [u8],
    /// Its number.
    pub number: &'a [u8],
}

/// How a message is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// It was accepted.
    Ok,
    /// It was accepted, and is acknowledged when there is room for the next one of this shard.
    OkLater(ShardId),
    /// It was received before.
    Duplicate,
    /// The hello of this shard.
    Hello(Vec<u8>),
    /// An error.
    Refused(Error),
}

impl Links {
    /// Another shard sent a command.
    pub fn receive(&mut self, at: At, command: &PeerCommand<'_>) -> Received {
        self.accept(at, command).unwrap_or_else(Received::Refused)
    }

    fn accept(&mut self, at: At, command: &PeerCommand<'_>) -> Result<Received, Error> {
        let PeerCommand { sender, run, function, payload, number } = *command;
        let number = number_of(number).ok_or(Error::BadMessageNumber)?;
        let violation = |what: String| Error::PeerProtocol { peer: shown_reply(sender), what };
        let shard = ShardId::padded(sender).ok_or_else(|| violation(format!("an id of {} bytes", sender.len())))?;
        if !(1..=RUN_ID_BYTES_MAX).contains(&run.len()) {
            return Err(violation(format!("the id of a run of {} bytes", run.len())));
        }
        match function {
            HELLO_FUNCTION => self.hear_hello(at, shard, run, payload, number),
            MESSAGE_FUNCTION => self.hear_message(at, shard, run, payload, number),
            NETWORK_TEST_FUNCTION => {
                let incoming = &mut self.contact_of(at, shard).incoming;
                let next = incoming.last(run).flatten().map_or(0, |last| last + 1);
                if number < next {
                    return Ok(Received::Duplicate);
                }
                // RedisGears leaves out messages that it has sent too often.
                if number > next && incoming.established.as_deref() == Some(run) {
                    return Err(violation(format!("message {number}, and {next} is missing")));
                }
                incoming.set_last(run, Some(number));
                Ok(Received::Ok)
            }
            _ => Err(Error::NoSuchReceiver),
        }
    }

    /// What is known of a sender. Of those that the topology does not have only some are remembered.
    fn contact_of(&mut self, at: At, shard: ShardId) -> &mut Contact {
        if !self.contacts.contains_key(&shard) {
            let unknown = self.contacts.iter().filter(|(_, contact)| contact.outgoing.is_none());
            let unknown: Vec<_> = unknown.map(|(shard, contact)| (contact.heard_ms, *shard)).collect();
            if unknown.len() >= UNKNOWN_SENDERS_MAX
                && let Some((_, oldest)) = unknown.iter().min()
            {
                self.forget(at, *oldest);
            }
        }
        let contact = self.contacts.entry(shard).or_default();
        contact.heard_ms = at.now_ms;
        contact
    }

    /// A hello: the sender's run and epoch, and the number of the message that follows.
    fn hear_hello(
        &mut self,
        at: At,
        shard: ShardId,
        run: &[u8],
        payload: &[u8],
        number: u64,
    ) -> Result<Received, Error> {
        let violation = |what: String| Error::PeerProtocol { peer: shard.to_string(), what };
        let hello = LinkHello::decode(payload).map_err(|error| violation(error.to_string()))?;
        let epoch = self.contacts.get(&shard).map_or(0, |contact| contact.epoch);
        let Some(terms) = hello.terms.filter(|terms| {
            // The sender sees the versions and the id of this shard, and goes away.
            hello.versions.match_with(&self.versions) && terms.shard == self.me && shard != self.me
        }) else {
            return Ok(Received::Hello(self.hello_of(self.me, epoch, None)));
        };
        if !is_redgrease_run(run) {
            return Err(violation(format!("a run that is not one of redgrease: '{}'", shown_reply(run))));
        }
        if self.contacts.get(&shard).is_some_and(|contact| contact.was(run)) {
            return Err(Error::PeerRestarted(shard.to_string()));
        }
        if !self.is_linked(shard) {
            // In a new cluster not all shards know each other at the same time. This one could not answer messages; the
            // sender tries again.
            self.ask_for_topology(at);
            return Err(Error::PeerGone(shard.to_string()));
        }
        self.contact_of(at, shard);
        if self.contacts.get(&shard).is_some_and(|contact| contact.run.as_deref() != Some(run)) {
            self.restarted(at, shard, run.into());
            self.leave_former(at, shard, run);
        }
        let epoch = self.contacts.get(&shard).map_or(0, |contact| contact.epoch);
        if terms.epoch > epoch {
            self.lose(at, shard, &Error::PeerReset(self.name(shard)), Some(terms.epoch));
        }
        self.expect(at, shard, run, number);
        let Some(contact) = self.contacts.get_mut(&shard) else { return Err(Error::PeerGone(shard.to_string())) };
        if let Some(outgoing) = &mut contact.outgoing {
            outgoing.hurry(at.now_ms);
        }
        if contact.epoch == terms.epoch {
            contact.incoming.established = Some(run.into());
        }
        let (epoch, received) = (contact.epoch, contact.incoming.last(run).flatten());
        Ok(Received::Hello(self.hello_of(self.me, epoch, received)))
    }

    /// The next message of a run has this number. If that skips some in the epoch in which they were expected, or if it is not
    /// known which ones were received, they are given up.
    fn expect(&mut self, at: At, shard: ShardId, run: &[u8], number: u64) {
        let Some(contact) = self.contacts.get_mut(&shard) else { return };
        let known = contact.incoming.last(run);
        let next = known.flatten().map_or(0, |last| last + 1);
        if number <= next {
            if known.is_none() {
                contact.incoming.set_last(run, None);
            }
            return;
        }
        contact.incoming.set_last(run, Some(number - 1));
        if known.is_none() || contact.incoming.established.is_some() {
            let raised = contact.epoch + 1;
            self.lose(at, shard, &Error::PeerReset(self.name(shard)), Some(raised));
        }
    }

    /// The link to a shard that has restarted leads nowhere.
    fn leave_former(&mut self, at: At, shard: ShardId, run: &[u8]) {
        let outgoing = self.contacts.get(&shard).and_then(|contact| contact.outgoing.as_ref());
        let leads_elsewhere = match outgoing.map(|outgoing| &outgoing.state) {
            Some(State::Open(open)) => !open.run.is_empty() && *open.run != *run,
            _ => false,
        };
        if leads_elsewhere {
            let problem = Error::PeerRestarted(self.name(shard));
            self.close(at, shard, problem);
        }
    }

    /// Whether the topology has a shard.
    fn is_linked(&self, shard: ShardId) -> bool {
        self.contacts.get(&shard).is_some_and(|contact| contact.outgoing.is_some())
    }

    /// Has the server's topology read, which may have changed.
    fn ask_for_topology(&mut self, at: At) {
        let is_due = self.read_ms.is_none_or(|read_ms| at.now_ms - read_ms >= LINK_OPEN_MS_MAX);
        if is_due && self.pushed.is_none() {
            self.read_ms = Some(at.now_ms);
            self.out.push(Effect::ReadTopology);
        }
    }

    /// A message, or a part of one.
    fn hear_message(
        &mut self,
        at: At,
        shard: ShardId,
        run: &[u8],
        payload: &[u8],
        number: u64,
    ) -> Result<Received, Error> {
        let violation = |what: String| Error::PeerProtocol { peer: shard.to_string(), what };
        let (accepts_stale, accepts_duplicates) =
            (self.planted(Bug::StaleEpochAccepted), self.planted(Bug::DuplicatesAccepted));
        let waiting = self.inbox.bytes() + self.part_bytes + payload.len();
        let known = self.contacts.get_mut(&shard).filter(|contact| contact.run.as_deref() == Some(run));
        let contact = known.ok_or_else(|| violation("a message before its hello".into()))?;
        contact.heard_ms = at.now_ms;
        let payload = LinkPayload::decode(payload).map_err(|error| violation(error.to_string()))?;
        let is_stale = contact.incoming.established.is_none() || payload.epoch() < contact.epoch;
        if is_stale && !accepts_stale {
            return Err(Error::PeerReset(shard.to_string()));
        }
        if payload.epoch() > contact.epoch {
            return Err(violation(format!("a message of epoch {} in {}", payload.epoch(), contact.epoch)));
        }
        let next = contact.incoming.last(run).flatten().map_or(0, |last| last + 1);
        if number < next && !accepts_duplicates {
            return Ok(Received::Duplicate);
        }
        if number > next {
            return Err(violation(format!("message {number}, and {next} is missing")));
        }
        if waiting > RECEIVED_BYTES_MAX {
            return Err(Error::ReceivedTooMuch);
        }
        let before = contact.incoming.part_bytes();
        let message = match payload {
            LinkPayload::Whole { message, .. } => contact.incoming.expects_whole().map(|()| Some(message.to_vec())),
            LinkPayload::Part { total, offset, part, .. } => contact.incoming.add_part(total, offset, part),
        };
        let message = message.map_err(|error| violation(error.to_string()))?;
        self.part_bytes = self.part_bytes + contact.incoming.part_bytes() - before;
        contact.incoming.set_last(run, Some(number));
        if let Some(bytes) = message {
            self.inbox.push(Notice::Message { from: shard, bytes });
        }
        Ok(if self.has_room(shard) { Received::Ok } else { Received::OkLater(shard) })
    }

    /// Whether the next message of a shard may come.
    #[must_use]
    pub fn has_room(&self, shard: ShardId) -> bool {
        let (of_one, of_all) = self.sizes.soft_bytes;
        self.inbox.bytes_of(shard) <= of_one && self.inbox.bytes() <= of_all
    }
}

/// The number of a message: decimal digits.
fn number_of(text: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok().filter(|number| *number <= NUMBER_MAX)
}
