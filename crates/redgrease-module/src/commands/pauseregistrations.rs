//! `RG.PAUSEREGISTRATIONS [ABORTPENDING] id [id ...]` and `RG.UNPAUSEREGISTRATIONS id [id ...]`

use redgrease_engine::input::Command;

use super::request::{Request, Rights};

/// Passes `RG.PAUSEREGISTRATIONS` to the engine.
pub fn pause(request: &Request<'_>) {
    // Runs that have not begun are aborted in any case, as in RedisGears.
    let words = &request.args[1..];
    let registrations = match words.split_first() {
        Some((word, rest)) if word.eq_ignore_ascii_case(b"ABORTPENDING") => rest,
        _ => words,
    };
    request.hand_in(Rights::Administer, Command::Pause { registrations });
}

/// Passes `RG.UNPAUSEREGISTRATIONS` to the engine.
pub fn unpause(request: &Request<'_>) {
    request.hand_in(Rights::Administer, Command::Unpause { registrations: &request.args[1..] });
}
