//! Maintenance commands of this repository.
//!
//! `cargo run -p xtask -- check-deps` enforces the dependency rules of ARCHITECTURE.md: which crate may depend on which, where
//! `unsafe` may be written, which crates are without `std`, and that the files of a crate do not import in circles.
//! `cargo run -p xtask -- commands` compares `docs/commands` with the table of commands (`--write` renews the pages).
//! `cargo run -p xtask -- errors` compares `docs/errors.md` with the table of error codes (`--write` renews the page).

mod commands;
mod cycles;
mod deps;
mod errors;
mod imports;
mod purity;
mod references;
mod source;
mod unsafety;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, result) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check-deps"] => ("check-deps", check_deps()),
        ["errors"] => ("errors", workspace_root().and_then(|root| errors::check(&root))),
        ["errors", "--write"] => ("errors", workspace_root().and_then(|root| errors::write(&root))),
        ["commands"] => ("commands", workspace_root().and_then(|root| commands::check(&root))),
        ["commands", "--write"] => ("commands", workspace_root().and_then(|root| commands::write(&root))),
        _ => {
            eprintln!("usage: cargo run -p xtask -- check-deps | errors [--write] | commands [--write]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn workspace_root() -> Result<PathBuf> {
    let metadata = cargo_metadata()?;
    Ok(PathBuf::from(metadata["workspace_root"].as_str().context("cargo metadata without a workspace_root")?))
}

/// Runs all checks and reports every violation, not only the first one.
fn check_deps() -> Result<()> {
    let metadata = cargo_metadata()?;
    let packages = deps::packages(&metadata)?;
    let root = Path::new(metadata["workspace_root"].as_str().context("cargo metadata without a workspace_root")?);

    let mut broken = deps::check(&packages);
    broken.extend(unsafety::check(&source::read(&root.join("Cargo.toml"))?, &manifests(&packages)?)?);
    for package in packages.iter().filter(|package| purity::PURE_CRATES.contains(&package.name.as_str())) {
        broken.extend(purity::check_directory(&package.directory().join("src"))?);
    }
    for package in &packages {
        broken.extend(cycles::check(&package.name, package.directory(), &package.roots)?);
    }
    if !broken.is_empty() {
        bail!("{} broken:\n  {}", broken.len(), broken.join("\n  "));
    }
    println!("check-deps: {} crates, dependencies as in ARCHITECTURE.md", packages.len());
    Ok(())
}

fn cargo_metadata() -> Result<serde_json::Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cargo metadata could not be run")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata did not print JSON")
}

fn manifests(packages: &[deps::Package]) -> Result<Vec<(String, String)>> {
    packages.iter().map(|package| Ok((package.name.clone(), source::read(&package.manifest)?))).collect()
}
