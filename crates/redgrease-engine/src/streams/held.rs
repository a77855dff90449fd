//! Entries that were acknowledged by some registrations, but not by all.
//!
//! Each registration has its own group, so that each reads every entry. An entry is removed from its stream when
//! one of the live registrations that match the stream trims it and all of them have acknowledged it.

use redgrease_core::id::Database;

use crate::limits::{ENTRIES_PER_COMMAND, HELD_ENTRIES_MAX};
use crate::prelude::*;
use crate::streams::runs::EntryId;

/// The removal of entries that waited for a removed registration.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    /// The stream's database.
    pub(crate) database: Database,
    /// The stream.
    pub(crate) stream: Vec<u8>,
    /// Entries up to this one were processed.
    pub(crate) after: Option<EntryId>,
    /// How many times it was deferred.
    pub(crate) tries: u32,
}

/// The entries, by stream.
#[derive(Debug, Default)]
pub(crate) struct Held {
    streams: BTreeMap<(Database, Vec<u8>), BTreeSet<EntryId>>,
    count: usize,
}

impl Held {
    /// Adds entries, up to the limit.
    pub(crate) fn add(&mut self, database: Database, stream: &[u8], ids: impl IntoIterator<Item = EntryId>) {
        let held = self.streams.entry((database, stream.to_vec())).or_default();
        for id in ids {
            if self.count >= HELD_ENTRIES_MAX {
                break;
            }
            self.count += usize::from(held.insert(id));
        }
        if held.is_empty() {
            self.streams.remove(&(database, stream.to_vec()));
        }
    }

    /// Entries were removed.
    pub(crate) fn remove(&mut self, database: Database, stream: &[u8], ids: &[EntryId]) {
        let place = (database, stream.to_vec());
        let Some(held) = self.streams.get_mut(&place) else { return };
        self.count -= ids.iter().filter(|id| held.remove(id)).count();
        if held.is_empty() {
            self.streams.remove(&place);
        }
    }

    /// Removes a stream.
    pub(crate) fn forget(&mut self, database: Database, stream: &[u8]) {
        if let Some(held) = self.streams.remove(&(database, stream.to_vec())) {
            self.count -= held.len();
        }
    }

    /// Some of the entries of a stream after an id.
    pub(crate) fn some_after(&self, database: Database, stream: &[u8], after: Option<EntryId>) -> Vec<EntryId> {
        use core::ops::Bound::{Excluded, Unbounded};
        let Some(held) = self.streams.get(&(database, stream.to_vec())) else { return Vec::new() };
        let from = after.map_or(Unbounded, Excluded);
        held.range((from, Unbounded)).take(ENTRIES_PER_COMMAND).copied().collect()
    }

    /// The streams of a database.
    pub(crate) fn streams_of(&self, database: Database) -> Vec<Vec<u8>> {
        self.streams.keys().filter(|(other, _)| *other == database).map(|(_, stream)| stream.clone()).collect()
    }

    /// The data of two databases was swapped.
    pub(crate) fn swapped(&mut self, one: Database, other: Database) {
        let streams = core::mem::take(&mut self.streams);
        self.streams = streams
            .into_iter()
            .map(|((database, stream), ids)| ((database.after_swap(one, other), stream), ids))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> EntryId {
        EntryId::parse(format!("{number}-0").as_bytes()).unwrap()
    }

    #[test]
    fn entries_are_counted_once_and_forgotten_when_they_go() {
        let mut held = Held::default();
        let database = Database(1);
        held.add(database, b"s", [id(1), id(2), id(2)]);
        assert_eq!(held.count, 2);
        assert_eq!(held.some_after(database, b"s", Some(id(1))), [id(2)]);
        held.swapped(Database(1), Database(2));
        assert_eq!(held.streams_of(Database(2)), [b"s"]);
        held.remove(Database(2), b"s", &[id(1), id(3)]);
        assert_eq!(held.count, 1);
        held.forget(Database(2), b"s");
        assert!(held.count == 0 && held.streams.is_empty());
        held.add(database, b"t", []);
        assert!(held.streams.is_empty());
    }
}
