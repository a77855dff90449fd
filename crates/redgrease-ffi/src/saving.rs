//! Data of the module in data files, outside of all keys, and on its way to replicas.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};

use crate::api::api;
use crate::guard::guarded;
use crate::load::Loader;
use crate::log::{LogLevel, log};
use crate::raw;
use crate::server::Server;

/// Passes what is saved to its argument, in pieces that are not empty. Called in the process that writes the file, which may be a
/// child of the server: it must take no lock and call no function of the server.
pub type Save = fn(&mut dyn FnMut(&[u8]));

/// Loads a piece of what was saved, in their order; an error refuses the file.
pub type Load = fn(&[u8]) -> Result<(), String>;

/// The version of what this file writes: strings, and an empty one at the end.
const ENCODING: c_int = 2;

thread_local! {
    static FUNCTIONS: Cell<Option<(Save, Load)>> = const { Cell::new(None) };
    /// The server writes nothing where there is nothing; otherwise there is always the empty string.
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
    let any = Cell::new(false);
    let mut write = |piece: &[u8]| {
        any.set(true);
        // SAFETY: the file that is being written; the bytes live during the call.
        unsafe { api!(RedisModule_SaveStringBuffer)(io, piece.as_ptr().cast(), piece.len()) };
    };
    guarded("saving", (), || save(&mut write));
    if any.get() || !OPTIONAL.get() {
        write(b"");
    }
}

unsafe extern "C" fn load_aux(io: *mut raw::RedisModuleIO, encoding: c_int, _when: c_int) -> c_int {
    let Some((_, load)) = FUNCTIONS.get() else { return raw::REDISMODULE_ERR };
    if encoding != ENCODING {
        log(LogLevel::Warning, &format!("rg: saved data has version {encoding}, this module reads {ENCODING}"));
        return raw::REDISMODULE_ERR;
    }
    loop {
        // SAFETY: the file that is being read.
        let Some(piece) = (unsafe { load_piece(io) }) else { return raw::REDISMODULE_ERR };
        if piece.is_empty() {
            return raw::REDISMODULE_OK;
        }
        let loaded = guarded("loading", Err("INTERNAL a failure of the module".to_owned()), || load(&piece));
        if let Err(reason) = loaded {
            log(LogLevel::Warning, &format!("rg: {reason}"));
            return raw::REDISMODULE_ERR;
        }
    }
}

/// # Safety
/// `io` is a file that is being read.
unsafe fn load_piece(io: *mut raw::RedisModuleIO) -> Option<Vec<u8>> {
    let mut len = 0;
    // SAFETY: the caller vouches for the file; the length is written by the callee.
    let start = unsafe { api!(RedisModule_LoadStringBuffer)(io, &raw mut len) };
    if start.is_null() {
        return None;
    }
    // SAFETY: the server says that `len` bytes stand at `start`; they are ours.
    let piece = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) }.to_vec();
    // SAFETY: allocated by the server for us, freed once.
    unsafe { api!(RedisModule_Free)(start.cast()) };
    Some(piece)
}

/// No key has this type: there is nothing to load.
unsafe extern "C" fn no_key(_io: *mut raw::RedisModuleIO, _encoding: c_int) -> *mut c_void {
    std::ptr::null_mut()
}

unsafe extern "C" fn no_key_saved(_io: *mut raw::RedisModuleIO, _value: *mut c_void) {}

unsafe extern "C" fn no_value(_value: *mut c_void) {}
