//! Polling for a short time where the other side owes an answer: it costs less than to sleep and to be woken.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::time::Duration;

use redgrease_ring::spin_until;

/// How long to poll, and how often it paid.
#[derive(Debug)]
pub struct Spin {
    time: Duration,
    hits: Cell<u64>,
    misses: Cell<u64>,
}

impl Spin {
    /// Polls for so long; not at all where the processors may be used for less than the time of two cores, which polling would
    /// take from others.
    pub fn new(time: Duration) -> Spin {
        let is_short_of_time = processor_quota(Path::new("/")).is_some_and(|cores| cores < 2.0);
        Spin { time: if is_short_of_time { Duration::ZERO } else { time }, hits: Cell::new(0), misses: Cell::new(0) }
    }

    /// How long it polls; zero: not at all.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// Polls until `is_ready`, at most for `limit`, and returns whether it was.
    pub fn until(&self, limit: Duration, is_ready: impl FnMut() -> bool) -> bool {
        let time = self.time.min(limit);
        if time.is_zero() {
            return false;
        }
        let found = spin_until(time, is_ready);
        let count = if found { &self.hits } else { &self.misses };
        count.set(count.get() + 1);
        found
    }

    /// How often polling found something, and how often it did not.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }
}

/// The processor time per time that this process may use, in cores, by the control groups (version 2) that it is in; `None`: no
/// limit is known.
fn processor_quota(root: &Path) -> Option<f64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = root.join("sys/fs/cgroup");
    let directory = mount.join(group);
    let limits = directory.ancestors().take_while(|directory| directory.starts_with(&mount));
    limits.filter_map(|directory| quota(&fs::read_to_string(directory.join("cpu.max")).ok()?)).reduce(f64::min)
}

/// Reads `QUOTA PERIOD` (microseconds) of a file cpu.max; `max` is no limit.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?);
    (period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_quota_of_all_groups_counts() {
        let root = std::env::temp_dir().join(format!("redgrease-spin-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(processor_quota(&root), None);
        write("proc/self/cgroup", "1:cpu:/x\n0::/outer/inner\n");
        assert_eq!(processor_quota(&root), None);
        write("sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n");
        assert_eq!(processor_quota(&root), None);
        write("sys/fs/cgroup/outer/cpu.max", "150000 100000\n");
        write("sys/fs/cgroup/cpu.max", "400000 100000\n");
        assert_eq!(processor_quota(&root), Some(1.5));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn nonsense_is_no_quota() {
        for text in ["", "max 100000", "5", "1 0", "x y"] {
            assert_eq!(quota(text), None, "{text}");
        }
    }

    #[test]
    fn hits_and_misses_are_counted_and_zero_does_not_poll() {
        let spin = Spin { time: Duration::from_micros(10), hits: Cell::new(0), misses: Cell::new(0) };
        assert!(spin.until(Duration::MAX, || true) && !spin.until(Duration::MAX, || false));
        assert!(!spin.until(Duration::ZERO, || true));
        assert_eq!(spin.counts(), (1, 1));
    }
}
