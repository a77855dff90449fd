//! `RG.PYPROFILE STATS session [order]` and `RG.PYPROFILE RESET session`

use redgrease_engine::input::Command;

use super::request::{Request, Rights};
use crate::error::Error;

/// The order of the statistics if none is given: that of RedisGears.
const ORDER: &[u8] = b"tottime";

/// Passes the command to the engine.
pub fn run(request: &Request<'_>) {
    let statistics = match request.args[1].to_ascii_uppercase().as_slice() {
        b"STATS" => true,
        b"RESET" => false,
        _ => return request.error(&Error::UnknownProfile),
    };
    let (Some(session), false) = (request.args.get(2), !statistics && request.args.len() > 3) else {
        return request.reply().wrong_arity();
    };
    let order = String::from_utf8_lossy(request.args.get(3).copied().unwrap_or(ORDER));
    let order = statistics.then_some(&*order);
    request.hand_in(Rights::Administer, Command::Profile { session, order });
}
