//! What commands show of executions and sessions: `RG.GETEXECUTION`, `RG.PYDUMPSESSIONS`.

use redgrease_core::id::{SessionNo, ShardId};
use redgrease_core::peer::PeerQuestion;
use redgrease_core::plan::{PlanSpec, primitives};
use redgrease_core::render::Reply;

use crate::clients::Client;
use crate::cluster::inquiries::{PartRow, Purpose};
use crate::engine::Engine;
use crate::error::Error;
use crate::executions::execution::Execution;
use crate::executions::shared::Shared;
use crate::input::{Caller, Inside, Scope, SessionFilter};
use crate::prelude::*;
use crate::registrations::dump;
use crate::sessions::session::Session;

impl Engine {
    /// `RG.GETEXECUTION`.
    pub(crate) fn get_execution(&mut self, client: Client, caller: &Caller, identifier: &[u8], scope: Scope) {
        let Some(number) = self.find_execution(identifier) else {
            return self.refuse(client, Error::NoExecution);
        };
        if scope == Scope::Unknown {
            return self.refuse(client, Error::UnknownSubcommand);
        }
        if scope == Scope::Cluster && !self.at.server.cluster {
            return self.refuse(client, Error::NoCluster);
        }
        let own = self.own_execution_row(number);
        if scope != Scope::Shard && self.topology.has_several() && caller.inside == Inside::Nothing {
            let id = self.execution_id(number);
            let purpose = Purpose::Execution { id, rows: vec![own] };
            return self.inquire(client, purpose, &PeerQuestion::Execution(id));
        }
        let spec = self.executions.get(number).and_then(|execution| execution.spec.clone());
        let (shard, row) = own;
        self.reply(client, Reply::Array(vec![execution_row(shard, &row, spec.as_deref())]));
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
                dump::short_row(registration, Some(session), status)
            }
            Some(registration) => Reply::bulk(registration.id.to_string()),
            None => Reply::Null,
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

/// What is shown of the part of this shard in an execution.
pub(crate) fn part_of(execution: &Execution, shared: Option<&Shared>) -> PartRow {
    let ended = execution.status().is_final();
    PartRow {
        status: execution.status().name().to_owned(),
        shards_received: shared.map_or(0, Shared::shards_ready),
        shards_completed: shared.map_or(0, |shared| shared.parts_ended),
        results: ended.then_some(execution.result_count),
        errors: if ended { execution.errors.clone() } else { Vec::new() },
        total_ms: execution.run_ms,
        read_micros: execution.read_micros,
        step_micros: execution.step_micros.clone(),
    }
}

/// The part of a shard in an execution, in the order of fields of RedisGears.
pub(crate) fn execution_row(shard: ShardId, part: &PartRow, spec: Option<&PlanSpec>) -> Reply {
    Reply::Array(vec![
        Reply::bulk("shard_id"),
        Reply::bulk(shard.as_str()),
        Reply::bulk("execution_plan"),
        execution_plan(part, spec),
    ])
}

fn execution_plan(part: &PartRow, spec: Option<&PlanSpec>) -> Reply {
    let number = |number: u64| Reply::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let millis = |micros: u64| Reply::Int((micros / 1000) as i64);
    let steps = spec.map(|spec| primitives(&spec.steps)).unwrap_or_default();
    let steps = steps.iter().rev().map(|primitive| {
        let micros = primitive.step.and_then(|step| part.step_micros.get(step)).copied().unwrap_or(0);
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
        Reply::bulk(&part.status),
        Reply::bulk("shards_received"),
        number(part.shards_received),
        Reply::bulk("shards_completed"),
        number(part.shards_completed),
        Reply::bulk("results"),
        part.results.map_or(Reply::Int(-1), number),
        Reply::bulk("errors"),
        Reply::Array(part.errors.iter().map(Reply::bulk).collect()),
        Reply::bulk("total_duration"),
        number(part.total_ms),
        Reply::bulk("read_duration"),
        millis(part.read_micros),
        Reply::bulk("steps"),
        Reply::Array(steps.collect()),
    ])
}
