//! The reply of `RG.DUMPREGISTRATIONS`. Clients index the fields of a row by number: nothing may be inserted
//! between them.

use redgrease_core::codec::KeyType;
use redgrease_core::id::{Database, Identifier, RegistrationNo, SessionNo};
use redgrease_core::plan::Trigger;
use redgrease_core::render::Reply;

use crate::limits::NAMED_IN_EACH_ROW;
use crate::prelude::*;
use crate::registrations::registry::{Registration, Registrations, STREAM_GROUP};
use crate::sessions::session::Session;

/// The rows that are left to be written.
#[derive(Debug)]
pub(crate) struct Rows {
    left: VecDeque<RegistrationNo>,
    of_session: BTreeMap<SessionNo, Vec<Identifier>>,
}

impl Rows {
    /// Rows of all current registrations; those that are removed meanwhile are left out.
    pub(crate) fn new(registrations: &Registrations) -> Rows {
        let mut of_session: BTreeMap<SessionNo, Vec<Identifier>> = BTreeMap::new();
        for (_, registration) in registrations.iter() {
            of_session.entry(registration.session).or_default().push(registration.id);
        }
        Rows { left: registrations.iter().map(|(number, _)| number).collect(), of_session }
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.left.len()
    }

    /// The registration of the next row.
    pub(crate) fn next(&mut self, registrations: &Registrations) -> Option<RegistrationNo> {
        loop {
            let number = self.left.pop_front()?;
            if registrations.get(number).is_some() {
                return Some(number);
            }
        }
    }

