//! Worker processes: the pool, the connections, and the output.

pub(crate) mod interpreters;
pub(crate) mod link;
pub(crate) mod output;
pub mod pool;
