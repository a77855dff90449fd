//! Where an index lives: in a server, or in a file.

pub(crate) mod journal;
pub(crate) mod redis;
pub(crate) mod script;
pub(crate) mod wire;
