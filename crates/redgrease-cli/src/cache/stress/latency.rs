//! Latencies of operations, with a precision of about 1 %.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer times are recorded as this one: about a quarter of an hour, in nanoseconds.
const LONGEST: u64 = (1 << 40) - 1;
/// Significant decimal digits of a time.
const DIGITS: u8 = 2;
/// Number of buckets of a histogram with these bounds.
const COUNTS: usize = 4352;

/// Number of fields of a record: the longest time, then the counts.
pub const WORDS: usize = 1 + COUNTS;

/// Times in nanoseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Latency {
    longest: u64,
    times: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        let times = Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("the bounds are in order");
        Self { longest: 0, times }
    }
}

impl Latency {
    pub fn add(&mut self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.longest = self.longest.max(nanoseconds);
        self.times.saturating_record(nanoseconds);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Latency) {
        self.longest = self.longest.max(other.longest);
        self.times += &other.times;
    }

    pub fn clear(&mut self) {
        self.longest = 0;
        self.times.reset();
    }

    pub fn count(&self) -> u64 {
        self.times.len()
    }

    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.longest)
    }

    /// The time within which this share of the operations ended.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.times.value_at_quantile(share)).min(self.max())
    }

    /// Encodes a record.
    pub fn words(&self) -> Vec<u64> {
        let counts = self.times.iter_all().map(|place| place.count_at_value());
        std::iter::once(self.longest).chain(counts).collect()
    }

    /// Decodes a record; missing fields at its end are 0.
    pub fn from_words(words: &[u64]) -> Self {
        let mut latency = Self::default();
        let Some((longest, counts)) = words.split_first() else { return latency };
        latency.longest = *longest;
        let empty = latency.times.clone();
        for (place, &count) in empty.iter_all().zip(counts).filter(|(_, count)| **count > 0) {
            latency.times.saturating_record_n(place.value_iterated_to(), count);
        }
        latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut latency = Latency::default();
        (1..=1000).for_each(|micros| latency.add(Duration::from_micros(micros)));
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
            let found = latency.quantile(share).as_secs_f64() * 1e6;
            assert!((found / expected - 1.0).abs() < 0.01, "{share}: {found}");
        }
        assert_eq!((latency.max(), latency.count()), (Duration::from_micros(1000), 1000));
        assert_eq!(Latency::default().quantile(0.99), Duration::ZERO);
    }

    #[test]
    fn times_beyond_the_range_are_counted_and_the_longest_is_exact() {
        let mut latency = Latency::default();
        latency.add(Duration::ZERO);
        latency.add(Duration::from_secs(7 * 3600));
        latency.add(Duration::MAX);
        assert_eq!((latency.count(), latency.max()), (3, Duration::from_nanos(u64::MAX)));
        assert!(latency.quantile(0.5) > Duration::from_secs(600));
    }

    #[test]
    fn several_make_one_and_a_record_brings_one_back() {
        let (mut a, mut b) = (Latency::default(), Latency::default());
        a.add(Duration::from_micros(3));
        b.add(Duration::from_secs(3));
        b.add(Duration::MAX);
        a.merge(&b);
        assert_eq!((a.count(), a.max()), (3, Duration::from_nanos(u64::MAX)));
        assert_eq!(a.words().len(), WORDS);
        assert_eq!(Latency::from_words(&a.words()), a);
        assert_eq!(Latency::from_words(&[]), Latency::default());
        a.clear();
        assert_eq!(a, Latency::default());
    }
}
