//! `RG.INFOCLUSTER`

use super::request::Request;
use crate::error::Error;
use crate::shards::has_other_shards;

/// Answers that there is no cluster.
pub fn run(request: &Request<'_>) {
    if has_other_shards(&request.driver.server) {
        return request.error(&Error::NoClusterInfo);
    }
    request.reply().bulk(b"no cluster mode");
}
