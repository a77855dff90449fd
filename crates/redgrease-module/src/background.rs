//! Work outside the main thread: one thread, a bounded queue of jobs, and an eventfd that is signalled when a job ends.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use rustix::event::{EventfdFlags, eventfd};

/// The thread, which runs until the process exits, and the channels to and from it.
pub struct Background<J, A> {
    jobs: SyncSender<J>,
    answers: Receiver<A>,
    ready: Arc<OwnedFd>,
}

impl<J: Send + 'static, A: Send + 'static> Background<J, A> {
    /// Starts a thread that runs `work` for each job; at most `jobs_max` of them may wait.
    pub fn start(name: &str, jobs_max: usize, work: impl Fn(J) -> A + Send + 'static) -> Result<Self, String> {
        let ready = Arc::new(
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| format!("eventfd: {error}"))?,
        );
        let (jobs, waiting) = sync_channel::<J>(jobs_max);
        let (done, answers) = channel();
        let signal = Arc::clone(&ready);
        let body = move || {
            while let Ok(job) = waiting.recv() {
                if done.send(work(job)).is_err() {
                    return;
                }
                // Fails only if 2^64 results were not taken.
                let _ = rustix::io::write(&signal, &1u64.to_ne_bytes());
            }
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|error| format!("the thread {name}: {error}"))?;
        Ok(Background { jobs, answers, ready })
    }

    /// Queues a job; `false` if the queue is full.
    pub fn submit(&self, job: J) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    /// Readable when there are results.
    pub fn ready_fd(&self) -> RawFd {
        self.ready.as_raw_fd()
    }

    /// The results since the last call.
    pub fn answers(&self) -> Vec<A> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.ready, &mut count);
        self.answers.try_iter().collect()
    }
}
