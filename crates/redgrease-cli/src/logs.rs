//! `redgrease logs`: prints the log of a server that `redgrease serve` started.

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::args::Logs;
use crate::records::Records;
use crate::tail::{Tail, last_lines};

const POLL: Duration = Duration::from_millis(100);

pub fn run(args: &Logs) -> Result<ExitCode> {
    let record = Records::open()?.latest(args.port)?;
    let mut log = Tail::open(&record.log, record.log_start)?;
    let mut out = stdout();
    let so_far = log.read_new()?;
    out.write_all(args.tail.map_or(&so_far[..], |count| last_lines(&so_far, count)))?;
    out.flush()?;
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        // Checked before reading, so that the last lines of a server that ends are still printed.
        let ended = !record.is_alive();
        log.copy_new(&mut out)?;
        if ended {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(POLL);
    }
}
