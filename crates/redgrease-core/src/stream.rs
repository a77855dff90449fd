//! When a stream registration reads, and what happens after each run.
//!
//! One run is in flight per stream. The first run of a stream reads what had been delivered and never acknowledged
//! (the *pending run*); the following ones read up to `batch` new entries. See spec `RDR-STREAM-14` to `-40`.

use std::collections::HashMap;

use crate::plan::FailurePolicy;

/// What the registration is doing as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStatus {
    /// Reads as entries come.
    Ok,
    /// A batch failed; it will be read again.
    WaitingForRetry,
    /// A batch failed under policy `abort`.
    Aborted,
    /// Paused by its own function.
    Paused,
}

impl StreamStatus {
    /// The name in dumps.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            StreamStatus::Ok => "OK",
            StreamStatus::WaitingForRetry => "WAITING_FOR_RETRY_ON_FAILURE",
            StreamStatus::Aborted => "ABORTED",
            StreamStatus::Paused => "PAUSED",
        }
    }
}

/// How a run reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// All entries delivered before and not acknowledged.
    Pending,
    /// Up to so many new entries.
    Batch(u64),
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read and run.
    Run {
        /// The stream.
        stream: Vec<u8>,
        /// How to read.
        kind: RunKind,
        /// To be given back with the end.
        epoch: u64,
    },
    /// Call [`StreamRuns::timer`] then.
    Timer {
        /// The stream.
        stream: Vec<u8>,
        /// When, in milliseconds.
        at_ms: u64,
        /// To be given back.
        epoch: u64,
    },
    /// Call [`StreamRuns::retry`] then, and look for streams again.
    Rescan {
        /// When, in milliseconds.
        at_ms: u64,
        /// To be given back.
        epoch: u64,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Without error.
    Success,
    /// With an error.
    Failure,
    /// With an error whose text begins with `PAUSE`.
    Pause,
    /// Aborted before it began.
    Aborted,
}

/// What to do with the entries of a run that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledge them (and remove them, if trimming is on).
    pub acknowledge: bool,
    /// Time since the first entry of the batch arrived, in milliseconds, where it is known.
    pub lag_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct Stream {
    /// Estimate of entries not yet read.
    outstanding: u64,
    running: Option<RunKind>,
    /// Entries were there before we looked: read on until a read comes back short.
    backlog: bool,
    arrived_while_running: bool,
    /// Arrival of the first entry that is not in a run.
    first_arrival_ms: Option<u64>,
    /// Arrival of the first entry of the running batch.
    running_arrival_ms: Option<u64>,
    timer_at_ms: Option<u64>,
}

/// All streams of one registration.
#[derive(Debug)]
pub struct StreamRuns {
    batch: u64,
    duration_ms: u64,
    policy: FailurePolicy,
    retry_interval_ms: u64,
    status: StreamStatus,
    epoch: u64,
    streams: HashMap<Vec<u8>, Stream>,
}

impl StreamRuns {
    /// A registration that has seen no stream yet.
    #[must_use]
    pub fn new(batch: u64, duration_ms: u64, policy: FailurePolicy, retry_interval_s: u64) -> StreamRuns {
        StreamRuns {
            batch: batch.max(1),
            duration_ms,
            policy,
            retry_interval_ms: retry_interval_s.saturating_mul(1000),
            status: StreamStatus::Ok,
            epoch: 0,
            streams: HashMap::new(),
        }
    }

    /// What the registration is doing.
    #[must_use]
    pub fn status(&self) -> StreamStatus {
        self.status
    }

    /// Whether a stream is followed already.
    #[must_use]
    pub fn knows(&self, stream: &[u8]) -> bool {
        self.streams.contains_key(stream)
    }

    /// A stream was found by a scan, or by its first entry; `len` entries are in it.
    pub fn found(&mut self, stream: &[u8], len: u64, by_entry: bool, now_ms: u64) -> Option<Action> {
        if self.status != StreamStatus::Ok || self.knows(stream) {
            return None;
        }
        let state = Stream {
            outstanding: len,
            running: Some(RunKind::Pending),
            backlog: len > u64::from(by_entry),
            first_arrival_ms: by_entry.then_some(now_ms),
            ..Stream::default()
        };
        self.streams.insert(stream.to_vec(), state);
        Some(Action::Run { stream: stream.to_vec(), kind: RunKind::Pending, epoch: self.epoch })
    }

    /// An entry was added to a stream that is known.
    pub fn entry(&mut self, stream: &[u8], now_ms: u64) -> Option<Action> {
        if self.status != StreamStatus::Ok {
            return None;
        }
        let state = self.streams.get_mut(stream)?;
        state.outstanding += 1;
        state.first_arrival_ms.get_or_insert(now_ms);
        if state.running.is_some() {
            state.arrived_while_running = true;
            return None;
        }
        self.next_run(stream, now_ms)
    }

