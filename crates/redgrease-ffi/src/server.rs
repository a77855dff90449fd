//! The server as seen from its main thread.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::api::api;
use crate::context::{self, ContextFlags};
use crate::log::{LogLevel, log};
use crate::raw;

/// The server, on its main thread: a value of this type allows calls of the module API.
///
/// It uses a detached thread-safe context, which belongs to no client: each call says in which database and as which
/// user it runs.
#[derive(Clone, Copy)]
pub struct Server {
    context: NonNull<raw::RedisModuleCtx>,
    main_thread_only: PhantomData<*const ()>,
}

impl Server {
    /// The server, if this is its main thread and the module is loaded.
    #[must_use]
    pub fn on_main_thread() -> Option<Server> {
        NonNull::new(context::detached()).map(|context| Server { context, main_thread_only: PhantomData })
    }

    /// Writes to the server's log.
    pub fn log(&self, level: LogLevel, text: &str) {
        log(level, text);
    }

    /// What the server is doing.
    #[must_use]
    pub fn flags(&self) -> ContextFlags {
        ContextFlags::of(self.context.as_ptr())
    }

    /// Whether anything that is replicated now would break a pause or a failover: the server stops itself by an
    /// assertion then.
    #[must_use]
    pub fn must_not_replicate(&self) -> bool {
        // SAFETY: takes nothing, reads state of the main thread, where we are.
        unsafe { api!(RedisModule_AvoidReplicaTraffic)() != 0 }
    }

    /// Version such as `0x070015`, one byte each for major, minor and patch; 0 where the server does not tell.
    #[must_use]
    pub fn version(&self) -> u32 {
        // SAFETY: takes nothing.
        api!(RedisModule_GetServerVersion).map_or(0, |version| unsafe { version() } as u32)
    }

    pub(crate) fn raw_context(&self) -> *mut raw::RedisModuleCtx {
        self.context.as_ptr()
    }

    /// The context, with this database selected; `None` when the server has no such database. Nested calls may leave
    /// another one selected, so every use of a database selects it.
    pub(crate) fn in_database(&self, database: u32) -> Option<*mut raw::RedisModuleCtx> {
        let context = self.raw_context();
        let wanted = c_int::try_from(database).ok()?;
        // SAFETY: a valid context of the main thread, where we are; an unknown number is refused.
        let selected = unsafe {
            api!(RedisModule_GetSelectedDb)(context) == wanted
                || api!(RedisModule_SelectDb)(context, wanted) == raw::REDISMODULE_OK
        };
        selected.then_some(context)
    }
}
