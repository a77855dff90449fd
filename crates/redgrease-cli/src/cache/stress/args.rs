//! The command-line arguments of the stress test.
//!
//! Names, defaults and units are those of the proof of concept's tools, so that their command lines work and runs can be compared.

use std::path::PathBuf;
use std::time::Duration;

use redgrease_filecache::Durability;

use super::keyspace::KeySpace;
use crate::units::{bytes, duration, interval};

/// Load-test a cache with many processes, kill some of them, and check the invariants
///
/// The report goes to stdout, progress to stderr. Exits with status 1 if an invariant is violated or a worker is missing,
/// and with 130 after Ctrl-C, which ends the run early with a report.
///
/// If a flag is repeated, its last value counts.
#[derive(Debug, Clone, clap::Args)]
#[command(args_override_self = true)]
pub struct Stress {
    #[command(flatten)]
    pub place: Place,
    /// Worker processes; 0 runs one worker inside this process, for debuggers
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub processes: u32,
    /// Duration of the run; bare numbers are seconds
    #[arg(long, value_name = "TIME", default_value = "20", value_parser = interval)]
    pub duration: Duration,
    /// Warm-up time before counting starts
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration)]
    pub warm_up: Duration,
    /// Remove all entries before the start
    #[arg(long)]
    pub clean_start: bool,
    #[command(flatten)]
    pub load: Load,
    /// Interval at which a random worker is killed and replaced
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub kill_every: Option<Duration>,
    /// Interval at which a random worker is stopped, as if its host hung
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub stop_every: Option<Duration>,
    /// Duration of such a stop [default: one and a half leases]
    #[arg(long, value_name = "TIME", value_parser = interval, requires = "stop_every")]
    pub stop_for: Option<Duration>,
    /// Print a line on stderr every N milliseconds [default: a longer one every 5 s, if stderr is not a terminal]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub monitor_ms: Option<u64>,
    /// Also print contents of the cache: oldest, newest, locks
    #[arg(long)]
    pub debug: bool,
    /// Interval of these reports, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    pub debug_interval_ms: u64,
    /// Number of items of each kind in these reports
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub debug_top: usize,
    /// Print one JSON object instead of the report
    #[arg(long)]
    pub json: bool,
    /// Do not show progress
    #[arg(long, short)]
    pub quiet: bool,
    /// Shell command to run between the end of the work and the checks; REDGREASE_CACHE_DIR is set
    #[arg(long, value_name = "COMMAND", hide = true)]
    pub before_checks: Option<String>,
}

/// The cache to use. The environment is ignored, so that no cache is filled with test data by accident.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// Directory of the cache
    #[arg(long, visible_alias = "dir", value_name = "DIR", default_value = "/tmp/poc-cache")]
    pub cache_dir: PathBuf,
    /// Coordinating server
    #[arg(long, visible_alias = "url", value_name = "URL", default_value = "redis://localhost:6379/0")]
    pub redis_url: String,
    /// Its host, instead of a URL
    #[arg(long, value_name = "HOST", conflicts_with = "redis_url")]
    pub redis_host: Option<String>,
    /// Its port, instead of a URL
    #[arg(long, value_name = "PORT", conflicts_with = "redis_url")]
    pub redis_port: Option<u16>,
    /// Its database, instead of a URL
    #[arg(long, value_name = "DB", conflicts_with = "redis_url")]
    pub redis_db: Option<u32>,
    /// Use no server, but file locks on one host
    #[arg(long, conflicts_with_all = ["redis_url", "redis_host", "redis_port", "redis_db"])]
    pub no_redis: bool,
    /// Prefix of the cache's keys in the server
    #[arg(long, value_name = "NAME", default_value = "poc-cache")]
    pub namespace: String,
    /// Take over a directory or a namespace that belonged to another cache
    #[arg(long)]
    pub adopt: bool,
}

