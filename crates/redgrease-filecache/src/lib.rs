//! A file cache: one directory that many processes, on one host or several, fill and read.
//!
//! # Layout
//! - [`FileCache`], [`aio::FileCache`]: the blocking and the async API, with the same methods;
//! - [`Options`], [`Limits`], [`Put`]: options of a cache, and of new content;
//! - [`Error`], [`Code`]: errors;
//! - [`Stat`], [`Info`], [`Stats`], [`Lock`], [`Verification`]: reports.
//!
//! Internal: `engine` and `sweep` are the operations, written once against the traits of `edge`; `disk` is the directory;
//! `store` the index in a server or in a file; `session` and `flights` are the state of a process. The rules that make it
//! safe are in [`redgrease_cache_rules`].

pub mod aio;
mod cache;
mod disk;
mod doctor;
mod edge;
mod engine;
mod error;
mod flights;
mod lock;
mod opening;
mod options;
mod report;
mod session;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
mod wake;

pub use cache::{Begun, Cursor, FileCache, Handle, Writer};
pub use error::{BoxError, Code, Error, Result};
pub use options::{
    Check, DEFAULT_NAMESPACE, Durability, Limits, MAX_LEASE, MAX_METADATA_BYTES, MIN_LEASE, OnOutage, Options, Put,
};
pub use redgrease_cache_rules::MAX_KEY_BYTES;
pub use report::{
    Depth, Evict, Evicted, Finding, Info, Level, Lock, LockKind, Maintained, Outcome, Problem, ProblemKind, Stat,
    Stats, Verification,
};

use std::collections::HashMap;
use std::time::Duration;

use redgrease_cache_rules::protocol::{self, HeldKind};

/// Converts the numbers of the index for users.
fn report_of(id: u64, namespace: &str, info: &protocol::Info, free_bytes: u64) -> Info {
    Info {
        id,
        namespace: namespace.to_owned(),
        entries: info.entries,
        bytes: info.bytes,
        reserved_bytes: info.reserved,
        garbage_bytes: info.garbage,
        limits: Limits::from(info.bounds),
        sessions: info.sessions,
        writers: info.writers,
        readers: info.readers,
        evicted: info.evicted,
        free_bytes,
    }
}

/// Converts the leases of the index for users. Leases of ended sessions are left out; the next sweep removes them.
fn locks_of(leases: edge::Leases) -> Vec<Lock> {
    let edge::Leases { held, sessions, now } = leases;
    let living: HashMap<u64, (u64, String)> = sessions
        .into_iter()
        .filter(|(_, until, _)| *until > now)
        .map(|(id, until, owner)| (id, (until, owner)))
        .collect();
    held.into_iter()
        .filter_map(|held| {
            let (until, owner) = living.get(&held.token.session)?;
            Some(Lock {
                key: held.key,
                kind: match held.kind {
                    HeldKind::Writer => LockKind::Writer,
                    HeldKind::Reader => LockKind::Reader,
                    HeldKind::Waiting => LockKind::Waiting,
                },
                owner: owner.clone(),
                age: (held.since != 0).then(|| Duration::from_micros(now.saturating_sub(held.since))),
                left: Duration::from_micros(until.saturating_sub(now)),
                fence: held.fence,
            })
        })
        .collect()
}
