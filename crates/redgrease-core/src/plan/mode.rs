//! Where the executions of a plan run.

use serde::{Deserialize, Deserializer};

use super::named::named;

/// Where an execution of a registration runs, seen from the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the background, on all shards.
    Async,
    /// In the background, on this shard.
    AsyncLocal,
    /// At once, before the event's command is answered.
    Sync,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 3] = [Mode::Async, Mode::AsyncLocal, Mode::Sync];

    /// The name that users give and dumps show.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Async => "async",
            Mode::AsyncLocal => "async_local",
            Mode::Sync => "sync",
        }
    }

    /// The mode with that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Whether a function can be run, and not only registered, in this mode.
    #[must_use]
    pub fn can_run(self) -> bool {
        self != Mode::Sync
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Mode, D::Error> {
        named(deserializer, Mode::from_name, "async, async_local or sync")
    }
}
