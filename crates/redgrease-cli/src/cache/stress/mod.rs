//! `redgrease cache stress`: load of many processes on one cache, with injected faults and final checks.
//!
//! The parent (`supervisor`, `live`) starts this program again for each worker (`worker`). Counters (`counters`) and
//! acknowledged creates (`journal`) are in files of a private folder, so that `kill -9` loses nothing. In the
//! end `checks` compares the journals with the cache, and `report` prints.

pub mod args;
mod check;
mod checks;
mod control;
mod counters;
mod journal;
mod keyspace;
mod known;
mod latency;
mod live;
mod lock;
mod payload;
mod report;
mod supervisor;
mod worker;

use std::ffi::OsString;
use std::fs;
use std::io::{Write, stdout};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use redgrease_filecache::FileCache;
use rustix::process::Signal;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::args::{Stress, StressWorker};
use self::checks::Journals;
use self::control::{Control, Message};
use self::live::{Chaos, Lister, Pulse, Watcher};
use self::report::Run;
use self::supervisor::{Event, Supervisor};
use self::worker::{Identity, open_cache};
use crate::misuse::misuse;
use crate::output::print;
use crate::process::Process;
use crate::terminal::Line;

/// Name of the subcommand on the command line.
const NAME: &str = "stress";
/// Each worker follows the journals of all, and descriptors are limited to 1024 in many places.
const PROCESSES_MAX: u32 = 400;
/// Exit status that shells use for programs ended by Ctrl-C.
const INTERRUPTED: u8 = 130;
/// Prefix of the names of runs' folders; the process number follows.
const FOLDER: &str = "redgrease-stress-";
const PULSE_EVERY: Duration = Duration::from_millis(500);
/// The same if it prints permanent lines.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// A worker that is stopped this factor longer than its lease has lost it.
const STOP_LEASES: f64 = 1.5;

pub fn run(args: &Stress) -> Result<ExitCode> {
    refuse_nonsense(args)?;
    let seed = args.load.seed.map_or_else(random_seed, Ok)?;
    let folder = Folder::create()?;
    let cache = open_cache(args)?;
    prepare(args, &cache)?;
    let mut lister = Lister::new(args.load.keyspace(), &folder.path)?;
    lister.list(&cache)?;
    let words = std::env::args_os().skip_while(|word| word != NAME).skip(1).collect();
    let mut stage = Stage::set(args, words, seed, &folder, &cache)?;
    let run = stage.play(lister)?;
    let mut out = stdout().lock();
    if !args.json {
        out.write_all((run.seed_report() + &run.further()).as_bytes())?;
        out.flush()?;
    }
    run_hook(args)?;
    let journals = Journals::read(&folder.path, args.processes.max(1))?;
    let checks = checks::examine(&cache, &args.load, &journals, &run, args.quiet);
    let text = if args.json { format!("{}\n", run.json(&checks)) } else { report::invariants(&checks) };
    out.write_all(text.as_bytes())?;
    out.flush()?;
    let is_sound = checks.iter().all(check::Check::holds) && run.missing().next().is_none();
    Ok(match (is_sound, run.is_interrupted) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(INTERRUPTED),
        (true, false) => ExitCode::SUCCESS,
    })
}

/// `redgrease cache stress-worker`: one worker process.
pub fn work(args: &StressWorker) -> Result<ExitCode> {
    die_with_parent()?;
    let stress = Words::try_parse_from([OsString::from(NAME)].into_iter().chain(args.words.iter().cloned()))
        .map_err(|error| misuse(format!("invalid arguments of the command stress: {error}")))?
        .stress;
    let control = Arc::new(Control::default());
    let told = control.clone();
    std::thread::spawn(move || told.follow(std::io::stdin()));
    let identity =
        Identity { number: args.number, generation: args.generation, seed: args.run_seed, folder: args.folder.clone() };
    let say = |message: Message| drop(print(&format!("{}\n", message.line())));
    match worker::run(&stress, &identity, &control, say) {
        Ok(()) => {
            say(Message::Done);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            say(Message::Failed(format!("{error:#}")));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The command line of `stress`, as a worker gets it.
#[derive(Debug, Parser)]
struct Words {
    #[command(flatten)]
    stress: Stress,
}

/// A worker without its parent would never end.
fn die_with_parent() -> Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("the parent's end cannot be followed")?;
    Ok(())
}

fn refuse_nonsense(args: &Stress) -> Result<()> {
    if args.processes > PROCESSES_MAX {
        return Err(misuse(format!("--processes {}: {PROCESSES_MAX} at most", args.processes)));
    }
    if args.processes == 0 && (args.kill_every.is_some() || args.stop_every.is_some()) {
        return Err(misuse("--processes 0 works inside this process, which --kill-every and --stop-every would end"));
    }
    Ok(())
}

/// From the operating system, so that no two runs are equal by accident.
fn random_seed() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).context("the system has no random numbers: name a --seed")?;
    Ok(u64::from_le_bytes(bytes))
}

