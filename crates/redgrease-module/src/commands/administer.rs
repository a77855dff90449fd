//! `RG.ADMINISTER`: permission for it is the right to end objects of other users

use super::request::Request;

/// Does nothing.
pub fn run(request: &Request<'_>) {
    request.reply().simple("OK");
}
