//! Which files are scripts, which list requirements, and which are ignored.

use std::path::{Component, Path};

use globset::{Glob, GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};
use regex::Regex;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It lists requirements of the scripts.
    Requirements,
    /// A script.
    Script,
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPattern {
    /// The option that it was given with.
    pub option: &'static str,
    /// The pattern, and what is wrong with it.
    pub reason: String,
}

/// The patterns of a loader, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternTexts {
    /// Names of scripts.
    pub script: String,
    /// Names of files that list requirements.
    pub requirements: String,
    /// Regular expression for paths of scripts that run with UNBLOCKING.
    pub unblocking: String,
    /// Names of files and directories to ignore.
    pub ignore: Vec<String>,
}

impl Default for PatternTexts {
    fn default() -> Self {
        Self {
            script: "*.py".to_owned(),
            requirements: "*requirements*.txt".to_owned(),
            unblocking: "unblock".to_owned(),
            ignore: vec!["_*".to_owned(), ".*".to_owned()],
        }
    }
}

/// The patterns of a loader.
///
/// A pattern without a slash is compared with the name of a file, one with a slash with its path below the directory that
/// was given. `*` does not match a slash, `**` does.
#[derive(Debug, Clone)]
pub struct Patterns {
    script: Names,
    requirements: Names,
    unblocking: Regex,
    ignored_names: GlobSet,
    ignored_paths: GlobSet,
}

impl Patterns {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// A pattern is not valid.
    pub fn new(texts: &PatternTexts) -> Result<Self, BadPattern> {
        let unblocking = Regex::new(&texts.unblocking).map_err(|error| {
            let lines = error.to_string();
            let reason = lines.lines().last().unwrap_or_default().trim_start_matches("error: ");
            BadPattern { option: "unblocking-pattern", reason: format!("{:?}: {reason}", texts.unblocking) }
        })?;
        let set = |with_slash| {
            let mut set = GlobSetBuilder::new();
            for text in texts.ignore.iter().filter(|text| text.contains('/') == with_slash) {
                set.add(glob("ignore", text)?);
            }
            set.build().map_err(|error| BadPattern { option: "ignore", reason: error.to_string() })
        };
        Ok(Self {
            script: Names::new("script-pattern", &texts.script)?,
            requirements: Names::new("requirements-pattern", &texts.requirements)?,
            unblocking,
            ignored_names: set(false)?,
            ignored_paths: set(true)?,
        })
    }

    /// What a file of a directory is, by its path below the directory; `None`: something else, or it is ignored.
    pub fn kind(&self, below: &Path) -> Option<Kind> {
        if self.is_ignored(below) { None } else { self.kind_of_given(below) }
    }

    /// What a file is that was named itself: it is not ignored.
    pub fn kind_of_given(&self, below: &Path) -> Option<Kind> {
        if self.requirements.matches(below) {
            Some(Kind::Requirements)
        } else {
            self.script.matches(below).then_some(Kind::Script)
        }
    }

    /// Whether a file or directory, or a directory above it, is ignored.
    pub fn is_ignored(&self, below: &Path) -> bool {
        let named = |part: Component<'_>| self.ignored_names.is_match(Path::new(part.as_os_str()));
        below.components().any(named) || below.ancestors().any(|part| self.ignored_paths.is_match(part))
    }

    /// Whether a script runs with UNBLOCKING.
    pub fn is_unblocking(&self, path: &Path) -> bool {
        self.unblocking.is_match(&path.to_string_lossy())
    }
}

/// A pattern for names, or for paths if it has a slash.
#[derive(Debug, Clone)]
struct Names {
    glob: GlobMatcher,
    of_paths: bool,
}

impl Names {
    fn new(option: &'static str, text: &str) -> Result<Self, BadPattern> {
        Ok(Self { glob: glob(option, text)?.compile_matcher(), of_paths: text.contains('/') })
    }

    fn matches(&self, below: &Path) -> bool {
        let compared = if self.of_paths { Some(below) } else { below.file_name().map(Path::new) };
        compared.is_some_and(|path| self.glob.is_match(path))
    }
}

fn glob(option: &'static str, text: &str) -> Result<Glob, BadPattern> {
    let wrong = |reason: String| BadPattern { option, reason };
    if text.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    GlobBuilder::new(text).literal_separator(true).build().map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(change: impl Fn(&mut PatternTexts)) -> Patterns {
        let mut texts = PatternTexts::default();
        change(&mut texts);
        Patterns::new(&texts).unwrap()
    }

    #[test]
    fn files_by_their_names() {
        let patterns = patterns(|_| ());
        for (path, kind) in [
            ("a.py", Some(Kind::Script)),
            ("below/a.py", Some(Kind::Script)),
            ("requirements.txt", Some(Kind::Requirements)),
            ("below/dev-requirements-3.txt", Some(Kind::Requirements)),
            ("a.txt", None),
            ("a.pyc", None),
            ("_a.py", None),
            (".#a.py", None),
            ("__pycache__/a.py", None),
            (".venv/lib/a.py", None),
            ("a_.py", Some(Kind::Script)),
        ] {
            assert_eq!(patterns.kind(Path::new(path)), kind, "{path}");
        }
    }

    #[test]
    fn a_file_that_was_named_itself_is_not_ignored() {
        assert_eq!(patterns(|_| ()).kind_of_given(Path::new("_a.py")), Some(Kind::Script));
    }

    #[test]
    fn patterns_with_a_slash_are_for_paths() {
        let patterns = patterns(|texts| {
            texts.script = "jobs/*.py".to_owned();
            texts.ignore = vec!["jobs/old".to_owned()];
        });
        for (path, is_script) in [
            ("jobs/a.py", true),
            ("a.py", false),
            ("jobs/b/a.py", false),
            ("other/jobs/a.py", false),
            ("jobs/old/a.py", false),
        ] {
            assert_eq!(patterns.kind(Path::new(path)) == Some(Kind::Script), is_script, "{path}");
        }
    }

    #[test]
    fn a_file_that_is_both_lists_requirements() {
        let patterns = patterns(|texts| texts.script = "*".to_owned());
        assert_eq!(patterns.kind(Path::new("requirements.txt")), Some(Kind::Requirements));
    }

    #[test]
    fn unblocking_scripts_have_a_match_in_their_path() {
        let patterns = patterns(|texts| texts.unblocking = "^/jobs/.*_long".to_owned());
        assert!(patterns.is_unblocking(Path::new("/jobs/a_long.py")));
        assert!(!patterns.is_unblocking(Path::new("/other/a_long.py")));
    }

    #[test]
    fn a_bad_pattern_is_named_with_its_option() {
        for (option, texts) in [
            ("script-pattern", PatternTexts { script: "[a".to_owned(), ..PatternTexts::default() }),
            ("requirements-pattern", PatternTexts { requirements: String::new(), ..PatternTexts::default() }),
            ("unblocking-pattern", PatternTexts { unblocking: "(".to_owned(), ..PatternTexts::default() }),
            ("ignore", PatternTexts { ignore: vec!["a{".to_owned()], ..PatternTexts::default() }),
        ] {
            let bad = Patterns::new(&texts).unwrap_err();
            assert_eq!(bad.option, option);
            assert!(!bad.reason.is_empty() && !bad.reason.contains('\n'), "{bad:?}");
        }
    }
}
