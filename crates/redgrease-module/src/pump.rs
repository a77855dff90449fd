//! Makes the server's loop run again at once while work is left: a descriptor that is always ready, watched only then.

use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use redgrease_ffi::Server;
use redgrease_ffi::event_loop::Readiness;
use rustix::event::{EventfdFlags, eventfd};

/// The descriptor, and whether it is watched.
pub struct Pump {
    fd: OwnedFd,
    running: Cell<bool>,
}

impl Pump {
    /// A pump that is not running.
    pub fn new() -> Result<Pump, String> {
        let fd =
            eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| format!("eventfd: {error}"))?;
        Ok(Pump { fd, running: Cell::new(false) })
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Makes the loop not sleep before its next turns, until [`Pump::stop`].
    pub fn run(&self, server: &Server) {
        if !self.running.replace(true)
            && let Err(error) = server.watch(self.fd.as_raw_fd(), Readiness::Readable, || {})
        {
            self.running.set(false);
            server.log(redgrease_ffi::LogLevel::Warning, &format!("rg: {error}"));
        }
    }

    /// Lets the loop sleep again.
    pub fn stop(&self, server: &Server) {
        if self.running.replace(false) {
            server.unwatch(self.fd.as_raw_fd(), Readiness::Readable);
        }
    }
}
