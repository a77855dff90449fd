//! `redgrease logs`: prints the log of a server that `redgrease serve` started, or of all nodes of its cluster.

use std::io::stdout;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::args::Logs;
use crate::records::Records;
use crate::tail::LogReader;

const POLL: Duration = Duration::from_millis(100);

pub fn run(args: &Logs) -> Result<ExitCode> {
    let mut servers = Records::open()?.latest(args.port)?;
    // A port asks for one node only.
    servers.retain(|record| args.port.is_none_or(|port| record.port == port));
    let mut log = LogReader::open(&servers)?;
    let mut out = stdout();
    log.copy_so_far(args.tail, &mut out)?;
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        // Checked before reading, so that the last lines of a server that ends are still printed.
        let ended = !servers.iter().any(|record| record.is_alive());
        log.copy_new(&mut out)?;
        if ended {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(POLL);
    }
}
