//! Interpreters for functions of other Python versions than that of the default interpreter.
//!
//! They are looked for when the first such function arrives, outside the main thread. Nothing is installed into them: they
//! find the package where the default interpreter has it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use redgrease_core::python::PythonVersion;
use redgrease_engine::input::Interpreters as Found;

use crate::background::Background;
use crate::helper::{self, Failure};
use crate::os_user::OsUser;
use crate::program::{Places, Program};

/// The oldest supported version.
const OLDEST: PythonVersion = PythonVersion { major: 3, minor: 9 };

/// The newest version whose name is looked for on the path.
const NEWEST_MINOR: u8 = 19;

/// Time in which an interpreter must say what it is.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Time after which no further interpreter is asked.
const SEARCH_MAX: Duration = Duration::from_secs(30);

/// What an interpreter is: implementation, version, whether it is free-threaded, path.
const WHAT: &str = "import platform, sys, sysconfig; \
    print(platform.python_implementation(), '%d.%d' % sys.version_info[:2], \
    int(bool(sysconfig.get_config_var('Py_GIL_DISABLED'))), sys.executable, sep='\\n')";

/// Where the packages are that a worker needs, a line for each.
const WHERE: &str = "import importlib.util, os; \
    [print(n, os.path.dirname(os.path.dirname(s.origin)), sep='=') for n in ('redgrease', 'cloudpickle', 'packaging') \
    for s in [importlib.util.find_spec(n)] if s]";

/// A search.
struct Search {
    default: PathBuf,
    /// As given by the load argument.
    named: Option<String>,
    user: Option<OsUser>,
    environment: Vec<(OsString, OsString)>,
}

/// The result: the interpreters by their versions, and those that cannot be used.
type Answer = (BTreeMap<PythonVersion, Program>, Vec<String>);

/// The thread that looks for interpreters, and what it found last.
pub struct Interpreters {
    thread: Background<Search, Answer>,
    named: Option<String>,
    user: Option<OsUser>,
    environment: Vec<(OsString, OsString)>,
    found: RefCell<BTreeMap<PythonVersion, Program>>,
}

impl Interpreters {
    /// Starts the thread. `named` are interpreters, separated by colons; without it those on the path are used.
    pub fn start(
        named: Option<String>,
        user: Option<OsUser>,
        environment: Vec<(OsString, OsString)>,
    ) -> Result<Interpreters, String> {
        let thread = Background::start("rg-interpreters", 1, |search: Search| find(&search))?;
        Ok(Interpreters { thread, named, user, environment, found: RefCell::default() })
    }

    /// Looks for interpreters beside the default one; `false` if a search waits already.
    pub fn look(&self, default: &Path) -> bool {
        self.thread.submit(Search {
            default: default.to_owned(),
            named: self.named.clone(),
            user: self.user.clone(),
            environment: self.environment.clone(),
        })
    }

    /// The interpreter of that version that was found last.
    pub fn program(&self, version: PythonVersion) -> Option<Program> {
        self.found.borrow().get(&version).cloned()
    }

    /// Readable when a search has ended.
    pub fn ready_fd(&self) -> RawFd {
        self.thread.ready_fd()
    }

    /// The results of searches since the last call.
    pub fn results(&self) -> Vec<Found> {
        let answers = self.thread.answers().into_iter();
        answers
            .map(|(programs, refused)| {
                let versions = programs.keys().copied().collect();
                self.found.replace(programs);
                Found { versions, refused }
            })
            .collect()
    }
}

fn find(search: &Search) -> Answer {
    let places = match places(search) {
        Ok(places) => places,
        Err(reason) => return (BTreeMap::new(), vec![reason]),
    };
    let begin = Instant::now();
    let mut refused = Vec::new();
    let mut programs = BTreeMap::new();
    for (path, is_named) in candidates(search) {
        if begin.elapsed() > SEARCH_MAX {
            refused.push(format!(
                "{} and others: the search took longer than {} s",
                path.display(),
                SEARCH_MAX.as_secs()
            ));
            break;
        }
        match look_at(search, &path) {
            Ok((version, python)) => {
                programs.entry(version).or_insert_with(|| Program { python, places: Some(places.clone()) });
            }
            Err(Refusal::Kind(reason)) => refused.push(format!("{}: {reason}", path.display())),
            // A name on the path may be a program that starts one of several versions, none of which is that one.
            Err(Refusal::Failed(reason)) if is_named => refused.push(format!("{}: {reason}", path.display())),
            Err(Refusal::Failed(_)) => {}
        }
    }
    (programs, refused)
}

