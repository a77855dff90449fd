//! Replies of commands that are run in the server.

use std::ffi::CStr;
use std::ptr::NonNull;

use crate::api::{OwnedString, api};
use crate::raw;
use crate::resp::ReplyView;

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
        ReplyView::new(self.wire())
    }

    /// The pointer, for the functions that send it.
    pub(crate) fn raw(&self) -> *mut raw::RedisModuleCallReply {
        self.reply.as_ptr()
    }

    /// It as it goes over the wire.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        let mut len = 0;
        // SAFETY: a valid reply; the length is written by the callee.
        let start = unsafe { api!(RedisModule_CallReplyProto)(self.reply.as_ptr(), &raw mut len) };
        if start.is_null() {
            return &[];
        }
        // SAFETY: the server says that `len` bytes stand at `start`; they live as long as the reply, and nothing changes them.
        unsafe { std::slice::from_raw_parts(start.cast(), len) }
    }
}

impl Drop for CallReply {
    fn drop(&mut self) {
        // SAFETY: ours, freed once, after all views of it are gone.
        unsafe { api!(RedisModule_FreeCallReply)(self.reply.as_ptr()) };
    }
}
