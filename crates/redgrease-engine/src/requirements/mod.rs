//! Requirements of scripts: waiting and running checks and installations.

pub mod fair;
pub(crate) mod installs;
