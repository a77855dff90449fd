//! Commands that RedisGears has removed

use super::request::Request;

/// Answers `RG.PYEXECUTEREMOTE` as RedisGears did.
pub fn execute_remote(request: &Request<'_>) {
    request.reply().bulk(b"Execute remote is not longer supported");
}

/// Answers `RG.PYFREEINTERPRETER` as RedisGears did.
pub fn free_interpreter(request: &Request<'_>) {
    request.reply().bulk(b"Free interpreter is not longer supported");
}
