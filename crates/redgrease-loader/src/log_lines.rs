//! The form of a line of the log on stderr.

use jiff::Timestamp;
use serde_json::json;

use crate::log::Level;
use crate::settings::LogFormat;

/// Formats a message, which may have several lines, with the newline at its end.
pub fn line(format: LogFormat, level: Level, message: &str, now: Timestamp) -> String {
    let time = now.strftime("%Y-%m-%dT%H:%M:%S%.6f").to_string();
    match format {
        LogFormat::Text => format!("{time}Z {:7} {}\n", level.name(), message.replace('\n', "\n    ")),
        LogFormat::Tabs => format!("{time}\t{}\tredgrease.loader:\t{message}\tEOL\n", level.name().to_uppercase()),
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
        let json: serde_json::Value = serde_json::from_str(&at(LogFormat::Json)).unwrap();
        assert_eq!((json["level"].as_str(), json["message"].as_str()), (Some("info"), Some("a\nb")));
    }
}
