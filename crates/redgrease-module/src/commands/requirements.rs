//! `RG.PYDUMPREQS`, `RG.PYEXPORTREQ name`, `RG.PYIMPORTREQ piece [piece ...]`

use redgrease_engine::input::Command;

use super::request::{Request, Rights};

/// Passes `RG.PYDUMPREQS` to the engine.
pub fn dump(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::DumpRequirements);
}

/// Passes `RG.PYEXPORTREQ` to the engine.
pub fn export(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::ExportRequirement(request.args[1]));
}

/// Passes `RG.PYIMPORTREQ` to the engine.
pub fn import(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::ImportRequirement(&request.args[1..]));
}
