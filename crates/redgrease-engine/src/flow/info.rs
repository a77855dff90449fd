//! What `INFO` shows: numbers, and a line of text for each registration, session and requirement.

use redgrease_core::id::WorkerNo;
use redgrease_core::render::Reply;

use crate::engine::Engine;
use crate::limits::INFO_ROWS_MAX;
use crate::prelude::*;
use crate::registrations::dump::{self, Fields, Rows};

/// Statistics for `INFO`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Info {
    /// Executions in the list that users see.
    pub executions: u64,
    /// Registrations.
    pub registrations: u64,
    /// Key events that wait for their executions.
    pub events_pending: u64,
    /// Their size in bytes.
    pub events_pending_bytes: u64,
    /// Worker processes, starting ones included.
    pub workers: u64,
    /// Workers without a session.
    pub workers_spare: u64,
    /// Workers that are shared by several sessions.
    pub workers_shared: u64,
    /// Workers that ended unexpectedly.
    pub workers_died: u64,
    /// Sessions.
    pub sessions: u64,
    /// Sessions that wait for a worker.
    pub sessions_waiting: u64,
}

/// A worker in `INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerInfo<'a> {
    /// Its sessions.
    pub sessions: u64,
    /// All sessions that it has had.
    pub served: u64,
    /// What the kernel keeps it from doing; empty before its handshake.
    pub isolation: &'a str,
}

/// A field of `INFO`: its name, and pairs as in `a=1,b=None`.
pub type InfoRow = (String, String);

impl Engine {
    /// Statistics for `INFO`.
    #[must_use]
    pub fn info(&self) -> Info {
        Info {
            executions: self.executions.len() as u64,
            registrations: self.registrations.len() as u64,
            events_pending: self.pending.len() as u64,
            events_pending_bytes: self.pending.bytes() as u64,
            workers: self.workers.pool.len() as u64,
            workers_spare: self.workers.pool.spare_count() as u64,
            workers_shared: self.workers.pool.shared_count() as u64,
            workers_died: self.workers.deaths,
            sessions: self.sessions.len() as u64,
            sessions_waiting: self.sessions.waiting.len() as u64,
        }
    }

    /// The first [`INFO_ROWS_MAX`] registrations, by identifier.
    #[must_use]
    pub fn info_of_registrations(&self) -> Vec<InfoRow> {
        let rows = Rows::new(&self.registrations);
        let first = self.registrations.iter().take(INFO_ROWS_MAX);
        first
            .map(|(number, registration)| {
                let session = self.sessions.get(registration.session);
                let named = rows.of_session(registration.session);
                let status = self.stream_status(number);
                let row = dump::row(registration, session, named, status, Fields::All);
                (registration.id.to_string(), pairs(&row))
            })
            .collect()
    }

    /// The first [`INFO_ROWS_MAX`] registered sessions, by identifier.
    #[must_use]
    pub fn info_of_sessions(&self) -> Vec<InfoRow> {
        let registered = self.sessions.iter().filter(|(_, session)| session.registered).take(INFO_ROWS_MAX);
        registered
            .map(|(number, session)| (session.name.to_string(), pairs(&self.session_row(number, false))))
            .collect()
    }

    /// The first [`INFO_ROWS_MAX`] installed requirements, by name.
    #[must_use]
    pub fn info_of_requirements(&self) -> Vec<InfoRow> {
        let installed = self.installed_requirements();
        let first = installed.iter().take(INFO_ROWS_MAX);
        first.map(|(name, environment)| (name.clone(), pairs(&self.requirement_row(name, environment)))).collect()
    }

    /// Sessions that a worker serves, and sessions that it has served.
    #[must_use]
    pub fn info_of_worker(&self, worker: WorkerNo) -> WorkerInfo<'_> {
        let (sessions, served) = self.workers.pool.counts(worker);
        let isolation = self.workers.links.get(&worker).map_or("", |link| link.isolation.as_str());
        WorkerInfo { sessions, served, isolation }
    }
}

/// `name=value` for each pair of a row; lists are joined by `|`, lists of pairs belong to the row.
fn pairs(row: &Reply) -> String {
    let mut text = String::new();
    add_pairs(row, &mut text);
    text
}

fn add_pairs(row: &Reply, text: &mut String) {
    let Reply::Array(fields) = row else { return };
    for pair in fields.chunks_exact(2) {
        let name = value(&pair[0]);
        if name == "RegistrationData" {
            add_pairs(&pair[1], text);
            continue;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&name);
        text.push('=');
        text.push_str(&value(&pair[1]));
    }
}

fn value(reply: &Reply) -> String {
    match reply {
        Reply::Simple(text) | Reply::Error(text) => text.replace(',', "|"),
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).replace(',', "|"),
        Reply::Int(number) => number.to_string(),
        Reply::Double(number) => number.to_string(),
        Reply::Bool(truth) => truth.to_string(),
        Reply::Null => "None".to_owned(),
        Reply::Array(values) => values.iter().map(value).collect::<Vec<_>>().join("|"),
        Reply::Map(values) => {
            let pairs = values.iter().map(|(name, one)| format!("{}:{}", value(name), value(one)));
            pairs.collect::<Vec<_>>().join("|")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_line_of_pairs() {
        let row = Reply::Array(vec![
            Reply::bulk("reader"),
            Reply::bulk("KeysReader"),
            Reply::bulk("desc"),
            Reply::Null,
            Reply::bulk("RegistrationData"),
            Reply::Array(vec![
                Reply::bulk("mode"),
                Reply::bulk("async"),
                Reply::bulk("args"),
                Reply::Array(vec![Reply::bulk("regex"), Reply::bulk("a,*"), Reply::bulk("eventTypes"), Reply::Null]),
            ]),
            Reply::bulk("PD"),
            Reply::bulk("{'a':1, 'b':2}"),
        ]);
        assert_eq!(
            pairs(&row),
            "reader=KeysReader,desc=None,mode=async,args=regex|a|*|eventTypes|None,PD={'a':1| 'b':2}"
        );
    }
}
