//! Sections of `INFO`.

use std::cell::Cell;
use std::ffi::c_int;

use crate::api::{OwnedString, api, c_text};
use crate::guard::guarded;
use crate::load::Loader;
use crate::raw;

/// Writes the module's part of `INFO`.
pub struct InfoWriter {
    context: *mut raw::RedisModuleInfoCtx,
}

// SAFETY for all methods: the context is that of a running info callback; strings are copied.
impl InfoWriter {
    /// Begins a section; returns whether the client asked for it. `""` is the module's main section.
    pub fn section(&self, name: &str) -> bool {
        let name = c_text(name);
        // SAFETY: see above.
        unsafe { api!(RedisModule_InfoAddSection)(self.context, name.as_ptr()) == raw::REDISMODULE_OK }
    }

    /// A number.
    pub fn number(&self, field: &str, value: u64) {
        let field = c_text(&field_name(field));
        // SAFETY: see above.
        unsafe { api!(RedisModule_InfoAddFieldULongLong)(self.context, field.as_ptr(), value) };
    }

    /// A text.
    pub fn text(&self, field: &str, value: &str) {
        let field = c_text(&field_name(field));
        let value = OwnedString::new(value.replace(['\r', '\n', '\0'], " ").as_bytes());
        // SAFETY: see above.
        unsafe { api!(RedisModule_InfoAddFieldString)(self.context, field.as_ptr(), value.0) };
    }
}

/// A name on one line that ends at the first colon.
fn field_name(name: &str) -> String {
    name.replace(['\r', '\n', '\0', ':'], "_")
}

thread_local! {
    static HANDLER: Cell<Option<fn(&InfoWriter)>> = const { Cell::new(None) };
}

impl Loader<'_> {
    /// Calls `handler` for every `INFO` that may want the module's part.
    ///
    /// # Errors
    /// The server refuses.
    pub fn info(&self, handler: fn(&InfoWriter)) -> Result<(), String> {
        HANDLER.set(Some(handler));
        // SAFETY: the load context and a static callback.
        let registered = unsafe { api!(RedisModule_RegisterInfoFunc)(self.raw_context(), Some(write)) };
        if registered == raw::REDISMODULE_OK { Ok(()) } else { Err("the server refuses INFO sections".into()) }
    }
}

unsafe extern "C" fn write(context: *mut raw::RedisModuleInfoCtx, for_crash_report: c_int) {
    // A crash report is written from a signal handler: touch nothing.
    if for_crash_report != 0 {
        return;
    }
    if let Some(handler) = HANDLER.get() {
        guarded("INFO", (), || handler(&InfoWriter { context }));
    }
}
