//! The server's log.

use std::ffi::CStr;

use crate::api::{api, c_text};
use crate::context;

/// How important a line of the server's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// `debug`
    Debug,
    /// `verbose`
    Verbose,
    /// `notice`
    Notice,
    /// `warning`
    Warning,
}

impl LogLevel {
    fn c_name(self) -> &'static CStr {
        match self {
            LogLevel::Debug => c"debug",
            LogLevel::Verbose => c"verbose",
            LogLevel::Notice => c"notice",
            LogLevel::Warning => c"warning",
        }
    }
}

/// Lines are cut to this many bytes: the server's own buffer holds one kilobyte.
const LOG_LINE_BYTES: usize = 900;

/// Writes to the server's log; from any thread. Line breaks become several lines, other control characters escapes.
pub fn log(level: LogLevel, text: &str) {
    let context = context::detached();
    for line in text.split('\n') {
        let mut line: String = line
            .chars()
            .flat_map(|c| if c.is_control() && c != '\t' { c.escape_default().collect() } else { vec![c] })
            .collect();
        while !line.is_empty() {
            let mut cut = line.len().min(LOG_LINE_BYTES);
            while !line.is_char_boundary(cut) {
                cut -= 1;
            }
            let rest = line.split_off(cut);
            let part = c_text(&line);
            // SAFETY: the context is null or the detached one of this thread; the format takes exactly one C string.
            unsafe { api!(RedisModule_Log)(context, level.c_name().as_ptr(), c"%s".as_ptr(), part.as_ptr()) };
            line = rest;
        }
    }
}