    /// The time asked for in [`Action::Timer`] has come.
    pub fn timer(&mut self, stream: &[u8], epoch: u64, now_ms: u64) -> Option<Action> {
        if epoch != self.epoch {
            return None;
        }
        let state = self.streams.get_mut(stream)?;
        state.timer_at_ms = None;
        if state.running.is_some() {
            return None;
        }
        self.next_run(stream, now_ms)
    }

    /// A run ended; `read` entries were in it.
    pub fn ended(&mut self, stream: &[u8], epoch: u64, end: End, read: u64, now_ms: u64) -> (Verdict, Option<Action>) {
        let keep = Verdict { acknowledge: false, lag_ms: None };
        if epoch != self.epoch {
            return (keep, None);
        }
        let Some(state) = self.streams.get_mut(stream) else { return (keep, None) };
        let kind = state.running.take();
        let lag_ms = state.running_arrival_ms.take().map(|arrival| now_ms.saturating_sub(arrival));
        let failed = match (end, self.policy) {
            (End::Pause, _) => Some(StreamStatus::Paused),
            (End::Aborted, _) | (End::Failure, FailurePolicy::Abort) => Some(StreamStatus::Aborted),
            (End::Failure, FailurePolicy::Retry) => Some(StreamStatus::WaitingForRetry),
            (End::Success, _) | (End::Failure, FailurePolicy::Continue) => None,
        };
        if let Some(status) = failed {
            self.stop(status);
            let rescan = (status == StreamStatus::WaitingForRetry)
                .then(|| Action::Rescan { at_ms: now_ms + self.retry_interval_ms, epoch: self.epoch });
            return (Verdict { acknowledge: false, lag_ms }, rescan);
        }
        state.outstanding = state.outstanding.saturating_sub(read);
        if let Some(RunKind::Batch(asked)) = kind {
            if read < asked {
                state.backlog = false;
            }
            if read == 0 && !state.arrived_while_running {
                state.outstanding = 0;
            }
        }
        state.arrived_while_running = false;
        if state.outstanding == 0 {
            state.first_arrival_ms = None;
        }
        (Verdict { acknowledge: true, lag_ms }, self.next_run(stream, now_ms))
    }

    /// The time asked for in [`Action::Rescan`] has come; returns whether to look for streams now.
    pub fn retry(&mut self, epoch: u64) -> bool {
        let due = epoch == self.epoch && self.status == StreamStatus::WaitingForRetry;
        if due {
            self.status = StreamStatus::Ok;
        }
        due
    }

    /// Forgets all streams and is in order again: the next scan or entry begins anew.
    pub fn reset(&mut self) {
        self.stop(StreamStatus::Ok);
    }

    /// The streams may be others under the same names: they are looked for again, unless a failure or the function
    /// itself stopped the registration.
    pub fn reset_if_ok(&mut self) {
        if matches!(self.status, StreamStatus::Ok | StreamStatus::WaitingForRetry) {
            self.reset();
        }
    }

    fn stop(&mut self, status: StreamStatus) {
        self.status = status;
        self.epoch += 1;
        self.streams.clear();
    }

