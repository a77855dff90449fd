//! What can be looked at: registrations, memory, `INFO`.

use redgrease_core::codec::KeyType;
use redgrease_core::id::{Database, RegistrationNo};
use redgrease_core::plan::Trigger;
use redgrease_core::registration::Registration;
use redgrease_core::render::Reply;
use redgrease_ffi::info::InfoWriter;

use crate::engine::{Engine, engine};
use crate::memory::resident_and_peak_bytes;

/// Memory of all workers, in bytes.
pub struct PythonMemory {
    /// Peaks of all workers that ever were.
    pub total: u64,
    /// Peaks of those that live.
    pub peak: u64,
    /// What those that live have now.
    pub current: u64,
}

/// Sums the memory of the workers.
pub fn python_memory(engine: &Engine) -> PythonMemory {
    let workers = engine.workers.borrow();
    let (current, peak) = workers
        .values()
        .map(|worker| resident_and_peak_bytes(worker.pid()))
        .fold((0, 0), |(current, peak), (one_current, one_peak)| (current + one_current, peak + one_peak));
    PythonMemory { total: engine.past_peak_bytes.get() + peak, peak, current }
}

/// The reply of `RG.DUMPREGISTRATIONS`. Clients index the fields by number (`DEC-01`): nothing may be put between them.
pub fn registrations(engine: &Engine) -> Reply {
    let registrations = engine.registrations.borrow();
    let entries = registrations.iter().map(|(number, registration)| {
        Reply::Array(vec![
            Reply::bulk("id"),
            Reply::bulk(engine.shard.identifier(number.0)),
            Reply::bulk("reader"),
            Reply::bulk(&registration.spec.reader),
            Reply::bulk("desc"),
            optional(registration.spec.desc.as_deref()),
            Reply::bulk("RegistrationData"),
            registration_data(engine, number, registration),
            Reply::bulk("PD"),
            Reply::bulk(private_data(engine, registration)),
            Reply::bulk("ExecutionThreadPool"),
            Reply::bulk("DefaultPool"),
        ])
    });
    Reply::Array(entries.collect())
}

fn registration_data(engine: &Engine, number: RegistrationNo, registration: &Registration) -> Reply {
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
        Reply::bulk("lastRunDurationMS"),
        count(statistics.last_run_ms),
        Reply::bulk("totalRunDurationMS"),
        count(statistics.total_run_ms),
        Reply::bulk("avgRunDurationMS"),
        Reply::Double(statistics.mean_run_ms()),
    ];
    let stream = matches!(registration.trigger, Trigger::Stream { .. });
    if stream {
        fields.extend([
            Reply::bulk("lastEstimatedLagMS"),
            count(statistics.last_lag_ms),
            Reply::bulk("avgEstimatedLagMS"),
            Reply::Double(statistics.mean_lag_ms()),
        ]);
    }
    let broken = engine.sessions.borrow().get(&registration.session).and_then(|session| session.broken.clone());
    let last_error = broken.map(String::into_bytes).or_else(|| statistics.last_error.clone());
    fields.extend([
        Reply::bulk("lastError"),
        last_error.map_or(Reply::Null, Reply::Bulk),
        Reply::bulk("args"),
        Reply::Array(arguments(registration)),
    ]);
    if stream {
        fields.extend([Reply::bulk("status"), Reply::bulk(engine.stream_status(number))]);
    }
    Reply::Array(fields)
}

fn arguments(registration: &Registration) -> Vec<Reply> {
    let mut arguments = trigger_arguments(&registration.trigger);
    // Behind the fields of RedisGears, whose positions clients know.
    if registration.database != Database::default() && !matches!(registration.trigger, Trigger::Command { .. }) {
        arguments.extend([Reply::bulk("database"), count(registration.database.0.into())]);
    }
    arguments
}

fn trigger_arguments(trigger: &Trigger) -> Vec<Reply> {
    match trigger {
        Trigger::Keys { filter, event_types, key_types, .. } => vec![
            Reply::bulk("regex"),
            Reply::bulk(filter.text()),
            Reply::bulk("eventTypes"),
            names(event_types.as_ref().map(|names| names.iter().map(String::as_str).collect())),
            Reply::bulk("keyTypes"),
            names(key_types.as_ref().map(|types| types.iter().copied().map(KeyType::filter_name).collect())),
            Reply::bulk("hookCommands"),
            Reply::Null,
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
        Trigger::Command { name, in_order } => {
            vec![Reply::bulk("trigger"), Reply::bulk(name), Reply::bulk("inorder"), Reply::Int(i64::from(*in_order))]
        }
    }
}

fn names(names: Option<Vec<&str>>) -> Reply {
    names.map_or(Reply::Null, |names| Reply::Array(names.iter().map(Reply::bulk).collect()))
}

fn optional(text: Option<&str>) -> Reply {
    text.map_or(Reply::Null, Reply::bulk)
}

fn count(number: u64) -> Reply {
    Reply::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The text of the `PD` field (`CMD-DUMPREGISTRATIONS-06`): single-quoted, parsed by some clients.
fn private_data(engine: &Engine, registration: &Registration) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let sessions = engine.sessions.borrow();
    let Some(session) = sessions.get(&registration.session) else { return "{}".to_owned() };
    let registrations = engine.registrations.borrow().of_session(registration.session);
    let ids: Vec<_> = registrations.iter().map(|number| quote(&engine.shard.identifier(number.0))).collect();
    let paths: Vec<_> = session.paths.iter().map(|path| quote(path)).collect();
    let requirements: Vec<_> = session
        .requirements
        .iter()
        .map(|name| {
            format!(
                "{{'name':{}, 'basePath':{}, 'wheels':[]}}",
                quote(name),
                paths.first().map_or("''", String::as_str)
            )
        })
        .collect();
    let description =
        session.description.as_ref().map_or("null".to_owned(), |text| quote(&String::from_utf8_lossy(text)));
    format!(
        "{{'sessionName':{}, 'sessionDescription':{description}, 'refCount': {}, 'linkedTo': primary, 'dead': false, \
         'isInstallationNeeded':{}, 'registrationsList':[{}], 'depsList':[{}]}}",
        quote(&session.name),
        registrations.len() + session.live,
        u8::from(!session.paths.is_empty()),
        ids.join(", "),
        requirements.join(", "),
    )
}

/// The module's part of `INFO`.
pub fn info(writer: &InfoWriter) {
    let Some(engine) = engine() else { return };
    if writer.section("") {
        writer.number("nexecutions", engine.executions.borrow().len() as u64);
        writer.number("nregistrations", engine.registrations.borrow().len() as u64);
        writer.number("events_pending", engine.pending.borrow().len() as u64);
        writer.number("events_pending_bytes", engine.pending.borrow().bytes() as u64);
        let memory = python_memory(&engine);
        writer.number("TotalAllocated", memory.total);
        writer.number("PeakAllocated", memory.peak);
        writer.number("CurrAllocated", memory.current);
    }
    if writer.section("workers") {
        let pool = engine.pool.borrow();
        writer.number("workers", pool.len() as u64);
        writer.number("workers_spare", pool.spare_count() as u64);
        writer.number("workers_shared", pool.shared_count() as u64);
        writer.number("workers_died", engine.worker_deaths.get());
        writer.number("sessions", engine.sessions.borrow().len() as u64);
        writer.number("sessions_waiting", engine.waiting.borrow().len() as u64);
        writer.text("python", &engine.python_name());
    }
}
