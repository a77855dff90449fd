//! Ending a server: asked politely first, killed when the deadline passes.

use std::time::{Duration, Instant};

use redis::ProtocolVersion;
use rustix::process::Signal;

use crate::process::Process;
use crate::wire::Address;

/// How long a server may take to end after it was asked.
pub const DEADLINE: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(20);

/// How the server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Clean,
    Killed,
}

/// Ends the server and returns when it is gone. `hurry` is asked again and again; true ends the patience.
pub fn shut_down(
    port: u16,
    process: Process,
    memory_only: bool,
    mut gone: impl FnMut() -> bool,
    mut hurry: impl FnMut() -> bool,
) -> End {
    let asked = Instant::now();
    if !send_shutdown(port, memory_only) {
        // With a password, or without a free connection: the signal means the same to the server.
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

/// Sends SHUTDOWN; false when the server could not be asked or refused. No reply is what a server does that obeys.
fn send_shutdown(port: u16, memory_only: bool) -> bool {
    let Ok(mut connection) = Address::local(port).connect(ProtocolVersion::RESP2, Some(Duration::from_millis(500)))
    else {
        return false;
    };
    let mut command = redis::cmd("SHUTDOWN");
    if memory_only {
        command.arg("NOSAVE");
    }
    match command.query::<redis::Value>(&mut connection) {
        Ok(_) => false,
        Err(error) => error.is_io_error() || error.is_timeout() || error.is_connection_dropped(),
    }
}
