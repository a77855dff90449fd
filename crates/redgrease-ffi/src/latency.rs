//! The server's latency monitor: `LATENCY LATEST`, `LATENCY HISTORY`.

use std::ffi::CStr;
use std::time::Duration;

use crate::api::api;
use crate::server::Server;

impl Server {
    /// Records that the main thread was kept by something for so long; the server drops what is below
    /// `latency-monitor-threshold`.
    pub fn record_latency(&self, event: &'static CStr, time: Duration) {
        // SAFETY: a static name; the server copies what it keeps.
        unsafe { api!(RedisModule_LatencyAddSample)(event.as_ptr(), time.as_millis() as i64) };
    }
}
