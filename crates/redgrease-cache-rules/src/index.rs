//! The state machine that implements the operations of [`protocol`](crate::protocol).
//!
//! The rules are implemented twice on purpose: by the scripts that run in a server, and here. This implementation is
//! the one that the simulation checks, the reference for the scripts (random operations, equal replies), and the index
//! of caches without a server.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::protocol::{
    Answer, Audit, Bounds, Choice, Doomed, GRACE, Held, HeldKind, Info, MAX_PLACES, Mode, Op, PLACE, Reply, Request,
    SLICE, Session, Token, WINDOW,
};
use crate::{Digest, Entry, Key, Micros};

/// The state of one cache.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Index {
    head: Option<Head>,
    entries: BTreeMap<Key, Entry>,
    /// When each entry was last used; pinned entries are not in it.
    used: BTreeMap<Key, Micros>,
    order: BTreeSet<(Micros, Key)>,
    ending: BTreeSet<(Micros, Key)>,
    writers: BTreeMap<Key, Writer>,
    places: BTreeMap<Key, Vec<Place>>,
    pins: BTreeMap<Key, Vec<Pin>>,
    sessions: BTreeMap<u64, Life>,
    /// Files that are no longer content and not known to be unlinked, per key, oldest first.
    garbage: BTreeMap<Key, Vec<Garbage>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Head {
    cache: u64,
    instance: u64,
    builder: Option<u64>,
    bounds: Bounds,
    bytes: u64,
    reserved: u64,
    garbage: u64,
    fence: u64,
    evicted: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Writer {
    token: Token,
    fence: u64,
    reserved: u64,
    since: Micros,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Place {
    token: Token,
    until: Micros,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pin {
    token: Token,
    fence: u64,
    since: Micros,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Life {
    until: Micros,
    owner: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Garbage {
    /// When a process was last asked to unlink it.
    at: Micros,
    entry: Entry,
}

/// Why a request is refused.
type Refusal = Reply;

impl Index {
    /// Executes one operation at the time `now`.
    pub fn apply(&mut self, now: Micros, request: &Request) -> Answer {
        let mut step = Step { index: self, now, doomed: Vec::new() };
        let reply = step.gate(request).unwrap_or_else(|| step.run(request));
        Answer { reply, doomed: step.doomed }
    }

    /// Whether an operation changes nothing, so that it need not be sent to other processes.
    pub fn is_silent(op: &Op) -> bool {
        matches!(op, Op::Open { .. } | Op::Peek { .. } | Op::Alive { .. } | Op::Info | Op::Audit { repair: false })
    }

    /// Up to `count` entries after `after`, and when they were last used.
    pub fn page(&self, after: Option<&Key>, count: usize) -> Vec<(Key, Entry, Option<Micros>)> {
        use core::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let page = self.entries.range::<Key, _>((from, Unbounded)).take(count);
        page.map(|(key, entry)| (key.clone(), entry.clone(), self.used.get(key).copied())).collect()
    }

    /// All leases, including those of expired sessions.
    pub fn held(&self) -> Vec<Held> {
        let writers = self.writers.iter().map(|(key, writer)| Held {
            key: key.clone(),
            token: writer.token,
            fence: writer.fence,
            since: writer.since,
            kind: HeldKind::Writer,
        });
        let readers = self.pins.iter().flat_map(|(key, pins)| {
            pins.iter().map(|pin| Held {
                key: key.clone(),
                token: pin.token,
                fence: pin.fence,
                since: pin.since,
                kind: HeldKind::Reader,
            })
        });
        let waiting = self.places.iter().flat_map(|(key, places)| {
            places.iter().map(|place| Held {
                key: key.clone(),
                token: place.token,
                fence: 0,
                since: 0,
                kind: HeldKind::Waiting,
            })
        });
        writers.chain(readers).chain(waiting).collect()
    }

    /// Sessions, with their expiry time and their owner.
    pub fn sessions(&self) -> impl Iterator<Item = (u64, Micros, &str)> {
        self.sessions.iter().map(|(id, life)| (*id, life.until, life.owner.as_str()))
    }

    /// The entry of a key, expired or not.
    pub fn entry(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }
}

/// One operation in progress.
struct Step<'a> {
    index: &'a mut Index,
    now: Micros,
    doomed: Vec<Doomed>,
}

impl Step<'_> {
    /// Refuses requests of the wrong instance, cache or session, for every operation.
    fn gate(&self, request: &Request) -> Option<Refusal> {
        if let Op::Rebuild { wipe, .. } = &request.op {
            return match &self.index.head {
                Some(head) if head.cache != request.cache && !wipe => Some(Reply::Foreign { cache: head.cache }),
                _ => None,
            };
        }
        let Some(head) = &self.index.head else { return Some(Reply::Lost) };
        if head.cache != request.cache {
            return Some(Reply::Foreign { cache: head.cache });
        }
        match request.op {
            Op::Restore { .. } | Op::Finish { .. } | Op::Renew { .. } | Op::Close { .. } => None,
            _ => head.builder.map(|_| Reply::Rebuilding),
        }
    }

    fn run(&mut self, request: &Request) -> Reply {
        match &request.op {
            Op::Open { instance } => {
                if self.head().instance == *instance {
                    Reply::Done
                } else {
                    Reply::Changed
                }
            }
            Op::Lookup { key, pin } => self.lookup(key, pin.as_ref()),
            Op::Peek { key } => self.peek(key),
            Op::Acquire { key, token, session, mode, reserve, wait, hit, releases } => {
                self.release_all(releases);
                let request =
                    WriteRequest { token: *token, session, mode: *mode, reserve: *reserve, wait: *wait, hit: *hit };
                self.acquire(key, &request).unwrap_or_else(|refusal| refusal)
            }
            Op::Reserve { key, token, bytes } => self.reserve(key, *token, *bytes).unwrap_or_else(|refusal| refusal),
            Op::Commit { key, token, mode, entry, unlinked, pin } => {
                self.forget(unlinked);
                let reply = self.commit(key, *token, *mode, entry).unwrap_or_else(|refusal| refusal);
                if *pin && matches!(reply, Reply::Committed(_)) {
                    self.add_pin(key, *token, entry.fence);
                }
                reply
            }
            Op::Abort { key, token } => {
                self.dequeue(key, *token);
                match self.index.writers.get(key) {
                    Some(writer) if writer.token == *token => {
                        self.drop_writer(key);
                        Reply::Done
                    }
                    _ => Reply::Missing,
                }
            }
            Op::Release { leases } => {
                self.release_all(leases);
                Reply::Done
            }
            Op::Remove { key, fence, .. } => match self.index.entries.get(key) {
                Some(entry) if fence.is_none_or(|fence| fence == entry.fence) => {
                    self.claim(key);
                    Reply::Done
                }
                _ => Reply::Missing,
            },
            Op::Touch { key, ttl } => self.touch(key, *ttl),
            Op::Pin { key, pinned } => self.pin(key, *pinned),
            Op::Renew { session, unlinked } => {
                self.forget(unlinked);
                self.ensure(&Session { new: false, ..session.clone() }).err().unwrap_or(Reply::Done)
            }
            Op::Close { session } => {
                self.index.sessions.remove(session);
                Reply::Done
            }
            Op::Evict { choice } => self.evict(*choice),
            Op::Sweep => self.sweep(),
            Op::Judge { files } => {
                Reply::Flags(files.iter().map(|(key, fence, digest)| self.is_garbage(key, *fence, *digest)).collect())
            }
            Op::Alive { sessions } => Reply::Flags(sessions.iter().map(|session| self.is_alive(*session)).collect()),
            Op::Break { key } => {
                self.index.places.remove(key);
                if self.index.writers.contains_key(key) {
                    self.drop_writer(key);
                    Reply::Done
                } else {
                    Reply::Missing
                }
            }
            Op::Configure { bounds } => {
                self.head_mut().bounds = *bounds;
                Reply::Done
            }
            Op::Info => Reply::Info(Box::new(self.info())),
            Op::Audit { repair } => Reply::Audited(self.audit(*repair)),
            Op::Rebuild { session, instance, bounds, wipe } => {
                self.rebuild(request.cache, session, *instance, *bounds, *wipe).unwrap_or_else(|refusal| refusal)
            }
            Op::Restore { session, entries } => self.restore(*session, entries),
            Op::Finish { session, instance } => {
                if self.head().builder != Some(*session) {
                    return Reply::LeaseLost;
                }
                let head = self.head_mut();
                head.builder = None;
                head.instance = *instance;
                Reply::Done
            }
        }
    }

    fn head(&self) -> &Head {
        self.index.head.as_ref().expect("checked by the gate")
    }

    fn head_mut(&mut self) -> &mut Head {
        self.index.head.as_mut().expect("checked by the gate")
    }

    fn is_alive(&self, session: u64) -> bool {
        self.index.sessions.get(&session).is_some_and(|life| life.until > self.now)
    }

    /// Records a sign of life of the session. A session that was silent for too long is not revived.
    fn ensure(&mut self, session: &Session) -> Result<(), Refusal> {
        let until = self.now + session.lease;
        match self.index.sessions.get_mut(&session.id) {
            Some(life) if life.until > self.now => {
                // A very recent sign of life is not recorded again.
                if life.until < self.now + session.lease / 8 * 7 {
                    life.until = until;
                }
            }
            None if session.new => {
                self.index.sessions.insert(session.id, Life { until, owner: session.owner.clone() });
            }
            _ => return Err(Reply::SessionLost),
        }
        Ok(())
    }

    fn has_expired(&self, key: &Key, entry: &Entry) -> bool {
        let idle = self.head().bounds.max_idle;
        entry.is_expired(self.now) || (idle > 0 && self.index.used.get(key).is_some_and(|used| used + idle <= self.now))
    }

    /// The content of a key; an expired one is removed first.
    fn current(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.index.entries.get(key)?;
        if self.has_expired(key, entry) {
            self.claim(key);
            self.head_mut().evicted += 1;
            return None;
        }
        Some(entry.clone())
    }

    fn use_now(&mut self, key: &Key) {
        if let Some(used) = self.index.used.get_mut(key) {
            self.index.order.remove(&(*used, key.clone()));
            *used = self.now;
            self.index.order.insert((self.now, key.clone()));
        }
    }

    /// Removes an entry from the index; its file is garbage from now on.
    fn claim(&mut self, key: &Key) {
        let Some(entry) = self.index.entries.remove(key) else { return };
        if let Some(used) = self.index.used.remove(key) {
            self.index.order.remove(&(used, key.clone()));
        }
        self.index.ending.remove(&(entry.expires, key.clone()));
        let head = self.head_mut();
        head.bytes -= entry.size;
        head.garbage += entry.size;
        self.add_garbage(key, entry, self.now);
        self.doom(key);
    }

    fn add_garbage(&mut self, key: &Key, entry: Entry, at: Micros) {
        let list = self.index.garbage.entry(key.clone()).or_default();
        let place = list.partition_point(|garbage| garbage.entry.fence < entry.fence);
        list.insert(place, Garbage { at, entry });
    }

    /// Requests that the garbage of a key is unlinked, oldest first, up to a file that has a reader.
    fn doom(&mut self, key: &Key) {
        let Some(mut list) = self.index.garbage.remove(key) else { return };
        for garbage in &mut list {
            if self.has_reader(key, Some(garbage.entry.fence)) {
                break;
            }
            garbage.at = self.now;
            self.doomed.push(Doomed { key: key.clone(), entry: garbage.entry.clone() });
        }
        self.index.garbage.insert(key.clone(), list);
    }

    fn is_known_garbage(&self, key: &Key, fence: u64) -> bool {
        self.index.garbage.get(key).is_some_and(|list| list.iter().any(|garbage| garbage.entry.fence == fence))
    }

    fn has_reader(&self, key: &Key, fence: Option<u64>) -> bool {
        self.index.pins.get(key).is_some_and(|pins| {
            pins.iter().any(|pin| fence.is_none_or(|fence| fence == pin.fence) && self.is_alive(pin.token.session))
        })
    }

    fn forget(&mut self, unlinked: &[(Key, u64)]) {
        for (key, fence) in unlinked {
            let Some(list) = self.index.garbage.get_mut(key) else { continue };
            let Some(at) = list.iter().position(|garbage| garbage.entry.fence == *fence) else { continue };
            let size = list.remove(at).entry.size;
            if list.is_empty() {
                self.index.garbage.remove(key);
            }
            self.head_mut().garbage -= size;
        }
    }

    fn lookup(&mut self, key: &Key, pin: Option<&(Token, Session)>) -> Reply {
        let Some(entry) = self.current(key) else { return self.absent(key) };
        if let Some((token, session)) = pin {
            match self.ensure(session) {
                Ok(()) => self.add_pin(key, *token, entry.fence),
                Err(refusal) => return refusal,
            }
        }
        self.use_now(key);
        Reply::Hit(entry)
    }

    fn busy(&self, session: u64) -> Reply {
        Reply::Busy { owner: self.index.sessions.get(&session).map(|life| life.owner.clone()) }
    }

    fn absent(&self, key: &Key) -> Reply {
        match self.index.writers.get(key) {
            Some(writer) if self.is_alive(writer.token.session) => self.busy(writer.token.session),
            _ => Reply::Missing,
        }
    }

    fn peek(&self, key: &Key) -> Reply {
        match self.index.entries.get(key) {
            Some(entry) if !self.has_expired(key, entry) => {
                Reply::Seen { entry: entry.clone(), used: self.index.used.get(key).copied() }
            }
            _ => self.absent(key),
        }
    }

    fn add_pin(&mut self, key: &Key, token: Token, fence: u64) {
        let since = self.now;
        let pins = self.index.pins.entry(key.clone()).or_default();
        if pins.iter().all(|pin| pin.token != token) {
            pins.push(Pin { token, fence, since });
        }
    }

    fn acquire(&mut self, key: &Key, request: &WriteRequest<'_>) -> Result<Reply, Refusal> {
        let present = self.current(key);
        if let Some(entry) = &present
            && (request.hit || request.mode == Mode::Create)
        {
            self.dequeue(key, request.token);
            if !request.hit {
                return Err(Reply::Exists);
            }
            self.ensure(request.session)?;
            self.add_pin(key, request.token, entry.fence);
            self.use_now(key);
            return Ok(Reply::Hit(entry.clone()));
        }
        self.refuse_too_large(request.reserve)?;
        self.ensure(request.session)?;
        let mut after_dead = false;
        match self.index.writers.get(key) {
            Some(writer) if writer.token == request.token => {
                return Ok(Reply::Granted { fence: writer.fence, after_dead: false });
            }
            Some(writer) if self.is_alive(writer.token.session) => {
                let busy = self.busy(writer.token.session);
                self.enqueue(key, request);
                return Err(busy);
            }
            Some(_) => {
                after_dead = true;
                self.drop_writer(key);
            }
            None => {}
        }
        self.prune_places(key);
        let first = self.index.places.get(key).and_then(|places| places.first());
        if first.is_some_and(|place| place.token != request.token) {
            self.enqueue(key, request);
            return Err(Reply::Busy { owner: None });
        }
        self.free_space(request.reserve, u64::from(present.is_none()), None)?;
        self.dequeue(key, request.token);
        let (now, head) = (self.now, self.head_mut());
        head.fence = now.max(head.fence + 1);
        head.reserved += request.reserve;
        let fence = head.fence;
        self.index
            .writers
            .insert(key.clone(), Writer { token: request.token, fence, reserved: request.reserve, since: now });
        Ok(Reply::Granted { fence, after_dead })
    }

    fn refuse_too_large(&self, bytes: u64) -> Result<(), Refusal> {
        let limit = self.head().bounds.largest_entry();
        if limit > 0 && bytes > limit { Err(Reply::TooLarge { limit }) } else { Ok(()) }
    }

    fn enqueue(&mut self, key: &Key, request: &WriteRequest<'_>) {
        if !request.wait {
            return;
        }
        let until = self.now + PLACE;
        let places = self.index.places.entry(key.clone()).or_default();
        let is_full = places.len() >= MAX_PLACES;
        match places.iter_mut().find(|place| place.token == request.token) {
            Some(place) => place.until = until,
            None if !is_full => places.push(Place { token: request.token, until }),
            None => {}
        }
    }

    fn prune_places(&mut self, key: &Key) {
        let now = self.now;
        self.change_places(key, |place| place.until > now);
    }

    fn dequeue(&mut self, key: &Key, token: Token) {
        self.change_places(key, |place| place.token != token);
    }

    fn change_places(&mut self, key: &Key, keep: impl Fn(&Place) -> bool) {
        if let Some(places) = self.index.places.get_mut(key) {
            places.retain(keep);
            if places.is_empty() {
                self.index.places.remove(key);
            }
        }
    }

    fn drop_writer(&mut self, key: &Key) {
        if let Some(writer) = self.index.writers.remove(key) {
            self.head_mut().reserved -= writer.reserved;
        }
    }

    /// Evicts the least recently used entries until the given amount fits.
    fn free_space(&mut self, bytes: u64, entries: u64, keep: Option<&Key>) -> Result<(), Refusal> {
        if self.fits(bytes, entries) {
            return Ok(());
        }
        let goal = self.goal(bytes, entries);
        let oldest: Vec<Key> = self.index.order.iter().take(WINDOW).map(|(_, key)| key.clone()).collect();
        let mut claimed = 0;
        for key in oldest {
            if claimed == SLICE || self.is_within(goal, bytes, entries) {
                break;
            }
            if keep != Some(&key) && !self.has_reader(&key, None) {
                self.claim(&key);
                self.head_mut().evicted += 1;
                claimed += 1;
            }
        }
        if !self.fits(bytes, entries) {
            self.drop_dead_writers();
        }
        if self.fits(bytes, entries) {
            return Ok(());
        }
        Err(Reply::Full { limit: self.head().bounds.max_bytes })
    }

    fn fits(&self, bytes: u64, entries: u64) -> bool {
        let bounds = self.head().bounds;
        self.is_within((bounds.max_bytes, bounds.max_entries), bytes, entries)
    }

    fn is_within(&self, (max_bytes, max_entries): (u64, u64), bytes: u64, entries: u64) -> bool {
        let head = self.head();
        let count = (self.index.entries.len() + self.index.writers.len()) as u64;
        (head.bounds.max_bytes == 0 || head.bytes + head.reserved + bytes <= max_bytes)
            && (head.bounds.max_entries == 0 || count + entries <= max_entries)
    }

    /// The target of an eviction: below the low marks, unless the new content itself exceeds them.
    fn goal(&self, bytes: u64, entries: u64) -> (u64, u64) {
        let head = self.head();
        let low = |bound: u64| bound / 1000 * head.bounds.low_mark + bound % 1000 * head.bounds.low_mark / 1000;
        let goal = |bound: u64, coming: u64| if coming <= low(bound) { low(bound) } else { bound };
        (
            goal(head.bounds.max_bytes, head.reserved + bytes),
            goal(head.bounds.max_entries, self.index.writers.len() as u64 + entries),
        )
    }

    fn drop_dead_writers(&mut self) -> bool {
        let dead: Vec<Key> = self
            .index
            .writers
            .iter()
            .filter(|(_, writer)| !self.is_alive(writer.token.session))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &dead {
            self.drop_writer(key);
        }
        !dead.is_empty()
    }

    fn reserve(&mut self, key: &Key, token: Token, bytes: u64) -> Result<Reply, Refusal> {
        let reserved = match self.index.writers.get(key) {
            Some(writer) if writer.token == token => writer.reserved,
            _ => return Err(Reply::LeaseLost),
        };
        self.refuse_too_large(bytes)?;
        if bytes > reserved {
            self.free_space(bytes - reserved, 0, None)?;
            // The eviction may have found the session expired.
            let writer = self.index.writers.get_mut(key).ok_or(Reply::LeaseLost)?;
            writer.reserved = bytes;
            self.head_mut().reserved += bytes - reserved;
        }
        Ok(Reply::Done)
    }

    fn commit(&mut self, key: &Key, token: Token, mode: Mode, made: &Entry) -> Result<Reply, Refusal> {
        if let Some(entry) = self.index.entries.get(key)
            && entry.fence == made.fence
        {
            return Ok(Reply::Committed(entry.clone()));
        }
        match self.index.writers.get(key) {
            Some(writer) if writer.token == token && writer.fence == made.fence => {}
            _ => return Err(Reply::LeaseLost),
        }
        self.drop_writer(key);
        self.refuse_too_large(made.size)?;
        if self.current(key).is_some() {
            if mode == Mode::Create {
                return Err(Reply::Exists);
            }
            self.claim(key);
        }
        let expires = self.end(made.ttl);
        let entry = Entry { created: self.now, expires, pinned: false, ..made.clone() };
        self.insert(key, entry.clone(), self.now);
        // Committed content stays, even if nothing else can be evicted.
        let _ = self.free_space(0, 0, Some(key));
        Ok(Reply::Committed(entry))
    }

    /// When an entry made now expires.
    fn end(&self, ttl: Micros) -> Micros {
        match (ttl, self.head().bounds.max_age) {
            (0, 0) => 0,
            (0, life) | (life, 0) => self.now.saturating_add(life),
            (ttl, age) => self.now.saturating_add(ttl.min(age)),
        }
    }

    fn insert(&mut self, key: &Key, entry: Entry, used: Micros) {
        self.head_mut().bytes += entry.size;
        if entry.expires != 0 {
            self.index.ending.insert((entry.expires, key.clone()));
        }
        self.index.used.insert(key.clone(), used);
        self.index.order.insert((used, key.clone()));
        self.index.entries.insert(key.clone(), entry);
    }

    fn release_all(&mut self, leases: &[(Key, Token)]) {
        for (key, token) in leases {
            self.release(key, *token);
        }
    }

    fn release(&mut self, key: &Key, token: Token) {
        self.dequeue(key, token);
        if self.index.writers.get(key).is_some_and(|writer| writer.token == token) {
            self.drop_writer(key);
        }
        let Some(pins) = self.index.pins.get_mut(key) else { return };
        let Some(at) = pins.iter().position(|pin| pin.token == token) else { return };
        let fence = pins.remove(at).fence;
        if pins.is_empty() {
            self.index.pins.remove(key);
        }
        if self.is_known_garbage(key, fence) {
            self.doom(key);
        }
    }

    fn touch(&mut self, key: &Key, ttl: Option<Micros>) -> Reply {
        if self.current(key).is_none() {
            return Reply::Missing;
        }
        self.use_now(key);
        if let Some(ttl) = ttl {
            let expires = self.end(ttl);
            let entry = self.index.entries.get_mut(key).expect("looked up above");
            self.index.ending.remove(&(entry.expires, key.clone()));
            entry.expires = expires;
            if expires != 0 {
                self.index.ending.insert((expires, key.clone()));
            }
        }
        Reply::Done
    }

    fn pin(&mut self, key: &Key, pinned: bool) -> Reply {
        if self.current(key).is_none() {
            return Reply::Missing;
        }
        let entry = self.index.entries.get_mut(key).expect("looked up above");
        if entry.pinned != pinned {
            entry.pinned = pinned;
            if pinned {
                if let Some(used) = self.index.used.remove(key) {
                    self.index.order.remove(&(used, key.clone()));
                }
            } else {
                self.index.used.insert(key.clone(), self.now);
                self.index.order.insert((self.now, key.clone()));
            }
        }
        Reply::Done
    }

    fn evict(&mut self, choice: Choice) -> Reply {
        let candidates: Vec<(Micros, Key)> = match choice {
            Choice::Everything => self.index.entries.keys().take(SLICE).map(|key| (0, key.clone())).collect(),
            _ => self.index.order.iter().take(WINDOW).cloned().collect(),
        };
        let mut claimed = 0;
        for (used, key) in candidates {
            let enough = match choice {
                Choice::ToBytes(bytes) => self.head().bytes <= bytes,
                Choice::UsedBefore(time) => used >= time,
                Choice::Everything => false,
            };
            if enough || claimed == SLICE {
                break;
            }
            if choice == Choice::Everything || !self.has_reader(&key, None) {
                self.claim(&key);
                self.head_mut().evicted += 1;
                claimed += 1;
            }
        }
        if claimed == SLICE { Reply::More } else { Reply::Done }
    }

    fn sweep(&mut self) -> Reply {
        let now = self.now;
        let mut more = false;
        self.index.sessions.retain(|_, life| life.until > now);
        self.drop_dead_writers();
        for key in self.index.places.keys().cloned().collect::<Vec<_>>() {
            self.prune_places(&key);
        }
        let sessions = &self.index.sessions;
        self.index.pins.retain(|_, pins| {
            pins.retain(|pin| sessions.contains_key(&pin.token.session));
            !pins.is_empty()
        });
        let mut over: Vec<Key> = self
            .index
            .ending
            .iter()
            .take_while(|(end, _)| *end <= now)
            .take(SLICE)
            .map(|(_, key)| key.clone())
            .collect();
        more |= over.len() == SLICE;
        let idle = self.head().bounds.max_idle;
        if idle > 0 {
            let unused = self.index.order.iter().take_while(|(used, _)| used + idle <= now).take(SLICE);
            let unused: Vec<Key> = unused.map(|(_, key)| key.clone()).collect();
            more |= unused.len() == SLICE;
            over.extend(unused);
        }
        for key in over {
            if self.index.entries.contains_key(&key) {
                self.claim(&key);
                self.head_mut().evicted += 1;
            }
        }
        let before = self.doomed.len();
        let _ = self.free_space(0, 0, None);
        more |= self.doomed.len() - before == SLICE;
        let is_left = |garbage: &Garbage| garbage.at + GRACE <= now;
        // Garbage with readers would only delay the rest.
        let can_go =
            |key: &Key, list: &[Garbage]| list.first().is_some_and(|g| !self.has_reader(key, Some(g.entry.fence)));
        let left = self.index.garbage.iter().filter(|(key, list)| list.iter().any(is_left) && can_go(key, list));
        let left: Vec<Key> = left.take(SLICE).map(|(key, _)| key.clone()).collect();
        more |= left.len() == SLICE && self.doomed.len() > before;
        for key in left {
            self.doom(&key);
        }
        if more { Reply::More } else { Reply::Done }
    }

    fn is_garbage(&mut self, key: &Key, fence: u64, digest: Digest) -> bool {
        let current = self.index.entries.get(key).is_some_and(|entry| entry.fence == fence && entry.digest == digest);
        if current || self.is_known_garbage(key, fence) {
            return false;
        }
        match self.index.writers.get(key) {
            Some(writer) if writer.fence == fence => {
                if self.is_alive(writer.token.session) {
                    return false;
                }
                self.drop_writer(key);
                true
            }
            _ => true,
        }
    }

    fn info(&self) -> Info {
        let (head, index) = (self.head(), &self.index);
        Info {
            bounds: head.bounds,
            now: self.now,
            entries: index.entries.len() as u64,
            bytes: head.bytes,
            reserved: head.reserved,
            garbage: head.garbage,
            sessions: index.sessions.len() as u64,
            writers: index.writers.len() as u64,
            readers: index.pins.len() as u64,
            evicted: head.evicted,
            fence: head.fence,
        }
    }

    fn audit(&mut self, repair: bool) -> Audit {
        let bytes = self.index.entries.values().map(|entry| entry.size).sum();
        let reserved = self.index.writers.values().map(|writer| writer.reserved).sum();
        let garbage = self.index.garbage.values().flatten().map(|garbage| garbage.entry.size).sum();
        let unpinned = self.index.entries.iter().filter(|(_, entry)| !entry.pinned).map(|(key, _)| key);
        let strays = unpinned.clone().filter(|key| !self.index.used.contains_key(*key)).count()
            + self.index.order.iter().filter(|(_, key)| !self.index.entries.contains_key(key)).count();
        let dead_leases = self.index.writers.values().filter(|writer| !self.is_alive(writer.token.session)).count()
            + self.index.pins.values().flatten().filter(|pin| !self.is_alive(pin.token.session)).count();
        let head = self.head_mut();
        let audit = Audit {
            bytes: (head.bytes, bytes),
            reserved: (head.reserved, reserved),
            garbage: (head.garbage, garbage),
            strays: strays as u64,
            dead_leases: dead_leases as u64,
        };
        if repair {
            (head.bytes, head.reserved, head.garbage) = (bytes, reserved, garbage);
        }
        audit
    }

    fn rebuild(
        &mut self,
        cache: u64,
        session: &Session,
        instance: u64,
        bounds: Bounds,
        wipe: bool,
    ) -> Result<Reply, Refusal> {
        if wipe {
            *self.index = Index::default();
        }
        let builder = match &self.index.head {
            Some(head) if head.builder.is_none() && head.instance == instance => return Ok(Reply::Done),
            Some(head) => head.builder,
            None => None,
        };
        if builder.is_some_and(|builder| builder != session.id && self.is_alive(builder)) {
            return Err(Reply::Rebuilding);
        }
        self.ensure(session)?;
        let existed = self.index.head.is_some();
        let head = self.index.head.get_or_insert(Head {
            cache,
            instance: 0,
            builder: None,
            bounds,
            bytes: 0,
            reserved: 0,
            garbage: 0,
            fence: self.now,
            evicted: 0,
        });
        head.builder = Some(session.id);
        Ok(if existed { Reply::Changed } else { Reply::Granted { fence: head.fence, after_dead: false } })
    }

    fn restore(&mut self, session: u64, entries: &[(Key, Entry, Micros)]) -> Reply {
        if self.head().builder != Some(session) {
            return Reply::LeaseLost;
        }
        for (key, entry, used) in entries {
            let head = self.head_mut();
            head.fence = head.fence.max(entry.fence);
            let age = head.bounds.max_age;
            let mut entry = entry.clone();
            if age > 0 {
                let oldest = entry.created.saturating_add(age);
                entry.expires = if entry.expires == 0 { oldest } else { entry.expires.min(oldest) };
            }
            let present = self.index.entries.get(key).map(|present| present.fence);
            if present == Some(entry.fence) || self.is_known_garbage(key, entry.fence) {
                continue;
            }
            if present.is_some_and(|present| present > entry.fence) || entry.is_expired(self.now) {
                // As known garbage it is unlinked before any newer file, even if the index is lost again.
                self.head_mut().garbage += entry.size;
                self.add_garbage(key, entry.clone(), 0);
            } else {
                self.claim(key);
                self.insert(key, entry.clone(), (*used).min(self.now));
            }
        }
        Reply::Done
    }
}

/// A request to write a key.
struct WriteRequest<'a> {
    token: Token,
    session: &'a Session,
    mode: Mode,
    reserve: u64,
    wait: bool,
    hit: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Reason;
    use alloc::borrow::ToOwned;
    use alloc::{format, vec};

    const CACHE: u64 = 1;
    const SECOND: Micros = 1_000_000;

    /// An index with its own clock.
    struct Bench {
        index: Index,
        now: Micros,
    }

    fn bench(bounds: Bounds) -> Bench {
        let mut bench = Bench { index: Index::default(), now: 1_000 * SECOND };
        let op = Op::Rebuild { session: session(99), instance: 1, bounds, wipe: false };
        assert!(matches!(bench.ask(op).reply, Reply::Granted { .. }));
        assert_eq!(bench.ask(Op::Finish { session: 99, instance: 1 }).reply, Reply::Done);
        bench
    }

    fn session(id: u64) -> Session {
        Session { id, lease: 10 * SECOND, new: true, owner: format!("host:{id}") }
    }

    fn token(session: u64, number: u64) -> Token {
        Token { session, number }
    }

    fn key(name: &str) -> Key {
        name.as_bytes().to_vec()
    }

    impl Bench {
        fn ask(&mut self, op: Op) -> Answer {
            self.index.apply(self.now, &Request { cache: CACHE, op })
        }

        fn acquire(&mut self, name: &str, who: u64, mode: Mode, wait: bool) -> Reply {
            self.acquire_for(name, who, mode, wait, 0)
        }

        fn acquire_for(&mut self, name: &str, who: u64, mode: Mode, wait: bool, reserve: u64) -> Reply {
            let (token, session, hit) = (token(who, 1), session(who), false);
            let op = Op::Acquire { key: key(name), token, session, mode, reserve, wait, hit, releases: vec![] };
            self.ask(op).reply
        }

        fn granted(&mut self, name: &str, who: u64, mode: Mode) -> u64 {
            match self.acquire(name, who, mode, false) {
                Reply::Granted { fence, .. } => fence,
                reply => panic!("{reply:?}"),
            }
        }

        fn commit(&mut self, name: &str, who: u64, mode: Mode, fence: u64, size: u64) -> Answer {
            let entry =
                Entry { fence, size, created: 0, expires: 0, ttl: 0, pinned: false, digest: [0; 16], metadata: vec![] };
            let (key, token) = (key(name), token(who, 1));
            self.ask(Op::Commit { key, token, mode, entry, unlinked: vec![], pin: false })
        }

        fn make(&mut self, name: &str, size: u64) -> u64 {
            self.now += 1;
            let fence = self.granted(name, 1, Mode::Replace);
            assert!(matches!(self.commit(name, 1, Mode::Replace, fence, size).reply, Reply::Committed(_)));
            fence
        }

        fn is_garbage(&mut self, name: &str, fence: u64) -> bool {
            match self.ask(Op::Judge { files: vec![(key(name), fence, [0; 16])] }).reply {
                Reply::Flags(flags) => flags[0],
                reply => panic!("{reply:?}"),
            }
        }

        fn names(&self) -> Vec<String> {
            let page = self.index.page(None, 100);
            page.into_iter().map(|(key, ..)| String::from_utf8(key).unwrap()).collect()
        }
    }

    #[test]
    fn only_the_present_writer_commits() {
        let mut bench = bench(Bounds::default());
        let first = bench.granted("k", 1, Mode::Create);
        assert_eq!(bench.acquire("k", 2, Mode::Create, false), Reply::Busy { owner: Some("host:1".to_owned()) });
        bench.now += 11 * SECOND;
        let second = bench.granted("k", 3, Mode::Create);
        assert!(second > first);
        assert_eq!(bench.commit("k", 1, Mode::Create, first, 1).reply, Reply::LeaseLost);
        assert!(matches!(bench.commit("k", 3, Mode::Create, second, 1).reply, Reply::Committed(_)));
        // Repeated, because the reply was lost.
        assert!(matches!(bench.commit("k", 3, Mode::Create, second, 1).reply, Reply::Committed(_)));
        assert_eq!(bench.acquire("k", 4, Mode::Create, false), Reply::Exists);
    }

    #[test]
    fn no_two_leases_share_a_fence_also_when_the_clock_stands_still_or_goes_back() {
        let mut bench = bench(Bounds::default());
        let first = bench.granted("a", 1, Mode::Create);
        let second = bench.granted("b", 2, Mode::Create);
        bench.now -= 5 * SECOND;
        let third = bench.granted("c", 3, Mode::Create);
        assert!(first < second && second < third, "{first} {second} {third}");
    }

    #[test]
    fn garbage_stays_garbage() {
        let mut bench = bench(Bounds::default());
        let fence = bench.granted("k", 2, Mode::Create);
        assert!(!bench.is_garbage("k", fence), "its writer lives");
        bench.now += 11 * SECOND;
        assert!(bench.is_garbage("k", fence));
        assert_eq!(bench.commit("k", 2, Mode::Create, fence, 1).reply, Reply::LeaseLost);
        let made = bench.make("k", 1);
        assert!(!bench.is_garbage("k", made) && bench.is_garbage("k", fence));
    }

    #[test]
    fn a_session_that_was_silent_does_not_come_back() {
        let mut bench = bench(Bounds::default());
        bench.granted("k", 1, Mode::Create);
        bench.now += 10 * SECOND;
        let renewal = Op::Renew { session: session(1), unlinked: vec![] };
        assert_eq!(bench.ask(renewal).reply, Reply::SessionLost);
        assert_eq!(bench.acquire("other", 1, Mode::Create, false), Reply::SessionLost);
    }

    #[test]
    fn content_that_somebody_reads_is_unlinked_when_it_is_done() {
        let mut bench = bench(Bounds::default());
        bench.make("k", 5);
        let pin = Some((token(2, 7), session(2)));
        assert!(matches!(bench.ask(Op::Lookup { key: key("k"), pin }).reply, Reply::Hit(_)));
        let removed = bench.ask(Op::Remove { key: key("k"), fence: None, reason: Reason::Deleted });
        assert_eq!((removed.reply, removed.doomed), (Reply::Done, vec![]));
        // A sweep does not touch it while its reader is alive.
        for _ in 0..4 {
            bench.now += 6 * SECOND;
            bench.ask(Op::Renew { session: Session { new: false, ..session(2) }, unlinked: vec![] });
            assert_eq!(bench.ask(Op::Sweep).doomed, []);
        }
        assert_eq!(bench.ask(Op::Release { leases: vec![(key("k"), token(2, 7))] }).doomed.len(), 1);
    }

    #[test]
    fn a_dead_readers_content_is_unlinked_by_the_sweep() {
        let mut bench = bench(Bounds::default());
        let fence = bench.make("k", 5);
        let pin = Some((token(2, 7), session(2)));
        bench.ask(Op::Lookup { key: key("k"), pin });
        bench.ask(Op::Remove { key: key("k"), fence: Some(fence), reason: Reason::Deleted });
        bench.now += 11 * SECOND;
        assert_eq!(bench.ask(Op::Sweep).doomed.len(), 1);
        assert_eq!(bench.ask(Op::Sweep).doomed, [], "once at a time");
        bench.ask(Op::Renew { session: session(3), unlinked: vec![(key("k"), fence)] });
        let Reply::Info(info) = bench.ask(Op::Info).reply else { panic!() };
        assert_eq!((info.garbage, info.readers, info.sessions), (0, 0, 0));
    }

    #[test]
    fn who_waits_longest_writes_next() {
        let mut bench = bench(Bounds::default());
        let fence = bench.granted("k", 1, Mode::Create);
        bench.acquire("k", 2, Mode::Replace, true);
        bench.acquire("k", 3, Mode::Replace, true);
        bench.commit("k", 1, Mode::Create, fence, 1);
        assert_eq!(bench.acquire("k", 3, Mode::Replace, true), Reply::Busy { owner: None });
        assert_eq!(bench.acquire("k", 4, Mode::Replace, false), Reply::Busy { owner: None });
        assert!(matches!(bench.acquire("k", 2, Mode::Replace, true), Reply::Granted { .. }));
        bench.ask(Op::Abort { key: key("k"), token: token(2, 1) });
        // A waiter that stops polling loses its place.
        bench.now += PLACE + 1;
        assert!(matches!(bench.acquire("k", 4, Mode::Replace, false), Reply::Granted { .. }));
    }

    #[test]
    fn room_is_made_before_anything_comes_in() {
        let mut bench = bench(Bounds { max_bytes: 100, low_mark: 500, ..Bounds::default() });
        for name in ["a", "b", "c", "d"] {
            bench.make(name, 25);
        }
        bench.now += 1;
        bench.ask(Op::Lookup { key: key("a"), pin: None });
        bench.ask(Op::Pin { key: key("b"), pinned: true });
        assert!(matches!(bench.acquire_for("e", 1, Mode::Create, false, 25), Reply::Granted { .. }));
        assert_eq!(bench.names(), ["b"], "down to half of it, with what comes in");
        assert_eq!(bench.acquire_for("f", 2, Mode::Create, false, 101), Reply::TooLarge { limit: 100 });
        assert_eq!(bench.acquire_for("f", 2, Mode::Create, false, 80), Reply::Full { limit: 100 });
    }

    #[test]
    fn a_found_generation_replaces_only_older_ones() {
        let mut bench = bench(Bounds::default());
        let fence = bench.make("k", 5);
        let entry = bench.index.entry(b"k").unwrap().clone();
        let rebuild = Op::Rebuild { session: session(7), instance: 2, bounds: Bounds::default(), wipe: false };
        assert_eq!(bench.ask(rebuild).reply, Reply::Changed);
        assert_eq!(bench.ask(Op::Info).reply, Reply::Rebuilding);
        for (other, expected) in [(fence - 1, fence), (fence, fence), (fence + 1, fence + 1)] {
            let found = (key("k"), Entry { fence: other, ..entry.clone() }, 0);
            bench.ask(Op::Restore { session: 7, entries: vec![found] });
            assert_eq!(bench.index.entry(b"k").unwrap().fence, expected);
        }
        assert_eq!(bench.ask(Op::Finish { session: 8, instance: 2 }).reply, Reply::LeaseLost);
        assert_eq!(bench.ask(Op::Finish { session: 7, instance: 2 }).reply, Reply::Done);
        assert_eq!(bench.ask(Op::Open { instance: 2 }).reply, Reply::Done);
        assert_eq!(bench.ask(Op::Open { instance: 3 }).reply, Reply::Changed);
    }

    #[test]
    fn a_builder_that_died_is_replaced() {
        let mut bench = Bench { index: Index::default(), now: SECOND };
        let rebuild = |id| Op::Rebuild { session: session(id), instance: 1, bounds: Bounds::default(), wipe: false };
        assert_eq!(bench.ask(Op::Info).reply, Reply::Lost);
        assert!(matches!(bench.ask(rebuild(1)).reply, Reply::Granted { .. }));
        assert_eq!(bench.ask(rebuild(2)).reply, Reply::Rebuilding);
        bench.now += 11 * SECOND;
        assert_eq!(bench.ask(rebuild(2)).reply, Reply::Changed);
        assert_eq!(bench.ask(Op::Restore { session: 1, entries: vec![] }).reply, Reply::LeaseLost);
        assert_eq!(bench.ask(Op::Finish { session: 2, instance: 1 }).reply, Reply::Done);
        assert_eq!(bench.ask(rebuild(3)).reply, Reply::Done);
    }
}
