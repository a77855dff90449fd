//! Starts worker processes, from a thread that lives as long as the server.
//!
//! The thread matters: workers ask the kernel to be killed when their parent *thread* ends. Spawning is done away from
//! the main thread because it takes milliseconds on a bad day.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};

use redgrease_core::id::WorkerNo;
use rustix::event::{EventfdFlags, eventfd};

/// A worker process as it was born.
pub struct Spawned {
    /// The process.
    pub child: Child,
    /// Our end of its socket, non-blocking.
    pub socket: OwnedFd,
    /// Its standard output and error, non-blocking.
    pub output: [OwnedFd; 2],
    /// Readable when the process has ended; absent on kernels without pidfds.
    pub pidfd: Option<OwnedFd>,
}

/// The thread, and how to talk with it.
pub struct Spawner {
    requests: SyncSender<(WorkerNo, PathBuf)>,
    answers: Receiver<(WorkerNo, Result<Spawned, String>)>,
    wake: Arc<OwnedFd>,
}

/// Starts that may be waiting; the pool asks for fewer.
const REQUESTS_MAX: usize = 2048;

/// Variables that a worker inherits: what programs need to find files, names and certificates, and nothing of the server's own.
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
    pub fn start() -> Result<Spawner, String> {
        let wake = Arc::new(
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| format!("eventfd: {error}"))?,
        );
        let (requests, todo) = sync_channel::<(WorkerNo, PathBuf)>(REQUESTS_MAX);
        let (done, answers): (Sender<_>, _) = channel();
        let bell = Arc::clone(&wake);
        let body = move || {
            while let Ok((worker, python)) = todo.recv() {
                if done.send((worker, spawn(&python))).is_err() {
                    return;
                }
                // Cannot fail but by an overflow of 2^64 rings; the main thread then has enough to do anyway.
                let _ = rustix::io::write(&bell, &1u64.to_ne_bytes());
            }
        };
        std::thread::Builder::new()
            .name("rg-spawner".into())
            .spawn(body)
            .map_err(|error| format!("the thread that starts workers: {error}"))?;
        Ok(Spawner { requests, answers, wake })
    }

    /// Asks for a worker.
    pub fn request(&self, worker: WorkerNo, python: PathBuf) -> Result<(), String> {
        self.requests
            .try_send((worker, python))
            .map_err(|_| format!("more than {REQUESTS_MAX} workers are being started"))
    }

    /// Readable when there are answers.
    pub fn wake_fd(&self) -> &OwnedFd {
        &self.wake
    }

    /// The workers that have been started, or not, since the last call.
    pub fn answers(&self) -> Vec<(WorkerNo, Result<Spawned, String>)> {
        let mut ring = [0; 8];
        let _ = rustix::io::read(&*self.wake, &mut ring);
        let mut answers = Vec::new();
        loop {
            match self.answers.try_recv() {
                Ok(answer) => answers.push(answer),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return answers,
            }
        }
    }
}

fn spawn(python: &PathBuf) -> Result<Spawned, String> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| format!("socketpair: {error}"))?;
    nonblocking(&ours)?;
    let mut command = Command::new(python);
    command
        .args(["-I", "-m", "redgrease.worker", "--fd", "0"])
        .env_clear()
        .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", python.display()))?;
    let output = [
        OwnedFd::from(child.stdout.take().ok_or("no standard output")?),
        OwnedFd::from(child.stderr.take().ok_or("no standard error")?),
    ];
    for pipe in &output {
        nonblocking(pipe)?;
    }
    let pid = rustix::process::Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok();
    Ok(Spawned { child, socket: ours, output, pidfd })
}

fn nonblocking(fd: impl AsFd) -> Result<(), String> {
    rustix::io::ioctl_fionbio(fd, true).map_err(|error| format!("non-blocking mode: {error}"))
}
