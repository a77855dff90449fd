//! `redgrease stop`: ends a server that `redgrease serve` started, or all nodes of its cluster.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::Stop;
use crate::output::print;
use crate::records::Records;
use crate::shutdown::{self, End};

pub fn run(args: &Stop) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    // All are stopped, also if nobody reads that.
    let mut printed = Ok(());
    for record in Records::open()?.running(args.port)? {
        let end = shutdown::shut_down(record.port, record.process, record.memory_only, || !record.is_alive(), || false);
        let port = record.port;
        let line = match end {
            End::Clean => format!("stopped the server on port {port}\n"),
            End::Killed => {
                let limit = shutdown::DEADLINE.as_secs();
                format!("killed the server on port {port}: it did not end within {limit} s\n")
            }
        };
        printed = printed.and_then(|()| print(&line));
        if record.is_alive() {
            code = ExitCode::FAILURE;
        }
    }
    printed.map(|()| code)
}
