//! Executions: their state, and how far they are.

use std::fmt;
use std::time::Duration;

use redis::Value;

use super::fields::{Fields, rows, text_value};
use crate::error::{Error, Result};
use crate::id::ExecutionId;
use crate::traceback::PythonError;

/// The state of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExecutionState {
    /// It waits.
    Created,
    /// It runs.
    Running,
    /// It has ended.
    Done,
    /// It was aborted.
    Aborted,
    /// A state that this version does not know.
    Other(String),
}

impl ExecutionState {
    pub(crate) fn from_name(name: String) -> ExecutionState {
        match name.as_str() {
            "created" => ExecutionState::Created,
            "running" => ExecutionState::Running,
            "done" => ExecutionState::Done,
            "aborted" => ExecutionState::Aborted,
            _ => ExecutionState::Other(name),
        }
    }

    /// Its name in replies.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            ExecutionState::Created => "created",
            ExecutionState::Running => "running",
            ExecutionState::Done => "done",
            ExecutionState::Aborted => "aborted",
            ExecutionState::Other(name) => name,
        }
    }

    /// Whether it stays so.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, ExecutionState::Done | ExecutionState::Aborted)
    }
}

impl fmt::Display for ExecutionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An execution of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutionInfo {
    /// Its id.
    pub id: ExecutionId,
    /// Its state.
    pub state: ExecutionState,
    /// Whether a registration started it.
    pub registered: bool,
}

impl ExecutionInfo {
    pub(crate) fn from_fields(mut row: Fields) -> Result<ExecutionInfo> {
        Ok(ExecutionInfo {
            id: row.id("executionId")?,
            state: ExecutionState::from_name(row.text("status")?),
            registered: row.flag("registered")?,
        })
    }
}

/// An execution on one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardExecution {
    /// The shard's id.
    pub shard: String,
    /// How far the execution is there.
    pub plan: ExecutionPlan,
}

impl ShardExecution {
    pub(crate) fn from_fields(mut row: Fields) -> Result<ShardExecution> {
        Ok(ShardExecution {
            shard: row.text("shard_id")?,
            plan: ExecutionPlan::from_fields(row.row("execution_plan")?)?,
        })
    }
}

/// How far an execution is on a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutionPlan {
    /// Its state.
    pub state: ExecutionState,
    /// Shards that received it.
    pub shards_received: u64,
    /// Shards that have ended it.
    pub shards_completed: u64,
    /// Number of its results, when it has ended.
    pub results: Option<u64>,
    /// Its errors, when it has ended.
    pub errors: Vec<PythonError>,
    /// How long it ran.
    pub total_time: Duration,
    /// How long it read; zero while nothing is profiled.
    pub read_time: Duration,
    /// Its steps, the last one first.
    pub steps: Vec<ExecutionStep>,
}

impl ExecutionPlan {
    fn from_fields(mut row: Fields) -> Result<ExecutionPlan> {
        let error = |value: &Value| {
            text_value(value)
                .map(PythonError::new)
                .ok_or_else(|| Error::reply("RG.GETEXECUTION", "an error of the execution is not a text"))
        };
        Ok(ExecutionPlan {
            state: ExecutionState::from_name(row.text("status")?),
            shards_received: row.number("shards_received")?,
            shards_completed: row.number("shards_completed")?,
            results: row.integer("results")?,
            errors: row.list("errors")?.iter().map(error).collect::<Result<_>>()?,
            total_time: row.millis("total_duration")?.unwrap_or_default(),
            read_time: row.millis("read_duration")?.unwrap_or_default(),
            steps: rows("RG.GETEXECUTION", Value::Array(row.list("steps")?), ExecutionStep::from_fields)?,
        })
    }
}

/// A step of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutionStep {
    /// What it is, such as `map`.
    pub kind: String,
    /// The name of its function.
    pub name: String,
    /// How long it took; zero unless `ProfileExecutions` is 1.
    pub time: Duration,
    /// Its argument.
    pub argument: String,
}

impl ExecutionStep {
    fn from_fields(mut row: Fields) -> Result<ExecutionStep> {
        Ok(ExecutionStep {
            kind: row.text("type")?,
            name: row.text("name")?,
            time: row.millis("duration")?.unwrap_or_default(),
            argument: row.text("arg")?,
        })
    }
}
