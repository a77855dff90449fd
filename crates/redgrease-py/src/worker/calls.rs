//! Calls of user code to the server, and the threads that wait for their answers.

use std::collections::{HashMap, HashSet};
use std::thread::Thread;
use std::time::{Duration, Instant};

use redgrease_core::id::ExecutionNo;

/// If answers take longer than this, a queued execution is started while another one waits for its answer. Waking a
/// thread and passing the GIL to it costs about 15 us, an answer of an idle server about 20.
const SLOW_ANSWER: Duration = Duration::from_micros(45);

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// The server's error.
    Text(String),
    /// The execution that called is being aborted.
    Aborted,
}

/// An encoded value, or why there is none.
pub type Answer = Result<Vec<u8>, CallError>;

#[derive(Debug)]
struct Waiter {
    thread: Thread,
    since: Instant,
    exec: Option<ExecutionNo>,
    interruptible: bool,
    answer: Option<Answer>,
}

/// The calls whose answers are awaited.
#[derive(Debug, Default)]
pub struct Calls {
    waiters: HashMap<u64, Waiter>,
    made: u64,
    /// Calls that coroutines await.
    awaited: HashSet<u64>,
    /// Moving average of the time to an answer.
    answer_nanos: u64,
}

impl Calls {
    /// A number for a call whose answer is not awaited.
    pub fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// A number for a call that a coroutine awaits.
    pub fn begin_awaited(&mut self) -> u64 {
        let call = self.number();
        self.awaited.insert(call);
        call
    }

    /// Takes out a call that a coroutine awaits.
    pub fn take_awaited(&mut self, call: u64) -> bool {
        self.awaited.remove(&call)
    }

    /// A number for a call of the calling thread; `interruptible`: an abort of `exec` answers it.
    pub fn begin(&mut self, exec: Option<ExecutionNo>, interruptible: bool) -> u64 {
        let call = self.number();
        let (thread, since) = (std::thread::current(), Instant::now());
        self.waiters.insert(call, Waiter { thread, since, exec, interruptible, answer: None });
        call
    }

    /// Stores an answer; the thread to unpark, if one waits.
    pub fn answer(&mut self, call: u64, answer: Answer) -> Option<Thread> {
        let waiter = self.waiters.get_mut(&call)?;
        waiter.answer = Some(answer);
        Some(waiter.thread.clone())
    }

    /// Answers the calls of an aborted execution; the threads to unpark.
    pub fn abort(&mut self, exec: ExecutionNo) -> impl Iterator<Item = Thread> {
        let waiters = self
            .waiters
            .values_mut()
            .filter(move |waiter| waiter.exec == Some(exec) && waiter.interruptible && waiter.answer.is_none());
        waiters.map(|waiter| {
            waiter.answer = Some(Err(CallError::Aborted));
            waiter.thread.clone()
        })
    }

    /// Ends a call whose answer has arrived.
    pub fn take_answer(&mut self, call: u64) -> Option<Answer> {
        if self.waiters.get(&call).is_some_and(|waiter| waiter.answer.is_none()) {
            return None;
        }
        let waiter = self.waiters.remove(&call);
        if let Some(waiter) = &waiter {
            let nanos = waiter.since.elapsed().as_nanos() as u64;
            self.answer_nanos = (7 * self.answer_nanos + nanos) / 8;
        }
        Some(waiter.and_then(|waiter| waiter.answer).unwrap_or(Err(CallError::Aborted)))
    }

    /// Whether answers take so long that another execution should run meanwhile.
    pub fn are_slow(&self) -> bool {
        self.answer_nanos > SLOW_ANSWER.as_nanos() as u64
    }

    /// A thread whose call has no answer yet.
    pub fn waiting_thread(&self) -> Option<&Thread> {
        self.waiters.values().find(|waiter| waiter.answer.is_none()).map(|waiter| &waiter.thread)
    }

    /// Whether there is no call.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
}
