//! `RG.PAUSEREGISTRATIONS [ABORTPENDING] id [id ...]` and `RG.UNPAUSEREGISTRATIONS id [id ...]`

use redgrease_engine::input::Command;

use super::request::{Request, Rights};

/// Passes `RG.PAUSEREGISTRATIONS` to the engine.
pub fn pause(request: &Request<'_>) {
    let words = &request.args[1..];
    let (abort_pending, registrations) = match words.split_first() {
        Some((word, rest)) if word.eq_ignore_ascii_case(b"ABORTPENDING") => (true, rest),
        _ => (false, words),
    };
    request.hand_in(Rights::Administer, Command::Pause { registrations, abort_pending });
}

/// Passes `RG.UNPAUSEREGISTRATIONS` to the engine.
pub fn unpause(request: &Request<'_>) {
    request.hand_in(Rights::Administer, Command::Unpause { registrations: &request.args[1..] });
}
