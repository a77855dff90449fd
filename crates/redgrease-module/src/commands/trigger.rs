//! `RG.TRIGGER name [arg ...]`

use redgrease_engine::input::Command;

use super::request::{Request, Rights};

/// Passes the command to the engine.
pub fn run(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::Trigger { args: &request.args[1..], tagged: request.tagged });
}