fn prepare(args: &Stress, cache: &FileCache) -> Result<()> {
    if args.clean_start {
        cache.clear()?;
    }
    if args.load.max_bytes > 0 {
        let mut limits = cache.info()?.limits;
        limits.max_bytes = args.load.max_bytes;
        cache.configure(&limits)?;
    }
    Ok(())
}

fn run_hook(args: &Stress) -> Result<()> {
    let Some(hook) = &args.before_checks else { return Ok(()) };
    let status = std::process::Command::new("sh")
        .args(["-c", hook])
        .env("REDGREASE_CACHE_DIR", &args.place.cache_dir)
        .status()
        .context("--before-checks cannot be run")?;
    if status.success() { Ok(()) } else { Err(anyhow!("--before-checks ended with {status}")) }
}

/// The private folder of a run, removed at its end.
struct Folder {
    path: PathBuf,
}

impl Folder {
    /// In memory if possible: records are written often and are not needed after the run.
    fn create() -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = match std::env::var_os("TMPDIR") {
            None if memory.is_dir() => memory.to_owned(),
            _ => std::env::temp_dir(),
        };
        sweep(&parent);
        let path = parent.join(format!("{FOLDER}{}-{:016x}", std::process::id(), random_seed()?));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self { path })
    }
}

/// Removes files of killed runs.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(FOLDER)?.split('-').next()?.parse().ok());
        if owner.is_some_and(|pid| !Process::now(pid).is_alive()) {
            let _not_ours = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.path);
    }
}

/// State of a run.
struct Stage<'a> {
    args: &'a Stress,
    seed: u64,
    cache: &'a FileCache,
    supervisor: Supervisor,
    rng: fastrand::Rng,
    line: Line,
    killed: u32,
    stopped: u32,
    stop_for: Duration,
    /// Workers whose unexpected end was reported.
    told: Vec<u32>,
    /// Signals Ctrl-C.
    is_done: Arc<AtomicBool>,
}

impl<'a> Stage<'a> {
    fn set(args: &'a Stress, words: Vec<OsString>, seed: u64, folder: &Folder, cache: &'a FileCache) -> Result<Self> {
        let supervisor = Supervisor::start(args, words, seed, folder.path.clone())?;
        let is_done = end_on_signal(&supervisor, folder.path.clone())?;
        let lease = cache.options().lease;
        Ok(Self {
            args,
            seed,
            cache,
            supervisor,
            rng: fastrand::Rng::with_seed(!seed),
            line: Line::new(args.quiet),
            killed: 0,
            stopped: 0,
            stop_for: args.stop_for.unwrap_or_else(|| lease.mul_f64(STOP_LEASES)),
            told: Vec::new(),
            is_done,
        })
    }

    /// The whole run, from the first operation to the last result.
    fn play(&mut self, lister: Lister) -> Result<Run> {
        self.supervisor.go()?;
        let watcher = Watcher::start(self.cache.clone(), lister, self.supervisor.sender(), self.args.load.max_bytes);
        let mut is_interrupted = false;
        if !self.args.warm_up.is_zero() {
            is_interrupted = self.act(self.args.warm_up, &watcher)?;
            self.supervisor.count_from_now();
        }
        let began = Instant::now();
        is_interrupted = is_interrupted || self.act(self.args.duration, &watcher)?;
        let elapsed = began.elapsed();
        self.line.set("waiting for the workers");
        self.supervisor.stop();
        self.is_done.store(true, Ordering::Relaxed);
        self.report_missing();
        self.line.wipe();
        let seen = watcher.seen();
        drop(watcher);
        // The watcher's last sample is before the end.
        let bytes_left = self.cache.info().map_or(0, |info| info.bytes);
        Ok(Run {
            seed: self.seed,
            keyspace: self.args.load.keyspace().to_string(),
            requested: self.args.duration,
            elapsed,
            is_interrupted,
            killed: self.killed,
            stopped: self.stopped,
            stopped_for: self.stop_for,
            peak_bytes: seen.peak_bytes.max(bytes_left),
            peak_over: seen.peak_over,
            outcomes: self.supervisor.outcomes(),
        })
    }

