//! The simulated server: its data, and what it says of its commands. Who is notified of changes is up to the world.

use std::collections::{BTreeMap, BTreeSet};

use redgrease_core::codec::{KeyType, Writer};
use redgrease_core::policy::{CommandFacts, Facts};
use redgrease_engine::{EntryId, GroupProgress};

use crate::plans::FORBIDDEN;

/// Number of databases.
pub const DATABASES: u64 = 2;

/// A consumer group.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// The last entry that was delivered.
    pub last: EntryId,
    /// Entries that were delivered and not acknowledged.
    pub pending: BTreeSet<EntryId>,
}

/// A stream.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// Its entries.
    pub entries: BTreeMap<EntryId, Vec<u8>>,
    /// Its consumer groups.
    pub groups: BTreeMap<Vec<u8>, Group>,
}

/// A value.
#[derive(Debug, Clone)]
pub enum Data {
    /// A string.
    Text(Vec<u8>),
    /// A stream.
    Stream(Stream),
}

/// A key's value, and whether it expires.
#[derive(Debug, Clone)]
pub struct Item {
    /// The value.
    pub data: Data,
    /// When it expires.
    pub expires_ms: Option<u64>,
}

/// A change that the server notifies of.
#[derive(Debug, Clone)]
pub struct Event {
    /// The database.
    pub database: u32,
    /// Name of the event.
    pub name: &'static str,
    /// The key.
    pub key: Vec<u8>,
}

/// The server.
#[derive(Debug, Default)]
pub struct Server {
    /// Its databases.
    pub databases: Vec<BTreeMap<Vec<u8>, Item>>,
    /// Clients are paused until then.
    pub paused_until_ms: u64,
    /// A script runs.
    pub script: bool,
    /// A transaction runs.
    pub transaction: bool,
    /// Data is being loaded.
    pub loading: bool,
    /// It is a replica.
    pub replica: bool,
    /// It is a replica that refuses writes.
    pub read_only: bool,
    /// It is in cluster mode.
    pub cluster: bool,
    /// Every user may use every key, and no entry is too long.
    pub permissive: bool,
    /// There are other shards.
    /// Number of the last entry of all streams.
    pub last_entry: u64,
}

/// A reply of a command: encoded, or an error.
pub type Answer = Result<Vec<u8>, String>;

/// Whether a user may usually not use a key.
pub fn is_forbidden(user: &str, key: &[u8]) -> bool {
    user == "bob" && key.windows(FORBIDDEN.len()).any(|part| part == FORBIDDEN.as_bytes())
}

fn encoded(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.into_bytes()
}

/// An encoded `OK`.
pub fn ok() -> Vec<u8> {
    encoded(|writer| writer.raw(b"OK"))
}

impl Server {
    /// A server without data.
    pub fn new() -> Server {
        Server { databases: vec![BTreeMap::new(); DATABASES as usize], ..Server::default() }
    }

    fn database(&mut self, database: u32) -> &mut BTreeMap<Vec<u8>, Item> {
        &mut self.databases[database as usize]
    }

    /// A stream.
    pub fn stream(&self, database: u32, key: &[u8]) -> Option<&Stream> {
        match self.databases[database as usize].get(key) {
            Some(Item { data: Data::Stream(stream), .. }) => Some(stream),
            _ => None,
        }
    }

    /// A stream, to be changed.
    pub fn stream_mut(&mut self, database: u32, key: &[u8]) -> Option<&mut Stream> {
        match self.database(database).get_mut(key) {
            Some(Item { data: Data::Stream(stream), .. }) => Some(stream),
            _ => None,
        }
    }

    /// Removes a key that has expired.
    pub fn expire(&mut self, database: u32, key: &[u8], now_ms: u64) -> Option<Event> {
        let expires = self.databases[database as usize].get(key).and_then(|item| item.expires_ms);
        if self.replica || expires.is_none_or(|at| at > now_ms) {
            return None;
        }
        self.database(database).remove(key);
        Some(Event { database, name: "expired", key: key.to_vec() })
    }

    /// A key that has expired.
    pub fn expired_key(&self, now_ms: u64) -> Option<(u32, Vec<u8>)> {
        let has_expired = |item: &Item| item.expires_ms.is_some_and(|at| at <= now_ms);
        let found = self.databases.iter().zip(0..).find_map(|(items, database)| {
            items.iter().find(|(_, item)| has_expired(item)).map(|(key, _)| (database, key.clone()))
        });
        found.filter(|_| !self.replica)
    }

    /// Type and length of a key.
    pub fn kind(&self, database: u32, key: &[u8]) -> (KeyType, u64) {
        match self.databases[database as usize].get(key).map(|item| &item.data) {
            None => (KeyType::Empty, 0),
            Some(Data::Text(text)) => (KeyType::String, text.len() as u64),
            Some(Data::Stream(stream)) => (KeyType::Stream, stream.entries.len() as u64),
        }
    }

    /// Whether a user may use a key.
    pub fn may_use(&self, user: &str, key: &[u8]) -> bool {
        self.permissive || !is_forbidden(user, key)
    }

