//! What the calling thread runs: its execution and session, and whether it is inside an atomic block. What the server is.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use redgrease_core::id::ExecutionNo;

thread_local! {
    static CONTEXT: Cell<Context> = const { Cell::new(Context::NONE) };
    static IN_ATOMIC: Cell<bool> = const { Cell::new(false) };
}

/// Whether the server is one of several shards.
static IS_CLUSTER: AtomicBool = AtomicBool::new(false);

/// The execution and session for which a thread runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Execution.
    pub exec: Option<ExecutionNo>,
    /// Session; 0: none.
    pub session: u64,
    /// It is a coroutine that runs.
    pub is_coroutine: bool,
}

impl Context {
    /// That of a thread that runs no user code.
    pub const NONE: Context = Context { exec: None, session: 0, is_coroutine: false };

    /// The context of the calling thread.
    pub fn current() -> Context {
        CONTEXT.get()
    }

    /// Makes this the context of the calling thread.
    pub fn enter(self) {
        CONTEXT.set(self);
    }
}

/// Whether the calling thread is inside an atomic block.
pub fn in_atomic() -> bool {
    IN_ATOMIC.get()
}

/// Records that the calling thread entered or left an atomic block.
pub fn set_in_atomic(inside: bool) {
    IN_ATOMIC.set(inside);
}

/// Whether the server is one of several shards.
pub fn is_cluster() -> bool {
    IS_CLUSTER.load(Relaxed)
}

/// Records whether the server is one of several shards.
pub fn set_cluster(several: bool) {
    IS_CLUSTER.store(several, Relaxed);
}
