//! Types of keys, and notifications of their changes.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};

use crate::api::{OwnedString, api, selected_database, string_bytes};
use crate::guard::guarded;
use crate::raw;
use crate::server::Server;
use crate::user::ModuleUser;

/// Type of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// No such key.
    Empty,
    /// A string.
    String,
    /// A list.
    List,
    /// A hash.
    Hash,
    /// A set.
    Set,
    /// A sorted set.
    ZSet,
    /// A value of a module's type.
    Module,
    /// A stream.
    Stream,
    /// Something newer than this code.
    Unknown,
}

/// What is done to a key, for the check of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Its value is read.
    Read,
    /// Its value is changed.
    Write,
}

fn kind_of(key: *mut raw::RedisModuleKey) -> KeyKind {
    // SAFETY: null (an absent key) or a key that is open.
    match unsafe { api!(RedisModule_KeyType)(key) } {
        raw::REDISMODULE_KEYTYPE_EMPTY => KeyKind::Empty,
        raw::REDISMODULE_KEYTYPE_STRING => KeyKind::String,
        raw::REDISMODULE_KEYTYPE_LIST => KeyKind::List,
        raw::REDISMODULE_KEYTYPE_HASH => KeyKind::Hash,
        raw::REDISMODULE_KEYTYPE_SET => KeyKind::Set,
        raw::REDISMODULE_KEYTYPE_ZSET => KeyKind::ZSet,
        raw::REDISMODULE_KEYTYPE_MODULE => KeyKind::Module,
        raw::REDISMODULE_KEYTYPE_STREAM => KeyKind::Stream,
        _ => KeyKind::Unknown,
    }
}

impl Server {
    /// Type of a key of a database, and length of its value, without side effects where the server can do that.
    #[must_use]
    pub fn key_kind(&self, database: u32, key: &[u8]) -> (KeyKind, usize) {
        let Some(context) = self.in_database(database) else { return (KeyKind::Empty, 0) };
        let mut mode = raw::REDISMODULE_READ;
        if let Some(all) = api!(RedisModule_GetOpenKeyModesAll) {
            let quiet = raw::REDISMODULE_OPEN_KEY_NOEFFECTS
                | raw::REDISMODULE_OPEN_KEY_NOTOUCH
                | raw::REDISMODULE_OPEN_KEY_NONOTIFY
                | raw::REDISMODULE_OPEN_KEY_NOSTATS
                | raw::REDISMODULE_OPEN_KEY_NOEXPIRE;
            // SAFETY: takes nothing.
            mode |= quiet & unsafe { all() };
        }
        let name = OwnedString::new(key);
        // SAFETY: context and name are valid; closed below.
        let open = unsafe { api!(RedisModule_OpenKey)(context, name.0, mode) }.cast::<raw::RedisModuleKey>();
        let kind = kind_of(open);
        if open.is_null() {
            return (kind, 0);
        }
        // SAFETY: an open key; closed once.
        unsafe {
            let len = api!(RedisModule_ValueLength)(open);
            api!(RedisModule_CloseKey)(open);
            (kind, len)
        }
    }

    /// Whether a user exists, is enabled and may do this to a key.
    #[must_use]
    pub fn may_access(&self, user: &str, key: &[u8], access: Access) -> bool {
        let Some(user) = ModuleUser::enabled(self, user) else { return false };
        let key = OwnedString::new(key);
        let flags = match access {
            Access::Read => raw::REDISMODULE_CMD_KEY_ACCESS,
            Access::Write => raw::REDISMODULE_CMD_KEY_UPDATE,
        };
        // SAFETY: a valid user and a valid string during the call.
        let allowed = unsafe { api!(RedisModule_ACLCheckKeyPermissions)(user.0.as_ptr(), key.0, flags) };
        allowed == raw::REDISMODULE_OK
    }

