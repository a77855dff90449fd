//! The protocol between the parent and a worker.
//!
//! The parent writes lines to the worker's standard input; its end, also when the parent dies, means stop.
//! The worker answers with lines on its standard output.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::lock::lock;

/// Start working.
pub const GO: &str = "go";
/// Start counting; the warm-up has ended.
pub const COUNT: &str = "count";

/// A message of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The cache is open.
    Ready,
    /// The work is done and everything is recorded.
    Done,
    /// The worker has failed, for this reason.
    Failed(String),
}

impl Message {
    pub fn line(&self) -> String {
        match self {
            Self::Ready => "ready".to_owned(),
            Self::Done => "done".to_owned(),
            Self::Failed(reason) => format!("failed {}", reason.escape_debug()),
        }
    }

    pub fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            None if line == "ready" => Some(Self::Ready),
            None if line == "done" => Some(Self::Done),
            Some(("failed", reason)) => Some(Self::Failed(reason.to_owned())),
            _ => None,
        }
    }
}

/// The current requests of the parent to a worker.
#[derive(Debug, Default)]
pub struct Control {
    requests: Mutex<Requests>,
    changed: Condvar,
    /// The same as in `requests`, checked between any two operations.
    stop: AtomicBool,
    count: AtomicBool,
}

#[derive(Debug, Default)]
struct Requests {
    go: bool,
    stop: bool,
}

impl Control {
    pub fn go(&self) {
        lock(&self.requests).go = true;
        self.changed.notify_all();
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        lock(&self.requests).stop = true;
        self.changed.notify_all();
    }

    pub fn count_from_now(&self) {
        self.count.store(true, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether counting begins; returns true once.
    pub fn begins_to_count(&self) -> bool {
        self.count.load(Ordering::Relaxed) && self.count.swap(false, Ordering::Relaxed)
    }

    /// Waits for the start signal; returns false if the run has ended before.
    pub fn wait_to_go(&self) -> bool {
        let requests = lock(&self.requests);
        let _waited = self.changed.wait_while(requests, |requests| !requests.go && !requests.stop);
        !self.is_stopped()
    }

    /// Sleeps, at most until the end of the run.
    pub fn sleep(&self, time: Duration) {
        let _waited = self.changed.wait_timeout_while(lock(&self.requests), time, |requests| !requests.stop);
    }

    /// Reads the lines of the parent until they end.
    pub fn follow(&self, lines: impl Read) {
        for line in BufReader::new(lines).lines() {
            match line.as_deref() {
                Ok(GO) => self.go(),
                Ok(COUNT) => self.count_from_now(),
                _ => break,
            }
        }
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn messages_are_parsed_from_their_lines() {
        for message in [Message::Ready, Message::Done, Message::Failed("no".to_owned())] {
            assert_eq!(Message::parse(&message.line()), Some(message));
        }
        let two_lines = Message::Failed("two\nlines".to_owned()).line();
        assert!(!two_lines.contains('\n'));
        for nonsense in ["", "READY", "ready steady", "thread 'main' panicked"] {
            assert_eq!(Message::parse(nonsense), None);
        }
    }

    #[test]
    fn the_end_of_the_parent_stops_the_worker() {
        let control = Control::default();
        control.follow(&b"go\ncount\n"[..]);
        assert!(control.is_stopped() && control.begins_to_count() && !control.begins_to_count());
        assert!(!control.wait_to_go());
    }

    #[test]
    fn a_stopped_worker_does_not_sleep() {
        let control = Control::default();
        control.stop();
        let began = Instant::now();
        control.sleep(Duration::from_secs(600));
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
