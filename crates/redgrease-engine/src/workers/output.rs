//! The standard output and error of a worker: lines, bounded in length and per second.

use redgrease_core::id::WorkerNo;

use crate::limits::{LINE_BYTES_MAX, LINE_COST_BYTES, LOG_BYTES_PER_S, OUTPUT_BYTES_PER_S};
use crate::prelude::*;

/// A rate limit in bytes of text per second; the rest is counted and dropped.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    window_start_ms: Option<u64>,
    spent: usize,
    dropped: usize,
}

impl Rate {
    /// Begins a new second if it is time; returns how many bytes were dropped in the last one.
    fn turn(&mut self, now_ms: u64) -> usize {
        let over = self.window_start_ms.is_none_or(|start| now_ms.saturating_sub(start) >= 1000);
        if !over {
            return 0;
        }
        let dropped = self.dropped;
        *self = Rate { window_start_ms: Some(now_ms), spent: 0, dropped: 0 };
        dropped
    }

    fn admits(&mut self, bytes: usize, limit: usize) -> bool {
        let admitted = self.spent + bytes <= limit;
        if admitted {
            self.spent += bytes;
        } else {
            self.dropped += bytes;
        }
        admitted
    }

    /// Whether another log line of a function is allowed, and a note about dropped ones.
    pub(crate) fn admits_log(&mut self, message: &[u8], now_ms: u64) -> (bool, Option<String>) {
        let lines = 1 + message.iter().filter(|byte| **byte == b'\n').count();
        let bytes = message.len() + lines * LINE_COST_BYTES;
        let note = dropped_note(self.turn(now_ms), LOG_BYTES_PER_S);
        (self.admits(bytes, LOG_BYTES_PER_S), note)
    }
}

/// One output.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    last_read_ms: u64,
    rate: Rate,
}

impl Lines {
    /// Adds output; returns the lines to be logged. `ended`: nothing follows.
    pub(crate) fn add(&mut self, bytes: &[u8], ended: bool, now_ms: u64) -> Vec<String> {
        self.last_read_ms = now_ms;
        let mut lines: Vec<String> = dropped_note(self.rate.turn(now_ms), OUTPUT_BYTES_PER_S).into_iter().collect();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") || self.partial.len() >= LINE_BYTES_MAX {
                self.finish_line(&mut lines);
            }
        }
        if ended && !self.partial.is_empty() {
            self.finish_line(&mut lines);
        }
        lines
    }

    fn finish_line(&mut self, lines: &mut Vec<String>) {
        let mut line = core::mem::take(&mut self.partial);
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if self.rate.admits(line.len() + LINE_COST_BYTES, OUTPUT_BYTES_PER_S) {
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
    }

    /// Whether the last line is unfinished.
    pub(crate) fn is_unfinished(&self) -> bool {
        !self.partial.is_empty()
    }

    /// The unfinished line, if nothing has been added to it for this long.
    pub(crate) fn take_unfinished(&mut self, silence_ms: u64, now_ms: u64) -> Option<String> {
        let silent = now_ms.saturating_sub(self.last_read_ms) >= silence_ms;
        let line = if silent { core::mem::take(&mut self.partial) } else { Vec::new() };
        (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned())
    }

    /// Ends the output of a session: its unfinished line, and a note about dropped output. The next session starts with
    /// a new second.
    pub(crate) fn end_session(&mut self, now_ms: u64) -> Vec<String> {
        let line = self.take_unfinished(0, now_ms);
        let rate = core::mem::take(&mut self.rate);
        line.into_iter().chain(dropped_note(rate.dropped, OUTPUT_BYTES_PER_S)).collect()
    }
}

fn dropped_note(dropped: usize, limit: usize) -> Option<String> {
    (dropped > 0).then(|| format!("({dropped} bytes were dropped: more than {limit} in a second)"))
}

/// The log line of something that a worker wrote.
pub(crate) fn log_text(worker: WorkerNo, session: &str, output: &str, line: &str) -> String {
    format!("rg: worker {worker} session '{session}' {output}: {line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_their_ends_and_at_the_limit() {
        let mut lines = Lines::default();
        assert_eq!(lines.add(b"one\ntw", false, 0), ["one"]);
        assert!(lines.is_unfinished());
        assert_eq!(lines.add(b"o\n\n", false, 0), ["two", ""]);
        let long = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(lines.add(&long, false, 0).len(), 1);
        assert_eq!(lines.add(b"rest", true, 0), ["rest"]);
    }

    #[test]
    fn an_unfinished_line_is_taken_after_silence() {
        let mut lines = Lines::default();
        lines.add(b"half", false, 10);
        assert_eq!(lines.take_unfinished(200, 100), None);
        assert_eq!(lines.take_unfinished(200, 210).as_deref(), Some("half"));
        assert_eq!(lines.take_unfinished(0, 300), None);
    }

    #[test]
    fn what_exceeds_the_rate_is_dropped_and_said_in_the_next_second() {
        let mut lines = Lines::default();
        let flood = b"x\n".repeat(OUTPUT_BYTES_PER_S);
        let logged = lines.add(&flood, false, 0).len();
        assert_eq!(logged, OUTPUT_BYTES_PER_S / (1 + LINE_COST_BYTES));
        let next = lines.add(b"y\n", false, 1000);
        assert!(next[0].contains("bytes were dropped"), "{next:?}");
        assert_eq!(next[1], "y");
        lines.add(&flood, false, 1001);
        assert!(lines.end_session(1002)[0].contains("dropped"));
        assert_eq!(lines.add(b"z\n", false, 1003), ["z"]);
    }

    #[test]
    fn a_log_text_counts_its_lines() {
        let mut rate = Rate::default();
        assert!(rate.admits_log(b"a", 0).0);
        assert!(!rate.admits_log(&vec![b'\n'; LOG_BYTES_PER_S / LINE_COST_BYTES], 1).0);
        assert!(rate.admits_log(b"b", 1500).1.is_some_and(|note| note.contains("dropped")));
    }
}
