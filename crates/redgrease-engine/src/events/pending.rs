//! Key events that wait for their executions.
//!
//! A waiting event costs little: its key and a reference to the event's name. At most [`WINDOW`] executions of a
//! registration exist at any time; further events become executions as those end. The waiting events are bounded in
//! bytes over all registrations.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::rc::Rc;
use alloc::vec::Vec;

use redgrease_core::id::RegistrationNo;

/// Executions of one registration that exist at any time.
pub const WINDOW: usize = 64;

/// Number of shared event names; further names are stored with each event.
const NAMES_MAX: usize = 1024;

/// What an event costs besides its key and its place in the queue: the allocator's overhead.
const OVERHEAD_BYTES: usize = 32;

/// An event of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEvent {
    /// The registration that it triggers.
    pub registration: RegistrationNo,
    /// The key.
    pub key: Box<[u8]>,
    /// Name of the event.
    pub event: Rc<str>,
}

impl KeyEvent {
    fn cost_bytes(&self) -> usize {
        size_of::<KeyEvent>() + OVERHEAD_BYTES + self.key.len()
    }
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<KeyEvent>,
    /// Executions that were taken from here and have not ended.
    taken: usize,
}

/// The waiting events.
#[derive(Debug)]
pub struct PendingEvents {
    queues: BTreeMap<RegistrationNo, Queue>,
    /// Registrations that may have an event to be taken, in turn.
    ready: VecDeque<RegistrationNo>,
    names: BTreeSet<Rc<str>>,
    bytes: usize,
    bytes_max: usize,
}

impl PendingEvents {
    /// No events; at most `bytes_max` bytes of them may wait.
    #[must_use]
    pub fn new(bytes_max: usize) -> PendingEvents {
        PendingEvents { queues: BTreeMap::new(), ready: VecDeque::new(), names: BTreeSet::new(), bytes: 0, bytes_max }
    }

    /// Makes an event, sharing its name.
    pub fn event(&mut self, registration: RegistrationNo, key: &[u8], event: &str) -> KeyEvent {
        let event = match self.names.get(event) {
            Some(name) => Rc::clone(name),
            None => {
                let name: Rc<str> = event.into();
                if self.names.len() < NAMES_MAX {
                    self.names.insert(Rc::clone(&name));
                }
                name
            }
        };
        KeyEvent { registration, key: key.into(), event }
    }

    /// Queues an event; `false` if it does not fit.
    #[must_use]
    pub fn push(&mut self, event: KeyEvent) -> bool {
        let cost = event.cost_bytes();
        if self.bytes + cost > self.bytes_max {
            return false;
        }
        self.bytes += cost;
        let registration = event.registration;
        let queue = self.queues.entry(registration).or_default();
        queue.events.push_back(event);
        if queue.events.len() == 1 && queue.taken < WINDOW {
            self.ready.push_back(registration);
        }
        true
    }

    /// Whether an event may be ready; may return true if none is.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the next event that may become an execution; registrations take turns.
    pub fn take(&mut self) -> Option<KeyEvent> {
        while let Some(registration) = self.ready.pop_front() {
            let Some(queue) = self.queues.get_mut(&registration) else { continue };
            if queue.taken >= WINDOW {
                continue;
            }
            let Some(event) = queue.events.pop_front() else { continue };
            queue.taken += 1;
            self.bytes -= event.cost_bytes();
            if queue.events.is_empty() {
                queue.events = VecDeque::new();
            } else {
                self.ready.push_back(registration);
            }
            return Some(event);
        }
        None
    }

    /// An execution of a taken event has ended.
    pub fn ended(&mut self, registration: RegistrationNo) {
        let Some(queue) = self.queues.get_mut(&registration) else { return };
        let was_full = queue.taken == WINDOW;
        queue.taken = queue.taken.saturating_sub(1);
        if was_full && !queue.events.is_empty() {
            self.ready.push_back(registration);
        }
        if queue.taken == 0 && queue.events.is_empty() {
            self.queues.remove(&registration);
        }
    }

    /// Removes the events of a registration; returns their number.
    pub fn remove(&mut self, registration: RegistrationNo) -> usize {
        let Some(queue) = self.queues.remove(&registration) else { return 0 };
        self.bytes -= queue.events.iter().map(KeyEvent::cost_bytes).sum::<usize>();
        queue.events.len()
    }

    /// Takes the oldest events of a registration, at most so many.
    pub fn take_of(&mut self, registration: RegistrationNo, max: usize) -> Vec<KeyEvent> {
        let Some(queue) = self.queues.get_mut(&registration) else { return Vec::new() };
        let count = queue.events.len().min(max);
        let taken: Vec<KeyEvent> = queue.events.drain(..count).collect();
        self.bytes -= taken.iter().map(KeyEvent::cost_bytes).sum::<usize>();
        taken
    }

    /// Changes the number of bytes that may wait.
    pub fn set_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Number of the events of a registration that wait.
    #[must_use]
    pub fn waiting(&self, registration: RegistrationNo) -> usize {
        self.queues.get(&registration).map_or(0, |queue| queue.events.len())
    }

