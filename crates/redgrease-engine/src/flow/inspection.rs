//! What commands show of executions and sessions: `RG.GETEXECUTION`, `RG.PYDUMPSESSIONS`.

use redgrease_core::id::SessionNo;
use redgrease_core::plan::primitives;
use redgrease_core::render::Reply;

use crate::clients::Client;
use crate::engine::Engine;
use crate::error::Error;
use crate::executions::execution::Execution;
use crate::input::{Scope, SessionFilter};
use crate::prelude::*;
use crate::registrations::dump;
use crate::sessions::session::Session;

impl Engine {
    /// `RG.GETEXECUTION`.
    pub(crate) fn get_execution(&mut self, client: Client, identifier: &[u8], scope: Scope) {
        let Some(execution) = self.find_execution(identifier).and_then(|number| self.executions.get(number)) else {
            return self.refuse(client, Error::NoExecution);
        };
        if scope == Scope::Unknown {
            return self.refuse(client, Error::UnknownSubcommand);
        }
        if scope == Scope::Cluster && !self.at.server.cluster {
            return self.refuse(client, Error::NoCluster);
        }
        let row = Reply::Array(vec![
            Reply::bulk("shard_id"),
            Reply::bulk(self.shard.as_str()),
            Reply::bulk("execution_plan"),
            execution_plan(execution),
        ]);
        self.reply(client, Reply::Array(vec![row]));
    }

    /// `RG.PYDUMPSESSIONS`.
    pub(crate) fn dump_sessions(&mut self, client: Client, filter: &SessionFilter<'_>) {
        let mut rows = Vec::new();
        match &filter.names {
            Some(names) => {
                for name in names {
                    let found = core::str::from_utf8(name).ok().and_then(|name| self.sessions.named(name));
                    rows.push(match found {
                        Some(number) => self.session_row(number, filter.verbose),
                        None => Reply::bulk(format!("Session {} does not exists", String::from_utf8_lossy(name))),
                    });
                }
            }
            None => {
                let shown = |session: &Session| if filter.dead { session.is_dead() } else { session.registered };
                let numbers: Vec<SessionNo> =
                    self.sessions.iter().filter(|(_, session)| shown(session)).map(|(number, _)| number).collect();
                rows.extend(numbers.into_iter().map(|number| self.session_row(number, filter.verbose)));
            }
        }
        self.reply(client, Reply::Array(rows));
    }

    pub(crate) fn session_row(&self, number: SessionNo, verbose: bool) -> Reply {
        let Some(session) = self.sessions.get(number) else { return Reply::Null };
        let registrations = self.registrations.of_session(number);
        let references = registrations.len() + session.live;
        let rows = registrations.iter().map(|number| match self.registrations.get(*number) {
            Some(registration) if verbose => {
                let status = self.stream_status(*number);
                dump::short_row(&self.shard, (*number, registration), Some(session), status)
            }
            _ => Reply::bulk(self.shard.identifier(number.0)),
        });
        let rows = rows.collect();
        let requirements = session.stored.requirements.iter();
        let requirements = match verbose {
            true => requirements.map(|name| self.requirement_row(name, &session.stored.environment)).collect(),
            false => requirements.map(Reply::bulk).collect(),
        };
        Reply::Array(vec![
            Reply::bulk("ID"),
            Reply::bulk(&*session.name),
            Reply::bulk("sessionDescription"),
            session.description.as_ref().map_or(Reply::Null, Reply::bulk),
            Reply::bulk("refCount"),
            Reply::Int(references as i64),
            Reply::bulk("linked"),
            Reply::bulk(if session.registered { "primary" } else { "None" }),
            Reply::bulk("dead"),
            Reply::bulk(if session.is_dead() { "true" } else { "false" }),
            Reply::bulk("requirementInstallationNeeded"),
            Reply::Int(i64::from(session.installed)),
            Reply::bulk("requirements"),
            Reply::Array(requirements),
            Reply::bulk("registrations"),
            Reply::Array(rows),
        ])
    }
}

/// The plan and progress of an execution, in the order of fields of RedisGears.
fn execution_plan(execution: &Execution) -> Reply {
    let ended = execution.status().is_final();
    let errors = if ended { execution.errors.iter().map(Reply::bulk).collect() } else { Vec::new() };
    let millis = |micros: u64| Reply::Int((micros / 1000) as i64);
    let steps = execution.spec.as_ref().map(|spec| primitives(&spec.steps)).unwrap_or_default();
    let steps = steps.iter().rev().map(|primitive| {
        let micros = primitive.step.and_then(|step| execution.step_micros.get(step)).copied().unwrap_or(0);
        Reply::Array(vec![
            Reply::bulk("type"),
            Reply::bulk(primitive.kind),
            Reply::bulk("duration"),
            millis(micros),
            Reply::bulk("name"),
            Reply::bulk(primitive.name),
            Reply::bulk("arg"),
            Reply::bulk(""),
        ])
    });
    Reply::Array(vec![
        Reply::bulk("status"),
        Reply::bulk(execution.status().name()),
        Reply::bulk("shards_received"),
        Reply::Int(0),
        Reply::bulk("shards_completed"),
        Reply::Int(0),
        Reply::bulk("results"),
        Reply::Int(if ended { execution.result_count as i64 } else { -1 }),
        Reply::bulk("errors"),
        Reply::Array(errors),
        Reply::bulk("total_duration"),
        Reply::Int(execution.run_ms as i64),
        Reply::bulk("read_duration"),
        millis(execution.read_micros),
        Reply::bulk("steps"),
        Reply::Array(steps.collect()),
    ])
}
