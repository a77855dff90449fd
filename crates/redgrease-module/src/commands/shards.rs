//! `RG.HELLO` and `RG.NETWORKTEST`, which shards of RedisGears send to each other

use super::request::Request;
use crate::error::Error;

/// Answers that this server knows no other shards.
pub fn hello(request: &Request<'_>) {
    request.error(&Error::NoShards);
}

/// Sends a message to all other shards: there are none.
pub fn network_test(request: &Request<'_>) {
    request.reply().simple("OK");
}
