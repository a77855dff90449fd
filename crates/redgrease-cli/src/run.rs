//! `redgrease run`: runs a script or an expression, and prints the results.

use std::io::{IsTerminal, Read, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use redgrease::{Error, Executed, ExecutionId, ExecutionState, GearsCommands, PyExecute, Results, ShardExecution};
use redis::Connection;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::connection::{ConnectionOptions, Target};
use crate::failure::{self, Class, Failure};
use crate::gears;
use crate::ids;
use crate::misuse::misuse;
use crate::output::{counted, print, say};
use crate::results::Format;
use crate::terminal::Line;
use crate::units::seconds;

const TICK: Duration = Duration::from_millis(50);
/// Runs that are shorter show no progress.
const PROGRESS_DELAY: Duration = Duration::from_millis(300);
/// Times between two looks at the execution: each is twice the one before. Each look has a deadline.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_LONGEST: Duration = Duration::from_secs(2);
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that an aborted execution may take to end.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Exit code after Ctrl-C, as shells have it: 128 and the number of the signal.
const INTERRUPTED: u8 = 130;

/// Run a script or an expression on a server, and print the results
///
/// The script is Python, as for RG.PYEXECUTE: it may run one function, or register functions. On a terminal the results are a
/// table, elsewhere a line each. Ctrl-C aborts the execution on the server.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 redgrease run -e \"GB().count().run()\"\n\
    \x20 redgrease run words.py --json\n\
    \x20 redgrease run -r requests -r 'numpy<3' fetch.py\n\
    \x20 cat words.py | redgrease run")]
pub struct Run {
    /// File with the script; - or nothing is stdin
    #[arg(value_name = "FILE", conflicts_with = "expression")]
    pub file: Option<PathBuf>,
    /// Run this text instead of a file
    #[arg(short, long, value_name = "EXPR")]
    pub expression: Option<String>,
    /// Package that the functions need, as pip names it; can be repeated
    #[arg(short, long = "requirement", value_name = "PACKAGE")]
    pub requirements: Vec<String>,
    /// Print the id of the execution, and do not wait for its end
    #[arg(long, conflicts_with_all = ["json", "raw", "table", "timeout"])]
    pub no_wait: bool,
    /// Abort the execution if it takes longer [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub format: Format,
    #[command(flatten)]
    pub connection: ConnectionOptions,
}

pub fn run(args: &Run) -> Result<ExitCode> {
    let script = args.script()?;
    let target = args.connection.target()?;
    let began = Instant::now();
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals cannot be watched")?;
    let mut connection = gears::open(&target, None)?;
    let request = PyExecute::script(script).requirements(&args.requirements).unblocking();
    if args.no_wait {
        return started(connection.rg_py_execute(request));
    }
    let (events, news) = channel();
    let worker = std::thread::spawn(move || execute(connection, request, &events));
    let line = Line::new(args.quiet);
    let mut waiting = Waiting { target, began, news, execution: None, looks: None, progress: None, line };
    match waiting.wait(args.timeout, || signals.pending().next().is_some())? {
        End::Results(executed) => {
            let code = show(executed, args.format, began.elapsed());
            // It drops the execution, which takes no longer than printing.
            let _ended = worker.join();
            code
        }
        End::Aborted => Ok(ExitCode::from(INTERRUPTED)),
    }
}

impl Run {
    /// The bytes as they are: the server says what is wrong with them.
    fn script(&self) -> Result<Vec<u8>> {
        if let Some(text) = &self.expression {
            return Ok(text.clone().into_bytes());
        }
        match self.file.as_deref() {
            Some(file) if file != Path::new("-") => {
                let text = std::fs::read(file);
                Ok(text.map_err(|error| failure::unreadable(&file.display().to_string(), &error))?)
            }
            None if stdin().is_terminal() => {
                Err(misuse("nothing to run: name a file, write the text with -e EXPR, or pipe a script into it"))
            }
            _ => {
                let mut text = Vec::new();
                stdin().read_to_end(&mut text).context("the script on stdin cannot be read")?;
                Ok(text)
            }
        }
    }
}

/// Prints the id of what was started.
fn started(executed: redgrease::Result<Executed>) -> Result<ExitCode> {
    match executed.map_err(script_failed)? {
        Executed::Started(id) => print(&format!("{id}\n"))?,
        _ => print("OK\n")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What the thread that talks to the server reports.
enum News {
    Started(ExecutionId),
    Ended(redgrease::Result<Executed>),
}

/// Runs the script and waits for the end of its execution.
fn execute(mut connection: Connection, request: PyExecute, events: &Sender<News>) {
    let id = match connection.rg_py_execute(request) {
        Ok(Executed::Started(id)) => id,
        other => return report(events, News::Ended(other)),
    };
    report(events, News::Started(id.clone()));
    let results = connection.rg_get_results_blocking(&id);
    report(events, News::Ended(results.map(Executed::Results)));
    // Nothing else needs the results; an execution that cannot be dropped is dropped by the server in time.
    let _best_effort = connection.rg_drop_execution(&id);
}

fn report(events: &Sender<News>, news: News) {
    // Nothing receives it after the program gave up.
    let _given_up = events.send(news);
}

/// How far an execution is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    waits: bool,
    /// The number of its results, if the server tells it before the end.
    records: Option<u64>,
}

impl Progress {
    fn of(shards: &[ShardExecution]) -> Self {
        Self {
            waits: !shards.is_empty() && shards.iter().all(|shard| shard.plan.state == ExecutionState::Created),
            records: shards.iter().filter_map(|shard| shard.plan.results).reduce(u64::saturating_add),
        }
    }

    /// What the line on the terminal says; `None`: nothing is known of the execution but its id.
    fn text(progress: Option<&Self>, id: &ExecutionId, took: Duration) -> String {
        let verb = if progress.is_some_and(|progress| progress.waits) { "waits" } else { "is running" };
        let records = progress.and_then(|progress| progress.records);
        let records = records.map_or(String::new(), |count| format!("{}, ", counted(count, "record", "records")));
        format!("execution {} {verb}: {records}{:.1} s", ids::short(id), took.as_secs_f64())
    }
}

/// Looks at an execution again and again, until nobody wants to know or that is not possible.
fn look(target: &Target, id: &ExecutionId, looks: &Sender<Progress>) {
    let Ok(mut connection) = gears::open(target, Some(LOOK_TIMEOUT)) else { return };
    let mut pause = LOOK_FIRST;
    while let Ok(shards) = connection.rg_get_execution(id, None) {
        if looks.send(Progress::of(&shards)).is_err() {
            return;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LOOK_LONGEST);
    }
}

enum End {
    Results(Executed),
    Aborted,
}

struct Waiting {
    target: Target,
    began: Instant,
    news: Receiver<News>,
    execution: Option<ExecutionId>,
    /// What the thread that looks at the execution sees; `None`: nothing looks yet.
    looks: Option<Receiver<Progress>>,
    progress: Option<Progress>,
    line: Line,
}

impl Waiting {
    /// Returns when the execution has ended, also because of Ctrl-C or the timeout.
    fn wait(&mut self, timeout: Option<Duration>, mut interrupted: impl FnMut() -> bool) -> Result<End> {
        loop {
            match self.news.recv_timeout(TICK) {
                Ok(News::Started(id)) => self.execution = Some(id),
                Ok(News::Ended(executed)) => {
                    self.line.wipe();
                    return executed.map(End::Results).map_err(script_failed);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(anyhow::anyhow!("the thread that waits for the results has ended: this is a bug"));
                }
            }
            if interrupted() {
                self.line.wipe();
                say(format_args!("redgrease: {}", self.abort(&mut interrupted)));
                return Ok(End::Aborted);
            }
            if let Some(limit) = timeout.filter(|&limit| self.began.elapsed() > limit) {
                self.line.wipe();
                let what = format!("it took longer than {limit:?} (--timeout); {}", self.abort(&mut interrupted));
                return Err(Failure::plain(Class::Timeout, what).into());
            }
            self.show_progress();
        }
    }

    fn show_progress(&mut self) {
        let took = self.began.elapsed();
        if took < PROGRESS_DELAY || !self.line.is_visible() {
            return;
        }
        let Some(id) = self.execution.clone() else {
            return self.line.set(&format!("the script is running: {:.1} s", took.as_secs_f64()));
        };
        let looks = self.looks.get_or_insert_with(|| {
            let (sender, looks) = channel();
            let (target, id) = (self.target.clone(), id.clone());
            std::thread::spawn(move || look(&target, &id, &sender));
            looks
        });
        self.progress = looks.try_iter().last().or(self.progress.take());
        self.line.set(&format!("{} (Ctrl-C aborts it)", Progress::text(self.progress.as_ref(), &id, took)));
    }

    /// Aborts the execution and waits for its end; says what happened. A second Ctrl-C ends the wait.
    fn abort(&mut self, interrupted: &mut impl FnMut() -> bool) -> String {
        let Some(id) = self.execution.clone() else {
            return "stopped waiting; the script may still run on the server, for at most ScriptMaxTime".to_owned();
        };
        let shown = ids::short(&id);
        let asked = gears::open(&self.target, Some(ABORT_TIMEOUT))
            .and_then(|mut connection| connection.rg_abort_execution(&id).map(|()| connection).map_err(gears::failed));
        let mut connection = match asked {
            Ok(connection) => connection,
            Err(failure) => return format!("execution {shown} may still run, it was not aborted: {}", failure.what),
        };
        let asked = Instant::now();
        while asked.elapsed() < ABORT_TIMEOUT && !interrupted() {
            match self.news.recv_timeout(TICK) {
                Ok(News::Started(_)) | Err(RecvTimeoutError::Timeout) => {}
                Ok(News::Ended(_)) | Err(RecvTimeoutError::Disconnected) => {
                    let _already_dropped = connection.rg_drop_execution(&id);
                    return format!("execution {shown} was aborted after {:.1} s", self.began.elapsed().as_secs_f64());
                }
            }
        }
        format!("execution {shown} was asked to end, and has not ended yet: `redgrease show {shown}`")
    }
}

/// The failure of a script; the lines of its traceback are printed before.
fn script_failed(error: Error) -> anyhow::Error {
    match &error {
        Error::Server(server) => match server.python() {
            Some(python) => {
                say(python);
                Failure::plain(Class::Failed, "the script failed").into()
            }
            None => gears::failed(error).into(),
        },
        _ => gears::failed(error).into(),
    }
}

fn show(executed: Executed, format: Format, took: Duration) -> Result<ExitCode> {
    match executed {
        Executed::Nothing if !format.json => print("OK\n")?,
        Executed::Results(results) => format.print(&results, took)?,
        _ => format.print(&Results::default(), took)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_what_is_known() {
        let id = "0000000000000000000000000000000000000000-7".parse().unwrap();
        let text = |progress: Option<Progress>| Progress::text(progress.as_ref(), &id, Duration::from_millis(1234));
        let progress = |waits, records| Some(Progress { waits, records });
        assert_eq!(text(None), "execution 7 is running: 1.2 s");
        assert_eq!(text(progress(true, None)), "execution 7 waits: 1.2 s");
        assert_eq!(text(progress(false, None)), "execution 7 is running: 1.2 s");
        assert_eq!(text(progress(false, Some(1))), "execution 7 is running: 1 record, 1.2 s");
        assert_eq!(text(progress(false, Some(2000))), "execution 7 is running: 2000 records, 1.2 s");
    }
}
