//! Panics in callbacks of the server.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::log::{LogLevel, log};

/// Runs the body of a callback; a panic is our bug: it is logged and `fallback` returned, and never unwinds into C.
pub(crate) fn guarded<T>(what: &str, fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown".to_owned());
        log(LogLevel::Warning, &format!("INTERNAL panic in {what}: {text}"));
        fallback
    })
}
