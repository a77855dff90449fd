//! Options of a cache and of new content.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use redgrease_cache_rules::protocol::Bounds;
use serde::{Deserialize, Serialize};

use crate::error::{Cause, Error, Result};

/// The shortest lease: a shorter one would expire during ordinary pauses of a process.
pub const MIN_LEASE: Duration = Duration::from_millis(100);

/// The longest lease.
pub const MAX_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// The default namespace.
pub const DEFAULT_NAMESPACE: &str = "redgrease-cache";

/// What is on the disk when a write returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing: after a power failure files may be missing or damaged (reads detect that).
    None,
    /// The content; the file's name may be lost.
    File,
    /// Content and name.
    #[default]
    Full,
}

/// How often reads compare the digest of the content. The length is always compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Check {
    /// Each time the whole content is read.
    #[default]
    Always,
    /// One in sixteen.
    Sampled,
    /// Never, except by `verify`.
    Never,
}

/// Behaviour when the server cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnOutage {
    /// Operations fail.
    #[default]
    Fail,
    /// Reads find the newest file of the key in the directory; everything else fails.
    Degrade,
}

/// Options for opening a cache.
#[derive(Clone)]
pub struct Options {
    /// The directory; it is created if its parent exists.
    pub directory: PathBuf,
    /// The server: `redis://`, `rediss://` (TLS) or `redis+unix://`. `None`: no server, one host, file locks.
    pub url: Option<String>,
    /// Prefix of the cache's keys in the server, in braces: letters, digits and `_.:-`, up to 128.
    pub namespace: String,
    /// Time after which a lease that is not renewed expires, [`MIN_LEASE`] to [`MAX_LEASE`].
    pub lease: Duration,
    /// Limits of a new cache. An existing one keeps its limits; see [`crate::FileCache::configure`].
    pub limits: Option<Limits>,
    /// What is on the disk when a write returns.
    pub durability: Durability,
    /// How often reads are checked.
    pub check: Check,
    /// Permissions of files.
    pub file_mode: u32,
    /// Permissions of directories.
    pub directory_mode: u32,
    /// Timeout for connecting.
    pub connect_timeout: Duration,
    /// Timeout for a reply of the server.
    pub command_timeout: Duration,
    /// Behaviour when the server cannot be reached.
    pub on_outage: OnOutage,
    /// Take over a directory: of another namespace, of another server, or a flat directory of the proof of concept.
    pub adopt: bool,
    /// Only read: create nothing, not even a directory, and take no lease.
    pub read_only: bool,
    /// Interval of this process's maintenance (expired entries, dead sessions, limits); `None`: never.
    pub maintenance: Option<Duration>,
}

impl Options {
    /// Options for a cache in this directory, for one host, without a server.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            url: None,
            namespace: DEFAULT_NAMESPACE.to_owned(),
            lease: Duration::from_secs(10),
            limits: None,
            durability: Durability::default(),
            check: Check::default(),
            file_mode: 0o640,
            directory_mode: 0o750,
            connect_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_secs(5),
            on_outage: OnOutage::default(),
            adopt: false,
            read_only: false,
            maintenance: Some(Duration::from_secs(30)),
        }
    }

    /// Options from `REDGREASE_CACHE_DIR`, `REDGREASE_CACHE_URL` and `REDGREASE_CACHE_NAMESPACE`.
    ///
    /// # Errors
    /// If `REDGREASE_CACHE_DIR` is not set.
    pub fn from_env() -> Result<Self> {
        let directory = std::env::var_os("REDGREASE_CACHE_DIR")
            .ok_or_else(|| bad("REDGREASE_CACHE_DIR is not set; it names the directory of the cache".to_owned()))?;
        let mut options = Self::new(directory);
        options.url = std::env::var("REDGREASE_CACHE_URL").ok().filter(|url| !url.is_empty());
        if let Ok(namespace) = std::env::var("REDGREASE_CACHE_NAMESPACE") {
            options.namespace = namespace;
        }
        Ok(options)
    }

    /// Sets the coordinating server.
    pub fn with_url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Sets the namespace.
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets the lease time.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the limits of a new cache.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// The server's address without secrets: `host:port/db`, or the path of its socket.
    pub fn server(&self) -> Option<String> {
        let url = self.url.as_ref()?;
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
        Some(rest.split('?').next().unwrap_or(rest).trim_end_matches('/').trim_end_matches("/0").to_owned())
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !(MIN_LEASE..=MAX_LEASE).contains(&self.lease) {
            return Err(bad(format!("lease of {:?}; it must be from 100 ms to 1 day", self.lease)));
        }
        for (name, timeout) in [("connect_timeout", self.connect_timeout), ("command_timeout", self.command_timeout)] {
            if timeout.is_zero() {
                return Err(bad(format!("{name} of 0; it must be above 0")));
            }
        }
        if self.maintenance.is_some_and(|every| !(MIN_LEASE..=365 * MAX_LEASE).contains(&every)) {
            return Err(bad("maintenance is done every 100 ms to 365 days, or not at all".to_owned()));
        }
        self.limits.as_ref().map_or(Ok(()), |limits| limits.check("open"))?;
        prefix(&self.namespace).map(drop)
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Options")
            .field("directory", &self.directory)
            .field("server", &self.server())
            .field("namespace", &self.namespace)
            .field("lease", &self.lease)
            .field("limits", &self.limits)
            .field("durability", &self.durability)
            .field("check", &self.check)
            .field("on_outage", &self.on_outage)
            .field("adopt", &self.adopt)
            .field("read_only", &self.read_only)
            .field("maintenance", &self.maintenance)
            .finish_non_exhaustive()
    }
}

