//! The data of a session that outlives its worker.

use redgrease_core::frame::Function;
use redgrease_core::id::PlanNo;
use redgrease_core::python::PythonVersion;

use crate::prelude::*;

/// The data to rebuild a session in another worker, or another server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Source of its script; for a function: a descriptive text.
    pub source: Vec<u8>,
    /// The function that a client sent without a script.
    pub function: Option<StoredFunction>,
    /// Pickles of the plans that it registered, oldest first, as a worker sent them.
    pub functions: Vec<Vec<u8>>,
    /// Version of the interpreter that pickled these, such as `3.11.7`; empty if nothing holds compiled code.
    pub python: String,
    /// Requirements as given.
    pub requirements: Rc<[String]>,
    /// What workers of the session must share: the set of requirements.
    pub environment: Rc<str>,
}

/// A function that a client sent as plan and callbacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFunction {
    /// The plan's number in the workers.
    pub plan: PlanNo,
    /// The encoded plan.
    pub spec: Vec<u8>,
    /// Pickle of the plan with its callbacks.
    pub callbacks: Vec<u8>,
}

impl StoredFunction {
    /// Its form in frames.
    #[must_use]
    pub fn in_frame(&self) -> Function<'_> {
        Function { plan: self.plan, spec: &self.spec, callbacks: &self.callbacks }
    }
}

/// What begins the line of an environment whose requirements were installed again: it differs from all others.
pub const REINSTALLED: char = ';';

/// What begins the line of an environment that is for another interpreter than the default one: its version follows.
pub const OTHER_PYTHON: char = '@';

/// An environment for an interpreter; `None`: the default one.
#[must_use]
pub fn for_python(environment: &str, python: Option<PythonVersion>) -> String {
    let mut lines: Vec<String> =
        environment.lines().filter(|line| !line.starts_with(OTHER_PYTHON)).map(ToOwned::to_owned).collect();
    if let Some(python) = python.filter(|_| !lines.is_empty()) {
        lines.push(format!("{OTHER_PYTHON}{python}"));
    }
    lines.join("\n")
}

/// Whether the requirements of an environment were installed again, for one session alone.
#[must_use]
pub fn is_reinstalled(environment: &str) -> bool {
    environment.lines().any(|line| line.starts_with(REINSTALLED))
}

/// What the client `gearsclient` requires of each function: workers have what its functions import.
const CLIENT: &str = "git+https://github.com/RedisGears/redisgears-py.git";

/// The key of an environment: the sorted set of the requirements without our own package, which is always present.
#[must_use]
pub fn environment(requirements: &[String]) -> String {
    let own = |text: &&String| {
        let name: String =
            text.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect();
        name.eq_ignore_ascii_case("redgrease") || text.trim() == CLIENT
    };
    let set: BTreeSet<&str> = requirements.iter().filter(|text| !own(text)).map(|text| text.trim()).collect();
    set.into_iter().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(requirements: &[&str]) -> String {
        environment(&requirements.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_order_of_requirements_and_our_own_package_make_no_difference() {
        assert_eq!(set(&["b", "a", "redgrease[runtime]>=1", "a"]), "a\nb");
        assert_eq!(set(&["RedGrease"]), "");
        assert_eq!(set(&["git+https://github.com/RedisGears/redisgears-py.git", "a"]), "a");
        assert_eq!(set(&["redgrease-other"]), "redgrease-other");
        let other = PythonVersion::parse("3.9");
        assert_eq!(for_python("a\nb", other), "a\nb\n@3.9");
        assert_eq!(for_python("a\nb\n@3.9", None), "a\nb");
        assert_eq!(for_python("", other), "");
        assert!(!is_reinstalled(&set(&["a; python_version > '3'"])) && is_reinstalled("a\n;1"));
    }
}
