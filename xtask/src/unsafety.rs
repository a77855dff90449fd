//! `unsafe` is allowed in two crates: every other crate inherits the lints of the workspace, which forbid it.

use anyhow::{Context, Result};
use toml::{Table, Value};

/// The only crates with a lints table of their own: the server's API, and memory shared with another process.
const UNSAFE_CRATES: [&str; 2] = ["redgrease-ffi", "redgrease-ring"];

/// Compares the workspace's manifest and those of its crates (name, text) with the rule.
pub fn check(workspace: &str, crates: &[(String, String)]) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let workspace: Table = workspace.parse().context("the workspace's Cargo.toml")?;
    let lints = workspace.get("workspace").and_then(|table| table.get("lints"));
    if unsafe_code(lints) != Some("forbid") {
        broken.push("the workspace's Cargo.toml must say: [workspace.lints.rust] unsafe_code = \"forbid\"".to_owned());
    }
    for (name, manifest) in crates.iter().filter(|(name, _)| !UNSAFE_CRATES.contains(&name.as_str())) {
        let manifest: Table = manifest.parse().with_context(|| format!("Cargo.toml of {name}"))?;
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
        if inherits != Some(true) {
            broken.push(format!(
                "{name} does not inherit the lints of the workspace ([lints] workspace = true); only {} may allow unsafe",
                UNSAFE_CRATES.join(" and ")
            ));
        }
    }
    Ok(broken)
}

/// The level of rustc's lint `unsafe_code`, written as a text or as a table with a level.
fn unsafe_code(lints: Option<&Value>) -> Option<&str> {
    let lint = lints?.get("rust")?.get("unsafe_code")?;
    lint.as_str().or_else(|| lint.get("level")?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORBIDDING: &str = "[workspace.lints.rust]\nunsafe_code = \"forbid\"";
    const INHERITING: &str = "[lints]\nworkspace = true";

    fn checked(workspace: &str, name: &str, manifest: &str) -> Vec<String> {
        check(workspace, &[(name.to_owned(), manifest.to_owned())]).unwrap()
    }

    #[test]
    fn a_crate_that_inherits_the_lints_passes() {
        assert_eq!(checked(FORBIDDING, "redgrease-core", INHERITING), [""; 0]);
        let with_priority = "[workspace.lints.rust]\nunsafe_code = { level = \"forbid\", priority = 1 }";
        assert_eq!(checked(with_priority, "redgrease-core", INHERITING), [""; 0]);
    }

    #[test]
    fn the_unsafe_crates_may_have_their_own_lints() {
        for name in UNSAFE_CRATES {
            assert_eq!(checked(FORBIDDING, name, "[lints.rust]\nunsafe_code = \"allow\""), [""; 0]);
        }
    }

    #[test]
    fn another_crate_with_its_own_or_no_lints_is_named() {
        for manifest in ["", "[lints.rust]\nunsafe_code = \"allow\"", "[lints]\nworkspace = false"] {
            let broken = checked(FORBIDDING, "redgrease-py", manifest);
            assert!(
                broken.len() == 1 && broken[0].starts_with("redgrease-py does not inherit"),
                "{manifest}: {broken:?}"
            );
        }
    }

    #[test]
    fn a_workspace_that_merely_denies_is_named() {
        let broken = checked("[workspace.lints.rust]\nunsafe_code = \"deny\"", "redgrease-core", INHERITING);
        assert!(broken.len() == 1 && broken[0].contains("forbid"), "{broken:?}");
    }
}