    /// The registrations of a session.
    pub(crate) fn of_session(&self, session: SessionNo) -> &[Identifier] {
        self.of_session.get(&session).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The fields of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fields {
    /// Those of RedisGears 1.2.
    All,
    /// Only those that RedGrease 0.3 takes, which fails on any other.
    RedGrease03,
}

/// A row. `named` are the registrations of its session; `stream_status` is its status if it reads streams.
pub(crate) fn row(
    registration: &Registration,
    session: Option<&Session>,
    named: &[Identifier],
    stream_status: &str,
    fields: Fields,
) -> Reply {
    let mut row = head(registration, session, stream_status, fields);
    let data = match fields {
        Fields::All => private_data(registration.id, session, named),
        Fields::RedGrease03 => short_private_data(session),
    };
    row.extend([Reply::bulk("PD"), Reply::bulk(data)]);
    row.extend(tail());
    Reply::Array(row)
}

/// A row without the data of the session.
pub(crate) fn short_row(registration: &Registration, session: Option<&Session>, stream_status: &str) -> Reply {
    let mut row = head(registration, session, stream_status, Fields::All);
    row.extend(tail());
    Reply::Array(row)
}

fn head(registration: &Registration, session: Option<&Session>, stream_status: &str, fields: Fields) -> Vec<Reply> {
    vec![
        Reply::bulk("id"),
        Reply::bulk(registration.id.to_string()),
        Reply::bulk("reader"),
        Reply::bulk(registration.spec.reader.name()),
        Reply::bulk("desc"),
        registration.spec.desc.as_deref().map_or(Reply::Null, Reply::bulk),
        Reply::bulk("RegistrationData"),
        registration_data(registration, session, stream_status, fields),
    ]
}

fn tail() -> [Reply; 2] {
    [Reply::bulk("ExecutionThreadPool"), Reply::bulk("DefaultPool")]
}

fn registration_data(
    registration: &Registration,
    session: Option<&Session>,
    stream_status: &str,
    wanted: Fields,
) -> Reply {
    let statistics = &registration.statistics;
    let mut fields = vec![
        Reply::bulk("mode"),
        Reply::bulk(registration.spec.mode.name()),
        Reply::bulk("numTriggered"),
        count(statistics.triggered),
        Reply::bulk("numSuccess"),
        count(statistics.success),
        Reply::bulk("numFailures"),
        count(statistics.failures),
        Reply::bulk("numAborted"),
        count(statistics.aborted),
    ];
    if wanted == Fields::All {
        fields.extend([
            Reply::bulk("lastRunDurationMS"),
            count(statistics.last_run_ms),
            Reply::bulk("totalRunDurationMS"),
            count(statistics.total_run_ms),
            Reply::bulk("avgRunDurationMS"),
            Reply::Double(statistics.mean_run_ms()),
        ]);
    }
    let stream = matches!(registration.trigger, Trigger::Stream { .. });
    if stream && wanted == Fields::All {
        fields.extend([
            Reply::bulk("lastEstimatedLagMS"),
            count(statistics.last_lag_ms),
            Reply::bulk("avgEstimatedLagMS"),
            Reply::Double(statistics.mean_lag_ms()),
        ]);
    }
    let broken = session.and_then(Session::broken).map(|reason| reason.as_bytes().to_vec());
    let last_error = broken.or_else(|| statistics.last_error.clone());
    fields.extend([
        Reply::bulk("lastError"),
        last_error.map_or(Reply::Null, Reply::Bulk),
        Reply::bulk("args"),
        Reply::Array(arguments(registration)),
    ]);
    if stream {
        fields.extend([Reply::bulk("status"), Reply::bulk(stream_status)]);
    }
    Reply::Array(fields)
}

fn arguments(registration: &Registration) -> Vec<Reply> {
    let mut arguments = trigger_arguments(&registration.trigger);
    // After the fields of RedisGears, whose positions clients depend on.
    let of_call = matches!(registration.trigger, Trigger::Command { .. } | Trigger::Hook { .. });
    if registration.database != Database::default() && !of_call {
        arguments.extend([Reply::bulk("database"), count(registration.database.0.into())]);
    }
    if !matches!(registration.group.as_str(), "" | STREAM_GROUP) {
        arguments.extend([Reply::bulk("group"), Reply::bulk(&registration.group)]);
    }
    arguments
}

fn trigger_arguments(trigger: &Trigger) -> Vec<Reply> {
    match trigger {
        Trigger::Keys { filter, event_types, key_types, commands, .. } => vec![
            Reply::bulk("regex"),
            Reply::bulk(filter.text()),
            Reply::bulk("eventTypes"),
            names(event_types.as_ref().map(|names| names.iter().map(String::as_str).collect())),
            Reply::bulk("keyTypes"),
            names(key_types.as_ref().map(|types| types.iter().copied().map(KeyType::name).collect())),
            Reply::bulk("hookCommands"),
            commands.as_ref().map_or(Reply::Null, |names| Reply::Array(names.iter().map(Reply::bulk).collect())),
        ],
        Trigger::Stream { filter, batch, duration_ms, on_failed, retry_interval_s, trim } => vec![
            Reply::bulk("batchSize"),
            count(*batch),
            Reply::bulk("durationMS"),
            count(*duration_ms),
            Reply::bulk("stream"),
            Reply::bulk(filter.text()),
            Reply::bulk("trimStream"),
            Reply::Int(i64::from(*trim)),
            Reply::bulk("onFailedPolicy"),
            Reply::bulk(on_failed.name()),
            Reply::bulk("retryInterval"),
            count(*retry_interval_s),
        ],
        Trigger::Command { name, in_order } | Trigger::Hook { command: name, in_order, .. } => {
            vec![Reply::bulk("trigger"), Reply::bulk(name), Reply::bulk("inorder"), Reply::Int(i64::from(*in_order))]
        }
    }
}

fn names(names: Option<Vec<&str>>) -> Reply {
    names.map_or(Reply::Null, |names| Reply::Array(names.iter().map(Reply::bulk).collect()))
}

fn count(number: u64) -> Reply {
    Reply::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The text of the `PD` field: single-quoted, parsed by some clients. `of_session` are the
/// registrations of its session; the row of the first one names them all.
fn private_data(id: Identifier, session: Option<&Session>, of_session: &[Identifier]) -> String {
    let Some(session) = session else { return "{}".to_owned() };
    let own = [id];
    let names_all = of_session.len() <= NAMED_IN_EACH_ROW || of_session.first() == Some(&id);
    let named = if names_all { of_session } else { &own };
    let ids: Vec<_> = named.iter().map(|id| quote(&id.to_string())).collect();
    let description = session.description.as_ref().filter(|_| names_all);
    let description = description.map_or("null".to_owned(), |text| quote(&String::from_utf8_lossy(text)));
    format!(
        "{{'sessionName':{}, 'sessionDescription':{description}, 'refCount': {}, 'linkedTo': primary, 'dead': false, \
         'isInstallationNeeded':{}, 'registrationsList':[{}], 'depsList':[{}]}}",
        quote(&session.name),
        of_session.len() + session.live,
        u8::from(session.installed),
        ids.join(", "),
        dependencies(session),
    )
}

/// The same in the form of RedisGears 1.0, a literal of Python.
fn short_private_data(session: Option<&Session>) -> String {
    let Some(session) = session else { return "{}".to_owned() };
    format!("{{'sessionId':{}, 'depsList':[{}]}}", quote(&session.name), dependencies(session))
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The requirements of a session.
fn dependencies(session: &Session) -> String {
    let paths: Vec<_> = session.paths.iter().map(|path| quote(path)).collect();
    let requirements: Vec<_> = session
        .stored
        .requirements
        .iter()
        .map(|name| {
            let wheels: Vec<_> =
                session.wheels.get(name.trim()).into_iter().flatten().map(|file| quote(file)).collect();
            let path = paths.first().map_or("''", String::as_str);
            format!("{{'name':{}, 'basePath':{path}, 'wheels':[{}]}}", quote(name), wheels.join(", "))
        })
        .collect();
    requirements.join(", ")
}
