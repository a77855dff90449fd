//! Errors of Python code, which servers print as a list of the lines of a traceback.

use std::borrow::Cow;

use redgrease_core::repr;

/// An error of user code: what the server said, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonError {
    text: String,
    lines: Vec<String>,
    is_traceback: bool,
}

impl PythonError {
    /// Reads the text of an error, such as [`Registration::last_error`](crate::Registration::last_error).
    #[must_use]
    pub fn new(text: String) -> PythonError {
        let lines = repr::texts(text.trim());
        let is_traceback = lines.is_some();
        PythonError { lines: lines.unwrap_or_else(|| vec![text.clone()]), text, is_traceback }
    }

    /// The text as it was received.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The lines of the traceback; the text as the only line if it is none.
    #[must_use]
    pub fn traceback(&self) -> &[String] {
        &self.lines
    }

    /// The name of the Python exception, such as `ValueError`, if there was one.
    #[must_use]
    pub fn exception(&self) -> Option<&str> {
        self.last_line().0
    }

    /// The message of the exception; without one, the whole text. One line, if user code does not break it.
    #[must_use]
    pub fn message(&self) -> &str {
        self.last_line().1
    }

    /// Exception and message as Python prints them, `ValueError: no number`; without an exception, the whole text.
    #[must_use]
    pub fn summary(&self) -> Cow<'_, str> {
        match self.last_line() {
            (Some(exception), "") => exception.into(),
            (Some(exception), message) => format!("{exception}: {message}").into(),
            (None, message) => message.into(),
        }
    }

    fn last_line(&self) -> (Option<&str>, &str) {
        let last = self.lines.last().map_or("", |line| line.trim());
        if !self.is_traceback {
            return without_lines(last).unwrap_or((None, last));
        }
        let (name, message) = last.split_once(": ").unwrap_or((last, ""));
        if is_dotted_name(name) { (Some(name), message) } else { (None, last) }
    }
}

/// An error that no line of Python code raised: `Error type: <class 'TypeError'>, Value: ...`.
fn without_lines(line: &str) -> Option<(Option<&str>, &str)> {
    let (name, message) = line.strip_prefix("Error type: <class '")?.split_once("'>, Value:")?;
    Some((Some(name), message.trim_start()))
}

fn is_dotted_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.')
}

impl std::fmt::Display for PythonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.lines.concat().trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_traceback_names_exception_and_message() {
        let text = r#"['Traceback (most recent call last):\n', '  File "<string>", line 1, in <module>\n', "ValueError: it\'s \x07 \u00e9\n"]"#;
        let error = PythonError::new(text.to_owned());
        assert_eq!(error.traceback().len(), 3);
        assert_eq!((error.exception(), error.message()), (Some("ValueError"), "it's \u{7} é"));
        assert_eq!(error.summary(), "ValueError: it's \u{7} é");
        assert!(error.to_string().starts_with("Traceback (most recent call last):\n  File \"<string>\""));
    }

    #[test]
    fn other_texts_are_their_own_message() {
        let table = [
            ("WORKERDIED worker 3 has ended", None, "WORKERDIED worker 3 has ended"),
            ("Error type: <class 'TypeError'>, Value: '<' not supported", Some("TypeError"), "'<' not supported"),
            ("['open", None, "['open"),
            ("[]", None, "[]"),
            ("['a' 'b']", None, "['a' 'b']"),
            (r"['\q']", None, r"['\q']"),
            ("", None, ""),
            ("ValueError: one line is no traceback", None, "ValueError: one line is no traceback"),
        ];
        for (text, exception, message) in table {
            let error = PythonError::new(text.to_owned());
            assert_eq!((error.exception(), error.message()), (exception, message), "{text}");
            assert_eq!(error.exception().is_none(), error.summary() == text.trim(), "{text}");
        }
    }

    #[test]
    fn an_exception_without_a_message_has_its_name() {
        let error = PythonError::new(r"['Traceback\n', 'KeyboardInterrupt\n']".to_owned());
        assert_eq!((error.exception(), error.message()), (Some("KeyboardInterrupt"), ""));
        assert_eq!(error.summary(), "KeyboardInterrupt");
    }

    #[test]
    fn a_syntax_error_may_have_no_other_line() {
        let error = PythonError::new(r"['SyntaxError: source code string cannot contain null bytes\n']".to_owned());
        assert_eq!(error.exception(), Some("SyntaxError"));
        assert_eq!(error.to_string(), "SyntaxError: source code string cannot contain null bytes");
    }
}
