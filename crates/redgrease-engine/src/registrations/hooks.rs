//! Which registrations a call of a command runs instead of the command, or waits for.

use redgrease_core::id::RegistrationNo;
use redgrease_core::pattern::KeyFilter;
use redgrease_core::policy::KeyRange;

use crate::input::Actor;
use crate::prelude::*;

/// The longest name of a command that can be hooked: more than any has.
const NAME_BYTES_MAX: usize = 64;

/// The call that a function replaces.
#[derive(Debug)]
pub(crate) struct HookedCall {
    /// The registration whose turn it is.
    pub(crate) registration: RegistrationNo,
    /// The command's name, as the client wrote it.
    pub(crate) name: Vec<u8>,
    /// The user and the database of the caller.
    pub(crate) actor: Actor,
}

/// Which calls a hook is for.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// All.
    Any,
    /// Those with a key that begins so.
    Prefix(Vec<u8>),
    /// Those with a key that passes.
    Filter(KeyFilter),
}

/// What a hook does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A function replaces the command.
    Function,
    /// Clients wait for the functions of the events that the command fires.
    Events,
}

/// A registration for calls of a command.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    /// The registration.
    pub(crate) registration: RegistrationNo,
    /// What it does.
    pub(crate) kind: Kind,
    keys: Keys,
    range: KeyRange,
}

impl Hook {
    fn is_for(&self, args: &[&[u8]]) -> bool {
        let passes = |key: &[u8]| match &self.keys {
            Keys::Any => true,
            Keys::Prefix(prefix) => key.starts_with(prefix),
            Keys::Filter(filter) => filter.matches(key),
        };
        matches!(self.keys, Keys::Any)
            || self.range.positions(args.len()).any(|position| args.get(position).is_some_and(|key| passes(key)))
    }
}

/// All hooks, by the lower-case names of their commands; those of a command in the order of their registration.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    by_command: BTreeMap<Vec<u8>, Vec<Hook>>,
}

impl Hooks {
    /// Adds a hook for a command.
    pub(crate) fn add(
        &mut self,
        command: &[u8],
        registration: RegistrationNo,
        kind: Kind,
        keys: Keys,
        range: KeyRange,
    ) {
        let hook = Hook { registration, kind, keys, range };
        self.by_command.entry(command.to_vec()).or_default().push(hook);
    }

    /// Removes the hooks of a registration.
    pub(crate) fn remove(&mut self, registration: RegistrationNo) {
        self.by_command.retain(|_, hooks| {
            hooks.retain(|hook| hook.registration != registration);
            !hooks.is_empty()
        });
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_command.is_empty()
    }

    fn of_command(&self, name: &[u8]) -> &[Hook] {
        let mut lower = [0; NAME_BYTES_MAX];
        let Some(lower) = lower.get_mut(..name.len()) else { return &[] };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.by_command.get(&*lower).map(Vec::as_slice).unwrap_or_default()
    }

    /// The functions that replace a command.
    pub(crate) fn functions(&self, command: &[u8]) -> impl Iterator<Item = RegistrationNo> {
        self.of_command(command).iter().filter(|hook| hook.kind == Kind::Function).map(|hook| hook.registration)
    }

    /// Whether a call is hooked: a command with its arguments.
    pub(crate) fn is_hooked(&self, args: &[&[u8]]) -> bool {
        let hooks = args.first().map(|name| self.of_command(name)).unwrap_or_default();
        hooks.iter().any(|hook| hook.is_for(args))
    }

    /// The function that replaces a call: the one that was registered last, and before `below` if that is given.
    pub(crate) fn function(&self, args: &[&[u8]], below: Option<RegistrationNo>) -> Option<RegistrationNo> {
        let hooks = self.of_command(args.first()?);
        let before = |hook: &&Hook| below.is_none_or(|below| hook.registration < below);
        let found = hooks.iter().filter(before).rfind(|hook| hook.kind == Kind::Function && hook.is_for(args))?;
        Some(found.registration)
    }

    /// The registrations whose functions the client of a call waits for.
    pub(crate) fn events(&self, args: &[&[u8]]) -> Vec<RegistrationNo> {
        let hooks = args.first().map(|name| self.of_command(name)).unwrap_or_default();
        let events = hooks.iter().filter(|hook| hook.kind == Kind::Events && hook.is_for(args));
        events.map(|hook| hook.registration).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_KEY: KeyRange = KeyRange { first: 1, last: 1, step: 1 };
    const PAIRS: KeyRange = KeyRange { first: 1, last: -1, step: 2 };

    fn args(text: &str) -> Vec<&[u8]> {
        text.split(' ').map(str::as_bytes).collect()
    }

    #[test]
    fn the_last_registration_is_first_and_each_has_its_turn() {
        let mut hooks = Hooks::default();
        hooks.add(b"set", RegistrationNo(1), Kind::Function, Keys::Any, ONE_KEY);
        hooks.add(b"set", RegistrationNo(2), Kind::Function, Keys::Prefix(b"a".to_vec()), ONE_KEY);
        let call = args("SeT ab v");
        assert!(hooks.is_hooked(&call) && !hooks.is_hooked(&args("get ab")));
        assert_eq!(hooks.function(&call, None), Some(RegistrationNo(2)));
        assert_eq!(hooks.function(&call, Some(RegistrationNo(2))), Some(RegistrationNo(1)));
        assert_eq!(hooks.function(&call, Some(RegistrationNo(1))), None);
        assert_eq!(hooks.function(&args("set b v"), None), Some(RegistrationNo(1)));
        hooks.remove(RegistrationNo(1));
        assert!(!hooks.is_hooked(&args("set b v")));
        hooks.remove(RegistrationNo(2));
        assert!(hooks.is_empty());
    }

    #[test]
    fn any_key_of_a_call_counts() {
        let mut hooks = Hooks::default();
        let filter = Keys::Filter(KeyFilter::new("x*").unwrap());
        hooks.add(b"mset", RegistrationNo(1), Kind::Events, filter, PAIRS);
        assert_eq!(hooks.events(&args("mset a x x1 b")), [RegistrationNo(1)]);
        assert!(hooks.events(&args("mset a x")).is_empty());
        assert!(hooks.events(&args("mset")).is_empty());
        assert_eq!(hooks.function(&args("mset x x"), None), None);
    }

    #[test]
    fn names_of_any_length_are_looked_up() {
        let hooks = Hooks::default();
        let long = "x".repeat(1000);
        assert!(!hooks.is_hooked(&[long.as_bytes()]) && !hooks.is_hooked(&[]) && !hooks.is_hooked(&[b""]));
    }
}
