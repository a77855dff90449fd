//! Descriptors and timers in the server's own event loop.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use crate::api::api;
use crate::guard::guarded;
use crate::raw;
use crate::server::Server;

/// What a descriptor is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Reading, or its other end is gone.
    Readable,
    /// Writing.
    Writable,
}

impl Readiness {
    fn mask(self) -> c_int {
        match self {
            Readiness::Readable => raw::REDISMODULE_EVENTLOOP_READABLE,
            Readiness::Writable => raw::REDISMODULE_EVENTLOOP_WRITABLE,
        }
    }
}

/// Longest time of a timer: ten years, in milliseconds. The server adds it to the time of day in microseconds and does
/// not check for an overflow, with which its event loop would run the timer without end.
const TIMER_MS_MAX: u64 = 10 * 365 * 86_400_000;

type Handler = Rc<dyn Fn()>;

thread_local! {
    static HANDLERS: RefCell<HashMap<(RawFd, c_int), Handler>> = RefCell::new(HashMap::new());
}

thread_local! {
    /// Timers that have not fired: address of their data, and their id.
    static TIMERS: RefCell<HashMap<usize, raw::RedisModuleTimerID>> = RefCell::new(HashMap::new());
}

impl Server {
    /// Calls `handler` in every turn of the loop in which the descriptor is ready, until [`Server::unwatch`].
    /// The descriptor must stay open until then.
    ///
    /// # Errors
    /// The loop has no room for the descriptor (the server's `maxclients` bounds it).
    pub fn watch(&self, fd: RawFd, readiness: Readiness, handler: impl Fn() + 'static) -> Result<(), String> {
        let mask = readiness.mask();
        HANDLERS.with_borrow_mut(|handlers| handlers.insert((fd, mask), Rc::new(handler)));
        // SAFETY: the callback takes everything from our table and nothing from the user data.
        let added = unsafe { api!(RedisModule_EventLoopAdd)(fd, mask, Some(ready), std::ptr::null_mut()) };
        if added == raw::REDISMODULE_OK {
            return Ok(());
        }
        HANDLERS.with_borrow_mut(|handlers| handlers.remove(&(fd, mask)));
        Err(format!("the server's event loop takes no further descriptor ({fd}): raise maxclients"))
    }

    /// Ends [`Server::watch`].
    pub fn unwatch(&self, fd: RawFd, readiness: Readiness) {
        let mask = readiness.mask();
        if HANDLERS.with_borrow_mut(|handlers| handlers.remove(&(fd, mask))).is_some() {
            // SAFETY: added by `watch` and not removed since.
            unsafe { api!(RedisModule_EventLoopDel)(fd, mask) };
        }
    }

    /// Calls `job` once after so many milliseconds, at most ten years. What it runs in the server is one unit of replication.
    pub fn after_ms(&self, ms: u64, job: impl FnOnce() + 'static) {
        let data = Box::into_raw(Box::new(Box::new(job) as Box<dyn FnOnce()>)).cast::<c_void>();
        let ms = ms.min(TIMER_MS_MAX) as i64;
        // SAFETY: the callback, or `stop_timers`, frees the data.
        let id = unsafe { api!(RedisModule_CreateTimer)(self.raw_context(), ms, Some(timer), data) };
        TIMERS.with_borrow_mut(|timers| timers.insert(data as usize, id));
    }

    /// Forgets all jobs of [`Server::after_ms`] that wait: the server is about to end.
    pub fn stop_timers(&self) {
        let timers = TIMERS.with_borrow_mut(std::mem::take);
        for (data, id) in timers {
            // SAFETY: the timer has not fired, or it would have left the table; its data is freed once, here.
            unsafe {
                api!(RedisModule_StopTimer)(self.raw_context(), id, std::ptr::null_mut());
                drop(Box::from_raw(data as *mut Box<dyn FnOnce()>));
            }
        }
    }
}

/// A descriptor of our own for what a descriptor of the server stands for.
///
/// `pidfd_getfd` does the same for any process. systemd's filter `@system-service`, with which Debian starts Redis and Valkey,
/// kills a server that calls it.
///
/// # Errors
/// The number stands for no open descriptor.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: only the next call uses it, for which the kernel looks the number up and fails if it is not open.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
}

unsafe extern "C" fn ready(fd: RawFd, _data: *mut c_void, mask: c_int) {
    for readiness in [Readiness::Readable, Readiness::Writable] {
        if mask & readiness.mask() == 0 {
            continue;
        }
        let handler = HANDLERS.with_borrow(|handlers| handlers.get(&(fd, readiness.mask())).cloned());
        if let Some(handler) = handler {
            guarded("an event handler", (), || handler());
        }
    }
}

unsafe extern "C" fn timer(_context: *mut raw::RedisModuleCtx, data: *mut c_void) {
    TIMERS.with_borrow_mut(|timers| timers.remove(&(data as usize)));
    // SAFETY: made by `Box::into_raw` in `after_ms`; a timer fires once.
    let job = unsafe { Box::from_raw(data.cast::<Box<dyn FnOnce()>>()) };
    guarded("a timer", (), job);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_duplicate_stands_for_the_same_file_and_outlives_the_original() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut other = std::fs::File::from(duplicate(writer.as_raw_fd()).unwrap());
        drop(writer);
        other.write_all(b"x").unwrap();
        drop(other);
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "x");
    }

    #[test]
    fn what_is_not_open_is_an_error() {
        assert_eq!(duplicate(-1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(duplicate(RawFd::MAX).is_err());
    }
}
