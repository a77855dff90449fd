//! Data of the module in data files, outside of all keys, and on its way to replicas.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};

use crate::api::api;
use crate::guard::guarded;
use crate::load::Loader;
use crate::log::{LogLevel, log};
use crate::raw;
use crate::server::Server;

/// What is saved; `None`: nothing. Called in the process that writes the file, which may be a child of the server: it must take
/// no lock and call no function of the server.
pub type Save = fn() -> Option<Vec<u8>>;

/// Loads what was saved; an error refuses the file.
pub type Load = fn(&[u8]) -> Result<(), String>;

/// The version of what this file writes: one string.
const ENCODING: c_int = 1;

thread_local! {
    static FUNCTIONS: Cell<Option<(Save, Load)>> = const { Cell::new(None) };
    /// The server writes nothing where there is nothing; otherwise there is always a string.
    static OPTIONAL: Cell<bool> = const { Cell::new(false) };
}

impl Loader<'_> {
    /// Has the server call `save` behind the keys of each data file that it writes, and `load` for what it finds there.
    /// `name` has nine characters and must never change: data files contain it.
    ///
    /// Where the server has no form for data that may be absent (Redis 7.0), every data file needs the module to be read.
    ///
    /// # Errors
    /// The server refuses.
    pub fn save_with(&self, name: &'static CStr, save: Save, load: Load) -> Result<(), String> {
        /// Servers since this version write nothing where there is nothing.
        const OPTIONAL_SINCE: u32 = 0x07_02_00;
        FUNCTIONS.set(Some((save, load)));
        let optional = self.server.version() >= OPTIONAL_SINCE;
        OPTIONAL.set(optional);
        let mut methods = raw::RedisModuleTypeMethods {
            version: raw::REDISMODULE_TYPE_METHOD_VERSION as u64,
            rdb_load: Some(no_key),
            rdb_save: Some(no_key_saved),
            aof_rewrite: None,
            mem_usage: None,
            digest: None,
            free: Some(no_value),
            aux_load: Some(load_aux),
            aux_save: if optional { None } else { Some(save_aux) },
            aux_save_triggers: raw::REDISMODULE_AUX_AFTER_RDB as c_int,
            free_effort: None,
            unlink: None,
            copy: None,
            defrag: None,
            mem_usage2: None,
            free_effort2: None,
            unlink2: None,
            copy2: None,
            aux_save2: if optional { Some(save_aux) } else { None },
        };
        // SAFETY: the context of the load, a static name, and methods that the server copies.
        let made =
            unsafe { api!(RedisModule_CreateDataType)(self.raw_context(), name.as_ptr(), ENCODING, &raw mut methods) };
        if made.is_null() { Err(format!("the server refuses the data type {name:?}")) } else { Ok(()) }
    }
}

impl Server {
    /// Sends a command with one argument to replicas and the append-only file, or only to the latter. Clients must not be
    /// paused: see [`Server::must_not_replicate`].
    pub fn replicate(&self, command: &'static CStr, argument: &[u8], replicas: bool) {
        let format = if replicas { c"b" } else { c"bR" };
        // SAFETY: a valid context of the main thread, where we are; `b` takes a pointer and a length, `R` nothing.
        unsafe {
            api!(RedisModule_Replicate)(
                self.raw_context(),
                command.as_ptr(),
                format.as_ptr(),
                argument.as_ptr(),
                argument.len(),
            );
        }
    }
}

unsafe extern "C" fn save_aux(io: *mut raw::RedisModuleIO, _when: c_int) {
    let Some((save, _)) = FUNCTIONS.get() else { return };
    let saved = match guarded("saving", None, save) {
        Some(saved) => saved,
        None if OPTIONAL.get() => return,
        None => Vec::new(),
    };
    // SAFETY: the file that is being written; the bytes live during the call.
    unsafe { api!(RedisModule_SaveStringBuffer)(io, saved.as_ptr().cast(), saved.len()) };
}

unsafe extern "C" fn load_aux(io: *mut raw::RedisModuleIO, encoding: c_int, _when: c_int) -> c_int {
    let Some((_, load)) = FUNCTIONS.get() else { return raw::REDISMODULE_ERR };
    if encoding > ENCODING {
        log(LogLevel::Warning, &format!("rg: saved data has version {encoding}, this module reads {ENCODING}"));
        return raw::REDISMODULE_ERR;
    }
    let mut len = 0;
    // SAFETY: the file that is being read; the length is written by the callee.
    let start = unsafe { api!(RedisModule_LoadStringBuffer)(io, &raw mut len) };
    if start.is_null() {
        return raw::REDISMODULE_ERR;
    }
    // SAFETY: the server says that `len` bytes stand at `start`; they are ours.
    let saved = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) }.to_vec();
    // SAFETY: allocated by the server for us, freed once.
    unsafe { api!(RedisModule_Free)(start.cast()) };
    if saved.is_empty() {
        return raw::REDISMODULE_OK;
    }
    match guarded("loading", Err("INTERNAL a failure of the module".to_owned()), || load(&saved)) {
        Ok(()) => raw::REDISMODULE_OK,
        Err(reason) => {
            log(LogLevel::Warning, &format!("rg: {reason}"));
            raw::REDISMODULE_ERR
        }
    }
}

/// No key has this type: there is nothing to load.
unsafe extern "C" fn no_key(_io: *mut raw::RedisModuleIO, _encoding: c_int) -> *mut c_void {
    std::ptr::null_mut()
}

unsafe extern "C" fn no_key_saved(_io: *mut raw::RedisModuleIO, _value: *mut c_void) {}

unsafe extern "C" fn no_value(_value: *mut c_void) {}
