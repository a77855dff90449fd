//! `RG.DUMPEXECUTIONS`

use redgrease_engine::input::Command;

use super::request::{Request, Rights};

/// Hands it in.
pub fn run(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::DumpExecutions);
}
