//! Running commands in the server.

use std::ffi::{CString, c_int};

use crate::api::{OwnedString, api};
use crate::raw;
use crate::server::Server;
use crate::user::ModuleUser;

pub use crate::reply::CallReply;
pub use crate::resp::{ReplyKind, ReplyView};

/// As whom and how a command is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallOptions<'a> {
    /// The number of the database that the command acts in.
    pub database: u32,
    /// The user whose permissions are checked; `None`: no check (for the engine's own commands).
    pub user: Option<&'a str>,
    /// Effects go to replicas and the append-only file.
    pub replicate: bool,
    /// Refuse what a client would be refused when memory is short.
    pub deny_oom: bool,
    /// Refuse writes.
    pub deny_write: bool,
    /// The reply is one of RESP3.
    pub resp3: bool,
}

/// Why a command was not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The command's name holds a NUL.
    BadName,
    /// There is no such user, or it is disabled.
    NoUser(String),
    /// The server has no database of that number.
    NoDatabase(u32),
    /// The server did not say why.
    Refused,
}

impl Server {
    /// Runs a command: name and arguments.
    ///
    /// An error *reply* is an `Ok` reply of kind [`ReplyKind::Error`].
    ///
    /// # Errors
    /// The command could not even be tried.
    pub fn call(&self, argv: &[&[u8]], options: CallOptions<'_>) -> Result<CallReply, CallError> {
        let [name, args @ ..] = argv else { return Err(CallError::BadName) };
        let name = CString::new(*name).map_err(|_| CallError::BadName)?;
        let user = match options.user {
            None => None,
            Some(user) => Some(ModuleUser::enabled(self, user).ok_or_else(|| CallError::NoUser(user.to_owned()))?),
        };
        let mut format = b"vE".to_vec();
        for (wanted, letter) in [
            (options.replicate, b'!'),
            (user.is_some(), b'C'),
            (options.deny_oom, b'M'),
            (options.deny_write, b'W'),
            (options.resp3, b'3'),
        ] {
            if wanted {
                format.push(letter);
            }
        }
        let format = CString::new(format).expect("letters");
        let context = self.in_database(options.database).ok_or(CallError::NoDatabase(options.database))?;
        if let Some(user) = &user {
            // SAFETY: context and user are valid; the user is taken off again before it is freed.
            unsafe { api!(RedisModule_SetContextUser)(context, user.0.as_ptr()) };
        }
        // SAFETY: a valid context of the main thread, where we are; the letters beside `v` take nothing.
        let reply = unsafe { CallReply::of_command(context, &name, &format, args) };
        if user.is_some() {
            // SAFETY: a null user means none.
            unsafe { api!(RedisModule_SetContextUser)(context, std::ptr::null()) };
        }
        reply.ok_or(CallError::Refused)
    }

    /// Positions of the keys of a command, its name being at position 0. Empty if it has none, or is not known, or has a wrong
    /// number of arguments.
    #[must_use]
    pub fn keys_of(&self, argv: &[&[u8]]) -> Vec<usize> {
        let strings: Vec<OwnedString> = argv.iter().map(|bytes| OwnedString::new(bytes)).collect();
        let mut pointers: Vec<_> = strings.iter().map(|string| string.0).collect();
        let mut count: c_int = 0;
        // SAFETY: valid strings that outlive the call, and their number; the count is written by the callee.
        let keys = unsafe {
            let len = pointers.len() as c_int;
            api!(RedisModule_GetCommandKeys)(self.raw_context(), pointers.as_mut_ptr(), len, &raw mut count)
        };
        if keys.is_null() {
            return Vec::new();
        }
        // SAFETY: the callee returned that many positions, each within the arguments.
        let found = (0..count.max(0) as usize).map(|index| unsafe { *keys.add(index) } as usize).collect();
        // SAFETY: allocated by the server for us, freed once.
        unsafe { api!(RedisModule_Free)(keys.cast()) };
        found
    }

    /// Whether a user exists and is enabled.
    #[must_use]
    pub fn user_is_enabled(&self, user: &str) -> bool {
        ModuleUser::enabled(self, user).is_some()
    }

    /// The error with which the server would answer a client's write now because it cannot save (`MISCONF`) or has too few
    /// replicas (`NOREPLICAS`), if it would. A command is checked as one of a script would be; it changes nothing: servers
    /// before 7.2 know no dry run, and there it runs on a key that does not exist.
    #[must_use]
    pub fn write_refusal(&self) -> Option<String> {
        const DRY_RUN_SINCE: u32 = 0x07_02_00;
        let key: &[u8] = b"\0rg: no such key";
        let format = if self.version() >= DRY_RUN_SINCE { c"vESD" } else { c"vES" };
        // SAFETY: a valid context of the main thread, where we are; the letters beside `v` (reply with errors, checks of
        // a script, dry run) take nothing.
        // There is no reply when the command would run.
        let reply = unsafe { CallReply::of_command(self.raw_context(), c"persist", format, &[key]) }?;
        if reply.view().kind() != ReplyKind::Error {
            return None;
        }
        let text = String::from_utf8_lossy(reply.view().bytes()).into_owned();
        let is_refusal = ["MISCONF", "NOREPLICAS"].iter().any(|code| text.starts_with(code));
        is_refusal.then_some(text)
    }

    /// Whether a user may run a command with these arguments (keys included).
    #[must_use]
    pub fn may_run(&self, user: &str, argv: &[&[u8]]) -> bool {
        let Some(user) = ModuleUser::enabled(self, user) else { return false };
        let owned: Vec<OwnedString> = argv.iter().map(|arg| OwnedString::new(arg)).collect();
        let mut pointers: Vec<*mut raw::RedisModuleString> = owned.iter().map(|string| string.0).collect();
        // SAFETY: a valid user and valid strings during the call.
        let allowed = unsafe {
            api!(RedisModule_ACLCheckCommandPermissions)(
                user.0.as_ptr(),
                pointers.as_mut_ptr(),
                pointers.len() as c_int,
            )
        };
        allowed == raw::REDISMODULE_OK
    }
}
