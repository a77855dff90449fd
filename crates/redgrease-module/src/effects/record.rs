//! Records of keys and of entries of streams.

use redgrease_core::codec::{KeyType, Writer};
use redgrease_engine::input::Actor;
use redgrease_ffi::call::{ReplyKind, ReplyView};
use redgrease_ffi::keyspace::KeyKind;

use super::own_command::read;
use super::permissions::check_read;
use crate::driver::Driver;
use crate::error::Error;

/// Writes the record of one key with its current value.
pub fn write_key(
    driver: &Driver,
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
    let (kind, len) = driver.key_kind(actor.database, key);
    write_value(driver, writer, (actor, key), event, (kind, len))
}

/// Writes the record of a key with its type and value.
pub fn write_value(
    driver: &Driver,
    writer: &mut Writer,
    (actor, key): (&Actor, &[u8]),
    event: Option<&[u8]>,
    (kind, len): (KeyKind, usize),
) -> Result<(), String> {
    let command: &[&[u8]] = match kind {
        KeyKind::String => {
            check_len(driver, key, len)?;
            &[b"get", key]
        }
        KeyKind::Hash => &[b"hgetall", key],
        KeyKind::List => &[b"lrange", key, b"0", b"-1"],
        _ => {
            check_read(driver, &actor.user, key)?;
            writer.key_record(key, event, key_type(kind));
            writer.none();
            return Ok(());
        }
    };
    let reply = read(driver, actor, Some(key), command)?;
    check_len(driver, key, reply.wire().len())?;
    writer.key_record(key, event, key_type(kind));
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

/// Refuses a value that is too long for a record.
pub fn check_len(driver: &Driver, key: &[u8], len: usize) -> Result<(), Error> {
    let max = driver.config.record_bytes_max;
    if len <= max {
        return Ok(());
    }
    Err(Error::ValueTooBig { key: String::from_utf8_lossy(key).into_owned(), len, max })
}

/// Writes the record of a stream entry (`[id, [field, value, ...]]`) and returns its id; a deleted entry has
/// no fields and no record.
pub fn write_entry<'a>(
    driver: &Driver,
    writer: &mut Writer,
    stream: &[u8],
    entry: ReplyView<'a>,
) -> Result<Option<&'a [u8]>, String> {
    let (Some(id), Some(fields)) = (entry.element(0), entry.element(1)) else { return Ok(None) };
    let ReplyKind::Array(len) = fields.kind() else { return Ok(None) };
    let (bytes, max) =
        (fields.elements().map(|field| field.bytes().len()).sum::<usize>(), driver.config.record_bytes_max);
    if bytes > max {
        let (id, stream) =
            (String::from_utf8_lossy(id.bytes()).into_owned(), String::from_utf8_lossy(stream).into_owned());
        return Err(Error::EntryTooBig { id, stream, len: bytes, max }.into());
    }
    writer.stream_record(stream, id.bytes(), len / 2);
    write_pairs(writer, fields);
    Ok(Some(id.bytes()))
}

/// Writes the fields and values of a flat array as pairs.
fn write_pairs(writer: &mut Writer, flat: ReplyView<'_>) {
    let pairs = if let ReplyKind::Array(len) = flat.kind() { len / 2 } else { 0 };
    for item in flat.elements().take(2 * pairs) {
        writer.raw(item.bytes());
    }
}

/// The name of a type in records and filters.
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