    /// Calls `keys` for every change of a key in this server (and misses), and `streams` for every change of a stream and
    /// every event that may put a stream in the place of a key, from now on. They are two subscribers: what one of them changes is told to the other one, but not to itself.
    /// May be called once.
    ///
    /// # Errors
    /// The server refuses.
    pub fn subscribe_keyspace(&self, keys: KeyHandler, streams: KeyHandler) -> Result<(), String> {
        NOTIFY_KEYS.set(Some(keys));
        NOTIFY_STREAMS.set(Some(streams));
        let all = raw::REDISMODULE_NOTIFY_ALL | raw::REDISMODULE_NOTIFY_KEY_MISS | raw::REDISMODULE_NOTIFY_MODULE;
        let streams_too = raw::REDISMODULE_NOTIFY_STREAM | raw::REDISMODULE_NOTIFY_GENERIC;
        let callbacks: [(c_int, raw::RedisModuleNotificationFunc); 2] =
            [(all, Some(notified_keys)), (streams_too, Some(notified_streams))];
        for (types, callback) in callbacks {
            // SAFETY: a valid context of this module and a static callback.
            let subscribed =
                unsafe { api!(RedisModule_SubscribeToKeyspaceEvents)(self.raw_context(), types, callback) };
            if subscribed != raw::REDISMODULE_OK {
                return Err("the server refuses keyspace events".into());
            }
        }
        Ok(())
    }

    /// Whether [`Server::after_notification`] can do what it is for (Redis since 7.2, Valkey).
    #[must_use]
    pub fn has_jobs(&self) -> bool {
        api!(RedisModule_AddPostNotificationJob).is_some()
    }

    /// Inside a notification: calls `run` with `data` when the command that is running has been logged, so that what it
    /// writes is replicated behind it. Gives the data back where the server cannot do that (Redis 7.0).
    ///
    /// # Errors
    /// The data itself.
    pub fn after_notification<D: 'static>(&self, data: D, run: fn(D)) -> Result<(), D> {
        let Some(add) = api!(RedisModule_AddPostNotificationJob) else { return Err(data) };
        let job = Box::into_raw(Box::new(PostJob { data: Some(data), run }));
        // SAFETY: both callbacks read the job as `PostJob<D>`; the server calls the second one after the first.
        let added =
            unsafe { add(self.raw_context(), Some(post_job::<D>), job.cast::<c_void>(), Some(free_post_job::<D>)) };
        if added == raw::REDISMODULE_OK {
            return Ok(());
        }
        // SAFETY: refused, so the job is still ours.
        match unsafe { Box::from_raw(job) }.data {
            Some(data) => Err(data),
            None => Ok(()),
        }
    }
}

/// Something to be done after a notification.
struct PostJob<D> {
    data: Option<D>,
    run: fn(D),
}

/// Called with the number of the database, the event's name and the key.
type KeyHandler = fn(database: u32, event: &str, key: &[u8]);

thread_local! {
    static NOTIFY_KEYS: Cell<Option<KeyHandler>> = const { Cell::new(None) };
    static NOTIFY_STREAMS: Cell<Option<KeyHandler>> = const { Cell::new(None) };
}

unsafe extern "C" fn notified_keys(
    context: *mut raw::RedisModuleCtx,
    _types: c_int,
    event: *const c_char,
    key: *mut raw::RedisModuleString,
) -> c_int {
    // SAFETY: all live during the callback.
    unsafe { notified(NOTIFY_KEYS.get(), context, event, key) }
}

unsafe extern "C" fn notified_streams(
    context: *mut raw::RedisModuleCtx,
    _types: c_int,
    event: *const c_char,
    key: *mut raw::RedisModuleString,
) -> c_int {
    // SAFETY: all live during the callback.
    unsafe { notified(NOTIFY_STREAMS.get(), context, event, key) }
}

/// # Safety
/// `context` is the context of a notification, `event` a C string and `key` a string of the server; all live during the
/// call.
unsafe fn notified(
    handler: Option<KeyHandler>,
    context: *mut raw::RedisModuleCtx,
    event: *const c_char,
    key: *mut raw::RedisModuleString,
) -> c_int {
    guarded("a notification", (), || {
        // SAFETY: the caller vouches for all of them; the server selects the database of the event in the context.
        let (database, event, key) = unsafe { (selected_database(context), CStr::from_ptr(event), string_bytes(key)) };
        if let Some(handler) = handler {
            handler(database, &event.to_string_lossy(), key);
        }
    });
    raw::REDISMODULE_OK
}

unsafe extern "C" fn post_job<D: 'static>(_context: *mut raw::RedisModuleCtx, job: *mut c_void) {
    // SAFETY: made by `after_notification` and freed by `free_post_job` later; nothing else refers to it.
    let job = unsafe { &mut *job.cast::<PostJob<D>>() };
    if let Some(data) = job.data.take() {
        guarded("a job after a notification", (), || (job.run)(data));
    }
}

unsafe extern "C" fn free_post_job<D: 'static>(job: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `after_notification`, freed once.
    drop(unsafe { Box::from_raw(job.cast::<PostJob<D>>()) });
}
