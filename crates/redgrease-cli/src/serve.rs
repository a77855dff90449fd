//! `redgrease serve`: a server or a cluster with the module, until Ctrl-C or in the background.

use std::io::{Write, stderr, stdout};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::Serve;
use crate::cluster;
use crate::detach::Life;
use crate::launch::{Plan, Running};
use crate::output::say;
use crate::records::Records;
use crate::shutdown::{self, End};
use crate::tail::LogReader;

const POLL: Duration = Duration::from_millis(50);

pub fn run(args: Serve) -> Result<ExitCode> {
    let records = Records::open()?;
    let (background, masters, timeout) = (args.background, args.cluster, args.timeout);
    let plans = match masters {
        Some(masters) => cluster::plans(args, masters, &records)?,
        None => vec![Plan::new(args, &records)?],
    };
    if let Some(warning) = plans[0].warning() {
        say(format_args!("redgrease: {warning}"));
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals cannot be watched")?;
    let life = if background { Life::Own } else { Life::Tied };
    let mut servers = Servers(Vec::new());
    for plan in &plans {
        servers.0.push(plan.start(life, &records, || asked_to_stop(&mut signals))?);
    }
    if let Some(masters) = masters {
        let nodes: Vec<_> = plans.iter().filter_map(Plan::ports_of_node).collect();
        cluster::form(&nodes, masters.into(), timeout, || asked_to_stop(&mut signals))?;
    }
    let running = std::mem::take(&mut servers.0);
    announce(&running, masters, background)?;
    if background {
        return Ok(ExitCode::SUCCESS);
    }
    attend(running, &mut signals)
}

/// Servers that were started; killed if the rest of the start fails.
struct Servers(Vec<Running>);

impl Drop for Servers {
    fn drop(&mut self) {
        for Running { child, folder, .. } in &mut self.0 {
            let _already_gone = child.kill();
            let _reaped = child.wait();
            let _leftover = std::fs::remove_dir_all(folder);
        }
    }
}

fn asked_to_stop(signals: &mut Signals) -> bool {
    signals.pending().next().is_some()
}

/// The line that shows how to connect.
fn announce(running: &[Running], masters: Option<u16>, background: bool) -> Result<()> {
    let first = &running[0];
    let port = first.record.port;
    let option = if port == 6379 { String::new() } else { format!(" --port {port}") };
    let server = if first.version.is_empty() { "server" } else { &first.version };
    let data = if first.record.memory_only { "memory only" } else { "append-only file" };
    let stop = if background { format!("`redgrease stop{option}`") } else { "Ctrl-C".to_owned() };
    let (what, ports, example) = match masters {
        None => (format!("{server} with redgrease"), port.to_string(), "PING"),
        Some(masters) => {
            let replicas = running.len() - usize::from(masters);
            let with = if replicas == 0 { String::new() } else { format!(" and {replicas} replicas") };
            let ports: Vec<u16> = running.iter().map(|node| node.record.port).collect();
            (
                format!("{server} cluster of {masters} masters{with} with redgrease"),
                shown_ports(&ports),
                "CLUSTER NODES",
            )
        }
    };
    let mut out = stdout();
    writeln!(
        out,
        "{what} is ready at redis://127.0.0.1:{ports} ({data}): `redgrease call{option} {example}`; stop it with {stop}"
    )?;
    Ok(out.flush()?)
}

/// `30001-30003`, or all ports if they are not consecutive.
fn shown_ports(ports: &[u16]) -> String {
    match ports {
        [first, .., last] if ports.windows(2).all(|pair| pair[0] + 1 == pair[1]) => format!("{first}-{last}"),
        ports => ports.iter().map(u16::to_string).collect::<Vec<_>>().join(","),
    }
}

/// Copies the logs until all servers end or a signal asks to stop them.
fn attend(mut running: Vec<Running>, signals: &mut Signals) -> Result<ExitCode> {
    let mut log = LogReader::open(running.iter().map(|server| &server.record))?;
    let mut code = ExitCode::SUCCESS;
    while !running.is_empty() {
        // A closed stderr does not stop the servers.
        drop(log.copy_new(&mut stderr()));
        let mut index = 0;
        while index < running.len() {
            if let Some(status) = running[index].child.try_wait()? {
                drop(log.copy_new(&mut stderr()));
                if !ended(running.remove(index), status, None) {
                    code = ExitCode::FAILURE;
                }
            } else {
                index += 1;
            }
        }
        if asked_to_stop(signals) {
            for server in running.drain(..) {
                if !stop(server, &mut log, signals)? {
                    code = ExitCode::FAILURE;
                }
            }
        } else if !running.is_empty() {
            std::thread::sleep(POLL);
        }
    }
    Ok(code)
}

/// Stops a server; returns whether it ended as it should.
fn stop(mut server: Running, log: &mut LogReader, signals: &mut Signals) -> Result<bool> {
    let record = server.record.clone();
    let child = &mut server.child;
    let gone = || matches!(child.try_wait(), Ok(Some(_)) | Err(_));
    let end = shutdown::shut_down(record.port, record.process, record.memory_only, gone, || {
        drop(log.copy_new(&mut stderr()));
        asked_to_stop(signals)
    });
    let status = server.child.wait()?;
    drop(log.copy_new(&mut stderr()));
    Ok(ended(server, status, Some(end)))
}

/// Says why a server ended if that was not asked for; returns whether all is well. The log was shown, so a clean end
/// leaves no folder.
fn ended(server: Running, status: ExitStatus, end: Option<End>) -> bool {
    if status.success() {
        let _best_effort = std::fs::remove_dir_all(server.folder);
        return true;
    }
    let record = server.record;
    let name =
        if record.cluster.is_some() { format!("the node on port {}", record.port) } else { "the server".to_owned() };
    if end == Some(End::Killed) {
        let limit = shutdown::DEADLINE.as_secs();
        say(format_args!("redgrease: {name} was killed: it did not end within {limit} s, or Ctrl-C was pressed again"));
    } else {
        say(format_args!("redgrease: {name} ended unexpectedly ({status}); its log is {}", record.log.display()));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_ports_are_shown_as_a_range() {
        assert_eq!(shown_ports(&[30001, 30002, 30003]), "30001-30003");
        assert_eq!(shown_ports(&[30001, 30005]), "30001,30005");
        assert_eq!(shown_ports(&[7000]), "7000");
    }
}
