//! The behaviour of a server at its memory limit, as far as it affects an index.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

/// The memory settings of a server.
///
/// ```
/// use redgrease_cache_rules::memory::Memory;
///
/// let memory = Memory::of_info("maxmemory:900000\r\nmaxmemory_policy:allkeys-lru\r\n").unwrap();
/// assert!(memory.evicts_index());
/// assert_eq!(memory.to_string(), "maxmemory-policy allkeys-lru, maxmemory 900000 bytes");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Most bytes that the server may use; 0: no limit.
    pub limit: u64,
    /// The eviction policy, by the server's name for it.
    pub policy: String,
}

impl Memory {
    /// Parses the reply of `INFO memory`; `None` if the fields are missing.
    pub fn of_info(info: &str) -> Option<Self> {
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        Some(Self { limit: field("maxmemory")?.parse().ok()?, policy: field("maxmemory_policy")?.to_owned() })
    }

    /// Whether the policy may evict keys without an expiry, such as those of an index, once the limit is reached. An
    /// unknown policy counts as one that may.
    pub fn policy_takes_index(&self) -> bool {
        self.policy != "noeviction" && !self.policy.starts_with("volatile-")
    }

    /// Whether the server evicts keys of an index at its memory limit.
    pub fn evicts_index(&self) -> bool {
        self.limit > 0 && self.policy_takes_index()
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "maxmemory-policy {}, maxmemory {} bytes", self.policy, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_takes_the_index_if_it_deletes_keys_without_expiry() {
        for (policy, takes) in [
            ("noeviction", false),
            ("allkeys-lru", true),
            ("allkeys-lfu", true),
            ("allkeys-random", true),
            ("volatile-lru", false),
            ("volatile-ttl", false),
            ("volatile-random", false),
            ("of-a-later-version", true),
        ] {
            let memory = |limit| Memory { limit, policy: policy.to_owned() };
            assert_eq!(memory(1).evicts_index(), takes, "{policy}");
            assert_eq!(memory(0).policy_takes_index(), takes, "{policy}");
            assert!(!memory(0).evicts_index(), "without a limit nothing is evicted");
        }
    }

    #[test]
    fn settings_are_read_from_info_or_unknown() {
        let text = "# Memory\r\nused_memory:1\r\nmaxmemory:1048576\r\nmaxmemory_human:1.00M\r\nmaxmemory_policy:noeviction\r\n";
        let expected = Memory { limit: 1 << 20, policy: "noeviction".to_owned() };
        assert_eq!(Memory::of_info(text), Some(expected));
        for text in ["", "maxmemory:1", "maxmemory:x\r\nmaxmemory_policy:noeviction", "maxmemory_policy:noeviction"] {
            assert_eq!(Memory::of_info(text), None, "{text}");
        }
    }
}
