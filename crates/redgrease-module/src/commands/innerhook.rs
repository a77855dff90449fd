//! Internal: a command that is hooked, put there by the command filter

use redgrease_engine::input::Command;

use super::request::{Request, Rights};
use crate::error::Error;

/// Passes the command to the engine.
pub fn run(request: &Request<'_>) {
    let args = &request.args[1..];
    if !request.driver.ask(|engine| engine.hooks_call(args)) && args.is_empty() {
        return request.error(&Error::HookIsInternal);
    }
    request.hand_in(Rights::Own, Command::Hooked { args });
}
