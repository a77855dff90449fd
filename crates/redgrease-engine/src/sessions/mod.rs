//! Sessions: each is created by an `RG.PYEXECUTE` and ends with its last execution or registration.

pub(crate) mod all;
pub(crate) mod profiles;
pub(crate) mod script;
pub(crate) mod session;
pub mod stored;
