//! The storage of an index: in a server, or in a file.

pub(crate) mod journal;
pub(crate) mod redis;
pub(crate) mod script;
pub(crate) mod wire;
