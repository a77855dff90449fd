//! `RG.PYEXECUTE script [UNBLOCKING] [ID id] [DESCRIPTION text] [UPGRADE] [REPLACE_WITH id]
//! [RUN | REGISTER plan callbacks] [REQUIREMENTS req ...]`

use redgrease_core::command::PyExecute;
use redgrease_engine::input::Command;

use super::request::{Request, Rights};
use crate::random::hex_digits;

/// Length of the id of a session for which the client gives none.
const ID_DIGITS: usize = 40;

/// Parses the arguments and passes the command to the engine.
pub fn run(request: &Request<'_>) {
    let parsed = PyExecute::parse(request.args[1], &request.args[2..]).map_err(|error| error.to_string());
    match parsed.and_then(|arguments| Ok((arguments, hex_digits(ID_DIGITS)?))) {
        Ok((arguments, new_id)) => {
            // Only a command that replaces a session can end an object of another user.
            let replaces = arguments.upgrade || arguments.replace_with.is_some();
            let rights = if replaces { Rights::Administer } else { Rights::Own };
            request.hand_in(rights, Command::PyExecute { arguments, new_id: &new_id, tagged: request.tagged });
        }
        Err(error) => request.error(&error),
    }
}
