//! States of executions, one after the other.
//!
//! Servers do not tell clients of changes: the list of executions is asked for again and again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::commands::GearsCommands;
use crate::connection::GearsConnection;
use crate::error::Result;
use crate::id::ExecutionId;
use crate::reply::{ExecutionInfo, ExecutionState};

/// The shortest pause between two looks.
pub const PAUSE_MIN: Duration = Duration::from_millis(10);

/// What is watched, and what is known of it.
struct Watched {
    only: Option<ExecutionId>,
    pause: Duration,
    known: HashMap<ExecutionId, ExecutionState>,
    changes: VecDeque<ExecutionInfo>,
    looked: bool,
    ended: bool,
}

impl Watched {
    fn new(only: Option<&ExecutionId>, pause: Duration) -> Watched {
        Watched {
            only: only.cloned(),
            pause: pause.max(PAUSE_MIN),
            known: HashMap::new(),
            changes: VecDeque::new(),
            looked: false,
            ended: false,
        }
    }

    /// How long to wait before the next look.
    fn pause(&self) -> Duration {
        if self.looked { self.pause } else { Duration::ZERO }
    }

    /// Takes the list of executions: those that are new, or in another state than before, are changes.
    fn update(&mut self, list: Vec<ExecutionInfo>) {
        self.looked = true;
        let before = std::mem::take(&mut self.known);
        for execution in list {
            if self.only.as_ref().is_some_and(|id| *id != execution.id) {
                continue;
            }
            self.known.insert(execution.id.clone(), execution.state.clone());
            if before.get(&execution.id) != Some(&execution.state) {
                self.changes.push_back(execution);
            }
        }
        // The one that is watched has ended, or is not in the list any more.
        self.ended = self.only.is_some() && self.known.values().all(ExecutionState::is_final);
    }
}

/// States of executions: see [`watch`].
pub struct ExecutionStates<'c, C> {
    connection: &'c mut C,
    watched: Watched,
}

/// States of executions as they change: first all that there are, then each change that is seen; states that pass within a
/// pause are not. With an id only that execution, until it has ended; else without end. An error is the last item.
///
/// `pause` is the time between two looks, at least [`PAUSE_MIN`].
///
/// ```no_run
/// use std::time::Duration;
///
/// # fn main() -> redgrease::Result<()> {
/// let mut client = redgrease::Client::connect("redis://localhost:6379")?;
/// for execution in redgrease::watch(&mut client, None, Duration::from_millis(500)) {
///     let execution = execution?;
///     println!("{} {}", execution.id, execution.state);
/// }
/// # Ok(())
/// # }
/// ```
pub fn watch<'c, C: GearsConnection>(
    connection: &'c mut C,
    id: Option<&ExecutionId>,
    pause: Duration,
) -> ExecutionStates<'c, C> {
    ExecutionStates { connection, watched: Watched::new(id, pause) }
}

impl<C: GearsConnection> Iterator for ExecutionStates<'_, C> {
    type Item = Result<ExecutionInfo>;

    fn next(&mut self) -> Option<Result<ExecutionInfo>> {
        loop {
            if let Some(change) = self.watched.changes.pop_front() {
                return Some(Ok(change));
            }
            if self.watched.ended {
                return None;
            }
            std::thread::sleep(self.watched.pause());
            match self.connection.rg_dump_executions() {
                Ok(list) => self.watched.update(list),
                Err(error) => {
                    self.watched.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// States of executions as a stream for tokio, as [`watch`](crate::watch).
#[cfg(feature = "aio")]
pub fn watch_async<C: crate::connection::AsyncGearsConnection>(
    connection: &mut C,
    id: Option<&ExecutionId>,
    pause: Duration,
) -> impl futures_util::Stream<Item = Result<ExecutionInfo>> + Send {
    use crate::commands::AsyncGearsCommands;

    let start = (connection, Watched::new(id, pause));
    futures_util::stream::unfold(start, async |(connection, mut watched)| {
        loop {
            if let Some(change) = watched.changes.pop_front() {
                return Some((Ok(change), (connection, watched)));
            }
            if watched.ended {
                return None;
            }
            tokio::time::sleep(watched.pause()).await;
            match connection.rg_dump_executions().await {
                Ok(list) => watched.update(list),
                Err(error) => {
                    watched.ended = true;
                    return Some((Err(error), (connection, watched)));
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(states: &[(u64, &str)]) -> Vec<ExecutionInfo> {
        let one = |(sequence, state): &(u64, &str)| ExecutionInfo {
            id: format!("ab-{sequence}").parse().unwrap(),
            state: ExecutionState::from_name((*state).to_owned()),
            registered: false,
        };
        states.iter().map(one).collect()
    }

    fn changes(watched: &mut Watched, states: &[(u64, &str)]) -> Vec<String> {
        watched.update(list(states));
        watched.changes.drain(..).map(|each| format!("{} {}", each.id.sequence(), each.state)).collect()
    }

    #[test]
    fn what_is_new_or_in_another_state_is_a_change() {
        let mut watched = Watched::new(None, Duration::ZERO);
        assert_eq!(watched.pause(), Duration::ZERO);
        assert_eq!(changes(&mut watched, &[(1, "running"), (2, "created")]), ["1 running", "2 created"]);
        assert_eq!(watched.pause(), PAUSE_MIN);
        assert_eq!(changes(&mut watched, &[(1, "running"), (2, "running")]), ["2 running"]);
        assert_eq!(changes(&mut watched, &[(1, "done")]), ["1 done"]);
        assert!(!watched.ended);
        assert_eq!(changes(&mut watched, &[]), [""; 0]);
    }

    #[test]
    fn one_execution_is_watched_until_it_has_ended_or_is_gone() {
        let id = list(&[(2, "")]).remove(0).id;
        let mut watched = Watched::new(Some(&id), Duration::ZERO);
        assert_eq!(changes(&mut watched, &[(1, "running"), (2, "running")]), ["2 running"]);
        assert!(!watched.ended);
        assert_eq!(changes(&mut watched, &[(1, "running"), (2, "aborted")]), ["2 aborted"]);
        assert!(watched.ended);
        let mut watched = Watched::new(Some(&id), Duration::ZERO);
        changes(&mut watched, &[(2, "running")]);
        assert_eq!(changes(&mut watched, &[(1, "running")]), [""; 0]);
        assert!(watched.ended);
    }
}
