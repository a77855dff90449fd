//! Reading the keys of a database, by the server's `SCAN`: it reads only names until they match, while `RM_Scan` copies
//! each name and touches each value (measured over 220,000 keys: 55 against 135 ms).

use std::time::Instant;

use redgrease_core::codec::{KeyType, Writer};
use redgrease_engine::input::Actor;
use redgrease_engine::reader::{KeyContent, Scan};
use redgrease_ffi::call::ReplyKind;
use redgrease_ffi::keyspace::KeyKind;

use super::own_command::{Code, Failure, read};
use super::permissions::check_read;
use super::record::{check_len, write_key, write_value};
use crate::driver::Driver;
use crate::error::Error;

/// Keys whose values are requested with one command.
const KEYS_PER_READ: usize = 64;

/// Bytes of values that are requested with one command (or one value).
const BYTES_PER_READ: usize = 256 << 10;

/// The output for records, and their number.
type Records<'a> = (&'a mut Writer, &'a mut u64);

/// Counts keys until `end`; returns whether the scan has ended.
pub fn count(driver: &Driver, actor: &Actor, scan: &mut Scan, count: &mut u64, end: Instant) -> Result<bool, String> {
    if scan.no_scan {
        *count += u64::from(scan.content != KeyContent::Name || exists(driver, actor, &scan.pattern));
        return Ok(true);
    }
    while scan.more {
        step(driver, actor, scan, |_, _| *count += 1)?;
        if Instant::now() >= end {
            break;
        }
    }
    Ok(!scan.more)
}

/// Writes records of keys until `end`; returns whether the scan has ended.
pub fn read_keys(
    driver: &Driver,
    actor: &Actor,
    scan: &mut Scan,
    (writer, count): Records<'_>,
    end: Instant,
) -> Result<bool, String> {
    if scan.no_scan {
        *count += u64::from(read_one(driver, actor, scan, writer)?);
        return Ok(true);
    }
    loop {
        if !scan.found.is_empty() {
            read_found(driver, actor, scan, (writer, count))?;
        } else if scan.more {
            step(driver, actor, scan, |scan, name| scan.found.push_back(name.to_vec()))?;
        } else {
            return Ok(true);
        }
        if Instant::now() >= end || writer.len() >= BYTES_PER_READ {
            return Ok(false);
        }
    }
}

fn exists(driver: &Driver, actor: &Actor, key: &[u8]) -> bool {
    driver.key_kind(actor.database, key).0 != KeyKind::Empty
}

/// Writes the record of the requested key; returns whether there is one. As in RedisGears a key that does not exist has a
/// record, but no name.
fn read_one(driver: &Driver, actor: &Actor, scan: &Scan, writer: &mut Writer) -> Result<bool, String> {
    match scan.content {
        // To a user who may not read it the key does not exist.
        KeyContent::Name if check_read(driver, &actor.user, &scan.pattern).is_err() => return Ok(false),
        KeyContent::Name if !exists(driver, actor, &scan.pattern) => return Ok(false),
        KeyContent::Name => writer.raw(&scan.pattern),
        KeyContent::Value => write_key(driver, writer, actor, &scan.pattern, None, true)?,
        KeyContent::Key => {
            check_read(driver, &actor.user, &scan.pattern)?;
            write_key(driver, writer, actor, &scan.pattern, None, false)?;
        }
    }
    Ok(true)
}

/// Continues a scan by a few keys; `found` is called with each name that matches.
fn step(
    driver: &Driver,
    actor: &Actor,
    scan: &mut Scan,
    mut found: impl FnMut(&mut Scan, &[u8]),
) -> Result<(), String> {
    let keys = scan.step.to_string();
    let mut argv: Vec<&[u8]> = vec![b"scan", &scan.cursor, b"count", keys.as_bytes()];
    if scan.pattern != b"*" {
        argv.extend([b"match".as_slice(), &scan.pattern]);
    }
    let reply = read(driver, actor, None, &argv)?;
    let (Some(next), Some(names)) = (reply.view().element(0), reply.view().element(1)) else {
        return Err(Error::UnknownScan.into());
    };
    scan.cursor = next.bytes().to_vec();
    scan.more = scan.cursor != b"0";
    for name in names.elements() {
        found(scan, name.bytes());
    }
    Ok(())
}

/// Writes records of some of the keys that were found: several strings, or one key of another type.
fn read_found(driver: &Driver, actor: &Actor, scan: &mut Scan, (writer, count): Records<'_>) -> Result<(), String> {
    if scan.content != KeyContent::Value {
        *count += scan.found.len() as u64;
        for key in scan.found.drain(..) {
            match scan.content {
                KeyContent::Name => writer.raw(&key),
                _ => writer.key_only_record(&key, None),
            }
        }
        return Ok(());
    }
    let (strings, other) = take_strings(driver, actor, scan);
    if driver.server.flags().cluster() {
        // One command reads keys of one slot.
        write_one_by_one(driver, actor, &strings, (writer, count))?;
    } else if let Err(failure) = write_strings(driver, actor, &strings, (writer, count)) {
        if failure.code != Code::NoPermission {
            return Err(failure.text);
        }
        write_one_by_one(driver, actor, &strings, (writer, count))?;
    }
    if let Some((key, kind, len)) = other {
        write_value(driver, writer, (actor, &key), None, (kind, len))?;
        *count += 1;
    }
    Ok(())
}

/// A key with the type and the length of its value.
type Found = (Vec<u8>, KeyKind, usize);

/// Takes strings off the front of the keys that were found, as many as one command reads, or one key that must be read
/// separately.
fn take_strings(driver: &Driver, actor: &Actor, scan: &mut Scan) -> (Vec<Vec<u8>>, Option<Found>) {
    let mut strings: Vec<Vec<u8>> = Vec::new();
    let mut bytes = 0;
    while let Some(key) = scan.found.front()
        && strings.len() < KEYS_PER_READ
    {
        let (kind, len) = driver.key_kind(actor.database, key);
        let joins = kind == KeyKind::String
            && check_len(driver, key, len).is_ok()
            && (strings.is_empty() || bytes + len <= BYTES_PER_READ);
        if !joins && kind != KeyKind::Empty && !strings.is_empty() {
            break;
        }
        let Some(key) = scan.found.pop_front() else { break };
        if joins {
            bytes += len;
            strings.push(key);
        } else if kind != KeyKind::Empty {
            return (strings, Some((key, kind, len)));
        }
    }
    (strings, None)
}

/// Reads keys with a command each, up to one that may not be read.
fn write_one_by_one(
    driver: &Driver,
    actor: &Actor,
    keys: &[Vec<u8>],
    (writer, count): Records<'_>,
) -> Result<(), String> {
    for key in keys {
        let (kind, len) = driver.key_kind(actor.database, key);
        if kind != KeyKind::Empty {
            write_value(driver, writer, (actor, key), None, (kind, len))?;
            *count += 1;
        }
    }
    Ok(())
}

fn write_strings(
    driver: &Driver,
    actor: &Actor,
    keys: &[Vec<u8>],
    (writer, count): Records<'_>,
) -> Result<(), Failure> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut argv: Vec<&[u8]> = vec![b"mget"];
    argv.extend(keys.iter().map(Vec::as_slice));
    let reply = read(driver, actor, None, &argv)?;
    for (key, value) in keys.iter().zip(reply.view().elements()) {
        // A key that expired since the scan is skipped.
        if value.kind() == ReplyKind::String {
            writer.key_record(key, None, KeyType::String);
            writer.raw(value.bytes());
            *count += 1;
        }
    }
    Ok(())
}
