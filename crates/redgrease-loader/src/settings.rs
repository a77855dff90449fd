//! The options of the loader with their types and defaults, and the check of every value.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Class, Error};
use crate::layers::{Given, Layer, Origin, merge};
use crate::log::Level;
use crate::patterns::{PatternTexts, Patterns};

/// Prefix of the keys that record what is loaded, unless another one is given.
pub const DEFAULT_INDEX_PREFIX: &str = "/redgrease/scripts";
/// Time without changes before a file is loaded again, unless another one is given.
pub const DEFAULT_DELAY: Duration = Duration::from_secs(5);
/// Timeout for a script, unless another one is given.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
/// Port of a server, unless another one is given.
pub const DEFAULT_PORT: u16 = 6379;
/// Host of a server, unless another one is given.
pub const DEFAULT_SERVER: &str = "localhost";

/// The longest time that an option accepts: a year.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Which server, and as which user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Host.
    pub server: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Address, of which the other options replace parts.
    pub url: Option<String>,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// File with the certificates of the authorities to trust.
    pub cacert: Option<PathBuf>,
    /// User.
    pub user: Option<String>,
    /// Password.
    pub password: Option<String>,
}

/// Form of the lines of the log on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Time, level and message.
    #[default]
    Text,
    /// The fields of RedGrease 0.3, separated by tabs.
    Tabs,
    /// An object of JSON in each line.
    Json,
}

/// The options of a loader.
#[derive(Debug, Clone)]
pub struct LoaderSettings {
    /// Prefix of the keys that record what is loaded.
    pub index_prefix: String,
    /// Which files are scripts, which list requirements, and which are ignored.
    pub patterns: Patterns,
    /// Requirements of all scripts.
    pub requirements: Vec<String>,
    /// Timeout for a script.
    pub timeout: Duration,
    /// Which server, and as which user.
    pub connection: ConnectionSettings,
}

/// The options of the program.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Those of the loader.
    pub loader: LoaderSettings,
    /// Look into directories below those that are given.
    pub recursive: bool,
    /// Keep running, and load files again after this time without changes.
    pub watch: Option<Duration>,
    /// Configuration of Python's logging.
    pub log_config: Option<PathBuf>,
    /// The least important lines of the log that are printed.
    pub log_level: Level,
    /// The form of its lines.
    pub log_format: LogFormat,
    /// What the user should know about the values.
    pub notes: Vec<String>,
}

impl Settings {
    /// The options of the command line, of an environment, and of configuration files: of the one that is named, and of
    /// those of `defaults` that exist, the most important one first.
    ///
    /// # Errors
    /// A value is wrong, or a configuration file cannot be read or parsed.
    pub fn resolve(
        given: Layer,
        variable: impl Fn(&str) -> Option<String>,
        defaults: &[PathBuf],
    ) -> Result<Self, Error> {
        let [current, old] = Layer::of_environment(variable);
        let mut layers = vec![given, current, old];
        let named = layers.iter().find_map(|layer| layer.get("config")).map(named_file).transpose()?;
        layers.extend(named);
        for file in defaults.iter().filter(|file| file.is_file()) {
            layers.push(of_file(file)?);
        }
        typed(&merge(layers))
    }
}

/// Where the configuration files of the system are.
const SYSTEM_CONFIG: &str = "/etc/redgrease/conf.d";

/// The configuration files that are read if they exist: `redgrease.conf` of this directory, then those of the system.
pub fn default_config_files(directory: &Path) -> Vec<PathBuf> {
    config_files(directory, Path::new(SYSTEM_CONFIG))
}

fn config_files(directory: &Path, system: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(system).into_iter().flatten().flatten();
    let mut system: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "conf")).collect();
    // Of two files of the system the later name counts.
    system.sort_by(|a, b| b.cmp(a));
    std::iter::once(directory.join("redgrease.conf")).chain(system).collect()
}

fn named_file(given: &Given) -> Result<Layer, Error> {
    let [file] = given.values.as_slice() else {
        return Err(given.error("several files", "name one file"));
    };
    of_file(Path::new(file))
}

fn of_file(file: &Path) -> Result<Layer, Error> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let what = format!("configuration file {}: {error}", file.display());
        Error::new(Class::Usage, what, "name a file that exists with --config, and make it readable")
    })?;
    Layer::of_file(&file.display().to_string(), &text)
}

