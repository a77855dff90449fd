//! Work away from the main thread: one thread, a bounded queue of jobs, and a bell for the answers.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use rustix::event::{EventfdFlags, eventfd};

/// The thread, and how to talk with it. It lives until the process ends.
pub struct Background<J, A> {
    jobs: SyncSender<J>,
    answers: Receiver<A>,
    bell: Arc<OwnedFd>,
}

impl<J: Send + 'static, A: Send + 'static> Background<J, A> {
    /// Starts a thread that does `work` for one job after the other; `jobs_max` of them may be waiting.
    pub fn start(name: &str, jobs_max: usize, work: impl Fn(J) -> A + Send + 'static) -> Result<Self, String> {
        let bell = Arc::new(
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| format!("eventfd: {error}"))?,
        );
        let (jobs, todo) = sync_channel::<J>(jobs_max);
        let (done, answers) = channel();
        let rope = Arc::clone(&bell);
        let body = move || {
            while let Ok(job) = todo.recv() {
                if done.send(work(job)).is_err() {
                    return;
                }
                // Cannot fail but by an overflow of 2^64 rings; the main thread then has enough to do anyway.
                let _ = rustix::io::write(&rope, &1u64.to_ne_bytes());
            }
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|error| format!("the thread {name}: {error}"))?;
        Ok(Background { jobs, answers, bell })
    }

    /// Queues a job; `false` when the queue is full.
    pub fn submit(&self, job: J) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    /// Readable when there are answers.
    pub fn bell_fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// The answers since the last call.
    pub fn answers(&self) -> Vec<A> {
        let mut ring = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut ring);
        self.answers.try_iter().collect()
    }
}
