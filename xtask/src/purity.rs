//! The crates that decide do nothing else: they are compiled without `std`, so that the compiler refuses clocks, threads,
//! files, sockets and processes. Here is only what the compiler does not see: that `std` is not brought back.
//!
//! What their dependencies may be is in [`deps`](crate::deps).

use std::path::Path;

use anyhow::{Context, Result};
use syn::visit::{self, Visit};

use crate::source;

/// The crates that must stay pure.
pub const PURE_CRATES: &[&str] = &["redgrease-core", "redgrease-cache-rules", "redgrease-engine"];

/// Checks every Rust file below the directory `src` of a crate.
pub fn check_directory(directory: &Path) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let root = directory.join("lib.rs");
    if !is_no_std(&source::parse(&root)?) {
        broken.push(format!("{}: a pure crate begins with #![no_std]", root.display()));
    }
    check_files(directory, &mut broken)?;
    Ok(broken)
}

fn check_files(directory: &Path, broken: &mut Vec<String>) -> Result<()> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            check_files(&path, broken)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let lines = std_crates(&source::parse(&path)?);
            broken.extend(lines.iter().map(|line| {
                format!("{}:{line}: a pure crate may name std for its tests only: #[cfg(test)]", path.display())
            }));
        }
    }
    Ok(())
}

/// Whether the crate is without `std` in every build. `cfg_attr(not(test), no_std)` is not enough: it hides uses of std
/// from the builds that developers run.
fn is_no_std(root: &syn::File) -> bool {
    root.attrs.iter().any(|attribute| attribute.path().is_ident("no_std"))
}

/// The lines with an `extern crate std` that is not for tests.
fn std_crates(file: &syn::File) -> Vec<usize> {
    #[derive(Default)]
    struct Finder(Vec<usize>);
    impl<'ast> Visit<'ast> for Finder {
        fn visit_item(&mut self, item: &'ast syn::Item) {
            if !source::is_for_tests(item) {
                visit::visit_item(self, item);
            }
        }

        fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
            if item.ident == "std" {
                self.0.push(item.ident.span().start().line);
            }
        }
    }
    let mut finder = Finder::default();
    finder.visit_file(file);
    finder.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(source: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("lib.rs"), source).unwrap();
        let place = format!("{}/", directory.path().display());
        check_directory(directory.path()).unwrap().iter().map(|text| text.replace(&place, "")).collect()
    }

    #[test]
    fn a_crate_without_std_passes_and_may_use_it_in_its_tests() {
        let source =
            "//! Pure.\n#![no_std]\nextern crate alloc;\n#[cfg(test)]\nextern crate std;\nuse alloc::vec::Vec;";
        assert_eq!(broken(source), [""; 0]);
    }

    #[test]
    fn a_crate_with_std_is_named_also_when_only_its_tests_have_it() {
        for source in ["", "#![cfg_attr(not(test), no_std)]", "// #![no_std]"] {
            assert_eq!(broken(source), ["lib.rs: a pure crate begins with #![no_std]"], "{source}");
        }
    }

    #[test]
    fn std_that_is_brought_back_is_named_with_its_line() {
        for source in [
            "#![no_std]\nextern crate std;",
            "#![no_std]\nextern crate std as core2;",
            "#![no_std]\npub extern crate std;",
            "#![no_std]\n#[cfg(not(test))] extern crate std;",
            "#![no_std]\nmod x { extern crate std; }",
            "#![no_std]\nfn f() { extern crate std; std::process::exit(1) }",
        ] {
            assert_eq!(
                broken(source),
                ["lib.rs:2: a pure crate may name std for its tests only: #[cfg(test)]"],
                "{source}"
            );
        }
    }

    #[test]
    fn files_below_are_checked_and_what_is_not_rust_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        std::fs::create_dir(directory.path().join("below")).unwrap();
        write("lib.rs", "#![no_std]\nmod below;");
        write("below/mod.rs", "extern crate std;");
        let found = check_directory(directory.path()).unwrap();
        assert!(found.len() == 1 && found[0].contains("below/mod.rs:1:"), "{found:?}");

        write("below/mod.rs", "fn f( {");
        let error = check_directory(directory.path()).unwrap_err().to_string();
        assert!(error.contains("below/mod.rs:1: not Rust"), "{error}");
    }
}
