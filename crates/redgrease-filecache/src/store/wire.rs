//! The encoding of operations for the script `index.lua`, and the decoding of its replies.

use redgrease_cache_rules::protocol::{Answer, Audit, Bounds, Choice, Doomed, Info, Mode, Op, Reply, Session, Token};
use redgrease_cache_rules::{Entry, Key};
use redis::Value;

/// The keys of a cache, without its prefix.
pub(crate) const KEYS: [&str; 9] =
    ["cache", "entries", "used", "ending", "writers", "places", "pins", "sessions", "garbage"];

/// The arguments of an operation.
pub(crate) fn arguments(cache: u64, op: &Op) -> Arguments {
    let mut list = Arguments { operation: "", bytes: Vec::with_capacity(256), ends: Vec::with_capacity(16) };
    list.hex(cache);
    match op {
        Op::Open { instance } => list.name("open").hex(*instance),
        Op::Lookup { key, pin } => {
            list.name("lookup").bytes(key);
            match pin {
                Some((token, session)) => list.token(*token).session(session),
                None => list.text(""),
            }
        }
        Op::Peek { key } => list.name("peek").bytes(key),
        Op::Acquire { key, token, session, mode, reserve, wait, hit, releases } => {
            list.name("acquire").bytes(key).token(*token).mode(*mode).number(*reserve);
            list.flag(*wait).flag(*hit).session(session).leases(releases)
        }
        Op::Reserve { key, token, bytes } => list.name("reserve").bytes(key).token(*token).number(*bytes),
        Op::Commit { key, token, mode, entry, unlinked, pin } => {
            list.name("commit").bytes(key).token(*token).mode(*mode).bytes(&entry.pack()).flag(*pin).files(unlinked)
        }
        Op::Abort { key, token } => list.name("abort").bytes(key).token(*token),
        Op::Release { leases } => list.name("release").leases(leases),
        Op::Remove { key, fence, reason: _ } => {
            list.name("remove").bytes(key);
            match fence {
                Some(fence) => list.number(*fence),
                None => list.text(""),
            }
        }
        Op::Touch { key, ttl } => {
            list.name("touch").bytes(key);
            match ttl {
                Some(ttl) => list.number(*ttl),
                None => list.text(""),
            }
        }
        Op::Pin { key, pinned } => list.name("pin").bytes(key).flag(*pinned),
        Op::Renew { session, unlinked } => {
            list.name("renew").session_id(session.id).number(session.lease).text(&session.owner).files(unlinked)
        }
        Op::Close { session } => list.name("close").session_id(*session),
        Op::Evict { choice } => {
            let (name, number) = match choice {
                Choice::ToBytes(bytes) => ("bytes", *bytes),
                Choice::UsedBefore(time) => ("used", *time),
                Choice::Everything => ("all", 0),
            };
            list.name("evict").text(name).number(number)
        }
        Op::Sweep => list.name("sweep"),
        Op::Judge { files } => {
            list.name("judge");
            files.iter().fold(&mut list, |list, (key, fence, digest)| list.bytes(key).number(*fence).bytes(digest))
        }
        Op::Alive { sessions } => {
            list.name("alive");
            sessions.iter().fold(&mut list, |list, session| list.session_id(*session))
        }
        Op::Break { key } => list.name("unlock").bytes(key),
        Op::Configure { bounds } => list.name("configure").bounds(bounds),
        Op::Info => list.name("info"),
        Op::Audit { repair } => list.name("audit").flag(*repair),
        Op::Rebuild { session, instance, bounds, wipe } => {
            list.name("rebuild").session(session).hex(*instance).text("").flag(*wipe).bounds(bounds)
        }
        Op::Restore { session, entries } => {
            list.name("restore").session_id(*session);
            entries
                .iter()
                .fold(&mut list, |list, (key, entry, used)| list.bytes(key).bytes(&entry.pack()).number(*used))
        }
        Op::Finish { session, instance } => list.name("finish").session_id(*session).hex(*instance),
    };
    list
}

/// Arguments of a script, concatenated.
#[derive(Debug)]
pub(crate) struct Arguments {
    /// Its name, which is one of them.
    pub operation: &'static str,
    bytes: Vec<u8>,
    /// End offsets of the arguments.
    ends: Vec<usize>,
}

