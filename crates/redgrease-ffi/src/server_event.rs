//! What the server announces.

use std::cell::Cell;
use std::ffi::{c_int, c_void};

use crate::api::api;
use crate::guard::guarded;
use crate::load::Loader;
use crate::raw;

/// An announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerEvent {
    /// The event loop is about to wait: the last moment to write what has been collected.
    BeforeSleep,
    /// The event loop has waited: handlers of what is ready come next.
    AfterSleep,
    /// Data begins to be loaded, in place of what there is.
    LoadingBegins,
    /// Data has been loaded, or failed to be.
    LoadingEnds,
    /// The server has started a child process that writes a file.
    ChildBorn,
    /// The server became a master or a replica.
    RoleChanged,
    /// The server is about to end.
    Shutdown,
    /// The data of two databases changed places.
    DatabasesSwapped(u32, u32),
}

const KINDS: [(c_int, u64, ServerEvent); 6] = [
    (raw::REDISMODULE_EVENT_EVENTLOOP, 1, ServerEvent::BeforeSleep),
    (raw::REDISMODULE_EVENT_LOADING, 1, ServerEvent::LoadingBegins),
    (raw::REDISMODULE_EVENT_FORK_CHILD, 1, ServerEvent::ChildBorn),
    (raw::REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED, 1, ServerEvent::RoleChanged),
    (raw::REDISMODULE_EVENT_SHUTDOWN, 1, ServerEvent::Shutdown),
    (raw::REDISMODULE_EVENT_SWAPDB, 1, ServerEvent::DatabasesSwapped(0, 0)),
];

thread_local! {
    static HANDLER: Cell<Option<fn(ServerEvent)>> = const { Cell::new(None) };
    /// The server announced its end.
    static ENDING: Cell<bool> = const { Cell::new(false) };
}

/// Answer to the request to unload the module: only a server that ends may do it.
#[doc(hidden)]
#[must_use]
pub fn on_unload() -> c_int {
    if ENDING.get() { raw::REDISMODULE_OK } else { raw::REDISMODULE_ERR }
}

impl Loader<'_> {
    /// Calls `handler` for every [`ServerEvent`]; may be called once.
    ///
    /// # Errors
    /// The server does not know one of the events.
    pub fn subscribe(&self, handler: fn(ServerEvent)) -> Result<(), String> {
        HANDLER.set(Some(handler));
        for (id, dataver, event) in KINDS {
            let kind = raw::RedisModuleEvent { id: id as u64, dataver };
            // SAFETY: the load context and a static callback.
            let subscribed =
                unsafe { api!(RedisModule_SubscribeToServerEvent)(self.raw_context(), kind, Some(happened)) };
            if subscribed != raw::REDISMODULE_OK {
                return Err(format!("the server does not announce {event:?}"));
            }
        }
        Ok(())
    }
}

unsafe extern "C" fn happened(
    _context: *mut raw::RedisModuleCtx,
    event: raw::RedisModuleEvent,
    subevent: u64,
    data: *mut c_void,
) {
    let Some((_, _, kind)) = KINDS.iter().find(|(id, _, _)| *id as u64 == event.id) else { return };
    let mut announced = *kind;
    if announced == ServerEvent::BeforeSleep {
        const BEFORE: u64 = raw::REDISMODULE_SUBEVENT_EVENTLOOP_BEFORE_SLEEP as u64;
        const AFTER: u64 = raw::REDISMODULE_SUBEVENT_EVENTLOOP_AFTER_SLEEP as u64;
        announced = match subevent {
            BEFORE => ServerEvent::BeforeSleep,
            AFTER => ServerEvent::AfterSleep,
            _ => return,
        };
    }
    if announced == ServerEvent::LoadingBegins {
        const ENDED: u64 = raw::REDISMODULE_SUBEVENT_LOADING_ENDED as u64;
        const FAILED: u64 = raw::REDISMODULE_SUBEVENT_LOADING_FAILED as u64;
        if matches!(subevent, ENDED | FAILED) {
            announced = ServerEvent::LoadingEnds;
        }
    }
    if announced == ServerEvent::ChildBorn && subevent != raw::REDISMODULE_SUBEVENT_FORK_CHILD_BORN as u64 {
        return;
    }
    if announced == ServerEvent::Shutdown {
        ENDING.set(true);
    }
    if let ServerEvent::DatabasesSwapped(first, second) = &mut announced {
        // SAFETY: the data of this event is null or this structure, which lives during the callback.
        let Some(info) = (unsafe { data.cast::<raw::RedisModuleSwapDbInfo>().as_ref() }) else { return };
        (*first, *second) = (info.dbnum_first as u32, info.dbnum_second as u32);
    }
    if let Some(handler) = HANDLER.get() {
        guarded("a server event", (), || handler(announced));
    }
}
