//! Decides when a stream registration reads, and what follows each run.
//!
//! One run is in flight per stream. The first run of a stream reads what had been delivered and never acknowledged
//! (the *pending run*); the following ones read up to `batch` new entries.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use redgrease_core::plan::FailurePolicy;

/// Number of an entry of a stream, as the server orders them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Milliseconds.
    pub ms: u64,
    /// Number within the millisecond.
    pub seq: u64,
}

impl EntryId {
    /// Parses `<ms>-<seq>`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<EntryId> {
        let (ms, seq) = core::str::from_utf8(text).ok()?.split_once('-')?;
        Some(EntryId { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// What a consumer group has done with a range of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupProgress {
    /// The last entry that was delivered.
    pub last_delivered: EntryId,
    /// Entries of the range that were delivered and not acknowledged.
    pub pending: Vec<EntryId>,
}

/// The entries of `ids` that every group has acknowledged; a group that does not exist yet (`None`) has acknowledged
/// nothing.
#[must_use]
pub fn acknowledged_by_all(ids: &[EntryId], groups: &[Option<GroupProgress>]) -> Vec<EntryId> {
    let by = |group: &Option<GroupProgress>, id: &EntryId| {
        group.as_ref().is_some_and(|group| *id <= group.last_delivered && !group.pending.contains(id))
    };
    ids.iter().filter(|id| groups.iter().all(|group| by(group, id))).copied().collect()
}

/// The status of the registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStatus {
    /// Reads entries as they arrive.
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

/// What a run reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// All entries delivered before and not acknowledged.
    Pending,
    /// Up to this many new entries.
    Batch(u64),
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read and run.
    Run {
        /// The stream.
        stream: Vec<u8>,
        /// What to read.
        kind: RunKind,
        /// Identifies the run at its end.
        epoch: u64,
    },
    /// Call [`StreamRuns::timer`] then.
    Timer {
        /// The stream.
        stream: Vec<u8>,
        /// When, in milliseconds.
        at_ms: u64,
        /// Identifies the timer.
        epoch: u64,
    },
    /// Call [`StreamRuns::retry`] then, and search for streams again.
    Rescan {
        /// When, in milliseconds.
        at_ms: u64,
        /// Identifies the retry.
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

/// The entries of a stream after those that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The read was not short, and the rest was not counted.
    Unknown,
    /// This many entries.
    Exactly(u64),
    /// At least this many entries.
    AtLeast(u64),
}

#[derive(Debug, Default)]
struct Stream {
    /// Estimate of entries not yet read.
    outstanding: u64,
    running: Option<RunKind>,
    /// Entries existed before the search: read until a read comes back short.
    backlog: bool,
    arrived_while_running: bool,
    /// The run has read entries; for a batch, [`StreamRuns::read`] has corrected the estimate.
    has_read: bool,
    /// The stream was replaced during the run: begin again with pending entries.
    replaced: bool,
    /// The run had read entries before: they were lost with the old stream.
    read_is_gone: bool,
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
    streams: BTreeMap<Vec<u8>, Stream>,
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
            streams: BTreeMap::new(),
        }
    }

    /// The status of the registration.
    #[must_use]
    pub fn status(&self) -> StreamStatus {
        self.status
    }

    /// Whether a stream is already followed.
    #[must_use]
    pub fn knows(&self, stream: &[u8]) -> bool {
        self.streams.contains_key(stream)
    }

    /// A stream was found by a search, or by its first entry; it has `len` entries.
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

    /// A stream replaced a key (by `RENAME`, `RESTORE`, `COPY` or `MOVE`); it has `len` entries.
    pub fn replaced(&mut self, stream: &[u8], len: u64, now_ms: u64) -> Option<Action> {
        if self.status != StreamStatus::Ok {
            return None;
        }
        if let Some(state) = self.streams.get_mut(stream)
            && state.running.is_some()
        {
            state.replaced = true;
            state.read_is_gone = state.has_read;
            state.outstanding = len;
            return None;
        }
        self.streams.remove(stream);
        self.found(stream, len, false, now_ms)
    }

