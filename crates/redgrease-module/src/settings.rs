//! The configuration as settings of the server: `CONFIG GET rg.*`, `CONFIG SET`, and lines of the configuration file.

use std::cell::RefCell;

use redgrease_engine::Config;
use redgrease_engine::config::{self, Access, KEYS, Key, Setting as Value};
use redgrease_ffi::load::Loader;
use redgrease_ffi::settings::{Setting, SettingHandlers, SettingKind};

use crate::driver::driver;

thread_local! {
    /// The configuration during the load, before there is an engine.
    static LOADING: RefCell<Option<Config>> = const { RefCell::new(None) };
}

/// Adds every key but lists to the server's configuration. `config` holds the load arguments, which are the defaults; returns it
/// with the values of the configuration file.
pub fn load(loader: &Loader<'_>, config: Config) -> Result<Config, String> {
    let settings: Vec<_> = KEYS.iter().filter_map(|key| setting(key, &config)).collect();
    LOADING.set(Some(config));
    let handlers = SettingHandlers { number, set_number, text, set_text };
    let loaded = loader.settings(&settings, handlers);
    let config = LOADING.take();
    loaded?;
    config.ok_or_else(|| "the configuration is gone".to_owned())
}

fn setting(key: &Key, config: &Config) -> Option<Setting> {
    let kind = match config.get(key) {
        Value::Number(default) => {
            let (min, max) = match key.access {
                Access::Number { min, max, .. } => (min, max),
                Access::AcceptedNumber(min, _) => (min, i64::MAX as u64),
                _ => (0, i64::MAX as u64),
            };
            let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            SettingKind::Number { min: number(min), max: number(max), default: number(default) }
        }
        Value::Text(default) => SettingKind::Text { default: String::from_utf8_lossy(&default).into_owned() },
        Value::List(_) => return None,
    };
    Some(Setting { name: key.name, at_runtime: key.at_runtime, secret: key.is_secret(), kind })
}

fn number(name: &str) -> i64 {
    match value(name) {
        Some(Value::Number(number)) => i64::try_from(number).unwrap_or(i64::MAX),
        _ => i64::MAX,
    }
}

fn text(name: &str) -> Vec<u8> {
    match value(name) {
        Some(Value::Text(text)) => text,
        _ => Vec::new(),
    }
}

fn value(name: &str) -> Option<Value> {
    let key = config::key(key_name(name).as_bytes())?;
    let loading = LOADING.with_borrow(|config| config.as_ref().map(|config| config.get(key)));
    loading.or_else(|| Some(driver()?.ask(|engine| engine.config().get(key))))
}

fn set_number(name: &str, value: i64) -> Result<(), String> {
    if value < 0 {
        return Err(format!("'{}' wants a number that is not negative, got '{value}'", key_name(name)));
    }
    set(name, value.to_string().as_bytes())
}

fn set_text(name: &str, value: &[u8]) -> Result<(), String> {
    set(name, value)
}

fn set(name: &str, value: &[u8]) -> Result<(), String> {
    let name = key_name(name);
    let key = config::key(name.as_bytes()).ok_or_else(|| format!("unknown setting '{name}'"))?;
    let loading = LOADING.with_borrow_mut(|config| {
        let config = config.as_mut()?;
        // The server sets what the configuration file does not have to its default: no text is not the same as an empty one.
        let is_default = config.get(key) == Value::Text(value.to_vec());
        Some(if is_default { Ok(()) } else { config.set(key, value) })
    });
    match loading {
        Some(result) => result,
        None => match driver() {
            Some(driver) => driver.change(|engine| engine.change_setting(key, value)),
            None => Err("the module is not loaded".to_owned()),
        },
    }
}

/// Servers pass the name with or without the module's.
fn key_name(name: &str) -> &str {
    name.strip_prefix("rg.").unwrap_or(name)
}
