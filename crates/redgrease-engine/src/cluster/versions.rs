//! Versions of sessions, and what a shard has seen of the changes of others.
//!
//! Each change of the registrations on a shard gets a [`Version`]: a time that grows with each change (a hybrid logical clock:
//! Kulkarni et al., "Logical Physical Clocks and Consistent Snapshots in Globally Distributed Databases", 2014) and the run of
//! its server. (Not the shard: one that starts again with old data must not make changes that others think they have seen.) A
//! session has the version of its last change. A shard knows, for each run, up to which time it has seen all changes. So a
//! session that one shard has and another one has not is either unknown there (its version has not been seen) or was removed
//! there (it has been): an optimized observed-remove set (Bieniusa et al., "An Optimized Conflict-free Replicated Set", 2012),
//! where a session of the same name with a later version replaces one with an earlier version.

use redgrease_core::id::ShardId;
use redgrease_core::saved::{SavedSeen, SavedVersion};

use crate::prelude::*;

/// The time of the change before one, if it is not known whether there are others between.
pub const NOT_KNOWN: u64 = u64::MAX;

/// Bits of a time that count changes within a millisecond.
const COUNT_BITS: u32 = 16;

/// Runs of which is known what was seen; those with the oldest changes are forgotten first.
const SEEN_MAX: usize = 10_000;

/// The version of a session. Versions are ordered: the later one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Milliseconds since 1970, times 2^16, plus a count.
    pub time: u64,
    /// The run of the server that made the change: forty characters, as an id of a shard.
    pub run: ShardId,
}

impl Version {
    /// Of a session that was saved without one.
    #[must_use]
    pub fn none() -> Version {
        Version { time: 0, run: ShardId::standalone() }
    }

    /// Its form in data files.
    #[must_use]
    pub fn saved(self) -> SavedVersion {
        SavedVersion { time: self.time, run: self.run.to_string() }
    }

    /// The version with that form in data files.
    #[must_use]
    pub fn of_saved(saved: Option<&SavedVersion>) -> Version {
        let read =
            |saved: &SavedVersion| Some(Version { time: saved.time, run: ShardId::parse(saved.run.as_bytes())? });
        saved.and_then(read).unwrap_or_else(Version::none)
    }
}

/// What to do with a session that another shard has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Nothing.
    Keep,
    /// Use it, in place of what there is.
    Take,
}

/// What this shard has seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Versions {
    last: u64,
    seen: BTreeMap<ShardId, u64>,
}

impl Versions {
    /// The version of a change that this run makes now, and the time of its change before.
    pub fn next(&mut self, run: ShardId, unix_ms: u64) -> (Version, u64) {
        let before = self.seen.get(&run).copied().unwrap_or_default();
        self.last = (self.last + 1).max(before + 1).max(unix_ms << COUNT_BITS);
        self.saw(Version { time: self.last, run });
        (Version { time: self.last, run }, before)
    }

    /// A change of another shard was seen, and all before it.
    pub fn saw(&mut self, version: Version) {
        self.last = self.last.max(version.time);
        let seen = self.seen.entry(version.run).or_default();
        *seen = version.time.max(*seen);
        if self.seen.len() > SEEN_MAX
            && let Some(oldest) = self.seen.iter().min_by_key(|(_, time)| **time).map(|(shard, _)| *shard)
        {
            self.seen.remove(&oldest);
        }
    }

    /// A change was seen, whose run made the change before it at the time `after`. If that was not seen, this one does not count
    /// as seen: what is missing would be taken for removed.
    pub fn saw_after(&mut self, version: Version, after: u64) {
        if version != Version::none() && self.has_seen_until(version.run, after) {
            self.saw(version);
        }
    }

    /// Whether a change was seen.
    #[must_use]
    pub fn has_seen(&self, version: Version) -> bool {
        self.seen.get(&version.run).is_some_and(|seen| *seen >= version.time)
    }

    /// Whether all changes of a run until that time were seen.
    #[must_use]
    pub fn has_seen_until(&self, run: ShardId, time: u64) -> bool {
        self.seen.get(&run).copied().unwrap_or_default() >= time
    }

    /// What to do with a session of another shard, given the version that is here.
    #[must_use]
    pub fn merge(&self, here: Option<Version>, there: Version) -> Merge {
        match here {
            Some(here) if here >= there => Merge::Keep,
            Some(_) => Merge::Take,
            // It was removed here.
            None if self.has_seen(there) => Merge::Keep,
            None => Merge::Take,
        }
    }

    /// Everything that another shard has seen was seen here, too.
    pub fn saw_all(&mut self, other: &Versions) {
        for (run, time) in &other.seen {
            self.saw(Version { time: *time, run: *run });
        }
    }

    /// Its form in data files.
    #[must_use]
    pub fn saved(&self) -> Vec<SavedSeen> {
        self.seen.iter().map(|(run, time)| SavedSeen { run: run.to_string(), time: *time }).collect()
    }

    /// What was seen, from its form in data files.
    #[must_use]
    pub fn of_saved(saved: &[SavedSeen]) -> Versions {
        let mut versions = Versions::default();
        for SavedSeen { run, time } in saved {
            if let Some(run) = ShardId::parse(run.as_bytes()) {
                versions.saw(Version { time: *time, run });
            }
        }
        versions
    }