    /// Runs the load, kills and stops workers, and reports progress; returns true if it was interrupted.
    fn act(&mut self, duration: Duration, watcher: &Watcher) -> Result<bool> {
        let began = Instant::now();
        let end = began + duration;
        let mut pulse = Pulse::new(duration);
        let every = |period: Option<Duration>| Timer { next: period.map(|period| began + period), period };
        let milliseconds =
            |requested: bool, count: u64| (requested && !self.args.quiet).then(|| Duration::from_millis(count));
        let mut kill = every(self.args.kill_every);
        let mut stop = every(self.args.stop_every);
        let is_visible = self.line.is_visible();
        let is_plain = !is_visible && !self.args.quiet && self.args.monitor_ms.is_none();
        let mut show = every(is_visible.then_some(PULSE_EVERY).or(is_plain.then_some(PLAIN_EVERY)));
        let mut monitor = every(self.args.monitor_ms.and_then(|count| milliseconds(true, count)));
        let mut debug = every(milliseconds(self.args.debug, self.args.debug_interval_ms));
        loop {
            let now = Instant::now();
            if now >= end || self.supervisor.has_ended() {
                return Ok(false);
            }
            if kill.is_due(now) {
                self.killed += u32::from(self.supervisor.kill_one(&mut self.rng)?);
            }
            if stop.is_due(now) {
                self.stopped += u32::from(self.supervisor.stop_one(&mut self.rng, now + self.stop_for));
            }
            if monitor.is_due(now) {
                self.line.say(&live::monitor_line(now - began, &watcher.seen()));
            }
            if debug.is_due(now) {
                watcher.look(now - began, self.args.debug_top);
            }
            if show.is_due(now) {
                let chaos = Chaos { killed: self.killed, stopped: self.stopped };
                let beat = pulse.beat(self.supervisor.counters(), &watcher.seen(), chaos);
                if is_plain {
                    self.line.say(&beat.plain());
                } else {
                    self.line.set(&beat.line(self.line.width()));
                }
            }
            let resume = self.supervisor.continue_stopped(now);
            let timers = [kill.next, stop.next, show.next, monitor.next, debug.next, resume];
            let next = timers.into_iter().flatten().fold(end, Instant::min);
            match self.supervisor.next_event(next.saturating_duration_since(Instant::now())) {
                Some(Event::Signal) => return Ok(true),
                Some(Event::Note(words)) => self.line.say(&words),
                Some(event) => {
                    self.supervisor.take(&event);
                    self.report_missing();
                }
                None => {}
            }
        }
    }

    /// Reports a missing worker at once.
    fn report_missing(&mut self) {
        for (number, reason) in self.supervisor.missing() {
            if !self.told.contains(&number) {
                self.told.push(number);
                self.line.say(&format!("redgrease: worker {number} is missing: {reason}"));
            }
        }
    }
}

/// Ends the run with a report on the first Ctrl-C, and immediately on the second, or on the first after the work.
/// The returned flag marks the end of the work.
fn end_on_signal(supervisor: &Supervisor, folder: PathBuf) -> Result<Arc<AtomicBool>> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals cannot be caught")?;
    let events = supervisor.sender();
    let is_done = Arc::new(AtomicBool::new(false));
    let work_is_done = is_done.clone();
    std::thread::spawn(move || {
        for _signal in signals.forever() {
            if work_is_done.swap(true, Ordering::Relaxed) {
                // The workers end with this process.
                let _left_behind = fs::remove_dir_all(&folder);
                std::process::exit(i32::from(INTERRUPTED));
            }
            let _run_has_ended = events.send(Event::Signal);
        }
    });
    Ok(is_done)
}

/// A periodic action, or none.
struct Timer {
    period: Option<Duration>,
    next: Option<Instant>,
}

impl Timer {
    /// Whether it is due. Missed times are skipped.
    fn is_due(&mut self, now: Instant) -> bool {
        let (Some(period), Some(next)) = (self.period, self.next) else { return false };
        if now < next {
            return false;
        }
        self.next = Some(if next + period > now { next + period } else { now + period });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_due_once_per_period_and_makes_up_for_nothing() {
        let began = Instant::now();
        let period = Duration::from_millis(500);
        let mut timer = Timer { period: Some(period), next: Some(began + period) };
        assert!(!timer.is_due(began));
        assert!(timer.is_due(began + period) && !timer.is_due(began + period));
        assert!(timer.is_due(began + period * 9) && !timer.is_due(began + period * 9));
        assert!(timer.is_due(began + period * 10));
        assert!(!Timer { period: None, next: None }.is_due(began));
    }

    #[test]
    fn the_folder_of_a_run_is_private_and_goes_with_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::create().unwrap();
        let path = folder.path.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn folders_of_killed_runs_are_removed_and_those_of_living_ones_are_not() {
        let parent = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let make = |name: String| {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let dead = make(format!("{FOLDER}{}-0", child.id()));
        let others = [make(format!("{FOLDER}{}-0", std::process::id())), make("something-1-2".to_owned())];
        sweep(parent.path());
        assert!(!dead.exists() && others.iter().all(|path| path.exists()));
    }
}
