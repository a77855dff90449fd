//! The session of this process, which renews all its leases.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use redgrease_cache_rules::protocol::{Session, Token};

use crate::lock::lock;
use crate::options::micros;

/// The session that new leases belong to.
#[derive(Debug)]
pub(crate) struct Sessions {
    lease: u64,
    owner: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    id: u64,
    /// Whether the index knows it.
    known: bool,
    /// Time of the last request that the index answered, by this process's clock.
    heard: Duration,
    next: u64,
    /// Number of leases held per session: those of a lost session count until they are released.
    held: HashMap<u64, u64>,
}

impl Sessions {
    pub fn new(id: u64, lease: Duration, owner: String) -> Self {
        let state = State { id, known: false, heard: Duration::ZERO, next: 0, held: HashMap::new() };
        Self { lease: micros(lease), owner, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// A token for a new lease; it counts as held until [`Sessions::release_token`].
    pub fn token(&self) -> Token {
        let mut state = self.state();
        let token = Token { session: state.id, number: state.next };
        state.next += 1;
        *state.held.entry(token.session).or_default() += 1;
        token
    }

    /// The lease is no longer held.
    pub fn release_token(&self, token: Token) {
        let mut state = self.state();
        if let Some(count) = state.held.get_mut(&token.session) {
            *count -= 1;
            if *count == 0 {
                state.held.remove(&token.session);
            }
        }
    }

    /// The session of a token, as sent to the index.
    pub fn of(&self, token: Token) -> Session {
        let state = self.state();
        Session {
            id: token.session,
            lease: self.lease,
            new: state.id == token.session && !state.known,
            owner: self.owner.clone(),
        }
    }

    /// Records that the index accepted the session in a request sent at `asked`, by this process's clock.
    pub fn is_known(&self, session: u64, asked: Duration) {
        let mut state = self.state();
        if state.id == session {
            (state.known, state.heard) = (true, state.heard.max(asked));
        }
    }

    /// The index has ended this session: the next lease starts another one.
    pub fn lost(&self, id: u64, new: u64) {
        let mut state = self.state();
        if state.id == id {
            (state.id, state.known) = (new, false);
        }
    }

    /// The session that new leases belong to.
    pub fn id(&self) -> u64 {
        self.state().id
    }

    /// Whether the session of this token has ended, or may have: the index has not replied for the time of a lease
    /// (less an eighth, within which the index does not record a renewal).
    pub fn is_lost(&self, token: Token, now: Duration) -> bool {
        let state = self.state();
        state.id != token.session || now.saturating_sub(state.heard) > Duration::from_micros(self.lease / 8 * 7)
    }

    /// The session, if it must be renewed.
    pub fn to_renew(&self) -> Option<Session> {
        let state = self.state();
        let alive = state.known && state.held.contains_key(&state.id);
        alive.then(|| Session { id: state.id, lease: self.lease, new: false, owner: self.owner.clone() })
    }

    /// Ends the session if no lease belongs to it; returns the one to close.
    pub fn end_if_idle(&self, new: u64) -> Option<u64> {
        let mut state = self.state();
        if !state.known || state.held.contains_key(&state.id) {
            return None;
        }
        let old = state.id;
        (state.id, state.known) = (new, false);
        Some(old)
    }

    /// Ends the session with all its leases; returns the one to close.
    pub fn end(&self, new: u64) -> Option<u64> {
        let mut state = self.state();
        let old = state.known.then_some(state.id);
        (state.id, state.known) = (new, false);
        old
    }

    /// Whether leases are held.
    pub fn holds_anything(&self) -> bool {
        !self.state().held.is_empty()
    }

    /// A new session for an operation without a lease.
    pub fn another(&self, id: u64) -> Session {
        Session { id, lease: self.lease, new: true, owner: self.owner.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Sessions {
        Sessions::new(7, Duration::from_secs(1), "host:1".to_owned())
    }

    #[test]
    fn a_session_is_new_until_the_index_knows_it() {
        let sessions = sessions();
        let token = sessions.token();
        assert!(sessions.of(token).new && sessions.to_renew().is_none());
        sessions.is_known(7, Duration::ZERO);
        assert!(!sessions.of(token).new);
        assert_eq!(sessions.to_renew().unwrap().id, 7);
    }

    #[test]
    fn a_lost_session_takes_its_leases_along_and_nothing_else() {
        let sessions = sessions();
        let old = sessions.token();
        let (now, late) = (Duration::from_millis(875), Duration::from_millis(876));
        sessions.is_known(7, Duration::ZERO);
        assert!(
            !sessions.is_lost(old, now) && sessions.is_lost(old, late),
            "nothing was heard for longer than a lease"
        );
        sessions.is_known(7, now);
        assert!(!sessions.is_lost(old, late));
        sessions.lost(7, 8);
        sessions.lost(7, 9);
        let new = sessions.token();
        assert!(sessions.is_lost(old, now) && !sessions.is_lost(new, now) && new.session == 8 && sessions.of(new).new);
        sessions.release_token(old);
        sessions.release_token(old);
        sessions.is_known(8, now);
        assert_eq!(sessions.to_renew().unwrap().id, 8);
    }

    #[test]
    fn an_idle_session_ends_and_is_never_used_again() {
        let sessions = sessions();
        let token = sessions.token();
        sessions.is_known(7, Duration::ZERO);
        assert_eq!(sessions.end_if_idle(8), None);
        sessions.release_token(token);
        assert_eq!(sessions.end_if_idle(8), Some(7));
        assert_eq!(sessions.end_if_idle(9), None);
        assert_eq!(sessions.token().session, 8);
    }
}
