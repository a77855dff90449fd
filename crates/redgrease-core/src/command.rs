//! The grammar of the `RG.*` commands and the texts of its errors.
//!
//! The texts are those that clients of RedisGears 1.x match on (spec `CMD-*` and `TXT-*` rows).

use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

/// Arguments of `RG.PYEXECUTE`, checked one by one but not yet against the sessions that exist.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PyExecute<'a> {
    /// Python source; with a function: a text that says what it is, which is not run.
    pub script: &'a [u8],
    /// A function that is run or registered instead of the script.
    pub function: Option<Function<'a>>,
    /// Answer with the execution's id instead of waiting for its results.
    pub unblocking: bool,
    /// The session's id, if it was given.
    pub id: Option<&'a str>,
    /// Free text.
    pub description: Option<&'a [u8]>,
    /// Replace the session with the same id.
    pub upgrade: bool,
    /// Replace the session, or the registration, with that id.
    pub replace_with: Option<&'a [u8]>,
    /// Install requirements again even if they are there.
    pub force_reinstall: bool,
    /// Requirement strings as given.
    pub requirements: Vec<&'a [u8]>,
}

/// What is done with a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is run once.
    Run,
    /// It is registered for events.
    Register,
}

/// A function object: its plan and what a worker makes its callbacks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function<'a> {
    /// What is done with it.
    pub action: Action,
    /// An encoded plan: see [`crate::plan::PlanSpec`].
    pub plan: &'a [u8],
    /// Pickle of the plan with its callbacks.
    pub callbacks: &'a [u8],
}

/// Why arguments are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ArgumentError {
    /// An option that takes a value, or two, was the last word.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Characters that an id may not hold.
    #[error("ID must be compose of: ['A'-'Z' | 'a'-'z' | '0' - '9' | '-' | '_']")]
    BadId,
    /// A word that is no option.
    #[error("Unknown arguments were given: {0}")]
    Unknown(String),
}

impl<'a> PyExecute<'a> {
    /// Parses what follows the command's name; `args` holds at least the script.
    ///
    /// # Errors
    /// The first problem from left to right.
    pub fn parse(script: &'a [u8], options: &[&'a [u8]]) -> Result<PyExecute<'a>, ArgumentError> {
        let mut parsed = PyExecute { script, ..PyExecute::default() };
        let mut words = options.iter().copied();
        while let Some(word) = words.next() {
            let mut value_of = |name| words.next().ok_or(ArgumentError::Missing(name));
            match word.to_ascii_uppercase().as_slice() {
                b"UNBLOCKING" => parsed.unblocking = true,
                b"UPGRADE" => parsed.upgrade = true,
                b"FORCE_REINSTALL_REQUIREMENTS" => parsed.force_reinstall = true,
                b"ID" => parsed.id = Some(session_id(value_of("ID")?)?),
                b"DESCRIPTION" => parsed.description = Some(value_of("DESCRIPTION")?),
                word @ (b"RUN" | b"REGISTER") => {
                    let (action, name) =
                        if word == b"RUN" { (Action::Run, "RUN") } else { (Action::Register, "REGISTER") };
                    let (plan, callbacks) = (value_of(name)?, value_of(name)?);
                    parsed.function = Some(Function { action, plan, callbacks });
                }
                b"REPLACE_WITH" => parsed.replace_with = Some(value_of("REPLACE_WITH")?),
                b"REQUIREMENTS" => {
                    parsed.requirements = words.collect();
                    break;
                }
                _ => return Err(ArgumentError::Unknown(String::from_utf8_lossy(word).into_owned())),
            }
        }
        Ok(parsed)
    }
}

fn session_id(bytes: &[u8]) -> Result<&str, ArgumentError> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if bytes.is_empty() || !bytes.iter().all(allowed) {
        return Err(ArgumentError::BadId);
    }
    core::str::from_utf8(bytes).map_err(|_| ArgumentError::BadId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn parse<'a>(options: &[&'a str]) -> Result<PyExecute<'a>, String> {
        let options: Vec<&[u8]> = options.iter().map(|word| word.as_bytes()).collect();
        PyExecute::parse(b"GB()", &options).map_err(|error| error.to_string())
    }

    #[test]
    fn options_come_in_any_order_and_case_and_the_last_one_wins() {
        let parsed =
            parse(&["upgrade", "ID", "a", "id", "b", "unblocking", "REQUIREMENTS", "x", "UNBLOCKING"]).unwrap();
        assert_eq!((parsed.id, parsed.upgrade, parsed.unblocking), (Some("b"), true, true));
        assert_eq!(parsed.requirements, [b"x".as_slice(), b"UNBLOCKING"]);
    }

    #[test]
    fn a_function_is_a_plan_and_its_callbacks() {
        let parsed = parse(&["UNBLOCKING", "run", "plan", "REGISTER", "ID", "a"]).unwrap();
        let function = Function { action: Action::Run, plan: b"plan", callbacks: b"REGISTER" };
        assert_eq!((parsed.function, parsed.id, parsed.unblocking), (Some(function), Some("a"), true));
        let parsed = parse(&["REGISTER", "plan", "callbacks", "REQUIREMENTS", "RUN"]).unwrap();
        assert_eq!(parsed.function.unwrap().action, Action::Register);
        assert_eq!(parsed.requirements, [b"RUN"]);
    }

    #[test]
    fn requirements_may_be_empty() {
        assert_eq!(parse(&["REQUIREMENTS"]).unwrap().requirements, Vec::<&[u8]>::new());
    }

    #[test]
    fn the_first_problem_from_left_to_right_is_named() {
        let table = [
            (&["ID"][..], "ID is missing"),
            (&["DESCRIPTION"], "DESCRIPTION is missing"),
            (&["REPLACE_WITH"], "REPLACE_WITH is missing"),
            (&["RUN"], "RUN is missing"),
            (&["REGISTER", "plan"], "REGISTER is missing"),
            (&["bogus", "ID"], "Unknown arguments were given: bogus"),
            (&["ID", "a b"], "ID must be compose of: ['A'-'Z' | 'a'-'z' | '0' - '9' | '-' | '_']"),
            (&["ID", ""], "ID must be compose of: ['A'-'Z' | 'a'-'z' | '0' - '9' | '-' | '_']"),
        ];
        for (options, text) in table {
            assert_eq!(parse(options).unwrap_err(), text, "{options:?}");
        }
    }
}
