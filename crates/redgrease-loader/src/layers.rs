//! Where options come from: command line, environment, configuration files; and which of them counts.

use std::collections::BTreeMap;
use std::fmt;

use crate::config_file;
use crate::error::{Class, Error};

/// An option that files and the environment know, too.
#[derive(Debug)]
pub struct OptionName {
    /// Its name on the command line, without dashes.
    pub name: &'static str,
    /// Its environment variables, the first that is set counts.
    pub variables: &'static [&'static str],
    /// Its variable in RedGrease 0.3, a name that other programs use, too.
    pub old_variable: Option<&'static str>,
}

const fn option(
    name: &'static str,
    variables: &'static [&'static str],
    old_variable: Option<&'static str>,
) -> OptionName {
    OptionName { name, variables, old_variable }
}

/// All options.
pub const OPTIONS: &[OptionName] = &[
    option("config", &["REDGREASE_CONFIG_FILE"], Some("CONFIG_FILE")),
    option("index-prefix", &["REDGREASE_INDEX_PREFIX"], Some("INDEX_PREFIX")),
    option("recursive", &["REDGREASE_RECURSIVE"], Some("RECURSIVE")),
    option("script-pattern", &["REDGREASE_SCRIPT_PATTERN"], Some("SCRIPT_PATTERN")),
    option("requirements-pattern", &["REDGREASE_REQUIREMENTS_PATTERN"], Some("REQUIREMENTS_PATTERN")),
    option("unblocking-pattern", &["REDGREASE_UNBLOCKING_PATTERN"], Some("UNBLOCKING_PATTERN")),
    option("ignore", &["REDGREASE_IGNORE"], Some("IGNORE")),
    option("watch", &["REDGREASE_WATCH"], Some("WATCH")),
    option("server", &["REDGREASE_SERVER"], Some("SERVER")),
    option("port", &["REDGREASE_PORT"], Some("PORT")),
    option("log-config", &["REDGREASE_LOG_CONFIG"], Some("LOG_CONFIG")),
    option("log-level", &["REDGREASE_LOG_LEVEL"], None),
    option("log-format", &["REDGREASE_LOG_FORMAT"], None),
    option("requirement", &["REDGREASE_REQUIREMENT"], None),
    option("timeout", &["REDGREASE_TIMEOUT"], None),
    option("url", &["REDGREASE_URL"], None),
    option("tls", &["REDGREASE_TLS"], None),
    option("cacert", &["REDGREASE_CACERT"], None),
    option("user", &["REDGREASE_USER"], None),
    option("password", &["REDISCLI_AUTH", "REDGREASE_PASSWORD"], None),
];

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line, or an argument of a Python call.
    Option,
    /// An environment variable.
    Variable(&'static str),
    /// A line of a configuration file.
    Line {
        /// The path of the file.
        file: String,
        /// The number of the line, from 1.
        line: usize,
    },
}

/// The values of an option, and where they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The name of the option.
    pub name: &'static str,
    /// Its values: more than one only for options that can be repeated.
    pub values: Vec<String>,
    /// Where they were given.
    pub origin: Origin,
    /// The number of its layer, 0 is the most important one.
    pub rank: usize,
}

impl Given {
    /// The error of a value that is wrong: `wrong` says so.
    pub fn error(&self, wrong: impl fmt::Display, fix: impl Into<String>) -> Error {
        let place = match &self.origin {
            Origin::Option => format!("--{}", self.name),
            Origin::Variable(variable) => format!("environment variable {variable}"),
            Origin::Line { file, line } => format!("{file}, line {line}: {}", self.name),
        };
        Error::new(Class::Usage, format!("{place}: {wrong}"), fix)
    }
}