    /// A digest of sessions with their versions, and of what was seen: the same on shards that agree.
    #[must_use]
    pub fn digest<'a>(&self, sessions: impl IntoIterator<Item = (&'a str, Version)>) -> u64 {
        let mut sessions: Vec<_> = sessions.into_iter().collect();
        sessions.sort_unstable();
        let mut digest = Fnv::new();
        for (name, version) in sessions {
            digest.add(&(name.len() as u64).to_le_bytes());
            digest.add(name.as_bytes());
            digest.add(&version.time.to_le_bytes());
            digest.add(version.run.as_str().as_bytes());
        }
        for (run, time) in &self.seen {
            digest.add(run.as_str().as_bytes());
            digest.add(&time.to_le_bytes());
        }
        digest.0
    }
}

/// The hash FNV-1a of 64 bits: it tells states apart that are not made to collide.
struct Fnv(u64);

impl Fnv {
    fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shard(number: u8) -> ShardId {
        ShardId::padded(&[b'a' + number]).unwrap()
    }

    #[test]
    fn times_grow_with_each_change_whatever_the_clock_does() {
        let mut versions = Versions::default();
        let mut last = 0;
        for unix_ms in [5, 5, 3, 9, 0] {
            let (version, before) = versions.next(shard(0), unix_ms);
            assert!(version.time > last && before == last && version.time >= unix_ms << COUNT_BITS);
            last = version.time;
        }
        let mut behind = Versions::default();
        behind.saw(Version { time: last, run: shard(0) });
        assert!(behind.next(shard(1), 0).0.time > last, "a change is later than all that its shard has seen");
    }

    #[test]
    fn a_session_that_was_seen_and_is_missing_was_removed() {
        let mut here = Versions::default();
        let (old, new) = (Version { time: 3, run: shard(1) }, Version { time: 7, run: shard(1) });
        assert_eq!(here.merge(None, old), Merge::Take);
        here.saw(old);
        assert_eq!(here.merge(None, old), Merge::Keep);
        assert_eq!(here.merge(None, new), Merge::Take);
        assert_eq!(here.merge(Some(old), new), Merge::Take);
        assert_eq!(here.merge(Some(new), old), Merge::Keep);
    }

    #[test]
    fn what_was_seen_survives_a_data_file() {
        let mut versions = Versions::default();
        versions.next(shard(0), 17);
        versions.saw(Version { time: 3, run: shard(1) });
        let loaded = Versions::of_saved(&versions.saved());
        assert_eq!(loaded.seen, versions.seen);
        let version = Version { time: 9, run: shard(4) };
        assert_eq!(Version::of_saved(Some(&version.saved())), version);
        assert_eq!(Version::of_saved(None), Version::none());
    }

    /// Sessions of one shard: name to version.
    type Sessions = BTreeMap<u8, Version>;

    fn merge_all(here: &mut (Versions, Sessions), there: &(Versions, Sessions)) {
        let names: Vec<u8> = here.1.keys().chain(there.1.keys()).copied().collect();
        for name in names {
            match (here.1.get(&name).copied(), there.1.get(&name).copied()) {
                (mine, Some(theirs)) if here.0.merge(mine, theirs) == Merge::Take => {
                    here.1.insert(name, theirs);
                }
                (Some(mine), None) if there.0.has_seen(mine) => {
                    here.1.remove(&name);
                }
                _ => {}
            }
        }
        here.0.saw_all(&there.0);
    }

    proptest! {
        /// Shards that change, remove and merge in any order agree after each has merged with each twice.
        #[test]
        fn shards_converge(steps in prop::collection::vec((0u8..4, 0u8..3, 0u8..4, 0u64..5), 0..40)) {
            let mut shards: Vec<(Versions, Sessions)> = vec![Default::default(); 4];
            for (at, name, action, clock) in steps {
                let index = usize::from(at);
                match action {
                    0 | 1 => {
                        let version = shards[index].0.next(shard(at), clock).0;
                        shards[index].1.insert(name, version);
                    }
                    2 => {
                        if shards[index].1.remove(&name).is_some() {
                            shards[index].0.next(shard(at), clock);
                        }
                    }
                    _ => {
                        let there = shards[usize::from(name)].clone();
                        merge_all(&mut shards[index], &there);
                    }
                }
            }
            for _ in 0..2 {
                for one in 0..shards.len() {
                    for other in 0..shards.len() {
                        let there = shards[other].clone();
                        merge_all(&mut shards[one], &there);
                    }
                }
            }
            let texts: Vec<String> = (0..4u8).map(|name| name.to_string()).collect();
            let digests: BTreeSet<u64> = shards.iter().map(|(versions, sessions)| {
                versions.digest(sessions.iter().map(|(name, version)| (texts[usize::from(*name)].as_str(), *version)))
            }).collect();
            prop_assert_eq!(digests.len(), 1, "{:?}", shards);
            for (_, sessions) in &shards {
                prop_assert_eq!(sessions, &shards[0].1);
            }
        }
    }
}
