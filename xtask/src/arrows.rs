//! The arrows between crates, compared with what the manifests say.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// What one room may depend on. Dependencies of tests and build scripts count like all others, but for `tests_may_use`.
struct Room {
    name: &'static str,
    rooms: &'static [&'static str],
    /// The only crates from outside that the room may use; `None`: it may choose.
    outside: Option<&'static [&'static str]>,
    tests_may_use: &'static [&'static str],
}

const ROOMS: &[Room] = &[
    Room { name: "redgrease-core", rooms: &[], outside: Some(&["serde", "thiserror"]), tests_may_use: &["proptest"] },
    Room { name: "redgrease-ffi", rooms: &[], outside: None, tests_may_use: &[] },
    Room { name: "redgrease-module", rooms: &["redgrease-core", "redgrease-ffi"], outside: None, tests_may_use: &[] },
    Room { name: "redgrease-filecache", rooms: &["redgrease-core"], outside: None, tests_may_use: &[] },
    Room { name: "redgrease-py", rooms: &["redgrease-core", "redgrease-filecache"], outside: None, tests_may_use: &[] },
    Room {
        name: "redgrease-cli",
        rooms: &["redgrease-core", "redgrease-filecache"],
        outside: None,
        tests_may_use: &[],
    },
    Room { name: "xtask", rooms: &[], outside: None, tests_may_use: &[] },
];

/// A crate of the workspace as `cargo metadata` describes it.
pub struct Package {
    pub name: String,
    pub manifest: PathBuf,
    pub dependencies: Vec<Dependency>,
}

pub struct Dependency {
    /// The crate's own name, also where the manifest gives it another one.
    pub name: String,
    pub for_tests: bool,
}

impl Package {
    pub fn directory(&self) -> &Path {
        self.manifest.parent().expect("a manifest lies in a directory")
    }
}

/// Reads the crates of the workspace out of the JSON of `cargo metadata --no-deps`.
pub fn packages(metadata: &Value) -> Result<Vec<Package>> {
    list(metadata, "packages")?.iter().map(package).collect()
}

fn package(value: &Value) -> Result<Package> {
    let dependencies = list(value, "dependencies")?
        .iter()
        .map(|dependency| {
            Ok(Dependency { name: text(dependency, "name")?, for_tests: dependency["kind"].as_str() == Some("dev") })
        })
        .collect::<Result<_>>()?;
    Ok(Package { name: text(value, "name")?, manifest: text(value, "manifest_path")?.into(), dependencies })
}

fn list<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>> {
    value[field].as_array().with_context(|| format!("cargo metadata without a list '{field}'"))
}

fn text(value: &Value, field: &str) -> Result<String> {
    value[field].as_str().map(str::to_owned).with_context(|| format!("cargo metadata without a text '{field}'"))
}

/// Says what is not as the list of rooms wants it, one sentence per broken arrow.
pub fn check(packages: &[Package]) -> Vec<String> {
    let mut broken = Vec::new();
    for package in packages {
        match ROOMS.iter().find(|room| room.name == package.name) {
            Some(room) => {
                broken.extend(package.dependencies.iter().filter_map(|dependency| refusal(room, dependency, packages)));
            }
            None => broken.push(format!(
                "crate {} is in no room: add it to ROOMS in xtask/src/arrows.rs and to ARCHITECTURE.md",
                package.name
            )),
        }
    }
    broken
}

fn refusal(room: &Room, dependency: &Dependency, packages: &[Package]) -> Option<String> {
    let name = dependency.name.as_str();
    let ours = packages.iter().any(|package| package.name == name);
    let allowed = match room.outside {
        _ if dependency.for_tests && room.tests_may_use.contains(&name) => true,
        _ if ours => room.rooms.contains(&name),
        Some(outside) => outside.contains(&name),
        None => true,
    };
    (!allowed).then(|| {
        let choice: Vec<_> = room.rooms.iter().chain(room.outside.unwrap_or_default()).copied().collect();
        let may = if choice.is_empty() { "no room of ours".to_owned() } else { choice.join(", ") };
        format!("{} depends on {name}; it may use {may}", room.name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_named(name: &str, dependencies: &[(&str, bool)]) -> Package {
        Package {
            name: name.to_owned(),
            manifest: "Cargo.toml".into(),
            dependencies: dependencies
                .iter()
                .map(|&(name, for_tests)| Dependency { name: name.to_owned(), for_tests })
                .collect(),
        }
    }

    fn house(core: &[(&str, bool)], ffi: &[(&str, bool)], cli: &[(&str, bool)]) -> Vec<String> {
        check(&[
            crate_named("redgrease-core", core),
            crate_named("redgrease-ffi", ffi),
            crate_named("redgrease-module", &[("redgrease-core", false), ("redgrease-ffi", false), ("tracing", false)]),
            crate_named("redgrease-cli", cli),
        ])
    }

    #[test]
    fn the_intended_house_stands() {
        let core = [("thiserror", false), ("proptest", true)];
        assert_eq!(house(&core, &[("redis-module", false)], &[("redgrease-core", false)]), [""; 0]);
    }

    #[test]
    fn core_may_not_use_an_unlisted_crate_nor_a_test_crate_in_earnest() {
        assert_eq!(
            house(&[("libc", false), ("proptest", false)], &[], &[]),
            [
                "redgrease-core depends on libc; it may use serde, thiserror",
                "redgrease-core depends on proptest; it may use serde, thiserror"
            ]
        );
    }

    #[test]
    fn ffi_knows_no_room_not_even_for_its_tests() {
        assert_eq!(
            house(&[], &[("redgrease-core", true)], &[]),
            ["redgrease-ffi depends on redgrease-core; it may use no room of ours"]
        );
    }

    #[test]
    fn nobody_depends_on_the_module() {
        assert_eq!(
            house(&[], &[], &[("redgrease-module", false)]),
            ["redgrease-cli depends on redgrease-module; it may use redgrease-core, redgrease-filecache"]
        );
    }

    #[test]
    fn a_crate_without_a_room_is_named() {
        let broken = check(&[crate_named("redgrease-attic", &[])]);
        assert!(broken[0].starts_with("crate redgrease-attic is in no room"), "{broken:?}");
    }

    #[test]
    fn packages_are_read_from_cargo_metadata() {
        let metadata = serde_json::json!({ "packages": [{
            "name": "redgrease-core", "manifest_path": "/house/core/Cargo.toml",
            "dependencies": [{ "name": "thiserror", "kind": null }, { "name": "proptest", "kind": "dev" }],
        }]});
        let packages = packages(&metadata).unwrap();
        assert_eq!(packages[0].directory(), Path::new("/house/core"));
        assert_eq!(packages[0].dependencies.iter().map(|d| d.for_tests).collect::<Vec<_>>(), [false, true]);
    }
}
