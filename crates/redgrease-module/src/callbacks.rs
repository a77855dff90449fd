//! Callbacks of the server that become inputs: notifications, jobs, timers, command filters; and those of
//! descriptors, which only record what is ready.

use std::os::fd::AsRawFd;

use redgrease_core::id::Database;
use redgrease_engine::Input;
use redgrease_engine::id::{JobNo, TimerNo};
use redgrease_engine::input::StreamChange;
use redgrease_ffi::event_loop::Readiness;

use crate::driver::{Driver, Due, driver};
use crate::fault::Place;

/// A key was changed, or missed.
pub fn key_changed(database: u32, event: &str, key: &[u8]) {
    let Some(driver) = driver() else { return };
    let own_miss = event == "keymiss" && driver.muted.is_inside();
    if !own_miss && driver.ask(|engine| engine.wants_key_event(event, key)) {
        let _notifying = driver.notifying.enter();
        driver.hand_in(Input::KeyEvent { database: Database(database), event, key });
        driver.fault.panic_if_armed(Place::Notification);
    }
}

/// A stream was changed, or a key that may be one.
pub fn stream_changed(database: u32, event: &str, key: &[u8]) {
    let change = match event {
        "xadd" => StreamChange::Added,
        "rename_to" | "restore" | "copy_to" | "move_to" => StreamChange::Replaced,
        _ => return,
    };
    let Some(driver) = driver() else { return };
    if driver.ask(|engine| engine.hears_keys()) {
        let _notifying = driver.notifying.enter();
        driver.hand_in(Input::StreamEvent { database: Database(database), key, change });
    }
}

/// The command that fired a job has ended.
pub fn run_job(job: JobNo) {
    if let Some(driver) = driver() {
        driver.hand_in(Input::Job(job));
    }
}

/// A timer fired.
pub fn timer_fired(timer: TimerNo) {
    if let Some(driver) = driver() {
        driver.hand_in(Input::Timer(timer));
        driver.fault.panic_if_armed(Place::Timer);
    }
}

/// A command of a client is about to be run (Redis 7.0 only).
pub fn command_begins() {
    let Some(driver) = driver() else { return };
    if !driver.ask(|engine| engine.owes_sync_runs()) {
        return;
    }
    let flags = driver.server.flags();
    let inside = flags.lua() || flags.multi() || flags.loading() || driver.waits.is_inside();
    if !inside {
        driver.server.in_context(|| driver.hand_in(Input::BetweenCommands));
    }
}

/// Whether a call of a client, a script or another module is hooked. Replicas run the commands themselves: what their master
/// sends, and reads of clients.
pub fn is_hooked(args: &[&[u8]]) -> bool {
    let Some(driver) = driver() else { return false };
    if !driver.ask(|engine| engine.hooks_call(args)) {
        return false;
    }
    let flags = driver.server.flags();
    !flags.loading() && !flags.replica()
}

/// Watches the descriptors of the threads that start workers, install requirements, look for interpreters and serve links.
///
/// # Errors
/// The loop accepts no further descriptor.
pub fn watch_threads(driver: &Driver) -> Result<(), String> {
    driver.server.watch(driver.spawner.ready_fd(), Readiness::Readable, || note(|due| due.spawned = true))?;
    let [checks, installs] = driver.installer.ready_fds();
    for fd in [checks, installs, driver.wheels.ready_fd(), driver.interpreters.ready_fd()] {
        driver.server.watch(fd, Readiness::Readable, || note(|due| due.installed = true))?;
    }
    driver.server.watch(driver.links.ready().as_raw_fd(), Readiness::Readable, || note(|due| due.linked = true))?;
    Ok(())
}

/// Records what the next turn has to do.
pub fn note(add: impl FnOnce(&mut Due)) {
    if let Some(driver) = driver() {
        add(&mut driver.due.borrow_mut());
    }
}