/// The paths to look at, and whether they were named.
fn candidates(search: &Search) -> Vec<(PathBuf, bool)> {
    if let Some(named) = &search.named {
        return named.split(':').filter(|path| !path.is_empty()).map(|path| (PathBuf::from(path), true)).collect();
    }
    let path = search.environment.iter().find(|(name, _)| name == "PATH").map_or(OsStr::new(""), |(_, path)| path);
    let directories: Vec<PathBuf> = std::env::split_paths(path).collect();
    let mut seen = BTreeSet::new();
    let names = (OLDEST.minor..=NEWEST_MINOR).map(|minor| format!("python3.{minor}"));
    names
        .flat_map(|name| directories.iter().map(move |directory| directory.join(&name)))
        .filter(|path| path.is_file() && seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())))
        .map(|path| (path, false))
        .collect()
}

/// Why an interpreter cannot be used.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It is of a kind that is not supported.
    Kind(String),
    /// It did not run.
    Failed(String),
}

/// The version of an interpreter, and its path.
fn look_at(search: &Search, path: &Path) -> Result<(PythonVersion, PathBuf), Refusal> {
    let text = run(search, path, WHAT).map_err(Refusal::Failed)?;
    what(&text)
}

/// What an interpreter has said of itself.
fn what(text: &str) -> Result<(PythonVersion, PathBuf), Refusal> {
    let mut lines = text.lines();
    let mut line = || lines.next().unwrap_or_default();
    let (implementation, version, free_threaded, path) = (line(), line(), line(), line());
    let Some(version) = PythonVersion::parse(version) else {
        return Err(Refusal::Failed(format!("it is no interpreter of Python, it wrote '{}'", text.trim())));
    };
    match () {
        () if implementation != "CPython" => Err(Refusal::Kind(format!("{implementation} is not supported"))),
        () if version < OLDEST => Err(Refusal::Kind(format!("Python {version} is older than {OLDEST}"))),
        () if free_threaded != "0" => Err(Refusal::Kind("free-threaded builds are not supported".to_owned())),
        () => Ok((version, PathBuf::from(path))),
    }
}

/// Where the default interpreter has the package.
fn places(search: &Search) -> Result<Places, String> {
    let text = run(search, &search.default, WHERE).map_err(|why| format!("{}: {why}", search.default.display()))?;
    let packages: Vec<&str> = text.lines().collect();
    let package = packages.iter().find_map(|line| line.strip_prefix("redgrease="));
    let package = package.ok_or_else(|| format!("{} has no package redgrease", search.default.display()))?;
    let launcher = Path::new(package).join("redgrease/worker/launch.py");
    Ok(Places { launcher, packages: packages.join(":").into() })
}

/// The output of a script.
fn run(search: &Search, python: &Path, script: &str) -> Result<String, String> {
    let mut command = Command::new(python);
    command.args(["-I", "-c", script]).env_clear().envs(search.environment.iter().cloned()).process_group(0);
    if let Some(user) = &search.user {
        user.apply(&mut command);
    }
    match helper::run(&mut command, ANSWER_MAX) {
        Ok(output) if output.status.as_ref().map_or(true, |status| status.success()) => {
            Ok(String::from_utf8_lossy(&output.out).into_owned())
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.err);
            Err(text.lines().last().unwrap_or("it failed without a message").to_owned())
        }
        Err(Failure::NotStarted(reason)) => Err(reason),
        Err(Failure::TooLong) => Err(format!("no answer within {} s", ANSWER_MAX.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interpreter_says_decides_whether_it_is_used() {
        let kind = |text: &str| Err(Refusal::Kind(text.to_owned()));
        let version = PythonVersion { major: 3, minor: 12 };
        assert_eq!(what("CPython\n3.12\n0\n/usr/bin/python3.12\n"), Ok((version, "/usr/bin/python3.12".into())));
        assert_eq!(what("CPython\n3.8\n0\n/p\n"), kind("Python 3.8 is older than 3.9"));
        assert_eq!(what("CPython\n3.13\n1\n/p\n"), kind("free-threaded builds are not supported"));
        assert_eq!(what("PyPy\n3.10\n0\n/p\n"), kind("PyPy is not supported"));
        assert!(matches!(what("hello\n"), Err(Refusal::Failed(_))));
    }

    #[test]
    fn named_interpreters_are_the_only_candidates() {
        let search = |named: Option<&str>, path: &str| Search {
            default: PathBuf::from("/nowhere"),
            named: named.map(str::to_owned),
            user: None,
            environment: vec![("PATH".into(), path.into())],
        };
        let paths = |search: &Search| candidates(search).into_iter().map(|(path, _)| path).collect::<Vec<_>>();
        assert_eq!(paths(&search(Some("/a:/b:"), "/usr/bin")), [Path::new("/a"), Path::new("/b")]);
        assert!(paths(&search(None, "/nowhere:/nothing")).is_empty());
    }
}
