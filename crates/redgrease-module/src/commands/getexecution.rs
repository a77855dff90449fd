//! `RG.GETEXECUTION id [SHARD | CLUSTER]`

use redgrease_engine::input::{Command, Scope};

use super::request::{Request, Rights};

/// Passes the command to the engine.
pub fn run(request: &Request<'_>) {
    let scope = match request.args.get(2).map(|word| word.to_ascii_uppercase()).as_deref() {
        None => Scope::Default,
        Some(b"SHARD") => Scope::Shard,
        Some(b"CLUSTER") => Scope::Cluster,
        Some(_) => Scope::Unknown,
    };
    request.hand_in(Rights::Own, Command::GetExecution { execution: request.args[1], scope });
}
