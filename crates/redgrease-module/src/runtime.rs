//! The interpreter of the workers.

use std::path::{Path, PathBuf};

/// Finds the interpreter: as given by the load argument, by `REDGREASE_PYTHON`, in the environment that contains the
/// module, in `.venv` beside a checkout's `target/release`, or `python3` on the path, in this order.
pub fn find(named: Option<&str>) -> Result<PathBuf, String> {
    if let Some(path) = named.map(Path::new) {
        return existing(path).ok_or_else(|| {
            format!(
                "the interpreter {} (load argument Python) does not exist: name one that has the package redgrease",
                path.display()
            )
        });
    }
    if let Some(path) = std::env::var_os("REDGREASE_PYTHON") {
        let path = PathBuf::from(path);
        return existing(&path)
            .ok_or_else(|| format!("the interpreter {} (REDGREASE_PYTHON) does not exist", path.display()));
    }
    let beside = module_path().into_iter().flat_map(|module| candidates(&module));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).map(|dir| dir.join("python3")).collect::<Vec<_>>();
    beside.chain(on_path).find_map(|path| existing(&path)).ok_or_else(|| {
        "no python3 on the path: load the module with 'Python /path/to/python3' of an environment that has the package \
         redgrease"
            .to_owned()
    })
}

fn existing(path: &Path) -> Option<PathBuf> {
    path.is_file().then(|| path.to_owned())
}

/// Environments around the module: a virtual environment whose site-packages contain it, and a checkout's `.venv`.
fn candidates(module: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = module
        .ancestors()
        .skip(1)
        .filter(|dir| dir.join("pyvenv.cfg").is_file())
        .map(|dir| dir.join("bin/python3"))
        .collect();
    if let Some(checkout) = module.ancestors().nth(3) {
        found.push(checkout.join(".venv/bin/python3"));
    }
    found
}

/// Where this module was loaded from, as the kernel sees it.
fn module_path() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| &line[at..]))
        .find(|path| path.ends_with("libredgrease.so"))?;
    Some(PathBuf::from(path))
}
