//! `redgrease serve`: a server with the module, until Ctrl-C or in the background.

use std::io::{Write, stderr, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::Serve;
use crate::detach::Life;
use crate::launch::{Plan, Running};
use crate::records::Records;
use crate::shutdown::{self, End};
use crate::tail::Tail;

const POLL: Duration = Duration::from_millis(50);

pub fn run(args: Serve) -> Result<ExitCode> {
    let records = Records::open()?;
    let background = args.background;
    let plan = Plan::new(args, &records)?;
    if let Some(warning) = plan.warning() {
        eprintln!("redgrease: {warning}");
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals cannot be watched")?;
    let life = if background { Life::Own } else { Life::Tied };
    let running = plan.start(life, &records, || asked_to_stop(&mut signals))?;
    announce(&running, background)?;
    if background {
        return Ok(ExitCode::SUCCESS);
    }
    attend(running, &mut signals)
}

fn asked_to_stop(signals: &mut Signals) -> bool {
    signals.pending().next().is_some()
}

/// The line that shows how to connect.
fn announce(running: &Running, background: bool) -> Result<()> {
    let port = running.record.port;
    let option = if port == 6379 { String::new() } else { format!(" --port {port}") };
    let server = if running.version.is_empty() { "server" } else { &running.version };
    let data = if running.record.memory_only { "memory only" } else { "append-only file" };
    let stop = if background { format!("`redgrease stop{option}`") } else { "Ctrl-C".to_owned() };
    let mut out = stdout();
    writeln!(
        out,
        "{server} with redgrease is ready at redis://127.0.0.1:{port} ({data}): `redgrease call{option} PING`; stop it \
         with {stop}"
    )?;
    Ok(out.flush()?)
}

/// Copies the log until the server ends or a signal asks to stop it.
fn attend(running: Running, signals: &mut Signals) -> Result<ExitCode> {
    let Running { mut child, record, folder, .. } = running;
    let mut log = Tail::open(&record.log, record.log_start)?;
    // A closed stderr does not stop the server.
    let mut pass_on = || drop(log.copy_new(&mut stderr()));
    let mut killed = false;
    let status = loop {
        pass_on();
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if asked_to_stop(signals) {
            let gone = || matches!(child.try_wait(), Ok(Some(_)) | Err(_));
            let end = shutdown::shut_down(record.port, record.process, record.memory_only, gone, || {
                pass_on();
                asked_to_stop(signals)
            });
            killed = end == End::Killed;
            break child.wait()?;
        }
        std::thread::sleep(POLL);
    };
    pass_on();
    if status.success() {
        // The whole log was shown already.
        let _best_effort = std::fs::remove_dir_all(folder);
        return Ok(ExitCode::SUCCESS);
    }
    let why = if killed {
        format!("was killed: it did not end within {} s, or Ctrl-C was pressed again", shutdown::DEADLINE.as_secs())
    } else {
        format!("ended unexpectedly ({status}); its log is {}", record.log.display())
    };
    eprintln!("redgrease: the server {why}");
    Ok(ExitCode::FAILURE)
}
