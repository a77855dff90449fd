//! The configuration as settings of the server: `CONFIG GET rg.*`, `CONFIG SET`, and lines of the configuration file.

use std::cell::RefCell;

use redgrease_engine::Config;
use redgrease_engine::config::{Access, KEYS, Key};
use redgrease_ffi::load::Loader;
use redgrease_ffi::settings::{NumberSetting, SettingHandlers};

use crate::driver::driver;

thread_local! {
    /// The configuration during the load, before there is an engine.
    static LOADING: RefCell<Option<Config>> = const { RefCell::new(None) };
}

/// Adds every numeric key to the server's configuration. `config` holds the load arguments, which are the defaults; returns it
/// with the values of the configuration file.
pub fn load(loader: &Loader<'_>, config: Config) -> Result<Config, String> {
    let settings: Vec<_> = KEYS.iter().filter_map(|key| setting(key, &config)).collect();
    LOADING.set(Some(config));
    let loaded = loader.settings(&settings, SettingHandlers { get, set });
    let config = LOADING.take();
    loaded?;
    config.ok_or_else(|| "the configuration is gone".to_owned())
}

fn setting(key: &Key, config: &Config) -> Option<NumberSetting> {
    let (min, max) = match key.access {
        Access::Number { min, max, .. } => (min, max),
        Access::AcceptedNumber(min, _) => (min, i64::MAX as u64),
        Access::Text { .. } | Access::AcceptedText | Access::AcceptedList => return None,
    };
    let default = config.number(key.name)?;
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let at_runtime = key.at_runtime;
    Some(NumberSetting { name: key.name, min: number(min), max: number(max), default: number(default), at_runtime })
}

fn get(name: &str) -> i64 {
    let name = key_name(name);
    let loading = LOADING.with_borrow(|config| config.as_ref().and_then(|config| config.number(name)));
    let number = loading.or_else(|| driver()?.ask(|engine| engine.number_setting(name)));
    number.and_then(|number| i64::try_from(number).ok()).unwrap_or(i64::MAX)
}

fn set(name: &str, value: i64) -> Result<(), String> {
    let name = key_name(name);
    let value =
        u64::try_from(value).map_err(|_| format!("'{name}' wants a number that is not negative, got '{value}'"))?;
    let loading = LOADING.with_borrow_mut(|config| {
        let config = config.as_mut()?;
        Some(match redgrease_engine::config::key(name.as_bytes()) {
            Some(key) => config.set(key, value.to_string().as_bytes()),
            None => Err(format!("unknown setting '{name}'")),
        })
    });
    match loading {
        Some(result) => result,
        None => match driver() {
            Some(driver) => driver.change(|engine| engine.change_setting(name, value)),
            None => Err("the module is not loaded".to_owned()),
        },
    }
}

/// Servers pass the name with or without the module's.
fn key_name(name: &str) -> &str {
    name.strip_prefix("rg.").unwrap_or(name)
}
