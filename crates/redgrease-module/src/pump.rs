//! Work in slices: a descriptor that is always ready, watched only while there is work.

use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use redgrease_ffi::Server;
use redgrease_ffi::event_loop::Readiness;
use rustix::event::{EventfdFlags, eventfd};

/// Time that one turn of the server's loop gives to scans and reads.
pub const SLICE: Duration = Duration::from_micros(250);

/// The descriptor, and whether it is watched.
pub struct Pump {
    fd: OwnedFd,
    running: Cell<bool>,
}

impl Pump {
    /// A pump that stands still.
    pub fn new() -> Result<Pump, String> {
        let fd =
            eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| format!("eventfd: {error}"))?;
        Ok(Pump { fd, running: Cell::new(false) })
    }

    /// Has `work` called once per turn of the loop, until [`Pump::stop`].
    pub fn run(&self, server: &Server, work: fn()) {
        if !self.running.replace(true)
            && let Err(error) = server.watch(self.fd.as_raw_fd(), Readiness::Readable, work)
        {
            self.running.set(false);
            server.log(redgrease_ffi::LogLevel::Warning, &format!("rg: {error}"));
        }
    }

    /// No more work.
    pub fn stop(&self, server: &Server) {
        if self.running.replace(false) {
            server.unwatch(self.fd.as_raw_fd(), Readiness::Readable);
        }
    }
}
