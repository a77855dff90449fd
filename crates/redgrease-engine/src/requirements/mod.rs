//! Requirements of scripts: waiting and running checks and installations; wheels.

pub mod fair;
pub(crate) mod installs;
pub(crate) mod wheels;
