//! Signals that become due when nothing more was heard of their path for some time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Paths that wait. The time is an argument everywhere: nothing here reads a clock.
#[derive(Debug)]
pub struct Debounce {
    delay: Duration,
    due: HashMap<PathBuf, Instant>,
}

impl Debounce {
    /// Paths wait for this time after their last signal.
    pub fn new(delay: Duration) -> Self {
        Self { delay, due: HashMap::new() }
    }

    /// Something happened to a path: it waits from now on.
    pub fn signal(&mut self, path: PathBuf, now: Instant) {
        self.due.insert(path, now + self.delay);
    }

    /// Something happened to a path: it waits from its first signal on.
    pub fn signal_first(&mut self, path: PathBuf, now: Instant) {
        self.due.entry(path).or_insert(now + self.delay);
    }

    /// When the next path becomes due.
    pub fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// Takes the paths that are due, in order.
    pub fn take(&mut self, now: Instant) -> Vec<PathBuf> {
        let mut due: Vec<PathBuf> = self.due.extract_if(|_, at| *at <= now).map(|(path, _)| path).collect();
        due.sort();
        due
    }

    /// Whether a path waits.
    pub fn waits(&self, path: &Path) -> bool {
        self.due.contains_key(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DELAY: Duration = Duration::from_millis(100);

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_path_is_due_after_the_last_signal() {
        let start = Instant::now();
        let mut debounce = Debounce::new(DELAY);
        debounce.signal("a".into(), start);
        debounce.signal("b".into(), at(start, 20));
        debounce.signal("a".into(), at(start, 50));
        assert_eq!(debounce.next(), Some(at(start, 120)));
        assert!(debounce.take(at(start, 119)).is_empty());
        assert_eq!(debounce.take(at(start, 120)), [PathBuf::from("b")]);
        assert_eq!(debounce.take(at(start, 150)), [PathBuf::from("a")]);
        assert!(debounce.next().is_none());
    }

    #[test]
    fn first_signals_are_not_deferred() {
        let start = Instant::now();
        let mut debounce = Debounce::new(DELAY);
        debounce.signal_first("a".into(), start);
        debounce.signal_first("a".into(), at(start, 99));
        assert!(debounce.waits(Path::new("a")));
        assert_eq!(debounce.take(at(start, 100)), [PathBuf::from("a")]);
        assert!(!debounce.waits(Path::new("a")));
    }

    proptest! {
        #[test]
        fn every_signal_is_followed_by_one_due_path_a_delay_after_the_last(
            signals in proptest::collection::vec((0_usize..4, 0_u64..2000), 1..60)
        ) {
            let mut signals = signals;
            signals.sort_by_key(|(_, ms)| *ms);
            let start = Instant::now();
            let mut debounce = Debounce::new(DELAY);
            let mut taken: Vec<(PathBuf, u64)> = Vec::new();
            let mut expected: Vec<(PathBuf, u64)> = Vec::new();
            for ms in 0..2200 {
                taken.extend(debounce.take(at(start, ms)).into_iter().map(|path| (path, ms)));
                for (path, _) in signals.iter().filter(|(_, when)| *when == ms) {
                    debounce.signal(PathBuf::from(path.to_string()), at(start, ms));
                }
            }
            for (index, (path, ms)) in signals.iter().enumerate() {
                let again = signals[index + 1..].iter().any(|(other, later)| other == path && later - ms < 100);
                if !again {
                    expected.push((PathBuf::from(path.to_string()), ms + 100));
                }
            }
            taken.sort();
            expected.sort();
            prop_assert_eq!(taken, expected);
        }
    }
}
