//! Versions of Python.

use core::fmt;

/// The version of an interpreter, as far as compiled code depends on it: `3.11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PythonVersion {
    /// 3, as long as nothing changes.
    pub major: u8,
    /// The minor version.
    pub minor: u8,
}

impl PythonVersion {
    /// The version in a text such as `3.11`, `3.11.7` or `3.14.0rc1`.
    ///
    /// ```
    /// use redgrease_core::python::PythonVersion;
    ///
    /// assert_eq!(PythonVersion::parse("3.11.7"), Some(PythonVersion { major: 3, minor: 11 }));
    /// assert_eq!(PythonVersion::parse("3.13t"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<PythonVersion> {
        let mut parts = text.split('.');
        let mut number = || {
            let part = parts.next()?;
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten()
        };
        Some(PythonVersion { major: number()?, minor: number()? })
    }
}

impl fmt::Display for PythonVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn the_patch_level_makes_no_difference() {
        let parse = |text| PythonVersion::parse(text).map(|version| version.to_string());
        assert_eq!(parse("3.9").as_deref(), Some("3.9"));
        assert_eq!(parse("3.11.7").as_deref(), Some("3.11"));
        assert_eq!(parse("3.14.0rc1").as_deref(), Some("3.14"));
    }

    #[test]
    fn other_texts_are_no_versions() {
        for text in ["", "3", "3.", ".9", "3.x", "3.13t", "3.300", "-3.1", "+3.1", " 3.1", "python3.1"] {
            assert_eq!(PythonVersion::parse(text), None, "{text}");
        }
    }
}