/// The prefix of the keys of a namespace. A name in braces is used unchanged.
pub(crate) fn prefix(namespace: &str) -> Result<String> {
    let inner = namespace.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(namespace);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    if inner.is_empty() || inner.len() > 128 || !inner.bytes().all(allowed) {
        return Err(bad(format!(
            "namespace {namespace:?}; it is 1 to 128 letters, digits and _ . : -, as a whole in braces or not"
        )));
    }
    Ok(format!("{{{inner}}}"))
}

fn bad(message: String) -> Error {
    Error::new("open", None, Cause::BadConfig(message))
}

/// The limits of a cache, shared by all its users. 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Sum of the sizes of all entries, in bytes.
    pub max_bytes: u64,
    /// Number of entries.
    pub max_entries: u64,
    /// Size of one entry, in bytes.
    pub max_entry_bytes: u64,
    /// Space to keep free on the file system, in bytes.
    pub min_free_bytes: u64,
    /// Age at which an entry expires, regardless of its own time to live.
    pub max_age: Duration,
    /// Idle time after which an entry expires.
    pub max_idle: Duration,
    /// Target of an eviction, as a share of the limit.
    pub low_mark: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 0,
            max_entries: 0,
            max_entry_bytes: 0,
            min_free_bytes: 0,
            max_age: Duration::ZERO,
            max_idle: Duration::ZERO,
            low_mark: 0.9,
        }
    }
}

/// The largest number that the index represents exactly.
const MAX_NUMBER: u64 = 1 << 52;

impl Limits {
    /// A limit of the total size in bytes.
    pub fn max_bytes(bytes: u64) -> Self {
        Self { max_bytes: bytes, ..Self::default() }
    }

