//! Calls of commands that a module handles itself: a command filter puts an own command in front of them.

use std::cell::Cell;
use std::ffi::CStr;
use std::ptr::NonNull;

use crate::api::{OwnedString, api, string_bytes};
use crate::guard::guarded;
use crate::raw;
use crate::server::Server;

/// Decides whether a call is handled: a command and its arguments.
pub type IsHooked = fn(&[&[u8]]) -> bool;

thread_local! {
    static FILTER: Cell<Option<NonNull<raw::RedisModuleCommandFilter>>> = const { Cell::new(None) };
    static WANTED: Cell<Option<(IsHooked, &'static CStr)>> = const { Cell::new(None) };
}

impl Server {
    /// From now on asks `is_hooked` about each command, except those that this module runs, and has the server run `inner`
    /// with the command as its arguments if it says so. Commands that scripts, transactions and other modules run are among
    /// them. Calling it again changes nothing.
    ///
    /// # Errors
    /// The server refuses.
    pub fn hook_commands(&self, is_hooked: IsHooked, inner: &'static CStr) -> Result<(), String> {
        if FILTER.get().is_some() {
            return Ok(());
        }
        WANTED.set(Some((is_hooked, inner)));
        // SAFETY: a valid context of this module and a static callback.
        let filter = unsafe {
            api!(RedisModule_RegisterCommandFilter)(
                self.raw_context(),
                Some(filter_command),
                raw::REDISMODULE_CMDFILTER_NOSELF,
            )
        };
        FILTER.set(NonNull::new(filter));
        if filter.is_null() { Err("the server refuses a command filter".into()) } else { Ok(()) }
    }

    /// Ends [`Server::hook_commands`].
    pub fn unhook_commands(&self) {
        if let Some(filter) = FILTER.take() {
            // SAFETY: registered by `hook_commands` with the same module, and taken, so that this happens once.
            unsafe { api!(RedisModule_UnregisterCommandFilter)(self.raw_context(), filter.as_ptr()) };
        }
    }
}

unsafe extern "C" fn filter_command(filter: *mut raw::RedisModuleCommandFilterCtx) {
    let Some((is_hooked, inner)) = WANTED.get() else { return };
    guarded("a command filter", (), || {
        // SAFETY: the filter's context is that of this callback.
        let count = unsafe { api!(RedisModule_CommandFilterArgsCount)(filter) };
        let args: Vec<&[u8]> = (0..count)
            .filter_map(|index| {
                // SAFETY: an index below the count; the string lives as long as the callback.
                let arg = NonNull::new(unsafe { api!(RedisModule_CommandFilterArgGet)(filter, index) })?;
                // SAFETY: a valid string.
                Some(unsafe { string_bytes(arg.as_ptr()) })
            })
            .collect();
        if is_hooked(&args) {
            let name = OwnedString::new(inner.to_bytes());
            // SAFETY: position 0 exists; the server takes over the string, which is therefore not freed here.
            unsafe { api!(RedisModule_CommandFilterArgInsert)(filter, 0, name.into_raw()) };
        }
    });
}
