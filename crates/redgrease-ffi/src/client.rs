//! Replies, and clients that wait for them.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::api::{api, c_text};
use crate::guard::guarded;
use crate::raw;
use crate::reply::CallReply;

/// Replies that a client is still owed. A callback that panics, or forgets to reply, must not leave the client waiting and
/// its pipeline out of step: [`Owed::settle`] sends what is missing.
pub(crate) struct Owed(Cell<usize>);

impl Owed {
    /// One reply, which may be an array or a map.
    pub(crate) fn one() -> Owed {
        Owed(Cell::new(1))
    }

    /// The reply comes later.
    pub(crate) fn postpone(&self) {
        self.0.set(0);
    }

    /// A reply was sent; `elements`: the replies that it consists of and that follow it.
    fn sent(&self, elements: usize) {
        self.0.set(self.0.get().saturating_sub(1).saturating_add(elements));
    }

    /// Sends an error in place of each reply that is missing.
    pub(crate) fn settle(&self, context: *mut raw::RedisModuleCtx) {
        while self.0.get() > 0 {
            Replier::new(context, self).error("INTERNAL the command failed because of a bug: see the server's log");
        }
    }
}

/// Writes a reply to one client.
#[derive(Clone, Copy)]
pub struct Replier<'a> {
    context: *mut raw::RedisModuleCtx,
    owed: &'a Owed,
    lifetime: PhantomData<&'a ()>,
}

