//! `RG.INFOCLUSTER`, `RG.REFRESHCLUSTER`, `RG.NETWORKTEST` and `RG.CLUSTERSET argument [argument ...]`

use redgrease_engine::input::Command;

use super::request::{Request, Rights};

/// Passes `RG.INFOCLUSTER` to the engine.
pub fn info(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::InfoCluster);
}

/// Passes `RG.REFRESHCLUSTER` to the engine.
pub fn refresh(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::RefreshCluster);
}

/// Passes `RG.NETWORKTEST` to the engine.
pub fn network_test(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::NetworkTest);
}

/// Passes `RG.CLUSTERSET` to the engine.
pub fn set(request: &Request<'_>) {
    request.hand_in(Rights::Own, Command::SetCluster { args: request.args, from_shard: false });
}
