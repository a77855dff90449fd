//! Registrations in data files and on replicas.

use std::ffi::CStr;

use redgrease_core::id::Database;
use redgrease_core::saved::Change;
use redgrease_engine::Input;
use redgrease_ffi::CallOptions;

use crate::driver::{Driver, driver};

/// The command that carries changes of the registrations to replicas and files.
pub const CHANGE: &CStr = c"RG.INNERREGISTER";

/// Writes what a data file contains: the wheels of requirements, then the registrations that need them. Called in the process
/// that writes the file, with the state at its start.
pub fn save(write: &mut dyn FnMut(&[u8])) {
    let Some(driver) = driver() else { return };
    let (wheels, registrations) = driver.ask(|engine| (engine.saved_wheels(), engine.saved()));
    for of_set in &wheels {
        driver.wheels.read_all(of_set, &mut |change| write(&change.encode()));
    }
    if let Some(registrations) = registrations {
        write(&registrations);
    }
}

/// Applies a piece of what a data file contains.
///
/// # Errors
/// It is not readable; the text names the field.
pub fn load(saved: &[u8]) -> Result<(), String> {
    let change = Change::decode(saved).map_err(|error| error.to_string())?;
    if let Some(driver) = driver() {
        driver.hand_in(Input::Change(change));
    }
    Ok(())
}

/// A key that stands for a time event was loaded.
///
/// # Errors
/// Its value is not readable.
pub fn time_event_loaded(database: u32, key: &[u8], value: &[u8]) -> Result<(), String> {
    match Change::decode(value).map_err(|error| error.to_string())? {
        Change::TimeEvent { event, .. } => {
            if let Some(driver) = driver() {
                driver.hand_in(Input::TimeEventLoaded { database: Database(database), key: key.to_vec(), event });
            }
            Ok(())
        }
        _ => Err("a key of type rg_timeev holds something else than a time event".to_owned()),
    }
}

/// A child process writes a file. One that rewrites the append-only file command by command does not save registrations: they are
/// appended to the new file.
pub fn child_was_born(driver: &Driver) {
    let is = |option: &[u8], value: &[u8]| {
        let reply = driver.server.call(&[b"config", b"get", option], CallOptions::default()).ok();
        reply.is_some_and(|reply| reply.view().element(1).is_some_and(|found| found.bytes() == value))
    };
    if is(b"appendonly", b"yes") && is(b"aof-use-rdb-preamble", b"no") {
        driver.hand_in(Input::FileRewritten);
    }
}
