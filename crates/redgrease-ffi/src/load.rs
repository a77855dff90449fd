//! The entry point of the module, and the server as seen from its main thread.

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::api::{OwnedString, api, c_text, guarded, string_bytes};
use crate::{raw, table};

thread_local! {
    /// The detached context of the main thread; null elsewhere, and before the module is loaded.
    static CONTEXT: Cell<*mut raw::RedisModuleCtx> = const { Cell::new(std::ptr::null_mut()) };
}

/// How important a line of the server's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// `debug`
    Debug,
    /// `verbose`
    Verbose,
    /// `notice`
    Notice,
    /// `warning`
    Warning,
}

impl LogLevel {
    fn c_name(self) -> &'static CStr {
        match self {
            LogLevel::Debug => c"debug",
            LogLevel::Verbose => c"verbose",
            LogLevel::Notice => c"notice",
            LogLevel::Warning => c"warning",
        }
    }
}

/// Lines are cut to this many bytes: the server's own buffer holds one kilobyte.
const LOG_LINE_BYTES: usize = 900;

/// Writes to the server's log; from any thread. Line breaks become several lines, other control characters escapes.
pub fn log(level: LogLevel, text: &str) {
    let context = CONTEXT.get();
    for line in text.split('\n') {
        let mut line: String = line
            .chars()
            .flat_map(|c| if c.is_control() && c != '\t' { c.escape_default().collect() } else { vec![c] })
            .collect();
        while !line.is_empty() {
            let mut cut = line.len().min(LOG_LINE_BYTES);
            while !line.is_char_boundary(cut) {
                cut -= 1;
            }
            let rest = line.split_off(cut);
            let part = c_text(&line);
            // SAFETY: the context is null or the detached one of this thread; the format takes exactly one C string.
            unsafe { api!(RedisModule_Log)(context, level.c_name().as_ptr(), c"%s".as_ptr(), part.as_ptr()) };
            line = rest;
        }
    }
}

/// What the server is doing: the flags of a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextFlags(c_int);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:ident),+ $(,)?) => {
        impl ContextFlags { $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(self) -> bool { self.0 & raw::$bit != 0 }
        )+ }
    };
}
flags! {
    /// A Lua script or function is running, possibly suspended.
    lua = REDISMODULE_CTX_FLAGS_LUA,
    /// Inside a transaction.
    multi = REDISMODULE_CTX_FLAGS_MULTI,
    /// The caller cannot be blocked.
    deny_blocking = REDISMODULE_CTX_FLAGS_DENY_BLOCKING,
    /// Data is being loaded.
    loading = REDISMODULE_CTX_FLAGS_LOADING,
    /// This server is a replica.
    replica = REDISMODULE_CTX_FLAGS_SLAVE,
    /// It is a replica that refuses writes of clients.
    read_only = REDISMODULE_CTX_FLAGS_READONLY,
    /// The command came from the master.
    replicated = REDISMODULE_CTX_FLAGS_REPLICATED,
    /// Cluster mode.
    cluster = REDISMODULE_CTX_FLAGS_CLUSTER,
    /// This process is a child of the server.
    child = REDISMODULE_CTX_FLAGS_IS_CHILD,
}

impl ContextFlags {
    pub(crate) fn of(context: *mut raw::RedisModuleCtx) -> ContextFlags {
        // SAFETY: null or a valid context, as the API allows.
        ContextFlags(unsafe { api!(RedisModule_GetContextFlags)(context) })
    }
}

/// The server, on its main thread: a value of this type allows calls of the module API.
///
/// It uses a detached thread-safe context, which belongs to no client: each call says in which database and as which
/// user it runs.
#[derive(Clone, Copy)]
pub struct Server {
    pub(crate) context: NonNull<raw::RedisModuleCtx>,
    main_thread_only: PhantomData<*const ()>,
}

impl Server {
    /// The server, if this is its main thread and the module is loaded.
    #[must_use]
    pub fn on_main_thread() -> Option<Server> {
        NonNull::new(CONTEXT.get()).map(|context| Server { context, main_thread_only: PhantomData })
    }

    /// Writes to the server's log.
    pub fn log(&self, level: LogLevel, text: &str) {
        log(level, text);
    }

    /// What the server is doing.
    #[must_use]
    pub fn flags(&self) -> ContextFlags {
        ContextFlags::of(self.context.as_ptr())
    }

    /// Whether anything that is replicated now would break a pause or a failover: the server stops itself by an
    /// assertion then.
    #[must_use]
    pub fn must_not_replicate(&self) -> bool {
        // SAFETY: takes nothing, reads state of the main thread, where we are.
        unsafe { api!(RedisModule_AvoidReplicaTraffic)() != 0 }
    }

    /// Version such as `0x070015`, one byte each for major, minor and patch; 0 where the server does not tell.
    #[must_use]
    pub fn version(&self) -> u32 {
        // SAFETY: takes nothing.
        api!(RedisModule_GetServerVersion).map_or(0, |version| unsafe { version() } as u32)
    }

    pub(crate) fn raw_context(&self) -> *mut raw::RedisModuleCtx {
        self.context.as_ptr()
    }

    /// The context, with this database selected; `None` when the server has no such database. Nested calls may leave
    /// another one selected, so every use of a database selects it.
    pub(crate) fn in_database(&self, database: u32) -> Option<*mut raw::RedisModuleCtx> {
        let context = self.raw_context();
        let wanted = c_int::try_from(database).ok()?;
        // SAFETY: a valid context of the main thread, where we are; an unknown number is refused.
        let selected = unsafe {
            api!(RedisModule_GetSelectedDb)(context) == wanted
                || api!(RedisModule_SelectDb)(context, wanted) == raw::REDISMODULE_OK
        };
        selected.then_some(context)
    }

