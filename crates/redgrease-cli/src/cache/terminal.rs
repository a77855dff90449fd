//! One line on stderr that is written again and again, when stderr is a terminal; otherwise silence.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

const BAR: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// The line that changes. It is wiped when dropped.
pub struct Line {
    is_shown: bool,
    is_terminal: bool,
}

impl Line {
    pub fn new(quiet: bool) -> Self {
        Self { is_shown: false, is_terminal: !quiet && stderr().is_terminal() }
    }

    /// Whether anybody can see it.
    pub fn is_visible(&self) -> bool {
        self.is_terminal
    }

    /// How many characters fit into it.
    pub fn room(&self) -> usize {
        room(width())
    }

    pub fn set(&mut self, text: &str) {
        if self.is_terminal {
            let _nobody_looks = write!(stderr(), "\r{}\x1b[K", cut(text, self.room()));
            self.is_shown = true;
        }
    }

    /// Prints a lasting line above the changing one.
    pub fn say(&mut self, text: &str) {
        self.wipe();
        let _nobody_looks = writeln!(stderr(), "{text}");
    }

    pub fn wipe(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let _nobody_looks = write!(stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// How much of a known amount is done.
pub struct Progress {
    line: Line,
    what: &'static str,
    shown: Instant,
}

impl Progress {
    pub fn new(what: &'static str, quiet: bool) -> Self {
        Self { line: Line::new(quiet), what, shown: Instant::now() }
    }

    /// Always says to go on.
    pub fn show(&mut self, done: u64, total: u64) -> bool {
        if self.line.is_visible() && self.shown.elapsed() >= PAUSE {
            self.shown = Instant::now();
            let share = if total == 0 { 1.0 } else { done as f64 / total as f64 };
            self.line.set(&format!("{} {} {done} of {total}", self.what, bar(share)));
        }
        true
    }
}

/// `[#####···············]`
pub fn bar(share: f64) -> String {
    bar_of(BAR, share)
}

/// The same with so many cells.
pub fn bar_of(cells: usize, share: f64) -> String {
    let filled = (share.clamp(0.0, 1.0) * cells as f64) as usize;
    format!("[{}{}]", "#".repeat(filled), "·".repeat(cells - filled))
}

fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(stderr()).map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { 80 } else { columns }
}

/// Some terminals begin a second line as soon as the first one is full.
fn room(width: usize) -> usize {
    width.saturating_sub(1)
}

/// The text without what would make a second line.
fn cut(text: &str, room: usize) -> String {
    text.chars().take(room).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills() {
        assert_eq!(bar(0.0), format!("[{}]", "·".repeat(BAR)));
        assert_eq!(bar(0.5).matches('#').count(), BAR / 2);
        assert_eq!(bar(7.0), format!("[{}]", "#".repeat(BAR)));
        assert_eq!(bar(f64::NAN).matches('#').count(), 0);
        assert_eq!(bar_of(4, 0.5), "[##··]");
    }

    #[test]
    fn a_line_is_cut_at_the_width_of_the_terminal() {
        assert_eq!(cut("größer", room(4)), "grö");
        assert_eq!(cut("a", room(80)), "a");
        assert_eq!(room(0), 0);
    }
}