    /// What the server says of a command.
    pub fn facts(name: &[u8]) -> Option<CommandFacts> {
        let flags: &[&[u8]] = match name {
            b"get" => &[b"readonly"],
            b"set" | b"del" | b"xadd" | b"rename" => &[b"write"],
            b"client" | b"debug" => &[b"admin", b"noscript"],
            b"other.command" => &[b"module", b"write"],
            b"rg.dumpregistrations" => &[b"module", b"readonly"],
            b"rg.trigger" | b"rg.unregister" | b"rg.abortexecution" | b"rg.pyexecute" => &[b"module"],
            _ => return None,
        };
        Some(CommandFacts { own: Facts::new(name, flags.iter().copied(), []), subcommands: BTreeMap::new() })
    }

    /// Runs a command that is not one of the module; returns the reply and what changed.
    pub fn run(&mut self, argv: &[&[u8]], database: u32, now_ms: u64) -> (Answer, Vec<Event>) {
        let name = argv[0].to_ascii_lowercase();
        let event = |name, key: &[u8]| Event { database, name, key: key.to_vec() };
        match (name.as_slice(), &argv[1..]) {
            (b"get", [key]) => {
                let mut events: Vec<Event> = self.expire(database, key, now_ms).into_iter().collect();
                let answer = match self.databases[database as usize].get(*key).map(|item| &item.data) {
                    Some(Data::Text(text)) => Ok(encoded(|writer| writer.raw(text))),
                    Some(Data::Stream(_)) => Err("WRONGTYPE wrong kind of value".to_owned()),
                    None => {
                        events.push(event("keymiss", key));
                        Ok(encoded(Writer::none))
                    }
                };
                (answer, events)
            }
            (b"set", [key, value, rest @ ..]) => {
                let mut events: Vec<Event> = self.expire(database, key, now_ms).into_iter().collect();
                let time = rest.first().and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
                let item = Item { data: Data::Text(value.to_vec()), expires_ms: time.map(|ms| now_ms + ms) };
                self.database(database).insert(key.to_vec(), item);
                events.push(event("set", key));
                (Ok(ok()), events)
            }
            (b"del", [key]) => {
                let was_there = self.database(database).remove(*key).is_some();
                let events = if was_there { vec![event("del", key)] } else { Vec::new() };
                (Ok(encoded(|writer| writer.int(i64::from(was_there)))), events)
            }
            (b"xadd", [key, value]) => {
                self.last_entry += 1;
                let id = EntryId { ms: self.last_entry, seq: 0 };
                let empty = || Item { data: Data::Stream(Stream::default()), expires_ms: None };
                match &mut self.database(database).entry(key.to_vec()).or_insert_with(empty).data {
                    Data::Stream(stream) => stream.entries.insert(id, value.to_vec()),
                    Data::Text(_) => return (Err("WRONGTYPE wrong kind of value".to_owned()), Vec::new()),
                };
                (Ok(encoded(|writer| writer.str(&id.to_string()))), vec![event("xadd", key)])
            }
            (b"xdel", [key, id]) => {
                let id = EntryId::parse(id).unwrap_or_default();
                let stream = self.stream_mut(database, key);
                let gone = stream.is_some_and(|stream| stream.entries.remove(&id).is_some());
                let events = if gone { vec![event("xdel", key)] } else { Vec::new() };
                (Ok(ok()), events)
            }
            (b"rename", [from, to]) => match self.database(database).remove(*from) {
                None => (Err("ERR no such key".to_owned()), Vec::new()),
                Some(item) => {
                    self.database(database).insert(to.to_vec(), item);
                    (Ok(ok()), vec![event("rename_from", from), event("rename_to", to)])
                }
            },
            (b"client", [_, ms]) => {
                let ms = std::str::from_utf8(ms).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                self.paused_until_ms = now_ms + ms;
                (Ok(ok()), Vec::new())
            }
            _ => (Err(format!("ERR unknown command '{}'", String::from_utf8_lossy(&name))), Vec::new()),
        }
    }

    /// Keys of a database behind a cursor, a few at once; and the next cursor.
    pub fn scan(&self, database: u32, cursor: &[u8], count: usize) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = if cursor == b"0" { Unbounded } else { Excluded(cursor.to_vec()) };
        let keys: Vec<Vec<u8>> = self.databases[database as usize]
            .range((from, Unbounded))
            .take(count)
            .map(|(key, _)| key.clone())
            .collect();
        let next = if keys.len() == count { keys.last().cloned() } else { None };
        (keys, next)
    }

    /// What groups have done with entries.
    pub fn progress(
        &self,
        (database, key): (u32, &[u8]),
        groups: &[Vec<u8>],
        (first, last): (EntryId, EntryId),
    ) -> Vec<Option<GroupProgress>> {
        let stream = self.stream(database, key);
        let of = |group: &Vec<u8>| {
            let group = stream?.groups.get(group)?;
            let pending = group.pending.range(first..=last).copied().collect();
            Some(GroupProgress { last_delivered: group.last, pending })
        };
        groups.iter().map(of).collect()
    }
}
