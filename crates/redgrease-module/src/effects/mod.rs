//! Performing effects: one file for each kind.

mod call;
mod events;
mod facts;
mod own_command;
mod permissions;
mod process;
mod question;
mod read;
mod record;
pub mod requirements;
mod scan;
mod streams;

use redgrease_core::frame::LogLevel as FrameLogLevel;
use redgrease_engine::{Effect, Input};
use redgrease_ffi::LogLevel;

use crate::callbacks;
use crate::cluster::{discovery, options};
use crate::driver::Driver;
use crate::fault::Place;
use crate::persistence::CHANGE;
use crate::wait;

/// Performs an effect. Returns the input that it causes at once.
pub fn perform(driver: &Driver, effect: Effect) -> Option<Input<'static>> {
    match effect {
        Effect::Block(client) => driver.clients.block(client),
        Effect::Measure(client) => driver.clients.measure(client),
        Effect::Reply { client, answer } => {
            driver.clients.answer(client, answer, driver.fault.take(Place::Reply));
        }
        Effect::Row { client, row } => driver.clients.row(client, &row),
        Effect::EndRows(client) => driver.clients.end_rows(client),

        Effect::StartWorker { worker, python } => process::start(driver, worker, python),
        Effect::FindInterpreters => process::find_interpreters(driver),
        Effect::Write(worker) => {
            driver.unwritten.borrow_mut().insert(worker);
        }
        Effect::Kill(worker) => process::kill(driver, worker),
        Effect::Close { worker, last } => process::close(driver, worker, &last),
        Effect::PauseReading(worker) => process::pause_reading(driver, worker),
        Effect::ResumeReading(worker) => return process::resume_reading(driver, worker),
        Effect::DrainOutput { worker, session } => return Some(process::drain_output(driver, worker, session)),

        Effect::ReadTopology => return Some(Input::Topology(discovery::read(driver))),
        Effect::OpenLink { link, address } => driver.links.open(link, options::target(driver, address)),
        Effect::SendOnLink { link, command } => driver.links.send(link, command),
        Effect::CloseLink(link) => driver.links.close(link),

        Effect::SetTimer { timer, ms } => driver.server.after_ms(ms, move || callbacks::timer_fired(timer)),
        Effect::Ask { question, about } => {
            return Some(Input::Answer { question, fact: question::answer(driver, about) });
        }

        Effect::Run(run) => {
            let result = call::run(driver, &run);
            return Some(Input::CommandDone { command: run.command, result });
        }
        Effect::RunForClient { client, argv, actor } => {
            let reply = call::run_for_client(driver, client, &argv, &actor);
            driver.clients.keep(client, reply);
        }
        Effect::EnterAtomic(database) => {
            return Some(Input::AtomicEnded(call::enter_atomic(driver, database)));
        }
        Effect::Serve { wait, worker } => {
            wait::serve(driver, wait, worker);
            return Some(Input::Served(wait));
        }

        Effect::ReadSlice { execution, actor, mut reader, count_only } => {
            let slice = read::slice(driver, &actor, &mut reader, count_only);
            return Some(Input::SliceRead { execution, reader, slice });
        }
        Effect::ReadKey { execution, actor, key, event, read_value } => {
            let record = read::event_record(driver, &actor, &key, &event, read_value);
            return Some(Input::KeyRead { execution, record });
        }
        Effect::ReadGroup { execution, read } => {
            return Some(Input::GroupRead { execution, part: streams::read_group(driver, &read) });
        }

        Effect::SearchStreams { registration, database, cursor } => {
            let (keys, next) = streams::search(driver, database, &cursor);
            return Some(Input::StreamsFound { registration, keys, next });
        }
        Effect::Acknowledge { batch, actor, stream, group, ids } => {
            let result = streams::acknowledge(driver, &actor, &stream, &group, &ids);
            return Some(Input::Acknowledged { batch, result });
        }
        Effect::RemoveEntries { actor, stream, ids } => streams::remove_entries(driver, &actor, &stream, &ids),
        Effect::RemoveGroup { removal, database, group, cursor } => {
            let next = streams::remove_group(driver, database, &group, &cursor);
            return Some(Input::GroupRemoved { removal, next });
        }

        Effect::AfterCommand(job) => return events::after_command(driver, job),
        Effect::Subscribe => events::subscribe(driver),
        Effect::WatchCommands(wanted) => events::watch_commands(driver, wanted),
        Effect::WatchHooks(wanted) => events::watch_hooks(driver, wanted),
        Effect::Replicate(change) => driver.server.replicate(CHANGE, &change, true),
        Effect::ReplicateToFile(change) => driver.server.replicate(CHANGE, &change, false),
        Effect::Install(install) => requirements::start(driver, &install),
        Effect::ShareWheels(wheels) => requirements::share(driver, wheels),
        Effect::ReadNextPart(environment) => requirements::share_on(driver, &environment),
        Effect::KeepPart { environment, file, offset, part } => {
            requirements::keep_part(driver, &environment, &file, offset, &part);
        }
        Effect::KeepWheels(wheels) => requirements::keep(driver, &wheels),
        Effect::WheelsToFile(all) => requirements::to_file(driver, &all),
        Effect::ExportWheels { export, name, platform, wheels } => {
            requirements::export(driver, export, name, platform, wheels);
        }
        Effect::StoreWheels { import, environment, wheels } => {
            requirements::store(driver, import, &environment, wheels);
        }
        Effect::RemoveEnvironment(environment) => driver.wheels.remove(&environment),
        Effect::Log { level, text } => driver.server.log(level_of(level), &text),
        Effect::Then(step) => return Some(Input::Then(step)),
    }
    None
}

fn level_of(level: FrameLogLevel) -> LogLevel {
    match level {
        FrameLogLevel::Debug => LogLevel::Debug,
        FrameLogLevel::Verbose => LogLevel::Verbose,
        FrameLogLevel::Notice => LogLevel::Notice,
        FrameLogLevel::Warning => LogLevel::Warning,
    }
}
