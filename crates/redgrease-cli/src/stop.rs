//! `redgrease stop`: ends a server that `redgrease serve` started, or all nodes of its cluster.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::Stop;
use crate::records::Records;
use crate::shutdown::{self, End};

pub fn run(args: &Stop) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for record in Records::open()?.running(args.port)? {
        let end = shutdown::shut_down(record.port, record.process, record.memory_only, || !record.is_alive(), || false);
        let port = record.port;
        match end {
            End::Clean => println!("stopped the server on port {port}"),
            End::Killed => {
                println!("killed the server on port {port}: it did not end within {} s", shutdown::DEADLINE.as_secs())
            }
        }
        if record.is_alive() {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}
