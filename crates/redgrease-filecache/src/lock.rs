//! The mutexes of this crate.
//!
//! They are those of std, not of `parking_lot`: the child of a fork continues with its own cache, and `parking_lot`'s
//! global table of waiting threads may have been locked by a thread that the child does not have.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, ignoring poisoning: the guarded values are consistent after each statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
