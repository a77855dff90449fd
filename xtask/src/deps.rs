//! The dependency rules between crates, compared with the manifests.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// What one crate may depend on. Dependencies of tests and build scripts count like all others, except `tests_may_use`.
struct Rule {
    name: &'static str,
    /// The crates of this workspace that it may use.
    ours: &'static [&'static str],
    /// The only external crates that it may use; `None`: any.
    external: Option<&'static [&'static str]>,
    tests_may_use: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        name: "redgrease-core",
        ours: &[],
        external: Some(&["postcard", "serde", "serde_bytes", "thiserror"]),
        tests_may_use: &["proptest"],
    },
    Rule { name: "redgrease-ffi", ours: &[], external: Some(&[]), tests_may_use: &["proptest"] },
    Rule {
        name: "redgrease-ring",
        ours: &[],
        external: Some(&["loom", "rustix", "thiserror"]),
        tests_may_use: &["proptest"],
    },
    Rule {
        name: "redgrease-engine",
        ours: &["redgrease-core"],
        external: Some(&["serde", "thiserror"]),
        // Itself, with the feature of its simulation.
        tests_may_use: &["proptest", "redgrease-engine"],
    },
    Rule {
        name: "redgrease-module",
        ours: &["redgrease-core", "redgrease-engine", "redgrease-ffi", "redgrease-ring"],
        external: None,
        tests_may_use: &[],
    },
    Rule {
        name: "redgrease-cache-rules",
        ours: &[],
        external: Some(&["blake3", "serde", "thiserror"]),
        tests_may_use: &["proptest"],
    },
    Rule { name: "redgrease-filecache", ours: &["redgrease-cache-rules"], external: None, tests_may_use: &[] },
    Rule { name: "redgrease-loader", ours: &["redgrease"], external: None, tests_may_use: &[] },
    Rule {
        name: "redgrease-py",
        ours: &["redgrease-core", "redgrease-filecache", "redgrease-loader", "redgrease-ring"],
        external: None,
        tests_may_use: &[],
    },
    Rule {
        name: "redgrease-cli",
        ours: &["redgrease", "redgrease-filecache", "redgrease-loader"],
        external: None,
        tests_may_use: &[],
    },
    Rule {
        name: "redgrease",
        ours: &["redgrease-core"],
        external: None,
        // Itself, with all features.
        tests_may_use: &["redgrease"],
    },
    Rule { name: "xtask", ours: &["redgrease-core"], external: None, tests_may_use: &[] },
];

/// A crate of the workspace as `cargo metadata` describes it.
pub struct Package {
    pub name: String,
    pub manifest: PathBuf,
    pub dependencies: Vec<Dependency>,
    /// The root files of its library and its programs.
    pub roots: Vec<PathBuf>,
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
    let roots = list(value, "targets")?
        .iter()
        .filter(|target| {
            let kinds = target["kind"].as_array();
            kinds.is_some_and(|kinds| {
                kinds.iter().filter_map(Value::as_str).any(|kind| kind == "bin" || kind.ends_with("lib"))
            })
        })
        .map(|target| Ok(text(target, "src_path")?.into()))
        .collect::<Result<_>>()?;
    Ok(Package { name: text(value, "name")?, manifest: text(value, "manifest_path")?.into(), dependencies, roots })
}

fn list<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>> {
    value[field].as_array().with_context(|| format!("cargo metadata without a list '{field}'"))
}

fn text(value: &Value, field: &str) -> Result<String> {
    value[field].as_str().map(str::to_owned).with_context(|| format!("cargo metadata without a text '{field}'"))
}

/// Returns one sentence for each violation of the rules.
pub fn check(packages: &[Package]) -> Vec<String> {
    let mut broken = Vec::new();
    for package in packages {
        match RULES.iter().find(|rule| rule.name == package.name) {
            Some(rule) => {
                broken.extend(package.dependencies.iter().filter_map(|dependency| refusal(rule, dependency, packages)));
            }
            None => broken.push(format!(
                "crate {} has no rule: add it to RULES in xtask/src/deps.rs and to ARCHITECTURE.md",
                package.name
            )),
        }
    }
    broken
}

