//! Stream registrations: when they read, through which group, and when entries are acknowledged and removed.

pub(crate) mod batch;
pub(crate) mod held;
pub(crate) mod run;
pub mod runs;