    /// The user of that name, if it exists and is enabled: [`crate::call`] asks for it per call.
    pub(crate) fn user(&self, name: &str) -> Option<ModuleUser> {
        let get = api!(RedisModule_GetModuleUserFromUserName)?;
        let text = OwnedString::new(name.as_bytes());
        // SAFETY: the string lives during the call; the user that comes back is ours to free.
        let user = NonNull::new(unsafe { get(text.0) }).map(ModuleUser)?;
        let enabled = user.rules().unwrap_or_else(|| self.described_user(name));
        (enabled.split(|byte| *byte == b' ').next() == Some(b"on")).then_some(user)
    }

    /// The first flag of a user, on servers that cannot describe a user (Redis before 7.0.6).
    fn described_user(&self, name: &str) -> Vec<u8> {
        let reply = self.call(&[b"acl", b"getuser", name.as_bytes()], crate::CallOptions::default());
        reply.ok().and_then(|reply| Some(reply.view().element(1)?.element(0)?.bytes().to_vec())).unwrap_or_default()
    }
}

/// A user of the server, valid for one call.
pub(crate) struct ModuleUser(pub(crate) NonNull<raw::RedisModuleUser>);

impl ModuleUser {
    /// The user's rules, which begin with `on` or `off`; the server keeps this text between changes of the user.
    fn rules(&self) -> Option<Vec<u8>> {
        let describe = api!(RedisModule_GetModuleUserACLString)?;
        // SAFETY: a valid user; the string that comes back is ours to free.
        let text = NonNull::new(unsafe { describe(self.0.as_ptr()) })?;
        // SAFETY: a valid string, of which a part is copied before it is freed.
        let rules = unsafe { string_bytes(text.as_ptr()) }.iter().take(4).copied().collect();
        // SAFETY: ours, freed once.
        unsafe { api!(RedisModule_FreeString)(std::ptr::null_mut(), text.as_ptr()) };
        Some(rules)
    }
}

impl Drop for ModuleUser {
    fn drop(&mut self) {
        // SAFETY: made by `RedisModule_GetModuleUserFromUserName` and freed once, here; no context refers to it any more.
        unsafe { api!(RedisModule_FreeModuleUser)(self.0.as_ptr()) };
    }
}

/// What the module's start is given: registers commands and reads load arguments.
pub struct Loader<'a> {
    context: *mut raw::RedisModuleCtx,
    /// Arguments behind the module's path.
    pub args: Vec<&'a [u8]>,
    /// The server.
    pub server: Server,
}

impl Loader<'_> {
    /// The context of the load, for registrations that need it.
    pub(crate) fn raw_context(&self) -> *mut raw::RedisModuleCtx {
        self.context
    }
}

/// Called by [`export_module!`](crate::export_module).
///
/// # Safety
/// Only by the server, as `RedisModule_OnLoad`, with its own arguments.
#[doc(hidden)]
pub unsafe fn on_load(
    context: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
    name: &CStr,
    version: c_int,
    start: fn(&Loader<'_>) -> Result<(), String>,
) -> c_int {
    let refused = raw::REDISMODULE_ERR;
    // SAFETY: the context is that of the load. Nothing may be allocated before the table is filled.
    if !unsafe { table::fill(context, name, version) } {
        return refused;
    }
    guarded("the module's start", refused, || {
        // SAFETY: the load context is valid here; the detached one lives as long as the module.
        let detached = unsafe { api!(RedisModule_GetDetachedThreadSafeContext)(context) };
        CONTEXT.set(detached);
        let Some(server) = Server::on_main_thread() else { return refused };
        // SAFETY: `argv` holds `argc` strings of the server that live during the load.
        let args = (0..argc as usize).map(|index| unsafe { string_bytes(*argv.add(index)) }).collect();
        match start(&Loader { context, args, server }) {
            Ok(()) => raw::REDISMODULE_OK,
            Err(reason) => {
                log(LogLevel::Warning, &format!("rg: not loaded: {reason}"));
                refused
            }
        }
    })
}

/// Makes a cdylib a module of the server: `export_module!(c"name", version, start)`.
///
/// `start` is `fn(&Loader) -> Result<(), String>`; an error refuses the load and is logged.
#[macro_export]
macro_rules! export_module {
    ($name:expr, $version:expr, $start:path) => {
        #[cfg(not(test))]
        #[global_allocator]
        static ALLOCATOR: $crate::ServerAllocator = $crate::ServerAllocator;

        /// Called by the server when it loads the module.
        ///
        /// # Safety
        /// Only by the server.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        pub unsafe extern "C" fn RedisModule_OnLoad(
            context: *mut $crate::raw_types::RedisModuleCtx,
            argv: *mut *mut $crate::raw_types::RedisModuleString,
            argc: ::std::ffi::c_int,
        ) -> ::std::ffi::c_int {
            // SAFETY: the caller is the server, with its own arguments.
            unsafe { $crate::load::on_load(context, argv, argc, $name, $version, $start) }
        }

        /// Called by the server before it unloads the module: refused, because the module's threads and the server's
        /// event loop refer to its code. A server that ends may unload it: the code stays mapped (see `build.rs`).
        #[unsafe(no_mangle)]
        #[allow(non_snake_case)]
        pub extern "C" fn RedisModule_OnUnload(_context: *mut $crate::raw_types::RedisModuleCtx) -> ::std::ffi::c_int {
            $crate::server_event::on_unload()
        }
    };
}
