//! Sessions: what one `RG.PYEXECUTE` made, from its script to its last registration.

pub(crate) mod all;
pub(crate) mod script;
pub(crate) mod session;
pub mod stored;
