//! Clients that wait for an answer.

use crate::id::ClientNo;

/// A client that has not been answered. It is answered exactly once: answering consumes it, and it cannot be copied.
#[derive(Debug)]
#[must_use = "a client has to be answered"]
pub struct Client(ClientNo);

impl Client {
    /// The client of a command.
    pub(crate) fn new(number: ClientNo) -> Client {
        Client(number)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> ClientNo {
        self.0
    }
}
