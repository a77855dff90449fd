//! The module's own context, and what the flags of a context mean.

use std::cell::Cell;
use std::ffi::c_int;

use crate::api::api;
use crate::raw;

thread_local! {
    /// The detached context of the main thread; null elsewhere, and before the module is loaded.
    static CONTEXT: Cell<*mut raw::RedisModuleCtx> = const { Cell::new(std::ptr::null_mut()) };
}

/// The detached context of the main thread; null elsewhere, and before the module is loaded.
pub(crate) fn detached() -> *mut raw::RedisModuleCtx {
    CONTEXT.get()
}

/// Makes the calling thread the main thread: from now on it has this context.
///
/// # Safety
/// A detached context of this module that is never freed; the caller is the server's main thread.
pub(crate) unsafe fn set_detached(context: *mut raw::RedisModuleCtx) {
    CONTEXT.set(context);
}

/// What the server is doing: the flags of a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextFlags(c_int);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:ident),+ $(,)?) => {
        impl ContextFlags { $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(self) -> bool { self.0 & raw::$bit != 0 }
        )+ }
    };
}
flags! {
    /// A Lua script or function is running, possibly suspended.
    lua = REDISMODULE_CTX_FLAGS_LUA,
    /// Inside a transaction.
    multi = REDISMODULE_CTX_FLAGS_MULTI,
    /// The caller cannot be blocked.
    deny_blocking = REDISMODULE_CTX_FLAGS_DENY_BLOCKING,
    /// Data is being loaded.
    loading = REDISMODULE_CTX_FLAGS_LOADING,
    /// This server is a replica.
    replica = REDISMODULE_CTX_FLAGS_SLAVE,
    /// It is a replica that refuses writes of clients.
    read_only = REDISMODULE_CTX_FLAGS_READONLY,
    /// The command came from the master.
    replicated = REDISMODULE_CTX_FLAGS_REPLICATED,
    /// Cluster mode.
    cluster = REDISMODULE_CTX_FLAGS_CLUSTER,
    /// The client speaks RESP3.
    resp3 = REDISMODULE_CTX_FLAGS_RESP3,
    /// This process is a child of the server.
    child = REDISMODULE_CTX_FLAGS_IS_CHILD,
}

impl ContextFlags {
    pub(crate) fn of(context: *mut raw::RedisModuleCtx) -> ContextFlags {
        // SAFETY: null or a valid context, as the API allows.
        ContextFlags(unsafe { api!(RedisModule_GetContextFlags)(context) })
    }
}