    fn next_run(&mut self, stream: &[u8], now_ms: u64) -> Option<Action> {
        let epoch = self.epoch;
        let state = self.streams.get_mut(stream)?;
        if state.outstanding == 0 {
            return None;
        }
        let due_ms =
            (self.duration_ms > 0).then(|| state.first_arrival_ms.unwrap_or(now_ms).saturating_add(self.duration_ms));
        if state.outstanding >= self.batch || state.backlog || due_ms.is_some_and(|due| due <= now_ms) {
            state.running = Some(RunKind::Batch(self.batch));
            state.running_arrival_ms = state.first_arrival_ms.take();
            if state.outstanding > self.batch {
                state.first_arrival_ms = Some(now_ms);
            }
            state.timer_at_ms = None;
            let kind = RunKind::Batch(self.batch);
            return Some(Action::Run { stream: stream.to_vec(), kind, epoch });
        }
        let at_ms = due_ms?;
        if state.timer_at_ms.is_some() {
            return None;
        }
        state.timer_at_ms = Some(at_ms);
        Some(Action::Timer { stream: stream.to_vec(), at_ms, epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: &[u8] = b"s";

    fn runs(batch: u64, duration_ms: u64, policy: FailurePolicy) -> StreamRuns {
        StreamRuns::new(batch, duration_ms, policy, 1)
    }

    fn run(kind: RunKind, epoch: u64) -> Option<Action> {
        Some(Action::Run { stream: S.to_vec(), kind, epoch })
    }

    #[test]
    fn the_first_entry_makes_a_pending_run_and_then_a_batch() {
        let mut runs = runs(1, 0, FailurePolicy::Continue);
        assert_eq!(runs.found(S, 1, true, 5), run(RunKind::Pending, 0));
        let (verdict, next) = runs.ended(S, 0, End::Success, 0, 6);
        assert!(verdict.acknowledge);
        assert_eq!((verdict.lag_ms, next), (None, run(RunKind::Batch(1), 0)));
        let (verdict, next) = runs.ended(S, 0, End::Success, 1, 9);
        assert_eq!((verdict.lag_ms, next), (Some(4), None));
    }

    #[test]
    fn a_batch_waits_until_it_is_full_or_its_time_has_come() {
        let mut runs = runs(3, 100, FailurePolicy::Continue);
        runs.found(S, 1, true, 0);
        let (_, next) = runs.ended(S, 0, End::Success, 0, 1);
        assert_eq!(next, Some(Action::Timer { stream: S.to_vec(), at_ms: 100, epoch: 0 }));
        assert_eq!(runs.entry(S, 50), None);
        assert_eq!(runs.timer(S, 0, 100), run(RunKind::Batch(3), 0));
        let (_, next) = runs.ended(S, 0, End::Success, 2, 101);
        assert_eq!(next, None);
        for now in 200..202 {
            assert!(matches!(runs.entry(S, now), None | Some(Action::Timer { .. })));
        }
        assert_eq!(runs.entry(S, 202), run(RunKind::Batch(3), 0));
    }

    #[test]
    fn one_run_is_in_flight_and_what_came_meanwhile_is_read_next() {
        let mut runs = runs(1, 0, FailurePolicy::Continue);
        runs.found(S, 1, true, 0);
        runs.ended(S, 0, End::Success, 0, 0);
        assert_eq!(runs.entry(S, 1), None);
        let (_, next) = runs.ended(S, 0, End::Success, 1, 2);
        assert_eq!(next, run(RunKind::Batch(1), 0));
    }

    #[test]
    fn entries_from_before_the_registration_are_read_even_below_a_full_batch() {
        let mut runs = runs(10, 0, FailurePolicy::Continue);
        runs.found(S, 4, false, 0);
        let (_, next) = runs.ended(S, 0, End::Success, 0, 0);
        assert_eq!(next, run(RunKind::Batch(10), 0));
        let (_, next) = runs.ended(S, 0, End::Success, 4, 0);
        assert_eq!(next, None);
        assert_eq!(runs.entry(S, 1), None);
    }

    #[test]
    fn a_read_that_finds_nothing_does_not_start_another() {
        let mut runs = runs(1, 0, FailurePolicy::Continue);
        runs.found(S, 5, false, 0);
        runs.ended(S, 0, End::Success, 0, 0);
        let (_, next) = runs.ended(S, 0, End::Success, 0, 0);
        assert_eq!(next, None);
    }

    #[test]
    fn each_policy_decides_what_a_failure_means() {
        let fail = |policy, end| {
            let mut runs = runs(1, 0, policy);
            runs.found(S, 1, true, 0);
            runs.ended(S, 0, End::Success, 0, 0);
            let (verdict, next) = runs.ended(S, 0, end, 1, 10);
            (verdict.acknowledge, next, runs.status())
        };
        let rescan = Some(Action::Rescan { at_ms: 1010, epoch: 1 });
        assert_eq!(fail(FailurePolicy::Continue, End::Failure), (true, None, StreamStatus::Ok));
        assert_eq!(fail(FailurePolicy::Abort, End::Failure), (false, None, StreamStatus::Aborted));
        assert_eq!(fail(FailurePolicy::Retry, End::Failure), (false, rescan, StreamStatus::WaitingForRetry));
        assert_eq!(fail(FailurePolicy::Continue, End::Pause), (false, None, StreamStatus::Paused));
    }

    #[test]
    fn streams_that_may_be_others_are_looked_for_again_unless_the_registration_was_stopped() {
        let mut following = runs(1, 0, FailurePolicy::Abort);
        following.found(S, 1, true, 0);
        following.reset_if_ok();
        assert!(!following.knows(S));
        assert_eq!(following.ended(S, 0, End::Success, 1, 1).1, None);
        assert_eq!(following.found(S, 1, false, 2), run(RunKind::Pending, 1));
        following.ended(S, 1, End::Failure, 1, 3);
        following.reset_if_ok();
        assert_eq!(following.status(), StreamStatus::Aborted);
        assert_eq!(following.found(S, 1, false, 4), None);
    }

    #[test]
    fn a_retry_begins_with_the_pending_entries_and_late_ends_are_ignored() {
        let mut runs = runs(1, 0, FailurePolicy::Retry);
        runs.found(S, 1, true, 0);
        runs.ended(S, 0, End::Success, 0, 0);
        runs.ended(S, 0, End::Failure, 1, 0);
        assert_eq!(runs.entry(S, 1), None);
        assert!(!runs.retry(0));
        assert!(runs.retry(1));
        assert_eq!(runs.found(S, 1, false, 2), run(RunKind::Pending, 1));
        let (verdict, next) = runs.ended(S, 0, End::Success, 1, 3);
        assert_eq!((verdict.acknowledge, next), (false, None));
    }
}
