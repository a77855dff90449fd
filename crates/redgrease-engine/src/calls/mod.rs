//! Calls of user code to the server, and the waits of the main thread for user code.

pub(crate) mod caller;
pub(crate) mod deferred;
pub(crate) mod facts;
pub(crate) mod stack;
