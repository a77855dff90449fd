//! Stopping a server: by SHUTDOWN or a signal, and by SIGKILL at the deadline.

use std::time::{Duration, Instant};

use redis::ProtocolVersion;
use rustix::process::Signal;

use crate::connection::ConnectionOptions;
use crate::process::Process;

/// Time that a server may take to stop.
pub const DEADLINE: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(20);

/// How the server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Clean,
    Killed,
}

/// Stops the server and returns when it has ended. `hurry` is polled; true kills the server at once.
pub fn shut_down(
    port: u16,
    process: Process,
    memory_only: bool,
    mut gone: impl FnMut() -> bool,
    mut hurry: impl FnMut() -> bool,
) -> End {
    let asked = Instant::now();
    if !send_shutdown(port, memory_only) {
        // With a password, or without a free connection: the signal has the same effect.
        process.signal(Signal::TERM);
    }
    while !gone() {
        if asked.elapsed() > DEADLINE || hurry() {
            process.signal(Signal::KILL);
            let killed = Instant::now();
            while !gone() && killed.elapsed() < DEADLINE {
                std::thread::sleep(STEP);
            }
            return End::Killed;
        }
        std::thread::sleep(STEP);
    }
    End::Clean
}

/// Sends SHUTDOWN; returns false if the server cannot be reached or refuses. A server that obeys sends no reply.
fn send_shutdown(port: u16, memory_only: bool) -> bool {
    let connection = ConnectionOptions::local(port)
        .target()
        .and_then(|target| target.connect(ProtocolVersion::RESP2, Some(Duration::from_millis(500))));
    let Ok(mut connection) = connection else { return false };
    let mut command = redis::cmd("SHUTDOWN");
    if memory_only {
        command.arg("NOSAVE");
    }
    match command.query::<redis::Value>(&mut connection) {
        Ok(_) => false,
        Err(error) => error.is_io_error() || error.is_timeout() || error.is_connection_dropped(),
    }
}