/// Options that were given in one place.
#[derive(Debug, Clone, Default)]
pub struct Layer(BTreeMap<&'static str, Given>);

impl Layer {
    /// Sets an option; no values mean that it was not given.
    pub fn set(&mut self, name: &'static str, values: Vec<String>, origin: Origin) {
        if !values.is_empty() {
            self.0.insert(name, Given { name, values, origin, rank: 0 });
        }
    }

    /// The names of the options that were given.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// The values of an option.
    pub fn get(&self, name: &str) -> Option<&Given> {
        self.0.get(name)
    }

    /// The options of an environment: with the names of this program, and with those of RedGrease 0.3.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> [Self; 2] {
        let (mut current, mut old) = (Self::default(), Self::default());
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        for option in OPTIONS {
            if let Some((name, value)) = option.variables.iter().find_map(|name| Some((*name, get(name)?))) {
                current.set(option.name, elements(&value), Origin::Variable(name));
            } else if let Some((name, value)) = option.old_variable.and_then(|name| Some((name, get(name)?))) {
                old.set(option.name, elements(&value), Origin::Variable(name));
            }
        }
        [current, old]
    }

    /// The options of a configuration file, whose path is for errors.
    ///
    /// # Errors
    /// A line is not an entry, or names no option.
    pub fn of_file(file: &str, text: &str) -> Result<Self, Error> {
        let mut layer = Self::default();
        let entries = config_file::parse(text).map_err(|bad| {
            let what = format!("{file}, line {}: {}", bad.line, bad.reason);
            Error::new(Class::Usage, what, "write option = value, for example port = 6379, or begin a comment with #")
        })?;
        for entry in entries {
            let key = entry.key.replace('_', "-");
            let option = OPTIONS.iter().find(|option| option.name == key && option.name != "config");
            let Some(option) = option else {
                let what = format!("{file}, line {}: there is no option {:?}", entry.line, entry.key);
                return Err(Error::new(Class::Usage, what, format!("write {}, or remove the line", nearest(&key))));
            };
            layer.set(option.name, entry.values, Origin::Line { file: file.to_owned(), line: entry.line });
        }
        Ok(layer)
    }
}

/// The elements of a value `[a, b]`, or the value alone.
fn elements(value: &str) -> Vec<String> {
    let list = value.starts_with('[').then(|| config_file::parse(&format!("list = {value}")).ok()).flatten();
    list.and_then(|mut entries| entries.pop()).map_or_else(|| vec![value.to_owned()], |entry| entry.values)
}

/// The option whose name is most like this one.
fn nearest(key: &str) -> &'static str {
    let likeness = |option: &&OptionName| strsim::jaro_winkler(option.name, key);
    let options = OPTIONS.iter().filter(|option| option.name != "config");
    options.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).map_or("port", |option| option.name)
}

/// The options of all layers; of an option in several layers that in the first counts.
pub fn merge(layers: impl IntoIterator<Item = Layer>) -> Layer {
    let mut merged = BTreeMap::new();
    for (rank, layer) in layers.into_iter().enumerate() {
        for (name, given) in layer.0 {
            merged.entry(name).or_insert(Given { rank, ..given });
        }
    }
    Layer(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> [Layer; 2] {
        Layer::of_environment(|name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_have_a_prefix_and_old_names_are_a_fallback() {
        let [current, old] = environment(&[("REDGREASE_PORT", "1"), ("PORT", "2"), ("SERVER", "there"), ("TLS", "1")]);
        assert_eq!(current.get("port").unwrap().values, ["1"]);
        assert_eq!(old.names().collect::<Vec<_>>(), ["server"]);
        assert_eq!(old.get("server").unwrap().origin, Origin::Variable("SERVER"));
    }

    #[test]
    fn a_variable_can_hold_a_list_and_an_empty_one_is_not_set() {
        let [current, _] =
            environment(&[("REDGREASE_IGNORE", "[_*, x y]"), ("REDGREASE_REQUIREMENT", "a[b]"), ("REDGREASE_URL", "")]);
        assert_eq!(current.get("ignore").unwrap().values, ["_*", "x y"]);
        assert_eq!(current.get("requirement").unwrap().values, ["a[b]"]);
        assert!(current.get("url").is_none());
    }

    #[test]
    fn the_first_layer_counts() {
        let file = |text| Layer::of_file("f", text).unwrap();
        let merged = merge([file("port = 1"), file("port = 2\nserver = b"), file("server = c\nuser = d")]);
        let all: Vec<_> = merged.0.values().map(|given| (given.name, given.values[0].as_str(), given.rank)).collect();
        assert_eq!(all, [("port", "1", 0), ("server", "b", 1), ("user", "d", 2)]);
    }

    #[test]
    fn a_broken_file_is_reported_with_its_line_and_a_fix() {
        for (text, what, fix) in [
            ("port = 1\nserver = 'a", "x.conf, line 2: a quote is not closed", "write option = value"),
            ("\nprot = 1", "x.conf, line 2: there is no option \"prot\"", "write port"),
            ("config = y.conf", "there is no option \"config\"", "remove the line"),
        ] {
            let error = Layer::of_file("x.conf", text).unwrap_err();
            assert_eq!(error.class, Class::Usage);
            assert!(error.what.contains(what) && error.fix.as_ref().unwrap().contains(fix), "{error}");
        }
    }

    #[test]
    fn underscores_and_dashes_are_the_same() {
        assert!(Layer::of_file("f", "index_prefix = p").unwrap().get("index-prefix").is_some());
    }
}
