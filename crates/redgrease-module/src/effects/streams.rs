//! Consumer groups of stream registrations: reading, acknowledging, removing; and the search for streams.

use redgrease_core::codec::Writer;
use redgrease_core::id::Database;
use redgrease_engine::effect::{GroupPosition, GroupRead};
use redgrease_engine::input::{Actor, GroupPart};
use redgrease_engine::{EntryId, GroupProgress};
use redgrease_ffi::call::ReplyView;
use redgrease_ffi::{CallOptions, CallReply, LogLevel};

use super::own_command::{Code, call, look_up, write_stream};
use super::record::write_entry;
use crate::driver::Driver;

/// Name of RedisGears' consumer: data files contain it.
const CONSUMER: &[u8] = b"__gears_client__";

/// Keys per step of a search.
const KEYS_PER_STEP: &[u8] = b"500";

/// Pending entries of a group that are examined.
const PENDING_MAX: usize = 128;

/// Reads through a group, which is created if it does not exist; `None` if the stream does not exist.
pub fn read_group(driver: &Driver, read: &GroupRead) -> Result<Option<GroupPart>, String> {
    let Some(reply) = read_or_create(driver, read)? else { return Ok(None) };
    let mut part = GroupPart::default();
    let mut writer = Writer::new();
    let entries = reply.view().element(0).and_then(|stream| stream.element(1));
    for entry in entries.iter().flat_map(|entries| entries.elements()) {
        part.read += 1;
        part.ids.extend(entry.element(0).and_then(|id| EntryId::parse(id.bytes())));
        match write_entry(driver, &mut writer, &read.stream, entry) {
            // Deleted while it waited: there is nothing to run, but it must be acknowledged.
            Ok(written) => part.count += u64::from(written.is_some()),
            Err(reason) => part.errors.push(reason),
        }
    }
    if part.count > 0 {
        part.records = writer.into_bytes();
    }
    Ok(Some(part))
}

fn read_or_create(driver: &Driver, read: &GroupRead) -> Result<Option<CallReply>, String> {
    let GroupRead { actor, stream, group, position, count } = read;
    let count = count.to_string();
    let from = match position {
        GroupPosition::New => ">".to_owned(),
        GroupPosition::Pending(None) => "0".to_owned(),
        GroupPosition::Pending(Some(after)) => after.to_string(),
    };
    let argv: [&[u8]; 9] =
        [b"xreadgroup", b"group", group, CONSUMER, b"count", count.as_bytes(), b"streams", stream, from.as_bytes()];
    match write_stream(driver, actor, stream, &argv) {
        Err(failure) if failure.code == Code::NoGroup => {}
        result => return result.map(Some).map_err(String::from),
    }
    match write_stream(driver, actor, stream, &[b"xgroup", b"create", stream, group, b"0"]) {
        Ok(_) => Ok(Some(write_stream(driver, actor, stream, &argv)?)),
        Err(failure) if matches!(failure.code, Code::NoPermission | Code::Paused) => Err(failure.text),
        Err(_) => Ok(None),
    }
}

/// One step of the search for streams: keys that were found, and the next cursor.
pub fn search(driver: &Driver, database: Database, cursor: &[u8]) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
    let argv: [&[u8]; 6] = [b"scan", cursor, b"count", KEYS_PER_STEP, b"type", b"stream"];
    let Ok(reply) = look_up(driver, database, &argv) else { return (Vec::new(), None) };
    let (Some(next), Some(keys)) = (reply.view().element(0), reply.view().element(1)) else {
        return (Vec::new(), None);
    };
    let next = Some(next.bytes().to_vec()).filter(|next| next != b"0");
    (keys.elements().map(|key| key.bytes().to_vec()).collect(), next)
}

/// Acknowledges entries; returns how many were waiting for it.
pub fn acknowledge(
    driver: &Driver,
    actor: &Actor,
    stream: &[u8],
    group: &[u8],
    ids: &[EntryId],
) -> Result<u64, String> {
    let texts: Vec<String> = ids.iter().map(EntryId::to_string).collect();
    let mut argv: Vec<&[u8]> = vec![b"xack", stream, group];
    argv.extend(texts.iter().map(String::as_bytes));
    let reply = write_stream(driver, actor, stream, &argv)?;
    Ok(u64::try_from(reply.view().int()).unwrap_or_default())
}

