//! `RG.REFRESHCLUSTER`

use super::request::Request;

/// There is nothing to refresh.
pub fn run(request: &Request<'_>) {
    request.reply().simple("OK");
}
