//! Work without the GIL.

use pyo3::prelude::*;

/// Releases the GIL while dropping a value, which may take long.
pub(super) fn without_gil(work: impl FnOnce() + Send) {
    let mut work = Some(work);
    let _ = Python::try_attach(|py| py.detach(|| work.take().map(|work| work())));
    if let Some(work) = work {
        work();
    }
}
