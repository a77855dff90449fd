//! The page of error codes, made from the table in `redgrease-core`, and whether each code is tested.

use std::path::Path;

use anyhow::{Context, Result, bail};
use redgrease_core::error_code::CODES;

const PAGE: &str = "docs/errors.md";

const HEAD: &str = "\
# Errors

The first word of an error is its code. Programs should compare that word only: the rest is for people, names the
thing, the value seen and the fix, and may change.

An error without one of these words is one of three kinds: the error of user code, as raised by Python; a text that clients of
RedisGears match on, which is unchanged; or the server's own error, such as `ERR` or `WRONGTYPE`.

The codes of the file cache are listed by `redgrease cache codes`.

This page is generated from `crates/redgrease-core/src/error_code.rs` by `cargo run -p xtask -- errors --write`.

| Code | What happened | What to do | Who | Retry |
|---|---|---|---|---|
";

fn page() -> String {
    let rows = CODES.iter().map(|entry| {
        format!(
            "| `{}` | {} | {} | {} | {} |\n",
            entry.code,
            entry.meaning,
            entry.remedy,
            entry.fault.name(),
            entry.retry.name()
        )
    });
    HEAD.chars().chain(rows.collect::<String>().chars()).collect()
}

/// Writes the page.
pub fn write(root: &Path) -> Result<()> {
    std::fs::write(root.join(PAGE), page()).with_context(|| format!("{PAGE} could not be written"))
}

/// Compares the page with the table, and looks for each code in the tests.
pub fn check(root: &Path) -> Result<()> {
    let mut broken = Vec::new();
    if std::fs::read_to_string(root.join(PAGE)).unwrap_or_default() != page() {
        broken.push(format!("{PAGE} is not what the table says: run cargo run -p xtask -- errors --write"));
    }
    let mut tests = texts(&root.join("tests"), "py")?;
    // What stands in a Rust file behind this is its tests.
    let sources = texts(&root.join("crates"), "rs")?;
    tests.extend(sources.iter().filter_map(|text| Some(text.split_once("#[cfg(test)]\nmod tests")?.1.to_owned())));
    let untested = CODES.iter().filter(|entry| !tests.iter().any(|text| mentions(text, entry.code)));
    broken.extend(untested.map(|entry| format!("no test expects the code {}", entry.code)));
    if !broken.is_empty() {
        bail!("{}", broken.join("\n  "));
    }
    println!("errors: {} codes, each with a row in {PAGE} and a test", CODES.len());
    Ok(())
}

/// Whether a text has a code as a word of its own.
fn mentions(text: &str, code: &str) -> bool {
    text.match_indices(code).any(|(at, _)| {
        let is_letter = |character: Option<char>| character.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        !is_letter(text[..at].chars().next_back()) && !is_letter(text[at + code.len()..].chars().next())
    })
}

/// The files with this extension below a directory.
fn texts(directory: &Path, extension: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("{} cannot be read", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(texts(&path, extension)?);
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(std::fs::read_to_string(&path).with_context(|| path.display().to_string())?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_word_of_its_own() {
        assert!(mentions("match='^PAUSED clients'", "PAUSED"));
        assert!(!mentions("UNPAUSED", "PAUSED"));
        assert!(!mentions("PAUSED_MS", "PAUSED"));
    }

    #[test]
    fn the_page_has_a_row_for_each_code() {
        assert_eq!(page().lines().filter(|line| line.starts_with("| `")).count(), CODES.len());
    }
}
