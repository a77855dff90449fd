//! An index of the registrations that may match a key.
//!
//! A filter either names one key, or fixes a prefix of all keys that match. Both are looked up in ordered maps: the key
//! itself, and its prefix of each length that some filter fixes.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use redgrease_core::id::RegistrationNo;
use redgrease_core::pattern::{KeyFilter, Literal};

/// Up to this number of registrations, checking each one is faster than a lookup.
const ASKED_ONE_BY_ONE: usize = 8;

/// Registrations by the fixed part of their filters.
#[derive(Debug)]
pub struct KeyIndex {
    all: Vec<RegistrationNo>,
    names: BTreeMap<Vec<u8>, Vec<RegistrationNo>>,
    prefixes: BTreeMap<Vec<u8>, Vec<RegistrationNo>>,
    /// Number of prefixes of each length.
    lengths: BTreeMap<usize, usize>,
    /// Number of fixed parts that begin with each byte.
    first_bytes: [u32; 256],
}

impl Default for KeyIndex {
    fn default() -> KeyIndex {
        KeyIndex {
            all: Vec::new(),
            names: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            lengths: BTreeMap::new(),
            first_bytes: [0; 256],
        }
    }
}

impl KeyIndex {
    /// Adds a registration; later ones have higher numbers.
    pub fn add(&mut self, number: RegistrationNo, filter: &KeyFilter) {
        self.all.push(number);
        if let Some(first) = first_byte(filter) {
            self.first_bytes[usize::from(first)] += 1;
        }
        match filter.literal() {
            Literal::Name(name) => self.names.entry(name.to_vec()).or_default().push(number),
            Literal::Prefix(prefix) => {
                let numbers = self.prefixes.entry(prefix.to_vec()).or_default();
                if numbers.is_empty() {
                    *self.lengths.entry(prefix.len()).or_default() += 1;
                }
                numbers.push(number);
            }
        }
    }

    /// Removes a registration that was added with this filter.
    pub fn remove(&mut self, number: RegistrationNo, filter: &KeyFilter) {
        self.all.retain(|other| *other != number);
        if let Some(first) = first_byte(filter) {
            self.first_bytes[usize::from(first)] -= 1;
        }
        match filter.literal() {
            Literal::Name(name) => {
                take_out(&mut self.names, name, number);
            }
            Literal::Prefix(prefix) => {
                if take_out(&mut self.prefixes, prefix, number)
                    && let Some(count) = self.lengths.get_mut(&prefix.len())
                {
                    *count -= 1;
                    if *count == 0 {
                        self.lengths.remove(&prefix.len());
                    }
                }
            }
        }
    }

    /// Whether there may be candidates for a key. Nearly all events concern no registration, and this is quicker than a lookup
    /// of each length: with the first byte, or else with one lookup. A fixed prefix of the key is one of the greatest prefix
    /// that is not greater than the key, too.
    pub fn has_candidates(&self, key: &[u8]) -> bool {
        let Some(first) = key.first() else { return !self.all.is_empty() };
        let shortest = self.lengths.keys().next().copied();
        if self.is_small() || shortest == Some(0) {
            return !self.all.is_empty();
        }
        if self.first_bytes[usize::from(*first)] == 0 {
            return false;
        }
        let nearest = self.prefixes.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        let common =
            nearest.map_or(0, |(prefix, _)| prefix.iter().zip(key).take_while(|(one, other)| one == other).count());
        shortest.is_some_and(|shortest| common >= shortest) || self.names.contains_key(key)
    }

    /// The registrations whose filters may match a key, in the order of their numbers.
    pub fn candidates(&self, key: &[u8]) -> Cow<'_, [RegistrationNo]> {
        if self.is_small() {
            return Cow::Borrowed(&self.all);
        }
        let mut found = self.names.get(key).cloned().unwrap_or_default();
        for len in self.lengths.range(..=key.len()).map(|(len, _)| *len) {
            if let Some(numbers) = self.prefixes.get(&key[..len]) {
                found.extend(numbers);
            }
        }
        found.sort_unstable();
        Cow::Owned(found)
    }

    /// Whether the candidates are so few that each one can be checked.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.all.len() <= ASKED_ONE_BY_ONE
    }

    /// All registrations, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = RegistrationNo> {
        self.all.iter().copied()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

fn first_byte(filter: &KeyFilter) -> Option<u8> {
    match filter.literal() {
        Literal::Name(fixed) | Literal::Prefix(fixed) => fixed.first().copied(),
    }
}

/// Removes a number; returns whether it was the last one.
fn take_out(map: &mut BTreeMap<Vec<u8>, Vec<RegistrationNo>>, at: &[u8], number: RegistrationNo) -> bool {
    let Some(numbers) = map.get_mut(at) else { return false };
    numbers.retain(|other| *other != number);
    let last = numbers.is_empty();
    if last {
        map.remove(at);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn candidates_are_all_that_pass_whatever_was_added_and_removed(
            patterns in prop::collection::vec("[ab]{0,3}[*?]?[ab]{0,2}\\*?", 1..40),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            keys in prop::collection::vec("[ab]{0,6}", 1..20),
        ) {
            let mut index = KeyIndex::default();
            let mut live = BTreeMap::new();
            for (number, pattern) in patterns.iter().enumerate() {
                let filter = KeyFilter::new(pattern.as_str()).unwrap();
                index.add(RegistrationNo(number as u64), &filter);
                live.insert(RegistrationNo(number as u64), filter);
            }
            for at in removed {
                let number = RegistrationNo(at.index(patterns.len()) as u64);
                if let Some(filter) = live.remove(&number) {
                    index.remove(number, &filter);
                }
            }
            for key in keys {
                let key = key.as_bytes();
                let expected: Vec<_> = live.iter().filter(|(_, filter)| filter.matches(key)).map(|(number, _)| *number).collect();
                let passing: Vec<_> = index.candidates(key).iter().filter(|number| live[number].matches(key)).copied().collect();
                prop_assert!(index.has_candidates(key) || expected.is_empty());
                prop_assert_eq!(passing, expected);
            }
        }

        #[test]
        fn there_are_candidates_for_a_key_if_one_may_match(
            patterns in prop::collection::btree_set("[ab]{1,4}\\*?", 9..25),
            keys in prop::collection::vec("[abc]{0,6}", 1..20),
        ) {
            let mut index = KeyIndex::default();
            for (number, pattern) in patterns.iter().enumerate() {
                index.add(RegistrationNo(number as u64), &KeyFilter::new(pattern.as_str()).unwrap());
            }
            for key in keys {
                let key = key.as_bytes();
                prop_assert!(index.has_candidates(key) || index.candidates(key).is_empty());
            }
        }
    }

    #[test]
    fn a_key_meets_only_the_registrations_that_may_want_it() {
        let mut index = KeyIndex::default();
        for number in 0..10_000 {
            index.add(RegistrationNo(number), &KeyFilter::new(format!("q{number}")).unwrap());
        }
        index.add(RegistrationNo(10_000), &KeyFilter::new("q1*").unwrap());
        assert_eq!(*index.candidates(b"q17"), [RegistrationNo(17), RegistrationNo(10_000)]);
        assert!(index.candidates(b"other").is_empty());
    }
}
