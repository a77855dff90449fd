//! Reading keys and streams, a slice at a time.

use std::collections::VecDeque;
use std::time::Instant;

use redgrease_core::codec::{KeyType, Writer};
use redgrease_core::id::{Database, ExecutionNo};
use redgrease_ffi::call::{CallError, ReplyKind, ReplyView};
use redgrease_ffi::keyspace::{Access, KeyKind};
use redgrease_ffi::{CallOptions, CallReply};

use crate::engine::{Actor, Engine, engine};
use crate::pump::SLICE;
use crate::runs::Input;
use crate::stream_groups::RETRY_MS;
use crate::worker::Worker;

/// Encoded bytes that a worker may have before it, per execution.
const WINDOW_BYTES: u64 = 1 << 20;

/// Bytes that may wait in a worker's socket buffer of ours before readers pause.
const UNSENT_BYTES: usize = 4 << 20;

/// Keys that one step of a scan looks at: some tens of microseconds.
const KEYS_PER_STEP: &[u8] = b"256";

/// Keys whose values are asked for with one command.
const KEYS_PER_READ: usize = 64;

/// Bytes of values that are asked for with one command (or one value).
const BYTES_PER_READ: usize = 256 << 10;

/// Entries of a stream that are asked for with one command.
const ENTRIES_PER_READ: &[u8] = b"100";

/// What is read in slices.
pub enum Reader {
    /// Keys that match.
    Scan(Scan),
    /// Entries of a stream.
    Range(StreamRange),
    /// Entries that a stream registration reads through its group; the execution holds the run.
    Group,
}

/// A scan over all keys, by the server's `SCAN`: it looks at names alone until they match, where `RM_Scan` copies each
/// name and touches each value (measured over 220,000 keys: 55 against 135 ms).
pub struct Scan {
    pattern: Vec<u8>,
    no_scan: bool,
    read_value: bool,
    cursor: Vec<u8>,
    found: VecDeque<Vec<u8>>,
    more: bool,
    count: u64,
}

impl Scan {
    /// A scan that has not begun.
    pub fn new(pattern: Vec<u8>, no_scan: bool, read_value: bool) -> Scan {
        Scan { pattern, no_scan, read_value, cursor: b"0".to_vec(), found: VecDeque::new(), more: true, count: 0 }
    }

    /// Whether all keys match.
    pub fn is_everything(&self) -> bool {
        !self.no_scan && self.pattern == b"*"
    }
}

/// A position in a stream.
pub struct StreamRange {
    key: Vec<u8>,
    after: Vec<u8>,
}

impl StreamRange {
    /// All entries behind an id.
    pub fn new(key: Vec<u8>, after: Vec<u8>) -> StreamRange {
        StreamRange { key, after }
    }
}

/// What one slice brought.
struct Slice {
    count: u64,
    ended: bool,
}

impl Engine {
    /// Reads for an execution from now on.
    pub fn add_reader(&self, number: ExecutionNo) {
        self.readers.borrow_mut().push_back(number);
        self.wake_readers();
    }

    /// Readers may have room again.
    pub fn wake_readers(&self) {
        if !self.readers.borrow().is_empty() || !self.dumps.borrow().is_empty() {
            self.pump.run(&self.server, || {
                if let Some(engine) = engine() {
                    engine.due.borrow_mut().slice = true;
                }
            });
        }
    }

