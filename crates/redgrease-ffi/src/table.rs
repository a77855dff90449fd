//! The server's functions, as this module asks for them when it is loaded.

use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

use crate::raw;

/// Filled once by [`fill`]; a server loads the module once, and never takes the functions away.
static TABLE: OnceLock<Table> = OnceLock::new();

/// The function that a pointer of the API points to, if it is not null.
pub(crate) trait Nullable {
    type Function;
}

impl<F> Nullable for Option<F> {
    type Function = F;
}

type Function<P> = <P as Nullable>::Function;
type GetApi = Function<raw::RedisModule_GetApi>;

macro_rules! table {
    (required: [$($required:ident,)+] optional: [$($optional:ident,)+]) => {
        /// The functions of the module API that this crate uses.
        #[allow(non_snake_case)]
        pub(crate) struct Table {
            $(pub(crate) $required: Function<raw::$required>,)+
            $(pub(crate) $optional: raw::$optional,)+
        }

        impl Table {
            /// Asks for every function; an error names one that is required and that the server lacks.
            ///
            /// Allocates nothing: it runs before there is an allocator.
            ///
            /// # Safety
            /// `get_api` is the server's, and what it answers for a name has the type that the header gives that name.
            unsafe fn ask(get_api: GetApi) -> Result<Table, &'static CStr> {
                Ok(Table {
                    $($required: {
                        const NAME: &CStr = c_name(concat!(stringify!($required), "\0"));
                        // SAFETY: the caller vouches for `get_api`; the type is that of this name.
                        unsafe { look_up::<Function<raw::$required>>(get_api, NAME) }.ok_or(NAME)?
                    },)+
                    $($optional: {
                        const NAME: &CStr = c_name(concat!(stringify!($optional), "\0"));
                        // SAFETY: as above.
                        unsafe { look_up::<Function<raw::$optional>>(get_api, NAME) }
                    },)+
                })
            }
        }
    };
}

table! {
    // What Redis 7.0 and every Valkey has.
    required: [
        RedisModule_ACLCheckCommandPermissions,
        RedisModule_ACLCheckKeyPermissions,
        RedisModule_Alloc,
        RedisModule_AvoidReplicaTraffic,
        RedisModule_BlockClient,
        RedisModule_Call,
        RedisModule_Calloc,
        RedisModule_CallReplyProto,
        RedisModule_CloseKey,
        RedisModule_CommandFilterArgGet,
        RedisModule_CommandFilterArgInsert,
        RedisModule_CommandFilterArgsCount,
        RedisModule_CreateCommand,
        RedisModule_CreateDataType,
        RedisModule_CreateString,
        RedisModule_CreateTimer,
        RedisModule_EmitAOF,
        RedisModule_EventLoopAdd,
        RedisModule_EventLoopDel,
        RedisModule_Free,
        RedisModule_FreeCallReply,
        RedisModule_FreeModuleUser,
        RedisModule_FreeString,
        RedisModule_FreeThreadSafeContext,
        RedisModule_GetBlockedClientPrivateData,
        RedisModule_GetCommandKeys,
        RedisModule_GetCommandKeysWithFlags,
        RedisModule_GetContextFlags,
        RedisModule_GetDbIdFromIO,
        RedisModule_GetDetachedThreadSafeContext,
        RedisModule_GetKeyNameFromIO,
        RedisModule_GetSelectedDb,
        RedisModule_GetThreadSafeContext,
        RedisModule_InfoAddFieldString,
        RedisModule_InfoAddFieldULongLong,
        RedisModule_InfoAddSection,
        RedisModule_IsKeysPositionRequest,
        RedisModule_IsModuleNameBusy,
        RedisModule_KeyAtPosWithFlags,
        RedisModule_KeyType,
        RedisModule_LatencyAddSample,
        RedisModule_LoadConfigs,
        RedisModule_LoadStringBuffer,
        RedisModule_Log,
        RedisModule_ModuleTypeGetType,
        RedisModule_ModuleTypeGetValue,
        RedisModule_ModuleTypeSetValue,
        RedisModule_OpenKey,
        RedisModule_Realloc,
        RedisModule_RegisterCommandFilter,
        RedisModule_RegisterInfoFunc,
        RedisModule_RegisterNumericConfig,
        RedisModule_RegisterStringConfig,
        RedisModule_Replicate,
        RedisModule_ReplicateVerbatim,
        RedisModule_ReplySetArrayLength,
        RedisModule_ReplyWithArray,
        RedisModule_ReplyWithBool,
        RedisModule_ReplyWithCallReply,
        RedisModule_ReplyWithDouble,
        RedisModule_ReplyWithError,
        RedisModule_ReplyWithLongLong,
        RedisModule_ReplyWithMap,
        RedisModule_ReplyWithNull,
        RedisModule_ReplyWithSimpleString,
        RedisModule_ReplyWithStringBuffer,
        RedisModule_SaveStringBuffer,
        RedisModule_SelectDb,
        RedisModule_SetContextUser,
        RedisModule_SetDisconnectCallback,
        RedisModule_SetModuleAttribs,
        RedisModule_StopTimer,
        RedisModule_StringPtrLen,
        RedisModule_SubscribeToKeyspaceEvents,
        RedisModule_SubscribeToServerEvent,
        RedisModule_UnblockClient,
        RedisModule_UnregisterCommandFilter,
        RedisModule_ValueLength,
        RedisModule_WrongArity,
    ]
    // What some supported servers lack.
    optional: [
        RedisModule_AddACLCategory,
        RedisModule_AddPostNotificationJob,
        RedisModule_BlockedClientMeasureTimeEnd,
        RedisModule_BlockedClientMeasureTimeStart,
        RedisModule_GetCommand,
        RedisModule_GetCurrentUserName,
        RedisModule_GetModuleUserACLString,
        RedisModule_GetModuleUserFromUserName,
        RedisModule_GetOpenKeyModesAll,
        RedisModule_GetServerVersion,
        RedisModule_SetCommandACLCategories,
        RedisModule_SetCommandInfo,
    ]
}

