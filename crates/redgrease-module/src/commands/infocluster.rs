//! `RG.INFOCLUSTER`

use super::request::Request;
use crate::shards::has_other_shards;

/// Answers that there is no cluster.
pub fn run(request: &Request<'_>) {
    if has_other_shards(&request.driver.server) {
        return request.error(
            "NOTYET RG.INFOCLUSTER on a cluster of several shards is not available in this version of redgrease: ask \
             CLUSTER SHARDS or CLUSTER SLOTS",
        );
    }
    request.reply().bulk(b"no cluster mode");
}