    /// One turn: a slice of time for all readers together, and one for answers that are written in slices.
    pub fn read_slices(&self) {
        self.write_dumps(Instant::now() + SLICE);
        let dumping = !self.dumps.borrow().is_empty();
        let deadline = Instant::now() + SLICE;
        let mut blocked = 0;
        loop {
            let next = {
                let mut readers = self.readers.borrow_mut();
                if blocked >= readers.len() {
                    drop(readers);
                    if !dumping {
                        self.pump.stop(&self.server);
                    }
                    return;
                }
                readers.pop_front()
            };
            let Some(number) = next else { return };
            if self.pauses_group_reader(number) {
                continue;
            }
            if !self.has_room(number) {
                blocked += 1;
                self.readers.borrow_mut().push_back(number);
                continue;
            }
            blocked = 0;
            if !self.read_some(number, deadline) {
                self.readers.borrow_mut().push_back(number);
            }
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Reading through a group is a write: while clients are paused it waits, and comes back a while later.
    fn pauses_group_reader(&self, number: ExecutionNo) -> bool {
        let reads_group =
            || matches!(self.live.borrow().get(&number).map(|live| &live.input), Some(Input::Reader(Reader::Group)));
        let pauses = self.server.must_not_replicate() && reads_group();
        if pauses {
            self.server.after_ms(RETRY_MS, move || {
                if let Some(engine) = engine() {
                    engine.add_reader(number);
                }
            });
        }
        pauses
    }

    fn has_room(&self, number: ExecutionNo) -> bool {
        let live = self.live.borrow();
        // One that is gone has room: reading it finds that out.
        let Some(live) = live.get(&number) else { return true };
        let unsent = live.worker.and_then(|worker| self.worker(worker)).map_or(0, |worker| worker.unsent());
        live.unconsumed < WINDOW_BYTES && unsent < UNSENT_BYTES
    }

    /// Reads a slice for one execution; returns whether its reader has ended.
    fn read_some(&self, number: ExecutionNo, deadline: Instant) -> bool {
        let taken = self
            .live
            .borrow_mut()
            .get_mut(&number)
            .map(|live| (std::mem::replace(&mut live.input, Input::Worker), live.actor()));
        let Some((Input::Reader(mut reader), actor)) = taken else { return true };
        let actor = &actor;
        let native = self.is_native(number);
        let mut writer = Writer::new();
        let result = match &mut reader {
            Reader::Scan(scan) if native => self.count_some(actor, scan, deadline),
            Reader::Scan(scan) => self.scan_some(actor, scan, &mut writer, deadline),
            Reader::Range(range) => self.range_some(actor, range, &mut writer),
            Reader::Group => {
                self.read_stream_part(number, &mut writer).map(|part| Slice { count: part.records, ended: !part.more })
            }
        };
        let counted = if let Reader::Scan(scan) = &reader { scan.count } else { 0 };
        if let Some(live) = self.live.borrow_mut().get_mut(&number) {
            live.input = Input::Reader(reader);
        }
        let slice = result.unwrap_or_else(|reason| {
            // An error record: the reader ends, what it read before goes on.
            if let Some(execution) = self.executions.borrow_mut().get_mut(number) {
                execution.errors.push(reason.into_bytes());
            }
            Slice { count: 0, ended: true }
        });
        if native {
            if slice.ended {
                self.finish_native(number, counted);
            }
        } else {
            let bytes = if slice.count == 0 { &[] } else { writer.as_bytes() };
            if slice.ended || slice.count > 0 {
                self.feed(number, slice.ended, slice.count, bytes);
            }
        }
        slice.ended
    }

    /// A worker needs no further records.
    pub fn stop_reader(&self, worker: &Worker, number: ExecutionNo) {
        let mine = self.live.borrow().get(&number).is_some_and(|live| live.worker == Some(worker.number));
        if mine && self.stop_reading(number) {
            self.feed(number, true, 0, &[]);
        }
    }

    /// Takes an execution's reader away; returns whether it was still reading.
    pub fn stop_reading(&self, number: ExecutionNo) -> bool {
        let mut readers = self.readers.borrow_mut();
        let before = readers.len();
        readers.retain(|other| *other != number);
        readers.len() < before
    }

    /// Number of keys of a database; `None` when some of them may have expired, which the server counts until it
    /// removes them.
    pub fn database_size(&self, database: Database) -> Option<u64> {
        let keyspace = self.read(database, &[b"info", b"keyspace"]).ok()?;
        if has_expiring_keys(keyspace.view().bytes()) {
            return None;
        }
        u64::try_from(self.read(database, &[b"dbsize"]).ok()?.view().int()).ok()
    }

    /// Goes on with a scan by a few keys; `found` is told each name that matches.
    fn scan_step(&self, actor: &Actor, scan: &mut Scan, mut found: impl FnMut(&mut Scan, &[u8])) -> Result<(), String> {
        let mut argv: Vec<&[u8]> = vec![b"scan", &scan.cursor, b"count", KEYS_PER_STEP];
        if scan.pattern != b"*" {
            argv.extend([b"match".as_slice(), &scan.pattern]);
        }
        let reply = self.read_as(actor, None, &argv)?;
        let (Some(next), Some(names)) = (reply.view().element(0), reply.view().element(1)) else {
            return Err("INTERNAL the server's SCAN answered something unknown".into());
        };
        scan.cursor = next.bytes().to_vec();
        scan.more = scan.cursor != b"0";
        for name in names.elements() {
            found(scan, name.bytes());
        }
        Ok(())
    }

    fn count_some(&self, actor: &Actor, scan: &mut Scan, deadline: Instant) -> Result<Slice, String> {
        if scan.no_scan {
            scan.count = u64::from(self.key_kind(actor.database, &scan.pattern).0 != KeyKind::Empty);
            return Ok(Slice { count: 0, ended: true });
        }
        while scan.more && Instant::now() < deadline {
            self.scan_step(actor, scan, |scan, _| scan.count += 1)?;
        }
        Ok(Slice { count: 0, ended: !scan.more })
    }

    fn scan_some(
        &self,
        actor: &Actor,
        scan: &mut Scan,
        writer: &mut Writer,
        deadline: Instant,
    ) -> Result<Slice, String> {
        if scan.no_scan {
            if self.key_kind(actor.database, &scan.pattern).0 == KeyKind::Empty {
                self.check_read(actor, &scan.pattern)?;
                return Ok(Slice { count: 0, ended: true });
            }
            self.write_key_record(writer, actor, &scan.pattern, None, scan.read_value)?;
            return Ok(Slice { count: 1, ended: true });
        }
        let mut count = 0;
        loop {
            if scan.found.is_empty() {
                if !scan.more {
                    return Ok(Slice { count, ended: true });
                }
                self.scan_step(actor, scan, |scan, name| scan.found.push_back(name.to_vec()))?;
            } else {
                match self.read_found(actor, scan, writer) {
                    Ok(read) => count += read,
                    // What was read before the error goes out first; the error comes again with the next slice.
                    Err(_) if count > 0 => return Ok(Slice { count, ended: false }),
                    Err(reason) => return Err(reason),
                }
            }
            if Instant::now() >= deadline || writer.len() >= BYTES_PER_READ {
                return Ok(Slice { count, ended: false });
            }
        }
    }

    /// Writes records of some of the keys that were found: strings in one go, or one key of another type. A key that is
    /// an error stays where it is.
    fn read_found(&self, actor: &Actor, scan: &mut Scan, writer: &mut Writer) -> Result<u64, String> {
        if !scan.read_value {
            let count = scan.found.len() as u64;
            for key in scan.found.drain(..) {
                writer.key_only_record(&key, None);
            }
            return Ok(count);
        }
        let mut strings: Vec<Vec<u8>> = Vec::new();
        let mut bytes = 0;
        while let Some(key) = scan.found.front()
            && strings.len() < KEYS_PER_READ
        {
            let (kind, len) = self.key_kind(actor.database, key);
            match kind {
                KeyKind::Empty => {}
                KeyKind::String if strings.is_empty() || bytes + len <= BYTES_PER_READ => {
                    self.check_len(key, len)?;
                    bytes += len;
                    strings.extend(scan.found.pop_front());
                    continue;
                }
                _ if !strings.is_empty() => break,
                _ => {
                    self.write_record(writer, (actor, key), None, kind, len)?;
                    scan.found.pop_front();
                    return Ok(1);
                }
            }
            scan.found.pop_front();
        }
        if strings.is_empty() {
            return Ok(0);
        }
        match self.write_strings(actor, writer, &strings) {
            // One of them may not be read: one by one, up to that one.
            Err(reason) if reason.starts_with("NOPERM") => self.write_one_by_one(actor, scan, writer, strings),
            written => written,
        }
    }

    /// Type of a key and length of its value; nothing is notified of the look.
    pub fn key_kind(&self, db: Database, key: &[u8]) -> (KeyKind, usize) {
        self.muted(|| self.server.key_kind(db.0, key))
    }

    fn write_one_by_one(
        &self,
        actor: &Actor,
        scan: &mut Scan,
        writer: &mut Writer,
        mut keys: Vec<Vec<u8>>,
    ) -> Result<u64, String> {
        let mut count = 0;
        for index in 0..keys.len() {
            let (kind, len) = self.key_kind(actor.database, &keys[index]);
            if kind == KeyKind::Empty {
                continue;
            }
            if let Err(reason) = self.write_record(writer, (actor, &keys[index]), None, kind, len) {
                for key in keys.drain(index..).rev() {
                    scan.found.push_front(key);
                }
                return if count > 0 { Ok(count) } else { Err(reason) };
            }
            count += 1;
        }
        Ok(count)
    }

    fn write_strings(&self, actor: &Actor, writer: &mut Writer, keys: &[Vec<u8>]) -> Result<u64, String> {
        let mut argv: Vec<&[u8]> = vec![b"mget"];
        argv.extend(keys.iter().map(Vec::as_slice));
        let reply = self.read_as(actor, None, &argv)?;
        let mut count = 0;
        for (key, value) in keys.iter().zip(reply.view().elements()) {
            // A key that expired between the scan and here is no key.
            if value.kind() == ReplyKind::String {
                writer.key_record(key, None, KeyType::String);
                writer.raw(value.bytes());
                count += 1;
            }
        }
        Ok(count)
    }

    /// Runs a reading command of the engine's own, whose reply tells no user anything.
    pub fn read(&self, db: Database, argv: &[&[u8]]) -> Result<CallReply, String> {
        self.call_as(CallOptions { database: db.0, ..CallOptions::default() }, None, argv)
    }

    /// Runs a reading command of a reader as the function's user; `key` is its key, if it has one.
    fn read_as(&self, actor: &Actor, key: Option<&[u8]>, argv: &[&[u8]]) -> Result<CallReply, String> {
        let options = CallOptions { database: actor.database.0, user: Some(&actor.user), ..CallOptions::default() };
        self.call_as(options, key.map(|key| (key, Access::Read)), argv)
    }

    /// Runs a command of a reader. `key` is its key and what is done to it: an error says whether that is what the user
    /// may not do.
    pub fn call_as(
        &self,
        options: CallOptions<'_>,
        key: Option<(&[u8], Access)>,
        argv: &[&[u8]],
    ) -> Result<CallReply, String> {
        let reply = self.muted(|| self.server.call(argv, options)).map_err(|error| match error {
            CallError::NoUser(user) => no_user(&user),
            _ => "ERR the server did not run a command of the reader".to_owned(),
        })?;
        if reply.view().kind() != ReplyKind::Error {
            return Ok(reply);
        }
        let text = String::from_utf8_lossy(reply.view().bytes()).into_owned();
        let refused = text.starts_with("NOPERM") || text.contains("acl verification failed");
        match options.user {
            Some(user) if refused => Err(self.missing_permission(user, key, argv[0])),
            _ => Err(text),
        }
    }

    /// What a user who was refused may not do.
    pub fn missing_permission(&self, user: &str, key: Option<(&[u8], Access)>, command: &[u8]) -> String {
        let all: &[Access] =
            if let Some((_, Access::Read)) = key { &[Access::Read] } else { &[Access::Read, Access::Write] };
        if let Some((key, _)) = key
            && let Some(access) = all.iter().find(|access| !self.server.may_access(user, key, **access))
        {
            let verb = if *access == Access::Read { "read" } else { "write" };
            return format!(
                "NOPERM the user '{user}' has no permission to {verb} the key '{}'",
                String::from_utf8_lossy(key)
            );
        }
        let command = String::from_utf8_lossy(command);
        format!("NOPERM the user '{user}' has no permission to run the command '{command}', which a reader needs")
    }

    /// Refuses a key that the user may not read.
    fn check_read(&self, actor: &Actor, key: &[u8]) -> Result<(), String> {
        if self.server.may_access(&actor.user, key, Access::Read) {
            return Ok(());
        }
        if !self.server.user_is_enabled(&actor.user) {
            return Err(no_user(&actor.user));
        }
        Err(self.missing_permission(&actor.user, Some((key, Access::Read)), b"get"))
    }

    fn check_len(&self, key: &[u8], len: usize) -> Result<(), String> {
        let max = self.config.record_bytes_max;
        if len <= max {
            return Ok(());
        }
        Err(format!(
            "RECORDTOOBIG the value of key '{}' has {len} bytes, more than MaxRecordBytes ({max}): raise it, or use \
             readValue=False and read parts with execute()",
            String::from_utf8_lossy(key)
        ))
    }

    /// Writes the record of a key that an event is about, as the key is now.
    pub fn write_event_record(
        &self,
        writer: &mut Writer,
        actor: &Actor,
        key: &[u8],
        event: &[u8],
        read_value: bool,
    ) -> Result<(), String> {
        if !read_value {
            self.check_read(actor, key)?;
        }
        self.write_key_record(writer, actor, key, Some(event), read_value)
    }

    /// Writes the record of one key as it is now.
    fn write_key_record(
        &self,
        writer: &mut Writer,
        actor: &Actor,
        key: &[u8],
        event: Option<&[u8]>,
        read_value: bool,
    ) -> Result<(), String> {
        if !read_value {
            writer.key_only_record(key, event);
            return Ok(());
        }
        let (kind, len) = self.key_kind(actor.database, key);
        self.write_record(writer, (actor, key), event, kind, len)
    }

    fn write_record(
        &self,
        writer: &mut Writer,
        (actor, key): (&Actor, &[u8]),
        event: Option<&[u8]>,
        kind: KeyKind,
        len: usize,
    ) -> Result<(), String> {
        let key_type = key_type(kind);
        let command: &[&[u8]] = match kind {
            KeyKind::String => {
                self.check_len(key, len)?;
                &[b"get", key]
            }
            KeyKind::Hash => &[b"hgetall", key],
            KeyKind::List => &[b"lrange", key, b"0", b"-1"],
            _ => {
                self.check_read(actor, key)?;
                writer.key_record(key, event, key_type);
                writer.none();
                return Ok(());
            }
        };
        let reply = self.read_as(actor, Some(key), command)?;
        self.check_len(key, reply.wire_len())?;
        writer.key_record(key, event, key_type);
        let view = reply.view();
        match (kind, view.kind()) {
            (KeyKind::String, ReplyKind::String) => writer.raw(view.bytes()),
            (KeyKind::List, ReplyKind::Array(items)) => {
                writer.list(items);
                for item in view.elements() {
                    writer.raw(item.bytes());
                }
            }
            (KeyKind::Hash, ReplyKind::Array(items)) => {
                writer.dict(items / 2);
                write_pairs(writer, view);
            }
            _ => writer.none(),
        }
        Ok(())
    }

    /// Writes the record of a stream entry (`[id, [field, value, ...]]`) and returns its id; an entry that was deleted has
    /// no fields and is no record.
    pub fn write_entry(
        &self,
        writer: &mut Writer,
        stream: &[u8],
        entry: ReplyView<'_>,
    ) -> Result<Option<Vec<u8>>, String> {
        let (Some(id), Some(fields)) = (entry.element(0), entry.element(1)) else { return Ok(None) };
        let ReplyKind::Array(len) = fields.kind() else { return Ok(None) };
        let (bytes, max) =
            (fields.elements().map(|field| field.bytes().len()).sum::<usize>(), self.config.record_bytes_max);
        if bytes > max {
            let (id, stream) = (String::from_utf8_lossy(id.bytes()), String::from_utf8_lossy(stream));
            return Err(format!(
                "RECORDTOOBIG entry {id} of stream '{stream}' has {bytes} bytes, more than MaxRecordBytes ({max}): raise it"
            ));
        }
        writer.stream_record(stream, id.bytes(), len / 2);
        write_pairs(writer, fields);
        Ok(Some(id.bytes().to_vec()))
    }

    fn range_some(&self, actor: &Actor, range: &mut StreamRange, writer: &mut Writer) -> Result<Slice, String> {
        let reply = self.read_as(
            actor,
            Some(&range.key),
            &[b"xread", b"count", ENTRIES_PER_READ, b"streams", &range.key, &range.after],
        )?;
        let entries = reply.view().element(0).and_then(|stream| stream.element(1));
        let Some(entries) = entries else { return Ok(Slice { count: 0, ended: true }) };
        let mut count = 0;
        for entry in entries.elements() {
            if let Some(id) = self.write_entry(writer, &range.key, entry)? {
                range.after = id;
                count += 1;
            }
        }
        Ok(Slice { count, ended: count == 0 })
    }
}

/// The error of a reader whose user is gone.
fn no_user(user: &str) -> String {
    format!("NOPERM the user '{user}' on whose behalf the function runs does not exist any more, or is disabled")
}

/// Whether a database holds keys that expire, after the section `keyspace` of the server's `INFO`.
fn has_expiring_keys(keyspace: &[u8]) -> bool {
    let fields = keyspace.split(|byte| matches!(byte, b',' | b':' | b'\r' | b'\n'));
    fields.filter_map(|field| field.strip_prefix(b"expires=")).any(|number| number != b"0")
}

/// Writes the fields and values of a flat array, two by two.
fn write_pairs(writer: &mut Writer, flat: ReplyView<'_>) {
    let pairs = if let ReplyKind::Array(len) = flat.kind() { len / 2 } else { 0 };
    for item in flat.elements().take(2 * pairs) {
        writer.raw(item.bytes());
    }
}

/// The name that records and filters have for a type.
pub fn key_type(kind: KeyKind) -> KeyType {
    match kind {
        KeyKind::Empty => KeyType::Empty,
        KeyKind::String => KeyType::String,
        KeyKind::List => KeyType::List,
        KeyKind::Hash => KeyType::Hash,
        KeyKind::Set => KeyType::Set,
        KeyKind::ZSet => KeyType::ZSet,
        KeyKind::Module => KeyType::Module,
        KeyKind::Stream => KeyType::Stream,
        KeyKind::Unknown => KeyType::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_expire_are_seen_in_the_keyspace_section() {
        let info = |expires: &str| {
            format!("# Keyspace\r\ndb0:keys=3,expires=0,avg_ttl=0\r\ndb7:keys=12,{expires},avg_ttl=0\r\n")
        };
        assert!(has_expiring_keys(info("expires=1").as_bytes()));
        assert!(!has_expiring_keys(info("expires=0").as_bytes()));
        assert!(!has_expiring_keys(b"# Keyspace\r\n"));
    }
}