const fn c_name(name: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("a name that ends with its only NUL"),
    }
}

/// Asks the server for one function.
///
/// # Safety
/// `F` is the type of a pointer to the function that `get_api` answers for `name`.
unsafe fn look_up<F: Copy>(get_api: GetApi, name: &CStr) -> Option<F> {
    const { assert!(size_of::<Option<F>>() == size_of::<*mut c_void>(), "F is not the type of a function pointer") };
    let mut function: Option<F> = None;
    // SAFETY: the server writes one pointer to the address, the function's or null, which is what `Option<F>` holds.
    unsafe { get_api(name.as_ptr(), (&raw mut function).cast()) };
    function
}

/// The address of the function that answers for the names of all others.
///
/// # Safety
/// `context` is the context with which the server loads the module.
unsafe fn get_api(context: *mut raw::RedisModuleCtx) -> raw::RedisModule_GetApi {
    // SAFETY: such a context begins with this pointer; the header reads it in the same way.
    unsafe { context.cast::<raw::RedisModule_GetApi>().read() }
}

/// Fills the table and tells the server the module's name and version; returns whether the module can be loaded. The
/// server's log says why not.
///
/// # Safety
/// `context` is the context with which the server loads the module.
pub(crate) unsafe fn fill(context: *mut raw::RedisModuleCtx, name: &CStr, version: i32) -> bool {
    // SAFETY: the caller vouches for the context.
    let Some(get_api) = (unsafe { get_api(context) }) else { return false };
    // SAFETY: the server's own function, whose answers are what its header says.
    let table = match unsafe { Table::ask(get_api) } {
        Ok(table) => TABLE.get_or_init(|| table),
        Err(missing) => {
            // SAFETY: as above; the format takes exactly one C string.
            unsafe {
                if let Some(log) = look_up::<Function<raw::RedisModule_Log>>(get_api, c"RedisModule_Log") {
                    let format = c"rg: not loaded: this server lacks %s: Redis 7.0 or newer, or any Valkey, is needed";
                    log(context, c"warning".as_ptr(), format.as_ptr(), missing.as_ptr());
                }
            }
            return false;
        }
    };
    // SAFETY: the context is that of the load, and the name a C string that the server copies.
    unsafe {
        if (table.RedisModule_IsModuleNameBusy)(name.as_ptr()) != 0 {
            return false;
        }
        (table.RedisModule_SetModuleAttribs)(context, name.as_ptr(), version, raw::REDISMODULE_APIVER_1);
    }
    true
}

/// The table, if the module has been loaded.
pub(crate) fn filled() -> Option<&'static Table> {
    TABLE.get()
}

/// The table.
///
/// # Panics
/// Before the module has been loaded, when nothing but [`fill`] runs.
pub(crate) fn functions() -> &'static Table {
    filled().expect("the server's functions are known before any of our code runs")
}

#[cfg(test)]
mod tests {
    use std::ffi::{c_char, c_int};

    use super::*;

    /// Stands for a function; never called.
    unsafe extern "C" fn function() {}

    /// A server that has every function, but for those whose names begin so.
    unsafe fn answer(missing: &[u8], name: *const c_char, target: *mut c_void) -> c_int {
        // SAFETY: the name is a C string, and the target takes a pointer.
        unsafe {
            let has = !CStr::from_ptr(name).to_bytes().starts_with(missing);
            target.cast::<Option<unsafe extern "C" fn()>>().write(has.then_some(function));
            c_int::from(!has)
        }
    }

    unsafe extern "C" fn without_timers(name: *const c_char, target: *mut c_void) -> c_int {
        // SAFETY: passed on as it came.
        unsafe { answer(b"RedisModule_CreateTimer", name, target) }
    }

    unsafe extern "C" fn without_categories(name: *const c_char, target: *mut c_void) -> c_int {
        // SAFETY: passed on as it came.
        unsafe { answer(b"RedisModule_AddACLCategory", name, target) }
    }

    #[test]
    fn a_required_function_that_the_server_lacks_is_named() {
        // SAFETY: what is answered is not called.
        let table = unsafe { Table::ask(without_timers) };
        assert_eq!(table.err(), Some(c"RedisModule_CreateTimer"));
    }

    #[test]
    fn an_optional_function_may_be_missing() {
        // SAFETY: what is answered is not called.
        let table =
            unsafe { Table::ask(without_categories) }.unwrap_or_else(|missing| panic!("{missing:?} is missing"));
        assert!(table.RedisModule_AddACLCategory.is_none());
        assert!(table.RedisModule_GetServerVersion.is_some());
    }
}
