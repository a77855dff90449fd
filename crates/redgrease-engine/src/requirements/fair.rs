//! A bounded queue that is fair between users: they take turns, each with its oldest item.

use alloc::borrow::ToOwned;
use alloc::collections::VecDeque;
use alloc::string::String;

/// The queue.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// Users with items, the next one to serve first.
    users: VecDeque<(String, VecDeque<T>)>,
    len: usize,
    max: usize,
}

impl<T> FairQueue<T> {
    /// An empty queue for at most `max` items.
    #[must_use]
    pub fn new(max: usize) -> FairQueue<T> {
        FairQueue { users: VecDeque::new(), len: 0, max }
    }

    /// Adds an item of a user; `false` when the queue is full.
    pub fn push(&mut self, user: &str, item: T) -> bool {
        if self.len >= self.max {
            return false;
        }
        self.len += 1;
        match self.users.iter_mut().find(|(name, _)| name == user) {
            Some((_, items)) => items.push_back(item),
            None => self.users.push_back((user.to_owned(), VecDeque::from([item]))),
        }
        true
    }

    /// Takes the oldest item of the user whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let (user, mut items) = self.users.pop_front()?;
        let item = items.pop_front();
        if !items.is_empty() {
            self.users.push_back((user, items));
        }
        self.len -= usize::from(item.is_some());
        item
    }

    /// Takes out all items that are not `wanted`; returns their number.
    pub fn retain(&mut self, wanted: impl Fn(&T) -> bool) -> usize {
        let before = self.len;
        for (_, items) in &mut self.users {
            items.retain(&wanted);
        }
        self.users.retain(|(_, items)| !items.is_empty());
        self.len = self.users.iter().map(|(_, items)| items.len()).sum();
        before - self.len
    }

    /// All items.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.users.iter().flat_map(|(_, items)| items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn users_take_turns_whatever_the_number_of_their_items() {
        let mut queue = FairQueue::new(10);
        for item in 0..4 {
            assert!(queue.push("a", item));
        }
        assert!(queue.push("b", 10) && queue.push("b", 11));
        let order: Vec<_> = core::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [0, 10, 1, 11, 2, 3]);
    }

    #[test]
    fn a_full_queue_refuses_and_what_is_taken_out_frees_space() {
        let mut queue = FairQueue::new(2);
        assert!(queue.push("a", 1) && queue.push("b", 2));
        assert!(!queue.push("c", 3));
        assert_eq!(queue.retain(|item| *item != 1), 1);
        assert!(queue.push("c", 3));
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(2), Some(3), None));
    }
}
