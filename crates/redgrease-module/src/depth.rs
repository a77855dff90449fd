//! Nesting counters, held by guards so that a panic leaves the count correct.

use std::cell::Cell;

/// Number of activities that have begun and not ended.
#[derive(Default)]
pub struct Depth(Cell<u32>);

/// An activity that has begun; it ends when this is dropped.
#[must_use]
pub struct Inside<'a>(&'a Cell<u32>);

impl Depth {
    /// Begins an activity.
    pub fn enter(&self) -> Inside<'_> {
        self.0.set(self.0.get() + 1);
        Inside(&self.0)
    }

    /// Whether an activity is in progress.
    pub fn is_inside(&self) -> bool {
        self.0.get() > 0
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_the_depth_as_it_was() {
        let depth = Depth::default();
        let outer = depth.enter();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _inner = depth.enter();
            panic!("injected");
        }));
        assert!(panicked.is_err() && depth.is_inside());
        drop(outer);
        assert!(!depth.is_inside());
    }
}
