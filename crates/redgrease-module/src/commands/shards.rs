//! Internal: what shards send to each other: `RG.HELLO`, `RG.INNERMSGCOMMAND sender run function message number`,
//! `RG.CLUSTERSETFROMSHARD argument [argument ...]`

use redgrease_engine::input::Command;

use super::request::{Request, Rights};

/// Passes `RG.HELLO` to the engine.
pub fn hello(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::Hello);
}

/// Passes a message to the engine.
pub fn message(request: &Request<'_>) {
    let [_, sender, run, function, payload, number] = request.args else { return request.reply().wrong_arity() };
    request.hand_in(Rights::Own, Command::PeerCommand { sender, run, function, payload, number });
}

/// Passes a relayed topology to the engine.
pub fn set_cluster(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::SetCluster { args: request.args, from_shard: true });
}
