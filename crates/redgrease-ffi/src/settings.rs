//! Settings of the module in the server's configuration: `CONFIG GET`, `CONFIG SET`, `CONFIG REWRITE` and the configuration
//! file.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_void};

use crate::api::{OwnedString, api, c_text, string_bytes};
use crate::guard::guarded;
use crate::load::Loader;
use crate::raw;

/// A setting in the server's configuration.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its name behind the module's.
    pub name: &'static str,
    /// Whether `CONFIG SET` can change it.
    pub at_runtime: bool,
    /// Whether logs of commands must not show it.
    pub secret: bool,
    /// What it holds.
    pub kind: SettingKind,
}

/// What a setting holds, with its value where the configuration file has none.
#[derive(Debug, Clone)]
pub enum SettingKind {
    /// A number in a range.
    Number {
        /// The smallest value.
        min: i64,
        /// The largest value.
        max: i64,
        /// Its value at first.
        default: i64,
    },
    /// A text.
    Text {
        /// Its value at first.
        default: String,
    },
}

/// Reads and writes settings by name.
#[derive(Clone, Copy)]
pub struct SettingHandlers {
    /// The current value of a number.
    pub number: fn(&str) -> i64,
    /// Changes a number; an error is what the client is told.
    pub set_number: fn(&str, i64) -> Result<(), String>,
    /// The current value of a text.
    pub text: fn(&str) -> Vec<u8>,
    /// Changes a text; an error is what the client is told.
    pub set_text: fn(&str, &[u8]) -> Result<(), String>,
}

thread_local! {
    static HANDLERS: Cell<Option<SettingHandlers>> = const { Cell::new(None) };
    /// The texts that the server was given last, by name: it reads them after the callback has returned.
    static SHOWN: RefCell<HashMap<String, OwnedString>> = RefCell::new(HashMap::new());
}

impl Loader<'_> {
    /// Adds settings to the server's configuration, and sets each to the value of the configuration file or its default.
    /// Once in a load.
    ///
    /// # Errors
    /// The server refuses a setting, or the configuration file has a value that is refused; the server's log names it.
    pub fn settings(&self, settings: &[Setting], handlers: SettingHandlers) -> Result<(), String> {
        HANDLERS.set(Some(handlers));
        for setting in settings {
            if self.add_setting(setting) != raw::REDISMODULE_OK {
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

    fn add_setting(&self, setting: &Setting) -> c_int {
        let name = c_text(setting.name);
        let mut flags = raw::REDISMODULE_CONFIG_DEFAULT;
        if !setting.at_runtime {
            flags |= raw::REDISMODULE_CONFIG_IMMUTABLE;
        }
        if setting.secret {
            flags |= raw::REDISMODULE_CONFIG_SENSITIVE;
        }
        let flags = flags as c_uint;
        match &setting.kind {
            // SAFETY: the load context, a text that the server copies, and static callbacks.
            SettingKind::Number { min, max, default } => unsafe {
                api!(RedisModule_RegisterNumericConfig)(
                    self.raw_context(),
                    name.as_ptr(),
                    *default,
                    flags,
                    *min,
                    *max,
                    Some(get_number),
                    Some(set_number),
                    None,
                    std::ptr::null_mut(),
                )
            },
            SettingKind::Text { default } => {
                let default = c_text(default);
                // SAFETY: the load context, two texts that the server copies, and static callbacks.
                unsafe {
                    api!(RedisModule_RegisterStringConfig)(
                        self.raw_context(),
                        name.as_ptr(),
                        default.as_ptr(),
                        flags,
                        Some(get_text),
                        Some(set_text),
                        None,
                        std::ptr::null_mut(),
                    )
                }
            }
        }
    }
}

unsafe extern "C" fn get_number(name: *const c_char, _: *mut c_void) -> c_longlong {
    guarded("a setting", 0, || {
        // SAFETY: the server passes the setting's name.
        let name = unsafe { name_of(name) };
        HANDLERS.get().map_or(0, |handlers| (handlers.number)(&name))
    })
}

unsafe extern "C" fn set_number(
    name: *const c_char,
    value: c_longlong,
    _: *mut c_void,
    error: *mut *mut raw::RedisModuleString,
) -> c_int {
    guarded("a setting", raw::REDISMODULE_ERR, || {
        let Some(handlers) = HANDLERS.get() else { return raw::REDISMODULE_ERR };
        // SAFETY: the server passes the setting's name, and a place for an error.
        unsafe { answer((handlers.set_number)(&name_of(name), value), error) }
    })
}

unsafe extern "C" fn get_text(name: *const c_char, _: *mut c_void) -> *mut raw::RedisModuleString {
    // Servers take a null pointer for no text.
    guarded("a setting", std::ptr::null_mut(), || {
        // SAFETY: the server passes the setting's name.
        let name = unsafe { name_of(name) };
        let text = HANDLERS.get().map_or_else(Vec::new, |handlers| (handlers.text)(&name));
        let text = OwnedString::new(&text);
        let shown = text.0;
        SHOWN.with_borrow_mut(|texts| texts.insert(name, text));
        shown
    })
}

unsafe extern "C" fn set_text(
    name: *const c_char,
    value: *mut raw::RedisModuleString,
    _: *mut c_void,
    error: *mut *mut raw::RedisModuleString,
) -> c_int {
    guarded("a setting", raw::REDISMODULE_ERR, || {
        let Some(handlers) = HANDLERS.get() else { return raw::REDISMODULE_ERR };
        // SAFETY: the server passes the setting's name, a string that lives during the call, and a place for an error.
        unsafe { answer((handlers.set_text)(&name_of(name), string_bytes(value)), error) }
    })
}

/// # Safety
/// `name` is a text that ends with a NUL byte.
unsafe fn name_of(name: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// # Safety
/// `error` is a place for a string that the server frees.
unsafe fn answer(result: Result<(), String>, error: *mut *mut raw::RedisModuleString) -> c_int {
    match result {
        Ok(()) => raw::REDISMODULE_OK,
        Err(text) => {
            let text = OwnedString::new(text.replace('\0', " ").as_bytes());
            // SAFETY: the caller's promise.
            unsafe { *error = text.into_raw() };
            raw::REDISMODULE_ERR
        }
    }
}
