//! All sessions of this shard, and those that wait for a worker.

use redgrease_core::id::SessionNo;

use crate::id::Counter;
use crate::prelude::*;
use crate::sessions::session::Session;

/// The sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    all: BTreeMap<SessionNo, Session>,
    /// Sessions that wait for a worker, in the order of their arrival.
    pub(crate) waiting: VecDeque<SessionNo>,
    counter: Counter,
}

impl Sessions {
    /// Adds a session.
    pub(crate) fn add(&mut self, session: Session) -> SessionNo {
        let number = SessionNo(self.counter.next());
        self.all.insert(number, session);
        number
    }

    /// A session.
    pub(crate) fn get(&self, number: SessionNo) -> Option<&Session> {
        self.all.get(&number)
    }

    /// A session, to be changed.
    pub(crate) fn get_mut(&mut self, number: SessionNo) -> Option<&mut Session> {
        self.all.get_mut(&number)
    }

    /// Forgets a session.
    pub(crate) fn remove(&mut self, number: SessionNo) -> Option<Session> {
        self.waiting.retain(|other| *other != number);
        self.all.remove(&number)
    }

    /// Number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// All sessions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionNo, &Session)> {
        self.all.iter().map(|(number, session)| (*number, session))
    }

    /// The session with that id, among those that own registrations.
    pub(crate) fn named(&self, name: &str) -> Option<SessionNo> {
        self.all.iter().find(|(_, session)| session.registered && *session.name == *name).map(|(number, _)| *number)
    }
}
