//! What links promise, checked at each notice.

use std::collections::BTreeMap;

/// A message between two simulated shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The sender.
    pub from: usize,
    /// Its run.
    pub run: u64,
    /// The receiver.
    pub to: usize,
    /// How many losses of the receiver the sender knew of.
    pub loss: u64,
    /// Counts its messages to the receiver.
    pub number: u64,
}

impl Stamp {
    /// A message of this length, or a longer one.
    pub fn encode(&self, len: usize) -> Vec<u8> {
        let numbers = [self.from as u64, self.run, self.to as u64, self.loss, self.number];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let filling = self.filling();
        bytes.resize(bytes.len().max(len), filling);
        bytes
    }

    /// Reads a message, of which every byte has to be there.
    pub fn decode(bytes: &[u8]) -> Option<Stamp> {
        let number = |index: usize| Some(u64::from_le_bytes(bytes.get(index * 8..index * 8 + 8)?.try_into().ok()?));
        let stamp = Stamp {
            from: number(0)? as usize,
            run: number(1)?,
            to: number(2)? as usize,
            loss: number(3)?,
            number: number(4)?,
        };
        bytes[40..].iter().all(|byte| *byte == stamp.filling()).then_some(stamp)
    }

    fn filling(&self) -> u8 {
        (self.number % 251) as u8
    }
}

/// What one run of a shard has sent to another one.
#[derive(Debug, Default)]
struct Sending {
    /// Losses that were reported.
    loss: u64,
    /// The first message after each of them.
    starts: BTreeMap<u64, u64>,
    next: u64,
    /// It is said to be ready.
    ready: bool,
}

/// What one run of a shard has received of another one.
#[derive(Debug, Default)]
struct Receiving {
    last: Option<Stamp>,
    /// A loss was reported since.
    lost: bool,
}

/// What has happened.
#[derive(Debug, Default)]
pub struct Promises {
    /// By sender, its run, and receiver.
    sending: BTreeMap<(usize, u64, usize), Sending>,
    /// By receiver, its run, and sender.
    receiving: BTreeMap<(usize, u64, usize), Receiving>,
    /// Losses that were reported.
    pub losses: u64,
    /// Messages that were delivered.
    pub delivered: u64,
}

impl Promises {
    /// A shard sends a message.
    pub fn sends(&mut self, from: usize, run: u64, to: usize) -> Stamp {
        let sending = self.sending.entry((from, run, to)).or_default();
        sending.starts.entry(sending.loss).or_insert(sending.next);
        let stamp = Stamp { from, run, to, loss: sending.loss, number: sending.next };
        sending.next += 1;
        stamp
    }

    /// A shard is told that another one is ready.
    pub fn ready(&mut self, at: usize, run: u64, other: usize) -> Result<(), String> {
        let sending = self.sending.entry((at, run, other)).or_default();
        if std::mem::replace(&mut sending.ready, true) {
            return Err(format!("{at} is told twice that {other} is ready"));
        }
        Ok(())
    }

    /// A shard is told that messages of and to another one are lost.
    pub fn lost(&mut self, at: usize, run: u64, other: usize) {
        self.losses += 1;
        let sending = self.sending.entry((at, run, other)).or_default();
        sending.loss += 1;
        sending.ready = false;
        self.receiving.entry((at, run, other)).or_default().lost = true;
    }

    /// A shard gets a message.
    pub fn delivers(&mut self, at: usize, run: u64, from: usize, bytes: &[u8]) -> Result<Stamp, String> {
        self.delivered += 1;
        let stamp = Stamp::decode(bytes).ok_or_else(|| format!("a message to {at} is damaged: {:?}", &bytes[..40]))?;
        if (stamp.to, stamp.from) != (at, from) {
            return Err(format!("{at} gets a message of {from}: {stamp:?}"));
        }
        let starts = &self.sending[&(from, stamp.run, at)].starts;
        let receiving = self.receiving.entry((at, run, from)).or_default();
        let fits = match receiving.last.filter(|last| last.run == stamp.run) {
            // Without a loss, messages follow each other.
            Some(last) if !receiving.lost => (stamp.loss, stamp.number) == (last.loss, last.number + 1),
            // After a loss, the sender knows of one, too, and of no message in between.
            Some(last) => stamp.loss > last.loss && starts[&stamp.loss] == stamp.number,
            None if receiving.last.is_some() && !receiving.lost => false,
            None => starts[&stamp.loss] == stamp.number,
        };
        if !fits {
            return Err(format!("{at} gets {stamp:?} after {receiving:?}"));
        }
        *receiving = Receiving { last: Some(stamp), lost: false };
        Ok(stamp)
    }

    /// The network was calm for long: what was sent since the last loss has arrived.
    pub fn all_arrived(&self, from: (usize, u64), to: (usize, u64)) -> Result<(), String> {
        let Some(sending) = self.sending.get(&(from.0, from.1, to.0)) else { return Ok(()) };
        if !sending.ready {
            return Err(format!("{} is not told that {} is ready", from.0, to.0));
        }
        let Some(start) = sending.starts.get(&sending.loss) else { return Ok(()) };
        let last = self.receiving.get(&(to.0, to.1, from.0)).and_then(|receiving| receiving.last);
        let arrived = last.filter(|last| last.run == from.1).map(|last| last.number + 1);
        if *start < sending.next && arrived != Some(sending.next) {
            return Err(format!(
                "of {from:?} to {to:?}, {last:?} arrived last and {} messages were sent",
                sending.next
            ));
        }
        Ok(())
    }
}