// SAFETY for all methods below: the context is that of a running command or reply callback, valid during `'a`, on the
// main thread; buffers are copied by the server during the call.
impl<'a> Replier<'a> {
    pub(crate) fn new(context: *mut raw::RedisModuleCtx, owed: &'a Owed) -> Replier<'a> {
        Replier { context, owed, lifetime: PhantomData }
    }

    /// A simple string; must be one line.
    pub fn simple(&self, text: &str) {
        self.owed.sent(0);
        let text = c_text(text);
        // SAFETY: see above.
        unsafe { api!(RedisModule_ReplyWithSimpleString)(self.context, text.as_ptr()) };
    }

    /// An error; its text begins with its code and must be one line.
    pub fn error(&self, text: &str) {
        self.owed.sent(0);
        let text = c_text(text);
        // SAFETY: see above.
        unsafe { api!(RedisModule_ReplyWithError)(self.context, text.as_ptr()) };
    }

    /// The server's own error for a wrong number of arguments.
    pub fn wrong_arity(&self) {
        self.owed.sent(0);
        // SAFETY: see above.
        unsafe { api!(RedisModule_WrongArity)(self.context) };
    }

    /// A bulk string.
    pub fn bulk(&self, bytes: &[u8]) {
        self.owed.sent(0);
        // SAFETY: see above.
        unsafe { api!(RedisModule_ReplyWithStringBuffer)(self.context, bytes.as_ptr().cast(), bytes.len()) };
    }

    /// An integer.
    pub fn int(&self, number: i64) {
        self.owed.sent(0);
        // SAFETY: see above.
        unsafe { api!(RedisModule_ReplyWithLongLong)(self.context, number) };
    }

    /// A double, as the client's protocol writes one.
    pub fn double(&self, number: f64) {
        self.owed.sent(0);
        // SAFETY: see above.
        unsafe { api!(RedisModule_ReplyWithDouble)(self.context, number) };
    }

    /// A boolean: an integer in RESP2.
    pub fn bool(&self, flag: bool) {
        self.owed.sent(0);
        // SAFETY: see above.
        unsafe { api!(RedisModule_ReplyWithBool)(self.context, c_int::from(flag)) };
    }

    /// Nothing.
    pub fn null(&self) {
        self.owed.sent(0);
        // SAFETY: see above.
        unsafe { api!(RedisModule_ReplyWithNull)(self.context) };
    }

    /// The reply of a command, of the same version of the protocol as the client's.
    pub fn reply_of_command(&self, reply: &CallReply) {
        // SAFETY: see above; the reply is valid.
        let sent = unsafe { api!(RedisModule_ReplyWithCallReply)(self.context, reply.raw()) };
        if sent == raw::REDISMODULE_OK {
            self.owed.sent(0);
        }
    }

    /// The head of an array; so many replies follow.
    pub fn array(&self, len: usize) {
        self.owed.sent(len);
        // SAFETY: see above.
        unsafe { api!(RedisModule_ReplyWithArray)(self.context, len as _) };
    }

    /// The head of a map; so many pairs of replies follow (a flat array in RESP2).
    pub fn map(&self, len: usize) {
        self.owed.sent(2 * len);
        // SAFETY: see above.
        unsafe { api!(RedisModule_ReplyWithMap)(self.context, len as _) };
    }
}

/// What a blocked client is answered with.
type Answer = Box<dyn FnOnce(&Replier<'_>)>;

/// A client that waits. It is answered exactly once: by [`BlockedClient::answer`], or with an error when the
/// handle is dropped.
pub struct BlockedClient {
    handle: Option<NonNull<raw::RedisModuleBlockedClient>>,
    measuring: bool,
}

impl BlockedClient {
    pub(crate) fn block(context: *mut raw::RedisModuleCtx) -> BlockedClient {
        // SAFETY: the context is that of a running command. No timeout is asked for, so its callback may be absent. The
        // private data of every unblock is a boxed `Option<Answer>`, freed by `free_answer`.
        let handle =
            unsafe { api!(RedisModule_BlockClient)(context, Some(reply_callback), None, Some(free_answer), 0) };
        if let Some(handle) = NonNull::new(handle) {
            // SAFETY: a blocked client that was not unblocked yet, and a static callback.
            unsafe { api!(RedisModule_SetDisconnectCallback)(handle.as_ptr(), Some(disconnected)) };
        }
        BlockedClient { handle: NonNull::new(handle), measuring: false }
    }

    /// Whether the client has left: its answer will be thrown away.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.handle.is_some_and(|handle| GONE.with_borrow(|gone| gone.contains(&(handle.as_ptr() as usize))))
    }

    /// The time from here to [`BlockedClient::measure_end`] counts as the command's (slow log, statistics).
    pub fn measure_start(&mut self) {
        if let (Some(handle), Some(start), false) =
            (self.handle, api!(RedisModule_BlockedClientMeasureTimeStart), self.measuring)
        {
            // SAFETY: a blocked client that was not unblocked yet.
            unsafe { start(handle.as_ptr()) };
            self.measuring = true;
        }
    }

    /// Ends what [`BlockedClient::measure_start`] began.
    pub fn measure_end(&mut self) {
        if let (Some(handle), Some(end), true) =
            (self.handle, api!(RedisModule_BlockedClientMeasureTimeEnd), self.measuring)
        {
            // SAFETY: a blocked client that was not unblocked yet.
            unsafe { end(handle.as_ptr()) };
            self.measuring = false;
        }
    }

    /// Answers and lets the client go. If it is gone already the answer is thrown away.
    pub fn answer(mut self, answer: impl FnOnce(&Replier<'_>) + 'static) {
        self.unblock(Some(Box::new(answer)));
    }

    /// Begins an answer that is written bit by bit, over several turns of the server's loop.
    #[must_use]
    pub fn write_slowly(self) -> SlowAnswer {
        // SAFETY: a blocked client that was not unblocked yet; for none the context is null, which writes nothing.
        let context = self.handle.map(|handle| unsafe { api!(RedisModule_GetThreadSafeContext)(handle.as_ptr()) });
        SlowAnswer { client: self, context: context.and_then(NonNull::new), len: 0 }
    }

    fn unblock(&mut self, answer: Option<Answer>) {
        self.measure_end();
        let Some(handle) = self.handle.take() else { return };
        GONE.with_borrow_mut(|gone| gone.remove(&(handle.as_ptr() as usize)));
        let data = Box::into_raw(Box::new(answer)).cast::<c_void>();
        // SAFETY: the handle is valid until this call, which happens once because it was taken; also for clients that
        // disconnected or whose block was refused the server wants it. The data is freed by `free_answer`.
        unsafe { api!(RedisModule_UnblockClient)(handle.as_ptr(), data) };
    }
}

thread_local! {
    /// Addresses of the handles of blocked clients that have left and were not unblocked yet.
    static GONE: RefCell<HashSet<usize>> = RefCell::default();
}

unsafe extern "C" fn disconnected(_context: *mut raw::RedisModuleCtx, client: *mut raw::RedisModuleBlockedClient) {
    guarded("a disconnection", (), || {
        GONE.with_borrow_mut(|gone| gone.insert(client as usize));
    });
}

impl Drop for BlockedClient {
    fn drop(&mut self) {
        if self.handle.is_some() {
            self.unblock(Some(Box::new(|reply| reply.error("INTERNAL the request was dropped without an answer"))));
        }
    }
}

/// An answer to a blocked client, written bit by bit: an array whose length shows at its end.
pub struct SlowAnswer {
    client: BlockedClient,
    context: Option<NonNull<raw::RedisModuleCtx>>,
    len: usize,
}

impl SlowAnswer {
    /// Writes one element of the array.
    pub fn element(&mut self, write: impl FnOnce(&Replier<'_>)) {
        let Some(context) = self.context else { return };
        if self.len == 0 {
            self.begin(context);
        }
        let owed = Owed::one();
        guarded("a part of an answer", (), || write(&Replier::new(context.as_ptr(), &owed)));
        owed.settle(context.as_ptr());
        self.len += 1;
    }

    fn begin(&self, context: NonNull<raw::RedisModuleCtx>) {
        // SAFETY: the thread-safe context of a blocked client; what is written to it is kept for that client.
        unsafe {
            api!(RedisModule_ReplyWithArray)(context.as_ptr(), raw::REDISMODULE_POSTPONED_LEN.into());
        }
    }

    /// Sends the answer.
    pub fn finish(mut self) {
        let Some(context) = self.context.take() else { return };
        if self.len == 0 {
            self.begin(context);
        }
        // SAFETY: an array of postponed length was begun in this context, which is freed once, here.
        unsafe {
            api!(RedisModule_ReplySetArrayLength)(context.as_ptr(), self.len as _);
            api!(RedisModule_FreeThreadSafeContext)(context.as_ptr());
        }
        self.client.unblock(None);
    }
}

impl Drop for SlowAnswer {
    fn drop(&mut self) {
        if let Some(context) = self.context.take() {
            // SAFETY: freed once; the client is answered with an error when it is dropped. An array that was begun is
            // closed, so that the reply stays readable.
            unsafe {
                if self.len > 0 {
                    api!(RedisModule_ReplySetArrayLength)(context.as_ptr(), self.len as _);
                }
                api!(RedisModule_FreeThreadSafeContext)(context.as_ptr());
            }
            if self.len > 0 {
                self.client.unblock(None);
            }
        }
    }
}

unsafe extern "C" fn reply_callback(
    context: *mut raw::RedisModuleCtx,
    _argv: *mut *mut raw::RedisModuleString,
    _argc: c_int,
) -> c_int {
    // SAFETY: inside a reply callback, so the private data is what `unblock` gave: a boxed `Option<Answer>` that
    // `free_answer` frees after us.
    let data = unsafe { api!(RedisModule_GetBlockedClientPrivateData)(context) }.cast::<Option<Answer>>();
    // SAFETY: as above; nobody else refers to it now.
    if let Some(answer) = NonNull::new(data).and_then(|mut data| unsafe { data.as_mut() }.take()) {
        let owed = Owed::one();
        guarded("an answer", (), || answer(&Replier::new(context, &owed)));
        owed.settle(context);
    }
    raw::REDISMODULE_OK
}

unsafe extern "C" fn free_answer(_context: *mut raw::RedisModuleCtx, data: *mut c_void) {
    if !data.is_null() {
        // SAFETY: made by `Box::into_raw` in `unblock`; the server calls this once per unblock.
        drop(unsafe { Box::from_raw(data.cast::<Option<Answer>>()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_counts_the_elements_of_arrays_that_are_not_written_yet() {
        let owed = Owed::one();
        owed.sent(2);
        owed.sent(3);
        assert_eq!(owed.0.get(), 4, "an array of two whose first element is an array of three");
        (0..4).for_each(|_| owed.sent(0));
        assert_eq!(owed.0.get(), 0);
        owed.sent(0);
        assert_eq!(owed.0.get(), 0, "a reply too many does not wrap around");
    }
}
