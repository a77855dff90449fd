//! The command-line arguments of `redgrease cache`. Those of `stress` are in its folder.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use redgrease_filecache::DEFAULT_NAMESPACE;

use super::stress::args::{Stress, StressWorker};
use crate::units::{bytes, duration, interval, max_bytes, max_count, max_duration, share};

/// Environment variable of the namespace.
pub const NAMESPACE_VARIABLE: &str = "REDGREASE_CACHE_NAMESPACE";

/// Inspect and maintain a file cache
///
/// Processes and hosts share it. A cache is a directory and, if processes of several hosts share it, a Redis or Valkey that coordinates them. Exit codes: 0,
/// 1 (failure, or a problem with the cache), 2 (usage error), and one for each error code of the cache: see
/// `redgrease cache codes`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 redgrease cache ls --dir /var/cache/thumbnails --long\n\
    \x20 redgrease cache doctor --dir /var/cache/thumbnails --url redis://localhost:6379/0")]
pub struct Cache {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Ls(Ls),
    Stat(Stat),
    Get(Get),
    Put(Put),
    Rm(Rm),
    Evict(Evict),
    Verify(Verify),
    Repair(Repair),
    Clear(Clear),
    Configure(Configure),
    Locks(Locks),
    Top(Top),
    Doctor(Doctor),
    Stress(Box<Stress>),
    Codes(Codes),
    #[command(hide = true)]
    StressWorker(Box<StressWorker>),
}

/// The cache to use.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// Directory of the cache
    #[arg(long, value_name = "DIR", env = "REDGREASE_CACHE_DIR")]
    pub dir: PathBuf,
    /// Coordinating server, as redis://host:port/db [default: none; file locks on one host]
    #[arg(long, value_name = "URL", env = "REDGREASE_CACHE_URL", hide_env_values = true)]
    pub url: Option<String>,
    /// Prefix of the cache's keys in that server
    #[arg(long, value_name = "NAME", env = NAMESPACE_VARIABLE, default_value = DEFAULT_NAMESPACE)]
    pub namespace: String,
    /// Take over a directory or a namespace that belonged to another cache
    #[arg(long)]
    pub adopt: bool,
    /// Print JSON; keys that are not UTF-8 become {"hex": "..."}
    #[arg(long)]
    pub json: bool,
}

/// Notation of keys.
#[derive(Debug, Clone, clap::Args)]
pub struct KeyForm {
    /// Keys are hexadecimal, two digits for each byte
    #[arg(long)]
    pub key_hex: bool,
}

/// List the entries
#[derive(Debug, clap::Args)]
pub struct Ls {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub form: KeyForm,
    /// Sort by key, or largest, oldest or longest unused first
    #[arg(long, value_enum, default_value = "key")]
    pub sort: Sort,
    /// Reverse the order
    #[arg(long)]
    pub reverse: bool,
    /// Only keys with this prefix
    #[arg(long, value_name = "KEY")]
    pub prefix: Option<OsString>,
    /// Only the first N entries
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<usize>,
    /// Show a table with size, age, last use, expiry and fencing number
    #[arg(long, short)]
    pub long: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    Key,
    Size,
    Age,
    Used,
}

/// Show cache or entry details
#[derive(Debug, clap::Args)]
pub struct Stat {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub form: KeyForm,
    /// Key of the entry [default: the whole cache]
    pub key: Option<OsString>,
}

/// Copy an entry to stdout or into a file
#[derive(Debug, clap::Args)]
pub struct Get {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub form: KeyForm,
    /// Key of the entry
    pub key: OsString,
    /// File to write, replaced when the copy is complete
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Timeout for waiting for an active writer
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration)]
    pub timeout: Duration,
}

/// Create an entry from a file or stdin
#[derive(Debug, clap::Args)]
pub struct Put {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub form: KeyForm,
    /// Key of the entry
    pub key: OsString,
    /// File to read; - or nothing for stdin
    pub file: Option<PathBuf>,
    /// Replace an existing entry
    #[arg(long)]
    pub replace: bool,
    /// Time to live of the entry
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub ttl: Option<Duration>,
    /// Media type to store with the entry
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Other metadata to store with the entry; can be repeated
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = crate::args::key_value)]
    pub metadata: Vec<(String, String)>,
    /// Timeout for waiting for other writers of the entry
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration)]
    pub timeout: Duration,
}

/// Remove entries
#[derive(Debug, clap::Args)]
pub struct Rm {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub form: KeyForm,
    /// Keys of the entries
    #[arg(required = true, value_name = "KEY")]
    pub keys: Vec<OsString>,
    /// Ignore missing entries
    #[arg(long, short)]
    pub force: bool,
}

/// Evict entries: the least recently used, or by age, idle time or prefix
///
/// Entries must meet all conditions: --older-than 1d --prefix tmp/ removes entries that meet both. Pinned entries and entries in use stay.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct Evict {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub form: KeyForm,
    /// Evict until the total size is at most this
    #[arg(long, value_name = "SIZE", value_parser = bytes, group = "what")]
    pub to_bytes: Option<u64>,
    /// Only entries older than this
    #[arg(long, value_name = "TIME", value_parser = duration, group = "what")]
    pub older_than: Option<Duration>,
    /// Only entries unused for this time
    #[arg(long, value_name = "TIME", value_parser = duration, group = "what")]
    pub idle_for: Option<Duration>,
    /// Only keys with this prefix
    #[arg(long, value_name = "KEY", group = "what")]
    pub prefix: Option<OsString>,
    /// Only list the entries that would be removed
    #[arg(long, short = 'n')]
    pub dry_run: bool,
}