fn refusal(rule: &Rule, dependency: &Dependency, packages: &[Package]) -> Option<String> {
    let name = dependency.name.as_str();
    let ours = packages.iter().any(|package| package.name == name);
    let allowed = match rule.external {
        _ if dependency.for_tests && rule.tests_may_use.contains(&name) => true,
        _ if ours => rule.ours.contains(&name),
        Some(external) => external.contains(&name),
        None => true,
    };
    (!allowed).then(|| {
        let choice: Vec<_> = rule.ours.iter().chain(rule.external.unwrap_or_default()).copied().collect();
        let may = match (choice.is_empty(), rule.external) {
            (false, _) => choice.join(", "),
            (true, Some(_)) => "no other crate".to_owned(),
            (true, None) => "no crate of this workspace".to_owned(),
        };
        format!("{} depends on {name}; it may use {may}", rule.name)
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
            roots: Vec::new(),
        }
    }

    fn violations(core: &[(&str, bool)], ffi: &[(&str, bool)], cli: &[(&str, bool)]) -> Vec<String> {
        check(&[
            crate_named("redgrease-core", core),
            crate_named("redgrease-ffi", ffi),
            crate_named("redgrease-module", &[("redgrease-core", false), ("redgrease-ffi", false), ("tracing", false)]),
            crate_named("redgrease-filecache", &[("redgrease-cache-rules", false)]),
            crate_named("redgrease-cli", cli),
        ])
    }

    #[test]
    fn the_intended_dependencies_pass() {
        let core = [("thiserror", false), ("proptest", true)];
        assert_eq!(violations(&core, &[], &[("redgrease-filecache", false)]), [""; 0]);
    }

    #[test]
    fn core_may_not_use_an_unlisted_crate_nor_a_test_crate_outside_tests() {
        assert_eq!(
            violations(&[("libc", false), ("proptest", false)], &[], &[]),
            [
                "redgrease-core depends on libc; it may use postcard, serde, serde_bytes, thiserror",
                "redgrease-core depends on proptest; it may use postcard, serde, serde_bytes, thiserror"
            ]
        );
    }

    #[test]
    fn ffi_uses_no_crate_of_ours_not_even_in_tests() {
        assert_eq!(
            violations(&[], &[("redgrease-core", true)], &[]),
            ["redgrease-ffi depends on redgrease-core; it may use no other crate"]
        );
    }

    #[test]
    fn the_engine_uses_the_core_and_the_module_drives_both() {
        let engine = |dependency| {
            check(&[
                crate_named("redgrease-core", &[]),
                crate_named("redgrease-ffi", &[]),
                crate_named("redgrease-engine", &[(dependency, false)]),
                crate_named("redgrease-module", &[("redgrease-engine", false), ("redgrease-core", false)]),
            ])
        };
        assert_eq!(engine("redgrease-core"), [""; 0]);
        for refused in ["redgrease-ffi", "rustix"] {
            let expected =
                format!("redgrease-engine depends on {refused}; it may use redgrease-core, serde, thiserror");
            assert_eq!(engine(refused), [expected]);
        }
    }

    #[test]
    fn the_client_knows_the_core_and_neither_engine_nor_module() {
        let client = |dependency| {
            check(&[
                crate_named("redgrease-core", &[]),
                crate_named("redgrease-engine", &[]),
                crate_named("redgrease", &[(dependency, false), ("redis", false), ("redgrease", true)]),
            ])
        };
        assert_eq!(client("redgrease-core"), [""; 0]);
        let expected = "redgrease depends on redgrease-engine; it may use redgrease-core";
        assert_eq!(client("redgrease-engine"), [expected]);
    }

    #[test]
    fn no_crate_depends_on_the_module() {
        assert_eq!(
            violations(&[], &[], &[("redgrease-module", false)]),
            ["redgrease-cli depends on redgrease-module; it may use redgrease, redgrease-filecache, redgrease-loader"]
        );
    }

    #[test]
    fn a_crate_without_a_rule_is_named() {
        let broken = check(&[crate_named("redgrease-attic", &[])]);
        assert!(broken[0].starts_with("crate redgrease-attic has no rule"), "{broken:?}");
    }

    #[test]
    fn packages_are_read_from_cargo_metadata() {
        let metadata = serde_json::json!({ "packages": [{
            "name": "redgrease-core", "manifest_path": "/workspace/core/Cargo.toml",
            "dependencies": [{ "name": "thiserror", "kind": null }, { "name": "proptest", "kind": "dev" }],
            "targets": [
                { "kind": ["lib"], "src_path": "/x/core/src/lib.rs" },
                { "kind": ["test"], "src_path": "/x/core/tests/t.rs" },
            ],
        }]});
        let packages = packages(&metadata).unwrap();
        assert_eq!(packages[0].directory(), Path::new("/workspace/core"));
        assert_eq!(packages[0].dependencies.iter().map(|d| d.for_tests).collect::<Vec<_>>(), [false, true]);
    }
}
