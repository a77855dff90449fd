//! Numbers that must not be confused, and the identifiers that users see.

use alloc::string::{String, ToString};
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

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

/// The id of a shard: forty characters, zeros when the server is not part of a cluster of several shards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId([u8; SHARD_ID_LEN]);

impl ShardId {
    /// The id of a server that is not in cluster mode.
    #[must_use]
    pub fn standalone() -> ShardId {
        ShardId([b'0'; SHARD_ID_LEN])
    }

    /// The id with these characters; `None` unless they are forty visible ASCII characters.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<ShardId> {
        let bytes: [u8; SHARD_ID_LEN] = text.try_into().ok()?;
        bytes.iter().all(u8::is_ascii_graphic).then_some(ShardId(bytes))
    }

    /// An id of up to forty characters, with zeros in front of shorter ones, as RedisGears reads pushed topologies.
    #[must_use]
    pub fn padded(text: &[u8]) -> Option<ShardId> {
        let mut bytes = [b'0'; SHARD_ID_LEN];
        let start = SHARD_ID_LEN.checked_sub(text.len())?;
        bytes[start..].copy_from_slice(text);
        ShardId::parse(&bytes)
    }

    /// Its forty characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The identifier `<shard id>-<counter>`.
    #[must_use]
    pub fn identifier(self, counter: u64) -> String {
        Identifier { shard: self, counter }.to_string()
    }

    /// The counter of an identifier of this shard; anything else names nothing here.
    #[must_use]
    pub fn counter(self, identifier: &[u8]) -> Option<u64> {
        Identifier::parse(identifier).filter(|identifier| identifier.shard == self).map(|identifier| identifier.counter)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ShardId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ShardId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ShardId, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        ShardId::parse(text.as_bytes()).ok_or_else(|| de::Error::custom("a shard id has forty visible characters"))
    }
}

/// The identifier of an execution or registration, the same on all shards: the shard that made it, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identifier {
    /// The shard that made it.
    pub shard: ShardId,
    /// Its number there.
    pub counter: u64,
}

impl Identifier {
    /// Reads `<shard id>-<counter>`; `None`: anything else.
    #[must_use]
    pub fn parse(identifier: &[u8]) -> Option<Identifier> {
        let (shard, rest) = identifier.split_at_checked(SHARD_ID_LEN)?;
        let shard = ShardId::parse(shard)?;
        let text = core::str::from_utf8(rest.strip_prefix(b"-")?).ok()?;
        let has_leading_zero = text.len() > 1 && text.starts_with('0');
        let canonical = !text.is_empty() && !has_leading_zero && text.bytes().all(|byte| byte.is_ascii_digit());
        let counter = if canonical { text.parse().ok()? } else { return None };
        Some(Identifier { shard, counter })
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

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

    #[test]
    fn the_id_of_a_shard_has_forty_visible_characters() {
        let id = "07c37dfeb235213a872192d90877d0cd55635b91";
        assert_eq!(ShardId::parse(id.as_bytes()).map(|shard| shard.to_string()), Some(id.into()));
        for text in ["", "7", &id[1..], &format!("{id}0"), &format!(" {}", &id[1..]), &format!("\u{e9}{}", &id[2..])] {
            assert_eq!(ShardId::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(ShardId::padded(b"7"), ShardId::parse(format!("{}7", "0".repeat(39)).as_bytes()));
        assert_eq!(ShardId::padded(&[b'1'; 41]), None);
    }
}
