//! Locks of the threads of this process.
//!
//! They are std's, not those of `parking_lot`: the child of a fork goes on with a cache of its own, and the table of waiting
//! threads, which `parking_lot` has for the whole process, may have been locked by a thread that the child does not have.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic in another thread: what these locks guard is whole after each statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
