//! `RG.PYDUMPREQS`

use redgrease_engine::input::Command;

use super::request::{Request, Rights};

/// Passes the command to the engine.
pub fn run(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::DumpRequirements);
}
