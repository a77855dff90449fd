//! Requirements and their wheels.

use std::path::Path;

use redgrease_core::requirement::WheelFile;
use redgrease_engine::Input;
use redgrease_engine::effect::{Install, WheelsOf};
use redgrease_engine::input::Found;
use redgrease_ffi::LogLevel;

use crate::driver::{self, Driver};
use crate::installer::Answer;
use crate::persistence::CHANGE;
use crate::wheels::{Done, Share};

/// Pause before wheels are sent again that could not be sent while clients are paused, in milliseconds.
const PAUSED_MS: u64 = 50;

/// The text of an error when the thread has too much to do.
const FULL: &str = "ERR too many requests for wheels are waiting";

/// Checks for requirements or installs them; the result is handed in in a later turn.
pub fn start(driver: &Driver, install: &Install) {
    let number = install.install;
    let target = driver.wheels.directory(&install.environment);
    let submitted = driver
        .program(install.python)
        .and_then(|program| driver.installer.submit(install, program, target, driver.wheels.user.clone()));
    if let Err(reason) = submitted {
        hand_in_later(driver, move || Input::Installed { install: number, result: Err(reason) });
    }
}

/// A check or an installation has ended.
pub fn ended(driver: &Driver, (install, mut result): Answer) {
    if let Ok(Found::Ready(installed)) = &result
        && let Some(packages) = installed.paths.first()
        && let Err(error) = driver.wheels.hold(Path::new(packages))
    {
        let text = "Could not satisfy requirements: another server has just removed them: try again";
        result = Err(format!("{text} ({packages}: {error})"));
    }
    driver.hand_in(Input::Installed { install, result });
}

/// Hands an input in in a later turn.
pub fn hand_in_later(driver: &Driver, input: impl FnOnce() -> Input<'static> + 'static) {
    driver.server.after_ms(0, move || {
        if let Some(driver) = driver::driver() {
            driver.hand_in(input());
        }
    });
}

/// Sends the wheels of a set to replicas and the append-only file.
pub fn share(driver: &Driver, wheels: WheelsOf) {
    let environment = wheels.environment.clone();
    if !driver.wheels.share(wheels) {
        not_shared(driver, environment, FULL);
    }
}

/// Replicas get the wheels elsewhere.
fn not_shared(driver: &Driver, environment: String, reason: &str) {
    driver.server.log(LogLevel::Warning, &format!("rg: wheels cannot be sent to replicas: {reason}"));
    hand_in_later(driver, move || Input::WheelsShared { environment: environment.into() });
}

/// Reads wheels to be exported.
pub fn export(driver: &Driver, export: u64, name: String, platform: &str, wheels: WheelsOf) {
    if !driver.wheels.export(export, name, platform, wheels) {
        hand_in_later(driver, move || Input::Exported { export, result: Err(FULL.to_owned()) });
    }
}

/// Stores wheels that were imported.
pub fn store(driver: &Driver, import: u64, environment: &str, wheels: Vec<WheelFile>) {
    if !driver.wheels.store(import, environment, wheels) {
        hand_in_later(driver, move || Input::Stored { import, result: Err(FULL.to_owned()) });
    }
}

/// Keeps a part of a wheel that came from a master or a file.
pub fn keep_part(driver: &Driver, environment: &str, file: &str, offset: u64, part: &[u8]) {
    if let Err(error) = driver.wheels.keep_part(environment, file, offset, part) {
        driver.server.log(LogLevel::Warning, &format!("rg: a part of the wheel {file} cannot be written: {error}"));
    }
}

/// All wheels of a set have come.
pub fn keep(driver: &Driver, wheels: &WheelsOf) {
    if let Err(error) = driver.wheels.keep(wheels) {
        let names = wheels.environment.replace('\n', ", ");
        let text = format!("rg: the wheels of '{names}' cannot be kept, and have to be downloaded: {error}");
        driver.server.log(LogLevel::Warning, &text);
    }
}

/// Writes wheels to the append-only file, which is being rewritten.
pub fn to_file(driver: &Driver, all: &[WheelsOf]) {
    for wheels in all {
        driver.wheels.read_all(wheels, &mut |change| driver.server.replicate(CHANGE, &change.encode(), false));
    }
}

/// The thread has done something.
pub fn done(driver: &Driver, done: Done) {
    match done {
        Done::Part(share, Ok(change)) => send(driver, share, change),
        Done::Part(share, Err(reason)) => not_shared(driver, share.wheels.environment, &reason),
        Done::Exported(export, result) => driver.hand_in(Input::Exported { export, result }),
        Done::Stored(import, result) => driver.hand_in(Input::Stored { import, result }),
        Done::Removed => {}
    }
}

fn send(driver: &Driver, share: Share, change: Option<Vec<u8>>) {
    let Some(change) = change else {
        return driver.hand_in(Input::WheelsShared { environment: share.wheels.environment.into() });
    };
    let flags = driver.server.flags();
    if flags.replica() || flags.loading() {
        // It gets them from its master now.
        return driver.hand_in(Input::WheelsShared { environment: share.wheels.environment.into() });
    }
    if driver.server.must_not_replicate() {
        return driver.server.after_ms(PAUSED_MS, move || {
            if let Some(driver) = driver::driver() {
                send(driver, share, Some(change));
            }
        });
    }
    driver.server.replicate(CHANGE, &change, true);
    let environment = share.wheels.environment.as_str().into();
    driver.wheels.pause(share);
    driver.hand_in(Input::WheelPart { environment, change });
}

/// Other shards have the last part of the wheels of a set: the next one is read.
pub fn share_on(driver: &Driver, environment: &str) {
    if !driver.wheels.share_on(environment) {
        not_shared(driver, environment.to_owned(), FULL);
    }
}