/// Removes entries by their ids: trimming by length could remove entries that were added meanwhile.
pub fn remove_entries(driver: &Driver, actor: &Actor, stream: &[u8], ids: &[EntryId]) {
    if ids.is_empty() {
        return;
    }
    let texts: Vec<String> = ids.iter().map(EntryId::to_string).collect();
    let mut argv: Vec<&[u8]> = vec![b"xdel", stream];
    argv.extend(texts.iter().map(String::as_bytes));
    if let Err(failure) = write_stream(driver, actor, stream, &argv) {
        let stream = String::from_utf8_lossy(stream);
        let text = format!("rg: XDEL on stream '{stream}': {}", failure.text);
        driver.server.log(LogLevel::Warning, &text);
    }
}

/// Removes a group from some streams; returns the next cursor.
pub fn remove_group(driver: &Driver, database: Database, group: &[u8], cursor: &[u8]) -> Option<Vec<u8>> {
    // Removing is a write, which the server does not survive while clients are paused: the step is repeated.
    if driver.server.must_not_replicate() {
        return Some(cursor.to_vec());
    }
    let (keys, next) = search(driver, database, cursor);
    let options = CallOptions { database: database.0, replicate: true, ..CallOptions::default() };
    for key in keys {
        // A stream without the group is not an error.
        let _ = call(driver, options, None, &[b"xgroup", b"destroy", &key, group]);
    }
    next
}

/// How many entries follow an id, counted up to `max`; `None` if unknown.
pub fn entries_after(driver: &Driver, database: Database, stream: &[u8], after: EntryId, max: u64) -> Option<u64> {
    let (from, count) = (format!("({after}"), max.to_string());
    let argv: [&[u8]; 6] = [b"xrange", stream, from.as_bytes(), b"+", b"count", count.as_bytes()];
    Some(look_up(driver, database, &argv).ok()?.view().elements().count() as u64)
}

/// The state of groups for the entries from `first` to `last`; `None` for a group whose state is unknown.
pub fn group_progress(
    driver: &Driver,
    database: Database,
    stream: &[u8],
    groups: &[Vec<u8>],
    (first, last): (EntryId, EntryId),
) -> Vec<Option<GroupProgress>> {
    let reply = look_up(driver, database, &[b"xinfo", b"groups", stream]).ok();
    let rows: Vec<ReplyView<'_>> = reply.iter().flat_map(|reply| reply.view().elements()).collect();
    let of = |group: &Vec<u8>| {
        let row = rows.iter().find(|row| field(**row, b"name").is_some_and(|name| name.bytes() == *group))?;
        let last_delivered = EntryId::parse(field(*row, b"last-delivered-id")?.bytes())?;
        let mut pending = Vec::new();
        if field(*row, b"pending")?.int() > 0 {
            let (first, last, count) = (first.to_string(), last.to_string(), PENDING_MAX.to_string());
            let argv: [&[u8]; 6] = [b"xpending", stream, group, first.as_bytes(), last.as_bytes(), count.as_bytes()];
            let reply = look_up(driver, database, &argv).ok()?;
            pending.extend(reply.view().elements().filter_map(|entry| EntryId::parse(entry.element(0)?.bytes())));
            // Other consumers' entries lie in between: the rest is unknown, so nothing is considered acknowledged.
            if pending.len() >= PENDING_MAX {
                return None;
            }
        }
        Some(GroupProgress { last_delivered, pending })
    };
    groups.iter().map(of).collect()
}

/// A field of a flat map of names and values.
fn field<'a>(map: ReplyView<'a>, name: &[u8]) -> Option<ReplyView<'a>> {
    let index = map.elements().step_by(2).position(|field| field.bytes() == name)?;
    map.element(2 * index + 1)
}
