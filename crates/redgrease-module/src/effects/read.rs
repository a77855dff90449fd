//! Readers: slices, and the keys of events.

use std::time::Instant;

use redgrease_core::codec::Writer;
use redgrease_engine::input::{Actor, Slice};
use redgrease_engine::reader::{KEYS_PER_STEP, Reader, Search, StreamRange, Streams};
use redgrease_engine::work::Work;
use redgrease_ffi::keyspace::KeyKind;

use super::own_command::read;
use super::permissions::check_read;
use super::record::{write_entry, write_key};
use super::scan;
use crate::driver::Driver;
use crate::error::Error;

/// Entries of a stream that are requested with one command.
const ENTRIES_PER_READ: &[u8] = b"100";

/// Bytes of entries after which a slice over several streams ends.
const BYTES_PER_SLICE: usize = 256 << 10;

/// Reads a slice: until the slice of readers in this turn ends, or one step, whichever is longer.
pub fn slice(driver: &Driver, actor: &Actor, reader: &mut Reader, count_only: bool) -> Slice {
    let end = driver.slice_end.get().unwrap_or_else(|| Instant::now() + Work::Readers.slice());
    let began = Instant::now();
    let mut writer = Writer::new();
    let mut count = 0;
    let ended = match reader {
        Reader::Scan(scan) if count_only => scan::count(driver, actor, scan, &mut count, end),
        Reader::Scan(scan) => scan::read_keys(driver, actor, scan, (&mut writer, &mut count), end),
        Reader::Range(range) => read_range(driver, actor, range, (&mut writer, &mut count)),
        Reader::Streams(streams) => read_streams(driver, actor, streams, (&mut writer, &mut count), end),
        Reader::Group => Err(Error::GroupInSlices.into()),
    };
    let (ended, error) = match ended {
        Ok(ended) => (ended, None),
        Err(reason) => (true, Some(reason)),
    };
    let records = if count == 0 || count_only { Vec::new() } else { writer.into_bytes() };
    Slice { count, records, micros: began.elapsed().as_micros() as u64, ended, error }
}

fn read_range(
    driver: &Driver,
    actor: &Actor,
    range: &mut StreamRange,
    (writer, count): (&mut Writer, &mut u64),
) -> Result<bool, String> {
    let argv: [&[u8]; 6] = [b"xread", b"count", ENTRIES_PER_READ, b"streams", &range.key, &range.after];
    let reply = read(driver, actor, Some(&range.key), &argv)?;
    let entries = reply.view().element(0).and_then(|stream| stream.element(1));
    for entry in entries.iter().flat_map(|entries| entries.elements()) {
        if let Some(id) = write_entry(driver, writer, &range.key, entry)? {
            range.after = id.to_vec();
            *count += 1;
        }
    }
    Ok(*count == 0)
}

/// Reads streams one after the other until `end`, and searches for further ones in between.
fn read_streams(
    driver: &Driver,
    actor: &Actor,
    streams: &mut Streams,
    (writer, count): (&mut Writer, &mut u64),
    end: Instant,
) -> Result<bool, String> {
    loop {
        if let Some(range) = &mut streams.current {
            let mut read = 0;
            if read_range(driver, actor, range, (writer, &mut read))? {
                streams.current = None;
            }
            *count += read;
        } else if let Some(key) = streams.found.pop_front() {
            streams.current = Some(StreamRange { key, after: streams.from_id.clone() });
        } else if streams.search == Search::Ended {
            return Ok(true);
        } else {
            search_streams(driver, actor, streams)?;
        }
        if Instant::now() >= end || writer.len() >= BYTES_PER_SLICE {
            return Ok(false);
        }
    }
}

/// One step of the search: the stream whose name is the pattern itself, else those that match.
fn search_streams(driver: &Driver, actor: &Actor, streams: &mut Streams) -> Result<(), String> {
    let cursor = match &streams.search {
        Search::Ended => return Ok(()),
        Search::At(cursor) => cursor.clone(),
        Search::NotBegun if driver.key_kind(actor.database, &streams.pattern).0 == KeyKind::Stream => {
            streams.found.push_back(streams.pattern.clone());
            streams.search = Search::Ended;
            return Ok(());
        }
        Search::NotBegun => b"0".to_vec(),
    };
    let keys = KEYS_PER_STEP.to_string();
    let argv: [&[u8]; 8] =
        [b"scan", &cursor, b"match", &streams.pattern, b"count", keys.as_bytes(), b"type", b"stream"];
    let reply = read(driver, actor, None, &argv)?;
    let (Some(next), Some(names)) = (reply.view().element(0), reply.view().element(1)) else {
        return Err(Error::UnknownScan.into());
    };
    for name in names.elements() {
        if streams.seen.insert(name.bytes().to_vec()) {
            streams.found.push_back(name.bytes().to_vec());
        }
    }
    streams.search = match next.bytes() {
        b"0" => Search::Ended,
        next => Search::At(next.to_vec()),
    };
    Ok(())
}

/// The record of the key of an event, with its current value.
pub fn event_record(
    driver: &Driver,
    actor: &Actor,
    key: &[u8],
    event: &str,
    read_value: bool,
) -> Result<Vec<u8>, String> {
    if !read_value {
        check_read(driver, &actor.user, key)?;
    }
    let mut writer = Writer::new();
    write_key(driver, &mut writer, actor, key, Some(event.as_bytes()), read_value)?;
    Ok(writer.into_bytes())
}
