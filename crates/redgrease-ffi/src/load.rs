//! The load of the module.

use std::ffi::{CStr, c_int};

use crate::api::{api, string_bytes};
use crate::guard::guarded;
use crate::log::{LogLevel, log};
use crate::server::Server;
use crate::{context, raw, table};

/// What the module's start is given: registers commands and reads load arguments.
pub struct Loader<'a> {
    context: *mut raw::RedisModuleCtx,
    /// Arguments behind the module's path.
    pub args: Vec<&'a [u8]>,
    /// The server.
    pub server: Server,
}

impl Loader<'_> {
    /// The context of the load, for registrations that need it.
    pub(crate) fn raw_context(&self) -> *mut raw::RedisModuleCtx {
        self.context
    }
}

/// Called by [`export_module!`](crate::export_module).
///
/// # Safety
/// Only by the server, as `RedisModule_OnLoad`, with its own arguments.
#[doc(hidden)]
pub unsafe fn on_load(
    context: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
    name: &CStr,
    version: c_int,
    start: fn(&Loader<'_>) -> Result<(), String>,
) -> c_int {
    let refused = raw::REDISMODULE_ERR;
    // SAFETY: the context is that of the load. Nothing may be allocated before the table is filled.
    if !unsafe { table::fill(context, name, version) } {
        return refused;
    }
    guarded("the module's start", refused, || {
        // SAFETY: the load context is valid here; the detached one lives as long as the module. Modules are loaded by the
        // main thread.
        unsafe { context::set_detached(api!(RedisModule_GetDetachedThreadSafeContext)(context)) };
        let Some(server) = Server::on_main_thread() else { return refused };
        // SAFETY: `argv` holds `argc` strings of the server that live during the load.
        let args = (0..argc as usize).map(|index| unsafe { string_bytes(*argv.add(index)) }).collect();
        match start(&Loader { context, args, server }) {
            Ok(()) => raw::REDISMODULE_OK,
            Err(reason) => {
                log(LogLevel::Warning, &format!("rg: not loaded: {reason}"));
                refused
            }
        }
    })
}
