//! Functions that are called again and again: their state.

use redgrease_core::id::{Database, PlanNo, SessionNo};
use redgrease_core::plan::PlanSpec;
use redgrease_core::saved::Change;

use crate::calls::caller::PendingCall;
use crate::id::Counter;
use crate::prelude::*;

/// A function that is called again and again.
#[derive(Debug)]
pub(crate) struct TimeEvent {
    /// Its session.
    pub(crate) session: SessionNo,
    /// The plan's number in the session's worker.
    pub(crate) plan: PlanNo,
    /// The plan.
    pub(crate) spec: PlanSpec,
    /// The database that it acts in.
    pub(crate) database: Database,
    /// Seconds between the end of a call and the next one.
    pub(crate) period_s: u64,
    /// The key that stands for it, and its value.
    pub(crate) key: Option<(Vec<u8>, Rc<[u8]>)>,
}

/// All of them, by number.
#[derive(Debug, Default)]
pub(crate) struct TimeEvents {
    /// Makes the numbers.
    pub(crate) counter: Counter,
    /// The time events.
    pub(crate) all: BTreeMap<u64, TimeEvent>,
}

impl TimeEvents {
    /// Whether a session has some.
    pub(crate) fn of_session(&self, session: SessionNo) -> bool {
        self.all.values().any(|event| event.session == session)
    }
}

/// A time event that waits for its key to be made.
#[derive(Debug)]
pub(crate) struct NewTimeEvent {
    /// The call to be answered.
    pub(crate) call: Option<PendingCall>,
    /// The time event.
    pub(crate) event: TimeEvent,
    /// What replicas are sent.
    pub(crate) change: Option<Change>,
}
