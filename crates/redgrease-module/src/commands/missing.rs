//! Commands of RedisGears 1.2 that this version does not have, or that RedisGears has removed

use super::request::Request;
use crate::error::Error;

/// Answers a command that this version does not have.
pub fn not_yet(request: &Request<'_>) {
    let name = String::from_utf8_lossy(request.args[0]).to_uppercase();
    request.error(&Error::NotYet(name));
}

/// Answers `RG.PYEXECUTEREMOTE` as RedisGears did.
pub fn execute_remote(request: &Request<'_>) {
    request.reply().bulk(b"Execute remote is not longer supported");
}

/// Answers `RG.PYFREEINTERPRETER` as RedisGears did.
pub fn free_interpreter(request: &Request<'_>) {
    request.reply().bulk(b"Free interpreter is not longer supported");
}
