//! Registrations.

use std::time::Duration;

use super::fields::Fields;
use crate::error::Result;
use crate::id::RegistrationId;

/// A registration: a function that runs for each event.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Registration {
    /// Its id.
    pub id: RegistrationId,
    /// The name of its reader, such as `KeysReader`.
    pub reader: String,
    /// The description that its author gave.
    pub description: Option<String>,
    /// Where its executions run: `async`, `async_local` or `sync`.
    pub mode: String,
    /// Executions that were started.
    pub triggered: u64,
    /// Executions that succeeded.
    pub succeeded: u64,
    /// Executions that failed.
    pub failed: u64,
    /// Executions that were aborted.
    pub aborted: u64,
    /// How long the last execution took.
    pub last_run: Option<Duration>,
    /// How long all executions took.
    pub total_run: Option<Duration>,
    /// How long an execution took on average.
    pub mean_run: Option<Duration>,
    /// How long the last batch of a stream had waited.
    pub last_lag: Option<Duration>,
    /// How long batches of a stream waited on average.
    pub mean_lag: Option<Duration>,
    /// The last error.
    pub last_error: Option<String>,
    /// What starts it.
    pub source: EventSource,
    /// The state of a stream's reader, such as `running`.
    pub status: Option<String>,
    /// What the server knows of its session, as text.
    pub private_data: Option<String>,
    /// The name of its pool of threads.
    pub thread_pool: Option<String>,
}

/// What starts the executions of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventSource {
    /// Something happened to a key.
    Keys {
        /// Pattern of their names.
        pattern: String,
        /// Names of events; `None`: all.
        event_types: Option<Vec<String>>,
        /// Types of keys; `None`: all.
        key_types: Option<Vec<String>>,
        /// Commands whose clients wait for the function; `None`: no client waits.
        commands: Option<Vec<String>>,
    },
    /// A stream grew.
    Stream {
        /// Pattern of their names.
        pattern: String,
        /// Entries that start a run.
        batch: u64,
        /// Time after which fewer entries start one; `None`: never.
        duration: Option<Duration>,
        /// Whether entries that were read are removed.
        trims: bool,
        /// What happens when a batch fails: `continue`, `abort` or `retry`.
        on_failure: String,
        /// Pause before a retry.
        retry_pause: Duration,
    },
    /// A client calls it by name.
    Command {
        /// The name, or the hooked command.
        trigger: String,
        /// Whether one call runs after the other.
        in_order: bool,
    },
    /// Something that this version does not know.
    Other,
}

impl Registration {
    pub(crate) fn from_fields(mut row: Fields) -> Result<Registration> {
        let mut data = row.row("RegistrationData")?;
        let reader = row.text("reader")?;
        let source = EventSource::from_fields(&reader, data.row("args")?)?;
        Ok(Registration {
            id: row.id("id")?,
            description: row.optional_text("desc")?,
            mode: data.text("mode")?,
            triggered: data.number("numTriggered")?,
            succeeded: data.number("numSuccess")?,
            failed: data.number("numFailures")?,
            aborted: data.number("numAborted")?,
            last_run: data.millis("lastRunDurationMS")?,
            total_run: data.millis("totalRunDurationMS")?,
            mean_run: data.millis("avgRunDurationMS")?,
            last_lag: data.millis("lastEstimatedLagMS")?,
            mean_lag: data.millis("avgEstimatedLagMS")?,
            last_error: data.optional_text("lastError")?,
            source,
            status: data.optional_text("status")?,
            private_data: row.optional_text("PD")?,
            thread_pool: row.optional_text("ExecutionThreadPool")?,
            reader,
        })
    }

    /// The name of the command, if it is one.
    #[must_use]
    pub fn trigger(&self) -> Option<&str> {
        match &self.source {
            EventSource::Command { trigger, .. } => Some(trigger),
            _ => None,
        }
    }
}

impl EventSource {
    fn from_fields(reader: &str, mut args: Fields) -> Result<EventSource> {
        Ok(match reader {
            "KeysReader" => EventSource::Keys {
                pattern: args.text("regex")?,
                event_types: args.texts("eventTypes")?,
                key_types: args.texts("keyTypes")?,
                commands: args.texts("hookCommands")?,
            },
            "StreamReader" => EventSource::Stream {
                pattern: args.text("stream")?,
                batch: args.number("batchSize")?,
                duration: args.millis("durationMS")?.filter(|duration| !duration.is_zero()),
                trims: args.flag("trimStream")?,
                on_failure: args.text("onFailedPolicy")?,
                retry_pause: Duration::from_secs(args.number("retryInterval")?),
            },
            "CommandReader" => EventSource::Command { trigger: args.text("trigger")?, in_order: args.flag("inorder")? },
            _ => EventSource::Other,
        })
    }
}
