//! One invocation of a command, and how it is passed to the engine.

use std::fmt::Display;

use redgrease_core::render::one_line;
use redgrease_engine::Input;
use redgrease_engine::input::{Caller, Command, Inside};
use redgrease_ffi::{Invocation, Replier};

use crate::driver::Driver;
use crate::fault::Place;

/// Permission for this command is the right to end objects of other users.
const ADMINISTER: &[u8] = b"rg.administer";

/// Whether a command depends on the right to end objects of others. Checking it takes a few microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// It never does.
    Own,
    /// It may.
    Administer,
}

/// One invocation of a command.
pub struct Request<'a> {
    /// The driver.
    pub driver: &'a Driver,
    /// The invocation.
    pub invocation: &'a Invocation<'a>,
    /// Name and arguments.
    pub args: &'a [&'a [u8]],
    /// The client announced our codec: results are tagged.
    pub tagged: bool,
}

impl Request<'_> {
    /// Answers it without the engine.
    pub fn reply(&self) -> Replier<'_> {
        self.invocation.reply()
    }

    /// Answers with an error whose text may contain any characters.
    pub fn error(&self, error: &dyn Display) {
        self.reply().error(&one_line(error.to_string().as_bytes()));
    }

    /// Passes the command to the engine, and answers or blocks the client as that decides.
    pub fn hand_in(&self, rights: Rights, command: Command<'_>) {
        let user = self.invocation.user();
        let administers = match (rights, &user) {
            (Rights::Administer, Some(user)) => self.driver.server.may_run(user, &[ADMINISTER]),
            (Rights::Administer, None) => true,
            (Rights::Own, _) => false,
        };
        let flags = self.invocation.flags();
        let inside = match () {
            () if flags.multi() => Inside::Transaction,
            () if flags.lua() => Inside::Script,
            () if flags.deny_blocking() => Inside::Unblockable,
            () => Inside::Nothing,
        };
        let database = redgrease_core::id::Database(self.invocation.database());
        let caller = Caller { user: user.map(Into::into), database, administers, inside };
        self.driver.clients.serve(self.invocation, |client| {
            self.driver.hand_in(Input::Command { client, caller: &caller, command });
            self.driver.fault.panic_if_armed(Place::Command);
        });
    }
}
