//! Exits of the process that run no destructors: these could wait for a thread that runs user code.

use std::io::Write as _;
use std::time::Duration;

/// Kills the process after a line on the standard error.
pub fn fatal(text: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "redgrease worker: {text}");
    kill_self()
}

/// Kills the process at once.
pub fn kill_self() -> ! {
    loop {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::thread::park_timeout(Duration::from_secs(1));
    }
}
