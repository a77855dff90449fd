//! Settings of the module in the server's configuration: `CONFIG GET`, `CONFIG SET`, `CONFIG REWRITE` and the configuration
//! file.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_longlong, c_void};

use crate::api::{OwnedString, api, c_text};
use crate::guard::guarded;
use crate::load::Loader;
use crate::raw;

/// A number in the server's configuration.
#[derive(Debug, Clone, Copy)]
pub struct NumberSetting {
    /// Its name behind the module's.
    pub name: &'static str,
    /// The smallest value.
    pub min: i64,
    /// The largest value.
    pub max: i64,
    /// The value where the configuration file names none.
    pub default: i64,
    /// Whether `CONFIG SET` can change it.
    pub at_runtime: bool,
}

/// Reads and writes settings by name.
#[derive(Clone, Copy)]
pub struct SettingHandlers {
    /// The current value.
    pub get: fn(&str) -> i64,
    /// Changes the value; an error is what the client is told.
    pub set: fn(&str, i64) -> Result<(), String>,
}

thread_local! {
    static HANDLERS: Cell<Option<SettingHandlers>> = const { Cell::new(None) };
}

impl Loader<'_> {
    /// Adds settings to the server's configuration, and sets each to the value of the configuration file or its default.
    /// Once in a load.
    ///
    /// # Errors
    /// The server refuses a setting, or the configuration file has a value that is refused; the server's log names it.
    pub fn settings(&self, settings: &[NumberSetting], handlers: SettingHandlers) -> Result<(), String> {
        HANDLERS.set(Some(handlers));
        for setting in settings {
            let name = c_text(setting.name);
            let flags =
                if setting.at_runtime { raw::REDISMODULE_CONFIG_DEFAULT } else { raw::REDISMODULE_CONFIG_IMMUTABLE };
            // SAFETY: the load context, a text that the server copies, and static callbacks.
            let added = unsafe {
                api!(RedisModule_RegisterNumericConfig)(
                    self.raw_context(),
                    name.as_ptr(),
                    setting.default,
                    flags as _,
                    setting.min,
                    setting.max,
                    Some(get),
                    Some(set),
                    None,
                    std::ptr::null_mut(),
                )
            };
            if added != raw::REDISMODULE_OK {
                return Err(format!("the server refuses the setting rg.{}", setting.name));
            }
        }
        // SAFETY: the load context.
        let loaded = unsafe { api!(RedisModule_LoadConfigs)(self.raw_context()) };
        if loaded == raw::REDISMODULE_OK {
            Ok(())
        } else {
            Err("a setting rg.* of the configuration is refused".into())
        }
    }
}

unsafe extern "C" fn get(name: *const c_char, _: *mut c_void) -> c_longlong {
    guarded("a setting", 0, || {
        // SAFETY: the server passes the setting's name.
        let name = unsafe { CStr::from_ptr(name) };
        HANDLERS.get().map_or(0, |handlers| (handlers.get)(&name.to_string_lossy()))
    })
}

unsafe extern "C" fn set(
    name: *const c_char,
    value: c_longlong,
    _: *mut c_void,
    error: *mut *mut raw::RedisModuleString,
) -> c_int {
    guarded("a setting", raw::REDISMODULE_ERR, || {
        // SAFETY: the server passes the setting's name.
        let name = unsafe { CStr::from_ptr(name) };
        let Some(handlers) = HANDLERS.get() else { return raw::REDISMODULE_ERR };
        match (handlers.set)(&name.to_string_lossy(), value) {
            Ok(()) => raw::REDISMODULE_OK,
            Err(text) => {
                let text = OwnedString::new(text.replace('\0', " ").as_bytes());
                // SAFETY: the server passes a place for an error that it frees.
                unsafe { *error = text.into_raw() };
                raw::REDISMODULE_ERR
            }
        }
    })
}
