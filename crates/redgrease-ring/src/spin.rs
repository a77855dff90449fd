//! Polling for a short time, where the other side is about to answer.

use std::time::{Duration, Instant};

/// Polls between two looks at the clock.
const POLLS: u32 = 8;

/// Polls until `is_ready`, at most for so long, and returns whether it was. Between polls the processor core is offered to others,
/// so that two sides that poll on one core hand it to each other.
pub fn spin_until(time: Duration, mut is_ready: impl FnMut() -> bool) -> bool {
    if is_ready() {
        return true;
    }
    if time.is_zero() {
        return false;
    }
    let start = Instant::now();
    loop {
        for _ in 0..POLLS {
            std::hint::spin_loop();
            if is_ready() {
                return true;
            }
        }
        rustix::thread::sched_yield();
        if is_ready() {
            return true;
        }
        if start.elapsed() >= time {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_ready_or_when_the_time_has_passed() {
        assert!(spin_until(Duration::ZERO, || true) && !spin_until(Duration::ZERO, || false));
        let mut polls = 0;
        let ready = spin_until(Duration::from_secs(60), || {
            polls += 1;
            polls == 20
        });
        assert!(ready && polls == 20);
        let start = Instant::now();
        assert!(!spin_until(Duration::from_millis(2), || false));
        assert!(start.elapsed() >= Duration::from_millis(2));
    }
}