    /// Number of waiting events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.events.len()).sum()
    }

    /// Whether no event waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.values().all(|queue| queue.events.is_empty())
    }

    /// Size of the waiting events in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Executions that were taken for each registration and have not ended.
    #[cfg(feature = "simulation")]
    pub(crate) fn taken(&self) -> impl Iterator<Item = (RegistrationNo, usize)> {
        self.queues.iter().map(|(registration, queue)| (*registration, queue.taken))
    }

    /// Inconsistencies of the state.
    #[cfg(feature = "simulation")]
    pub(crate) fn inconsistencies(&self) -> alloc::vec::Vec<alloc::string::String> {
        use alloc::format;
        let mut found = alloc::vec::Vec::new();
        let bytes: usize = self.queues.values().flat_map(|queue| &queue.events).map(KeyEvent::cost_bytes).sum();
        if bytes != self.bytes || bytes > self.bytes_max {
            found.push(format!("pending events take {bytes} bytes, {} are counted of {}", self.bytes, self.bytes_max));
        }
        for (registration, queue) in &self.queues {
            if queue.taken > WINDOW {
                found.push(format!("registration {registration} has {} executions at once", queue.taken));
            }
            if queue.taken < WINDOW && !queue.events.is_empty() && !self.ready.contains(registration) {
                found.push(format!("events of registration {registration} wait and nothing will start them"));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const A: RegistrationNo = RegistrationNo(1);
    const B: RegistrationNo = RegistrationNo(2);

    fn push(pending: &mut PendingEvents, registration: RegistrationNo, key: &str) -> bool {
        let event = pending.event(registration, key.as_bytes(), "set");
        pending.push(event)
    }

    #[test]
    fn a_window_of_events_is_taken_and_the_rest_as_executions_end() {
        let mut pending = PendingEvents::new(1 << 20);
        for number in 0..WINDOW + 2 {
            assert!(push(&mut pending, A, &number.to_string()));
        }
        let taken: Vec<_> = core::iter::from_fn(|| pending.take()).collect();
        assert_eq!(taken.len(), WINDOW);
        assert_eq!(&*taken[5].key, b"5");
        pending.ended(A);
        assert_eq!(&*pending.take().unwrap().key, WINDOW.to_string().as_bytes());
        assert_eq!(pending.take(), None);
    }

    #[test]
    fn registrations_take_turns() {
        let mut pending = PendingEvents::new(1 << 20);
        for key in ["1", "2"] {
            push(&mut pending, A, key);
        }
        push(&mut pending, B, "3");
        let order: Vec<_> = core::iter::from_fn(|| pending.take()).map(|event| event.registration).collect();
        assert_eq!(order, [A, B, A]);
    }

    #[test]
    fn an_event_costs_less_than_200_bytes_beside_its_key_and_the_bound_holds() {
        let mut pending = PendingEvents::new(20_000);
        let mut count = 0;
        while push(&mut pending, A, "key") {
            count += 1;
        }
        assert!(count > 20_000 / 200, "{count} events fit");
        assert!(pending.bytes() <= 20_000);
        assert_eq!((pending.remove(A), pending.bytes()), (count, 0));
        assert!(push(&mut pending, A, "key"));
    }

    proptest! {
        #[test]
        fn every_event_is_taken_once_in_order_or_removed(steps in prop::collection::vec((0u8..4, 0u64..3), 1..600)) {
            let mut pending = PendingEvents::new(1 << 20);
            let mut next = 0u64;
            let mut expected: BTreeMap<u64, VecDeque<u64>> = BTreeMap::new();
            let mut running: BTreeMap<u64, usize> = BTreeMap::new();
            for (kind, registration) in steps {
                match kind {
                    0 | 1 => {
                        prop_assert!(push(&mut pending, RegistrationNo(registration), &next.to_string()));
                        expected.entry(registration).or_default().push_back(next);
                        next += 1;
                    }
                    2 => {
                        if let Some(event) = pending.take() {
                            let first = expected.get_mut(&event.registration.0).and_then(VecDeque::pop_front).unwrap();
                            prop_assert_eq!(String::from_utf8_lossy(&event.key), first.to_string());
                            *running.entry(event.registration.0).or_default() += 1;
                        }
                    }
                    _ => {
                        let count = running.entry(registration).or_default();
                        if *count > 0 {
                            *count -= 1;
                            pending.ended(RegistrationNo(registration));
                        }
                    }
                }
                prop_assert!(running.values().all(|count| *count <= WINDOW));
                prop_assert_eq!(pending.len(), expected.values().map(VecDeque::len).sum::<usize>());
            }
            // The rest is taken as executions end.
            loop {
                match pending.take() {
                    Some(event) => {
                        let first = expected.get_mut(&event.registration.0).and_then(VecDeque::pop_front).unwrap();
                        prop_assert_eq!(String::from_utf8_lossy(&event.key), first.to_string());
                        pending.ended(event.registration);
                    }
                    None => {
                        let Some((registration, count)) = running.iter_mut().find(|(_, count)| **count > 0) else { break };
                        *count -= 1;
                        pending.ended(RegistrationNo(*registration));
                    }
                }
            }
            prop_assert!(pending.is_empty());
            prop_assert_eq!(pending.bytes(), 0);
        }
    }
}
