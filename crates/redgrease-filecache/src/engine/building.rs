//! The claim of this process to the making of an index.

use std::sync::Mutex;
use std::time::Duration;

use redgrease_cache_rules::protocol::Session;

use crate::lock::lock;

/// The session of the index's builder, and until when it is kept alive by what renews sessions: a shard may be larger than
/// can be gone through within a lease.
#[derive(Debug, Default)]
pub(crate) struct Building(Mutex<Option<(Session, Duration)>>);

impl Building {
    pub fn set(&self, builder: Option<(Session, Duration)>) {
        *lock(&self.0) = builder;
    }

    pub fn to_renew(&self, now: Duration) -> Option<Session> {
        let builder = lock(&self.0);
        builder.as_ref().filter(|(_, until)| now < *until).map(|(session, _)| session.clone())
    }
}
