//! Keys of a type of the module, whose value is a string of bytes that only the module reads.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;

use crate::api::{OwnedString, api, string_bytes};
use crate::guard::guarded;
use crate::load::Loader;
use crate::raw;
use crate::server::Server;

/// A key was loaded: its database, its name and its value. An error refuses the file.
pub type Loaded = fn(u32, &[u8], &[u8]) -> Result<(), String>;

/// The version of what this file writes: one string.
const ENCODING: c_int = 1;

struct Kind {
    made: NonNull<raw::RedisModuleType>,
    loaded: Loaded,
    command: &'static CStr,
}

thread_local! {
    static KIND: Cell<Option<&'static Kind>> = const { Cell::new(None) };
}

impl Loader<'_> {
    /// Makes the type. `name` has nine characters and must never change: data files contain it. `command` gets the value as its
    /// only argument when the append-only file is rewritten, and makes the key again.
    ///
    /// # Errors
    /// The server refuses.
    pub fn value_keys(&self, name: &'static CStr, command: &'static CStr, loaded: Loaded) -> Result<(), String> {
        let mut methods = raw::RedisModuleTypeMethods {
            version: raw::REDISMODULE_TYPE_METHOD_VERSION as u64,
            rdb_load: Some(load),
            rdb_save: Some(save),
            aof_rewrite: Some(rewrite),
            mem_usage: Some(size),
            digest: None,
            free: Some(free),
            aux_load: None,
            aux_save: None,
            aux_save_triggers: 0,
            free_effort: None,
            unlink: None,
            copy: None,
            defrag: None,
            mem_usage2: None,
            free_effort2: None,
            unlink2: None,
            copy2: None,
            aux_save2: None,
        };
        // SAFETY: the context of the load, a static name, and methods that the server copies.
        let made =
            unsafe { api!(RedisModule_CreateDataType)(self.raw_context(), name.as_ptr(), ENCODING, &raw mut methods) };
        let made = NonNull::new(made).ok_or_else(|| format!("the server refuses the data type {name:?}"))?;
        KIND.set(Some(Box::leak(Box::new(Kind { made, loaded, command }))));
        Ok(())
    }
}

impl Server {
    /// Makes a key of the type, unless a key of that name exists; returns whether it was made.
    #[must_use]
    pub fn make_value_key(&self, database: u32, key: &[u8], value: &[u8]) -> bool {
        let (Some(context), Some(kind)) = (self.in_database(database), KIND.get()) else { return false };
        let name = OwnedString::new(key);
        let mode = raw::REDISMODULE_READ | raw::REDISMODULE_WRITE;
        // SAFETY: context and name are valid; closed below.
        let open = unsafe { api!(RedisModule_OpenKey)(context, name.0, mode) }.cast::<raw::RedisModuleKey>();
        // SAFETY: null or an open key.
        let is_free = unsafe { api!(RedisModule_KeyType)(open) } == raw::REDISMODULE_KEYTYPE_EMPTY;
        if is_free && !open.is_null() {
            let value = Box::into_raw(Box::new(value.to_vec()));
            // SAFETY: an open key for writing; the value is of the form that the methods of this type expect.
            unsafe { api!(RedisModule_ModuleTypeSetValue)(open, kind.made.as_ptr(), value.cast()) };
        }
        if !open.is_null() {
            // SAFETY: an open key; closed once.
            unsafe { api!(RedisModule_CloseKey)(open) };
        }
        is_free
    }

