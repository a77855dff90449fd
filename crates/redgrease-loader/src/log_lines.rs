//! The form of a line of the log on stderr.

use jiff::Timestamp;
use serde_json::json;

use crate::log::Level;
use crate::settings::LogFormat;

/// A text with a blank in place of each control character but these: texts of servers, names of files and what user code
/// raises must not control the terminal.
pub fn without_controls(text: &str, kept: &[char]) -> String {
    text.chars().map(|each| if changes_terminal(each) && !kept.contains(&each) { ' ' } else { each }).collect()
}

/// Whether a character may change the terminal, or the order in which others are shown.
pub fn changes_terminal(each: char) -> bool {
    each.is_control() || matches!(each, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Formats a message, which may have several lines, with the newline at its end.
pub fn line(format: LogFormat, level: Level, message: &str, now: Timestamp) -> String {
    let printable = |message: &str| without_controls(message, &['\n', '\t']);
    let time = now.strftime("%Y-%m-%dT%H:%M:%S%.6f").to_string();
    match format {
        LogFormat::Text => format!("{time}Z {:7} {}\n", level.name(), printable(message).replace('\n', "\n    ")),
        LogFormat::Tabs => {
            format!("{time}\t{}\tredgrease.loader:\t{}\tEOL\n", level.name().to_uppercase(), printable(message))
        }
        LogFormat::Json => {
            format!("{}\n", json!({ "time": format!("{time}Z"), "level": level.name(), "message": message }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let at = |format| line(format, Level::Info, "a\nb", Timestamp::UNIX_EPOCH);
        assert_eq!(at(LogFormat::Text), "1970-01-01T00:00:00.000000Z info    a\n    b\n");
        assert_eq!(at(LogFormat::Tabs), "1970-01-01T00:00:00.000000\tINFO\tredgrease.loader:\ta\nb\tEOL\n");
        let drawn = line(LogFormat::Text, Level::Info, "a\x1b[2J\tb", Timestamp::UNIX_EPOCH);
        assert!(drawn.ends_with("a [2J\tb\n"), "{drawn}");
        let json: serde_json::Value = serde_json::from_str(&at(LogFormat::Json)).unwrap();
        assert_eq!((json["level"].as_str(), json["message"].as_str()), (Some("info"), Some("a\nb")));
    }
}
