//! Printing of data and messages.

use std::io::{IsTerminal, Write, stdout};

use anyhow::Result;

/// Prints data on stdout.
pub fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// `1 entry`, `2 entries`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Whether colours are wanted on stdout: it is a terminal, and the environment variable NO_COLOR is not set.
pub fn colours_wanted() -> bool {
    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
