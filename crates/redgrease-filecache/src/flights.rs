//! The keys that this process is making, and the calls that wait for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use event_listener::{Event, EventListener};
use redgrease_cache_rules::Key;

use crate::lock::lock;

/// From this number of events on, unused ones are removed, each time their number doubles.
const MANY: usize = 256;

/// The writers of this process, one per key, and the events that waiters listen to.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    flying: Mutex<HashMap<Key, Option<u64>>>,
    events: Mutex<HashMap<Key, Arc<Event>>>,
}

/// One writer's right to make a key in this process.
#[derive(Debug)]
pub(crate) struct Flight {
    flights: Arc<Flights>,
    key: Key,
}

impl Flights {
    /// Claims a key for `who`, or returns its holder. Threads and tasks are numbered; `None` is unknown.
    pub fn take(self: &Arc<Self>, key: &[u8], who: Option<u64>) -> Result<Flight, Option<u64>> {
        let mut flying = lock(&self.flying);
        if let Some(other) = flying.get(key) {
            return Err(*other);
        }
        flying.insert(key.to_vec(), who);
        Ok(Flight { flights: Arc::clone(self), key: key.to_vec() })
    }

    /// Whether `who` holds the key.
    pub fn is_held_by(&self, key: &[u8], who: Option<u64>) -> bool {
        who.is_some() && lock(&self.flying).get(key).is_some_and(|holder| *holder == who)
    }

    /// Signals a change of this key to waiting calls.
    pub fn wake(&self, key: &[u8]) {
        let event = lock(&self.events).remove(key);
        if let Some(event) = event {
            event.notify(usize::MAX);
        }
    }

    /// Waits for the next [`Flights::wake`] of this key. Listen first, then check, so that no event is missed.
    pub fn listen(&self, key: &[u8]) -> EventListener {
        let mut events = lock(&self.events);
        if events.len() >= MANY && events.len().is_power_of_two() {
            events.retain(|_, event| event.total_listeners() > 0);
        }
        events.entry(key.to_vec()).or_default().listen()
    }

    /// Whether any call waits.
    pub fn has_waiters(&self) -> bool {
        let mut events = lock(&self.events);
        events.retain(|_, event| event.total_listeners() > 0);
        !events.is_empty()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        lock(&self.flights.flying).remove(&self.key);
        self.flights.wake(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_key_has_one_writer_in_a_process() {
        let flights = Arc::new(Flights::default());
        let flight = flights.take(b"k", Some(7)).unwrap();
        assert_eq!(flights.take(b"k", Some(8)).unwrap_err(), Some(7));
        assert!(flights.take(b"other", None).is_ok());
        let heard = flights.listen(b"k");
        drop(flight);
        assert!(event_listener::Listener::wait_timeout(heard, Duration::from_secs(5)).is_some());
        assert!(flights.take(b"k", None).is_ok());
        assert!(!flights.has_waiters());
    }
}