impl Place {
    /// The chosen URL; `None` without a server.
    pub fn url(&self) -> Option<String> {
        if self.no_redis {
            return None;
        }
        if self.redis_host.is_none() && self.redis_port.is_none() && self.redis_db.is_none() {
            return Some(self.redis_url.clone());
        }
        let host = self.redis_host.as_deref().unwrap_or("127.0.0.1");
        let (port, db) = (self.redis_port.unwrap_or(6379), self.redis_db.unwrap_or(0));
        // An IPv6 address is in brackets in a URL.
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Some(format!("redis://{host}:{port}/{db}"))
    }
}

/// The work of each worker.
#[derive(Debug, Clone, clap::Args)]
pub struct Load {
    /// Share of operations that are creates
    #[arg(long, value_name = "SHARE", default_value_t = 0.15, value_parser = share)]
    pub write_prob: f64,
    /// Pause after each read
    #[arg(long, value_name = "TIME", default_value = "0.005", value_parser = duration)]
    pub read_sleep: Duration,
    /// Pause after each write
    #[arg(long, value_name = "TIME", default_value = "0.02", value_parser = duration)]
    pub write_sleep: Duration,
    /// Keys to create: short ones shared by all workers, so that they collide; own ones for each worker; or N keys
    #[arg(long, value_name = "shared|own|N", default_value = "shared", value_parser = KeySpaceKind::parse)]
    pub keyspace: KeySpaceKind,
    /// Random hex digits in a key [default: 4 when shared, 8 when own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    pub key_suffix_chars: Option<u32>,
    /// Sizes of the contents, uniformly distributed
    #[arg(long, value_name = "MIN..MAX", default_value = "200..4000", value_parser = sizes)]
    pub value_size: (usize, usize),
    /// Create by get_or_create; a write that finds an entry reads it and counts as "exists"
    #[arg(long)]
    pub fill: bool,
    /// Wait up to 1 s to read and 1.5 s to write, instead of giving up at once
    #[arg(long)]
    pub blocking: bool,
    /// Size limit of the cache; 0 keeps the current one
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = bytes)]
    pub max_bytes: u64,
    /// Lease time: how long locks of a dead process stay [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub lease: Option<Duration>,
    /// Data on the disk before a write is acknowledged: nothing, the file, or also its name [default: full]
    #[arg(long, value_name = "none|file|full", value_parser = durability)]
    pub durability: Option<Durability>,
    /// Seed of the random numbers, to repeat a run [default: random, and printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

impl Load {
    pub fn keyspace(&self) -> KeySpace {
        match self.keyspace {
            KeySpaceKind::Shared => KeySpace::Shared { digits: self.key_suffix_chars.unwrap_or(4) },
            KeySpaceKind::Own => KeySpace::Own { digits: self.key_suffix_chars.unwrap_or(8) },
            KeySpaceKind::Numbered(count) => KeySpace::Numbered { count },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySpaceKind {
    Shared,
    Own,
    Numbered(u32),
}

impl KeySpaceKind {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "shared" => Ok(Self::Shared),
            "own" => Ok(Self::Own),
            number => number
                .parse()
                .ok()
                .filter(|&count| count > 0)
                .map(Self::Numbered)
                .ok_or_else(|| "shared, own or a number of keys above 0".to_owned()),
        }
    }
}

/// One worker process of a stress run; started by `stress`
#[derive(Debug, Clone, clap::Args)]
pub struct StressWorker {
    /// Its number, from 1
    #[arg(long)]
    pub number: u32,
    /// Number of killed predecessors with this number
    #[arg(long)]
    pub generation: u32,
    /// Directory of the run's records
    #[arg(long)]
    pub folder: PathBuf,
    /// Seed of the run
    #[arg(long)]
    pub run_seed: u64,
    /// Arguments of the command `stress`
    #[arg(last = true)]
    pub words: Vec<std::ffi::OsString>,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "a share from 0 to 1".to_owned())
}

/// Many entries of the maximum size fit into memory.
const SIZE_MAX: u64 = 1 << 30;

