//! `RG.INNERATOMIC`, internal: the atomic block that is about to be entered runs inside of it, so that its effects
//! are one unit of replication

use crate::error::Error;
use redgrease_engine::Input;

use super::request::Request;

/// Serves the block.
pub fn run(request: &Request<'_>) {
    let driver = request.driver;
    if !driver.ask(|engine| engine.has_atomic_to_enter()) {
        return request.error(&Error::AtomicIsInternal);
    }
    driver.hand_in(Input::AtomicEntered);
    request.reply().simple("OK");
}