    pub(crate) fn check(&self, operation: &'static str) -> Result<()> {
        let refused = |message| Err(Error::new(operation, None, Cause::BadConfig(message)));
        if !(0.0..=1.0).contains(&self.low_mark) {
            return refused(format!("low_mark of {}; it is a share from 0 to 1", self.low_mark));
        }
        for (name, value) in [
            ("max_bytes", self.max_bytes),
            ("max_entries", self.max_entries),
            ("max_entry_bytes", self.max_entry_bytes),
            ("min_free_bytes", self.min_free_bytes),
        ] {
            if value > MAX_NUMBER {
                return refused(format!("{name} of {value}; it may be up to {MAX_NUMBER} (2^52), and 0 is no limit"));
            }
        }
        for (name, value) in [("max_age", self.max_age), ("max_idle", self.max_idle)] {
            if micros(value) > MAX_NUMBER {
                let most = MAX_NUMBER / 1_000_000;
                return refused(format!(
                    "{name} of {} s; it may be up to {most} s, and 0 is no limit",
                    value.as_secs()
                ));
            }
        }
        Ok(())
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl From<Limits> for Bounds {
    fn from(limits: Limits) -> Self {
        Self {
            max_bytes: limits.max_bytes,
            max_entries: limits.max_entries,
            max_entry_bytes: limits.max_entry_bytes,
            max_age: micros(limits.max_age),
            max_idle: micros(limits.max_idle),
            min_free_bytes: limits.min_free_bytes,
            low_mark: (limits.low_mark * 1000.0).round() as u64,
        }
    }
}

impl From<Bounds> for Limits {
    fn from(bounds: Bounds) -> Self {
        Self {
            max_bytes: bounds.max_bytes,
            max_entries: bounds.max_entries,
            max_entry_bytes: bounds.max_entry_bytes,
            min_free_bytes: bounds.min_free_bytes,
            max_age: Duration::from_micros(bounds.max_age),
            max_idle: Duration::from_micros(bounds.max_idle),
            low_mark: bounds.low_mark as f64 / 1000.0,
        }
    }
}

/// Options and metadata of new content.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Put {
    /// How long to wait for another writer of the key; zero: not at all.
    pub timeout: Duration,
    /// Time to live.
    pub ttl: Option<Duration>,
    /// Its size in bytes, if known: this space is reserved before anything is written.
    pub size: Option<u64>,
    /// Its media type.
    pub content_type: Option<String>,
    /// Other metadata of the user.
    pub user: BTreeMap<String, String>,
}

/// Maximum size of the metadata of one entry, in bytes.
pub const MAX_METADATA_BYTES: usize = 64 * 1024;

impl Put {
    /// Options with this timeout for another writer.
    pub fn waiting(timeout: Duration) -> Self {
        Self { timeout, ..Self::default() }
    }

    /// Sets the time to live.
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

/// Metadata of an entry, in the index and beside its file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub user: BTreeMap<String, String>,
}

impl Metadata {
    pub fn pack(&self) -> Vec<u8> {
        if *self == Self::default() {
            return Vec::new();
        }
        serde_json::to_vec(self).expect("texts are always JSON")
    }

    pub fn unpack(bytes: &[u8]) -> Self {
        if bytes.is_empty() { Self::default() } else { serde_json::from_slice(bytes).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_that_would_reach_others_are_refused() {
        assert_eq!(prefix("poc-cache").unwrap(), "{poc-cache}");
        assert_eq!(prefix("{poc-cache}").unwrap(), "{poc-cache}");
        for wrong in ["", "{}", "a*", "a?", "[a]", "a b", "{a}b", "a{b}", "a\0", "Ā", &"x".repeat(129)] {
            let error = prefix(wrong).unwrap_err().to_string();
            assert!(error.contains("namespace") && error.contains("letters"), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        for (url, shown) in [
            ("redis://user:s3cret@h:1/2", "h:1/2"),
            ("redis://:s3cret@h:1/0", "h:1"),
            ("redis+unix:///run/s?pass=s3cret", "/run/s"),
            ("rediss://h/", "h"),
        ] {
            let options = Options::new("x").with_url(url);
            assert_eq!(options.server().as_deref(), Some(shown));
            assert!(!format!("{options:?}").contains("s3cret"));
        }
    }

    #[test]
    fn leases_have_bounds() {
        for lease in [0, 1, 99, 86_400_001] {
            let error = Options::new("x").with_lease(Duration::from_millis(lease)).check().unwrap_err();
            assert!(error.to_string().contains("100 ms to 1 day"), "{error}");
        }
        Options::new("x").with_lease(MIN_LEASE).check().unwrap();
    }

    #[test]
    fn limits_survive_the_index() {
        let limits = Limits { max_bytes: 1, max_idle: Duration::from_millis(5), low_mark: 0.85, ..Limits::default() };
        assert_eq!(Limits::from(Bounds::from(limits)), limits);
        assert!(Limits { low_mark: f64::NAN, ..limits }.check("open").is_err());
        for (wrong, named) in [
            (Limits { max_bytes: u64::MAX, ..limits }, "max_bytes of 18446744073709551615"),
            (Limits { max_age: Duration::MAX, ..limits }, "max_age of 18446744073709551615 s"),
        ] {
            let error = wrong.check("configure").unwrap_err().to_string();
            assert!(["configure", named, "up to"].iter().all(|words| error.contains(words)), "{error}");
        }
    }
}
