//! Requirements.

use redgrease_engine::Input;
use redgrease_engine::effect::Install;

use crate::driver::{self, Driver};

/// Checks for requirements or installs them; the result is handed in in a later turn.
pub fn start(driver: &Driver, install: &Install) {
    let number = install.install;
    if let Err(reason) = driver.installer.submit(install) {
        driver.server.after_ms(0, move || {
            if let Some(driver) = driver::driver() {
                driver.hand_in(Input::Installed { install: number, result: Err(reason) });
            }
        });
    }
}
