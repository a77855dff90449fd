//! `RG.UNREGISTER id [ABORTPENDING]`

use redgrease_engine::input::Command;

use super::request::{Request, Rights};

/// Passes the command to the engine.
pub fn run(request: &Request<'_>) {
    let abort_pending = request.args.get(2).is_some_and(|word| word.eq_ignore_ascii_case(b"ABORTPENDING"));
    request.hand_in(Rights::Administer, Command::Unregister { registration: request.args[1], abort_pending });
}