    /// How many entries to count after a batch that read `read` entries, for [`Left`]; `None` if the estimate says
    /// that another batch follows anyway.
    #[must_use]
    pub fn look_ahead(&self, stream: &[u8], read: u64) -> Option<u64> {
        let estimate = self.streams.get(stream).map_or(0, |state| state.outstanding.saturating_sub(read));
        (estimate < self.batch).then_some(self.batch)
    }

    /// The run has read `read` entries. Entries that were added since the run was decided may be among them, and keys may
    /// have been replaced, so what is `left` corrects the estimate. May be called several times for a batch that is read
    /// in parts.
    pub fn read(&mut self, stream: &[u8], epoch: u64, read: u64, left: Left) {
        let current = epoch == self.epoch;
        let Some(state) = self.streams.get_mut(stream).filter(|state| current && state.running.is_some()) else {
            return;
        };
        state.has_read = true;
        if state.replaced || state.running == Some(RunKind::Pending) {
            return;
        }
        state.outstanding = state.outstanding.saturating_sub(read);
        let at_least = match left {
            Left::Unknown => 1,
            Left::Exactly(count) | Left::AtLeast(count) => count,
        };
        if at_least > state.outstanding {
            // More than was known: treated like a stream that was just found.
            state.outstanding = at_least;
            state.backlog = true;
        }
        if let Left::Exactly(count) = left {
            state.outstanding = count;
        }
        if state.outstanding == 0 {
            state.backlog = false;
            state.first_arrival_ms = None;
        }
    }

    /// An entry was added to a known stream.
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

    /// The time of [`Action::Timer`] has come.
    pub fn timer(&mut self, stream: &[u8], epoch: u64, now_ms: u64) -> Option<Action> {
        if epoch != self.epoch {
            return None;
        }
        let state = self.streams.get_mut(stream)?;
        state.timer_at_ms = None;
        if state.running.is_some() || self.status != StreamStatus::Ok {
            return None;
        }
        self.next_run(stream, now_ms)
    }

