//! The command line of the loader, for the program `redgrease` and for `redgrease.cli`.
//!
//! Values are checked in `settings`, in the same way and with the same words as those of the environment and of files.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::layers::{Layer, Origin};

/// Load scripts into a server.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Arguments {
    /// Files and directories with scripts and requirements to load
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Configuration file with lines `option = value`, in addition to ./redgrease.conf and /etc/redgrease/conf.d/*.conf
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<String>,
    /// Keep running, and load files again SECONDS after their last change [default: 5]
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub watch: Option<String>,
    /// Look into directories below those that are given
    #[arg(short, long)]
    pub recursive: bool,
    /// Names of scripts [default: *.py]
    #[arg(long, value_name = "GLOB")]
    pub script_pattern: Option<String>,
    /// Names of files that list requirements of the scripts [default: *requirements*.txt]
    #[arg(long, value_name = "GLOB")]
    pub requirements_pattern: Option<String>,
    /// Regular expression; scripts with a match in their path are run with UNBLOCKING [default: unblock]
    #[arg(long, value_name = "REGEX")]
    pub unblocking_pattern: Option<String>,
    /// Names of files and directories to ignore; can be repeated [default: _* and .*]
    #[arg(short, long, value_name = "GLOB")]
    pub ignore: Vec<String>,
    /// Requirement of all scripts, for example "requests>=2"; can be repeated
    #[arg(long, value_name = "REQUIREMENT")]
    pub requirement: Vec<String>,
    /// Prefix of the keys that record what is loaded [default: /redgrease/scripts]
    #[arg(long, value_name = "PREFIX")]
    pub index_prefix: Option<String>,
    /// Timeout for a script, in seconds [default: 600]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<String>,
    /// Host of the server [default: localhost; `redis` without a value]
    #[arg(
        short, long, visible_alias = "host", value_name = "HOST", num_args = 0..=1, default_missing_value = "redis",
        help_heading = "Connection"
    )]
    pub server: Option<String>,
    /// Port of the server [default: 6379]
    #[arg(short, long, value_name = "PORT", help_heading = "Connection")]
    pub port: Option<String>,
    /// The server as `redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]`, `rediss://` for TLS, or `unix:///PATH`; the other
    /// options replace parts of it
    #[arg(long, value_name = "URL", help_heading = "Connection")]
    pub url: Option<String>,
    /// Encrypt the connection, and check the certificate of the server
    #[arg(long, help_heading = "Connection")]
    pub tls: bool,
    /// Certificates of the authorities to trust, in PEM format [default: those of the system]
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub cacert: Option<String>,
    /// User to authenticate as; the password is read from REDISCLI_AUTH or REDGREASE_PASSWORD
    #[arg(long, value_name = "NAME", help_heading = "Connection")]
    pub user: Option<String>,
    /// Password; prefer the environment variable: other users can read command lines
    #[arg(long, value_name = "PASSWORD", help_heading = "Connection")]
    pub password: Option<String>,
    /// Configuration of Python's logging, as INI, JSON or YAML; the loader then runs as `python -m redgrease.cli`
    #[arg(short, long, value_name = "FILE", help_heading = "Log")]
    pub log_config: Option<String>,
    /// The least important lines to print: debug, info, warning or error [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = "Log")]
    pub log_level: Option<String>,
    /// Form of the lines: text, tabs or json [default: text]
    #[arg(long, value_name = "FORMAT", help_heading = "Log")]
    pub log_format: Option<String>,
}

impl Arguments {
    /// The given options.
    pub fn layer(&self) -> Layer {
        let mut layer = Layer::default();
        let texts = [
            ("config", &self.config),
            ("watch", &self.watch),
            ("script-pattern", &self.script_pattern),
            ("requirements-pattern", &self.requirements_pattern),
            ("unblocking-pattern", &self.unblocking_pattern),
            ("index-prefix", &self.index_prefix),
            ("timeout", &self.timeout),
            ("server", &self.server),
            ("port", &self.port),
            ("url", &self.url),
            ("cacert", &self.cacert),
            ("user", &self.user),
            ("password", &self.password),
            ("log-config", &self.log_config),
            ("log-level", &self.log_level),
            ("log-format", &self.log_format),
        ];
        for (name, value) in texts {
            layer.set(name, value.iter().cloned().collect(), Origin::Option);
        }
        for (name, is_set) in [("recursive", self.recursive), ("tls", self.tls)] {
            layer.set(name, is_set.then(|| "true".to_owned()).into_iter().collect(), Origin::Option);
        }
        for (name, values) in [("ignore", &self.ignore), ("requirement", &self.requirement)] {
            layer.set(name, values.clone(), Origin::Option);
        }
        layer
    }
}

/// Joins `--watch` and `-w` with a number that follows, as `--watch=SECONDS`; any other word that follows is a path.
pub fn join_delays(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(mut word) = words.next() {
        if word == "--" {
            joined.push(word);
            joined.extend(words);
            return joined;
        }
        if ends_with_watch(&word)
            && let Some(delay) = words.next_if(|next| is_number(next))
        {
            word.push("=");
            word.push(delay);
        }
        joined.push(word);
    }
    joined
}

/// Whether it is `--watch`, or `-w` alone or after other short options without values, as in `-rw`.
fn ends_with_watch(word: &OsStr) -> bool {
    let word = word.to_string_lossy();
    word == "--watch"
        || word
            .strip_prefix('-')
            .and_then(|short| short.strip_suffix('w'))
            .is_some_and(|flags| flags.chars().all(|flag| flag == 'r'))
}

fn is_number(word: &OsStr) -> bool {
    word.to_str().is_some_and(|word| {
        word.starts_with(|first: char| first.is_ascii_digit() || first == '.') && word.parse::<f64>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = join_delays(line.split_whitespace().map(OsString::from));
        Program::try_parse_from(words).map(|program| program.arguments)
    }

    #[test]
    fn a_delay_is_a_number() {
        for (line, watch, paths) in [
            ("redgrease --server 10.0.2.21 --watch scripts/", Some("true"), vec!["scripts/"]),
            ("redgrease --watch 2 scripts/", Some("2"), vec!["scripts/"]),
            ("redgrease --watch .5 scripts/", Some(".5"), vec!["scripts/"]),
            ("redgrease --watch=2.5 scripts/", Some("2.5"), vec!["scripts/"]),
            ("redgrease -w 2 scripts/", Some("2"), vec!["scripts/"]),
            ("redgrease -w=2 scripts/", Some("2"), vec!["scripts/"]),
            ("redgrease -rw 2 scripts/", Some("2"), vec!["scripts/"]),
            ("redgrease -w scripts/", Some("true"), vec!["scripts/"]),
            ("redgrease scripts/ --watch", Some("true"), vec!["scripts/"]),
            ("redgrease a --watch 2b", Some("true"), vec!["a", "2b"]),
            ("redgrease -w -- 2", Some("true"), vec!["2"]),
            ("redgrease -- --watch 2", None, vec!["--watch", "2"]),
            ("redgrease a inf", None, vec!["a", "inf"]),
        ] {
            let arguments = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(arguments.watch.as_deref(), watch, "{line}");
            assert_eq!(arguments.paths, vec_of(&paths), "{line}");
        }
    }

    fn vec_of(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn a_server_without_a_name_is_redis() {
        assert_eq!(parse("redgrease a --server").unwrap().server.as_deref(), Some("redis"));
        assert_eq!(parse("redgrease -s -p 1 a").unwrap().server.as_deref(), Some("redis"));
        assert_eq!(parse("redgrease --host b a").unwrap().server.as_deref(), Some("b"));
    }

    #[test]
    fn a_misspelt_option_is_refused_with_the_nearest_one() {
        let error = parse("redgrease --wach a").unwrap_err().to_string();
        assert!(error.contains("--watch"), "{error}");
    }

    #[test]
    fn each_option_is_in_the_layer() {
        let line = "redgrease a -c f --watch=1 -r --script-pattern s --requirements-pattern q --unblocking-pattern u -i i \
                    --requirement q --index-prefix x --timeout 1 -s h -p 1 --url u --tls --cacert c --user u --password p \
                    -l l --log-level debug --log-format json";
        let given = parse(line).unwrap().layer();
        let names: Vec<&str> = given.names().collect();
        assert_eq!(names.len(), crate::layers::OPTIONS.len(), "{names:?}");
    }
}
