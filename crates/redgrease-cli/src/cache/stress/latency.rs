//! How long operations took: buckets that are each a thirty-second wider than the one before, so that a percentile is
//! right to about 3 %, whatever its size.

use std::time::Duration;

/// Buckets per doubling.
const STEPS: u64 = 32;
const STEP_BITS: u32 = STEPS.ilog2();
/// Longer times fall into the last bucket: about a quarter of an hour.
const VALUE_BITS: u32 = 40;
const BUCKETS: usize = ((VALUE_BITS - STEP_BITS + 1) as u64 * STEPS) as usize;

/// Numbers of a record: the longest time, then the buckets.
pub const WORDS: usize = 1 + BUCKETS;

/// Times in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latency {
    words: Vec<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        Self { words: vec![0; WORDS] }
    }
}

impl Latency {
    pub fn add(&mut self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.words[0] = self.words[0].max(nanoseconds);
        self.words[1 + bucket(nanoseconds)] += 1;
    }

    /// Adds what another one has seen.
    pub fn merge(&mut self, other: &Latency) {
        self.words[0] = self.words[0].max(other.words[0]);
        for (mine, theirs) in self.words[1..].iter_mut().zip(&other.words[1..]) {
            *mine += theirs;
        }
    }

    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    pub fn count(&self) -> u64 {
        self.words[1..].iter().sum()
    }

    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.words[0])
    }

    /// The time within which this share of the operations ended.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = ((self.count() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.words[1..].iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(end(index)).min(self.max());
            }
        }
        self.max()
    }

    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// From a record; what is missing at its end is 0.
    pub fn from_words(words: &[u64]) -> Self {
        let mut all = words[..words.len().min(WORDS)].to_vec();
        all.resize(WORDS, 0);
        Self { words: all }
    }
}

fn bucket(value: u64) -> usize {
    let value = value.min((1 << VALUE_BITS) - 1);
    let shift = (value | STEPS).ilog2() - STEP_BITS;
    (STEPS * u64::from(shift) + (value >> shift)) as usize
}

/// The largest value of a bucket.
fn end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / STEPS).saturating_sub(1);
    ((bucket - STEPS * shift + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_that_ends_little_above_it() {
        let mut value = 0;
        while value < 1 << VALUE_BITS {
            let index = bucket(value);
            assert!(index < BUCKETS);
            let end = end(index);
            assert!(end >= value && end - value <= value / STEPS, "{value} in {index}, which ends at {end}");
            value += 1 + value / 77;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut latency = Latency::default();
        (1..=1000).for_each(|micros| latency.add(Duration::from_micros(micros)));
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0)] {
            let found = latency.quantile(share).as_secs_f64() * 1e6;
            assert!((found / expected - 1.0).abs() < 0.04, "{share}: {found}");
        }
        assert_eq!((latency.max(), latency.count()), (Duration::from_micros(1000), 1000));
        assert_eq!(Latency::default().quantile(0.99), Duration::ZERO);
    }

    #[test]
    fn several_make_one_and_a_record_brings_one_back() {
        let (mut a, mut b) = (Latency::default(), Latency::default());
        a.add(Duration::from_micros(3));
        b.add(Duration::from_secs(3));
        a.merge(&b);
        assert_eq!((a.count(), a.max()), (2, Duration::from_secs(3)));
        assert_eq!(Latency::from_words(a.words()), a);
        assert_eq!(Latency::from_words(&[]), Latency::default());
    }
}
