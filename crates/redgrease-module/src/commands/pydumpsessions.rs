//! `RG.PYDUMPSESSIONS [VERBOSE] [DEAD] [SESSIONS id ...]`

use redgrease_engine::input::{Command, SessionFilter};

use super::request::{Request, Rights};
use crate::error::Error;

/// Passes the command to the engine.
pub fn run(request: &Request<'_>) {
    let mut filter = SessionFilter::default();
    let mut words = request.args[1..].iter();
    while let Some(word) = words.next() {
        match word.to_ascii_uppercase().as_slice() {
            b"VERBOSE" => filter.verbose = true,
            // The documentation of RedisGears calls it `TS`.
            b"DEAD" | b"TS" => filter.dead = true,
            b"SESSIONS" => filter.names = Some(words.by_ref().copied().collect()),
            _ => return request.error(&Error::UnknownOption(String::from_utf8_lossy(word).into_owned())),
        }
    }
    request.hand_in(Rights::Own, Command::DumpSessions(filter));
}
