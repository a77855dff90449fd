//! The parent's side of the workers: starts, signals, kills, stops, replaces and waits for them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};

use super::args::Stress;
use super::control::{COUNT, Control, GO, Message};
use super::counters::{Counters, Tally, read, read_counters};
use super::worker::{self, Identity, record_path};

/// Time for all workers together to open the cache.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// Time for a worker to end after it was asked to. An operation on a server that hangs takes some seconds.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// An event of the run.
#[derive(Debug)]
pub enum Event {
    Said {
        number: u32,
        generation: u32,
        message: Message,
    },
    /// A worker closed its standard output: it has ended.
    Ended {
        number: u32,
        generation: u32,
    },
    /// The user interrupts the run.
    Signal,
    /// A message to print.
    Note(String),
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitState {
    Done,
    /// Why its result is missing.
    Missing(String),
}

/// The work of a worker number, by all processes that had it.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub number: u32,
    /// The last process.
    pub pid: u32,
    pub killed: u32,
    pub tally: Tally,
    pub exit: ExitState,
}

pub struct Supervisor {
    stress: Stress,
    words: Vec<std::ffi::OsString>,
    seed: u64,
    folder: PathBuf,
    members: Vec<Member>,
    /// Numbers of workers that have a result, in the order of arrival.
    arrived: Vec<u32>,
    events: Receiver<Event>,
    sender: Sender<Event>,
}

struct Member {
    number: u32,
    generation: u32,
    /// Earlier processes with this number only warmed up.
    first_counted: u32,
    /// The counters of killed processes.
    before: Counters,
    body: Body,
    is_ready: bool,
    stopped_until: Option<Instant>,
    exit: Option<ExitState>,
}

enum Body {
    Process {
        child: Child,
        input: Option<ChildStdin>,
    },
    /// The only worker of a run without processes.
    Thread(Arc<Control>),
}

impl Supervisor {
    /// Starts all workers. They wait for [`Supervisor::go`].
    pub fn start(stress: &Stress, words: Vec<std::ffi::OsString>, seed: u64, folder: PathBuf) -> Result<Self> {
        let (sender, events) = channel();
        let mut supervisor = Self {
            stress: stress.clone(),
            words,
            seed,
            folder,
            members: Vec::new(),
            arrived: Vec::new(),
            events,
            sender,
        };
        for number in 1..=stress.processes.max(1) {
            let body = if stress.processes == 0 { supervisor.thread(number) } else { supervisor.spawn(number, 0)? };
            supervisor.members.push(Member {
                number,
                generation: 0,
                first_counted: 0,
                before: Counters::default(),
                body,
                is_ready: false,
                stopped_until: None,
                exit: None,
            });
        }
        Ok(supervisor)
    }

