//! Results as plain values: tuples and dicts, from which Python makes the classes of `redgrease.filecache.reports`.

use std::path::Path;
use std::time::SystemTime;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use redgrease_filecache::{Cursor, Evicted, Finding, Info, Level, Limits, Lock, Maintained, Stat, Stats, Verification};

/// Cursor of a listing.
#[pyclass(frozen, module = "redgrease._native")]
pub struct FileCacheCursor(pub(super) Cursor);

pub(super) fn timestamp(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The fields of `redgrease.filecache.Stat`, in its order.
pub(super) fn stat_tuple<'py>(py: Python<'py>, stat: &Stat) -> PyResult<Bound<'py, PyTuple>> {
    let user = PyDict::new(py);
    for (name, value) in &stat.user {
        user.set_item(name, value)?;
    }
    (
        PyBytes::new(py, &stat.key),
        stat.fence,
        stat.size,
        timestamp(stat.created),
        stat.last_used.map(timestamp),
        stat.expires.map(timestamp),
        stat.pinned,
        PyBytes::new(py, &stat.digest),
        stat.content_type.as_deref(),
        user,
    )
        .into_pyobject(py)
}

pub(super) fn limits_dict<'py>(py: Python<'py>, limits: &Limits) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("max_bytes", limits.max_bytes)?;
    dict.set_item("max_entries", limits.max_entries)?;
    dict.set_item("max_entry_bytes", limits.max_entry_bytes)?;
    dict.set_item("min_free_bytes", limits.min_free_bytes)?;
    dict.set_item("max_age", limits.max_age.as_secs_f64())?;
    dict.set_item("max_idle", limits.max_idle.as_secs_f64())?;
    dict.set_item("low_mark", limits.low_mark)?;
    Ok(dict)
}

pub(super) fn path_text<'py>(py: Python<'py>, path: &Path) -> PyResult<Bound<'py, PyString>> {
    path.as_os_str().into_pyobject(py).map_err(PyErr::from)
}

pub(super) type PageTuple<'py> = (Vec<Bound<'py, PyTuple>>, Option<FileCacheCursor>);

pub(super) fn page_tuple<'py>(py: Python<'py>, page: (Vec<Stat>, Option<Cursor>)) -> PyResult<PageTuple<'py>> {
    let stats = page.0.iter().map(|stat| stat_tuple(py, stat)).collect::<PyResult<_>>()?;
    Ok((stats, page.1.map(FileCacheCursor)))
}

pub(super) fn info_dict<'py>(py: Python<'py>, info: &Info) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("id", format!("{:016x}", info.id))?;
    dict.set_item("namespace", &info.namespace)?;
    dict.set_item("entries", info.entries)?;
    dict.set_item("bytes", info.bytes)?;
    dict.set_item("reserved_bytes", info.reserved_bytes)?;
    dict.set_item("garbage_bytes", info.garbage_bytes)?;
    dict.set_item("free_bytes", info.free_bytes)?;
    dict.set_item("limits", limits_dict(py, &info.limits)?)?;
    dict.set_item("sessions", info.sessions)?;
    dict.set_item("writers", info.writers)?;
    dict.set_item("readers", info.readers)?;
    dict.set_item("evicted", info.evicted)?;
    Ok(dict)
}

pub(super) fn stats_dict(py: Python<'_>, stats: Stats) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    for (name, number) in [
        ("hits", stats.hits),
        ("misses", stats.misses),
        ("waits", stats.waits),
        ("creates", stats.creates),
        ("busy", stats.busy),
        ("timeouts", stats.timeouts),
        ("unlinked", stats.unlinked),
        ("bytes_read", stats.bytes_read),
        ("bytes_written", stats.bytes_written),
        ("lease_losses", stats.lease_losses),
        ("corrupt", stats.corrupt),
        ("rebuilds", stats.rebuilds),
        ("index_errors", stats.index_errors),
        ("round_trips", stats.round_trips),
    ] {
        dict.set_item(name, number)?;
    }
    Ok(dict)
}

pub(super) fn locks_list<'py>(py: Python<'py>, locks: &[Lock]) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let dict_of = |lock: &Lock| {
        let dict = PyDict::new(py);
        dict.set_item("key", PyBytes::new(py, &lock.key))?;
        dict.set_item("kind", lock.kind.as_str())?;
        dict.set_item("owner", &lock.owner)?;
        dict.set_item("age", lock.age.map(|age| age.as_secs_f64()))?;
        dict.set_item("left", lock.left.as_secs_f64())?;
        dict.set_item("fence", lock.fence)?;
        Ok(dict)
    };
    locks.iter().map(dict_of).collect()
}

pub(super) type EvictedTuple<'py> = (u64, u64, Vec<Bound<'py, PyBytes>>);

pub(super) fn evicted_tuple<'py>(py: Python<'py>, evicted: &Evicted) -> EvictedTuple<'py> {
    (evicted.entries, evicted.bytes, evicted.keys.iter().map(|key| PyBytes::new(py, key)).collect())
}

pub(super) fn maintained_dict(py: Python<'_>, done: Maintained) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("unlinked", done.unlinked)?;
    dict.set_item("orphans", done.orphans)?;
    dict.set_item("temporaries", done.temporaries)?;
    Ok(dict)
}

pub(super) fn verification_dict<'py>(py: Python<'py>, found: &Verification) -> PyResult<Bound<'py, PyDict>> {
    let problems: Vec<_> = found
        .problems
        .iter()
        .map(|problem| (problem.kind.as_str(), &problem.name, &problem.message, problem.repaired))
        .collect();
    let dict = PyDict::new(py);
    dict.set_item("entries", found.entries)?;
    dict.set_item("files", found.files)?;
    dict.set_item("bytes", found.bytes)?;
    dict.set_item("problems", problems)?;
    Ok(dict)
}

pub(super) fn findings_list<'py>(py: Python<'py>, findings: &[Finding]) -> PyResult<Bound<'py, PyList>> {
    let tuple_of = |finding: &Finding| {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        (level, finding.name, finding.message.clone())
    };
    PyList::new(py, findings.iter().map(tuple_of))
}
