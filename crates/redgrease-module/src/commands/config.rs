//! `RG.CONFIGGET key [key ...]` and `RG.CONFIGSET key value [key value ...]`

use redgrease_engine::input::Command;

use super::request::{Request, Rights};

/// Passes `RG.CONFIGGET` to the engine.
pub fn get(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::ConfigGet { names: &request.args[1..] });
}

/// Passes `RG.CONFIGSET` to the engine.
pub fn set(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::ConfigSet { words: &request.args[1..] });
}
