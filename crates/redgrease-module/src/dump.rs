//! What can be looked at: registrations, memory, `INFO`.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use redgrease_core::codec::KeyType;
use redgrease_core::id::{Database, RegistrationNo, SessionNo};
use redgrease_core::plan::Trigger;
use redgrease_core::registration::{Registration, STREAM_GROUP};
use redgrease_core::render::Reply;
use redgrease_ffi::info::InfoWriter;
use redgrease_ffi::{Invocation, SlowAnswer};

use crate::engine::{Engine, engine};
use crate::memory::resident_and_peak_bytes;
use crate::reply;

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

/// Registrations of a session up to which each of its rows names them all; of more, the first row names them.
const NAMED_IN_EACH_ROW: usize = 32;

/// Rows of `RG.DUMPREGISTRATIONS` that are written at once; more are written in slices.
const ROWS_AT_ONCE: usize = 128;

/// The rows of `RG.DUMPREGISTRATIONS`, one after the other. Clients index the fields of a row by number (`DEC-01`): nothing
/// may be put between them.
pub struct RegistrationRows {
    left: VecDeque<RegistrationNo>,
    of_session: HashMap<SessionNo, Vec<RegistrationNo>>,
}

impl RegistrationRows {
    /// Rows of all registrations that exist now; those that go meanwhile are left out.
    pub fn new(engine: &Engine) -> RegistrationRows {
        let registrations = engine.registrations.borrow();
        let mut of_session: HashMap<SessionNo, Vec<RegistrationNo>> = HashMap::new();
        for (number, registration) in registrations.iter() {
            of_session.entry(registration.session).or_default().push(number);
        }
        RegistrationRows { left: registrations.iter().map(|(number, _)| number).collect(), of_session }
    }

    fn next(&mut self, engine: &Engine) -> Option<Reply> {
        loop {
            let number = self.left.pop_front()?;
            if let Some(registration) = engine.registrations.borrow().get(number) {
                let named = self.of_session.get(&registration.session).map(Vec::as_slice).unwrap_or_default();
                return Some(row(engine, number, registration, named));
            }
        }
    }
}

/// Answers `RG.DUMPREGISTRATIONS`: at once, or in slices when there are many rows and the client can wait.
pub fn registrations(engine: &Engine, invocation: &Invocation<'_>) {
    let mut rows = RegistrationRows::new(engine);
    let blocked = if rows.left.len() > ROWS_AT_ONCE { invocation.block() } else { None };
    match blocked {
        Some(client) => engine.write_rows(client.write_slowly(), rows),
        None => {
            let entries = std::iter::from_fn(|| rows.next(engine)).collect();
            reply::write(&invocation.reply(), &Reply::Array(entries));
        }
    }
}

/// An answer that is written in slices.
pub struct Dump {
    answer: SlowAnswer,
    rows: RegistrationRows,
}

impl Engine {
    fn write_rows(&self, answer: SlowAnswer, rows: RegistrationRows) {
        self.dumps.borrow_mut().push_back(Dump { answer, rows });
        self.wake_readers();
    }

    /// Writes rows of answers until the deadline.
    pub fn write_dumps(&self, deadline: Instant) {
        loop {
            let Some(mut dump) = self.dumps.borrow_mut().pop_front() else { return };
            loop {
                let Some(row) = dump.rows.next(self) else {
                    dump.answer.finish();
                    break;
                };
                dump.answer.element(|client| reply::write(client, &row));
                if Instant::now() >= deadline {
                    return self.dumps.borrow_mut().push_back(dump);
                }
            }
        }
    }
}

fn row(engine: &Engine, number: RegistrationNo, registration: &Registration, named: &[RegistrationNo]) -> Reply {
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
        Reply::bulk(private_data(engine, number, registration, named)),
        Reply::bulk("ExecutionThreadPool"),
        Reply::bulk("DefaultPool"),
    ])
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
    if !matches!(registration.group.as_str(), "" | STREAM_GROUP) {
        arguments.extend([Reply::bulk("group"), Reply::bulk(&registration.group)]);
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
            names(key_types.as_ref().map(|types| types.iter().copied().map(KeyType::name).collect())),
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

/// The text of the `PD` field (`CMD-DUMPREGISTRATIONS-06`): single-quoted, parsed by some clients. `of_session` are the
/// registrations of its session; the row of the first one names them all.
fn private_data(
    engine: &Engine,
    number: RegistrationNo,
    registration: &Registration,
    of_session: &[RegistrationNo],
) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let sessions = engine.sessions.borrow();
    let Some(session) = sessions.get(&registration.session) else { return "{}".to_owned() };
    let own = [number];
    let names_all = of_session.len() <= NAMED_IN_EACH_ROW || of_session.first() == Some(&number);
    let named = if names_all { of_session } else { &own };
    let ids: Vec<_> = named.iter().map(|number| quote(&engine.shard.identifier(number.0))).collect();
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
    let description = session.description.as_ref().filter(|_| names_all);
    let description = description.map_or("null".to_owned(), |text| quote(&String::from_utf8_lossy(text)));
    format!(
        "{{'sessionName':{}, 'sessionDescription':{description}, 'refCount': {}, 'linkedTo': primary, 'dead': false, \
         'isInstallationNeeded':{}, 'registrationsList':[{}], 'depsList':[{}]}}",
        quote(&session.name),
        of_session.len() + session.live,
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
