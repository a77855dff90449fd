//! Registrations: their list, which of them match an event, and how they are shown.

pub(crate) mod dump;
pub(crate) mod hooks;
pub(crate) mod key_index;
pub mod registry;
