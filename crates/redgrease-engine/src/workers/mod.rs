//! Worker processes: how many there are, what they send and are sent, what they write.

pub(crate) mod link;
pub(crate) mod output;
pub mod pool;
