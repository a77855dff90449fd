//! The existing keys as known to a worker, which reads a random one of them.
//!
//! The proof of concept kept them in a set in Redis and requested a random one before each read. Here every worker has
//! them in memory: keys that the cache listed, and keys that workers created.

use std::collections::HashMap;

use fastrand::Rng;

use super::journal::Created;

#[derive(Debug, Default)]
pub struct Known {
    numbers: Vec<u64>,
    entries: HashMap<u64, Entry>,
}

/// Known state of a key.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    place: usize,
    /// The newest generation that was acknowledged in this run.
    pub created: Option<Created>,
    /// The last read: fencing number (0: unknown) and fingerprint of the content.
    pub read: Option<(u64, u64)>,
}

impl Known {
    pub fn pick(&self, rng: &mut Rng) -> Option<u64> {
        (!self.numbers.is_empty()).then(|| self.numbers[rng.usize(..self.numbers.len())])
    }

    pub fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        self.entries.get_mut(&number)
    }

    /// Adds an existing entry.
    pub fn learn(&mut self, number: u64) -> &mut Entry {
        let numbers = &mut self.numbers;
        self.entries.entry(number).or_insert_with(|| {
            numbers.push(number);
            Entry { place: numbers.len() - 1, ..Entry::default() }
        })
    }

    /// Adds an acknowledged generation.
    pub fn learn_created(&mut self, created: Created) {
        let entry = self.learn(created.number);
        if entry.created.is_none_or(|known| known.fence < created.fence) {
            entry.created = Some(created);
        }
    }

    /// Removes a missing entry.
    pub fn forget(&mut self, number: u64) {
        if let Some(gone) = self.entries.remove(&number) {
            self.numbers.swap_remove(gone.place);
            if let Some(moved) = self.numbers.get(gone.place) {
                self.entries.get_mut(moved).expect("each number has an entry").place = gone.place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(number: u64, fence: u64) -> Created {
        Created { number, fence, digest: [fence as u8; 16] }
    }

    #[test]
    fn keys_are_known_once_and_forgotten_keys_are_not_picked() {
        let mut known = Known::default();
        let mut rng = Rng::with_seed(5);
        assert_eq!(known.pick(&mut rng), None);
        for number in [1, 2, 3, 2, 1] {
            known.learn(number);
        }
        assert_eq!(known.numbers.len(), 3);
        known.forget(1);
        known.forget(9);
        for _ in 0..100 {
            assert!(matches!(known.pick(&mut rng), Some(2 | 3)));
        }
        known.forget(3);
        known.forget(2);
        assert_eq!((known.numbers.len(), known.pick(&mut rng)), (0, None));
    }

    #[test]
    fn the_newest_generation_is_remembered_in_whatever_order_news_come() {
        let mut known = Known::default();
        known.learn(1).read = Some((4, 44));
        known.learn_created(created(1, 9));
        known.learn_created(created(1, 5));
        let entry = known.entry(1).unwrap();
        assert_eq!((entry.created, entry.read), (Some(created(1, 9)), Some((4, 44))));
    }
}
