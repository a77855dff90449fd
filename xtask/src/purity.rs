//! The core has no side effects: its sources may not use the parts of std that reach outside the program.
//!
//! Sources are parsed as token trees: comments and strings are ignored, macro arguments and grouped imports are checked.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// The crates that must stay pure.
pub const PURE_CRATES: &[&str] = &["redgrease-core", "redgrease-cache-rules"];

/// Paths below `std` that the core may not use.
const FORBIDDEN: &[&[&str]] = &[
    &["env"],
    &["fs"],
    &["io", "stderr"],
    &["io", "stdin"],
    &["io", "stdout"],
    &["net"],
    &["os"],
    &["process"],
    &["thread"],
    &["time", "Instant"],
    &["time", "SystemTime"],
];

/// Checks every Rust file below a directory.
pub fn check_directory(directory: &Path) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            broken.extend(check_directory(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            broken.extend(check_source(&path.display().to_string(), &crate::read(&path)?)?);
        }
    }
    broken.sort();
    Ok(broken)
}

/// Checks one file and names file, line and path of every use.
pub fn check_source(file: &str, source: &str) -> Result<Vec<String>> {
    let tokens: TokenStream = source.parse().map_err(|error| anyhow!("{file} is not Rust: {error}"))?;
    let mut uses = Vec::new();
    find_std(tokens, &mut uses);
    let refused = uses.into_iter().filter(|used| is_forbidden(&used.path));
    Ok(refused
        .map(|used| format!("{file}:{}: a pure crate may not use std::{}", used.line, used.path.join("::")))
        .collect())
}

struct Use {
    line: usize,
    /// What follows `std::`; a glob or a renamed parent is `*`.
    path: Vec<String>,
}

/// A path is refused when it leads to, into or (by a glob or by importing the parent) around something forbidden.
fn is_forbidden(path: &[String]) -> bool {
    let named: Vec<&str> = path.iter().map(String::as_str).filter(|&segment| segment != "*").collect();
    FORBIDDEN.iter().any(|forbidden| named.starts_with(forbidden) || forbidden.starts_with(&named))
}

/// Collects every path that begins with `std`, in all nested groups.
fn find_std(tokens: TokenStream, uses: &mut Vec<Use>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (position, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => find_std(group.stream(), uses),
            TokenTree::Ident(ident) if ident == "std" && !is_inner_segment(&tokens[..position]) => {
                let line = ident.span().start().line;
                let rest = &tokens[position + 1..];
                if is_path_separator(rest) {
                    follow(&rest[2..], line, &[], uses);
                } else if matches!(rest.first(), Some(TokenTree::Ident(word)) if word == "as") {
                    uses.push(Use { line, path: vec!["*".to_owned()] });
                }
            }
            _ => {}
        }
    }
}

/// Says whether the tokens end in `something::`, so that what follows is not the crate `std`. A leading `::std` is.
fn is_inner_segment(before: &[TokenTree]) -> bool {
    match before {
        [.., owner, first, second] if is_path_separator(&[first.clone(), second.clone()]) => {
            matches!(owner, TokenTree::Ident(ident) if !["use", "return", "in", "as", "dyn", "impl", "mut"].contains(&ident.to_string().as_str()))
        }
        _ => false,
    }
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(first), TokenTree::Punct(second), ..]
        if first.as_char() == ':' && first.spacing() == Spacing::Joint && second.as_char() == ':')
}

/// Follows a path to its end, or to its ends where it branches into a braced group.
fn follow(tokens: &[TokenTree], line: usize, before: &[String], uses: &mut Vec<Use>) {
    let mut path = before.to_vec();
    match tokens.first() {
        Some(TokenTree::Ident(ident)) if ident == "self" => uses.push(Use { line, path }),
        Some(TokenTree::Ident(ident)) => {
            path.push(ident.to_string());
            if is_path_separator(&tokens[1..]) {
                follow(&tokens[3..], ident.span().start().line, &path, uses);
            } else {
                uses.push(Use { line: ident.span().start().line, path });
            }
        }
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let inner: Vec<TokenTree> = group.stream().into_iter().collect();
            for branch in inner.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',')) {
                if !branch.is_empty() {
                    follow(branch, line, &path, uses);
                }
            }
        }
        Some(TokenTree::Punct(punct)) if punct.as_char() == '*' => {
            path.push("*".to_owned());
            uses.push(Use { line, path });
        }
        // `Vec::<std::..>` and the like: the path ended before.
        _ => uses.push(Use { line, path }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(source: &str) -> Vec<String> {
        check_source("x.rs", source).unwrap()
    }

    #[test]
    fn pure_code_that_mentions_files_passes() {
        let source = r#"
            //! Nothing here uses std::fs.
            use std::{collections::BTreeMap, fmt::{self, Display}, time::Duration};
            /* std::net */
            const WORDS: &str = "std::env";
            fn wait(limit: std::time::Duration) -> my::std::fs::File { std::mem::take(x) }
        "#;
        assert_eq!(broken(source), [""; 0]);
    }

    #[test]
    fn every_form_of_a_forbidden_path_is_found() {
        for source in [
            "use std::fs;",
            "use std::net::TcpStream;",
            "use std::{fmt, time::{Duration, Instant}};",
            "use std::time;",
            "use std::time::*;",
            "use std::time::{self, Duration};",
            "use std::*;",
            "use std as s;",
            "use ::std::process::Command;",
            "fn f() { let t = std::time::SystemTime::now(); }",
            "fn f() { assert!(std::env::var(\"X\").is_ok()); }",
            "fn f() { std::thread::spawn(|| ()); }",
            "fn f() { return ::std::io::stdout(); }",
        ] {
            assert_eq!(broken(source).len(), 1, "{source}: {:?}", broken(source));
        }
    }

    #[test]
    fn the_error_names_file_line_and_path() {
        assert_eq!(broken("\n\nuse std::fs::File;"), ["x.rs:3: a pure crate may not use std::fs::File"]);
    }

    #[test]
    fn a_file_that_is_not_rust_is_an_error() {
        assert!(check_source("x.rs", "fn f( {").is_err());
    }
}
