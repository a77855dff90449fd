//! `RG.PYEXECUTE script [UNBLOCKING] [ID id] [DESCRIPTION text] [UPGRADE] [REPLACE_WITH id] [REQUIREMENTS req ...]`

use redgrease_core::command::PyExecute;
use redgrease_engine::input::Command;

use super::request::{Request, Rights};

/// Parses the arguments and hands it in.
pub fn run(request: &Request<'_>) {
    match PyExecute::parse(request.args[1], &request.args[2..]) {
        Ok(arguments) => {
            // Only what replaces a session can end what belongs to somebody.
            let replaces = arguments.upgrade || arguments.replace_with.is_some();
            let rights = if replaces { Rights::Administer } else { Rights::Own };
            request.hand_in(rights, Command::PyExecute { arguments, tagged: request.tagged });
        }
        Err(error) => request.error(&error.to_string()),
    }
}