    /// A sender of events.
    pub fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    fn spawn(&self, number: u32, generation: u32) -> Result<Body> {
        let mut child = Command::new(ourselves()?)
            .arg0("redgrease")
            .args(["cache", "stress-worker", "--number", &number.to_string(), "--generation", &generation.to_string()])
            .args(["--run-seed", &self.seed.to_string(), "--folder"])
            .arg(&self.folder)
            .arg("--")
            .args(&self.words)
            // Ctrl-C on the terminal is for the parent, which ends the run.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("worker {number} cannot be started"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().expect("a pipe was requested");
        let events = self.sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(message) = Message::parse(&line) {
                    let _run_has_ended = events.send(Event::Said { number, generation, message });
                }
            }
            let _run_has_ended = events.send(Event::Ended { number, generation });
        });
        Ok(Body::Process { child, input })
    }

    fn thread(&self, number: u32) -> Body {
        let control = Arc::new(Control::default());
        let (stress, events, told) = (self.stress.clone(), self.sender.clone(), control.clone());
        let identity = Identity { number, generation: 0, seed: self.seed, folder: self.folder.clone() };
        std::thread::spawn(move || {
            let say = |message| drop(events.send(Event::Said { number, generation: 0, message }));
            match worker::run(&stress, &identity, &told, say) {
                Ok(()) => say(Message::Done),
                Err(error) => say(Message::Failed(format!("{error:#}"))),
            }
            let _run_has_ended = events.send(Event::Ended { number, generation: 0 });
        });
        Body::Thread(control)
    }

    // -- requests

    /// Waits until all workers have opened the cache, and starts them together.
    pub fn go(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        while let Some(late) = self.members.iter().find(|member| !member.is_ready) {
            let number = late.number;
            if let Some(ExitState::Missing(reason)) = &late.exit {
                return Err(anyhow!("worker {number} could not start: {reason}"));
            }
            match self.next_event(deadline.saturating_duration_since(Instant::now())) {
                Some(Event::Signal) => return Err(anyhow!("interrupted before all workers were ready")),
                Some(event) => self.take(&event),
                None => return Err(anyhow!("worker {number} was not ready within {} s", READY_DEADLINE.as_secs())),
            }
        }
        self.members.iter_mut().for_each(Member::go);
        Ok(())
    }

    /// Ends the warm-up.
    pub fn count_from_now(&mut self) {
        for member in &mut self.members {
            member.first_counted = member.generation;
            member.before = Counters::default();
            match &mut member.body {
                Body::Thread(control) => control.count_from_now(),
                Body::Process { input, .. } => send_line(input, COUNT),
            }
        }
    }

    /// The next event, if one arrives in time.
    pub fn next_event(&self, timeout: Duration) -> Option<Event> {
        self.events.recv_timeout(timeout).ok()
    }

    /// Records an event of a worker. The last message of a killed process is ignored.
    pub fn take(&mut self, event: &Event) {
        let (Event::Said { number, generation, .. } | Event::Ended { number, generation }) = event else { return };
        let Some(member) = self.members.iter_mut().find(|member| member.number == *number) else { return };
        if member.generation != *generation || member.exit.is_some() {
            return;
        }
        match event {
            Event::Said { message: Message::Ready, .. } => member.is_ready = true,
            Event::Said { message: Message::Done, .. } => {
                member.exit = Some(ExitState::Done);
                self.arrived.push(*number);
            }
            Event::Said { message: Message::Failed(reason), .. } => member.miss(reason.clone()),
            _ => {
                let how = member.how_it_ended();
                member.miss(how);
            }
        }
    }

    /// Workers that ended without being asked to, with the reason.
    pub fn missing(&self) -> impl Iterator<Item = (u32, &str)> {
        self.members.iter().filter_map(|member| match &member.exit {
            Some(ExitState::Missing(reason)) => Some((member.number, reason.as_str())),
            _ => None,
        })
    }

    pub fn has_ended(&self) -> bool {
        self.members.iter().all(|member| member.exit.is_some())
    }

    // -- injected faults

    /// Kills a random running worker, and starts another one with its number.
    pub fn kill_one(&mut self, rng: &mut fastrand::Rng) -> Result<bool> {
        let Some(index) = self.pick(rng) else { return Ok(false) };
        let next = self.members[index].generation + 1;
        let number = self.members[index].number;
        self.members[index].kill();
        let counted = read_counters(&record_path(&self.folder, number, next - 1));
        let body = self.spawn(number, next)?;
        let member = &mut self.members[index];
        if next > member.first_counted {
            member.before += &counted;
        }
        (member.body, member.generation, member.is_ready) = (body, next, false);
        // It starts working as soon as it can.
        member.go();
        Ok(true)
    }

    /// Stops a random running worker, as if its host hung.
    pub fn stop_one(&mut self, rng: &mut fastrand::Rng, until: Instant) -> bool {
        let Some(index) = self.pick(rng) else { return false };
        self.members[index].stopped_until = Some(until);
        self.members[index].signal(Signal::STOP);
        true
    }

    /// Continues stopped workers whose time has come; returns when the next one is due.
    pub fn continue_stopped(&mut self, now: Instant) -> Option<Instant> {
        for member in self.members.iter_mut().filter(|member| member.stopped_until.is_some_and(|until| until <= now)) {
            member.stopped_until = None;
            member.signal(Signal::CONT);
        }
        self.members.iter().filter_map(|member| member.stopped_until).min()
    }

    fn pick(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        let can = |member: &Member| member.exit.is_none() && member.stopped_until.is_none();
        let running: Vec<usize> = (0..self.members.len()).filter(|&index| can(&self.members[index])).collect();
        (!running.is_empty()).then(|| running[rng.usize(..running.len())])
    }

    // -- the end

    /// Asks all workers to end and waits for them; those that do not end are killed, and their results are missing.
    pub fn stop(&mut self) {
        for member in &mut self.members {
            if member.stopped_until.take().is_some() {
                member.signal(Signal::CONT);
            }
            match &mut member.body {
                Body::Thread(control) => control.stop(),
                Body::Process { input, .. } => drop(input.take()),
            }
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        while !self.has_ended() {
            match self.next_event(deadline.saturating_duration_since(Instant::now())) {
                Some(event) => self.take(&event),
                None => break,
            }
        }
        for member in &mut self.members {
            if member.exit.is_none() {
                member.kill();
                member.miss(format!(
                    "it did not end within {} s after the request to stop, and was killed",
                    STOP_DEADLINE.as_secs()
                ));
            } else if let Body::Process { child, .. } = &mut member.body {
                let _known = child.wait();
            }
        }
    }

    /// The sum of all counters so far.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for member in &self.members {
            sum += &member.before;
            sum += &read_counters(&record_path(&self.folder, member.number, member.generation));
        }
        sum
    }

    /// The result of each worker, in the order of arrival.
    pub fn outcomes(&self) -> Vec<Outcome> {
        let arrival =
            |member: &&Member| self.arrived.iter().position(|number| *number == member.number).unwrap_or(usize::MAX);
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by_key(arrival);
        members.into_iter().map(|member| member.outcome(&self.folder)).collect()
    }
}

