//! `RG.DUMPPLUGINS`

use redgrease_core::render::Reply;

use super::request::Request;
use crate::reply;

/// The version of the Python plugin whose functions scripts find: that of RedisGears 1.2.
pub const PLUGIN_VERSION: i64 = 10_206;

/// Answers with the only language.
pub fn run(request: &Request<'_>) {
    let plugin = Reply::Array(vec![
        Reply::bulk("name"),
        Reply::bulk("GearsPythonPlugin"),
        Reply::bulk("version"),
        Reply::Int(PLUGIN_VERSION),
    ]);
    reply::write(&request.reply(), &Reply::Array(vec![plugin]));
}
