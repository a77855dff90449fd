//! This process's claim to build the index.

use std::sync::Mutex;
use std::time::Duration;

use redgrease_cache_rules::protocol::Session;

use crate::lock::lock;

/// The session of the index's builder, and until when the renewal thread keeps it alive: a large shard may take longer than
/// a lease.
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