fn typed(all: &Layer) -> Result<Settings, Error> {
    let text = |name| all.get(name).map(single).transpose();
    let mut texts = PatternTexts::default();
    for (name, pattern) in [
        ("script-pattern", &mut texts.script),
        ("requirements-pattern", &mut texts.requirements),
        ("unblocking-pattern", &mut texts.unblocking),
    ] {
        if let Some(given) = text(name)? {
            *pattern = given.to_owned();
        }
    }
    if let Some(given) = all.get("ignore") {
        texts.ignore.clone_from(&given.values);
    }
    let patterns = Patterns::new(&texts).map_err(|bad| {
        let fix = "write a glob such as *.py, and a regular expression for --unblocking-pattern";
        match all.get(bad.option) {
            Some(given) => given.error(bad.reason, fix),
            None => Error::new(Class::Usage, bad.reason, fix),
        }
    })?;
    Ok(Settings {
        loader: LoaderSettings {
            index_prefix: text("index-prefix")?.unwrap_or(DEFAULT_INDEX_PREFIX).to_owned(),
            patterns,
            requirements: all.get("requirement").map(|given| given.values.clone()).unwrap_or_default(),
            timeout: all.get("timeout").map(seconds).transpose()?.unwrap_or(DEFAULT_TIMEOUT),
            connection: connection(all)?,
        },
        recursive: all.get("recursive").map(flag).transpose()?.unwrap_or(false),
        watch: all.get("watch").map(watch).transpose()?.flatten(),
        log_config: text("log-config")?.map(PathBuf::from),
        log_level: all.get("log-level").map(level).transpose()?.unwrap_or(Level::Info),
        log_format: all.get("log-format").map(format).transpose()?.unwrap_or_default(),
        notes: notes(all),
    })
}

/// The options of the connection. Those that are less important than the address do not change it.
fn connection(all: &Layer) -> Result<ConnectionSettings, Error> {
    let url = all.get("url");
    let given = |name| all.get(name).filter(|given| url.is_none_or(|url| given.rank <= url.rank));
    let text = |name| given(name).map(single).transpose().map(|value| value.map(str::to_owned));
    Ok(ConnectionSettings {
        server: text("server")?,
        port: given("port").map(port).transpose()?,
        url: url.map(single).transpose()?.map(str::to_owned),
        tls: given("tls").map(flag).transpose()?.unwrap_or(false),
        cacert: all.get("cacert").map(single).transpose()?.map(PathBuf::from),
        user: text("user")?,
        password: all.get("password").map(single).transpose()?.map(str::to_owned),
    })
}

/// A line for each variable with a name of RedGrease 0.3.
fn notes(all: &Layer) -> Vec<String> {
    let is_old = |name: &str| !name.starts_with("RED");
    let note = |given: &Given| match given.origin {
        Origin::Variable(variable) if is_old(variable) => Some(format!(
            "the environment variable {variable} is used as --{}: name it REDGREASE_{variable}, or remove it",
            given.name
        )),
        _ => None,
    };
    all.names().filter_map(|name| all.get(name)).filter_map(note).collect()
}

fn single(given: &Given) -> Result<&str, Error> {
    match given.values.as_slice() {
        [value] => Ok(value),
        _ => Err(given.error(format!("{} values", given.values.len()), "give one value")),
    }
}

/// A word for yes or no.
fn truth(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn flag(given: &Given) -> Result<bool, Error> {
    match single(given)? {
        "1" => Ok(true),
        "0" => Ok(false),
        word => {
            truth(word).ok_or_else(|| given.error(format!("{word:?} is neither yes nor no"), "write true or false"))
        }
    }
}

fn watch(given: &Given) -> Result<Option<Duration>, Error> {
    let word = single(given)?;
    match truth(word) {
        Some(true) => Ok(Some(DEFAULT_DELAY)),
        Some(false) => Ok(None),
        None => time(word).map(Some).ok_or_else(|| {
            let fix = "write a number of seconds above 0; to load files only once leave the option out, or write false";
            given.error(format!("{word:?} is not a delay"), fix)
        }),
    }
}

fn seconds(given: &Given) -> Result<Duration, Error> {
    let word = single(given)?;
    time(word).ok_or_else(|| given.error(format!("{word:?} is not a time"), "write a number of seconds above 0"))
}

/// A number of seconds above 0, at most `TIME_MAX`.
fn time(word: &str) -> Option<Duration> {
    let seconds = word.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero() && *time <= TIME_MAX)
}

fn port(given: &Given) -> Result<u16, Error> {
    let word = single(given)?;
    let number = word.parse().ok().filter(|number| *number != 0);
    number.ok_or_else(|| given.error(format!("{word:?} is not a port"), "write a number from 1 to 65535, such as 6379"))
}

fn level(given: &Given) -> Result<Level, Error> {
    let word = single(given)?;
    let named = |level: &Level| level.name().eq_ignore_ascii_case(word);
    let known = || given.error(format!("there is no level {word:?}"), "write debug, info, warning or error");
    Level::ALL.into_iter().find(named).ok_or_else(known)
}

