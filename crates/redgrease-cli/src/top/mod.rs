//! `redgrease top`: a live view of a server on the whole screen, one frame of it as text, or lines of JSON.

mod screen;
mod snapshot;

use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;
use redis::Connection;
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::iterator::Signals;

use crate::connection::{ConnectionOptions, Target};
use crate::failure::Failure;
use crate::gears;
use crate::output::{self, print, say};
use crate::signals::stop_signal;
use crate::units::interval;

use screen::View;
use snapshot::{Sample, Snapshot};

const TICK: Duration = Duration::from_millis(50);
/// Width of a frame that is not for a terminal.
const TEXT_WIDTH: u16 = 140;

/// Watch workers, executions and registrations as they change
///
/// It shows rates, latencies and errors of registrations. RUN/s and MEAN ms are of the time since the look before; LAG is how long the last batch of a stream had waited.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 redgrease top\n\
    \x20 redgrease top --interval 5s\n\
    \x20 redgrease top --once | mail -s 'gears today' me\n\
    \x20 redgrease top --json --interval 10s >> gears.jsonl\n\n\
    Keys: q, Esc or Ctrl-C quit; p or space pause")]
pub struct TopArgs {
    /// Time between two looks
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Print one frame as text, with rates of one interval [default, unless stdout is a terminal]
    #[arg(long)]
    pub once: bool,
    /// Print one line of JSON, and another one after each interval until Ctrl-C [with --once: only one, with its rates]
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

pub fn run(args: &TopArgs) -> Result<ExitCode> {
    let target = args.connection.target()?;
    let mut sampler = Sampler { target, connection: None, began: Instant::now(), interval: args.interval };
    let first = sampler.sample()?;
    if args.once || !(args.json || stdout().is_terminal()) {
        std::thread::sleep(args.interval);
        let second = sampler.sample()?;
        print(&if args.json {
            second.json(Some(&first))
        } else {
            frame(&Snapshot::of(&first), &Snapshot::of(&second))
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.json {
        print_lines(first, sampler)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut terminal = ratatui::try_init().context("the terminal cannot be used")?;
    let end = Live::new(Snapshot::of(&first), sampler).run(&mut terminal);
    ratatui::restore();
    end.map(|()| ExitCode::SUCCESS)
}

/// Prints a line of JSON for each sample, until Ctrl-C. A server that is lost is asked again after each interval.
fn print_lines(first: Sample, mut sampler: Sampler) -> Result<()> {
    let stop = stop_signal()?;
    print(&first.json(None))?;
    let mut before = first;
    let mut last_failure = None;
    while stop.recv_timeout(sampler.interval) == Err(RecvTimeoutError::Timeout) {
        match sampler.sample() {
            Ok(sample) => {
                print(&sample.json(Some(&before)))?;
                before = sample;
                last_failure = None;
            }
            Err(failure) => {
                // The same one is told once.
                if last_failure.as_ref() != Some(&failure) {
                    say(format_args!("redgrease: {}; trying again", failure.what));
                }
                last_failure = Some(failure);
            }
        }
    }
    Ok(())
}

/// One frame as text.
fn frame(before: &Snapshot, now: &Snapshot) -> String {
    let columns = rustix::termios::tcgetwinsize(stdout()).map_or(0, |size| size.ws_col);
    let width = if columns == 0 { TEXT_WIDTH } else { columns };
    let view = View { now, before: Some(before), notice: Some(""), is_coloured: false };
    screen::text(&screen::draw(&view, Rect::new(0, 0, width, screen::full_height(now))))
}

/// Reads the server again and again; for the screen in its own thread, so that keys are answered while a server hangs.
struct Sampler {
    target: Target,
    connection: Option<Connection>,
    began: Instant,
    interval: Duration,
}

impl Sampler {
    /// Until the receiver of the snapshots has gone.
    fn run(mut self, samples: &Sender<Result<Snapshot, Failure>>, stop: &Receiver<()>) {
        while stop.recv_timeout(self.interval) == Err(RecvTimeoutError::Timeout) {
            let sample = self.sample();
            if samples.send(sample.as_ref().map(Snapshot::of).map_err(Clone::clone)).is_err() {
                return;
            }
        }
    }

    fn sample(&mut self) -> Result<Sample, Failure> {
        // After an error the connection is not used any more.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => gears::open(&self.target, Some(gears::REPLY_TIMEOUT))?,
        };
        let sample = Sample::read(&mut connection, &self.target.place(), self.began)?;
        self.connection = Some(connection);
        Ok(sample)
    }
}

struct Live {
    now: Snapshot,
    before: Option<Snapshot>,
    notice: Option<String>,
    is_paused: bool,
    is_coloured: bool,
    samples: Receiver<Result<Snapshot, Failure>>,
    /// Dropped to end the sampler.
    _sampler: Sender<()>,
}

impl Live {
    fn new(first: Snapshot, sampler: Sampler) -> Self {
        let (sender, samples) = channel();
        let (keep, stop) = channel();
        std::thread::spawn(move || sampler.run(&sender, &stop));
        let is_coloured = output::colours_wanted();
        Self { now: first, before: None, notice: None, is_paused: false, is_coloured, samples, _sampler: keep }
    }

    fn run(&mut self, terminal: &mut DefaultTerminal) -> Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGHUP]).context("signals cannot be watched")?;
        loop {
            let view = View {
                now: &self.now,
                before: self.before.as_ref(),
                notice: self.notice.as_deref().or(self.is_paused.then_some("paused: p continues, q quits")),
                is_coloured: self.is_coloured,
            };
            terminal.draw(|drawn| {
                let buffer = screen::draw(&view, drawn.area());
                drawn.buffer_mut().merge(&buffer);
            })?;
            loop {
                if signals.pending().next().is_some() {
                    return Ok(());
                }
                if event::poll(TICK)? {
                    match event::read()? {
                        Event::Key(key) if key.kind != KeyEventKind::Release && quits(key) => return Ok(()),
                        Event::Key(KeyEvent { code: KeyCode::Char('p' | ' '), kind: KeyEventKind::Press, .. }) => {
                            self.is_paused = !self.is_paused;
                        }
                        _ => {}
                    }
                    break;
                }
                if self.take_sample()? {
                    break;
                }
            }
        }
    }

    /// Takes what the sampler read; returns whether there is something new to draw.
    fn take_sample(&mut self) -> Result<bool> {
        match self.samples.try_recv() {
            Ok(_) if self.is_paused => return Ok(false),
            Ok(Ok(sample)) => {
                self.before = Some(std::mem::replace(&mut self.now, sample));
                self.notice = None;
            }
            Ok(Err(failure)) => self.notice = Some(format!("{}; trying again", failure.what)),
            Err(TryRecvError::Empty) => return Ok(false),
            Err(TryRecvError::Disconnected) => {
                anyhow::bail!("the thread that reads the server has ended: this is a bug")
            }
        }
        Ok(true)
    }
}

fn quits(key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}
