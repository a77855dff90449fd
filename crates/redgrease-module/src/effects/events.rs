//! Requests for callbacks of the server.

use redgrease_engine::Input;
use redgrease_engine::id::JobNo;
use redgrease_ffi::LogLevel;

use crate::callbacks;
use crate::driver::Driver;

/// Requests a job that runs after the current command.
pub fn after_command(driver: &Driver, job: JobNo) -> Option<Input<'static>> {
    driver.server.after_notification(job, callbacks::run_job).err().map(Input::JobRefused)
}

/// Requests notifications of keys and streams.
pub fn subscribe(driver: &Driver) {
    warn(driver, driver.server.subscribe_keyspace(callbacks::key_changed, callbacks::stream_changed));
}

/// Starts or stops reports of the start of clients' commands.
pub fn watch_commands(driver: &Driver, wanted: bool) {
    if wanted {
        warn(driver, driver.server.watch_commands(callbacks::command_begins));
    } else {
        driver.server.unwatch_commands();
    }
}

/// Starts or stops reports of calls of hooked commands.
pub fn watch_hooks(driver: &Driver, wanted: bool) {
    if wanted {
        warn(driver, driver.server.hook_commands(callbacks::is_hooked, c"rg.innerhook"));
    } else {
        driver.server.unhook_commands();
    }
}

fn warn(driver: &Driver, result: Result<(), String>) {
    if let Err(reason) = result {
        driver.server.log(LogLevel::Warning, &format!("rg: {reason}"));
    }
}
