//! Running commands in the server.

use std::ffi::{CString, c_char, c_int};
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::api::{OwnedString, api};
use crate::load::Server;
use crate::raw;

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
            Some(user) => Some(self.user(user).ok_or_else(|| CallError::NoUser(user.to_owned()))?),
        };
        let mut format = b"vE".to_vec();
        for (wanted, letter) in
            [(options.replicate, b'!'), (user.is_some(), b'C'), (options.deny_oom, b'M'), (options.deny_write, b'W')]
        {
            if wanted {
                format.push(letter);
            }
        }
        let format = CString::new(format).expect("letters");
        let owned: Vec<OwnedString> = args.iter().map(|arg| OwnedString::new(arg)).collect();
        let mut pointers: Vec<*mut raw::RedisModuleString> = owned.iter().map(|string| string.0).collect();
        let context = self.in_database(options.database).ok_or(CallError::NoDatabase(options.database))?;
        if let Some(user) = &user {
            // SAFETY: context and user are valid; the user is taken off again before it is freed.
            unsafe { api!(RedisModule_SetContextUser)(context, user.0.as_ptr()) };
        }
        // SAFETY: the format begins with `v`, which takes an array of strings and its length; the other letters take
        // nothing. All strings live during the call.
        let reply = unsafe {
            api!(RedisModule_Call)(context, name.as_ptr(), format.as_ptr(), pointers.as_mut_ptr(), pointers.len())
        };
        if user.is_some() {
            // SAFETY: a null user means none.
            unsafe { api!(RedisModule_SetContextUser)(context, std::ptr::null()) };
        }
        NonNull::new(reply).map(|reply| CallReply { reply }).ok_or(CallError::Refused)
    }

    /// Whether a user exists and is enabled.
    #[must_use]
    pub fn user_is_enabled(&self, user: &str) -> bool {
        self.user(user).is_some()
    }

    /// The error with which the server would answer a client's write now because it cannot save (`MISCONF`) or has too few
    /// replicas (`NOREPLICAS`), if it would. A command is checked as one of a script would be; it changes nothing: servers
    /// before 7.2 know no dry run, and there it runs on a key that does not exist.
    #[must_use]
    pub fn write_refusal(&self) -> Option<String> {
        const DRY_RUN_SINCE: u32 = 0x07_02_00;
        let key = OwnedString::new(b"\0rg: no such key");
        let mut arguments = [key.0];
        let format = if self.version() >= DRY_RUN_SINCE { c"vESD" } else { c"vES" };
        // SAFETY: the format begins with `v`, which takes an array of strings and its length; the other letters (reply
        // with errors, checks of a script, dry run) take nothing. All strings live during the call.
        let reply = unsafe {
            api!(RedisModule_Call)(
                self.raw_context(),
                c"persist".as_ptr(),
                format.as_ptr(),
                arguments.as_mut_ptr(),
                arguments.len(),
            )
        };
        // There is no reply when the command would run.
        let reply = CallReply { reply: NonNull::new(reply)? };
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
        let Some(user) = self.user(user) else { return false };
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

/// What a reply is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// A simple or bulk string.
    String,
    /// An error.
    Error,
    /// An integer.
    Int,
    /// An array of so many replies.
    Array(usize),
    /// Nothing.
    Null,
    /// Something that RESP2 does not know.
    Other,
}

/// The reply of a command.
pub struct CallReply {
    reply: NonNull<raw::RedisModuleCallReply>,
}

impl CallReply {
    /// To read it.
    #[must_use]
    pub fn view(&self) -> ReplyView<'_> {
        ReplyView { reply: self.reply, owner: PhantomData }
    }

    /// Its length on the wire, in bytes.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        let mut len = 0;
        // SAFETY: a valid reply; the length is written by the callee.
        unsafe { api!(RedisModule_CallReplyProto)(self.reply.as_ptr(), &raw mut len) };
        len
    }
}

impl Drop for CallReply {
    fn drop(&mut self) {
        // SAFETY: ours, freed once, after all views of it are gone.
        unsafe { api!(RedisModule_FreeCallReply)(self.reply.as_ptr()) };
    }
}

/// A reply, or a part of one.
#[derive(Clone, Copy)]
pub struct ReplyView<'a> {
    reply: NonNull<raw::RedisModuleCallReply>,
    owner: PhantomData<&'a CallReply>,
}

impl<'a> ReplyView<'a> {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> ReplyKind {
        // SAFETY: a valid reply during `'a`, here and below.
        match unsafe { api!(RedisModule_CallReplyType)(self.reply.as_ptr()) } {
            raw::REDISMODULE_REPLY_STRING => ReplyKind::String,
            raw::REDISMODULE_REPLY_ERROR => ReplyKind::Error,
            raw::REDISMODULE_REPLY_INTEGER => ReplyKind::Int,
            raw::REDISMODULE_REPLY_ARRAY => {
                // SAFETY: a valid reply, which is an array.
                ReplyKind::Array(unsafe { api!(RedisModule_CallReplyLength)(self.reply.as_ptr()) })
            }
            raw::REDISMODULE_REPLY_NULL => ReplyKind::Null,
            _ => ReplyKind::Other,
        }
    }

    /// The bytes of a string or an error.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        let mut len = 0;
        // SAFETY: for other kinds the server answers null.
        let ptr: *const c_char = unsafe { api!(RedisModule_CallReplyStringPtr)(self.reply.as_ptr(), &raw mut len) };
        if ptr.is_null() || len == 0 {
            return &[];
        }
        // SAFETY: `len` bytes that live as long as the whole reply.
        unsafe { std::slice::from_raw_parts(ptr.cast(), len) }
    }

    /// The number of an integer.
    #[must_use]
    pub fn int(&self) -> i64 {
        // SAFETY: for other kinds the server answers a fixed number.
        unsafe { api!(RedisModule_CallReplyInteger)(self.reply.as_ptr()) }
    }

    /// An element of an array.
    #[must_use]
    pub fn element(&self, index: usize) -> Option<ReplyView<'a>> {
        // SAFETY: out of range is null.
        NonNull::new(unsafe { api!(RedisModule_CallReplyArrayElement)(self.reply.as_ptr(), index) })
            .map(|reply| ReplyView { reply, owner: PhantomData })
    }

    /// The elements of an array; nothing for other kinds.
    pub fn elements(&self) -> impl Iterator<Item = ReplyView<'a>> + use<'a> {
        let this = *self;
        let len = if let ReplyKind::Array(len) = this.kind() { len } else { 0 };
        (0..len).map_while(move |index| this.element(index))
    }
}
