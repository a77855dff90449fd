//! The module that the server loads under the name `rg`: a driver of the engine.
//!
//! The engine (`redgrease-engine`) decides; this crate turns callbacks of the server into its inputs and performs its
//! effects with the module API. It makes no decisions that a test of the engine could not cover.
//!
//! # Layout
//! - [`driver`]: the shared state; [`drive`]: handles an input and performs the effects;
//! - [`callbacks`], [`commands`], [`turn`]: sources of inputs: notifications and events of the server, commands of
//!   clients, the event before the server's loop sleeps;
//! - [`effects`]: one file for each kind of effect; [`wait`]: the wait of the main thread for one worker;
//! - [`clients`], [`workers`], [`exchange`]: clients and worker processes, and the I/O with workers;
//! - [`worker`], [`spawner`], [`program`], [`interpreters`], [`installer`], [`helper`], [`wheels`], [`background`]:
//!   processes, threads, directories;
//! - [`loop_events`], [`spin`]: whether the server's loop has something else to do, and short polling where it has not;
//! - [`cluster`]: which other shards there are, and links to them;
//! - [`persistence`]: registrations in data files and on replicas;
//! - [`isolation`], [`os_user`]: where workers may change files, and whom they run as;
//! - [`pump`], [`depth`], [`memory`], [`random`], [`reply`], [`runtime`], [`info`]: small parts.

mod background;
mod callbacks;
mod clients;
mod cluster;
mod commands;
mod depth;
mod drive;
mod driver;
mod effects;
mod error;
mod exchange;
mod fault;
mod helper;
mod info;
mod installer;
mod interpreters;
mod isolation;
mod loop_events;
mod memory;
mod os_user;
mod persistence;
mod program;
mod pump;
mod random;
mod reply;
mod runtime;
mod settings;
mod spawner;
mod spin;
mod turn;
mod wait;
mod wheels;
mod worker;
mod workers;

use redgrease_engine::{Config, Input, Machine};
use redgrease_ffi::LogLevel;
use redgrease_ffi::load::Loader;

use crate::driver::Driver;

redgrease_ffi::export_module!(c"rg", 10_000, crate::start);

/// Called when the server loads the module.
fn start(loader: &Loader<'_>) -> Result<(), String> {
    let machine = Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: memory::available_to_process_bytes(),
    };
    let config = Config::parse(&loader.args, machine)?;
    loader.acl_category();
    commands::register(loader)?;
    loader.context_command()?;
    loader.info(info::write)?;
    loader.subscribe(turn::server_event)?;
    loader.save_with(c"rg_regist", persistence::save, persistence::load)?;
    loader.value_keys(c"rg_timeev", persistence::CHANGE, persistence::time_event_loaded)?;
    let config = settings::load(loader, config)?;
    let driver = Driver::new(loader.server, config, drive::drive)?.install();
    match &driver.runtime {
        Ok(runtime) => {
            let text = format!("rg: redgrease {} starts workers with {}", redgrease_core::VERSION, runtime.display());
            driver.server.log(LogLevel::Notice, &text);
        }
        Err(reason) => driver.server.log(LogLevel::Warning, &format!("rg: NOPYTHON no function can run: {reason}")),
    }
    callbacks::watch_threads(driver)?;
    driver.find_loop_events();
    driver.hand_in(Input::Started);
    cluster::discovery::check(driver);
    Ok(())
}
