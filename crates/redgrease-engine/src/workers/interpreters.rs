//! The interpreters that workers can be started with.

use redgrease_core::id::SessionNo;
use redgrease_core::python::PythonVersion;

use crate::input::Interpreters;
use crate::limits::INTERPRETERS_AGAIN_MS;
use crate::prelude::*;

/// The interpreter for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The default one.
    Default,
    /// Another one.
    Other(PythonVersion),
    /// They have to be looked for first.
    Unknown,
    /// There is none; these are there, in words.
    Missing {
        /// Versions that workers can be started with.
        present: String,
        /// Interpreters that cannot be used, each with the reason.
        refused: String,
    },
}

/// What is known of interpreters.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The version of the default one, once a worker has told it.
    default: Option<PythonVersion>,
    /// The others, and when they were looked for.
    others: Option<(Interpreters, u64)>,
    /// They are being looked for.
    looking: bool,
    /// Sessions that wait for the result.
    waiting: Vec<SessionNo>,
}

impl Known {
    /// The default interpreter's version.
    pub(crate) fn learn_default(&mut self, version: Option<PythonVersion>) {
        self.default = version;
    }

    /// The interpreter for code of a version. As long as the default one's version is unknown it is that one: its worker
    /// tells the version before it gets the code.
    pub(crate) fn choose(&self, wanted: PythonVersion, now_ms: u64) -> Choice {
        match (&self.default, &self.others) {
            (None, _) => Choice::Default,
            (Some(default), _) if *default == wanted => Choice::Default,
            (_, Some((found, _))) if found.versions.contains(&wanted) => Choice::Other(wanted),
            (Some(default), Some((found, at_ms))) if now_ms < at_ms + INTERPRETERS_AGAIN_MS => {
                let present: BTreeSet<PythonVersion> = found.versions.iter().chain([default]).copied().collect();
                let present: Vec<String> = present.iter().map(ToString::to_string).collect();
                Choice::Missing { present: present.join(", "), refused: found.refused.join("; ") }
            }
            _ => Choice::Unknown,
        }
    }

    /// A session waits for the interpreters; returns whether they have to be looked for now.
    pub(crate) fn wait(&mut self, session: SessionNo) -> bool {
        if !self.waiting.contains(&session) {
            self.waiting.push(session);
        }
        !core::mem::replace(&mut self.looking, true)
    }

    /// Sessions that wait.
    #[cfg(feature = "simulation")]
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a session waits.
    #[cfg(feature = "simulation")]
    pub(crate) fn waits(&self, session: SessionNo) -> bool {
        self.waiting.contains(&session)
    }

    /// They were looked for; returns the sessions that wait.
    pub(crate) fn found(&mut self, interpreters: Interpreters, now_ms: u64) -> Vec<SessionNo> {
        self.others = Some((interpreters, now_ms));
        self.looking = false;
        core::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(minor: u8) -> PythonVersion {
        PythonVersion { major: 3, minor }
    }

    fn found(minors: &[u8]) -> Interpreters {
        Interpreters { versions: minors.iter().map(|minor| version(*minor)).collect(), refused: vec!["x: y".into()] }
    }

    #[test]
    fn the_default_one_is_chosen_until_it_is_known_to_be_another_version() {
        let mut known = Known::default();
        assert_eq!(known.choose(version(9), 0), Choice::Default);
        known.learn_default(Some(version(11)));
        assert_eq!(known.choose(version(11), 0), Choice::Default);
        assert_eq!(known.choose(version(9), 0), Choice::Unknown);
    }

    #[test]
    fn others_are_looked_for_once_and_missing_ones_again_after_a_while() {
        let mut known = Known::default();
        known.learn_default(Some(version(11)));
        assert!(known.wait(SessionNo(1)));
        assert!(!known.wait(SessionNo(1)) && !known.wait(SessionNo(2)));
        assert_eq!(known.found(found(&[9]), 100), [SessionNo(1), SessionNo(2)]);
        assert_eq!(known.choose(version(9), 100), Choice::Other(version(9)));
        let missing = Choice::Missing { present: "3.9, 3.11".into(), refused: "x: y".into() };
        assert_eq!(known.choose(version(12), 100), missing);
        assert_eq!(known.choose(version(12), 100 + INTERPRETERS_AGAIN_MS), Choice::Unknown);
        assert!(known.wait(SessionNo(3)));
    }
}
