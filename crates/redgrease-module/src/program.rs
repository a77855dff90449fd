//! How modules of the Python package are run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An interpreter, and where it finds the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The interpreter.
    pub python: PathBuf,
    /// Where the packages that workers need are, if they are not installed in it.
    pub places: Option<Places>,
}

/// The directories of the packages that workers need, of another interpreter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The package's file that starts a module of it in any interpreter.
    pub launcher: PathBuf,
    /// Pairs of `package=directory`, separated by colons.
    pub packages: OsString,
}

impl Program {
    /// An interpreter that the package is installed in.
    pub fn installed(python: &Path) -> Program {
        Program { python: python.to_owned(), places: None }
    }

    /// The command that runs a module; arguments of the module can be added.
    pub fn command(&self, module: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.arg("-I");
        match &self.places {
            None => command.args(["-m", module]),
            Some(places) => command.arg(&places.launcher).arg(&places.packages).arg(module),
        };
        command
    }
}