/// Compare index and files without changing anything
///
/// Exits with status 1 if there is a problem.
#[derive(Debug, clap::Args)]
pub struct Verify {
    #[command(flatten)]
    pub place: Place,
    /// Also read every file and compare its digest
    #[arg(long)]
    pub digests: bool,
    /// Do not show progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// Compare index and files, and repair differences
///
/// Safe during normal use. Exits with status 1 if a problem could not be repaired.
#[derive(Debug, clap::Args)]
pub struct Repair {
    #[command(flatten)]
    pub place: Place,
    /// Also read every file and compare its digest
    #[arg(long)]
    pub digests: bool,
    /// Do not show progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// Remove all entries
#[derive(Debug, clap::Args)]
pub struct Clear {
    #[command(flatten)]
    pub place: Place,
    /// Do not ask for confirmation; required without a terminal
    #[arg(long, short)]
    pub yes: bool,
}

/// Show the limits, or change them for all users of the cache
///
/// Limits that are not given stay; 0 or none removes one. The resulting limits are shown. Entries above a new limit are evicted by the next write or round of maintenance.
#[derive(Debug, clap::Args)]
pub struct Configure {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub limits: NewLimits,
}

/// The limits to change.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
pub struct NewLimits {
    /// Total size of all entries
    #[arg(long, value_name = "SIZE", value_parser = max_bytes)]
    pub max_bytes: Option<u64>,
    /// Number of entries
    #[arg(long, value_name = "N", value_parser = max_count)]
    pub max_entries: Option<u64>,
    /// Size of one entry
    #[arg(long, value_name = "SIZE", value_parser = max_bytes)]
    pub max_entry_bytes: Option<u64>,
    /// Space to keep free on the disk
    #[arg(long, value_name = "SIZE", value_parser = max_bytes)]
    pub min_free_bytes: Option<u64>,
    /// Maximum age of an entry
    #[arg(long, value_name = "TIME", value_parser = max_duration)]
    pub max_age: Option<Duration>,
    /// Maximum idle time of an entry
    #[arg(long, value_name = "TIME", value_parser = max_duration)]
    pub max_idle: Option<Duration>,
    /// Target of an eviction as a share of the limit, from 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub low_mark: Option<f64>,
}

/// List readers, writers and waiting writers, or break a lock
#[derive(Debug, clap::Args)]
pub struct Locks {
    #[command(flatten)]
    pub place: Place,
    #[command(flatten)]
    pub form: KeyForm,
    /// Revoke the lock of this entry
    #[arg(long = "break", value_name = "KEY")]
    pub break_key: Option<OsString>,
}

/// Watch sizes, rates and locks of the cache
#[derive(Debug, clap::Args)]
pub struct Top {
    #[command(flatten)]
    pub place: Place,
    /// Interval between updates
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Exit after N updates [default: on Ctrl-C]
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
}

/// Examine directory, server and settings, and print findings with fixes
///
/// Exits with status 1 if one of the findings is an error.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    #[command(flatten)]
    pub place: Place,
}

/// List the exit codes
#[derive(Debug, clap::Args)]
pub struct Codes {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Subcommand};
    use clap::Parser;

    fn parse(words: &str) -> Result<Command, clap::Error> {
        let line = ["redgrease", "cache"].into_iter().chain(words.split(' '));
        Args::try_parse_from(line).map(|args| match args.subcommand {
            Some(Subcommand::Cache(cache)) => cache.command,
            other => panic!("{other:?} is not about a cache"),
        })
    }

    #[test]
    fn sizes_and_times_are_read_with_their_units() {
        let Ok(Command::Evict(evict)) = parse("evict --dir /c --to-bytes 1MiB --older-than 2h --dry-run") else {
            panic!("not understood");
        };
        assert_eq!((evict.to_bytes, evict.older_than), (Some(1 << 20), Some(Duration::from_secs(7200))));
        assert!(evict.dry_run && evict.idle_for.is_none());
    }

    #[test]
    fn limits_are_read_with_their_units_and_may_be_none() {
        let Ok(Command::Configure(configure)) = parse(
            "configure --dir /c --max-bytes 1GiB --max-entries none --min-free-bytes 0 --max-idle 2h --low-mark 0.8",
        ) else {
            panic!("not understood");
        };
        let expected = NewLimits {
            max_bytes: Some(1 << 30),
            max_entries: Some(0),
            max_entry_bytes: None,
            min_free_bytes: Some(0),
            max_age: None,
            max_idle: Some(Duration::from_secs(7200)),
            low_mark: Some(0.8),
        };
        assert_eq!(configure.limits, expected);
    }

    #[test]
    fn evict_is_told_what() {
        assert!(parse("evict --dir /c").is_err());
        assert!(parse("evict --dir /c --dry-run").is_err());
    }

    #[test]
    fn a_key_that_looks_like_an_option_follows_two_dashes() {
        let Ok(Command::Get(get)) = parse("get --dir /c -- -k") else { panic!("not understood") };
        assert_eq!(get.key, "-k");
        assert!(parse("get --dir /c -k").is_err());
    }

    #[test]
    fn misspelt_and_incomplete_command_lines_are_refused() {
        for wrong in [
            "ls --dirr /c",
            "ls --dir /c --sort colour",
            "get --dir /c",
            "put --dir /c",
            "rm --dir /c",
            "put --dir /c k --ttl 0",
            "put --dir /c k --meta novalue",
            "top --dir /c --interval 0",
            "stress --proceses 4",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
