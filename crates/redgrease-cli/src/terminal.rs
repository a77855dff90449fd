//! A status line on stderr if it is a terminal, otherwise nothing.

use std::io::{Write, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const BAR: usize = 20;

/// The status line; erased when dropped.
pub struct Line(ProgressBar);

impl Line {
    pub fn new(quiet: bool) -> Self {
        Self::with_style(quiet, "{wide_msg}")
    }

    fn with_style(quiet: bool, template: &str) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = ProgressStyle::with_template(template).expect("the template is one of this file");
        Self(ProgressBar::with_draw_target(None, target).with_style(style.progress_chars("#·")))
    }

    /// Whether it is visible.
    pub fn is_visible(&self) -> bool {
        !self.0.is_hidden()
    }

    /// Its width. Some terminals begin a second line as soon as the first one is full.
    pub fn width(&self) -> usize {
        let columns = rustix::termios::tcgetwinsize(stderr()).map_or(0, |size| usize::from(size.ws_col));
        (if columns == 0 { 80 } else { columns }).saturating_sub(1)
    }

    /// Shows a text, cut to the width.
    pub fn set(&mut self, text: &str) {
        if self.0.is_finished() {
            self.0.reset();
        }
        self.0.set_message(text.to_owned());
    }

    /// Prints a permanent line above the status line.
    pub fn say(&mut self, text: &str) {
        self.0.suspend(|| {
            let _nobody_looks = writeln!(stderr(), "{text}");
        });
    }

    pub fn wipe(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// Progress of a known amount.
pub struct Progress(Line);

impl Progress {
    pub fn new(what: &str, quiet: bool) -> Self {
        Self(Line::with_style(quiet, &format!("{what} [{{bar:{BAR}}}] {{pos}} of {{len}}")))
    }

    /// Always returns true: continue.
    pub fn show(&mut self, done: u64, total: u64) -> bool {
        self.0.0.set_length(total);
        self.0.0.set_position(done);
        true
    }
}

/// `[#####···············]`, for full-screen output.
pub fn bar(share: f64) -> String {
    bar_of(BAR, share)
}

/// The same with this number of cells.
pub fn bar_of(cells: usize, share: f64) -> String {
    let filled = (share.clamp(0.0, 1.0) * cells as f64) as usize;
    format!("[{}{}]", "#".repeat(filled), "·".repeat(cells - filled))
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
}
