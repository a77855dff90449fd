//! Printing of data and messages.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdout};

use anyhow::{Context, Result};
use redgrease_loader::log_lines::{changes_terminal, without_controls};

/// Prints a text on stdout. Characters outside ASCII that may change the terminal are escaped as in JSON: JSON itself leaves
/// them.
pub fn print(text: &str) -> Result<()> {
    let changes = |each: char| !each.is_ascii() && changes_terminal(each);
    if !text.contains(changes) {
        return print_bytes(text.as_bytes());
    }
    let escaped = |each: char| if changes(each) { format!("\\u{:04x}", u32::from(each)) } else { each.to_string() };
    print_bytes(text.chars().map(escaped).collect::<String>().as_bytes())
}

/// Prints data on stdout.
pub fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("the output cannot be written")
}

/// Prints a line on stderr: a message of the program, or what user code raised. That nobody reads it is no error.
pub fn say(line: impl Display) {
    let line = lines(&line.to_string());
    let _nobody_reads = stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// A text with a blank in place of each control character but those between and in lines.
pub fn lines(text: &str) -> String {
    without_controls(text, &['\n', '\t'])
}

/// A text with a blank in place of each control character.
pub fn one_line(text: &str) -> String {
    without_controls(text, &[])
}

/// `1 entry`, `2 entries`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Whether colours are wanted on stdout: it is a terminal, and the environment variable NO_COLOR is not set.
pub fn colours_wanted() -> bool {
    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
