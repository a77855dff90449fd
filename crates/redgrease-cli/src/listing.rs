//! What the server lists, as rows of tables and as JSON: registrations, sessions, executions, workers.

use std::time::Duration;

use redgrease::{EventSource, ExecutionInfo, Linked, PythonError, Registration, Session};
use serde_json::{Value as Json, json};

use crate::ids;
use crate::info::Worker;
use crate::output::one_line;
use crate::table::Table;
use crate::units::show_bytes;

/// Characters of an error, and of a name or description, that tables show.
const ERROR_SHOWN: usize = 60;
const NAME_SHOWN: usize = 120;

pub fn registrations(rows: &[Registration]) -> String {
    let heading = ["ID", "READER", "FIRES FOR", "MODE", "RUNS", "FAILED", "MEAN ms", "LAST ERROR"];
    let mut table = Table::new(&heading, &[0, 4, 5, 6]);
    for row in rows {
        table.add(vec![
            ids::short(&row.id),
            row.reader.clone(),
            short_source(&row.source),
            mode(row),
            row.triggered.to_string(),
            row.failed.to_string(),
            row.mean_run.map_or(String::new(), millis),
            row.last_error.as_deref().map_or(String::new(), short_error),
        ]);
    }
    table.text()
}

/// Mode, and the state of a stream's reader unless it runs.
pub fn mode(row: &Registration) -> String {
    match row.status.as_deref() {
        None => row.mode.clone(),
        Some(status) if status.eq_ignore_ascii_case("running") || status.eq_ignore_ascii_case("ok") => row.mode.clone(),
        Some(status) => format!("{} ({})", row.mode, status.to_ascii_lowercase()),
    }
}

/// What starts a registration, in a few words.
pub fn source(source: &EventSource) -> String {
    match source {
        EventSource::Keys { pattern, event_types, commands, .. } => {
            let mut text = format!("keys {pattern}");
            for (label, names) in [("events", event_types), ("commands", commands)] {
                if let Some(names) = names {
                    text += &format!(" {label}={}", names.join(","));
                }
            }
            text
        }
        EventSource::Stream { pattern, batch, .. } => format!("stream {pattern} batch={batch}"),
        EventSource::Command { trigger, .. } => format!("trigger {trigger}"),
        _ => String::new(),
    }
}

/// The same, cut to the width of a cell.
pub fn short_source(event_source: &EventSource) -> String {
    cut(&source(event_source), NAME_SHOWN)
}

fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

pub fn millis(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e3)
}

/// The last line of an error, without control characters, cut to the width of a cell.
pub fn short_error(text: &str) -> String {
    let lines = error_lines(text);
    let last = lines.trim_end().lines().last().unwrap_or_default();
    cut(&one_line(last), ERROR_SHOWN)
}

/// The lines of an error that the server prints as a Python list.
pub fn error_lines(text: &str) -> String {
    PythonError::new(text.to_owned()).to_string()
}

pub fn registration_json(row: &Registration) -> Json {
    let millis = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64() * 1e3);
    json!({
        "id": row.id.to_string(),
        "reader": row.reader,
        "source": source(&row.source),
        "description": row.description,
        "mode": row.mode,
        "status": row.status,
        "triggered": row.triggered,
        "succeeded": row.succeeded,
        "failed": row.failed,
        "aborted": row.aborted,
        "last_run_ms": millis(row.last_run),
        "total_run_ms": millis(row.total_run),
        "mean_run_ms": millis(row.mean_run),
        "last_lag_ms": millis(row.last_lag),
        "mean_lag_ms": millis(row.mean_lag),
        "last_error": row.last_error.as_deref().map(error_lines),
    })
}

pub fn sessions(rows: &[Session]) -> String {
    let mut table = Table::new(&["ID", "STATE", "REFERENCES", "REGISTRATIONS", "REQUIREMENTS", "DESCRIPTION"], &[2]);
    for row in rows {
        table.add(vec![
            row.id.clone(),
            if row.is_dead { "ends" } else { "live" }.to_owned(),
            row.references.to_string(),
            registrations_of(row).join(" "),
            requirements_of(row).join(" "),
            cut(row.description.as_deref().unwrap_or_default(), NAME_SHOWN),
        ]);
    }
    table.text()
}

fn registrations_of(session: &Session) -> Vec<String> {
    let short = |linked: &Linked<_, Registration>| match linked {
        Linked::Name(id) => ids::short(id),
        Linked::Row(row) => ids::short(&row.id),
        _ => String::new(),
    };
    session.registrations.iter().map(short).collect()
}

fn requirements_of(session: &Session) -> Vec<String> {
    let name = |linked: &Linked<String, redgrease::Requirement>| match linked {
        Linked::Name(name) => name.clone(),
        Linked::Row(row) => row.name.clone(),
        _ => String::new(),
    };
    session.requirements.iter().map(name).collect()
}

pub fn session_json(row: &Session) -> Json {
    json!({
        "id": row.id,
        "description": row.description,
        "references": row.references,
        "dead": row.is_dead,
        "registrations": registrations_of(row),
        "requirements": requirements_of(row),
    })
}

pub fn executions(rows: &[ExecutionInfo]) -> String {
    let mut table = Table::new(&["ID", "STATE", "STARTED BY"], &[0]);
    for row in rows {
        table.add(vec![ids::short(&row.id), row.state.name().to_owned(), started_by(row).to_owned()]);
    }
    table.text()
}

pub fn started_by(row: &ExecutionInfo) -> &'static str {
    if row.registered { "registration" } else { "client" }
}

pub fn execution_json(row: &ExecutionInfo) -> Json {
    json!({ "id": row.id.to_string(), "state": row.state.name(), "started_by": started_by(row) })
}

pub fn workers(rows: &[Worker]) -> String {
    let mut table =
        Table::new(&["WORKER", "PID", "SESSIONS", "SERVED", "RSS", "PEAK RSS", "ISOLATION"], &[0, 1, 2, 3, 4, 5]);
    for row in rows {
        table.add(vec![
            row.number.to_string(),
            row.pid.to_string(),
            row.sessions.to_string(),
            row.served.to_string(),
            show_bytes(row.rss_bytes),
            show_bytes(row.peak_rss_bytes),
            row.isolation.clone(),
        ]);
    }
    table.text()
}

pub fn worker_json(row: &Worker) -> Json {
    json!({
        "worker": row.number,
        "pid": row.pid,
        "sessions": row.sessions,
        "served": row.served,
        "rss_bytes": row.rss_bytes,
        "peak_rss_bytes": row.peak_rss_bytes,
        "isolation": row.isolation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_its_last_line() {
        let text =
            r#"['Traceback (most recent call last):\n', '  File "<string>", line 1\n', 'IndexError: out of range\n']"#;
        assert_eq!(short_error(text), "IndexError: out of range");
        assert_eq!(short_error(&"é".repeat(100)), format!("{}...", "é".repeat(ERROR_SHOWN)));
        assert_eq!(short_error(""), "");
    }

    #[test]
    fn what_fires_is_told_in_a_few_words() {
        let command = EventSource::Command { trigger: "visit".to_owned(), in_order: false };
        assert_eq!(source(&command), "trigger visit");
        assert_eq!(short_source(&command), "trigger visit");
        let long = EventSource::Command { trigger: "é".repeat(1_000_000), in_order: false };
        assert_eq!(short_source(&long).chars().count(), NAME_SHOWN + 3);
    }
}
