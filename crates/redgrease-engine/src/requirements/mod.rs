//! Requirements of scripts: who waits for which look or installation.

pub mod fair;
pub(crate) mod installs;
