//! Internal: a change of the registrations, from the master or the append-only file

use redgrease_core::saved::Change;
use redgrease_engine::Input;

use super::request::Request;
use crate::error::Error;

/// Applies the change.
pub fn run(request: &Request<'_>) {
    let flags = request.invocation.flags();
    if !flags.replicated() && !flags.loading() {
        return request.error(&Error::ChangeIsInternal);
    }
    match Change::decode(request.args[1]) {
        Ok(change) => {
            request.driver.hand_in(Input::Change(change));
            request.invocation.replicate_verbatim();
            request.reply().simple("OK");
        }
        Err(error) => request.error(&error),
    }
}
