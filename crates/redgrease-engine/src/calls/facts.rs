//! What is known about the server's commands.

use redgrease_core::policy::{CommandFacts, Protection};

use crate::limits::{FACTS_MAX, NAME_BYTES_MAX};
use crate::prelude::*;

/// The known facts.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    commands: BTreeMap<Vec<u8>, Rc<CommandFacts>>,
    /// The server's options that protect commands; until they are known, commands are treated as protected.
    pub(crate) protection: Protection,
}

impl Facts {
    /// The facts about a command, by its lower-case name.
    pub(crate) fn of(&self, name: &[u8]) -> Option<Rc<CommandFacts>> {
        self.commands.get(name).map(Rc::clone)
    }

    /// Stores facts. Commands of other modules may be unloaded and replaced by different ones.
    pub(crate) fn learn(&mut self, name: Vec<u8>, facts: &Rc<CommandFacts>) {
        if !facts.own.foreign && self.commands.len() < FACTS_MAX && name.len() <= NAME_BYTES_MAX {
            self.commands.insert(name, Rc::clone(facts));
        }
    }
}

/// Whether a command is read-only, so that it may run while clients are paused.
pub(crate) fn only_reads(facts: Option<&CommandFacts>, argv: &[&[u8]]) -> bool {
    facts.is_some_and(|facts| facts.of_call(argv).reads)
}
