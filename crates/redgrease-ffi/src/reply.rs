//! Replies of commands that are run in the server.

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::api::{OwnedString, api};
use crate::raw;

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
    /// Runs a command; `None` if the server does not reply.
    ///
    /// # Safety
    /// A valid context of the main thread, where we are. The format begins with `v`, and its other letters take nothing.
    pub(crate) unsafe fn of_command(
        context: *mut raw::RedisModuleCtx,
        name: &CStr,
        format: &CStr,
        args: &[&[u8]],
    ) -> Option<CallReply> {
        let owned: Vec<OwnedString> = args.iter().map(|arg| OwnedString::new(arg)).collect();
        let mut pointers: Vec<*mut raw::RedisModuleString> = owned.iter().map(|string| string.0).collect();
        // SAFETY: the caller vouches for context and format: `v` takes an array of strings and its length. All strings
        // live during the call; the reply that comes back is ours.
        let reply = unsafe {
            api!(RedisModule_Call)(context, name.as_ptr(), format.as_ptr(), pointers.as_mut_ptr(), pointers.len())
        };
        NonNull::new(reply).map(|reply| CallReply { reply })
    }

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
