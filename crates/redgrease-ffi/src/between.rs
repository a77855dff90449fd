//! The moment between two commands of clients, for servers without jobs after a notification (Redis 7.0).

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

use crate::api::{OwnedString, api};
use crate::client::{Owed, Replier};
use crate::guard::guarded;
use crate::load::Loader;
use crate::log::LogLevel;
use crate::raw;
use crate::server::Server;

/// A command of ours that is never run: the server asks for its keys through a callback that has a context.
const CONTEXT_COMMAND: &CStr = c"rg.innercontext";

thread_local! {
    static HANDLER: Cell<Option<fn()>> = const { Cell::new(None) };
    static FILTER: Cell<Option<NonNull<raw::RedisModuleCommandFilter>>> = const { Cell::new(None) };
    static BODY: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

impl Loader<'_> {
    /// Registers what [`Server::in_context`] needs; does nothing on servers with jobs after a notification.
    ///
    /// # Errors
    /// The server refuses the command.
    pub fn context_command(&self) -> Result<(), String> {
        if api!(RedisModule_AddPostNotificationJob).is_some() {
            return Ok(());
        }
        // SAFETY: the context is that of the load; all strings are static.
        let created = unsafe {
            api!(RedisModule_CreateCommand)(
                self.raw_context(),
                CONTEXT_COMMAND.as_ptr(),
                Some(context_callback),
                c"getkeys-api".as_ptr(),
                1,
                1,
                1,
            )
        };
        if created == raw::REDISMODULE_OK {
            Ok(())
        } else {
            Err(format!("the server refuses command {}", CONTEXT_COMMAND.to_string_lossy()))
        }
    }
}

impl Server {
    /// Calls `handler` before every command that is not run by this module, until [`Server::unwatch_commands`]; does
    /// nothing on servers with jobs after a notification. Commands that scripts, transactions and other modules run
    /// are among them.
    ///
    /// # Errors
    /// The server refuses.
    pub fn watch_commands(&self, handler: fn()) -> Result<(), String> {
        if api!(RedisModule_AddPostNotificationJob).is_some() || FILTER.get().is_some() {
            return Ok(());
        }
        HANDLER.set(Some(handler));
        // SAFETY: a valid context of this module and a static callback.
        let filter = unsafe {
            api!(RedisModule_RegisterCommandFilter)(
                self.raw_context(),
                Some(before_command),
                raw::REDISMODULE_CMDFILTER_NOSELF,
            )
        };
        FILTER.set(NonNull::new(filter));
        if filter.is_null() { Err("the server refuses a command filter".into()) } else { Ok(()) }
    }

    /// Ends [`Server::watch_commands`].
    pub fn unwatch_commands(&self) {
        if let Some(filter) = FILTER.take() {
            // SAFETY: registered by `watch_commands` with the same module, and taken, so that this happens once.
            unsafe { api!(RedisModule_UnregisterCommandFilter)(self.raw_context(), filter.as_ptr()) };
        }
    }

    /// Runs `body` in a callback that has a context, at whose end Redis 7.0 propagates what was written. Without one
    /// that would wait for the next such callback, and the server's own clock stops the server when it finds it waiting.
    pub fn in_context(&self, body: impl FnOnce() + 'static) {
        BODY.with_borrow_mut(|place| *place = Some(Box::new(body)));
        let name = OwnedString::new(CONTEXT_COMMAND.to_bytes());
        // Two arguments: the name and what stands where the key would be.
        let key = OwnedString::new(b"");
        let mut argv = [name.0, key.0];
        let mut count: c_int = 0;
        // SAFETY: two valid strings; the count is written by the callee.
        let keys = unsafe {
            api!(RedisModule_GetCommandKeys)(self.raw_context(), argv.as_mut_ptr(), argv.len() as c_int, &raw mut count)
        };
        if !keys.is_null() {
            // SAFETY: allocated by the server for us, freed once.
            unsafe { api!(RedisModule_Free)(keys.cast()) };
        }
        if BODY.take().is_some() {
            self.log(LogLevel::Warning, "INTERNAL the server did not call for a context");
        }
    }
}

unsafe extern "C" fn before_command(_filter: *mut raw::RedisModuleCommandFilterCtx) {
    if let Some(handler) = HANDLER.get() {
        guarded("a command filter", (), handler);
    }
}

unsafe extern "C" fn context_callback(
    context: *mut raw::RedisModuleCtx,
    _argv: *mut *mut raw::RedisModuleString,
    _argc: c_int,
) -> c_int {
    // SAFETY: the context is that of this callback.
    let asked_for_keys = unsafe { api!(RedisModule_IsKeysPositionRequest)(context) } != 0;
    if !asked_for_keys {
        Replier::new(context, &Owed::one()).error("ERR RG.INNERCONTEXT is internal");
    } else if let Some(body) = BODY.take() {
        guarded("the moment between two commands", (), body);
    }
    raw::REDISMODULE_OK
}
