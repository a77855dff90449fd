//! The module that the server loads, under the name `rg`: wires the core to the server and to the workers.
//!
//! # Layout
//! - [`engine`]: the state, and what is looked up in it; [`config`], [`python`]: load arguments, the interpreter;
//! - [`commands`], [`dump`], [`reply`]: the `RG.*` commands and their answers;
//! - [`sessions`], [`runs`], [`calls`], [`rights`]: scripts, executions, what functions ask of the server;
//! - [`events`], [`streams`], [`stream_groups`], [`readers`], [`pump`]: where records come from;
//! - [`supervisor`], [`worker`], [`spawner`], [`requirements`], [`memory`]: processes; [`background`]: threads.
//!
//! No logic that a test would need a server for belongs here if it can live in `redgrease-core`.

mod background;
mod calls;
mod commands;
mod config;
mod dump;
mod engine;
mod events;
mod memory;
mod pump;
mod python;
mod readers;
mod reply;
mod requirements;
mod rights;
mod runs;
mod sessions;
mod spawner;
mod stream_groups;
mod streams;
mod supervisor;
mod worker;

use redgrease_core::id::Database;
use redgrease_ffi::LogLevel;
use redgrease_ffi::load::Loader;
use redgrease_ffi::server_event::ServerEvent;

redgrease_ffi::export_module!(c"rg", 10_000, crate::start);

/// The module's start.
fn start(loader: &Loader<'_>) -> Result<(), String> {
    let config = config::Config::parse(&loader.args)?;
    loader.acl_category();
    commands::register(loader)?;
    loader.context_command()?;
    loader.info(dump::info)?;
    loader.subscribe(announced)?;
    let engine = engine::Engine::new(loader.server, config)?.install();
    match &engine.python {
        Ok(python) => {
            let text = format!("rg: redgrease {} starts workers with {}", redgrease_core::VERSION, python.display());
            loader.server.log(LogLevel::Notice, &text);
        }
        Err(reason) => loader.server.log(LogLevel::Warning, &format!("rg: NOPYTHON no function can run: {reason}")),
    }
    engine.watch_installer()?;
    engine.start_supervision()
}

fn announced(event: ServerEvent) {
    let Some(engine) = engine::engine() else { return };
    match event {
        ServerEvent::BeforeSleep => engine.before_sleep(),
        ServerEvent::Shutdown => engine.shut_down(),
        ServerEvent::Loading => {}
        ServerEvent::RoleChanged => engine.role_changed(),
        ServerEvent::DatabasesSwapped(one, other) => engine.databases_swapped(Database(one), Database(other)),
    }
}
