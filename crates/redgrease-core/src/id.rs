//! Numbers that must not be confused, and the identifiers that users see.

use alloc::format;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

/// Types of numbers that must not be confused: a doc comment (and further attributes) and a name each.
#[macro_export]
macro_rules! numbers {
    ($($(#[$attribute:meta])* $name:ident),+ $(,)?) => { $(
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Display::fmt(&self.0, f)
            }
        }
    )+ };
}

numbers! {
    /// Number of an execution on this shard.
    #[derive(Serialize, Deserialize)]
    ExecutionNo,
    /// Number of a registration on this shard.
    RegistrationNo,
    /// Number of a session on this shard.
    #[derive(Serialize, Deserialize)]
    SessionNo,
    /// Number of a worker process since the module was loaded.
    #[derive(Serialize, Deserialize)]
    WorkerNo,
    /// Number that a worker gave to a plan.
    #[derive(Serialize, Deserialize)]
    PlanNo,
}

impl PlanNo {
    /// The number of a plan in the data of its session, or back from there: the same data may be loaded more than once, and
    /// two sessions that were made from it must not share numbers in a worker.
    #[must_use]
    pub fn in_data_of(self, session: SessionNo) -> PlanNo {
        // An odd factor: no two sessions have the same mask.
        PlanNo(self.0 ^ session.0.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

/// A numbered database of the server, as `SELECT` names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Database(pub u32);

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Database {
    /// The number under which the data of this database is found after `SWAPDB one other`.
    #[must_use]
    pub fn after_swap(self, one: Database, other: Database) -> Database {
        match self {
            _ if self == one => other,
            _ if self == other => one,
            _ => self,
        }
    }
}

/// Length of a shard id in an execution's or registration's identifier.
pub const SHARD_ID_LEN: usize = 40;

/// The id of this shard: forty zeros when it is not part of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardId(String);

impl ShardId {
    /// The id of a server that is not in cluster mode.
    #[must_use]
    pub fn standalone() -> ShardId {
        ShardId("0".repeat(SHARD_ID_LEN))
    }

    /// Its forty characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identifier `<shard id>-<counter>`.
    #[must_use]
    pub fn identifier(&self, counter: u64) -> String {
        format!("{}-{counter}", self.0)
    }

    /// The counter of an identifier of this shard; anything else names nothing here.
    #[must_use]
    pub fn counter(&self, identifier: &[u8]) -> Option<u64> {
        let rest = identifier.strip_prefix(self.0.as_bytes())?.strip_prefix(b"-")?;
        let text = core::str::from_utf8(rest).ok()?;
        let has_leading_zero = text.len() > 1 && text.starts_with('0');
        let canonical = !text.is_empty() && !has_leading_zero && text.bytes().all(|byte| byte.is_ascii_digit());
        if canonical { text.parse().ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_found_again_by_its_counter() {
        let shard = ShardId::standalone();
        assert_eq!(shard.identifier(17), format!("{}-17", "0".repeat(40)));
        for counter in [0, 17, u64::MAX] {
            assert_eq!(shard.counter(shard.identifier(counter).as_bytes()), Some(counter));
        }
    }

    #[test]
    fn a_swap_of_databases_moves_the_data_of_these_two_only() {
        let [one, other, third] = [Database(0), Database(3), Database(7)];
        assert_eq!([one, other, third].map(|db| db.after_swap(one, other)), [other, one, third]);
    }

    #[test]
    fn anything_else_is_no_identifier() {
        let shard = ShardId::standalone();
        let zeros = "0".repeat(40);
        for text in [
            "",
            "0-1",
            &zeros,
            &format!("{zeros}-"),
            &format!("{zeros}-+1"),
            &format!("{zeros}-x"),
            &format!("{zeros}-07"),
            &format!("{zeros}-00"),
            &format!("1{zeros}-1"),
        ] {
            assert_eq!(shard.counter(text.as_bytes()), None, "{text}");
        }
    }
}