    /// A run ended; it had `read` entries.
    pub fn ended(&mut self, stream: &[u8], epoch: u64, end: End, read: u64, now_ms: u64) -> (Verdict, Option<Action>) {
        let keep = Verdict { acknowledge: false, lag_ms: None };
        if epoch != self.epoch {
            return (keep, None);
        }
        let Some(state) = self.streams.get_mut(stream) else { return (keep, None) };
        let kind = state.running.take();
        if end == End::Aborted && self.status == StreamStatus::Paused {
            // It was paused before the run began.
            return (keep, None);
        }
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
                .then(|| Action::Rescan { at_ms: now_ms.saturating_add(self.retry_interval_ms), epoch: self.epoch });
            return (Verdict { acknowledge: false, lag_ms }, rescan);
        }
        if state.replaced {
            let (len, acknowledge) = (state.outstanding, !state.read_is_gone);
            self.streams.remove(stream);
            return (Verdict { acknowledge, lag_ms }, self.found(stream, len, false, now_ms));
        }
        if core::mem::take(&mut state.has_read) && kind != Some(RunKind::Pending) {
            // The estimate was corrected when it was read.
        } else if let Some(RunKind::Batch(asked)) = kind {
            state.outstanding = state.outstanding.saturating_sub(read);
            if read < asked {
                state.backlog = false;
            }
            if read == 0 && !state.arrived_while_running {
                state.outstanding = 0;
            }
        } else {
            state.outstanding = state.outstanding.saturating_sub(read);
        }
        state.arrived_while_running = false;
        if state.outstanding == 0 {
            state.first_arrival_ms = None;
        }
        let next = if self.status == StreamStatus::Ok { self.next_run(stream, now_ms) } else { None };
        (Verdict { acknowledge: true, lag_ms }, next)
    }

    /// The time of [`Action::Rescan`] has come; returns whether to search for streams now.
    pub fn retry(&mut self, epoch: u64) -> bool {
        let due = epoch == self.epoch && self.status == StreamStatus::WaitingForRetry;
        if due {
            self.status = StreamStatus::Ok;
        }
        due
    }

    /// Pauses the registration: runs in flight end, and are acknowledged; no further one begins. One that a failure stopped
    /// stays as it is.
    pub fn pause(&mut self) {
        if matches!(self.status, StreamStatus::Ok | StreamStatus::WaitingForRetry) {
            self.status = StreamStatus::Paused;
        }
    }

    /// Forgets all streams and resets the status: the next search or entry starts again.
    pub fn reset(&mut self) {
        self.stop(StreamStatus::Ok);
    }

    /// The streams may be different ones with the same names: they are searched for again, unless a failure or the function
    /// itself stopped the registration.
    pub fn reset_if_ok(&mut self) {
        if matches!(self.status, StreamStatus::Ok | StreamStatus::WaitingForRetry) {
            self.reset();
        }
    }

    /// The streams over which a run is in flight.
    #[cfg(feature = "simulation")]
    pub(crate) fn running(&self) -> impl Iterator<Item = &[u8]> {
        self.streams.iter().filter(|(_, state)| state.running.is_some()).map(|(stream, _)| stream.as_slice())
    }

    /// Whether a run was decided since the last search for streams.
    pub(crate) fn is_current(&self, epoch: u64) -> bool {
        epoch == self.epoch
    }

    /// Distinguishes its runs from those before it was last stopped.
    #[cfg(feature = "simulation")]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
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
    use alloc::string::ToString;
    use proptest::prelude::*;

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
    fn a_batch_that_leaves_entries_behind_is_followed_by_another_whatever_was_estimated() {
        let mut runs = runs(2, 0, FailurePolicy::Continue);
        runs.found(S, 1, true, 0);
        runs.ended(S, 0, End::Success, 0, 0);
        assert_eq!(runs.entry(S, 1), run(RunKind::Batch(2), 0));
        runs.read(S, 0, 2, Left::AtLeast(2));
        let (_, next) = runs.ended(S, 0, End::Success, 2, 2);
        assert_eq!(next, run(RunKind::Batch(2), 0));
        runs.read(S, 0, 1, Left::Exactly(0));
        let (_, next) = runs.ended(S, 0, End::Success, 1, 3);
        assert_eq!(next, None);
    }

    #[test]
    fn what_arrives_between_the_read_and_the_end_of_a_batch_is_not_forgotten() {
        let mut runs = runs(1, 0, FailurePolicy::Continue);
        runs.found(S, 1, true, 0);
        runs.ended(S, 0, End::Success, 0, 0);
        runs.read(S, 0, 1, Left::Exactly(0));
        assert_eq!(runs.entry(S, 1), None);
        let (_, next) = runs.ended(S, 0, End::Success, 1, 2);
        assert_eq!(next, run(RunKind::Batch(1), 0));
    }

    #[test]
    fn a_batch_that_is_read_in_parts_is_one_run() {
        let mut runs = runs(300, 0, FailurePolicy::Continue);
        runs.found(S, 301, false, 0);
        runs.ended(S, 0, End::Success, 0, 0);
        for _ in 0..3 {
            runs.read(S, 0, 100, Left::Unknown);
        }
        let (_, next) = runs.ended(S, 0, End::Success, 300, 2);
        assert_eq!(next, run(RunKind::Batch(300), 0));
    }

    #[test]
    fn a_stream_that_was_replaced_begins_with_its_pending_entries() {
        let mut runs = runs(1, 0, FailurePolicy::Continue);
        runs.found(S, 1, true, 0);
        runs.ended(S, 0, End::Success, 0, 0);
        runs.read(S, 0, 1, Left::Exactly(0));
        // During a run: its entries were lost, and nothing of it is acknowledged in the new stream.
        assert_eq!(runs.replaced(S, 3, 1), None);
        let (verdict, next) = runs.ended(S, 0, End::Success, 1, 2);
        assert_eq!((verdict.acknowledge, next), (false, run(RunKind::Pending, 0)));
        runs.ended(S, 0, End::Success, 0, 3);
        runs.read(S, 0, 1, Left::Exactly(0));
        runs.ended(S, 0, End::Success, 1, 3);
        // Between two runs.
        assert_eq!(runs.replaced(S, 3, 4), run(RunKind::Pending, 0));
        let (_, next) = runs.ended(S, 0, End::Success, 0, 5);
        assert_eq!(next, run(RunKind::Batch(1), 0));
        // An unknown stream.
        assert!(matches!(runs.replaced(b"t", 3, 4), Some(Action::Run { kind: RunKind::Pending, .. })));
    }

    #[test]
    fn ids_of_entries_are_ordered_as_the_server_orders_them() {
        let id = |text: &str| EntryId::parse(text.as_bytes());
        assert!(id("9-5") < id("10-0") && id("10-0") < id("10-1"));
        assert_eq!(id("18446744073709551615-3").map(|id| id.to_string()).as_deref(), Some("18446744073709551615-3"));
        for text in ["", "-", "1", "1-", "x-1", "1-1-1"] {
            assert_eq!(id(text), None, "{text}");
        }
    }

    #[test]
    fn an_entry_may_go_when_all_groups_have_acknowledged_it() {
        let id = |seq| EntryId { ms: 1, seq };
        let ids = [id(1), id(2), id(3), id(4)];
        let group = |last, pending: &[u64]| {
            Some(GroupProgress { last_delivered: id(last), pending: pending.iter().map(|seq| id(*seq)).collect() })
        };
        assert_eq!(acknowledged_by_all(&ids, &[]), ids);
        assert_eq!(acknowledged_by_all(&ids, &[group(4, &[])]), ids);
        assert_eq!(acknowledged_by_all(&ids, &[group(4, &[]), group(3, &[2])]), [id(1), id(3)]);
        assert_eq!(acknowledged_by_all(&ids, &[group(4, &[]), None]), []);
    }

    proptest! {
        #[test]
        fn every_entry_of_a_stream_is_read_whatever_happens_to_the_key(
            batch in 1u64..4,
            steps in prop::collection::vec((0u8..5, 0u64..6), 1..60),
        ) {
            // The model: a stream with this many unread entries; reads take up to a batch.
            let mut runs = StreamRuns::new(batch, 0, FailurePolicy::Continue, 1);
            let mut unread = 0u64;
            let mut running: Option<RunKind> = None;
            let mut in_run = 0;
            let note = |action: Option<Action>, running: &mut Option<RunKind>| {
                if let Some(Action::Run { kind, .. }) = action {
                    assert!(running.replace(kind).is_none(), "two runs at once");
                }
            };
            // Reads and ends a run.
            let advance = |runs: &mut StreamRuns, running: &mut Option<RunKind>, unread: &mut u64, in_run: &mut u64, arrive: u64| {
                let Some(kind) = running.take() else { return };
                *in_run = match kind {
                    RunKind::Pending => 0,
                    RunKind::Batch(asked) => (*unread).min(asked),
                };
                *unread -= *in_run;
                if let RunKind::Batch(asked) = kind {
                    let left = match runs.look_ahead(S, *in_run) {
                        _ if *in_run < asked => Left::Exactly(0),
                        None => Left::Unknown,
                        Some(count) if *unread >= count => Left::AtLeast(count),
                        Some(_) => Left::Exactly(*unread),
                    };
                    runs.read(S, 0, *in_run, left);
                }
                for _ in 0..arrive {
                    *unread += 1;
                    assert_eq!(runs.entry(S, 0), None);
                }
                let (_, next) = runs.ended(S, 0, End::Success, *in_run, 0);
                if let Some(Action::Run { kind, .. }) = next {
                    *running = Some(kind);
                }
            };
            for (step, count) in steps {
                match step {
                    0 | 1 => {
                        unread += 1;
                        let action = if runs.knows(S) { runs.entry(S, 0) } else { runs.found(S, unread, true, 0) };
                        note(action, &mut running);
                    }
                    2 => {
                        // Entries without an event: because a group was destroyed, say.
                        unread += count;
                    }
                    3 => {
                        unread = count;
                        note(runs.replaced(S, count, 0), &mut running);
                    }
                    _ => advance(&mut runs, &mut running, &mut unread, &mut in_run, count % 2),
                }
            }
            for _ in 0..batch {
                unread += 1;
                let action = if runs.knows(S) { runs.entry(S, 0) } else { runs.found(S, unread, true, 0) };
                note(action, &mut running);
            }
            let mut turns = 0;
            while running.is_some() {
                advance(&mut runs, &mut running, &mut unread, &mut in_run, 0);
                turns += 1;
                prop_assert!(turns < 1000, "endless runs");
            }
            prop_assert!(unread < batch, "{} entries are left behind", unread);
        }
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
