//! What readers read: slices, and the keys of events.

use std::time::Instant;

use redgrease_core::codec::Writer;
use redgrease_engine::input::{Actor, Slice};
use redgrease_engine::reader::{Reader, StreamRange};
use redgrease_engine::work::Work;

use super::own_command::read;
use super::permissions::check_read;
use super::record::{write_entry, write_key};
use super::scan;
use crate::driver::Driver;

/// Entries of a stream that are asked for with one command.
const ENTRIES_PER_READ: &[u8] = b"100";

/// Reads a slice: until the slice of readers in this turn ends, or one step, whichever is longer.
pub fn slice(driver: &Driver, actor: &Actor, reader: &mut Reader, count_only: bool) -> Slice {
    let end = driver.slice_end.get().unwrap_or_else(|| Instant::now() + Work::Readers.slice());
    let mut writer = Writer::new();
    let mut count = 0;
    let ended = match reader {
        Reader::Scan(scan) if count_only => scan::count(driver, actor, scan, end),
        Reader::Scan(scan) => scan::read_keys(driver, actor, scan, (&mut writer, &mut count), end),
        Reader::Range(range) => read_range(driver, actor, range, (&mut writer, &mut count)),
        Reader::Group => Err("INTERNAL entries of a group are not read in slices of this kind".to_owned()),
    };
    let (ended, error) = match ended {
        Ok(ended) => (ended, None),
        Err(reason) => (true, Some(reason)),
    };
    Slice { count, records: if count == 0 { Vec::new() } else { writer.into_bytes() }, ended, error }
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

/// The record of the key that an event was about, as the key is now.
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
