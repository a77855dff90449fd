//! Ids of the engine, in addition to those of `redgrease_core::id`.

use redgrease_core::numbers;

numbers! {
    /// Number of a client that waits for an answer; assigned by the driver.
    ClientNo,
    /// Number of a timer.
    TimerNo,
    /// Number of a question to the driver.
    QuestionNo,
    /// Number of a wait of the main thread for one worker.
    WaitNo,
    /// Number of a command that a function runs.
    CommandNo,
    /// Number of an execution that runs when the command that triggered it has ended.
    JobNo,
    /// Number of a batch of stream entries that is being acknowledged.
    BatchNo,
    /// Number of a consumer group that is being removed from the streams of a database.
    RemovalNo,
    /// Number of a connection to another shard.
    LinkNo,
    /// Number of a check for, or an installation of, requirements.
    InstallNo,
}

/// Assigns numbers, each once.
#[derive(Debug, Default)]
pub(crate) struct Counter(u64);

impl Counter {
    /// The next number; the first one is 1.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}
