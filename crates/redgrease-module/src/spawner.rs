//! Starts worker processes, from a thread that runs as long as the server.
//!
//! The thread matters: workers ask the kernel to be killed when their parent *thread* ends. Spawning is done away from
//! the main thread because it may take milliseconds.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use redgrease_core::id::WorkerNo;
use redgrease_ring::{Link, handover};

use crate::background::Background;
use crate::helper;
use crate::os_user::OsUser;
use crate::program::Program;

/// A worker process after its start.
pub struct Spawned {
    /// The process: the supervisor, which forks the worker and exits when it exits.
    pub child: Child,
    /// Our end of its socket, non-blocking.
    pub socket: OwnedFd,
    /// Our end of its rings; absent where the kernel gives no shared memory, or none is wanted.
    pub rings: Option<Link>,
    /// Its standard output and error, non-blocking.
    pub output: [OwnedFd; 2],
    /// Readable when the process has ended; absent on kernels without pidfds.
    pub pidfd: Option<OwnedFd>,
}

/// A start of a worker.
pub struct Start {
    /// The worker.
    pub worker: WorkerNo,
    /// The interpreter.
    pub program: Program,
    /// Bytes of data that it may allocate; zero: no limit.
    pub memory_bytes_max: u64,
}

/// What all workers have in common.
pub struct Common {
    /// Connections go through rings where the kernel has them.
    pub shared_memory: bool,
    /// Where workers may change files, separated by colons; `None`: they are not confined.
    pub confine: Option<String>,
    /// The user of the operating system that they run as; `None`: the server's.
    pub user: Option<OsUser>,
    /// The variables of the server's environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// The thread that starts workers.
pub struct Spawner(Background<Start, Answer>);

/// The result of a start.
type Answer = (WorkerNo, Result<Spawned, String>);

/// Starts that may wait; the pool requests fewer.
const REQUESTS_MAX: usize = 2048;

/// Variables that a worker inherits: what programs need to find files, names and certificates, and none of the server's
/// own.
const ENVIRONMENT: [&str; 14] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "LD_LIBRARY_PATH",
];

impl Spawner {
    /// Starts the thread.
    pub fn start(common: Common) -> Result<Spawner, String> {
        let start = move |start: Start| (start.worker, spawn(&start, &common));
        Background::start("rg-spawner", REQUESTS_MAX, start).map(Spawner)
    }

    /// Requests a worker.
    pub fn request(&self, start: Start) -> Result<(), String> {
        let accepted = self.0.submit(start);
        if accepted { Ok(()) } else { Err(format!("more than {REQUESTS_MAX} workers are being started")) }
    }

    /// Readable when there are results.
    pub fn ready_fd(&self) -> RawFd {
        self.0.ready_fd()
    }

    /// The results since the last call.
    pub fn answers(&self) -> Vec<Answer> {
        self.0.answers()
    }
}

fn spawn(start: &Start, common: &Common) -> Result<Spawned, String> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| format!("socketpair: {error}"))?;
    let (rings, file) = match common.shared_memory.then(Link::create).and_then(Result::ok) {
        Some((link, file)) => (Some(link), Some(file)),
        None => (None, None),
    };
    handover::offer(&ours, file.as_ref().map(AsFd::as_fd)).map_err(|error| format!("the worker's socket: {error}"))?;
    nonblocking(&ours)?;
    let mut command = start.program.command("redgrease.worker");
    command
        .args(["--fd", "0", "--supervise"])
        .args(["--memory-max", &start.memory_bytes_max.to_string()])
        .args(common.confine.iter().flat_map(|paths| ["--confine", paths]))
        .env_clear()
        .envs(common.environment.iter().filter(|(name, _)| ENVIRONMENT.iter().any(|known| name == known)).cloned())
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(user) = &common.user {
        user.apply(&mut command);
    }
    let mut child = command
        .spawn()
        .map_err(|error| format!("{}: {}", start.program.python.display(), helper::not_started(&error)))?;
    let output = [
        OwnedFd::from(child.stdout.take().ok_or("no standard output")?),
        OwnedFd::from(child.stderr.take().ok_or("no standard error")?),
    ];
    for pipe in &output {
        nonblocking(pipe)?;
    }
    let pid = rustix::process::Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok();
    Ok(Spawned { child, socket: ours, rings, output, pidfd })
}

fn nonblocking(fd: impl AsFd) -> Result<(), String> {
    rustix::io::ioctl_fionbio(fd, true).map_err(|error| format!("non-blocking mode: {error}"))
}
