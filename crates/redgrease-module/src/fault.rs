//! Panics on demand, to test what they leave behind: with the load argument `InjectPanic 1`,
//! `RG.GETRESULTS rg:panic:PLACE` makes the next callback of that kind panic.

use std::cell::Cell;

/// Prefix of the argument of the command that arms a panic.
const PREFIX: &[u8] = b"rg:panic:";

/// A kind of callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A command.
    Command,
    /// A notification.
    Notification,
    /// The reply to a blocked client.
    Reply,
    /// A timer.
    Timer,
}

/// The panic that is armed, if one is.
#[derive(Default)]
pub struct Fault(Cell<Option<Place>>);

impl Fault {
    /// Arms the panic that an argument names; returns whether it names one.
    pub fn arm(&self, argument: &[u8]) -> bool {
        let place = match argument.strip_prefix(PREFIX) {
            Some(b"command") => Place::Command,
            Some(b"notification") => Place::Notification,
            Some(b"reply") => Place::Reply,
            Some(b"timer") => Place::Timer,
            Some(_) | None => return false,
        };
        self.0.set(Some(place));
        true
    }

    /// Takes the panic that is armed for a place.
    pub fn take(&self, place: Place) -> bool {
        let armed = self.0.get() == Some(place);
        if armed {
            self.0.set(None);
        }
        armed
    }

    /// Panics if that is armed.
    pub fn panic_if_armed(&self, place: Place) {
        assert!(!self.take(place), "injected in a {place:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_armed_panic_happens_once_and_in_its_place() {
        let fault = Fault::default();
        assert!(!fault.arm(b"0000-1") && !fault.arm(b"rg:panic:elsewhere"));
        assert!(fault.arm(b"rg:panic:timer"));
        assert!(!fault.take(Place::Reply) && fault.take(Place::Timer) && !fault.take(Place::Timer));
    }
}
