//! What functions ask of the server, and for whom the main thread waits.

pub(crate) mod caller;
pub(crate) mod deferred;
pub(crate) mod facts;
pub(crate) mod stack;
