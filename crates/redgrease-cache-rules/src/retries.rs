//! How long a request is repeated if its index is lost repeatedly.

use core::time::Duration;

/// Losses that a request survives regardless of its deadline: a restart, a failover or a flush causes one or two of them,
/// and an index must be rebuilt also by a caller that does not wait.
pub const FREE_LOSSES: u32 = 2;

/// The first pause, doubled with each loss, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// Counts the losses during one request, and decides when to stop.
///
/// ```
/// use std::time::Duration;
/// use redgrease_cache_rules::retries::Retries;
///
/// let mut retries = Retries::until(Duration::from_secs(3));
/// assert_eq!(retries.lost(Duration::ZERO), Some(Duration::ZERO));
/// assert_eq!(retries.lost(Duration::ZERO), Some(Duration::from_millis(20)));
/// assert_eq!(retries.lost(Duration::from_secs(3)), None);
/// ```
#[derive(Debug, Clone)]
pub struct Retries {
    until: Duration,
    losses: u32,
}

impl Retries {
    /// For a request whose caller waits until this time of its clock.
    pub fn until(until: Duration) -> Self {
        Self { until, losses: 0 }
    }

    /// Records a loss at the time `now`; returns the pause before the next attempt, or `None` after the deadline.
    pub fn lost(&mut self, now: Duration) -> Option<Duration> {
        self.losses = self.losses.saturating_add(1);
        if self.losses == 1 {
            return Some(Duration::ZERO);
        }
        let (first, longest) = PAUSES;
        let pause = (first * (1 << (self.losses - 1).min(8))).min(longest);
        match self.deadline() {
            None => Some(pause),
            Some(until) => until.checked_sub(now).filter(|left| !left.is_zero()).map(|left| left.min(pause)),
        }
    }

    /// Number of losses.
    pub fn losses(&self) -> u32 {
        self.losses
    }

    /// The time at which the request ends; `None` as long as it is repeated regardless of the time.
    pub fn deadline(&self) -> Option<Duration> {
        (self.losses > FREE_LOSSES).then_some(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_counts_from_the_third_loss_on() {
        for until in [Duration::ZERO, Duration::from_secs(1)] {
            let mut retries = Retries::until(until);
            let late = Duration::from_secs(7);
            assert_eq!(retries.lost(late), Some(Duration::ZERO));
            assert!(retries.lost(late).is_some_and(|pause| !pause.is_zero()));
            assert_eq!((retries.deadline(), retries.lost(late)), (None, None));
            assert_eq!((retries.deadline(), retries.losses()), (Some(until), 3));
        }
    }

    #[test]
    fn pauses_grow_have_a_bound_and_end_at_the_deadline() {
        let until = Duration::from_secs(3);
        let (mut retries, mut now, mut tries) = (Retries::until(until), Duration::ZERO, 0);
        let mut last = Duration::ZERO;
        while let Some(pause) = retries.lost(now) {
            assert!(pause <= PAUSES.1 && (pause >= last || now + pause == until), "{pause:?} at {now:?}");
            (last, now, tries) = (pause, now + pause, tries + 1);
        }
        assert_eq!(now, until);
        assert!((10..30).contains(&tries), "{tries} tries in {until:?}");
        assert_eq!(Retries { until: Duration::MAX, losses: u32::MAX }.lost(now), Some(PAUSES.1));
    }
}