impl Arguments {
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut begin = 0;
        self.ends.iter().map(move |end| &self.bytes[std::mem::replace(&mut begin, *end)..*end])
    }

    /// Their total number of bytes.
    pub fn total(&self) -> usize {
        self.bytes.len()
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    fn name(&mut self, name: &'static str) -> &mut Self {
        self.operation = name;
        self.text(name)
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.text(itoa::Buffer::new().format(number))
    }

    fn flag(&mut self, flag: bool) -> &mut Self {
        self.text(if flag { "1" } else { "0" })
    }

    fn token(&mut self, token: Token) -> &mut Self {
        self.bytes(&token.to_bytes())
    }

    fn session_id(&mut self, session: u64) -> &mut Self {
        self.bytes(&session.to_be_bytes())
    }

    fn session(&mut self, session: &Session) -> &mut Self {
        self.session_id(session.id).number(session.lease).flag(session.new).text(&session.owner)
    }

    fn leases(&mut self, leases: &[(Key, Token)]) -> &mut Self {
        leases.iter().fold(self, |list, (key, token)| list.bytes(key).token(*token))
    }

    fn mode(&mut self, mode: Mode) -> &mut Self {
        self.text(match mode {
            Mode::Create => "create",
            Mode::Replace => "replace",
        })
    }

    fn hex(&mut self, number: u64) -> &mut Self {
        self.text(&format!("{number:016x}"))
    }

    fn files(&mut self, files: &[(Key, u64)]) -> &mut Self {
        self.number(2 * files.len() as u64);
        files.iter().fold(self, |list, (key, fence)| list.bytes(key).number(*fence))
    }

    fn bounds(&mut self, bounds: &Bounds) -> &mut Self {
        self.number(bounds.max_bytes)
            .number(bounds.max_entries)
            .number(bounds.max_entry_bytes)
            .number(bounds.max_age)
            .number(bounds.max_idle)
            .number(bounds.min_free_bytes)
            .number(bounds.low_mark)
    }
}

/// Decodes a reply; `None` if it is invalid.
pub(crate) fn answer(op: &Op, value: Value) -> Option<Answer> {
    let at_once = |reply| Some(Answer { reply, doomed: Vec::new() });
    // The most frequent replies are the shortest.
    let parts = match (value, op) {
        (Value::BulkString(packed), Op::Commit { .. }) => return at_once(Reply::Committed(Entry::unpack(&packed)?)),
        (Value::BulkString(packed), _) => return at_once(Reply::Hit(Entry::unpack(&packed)?)),
        (Value::Int(fence), _) => {
            return at_once(Reply::Granted { fence: u64::try_from(fence).ok()?, after_dead: false });
        }
        (Value::Array(parts), _) => parts,
        _ => return None,
    };
    let mut parts = parts.into_iter();
    let Value::Int(code) = parts.next()? else { return None };
    let mut doomed = Vec::new();
    let Value::Array(flat) = parts.next()? else { return None };
    let mut flat = flat.into_iter();
    while let Some(key) = flat.next() {
        doomed.push(Doomed { key: bytes(key)?, entry: Entry::unpack(&bytes(flat.next()?)?)? });
    }
    let mut rest = parts;
    let reply = match code {
        0 => Reply::Done,
        1 => Reply::Missing,
        2 => Reply::Hit(Entry::unpack(&bytes(rest.next()?)?)?),
        3 => {
            let owner = bytes(rest.next()?)?;
            Reply::Busy { owner: (!owner.is_empty()).then(|| String::from_utf8_lossy(&owner).into_owned()) }
        }
        4 => Reply::Granted { fence: number(&rest.next()?)?, after_dead: bytes(rest.next()?)? == b"1" },
        5 => Reply::Exists,
        6 => Reply::Committed(Entry::unpack(&bytes(rest.next()?)?)?),
        7 => Reply::LeaseLost,
        8 => Reply::SessionLost,
        9 => Reply::TooLarge { limit: number(&rest.next()?)? },
        10 => Reply::Full { limit: number(&rest.next()?)? },
        11 => Reply::Flags(bytes(rest.next()?)?.into_iter().map(|flag| flag == b'1').collect()),
        12 => Reply::Info(Box::new(info(&numbers(&rest.next()?)?)?)),
        13 => Reply::Audited(audit(&numbers(&rest.next()?)?)?),
        14 => Reply::More,
        15 => Reply::Lost,
        16 => Reply::Rebuilding,
        17 => {
            let cache = String::from_utf8(bytes(rest.next()?)?).ok()?;
            Reply::Foreign { cache: u64::from_str_radix(&cache, 16).ok()? }
        }
        18 => Reply::Changed,
        19 => {
            let entry = Entry::unpack(&bytes(rest.next()?)?)?;
            let used = bytes(rest.next()?)?;
            Reply::Seen { entry, used: if used.is_empty() { None } else { number(&Value::BulkString(used)) } }
        }
        _ => return None,
    };
    Some(Answer { reply, doomed })
}

pub(crate) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

pub(crate) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}

fn numbers(value: &Value) -> Option<Vec<u64>> {
    let Value::Array(values) = value else { return None };
    values.iter().map(number).collect()
}

fn info(numbers: &[u64]) -> Option<Info> {
    let &[
        max_bytes,
        max_entries,
        max_entry_bytes,
        max_age,
        max_idle,
        min_free_bytes,
        low_mark,
        now,
        entries,
        bytes,
        reserved,
        garbage,
        sessions,
        writers,
        readers,
        evicted,
        fence,
    ] = numbers
    else {
        return None;
    };
    let bounds = Bounds { max_bytes, max_entries, max_entry_bytes, max_age, max_idle, min_free_bytes, low_mark };
    Some(Info { bounds, now, entries, bytes, reserved, garbage, sessions, writers, readers, evicted, fence })
}

fn audit(numbers: &[u64]) -> Option<Audit> {
    let &[kept, bytes, kept_reserved, reserved, kept_garbage, garbage, strays, dead_leases] = numbers else {
        return None;
    };
    Some(Audit {
        bytes: (kept, bytes),
        reserved: (kept_reserved, reserved),
        garbage: (kept_garbage, garbage),
        strays,
        dead_leases,
    })
}