fn format(given: &Given) -> Result<LogFormat, Error> {
    match single(given)? {
        "text" => Ok(LogFormat::Text),
        "tabs" => Ok(LogFormat::Tabs),
        "json" => Ok(LogFormat::Json),
        word => Err(given.error(format!("there is no format {word:?}"), "write text, tabs or json")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(options: &[(&'static str, &str)]) -> Layer {
        let mut layer = Layer::default();
        for (name, value) in options {
            layer.set(name, vec![(*value).to_owned()], Origin::Option);
        }
        layer
    }

    fn resolve(
        options: &[(&'static str, &str)],
        variables: &[(&str, &str)],
        files: &[PathBuf],
    ) -> Result<Settings, Error> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::resolve(layer(options), variable, files)
    }

    #[test]
    fn defaults() {
        let settings = resolve(&[], &[], &[]).unwrap();
        assert_eq!(settings.loader.index_prefix, "/redgrease/scripts");
        assert!(!settings.recursive && settings.watch.is_none() && settings.log_config.is_none());
        assert_eq!(settings.loader.connection, ConnectionSettings::default());
        assert!(settings.notes.is_empty());
    }

    #[test]
    fn command_line_then_environment_then_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let defaults =
            [file("a.conf", "port = 1\nserver = a\nuser = a\nrecursive"), file("b.conf", "user = b\ntimeout = 2")];
        let named = file("named.conf", "server = named");
        let options = [("config", named.to_str().unwrap()), ("index-prefix", "given")];
        let settings =
            resolve(&options, &[("REDGREASE_PORT", "7"), ("REDGREASE_INDEX_PREFIX", "no")], &defaults).unwrap();
        let ConnectionSettings { server, port, user, .. } = settings.loader.connection;
        assert_eq!((server.as_deref(), port, user.as_deref()), (Some("named"), Some(7), Some("a")));
        assert_eq!(settings.loader.index_prefix, "given");
        assert!(settings.recursive);
        assert_eq!(settings.loader.timeout, Duration::from_secs(2));
    }

    #[test]
    fn of_the_files_of_the_system_the_one_with_the_later_name_counts() {
        let (directory, system) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |path: PathBuf, text: &str| std::fs::write(path, text).unwrap();
        write(system.path().join("10-all.conf"), "server = ten\nuser = ten\nport = 10");
        write(system.path().join("20-some.conf"), "server = twenty\nuser = twenty");
        write(system.path().join("30-none.txt"), "server = thirty");
        std::fs::create_dir(system.path().join("40-directory.conf")).unwrap();
        std::os::unix::fs::symlink("/no/such/file", system.path().join("50-gone.conf")).unwrap();
        write(directory.path().join("redgrease.conf"), "server = here");
        let settings = resolve(&[], &[], &config_files(directory.path(), system.path())).unwrap();
        let ConnectionSettings { server, port, user, .. } = settings.loader.connection;
        assert_eq!((server.as_deref(), port, user.as_deref()), (Some("here"), Some(10), Some("twenty")));
        assert_eq!(
            config_files(directory.path(), Path::new("/no/such/directory")),
            [directory.path().join("redgrease.conf")]
        );
    }

    #[test]
    fn a_less_important_option_does_not_change_an_address() {
        let url = [("url", "redis://a:7000")];
        let settings = resolve(&url, &[("PORT", "8080"), ("REDGREASE_TLS", "1")], &[]).unwrap();
        assert_eq!((settings.loader.connection.port, settings.loader.connection.tls), (None, false));
        let settings = resolve(&[("port", "1")], &[("REDGREASE_URL", "redis://a")], &[]).unwrap();
        assert_eq!(settings.loader.connection.port, Some(1));
    }

    #[test]
    fn watching_is_switched_by_words_and_delayed_by_numbers() {
        for (word, delay) in [("true", Some(5.0)), ("0.2", Some(0.2)), ("no", None), ("off", None)] {
            let watch = resolve(&[("watch", word)], &[], &[]).unwrap().watch;
            assert_eq!(watch.map(|delay| delay.as_secs_f64()), delay, "{word}");
        }
    }

    #[test]
    fn old_variables_are_named() {
        let settings = resolve(&[], &[("WATCH", "2"), ("REDISCLI_AUTH", "pw")], &[]).unwrap();
        assert_eq!(settings.notes.len(), 1);
        assert!(settings.notes[0].contains("REDGREASE_WATCH"), "{:?}", settings.notes);
    }

    #[test]
    fn wrong_values_name_option_value_and_fix() {
        for (name, value) in [
            ("port", "tcp://10.0.0.1:6379"),
            ("port", "0"),
            ("port", "65536"),
            ("watch", "0"),
            ("watch", "-1"),
            ("watch", "nan"),
            ("watch", "1e300"),
            ("timeout", "soon"),
            ("recursive", "maybe"),
            ("log-level", "loud"),
            ("log-format", "xml"),
            ("unblocking-pattern", "("),
        ] {
            let error = resolve(&[(name, value)], &[], &[]).unwrap_err();
            assert_eq!(error.class, Class::Usage);
            assert!(error.what.contains(&format!("--{name}: ")), "{error}");
            assert!(error.what.contains(value) && error.fix.is_some(), "{error}");
        }
    }

    #[test]
    fn a_wrong_value_of_a_variable_or_file_is_found_there() {
        let error = resolve(&[], &[("PORT", "x")], &[]).unwrap_err();
        assert!(error.what.starts_with("environment variable PORT: "), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.conf");
        std::fs::write(&file, "\nport = x").unwrap();
        let error = resolve(&[], &[], &[file]).unwrap_err();
        assert!(error.what.contains("x.conf, line 2: port: "), "{error}");
        let error = resolve(&[("config", "/no/such.conf")], &[], &[]).unwrap_err();
        assert!(error.what.contains("/no/such.conf"), "{error}");
    }
}