impl Drop for Supervisor {
    /// No worker outlives the run, also after an error.
    fn drop(&mut self) {
        for member in &mut self.members {
            if member.exit.is_none() {
                member.kill();
            }
        }
    }
}

impl Member {
    fn go(&mut self) {
        match &mut self.body {
            Body::Thread(control) => control.go(),
            Body::Process { input, .. } => send_line(input, GO),
        }
    }

    fn miss(&mut self, reason: String) {
        self.exit = Some(ExitState::Missing(reason));
    }

    fn pid(&self) -> u32 {
        match &self.body {
            Body::Process { child, .. } => child.id(),
            Body::Thread(_) => std::process::id(),
        }
    }

    /// A process that was not waited for keeps its number, so the signal reaches no other process.
    fn signal(&self, signal: Signal) {
        if let Body::Process { child, .. } = &self.body
            && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
        {
            let _ended = kill_process(pid, signal);
        }
    }

    fn kill(&mut self) {
        match &mut self.body {
            Body::Process { child, .. } => {
                let _ended = child.kill();
                let _known = child.wait();
            }
            Body::Thread(control) => control.stop(),
        }
    }

    fn how_it_ended(&mut self) -> String {
        match &mut self.body {
            Body::Process { child, .. } => match child.wait() {
                Ok(status) => format!("it ended unexpectedly ({status})"),
                Err(error) => format!("it ended unexpectedly ({error})"),
            },
            Body::Thread(_) => "it ended unexpectedly".to_owned(),
        }
    }

    fn outcome(&self, folder: &std::path::Path) -> Outcome {
        let mut tally = Tally::default();
        for generation in self.first_counted..=self.generation {
            tally.add(&read(&record_path(folder, self.number, generation)));
        }
        let exit = self.exit.clone().unwrap_or_else(|| ExitState::Missing("it still runs".to_owned()));
        Outcome { number: self.number, pid: self.pid(), killed: self.generation, tally, exit }
    }
}

/// This program. Its file may be replaced by an update during the run.
fn ourselves() -> Result<PathBuf> {
    let path = std::env::current_exe().context("the path of this program is not known")?;
    Ok(if path.exists() { path } else { PathBuf::from("/proc/self/exe") })
}

/// Writes a line to a worker. A worker that died is detected elsewhere.
fn send_line(input: &mut Option<ChildStdin>, word: &str) {
    if let Some(input) = input {
        let _it_died = input.write_all(format!("{word}\n").as_bytes());
    }
}