    /// Whether a key of the type has this value.
    #[must_use]
    pub fn has_value_key(&self, database: u32, key: &[u8], value: &[u8]) -> bool {
        let (Some(context), Some(kind)) = (self.in_database(database), KIND.get()) else { return false };
        let name = OwnedString::new(key);
        // SAFETY: context and name are valid; closed below.
        let open = unsafe { api!(RedisModule_OpenKey)(context, name.0, raw::REDISMODULE_READ) };
        let open = open.cast::<raw::RedisModuleKey>();
        if open.is_null() {
            return false;
        }
        // SAFETY: an open key. A value of our type was made by `make_value_key` or `load`.
        let has = unsafe {
            api!(RedisModule_ModuleTypeGetType)(open) == kind.made.as_ptr()
                && api!(RedisModule_ModuleTypeGetValue)(open).cast::<Vec<u8>>().as_ref().is_some_and(|own| own == value)
        };
        // SAFETY: an open key; closed once.
        unsafe { api!(RedisModule_CloseKey)(open) };
        has
    }
}

/// The bytes of a value.
///
/// # Safety
/// A value that `make_value_key` or `load` made, which lives during the callback.
unsafe fn bytes<'a>(value: *mut c_void) -> &'a [u8] {
    // SAFETY: see above.
    unsafe { value.cast::<Vec<u8>>().as_ref() }.map(Vec::as_slice).unwrap_or_default()
}

unsafe extern "C" fn save(io: *mut raw::RedisModuleIO, value: *mut c_void) {
    // SAFETY: a value of this type.
    let bytes = unsafe { bytes(value) };
    // SAFETY: the file that is being written; the bytes live during the call.
    unsafe { api!(RedisModule_SaveStringBuffer)(io, bytes.as_ptr().cast(), bytes.len()) };
}

unsafe extern "C" fn load(io: *mut raw::RedisModuleIO, encoding: c_int) -> *mut c_void {
    let Some(kind) = KIND.get().filter(|_| encoding <= ENCODING) else { return std::ptr::null_mut() };
    let mut len = 0;
    // SAFETY: the file that is being read; the length is written by the callee.
    let start = unsafe { api!(RedisModule_LoadStringBuffer)(io, &raw mut len) };
    if start.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: the server says that `len` bytes stand at `start`; they are ours.
    let value = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) }.to_vec();
    // SAFETY: allocated by the server for us, freed once.
    unsafe { api!(RedisModule_Free)(start.cast()) };
    // SAFETY: the file that is being read.
    let (database, name) = unsafe { (api!(RedisModule_GetDbIdFromIO)(io), api!(RedisModule_GetKeyNameFromIO)(io)) };
    let loaded = if name.is_null() {
        // A value without a key, such as that of `RESTORE` on an old server: it is kept, and starts nothing.
        Ok(())
    } else {
        // SAFETY: a valid string that lives during the callback.
        let key = unsafe { string_bytes(name.cast_mut()) };
        guarded("loading a key", Err("INTERNAL a failure of the module".to_owned()), || {
            (kind.loaded)(database as u32, key, &value)
        })
    };
    match loaded {
        Ok(()) => Box::into_raw(Box::new(value)).cast(),
        Err(reason) => {
            crate::log::log(crate::log::LogLevel::Warning, &format!("rg: {reason}"));
            std::ptr::null_mut()
        }
    }
}

unsafe extern "C" fn rewrite(io: *mut raw::RedisModuleIO, _key: *mut raw::RedisModuleString, value: *mut c_void) {
    let Some(kind) = KIND.get() else { return };
    // SAFETY: a value of this type.
    let bytes = unsafe { bytes(value) };
    // SAFETY: the file that is being written; `b` takes a pointer and a length.
    unsafe { api!(RedisModule_EmitAOF)(io, kind.command.as_ptr(), c"b".as_ptr(), bytes.as_ptr(), bytes.len()) };
}

unsafe extern "C" fn size(value: *const c_void) -> usize {
    // SAFETY: a value of this type.
    unsafe { bytes(value.cast_mut()) }.len() + size_of::<Vec<u8>>()
}

/// May be called by another thread of the server.
unsafe extern "C" fn free(value: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in this file, freed once.
    drop(unsafe { Box::from_raw(value.cast::<Vec<u8>>()) });
}