fn sizes(text: &str) -> Result<(usize, usize), String> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let (least, most) = (bytes(least)?, bytes(most)?);
    if least > most || most > SIZE_MAX {
        return Err("two sizes of at most 1GiB, the smaller one first, such as 200..4000".to_owned());
    }
    Ok((least as usize, most as usize))
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "none" => Ok(Durability::None),
        "file" => Ok(Durability::File),
        "full" => Ok(Durability::Full),
        _ => Err("none, file or full".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        stress: Stress,
    }

    fn parse(words: &str) -> Result<Stress, clap::Error> {
        Line::try_parse_from(["stress"].into_iter().chain(words.split_whitespace())).map(|line| line.stress)
    }

    #[test]
    fn the_seeds_command_lines_are_understood() {
        let seed = parse("--processes 6 --duration 30 --write-prob 0.20").unwrap();
        assert_eq!((seed.processes, seed.duration, seed.load.write_prob), (6, Duration::from_secs(30), 0.2));
        let other = parse(
            "--processes 0 --duration 20 --cache-dir /c --redis-host h --redis-port 7 --redis-db 3 --namespace n \
             --clean-start --write-prob 0.15 --read-sleep 5ms --write-sleep 20ms --key-suffix-chars 4 --blocking \
             --max-bytes 1000000 --monitor-ms 1000 --debug --debug-interval-ms 2000 --debug-top 10",
        )
        .unwrap();
        assert_eq!(other.place.url().unwrap(), "redis://h:7/3");
        assert_eq!(other.load.max_bytes, 1_000_000);
        assert_eq!(other.load.read_sleep, parse("").unwrap().load.read_sleep);
        assert_eq!(parse("--processes 6 --processes 2").unwrap().processes, 2);
    }

    #[test]
    fn defaults_are_those_of_the_proof_of_concept() {
        let stress = parse("").unwrap();
        assert_eq!((stress.processes, stress.duration), (4, Duration::from_secs(20)));
        assert_eq!(stress.place.cache_dir, PathBuf::from("/tmp/poc-cache"));
        assert_eq!(stress.place.url().as_deref(), Some("redis://localhost:6379/0"));
        assert_eq!((stress.place.namespace.as_str(), stress.load.write_prob), ("poc-cache", 0.15));
        assert_eq!(
            (stress.load.read_sleep, stress.load.write_sleep),
            (Duration::from_millis(5), Duration::from_millis(20))
        );
        assert_eq!(stress.load.value_size, (200, 4000));
        assert_eq!(stress.load.keyspace(), KeySpace::Shared { digits: 4 });
    }

    #[test]
    fn the_help_tells_the_defaults_of_the_library() {
        let options = redgrease_filecache::Options::new("x");
        assert_eq!((options.lease, options.durability), (Duration::from_secs(10), Durability::Full));
    }

    #[test]
    fn flags_are_strict() {
        for wrong in [
            "--unknown",
            "--processes",
            "--processes -1",
            "--duration 0",
            "--write-prob 1.5",
            "--write-prob nan",
            "--keyspace 0",
            "--keyspace private",
            "--key-suffix-chars 0",
            "--key-suffix-chars 9",
            "--value-size 5..4",
            "--value-size 0..2GiB",
            "--durability most",
            "--stop-for 1s",
            "--no-redis --redis-port 1",
            "--redis-url redis://h --redis-port 1",
            "--monitor-ms 0",
            "stray",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_can_be_named_in_parts_or_left_out() {
        assert_eq!(parse("--redis-port 7").unwrap().place.url().unwrap(), "redis://127.0.0.1:7/0");
        assert_eq!(parse("--redis-host ::1").unwrap().place.url().unwrap(), "redis://[::1]:6379/0");
        assert_eq!(parse("--no-redis").unwrap().place.url(), None);
    }

    #[test]
    fn key_spaces_and_sizes_have_short_forms() {
        assert_eq!(parse("--keyspace own").unwrap().load.keyspace(), KeySpace::Own { digits: 8 });
        assert_eq!(parse("--keyspace 12").unwrap().load.keyspace(), KeySpace::Numbered { count: 12 });
        assert_eq!(parse("--value-size 1KiB").unwrap().load.value_size, (1024, 1024));
        assert_eq!(parse("--value-size 0..2kB").unwrap().load.value_size, (0, 2000));
    }
}
