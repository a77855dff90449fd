//! The protocol between the parent and a worker.
//!
//! The parent writes lines into the worker's standard input; its end, also caused by the parent's death, means stop.
//! The worker answers with lines on its standard output.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Start to work.
pub const GO: &str = "go";
/// Start to count; the warm-up has ended.
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
    wishes: Mutex<Wishes>,
    changed: Condvar,
    /// The same as in `wishes`, checked between any two operations.
    stop: AtomicBool,
    count: AtomicBool,
}

#[derive(Debug, Default)]
struct Wishes {
    go: bool,
    stop: bool,
}

impl Control {
    pub fn go(&self) {
        self.wishes().go = true;
        self.changed.notify_all();
    }

    pub fn stop(&self) {
        self.wishes().stop = true;
        self.stop.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    pub fn count_from_now(&self) {
        self.count.store(true, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether counting begins; true once.
    pub fn begins_to_count(&self) -> bool {
        self.count.load(Ordering::Relaxed) && self.count.swap(false, Ordering::Relaxed)
    }

    /// Waits for the start signal; false if the run has ended before.
    pub fn wait_to_go(&self) -> bool {
        let wishes = self.changed.wait_while(self.wishes(), |wishes| !wishes.go && !wishes.stop);
        !wishes.unwrap_or_else(PoisonError::into_inner).stop
    }

    /// Sleeps, at most until the end of the run.
    pub fn sleep(&self, time: Duration) {
        let _waited = self.changed.wait_timeout_while(self.wishes(), time, |wishes| !wishes.stop);
    }

    /// Follows the lines of the parent until they end.
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

    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn messages_survive_the_way() {
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
    fn the_end_of_the_parent_is_the_word_to_stop() {
        let control = Control::default();
        control.follow(&b"go\ncount\n"[..]);
        assert!(control.is_stopped() && control.begins_to_count() && !control.begins_to_count());
        assert!(!control.wait_to_go());
    }

    #[test]
    fn a_stopped_worker_does_not_sleep_on() {
        let control = Control::default();
        control.stop();
        let began = Instant::now();
        control.sleep(Duration::from_secs(600));
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
