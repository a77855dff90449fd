//! The file cache's face to Python: arguments in, plain values and exceptions out.
//!
//! Neighbours: [`redgrease_filecache`] does the work; the package `redgrease.filecache` gives these classes their documented
//! names and is the only caller. Python's lock is given back while anything of the cache runs, and no lock of this file is
//! held while Python's is waited for.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList, PyString, PyTuple};
use redgrease_filecache::{
    Begun, Check, Code, Cursor, Depth, Durability, Error, Evict, Evicted, FileCache, Finding, Handle, Info, Level,
    Limits, Lock, Maintained, OnOutage, Options, Outcome, Put, Stat, Stats, Verification, Writer,
};

use crate::transport::lock;

mod aio;

/// Bytes that a writer gathers before it gives them to the cache.
const GATHER_BYTES: usize = 128 << 10;

// -------------------------------------------------------------------------------------------------------------
// Exceptions
// -------------------------------------------------------------------------------------------------------------

/// `redgrease.filecache.errors._of`.
static EXCEPTION_OF: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The exception for a code.
fn exception(
    py: Python<'_>,
    code: &str,
    message: &str,
    operation: &str,
    key: Option<&[u8]>,
    errno: Option<i32>,
) -> PyErr {
    let made = EXCEPTION_OF
        .get_or_try_init(py, || -> PyResult<_> {
            Ok(py.import("redgrease.filecache.errors")?.getattr("_of")?.unbind())
        })
        .and_then(|of| of.bind(py).call1((code, message, operation, key.map(|key| PyBytes::new(py, key)), errno)));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// Python's names of what the crate calls differently.
fn python_name(operation: &str) -> &str {
    match operation {
        "open_read" => "open",
        "open_write" | "open_replace" => "create",
        "begin" => "get_or_create",
        other => other,
    }
}

fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let operation = python_name(error.operation());
    let text = error.to_string();
    let message =
        text.strip_prefix(error.operation()).map_or(Cow::Borrowed(&*text), |rest| format!("{operation}{rest}").into());
    let errno = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    exception(py, error.code().as_str(), &message, operation, error.key(), errno)
}

/// What reading or writing failed with.
fn raise_io(py: Python<'_>, operation: &str, key: &[u8], error: io::Error) -> PyErr {
    match error.downcast::<Error>() {
        Ok(error) => raise(py, &error),
        Err(error) => {
            let code = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::NoSpace,
                io::ErrorKind::PermissionDenied => Code::Denied,
                _ => Code::Io,
            };
            let message = format!("{operation} {:?}: {error}", String::from_utf8_lossy(key));
            exception(py, code.as_str(), &message, operation, Some(key), error.raw_os_error())
        }
    }
}

fn bad_config(py: Python<'_>, message: &str) -> PyErr {
    exception(py, Code::BadConfig.as_str(), message, "", None, None)
}

// -------------------------------------------------------------------------------------------------------------
// Arguments
// -------------------------------------------------------------------------------------------------------------

fn kind_of(value: &Bound<'_, PyAny>) -> String {
    value.get_type().qualname().map_or_else(|_| "that".to_owned(), |name| name.to_string())
}

/// A key's bytes.
fn key_of(operation: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let py = value.py();
    if let Ok(text) = value.cast::<PyString>() {
        return match text.to_cow() {
            Ok(text) => Ok(text.as_bytes().to_vec()),
            Err(_) => {
                let message = format!(
                    "{operation} {}: not a key: the text has no UTF-8 form (it holds half of a surrogate pair); give bytes, for instance os.fsencode(name)",
                    text.repr()?.to_string_lossy()
                );
                Err(exception(py, Code::BadKey.as_str(), &message, operation, None, None))
            }
        };
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(bytes.as_bytes().to_vec());
    }
    let mend =
        if value.hasattr(intern!(py, "__fspath__"))? { ": give str(path) if that is to name the entry" } else { "" };
    Err(PyTypeError::new_err(format!("a key is str or bytes, not {}{mend}", kind_of(value))))
}

/// A duration: seconds or a `timedelta`.
fn seconds(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let py = value.py();
    let number = if value.is_instance_of::<PyBool>() { None } else { value.extract::<f64>().ok() };
    let number = match number {
        Some(number) => number,
        None => value.getattr(intern!(py, "total_seconds")).and_then(|total| total.call0()?.extract::<f64>()).map_err(
            |_| PyTypeError::new_err(format!("{name} is a number of seconds or a timedelta, not {}", kind_of(value))),
        )?,
    };
    Duration::try_from_secs_f64(number).map_err(|_| {
        bad_config(py, &format!("{name} of {number} seconds; it is a finite number of seconds, 0 or more"))
    })
}

fn optional_seconds(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    value.map(|value| seconds(name, value)).transpose()
}

/// A number of bytes or entries.
fn count(name: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if value.is_instance_of::<PyBool>() || !value.hasattr(intern!(value.py(), "__index__"))? {
        return Err(PyTypeError::new_err(format!("{name} is an int, not {}", kind_of(value))));
    }
    value.extract().map_err(|_| {
        let shown = value.repr().map_or_else(|_| String::new(), |text| text.to_string());
        bad_config(value.py(), &format!("{name} of {shown}; it is 0 or more, and less than 2^64"))
    })
}

fn optional_count(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<u64>> {
    value.map(|value| count(name, value)).transpose()
}

fn text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = value
        .cast::<PyString>()
        .map_err(|_| PyTypeError::new_err(format!("{name} is a str, not {}", kind_of(value))))?;
    text.extract().map_err(|_| PyValueError::new_err(format!("{name} has no UTF-8 form")))
}

fn truth(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.extract().map_err(|_| PyTypeError::new_err(format!("{name} is a bool, not {}", kind_of(value))))
}

/// One of several words.
fn word<T: Copy>(name: &str, value: &Bound<'_, PyAny>, words: &[(&str, T)]) -> PyResult<T> {
    let given = text(name, value)?;
    words.iter().find(|(word, _)| *word == given).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let known: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        bad_config(value.py(), &format!("{name} of {given:?}; it is one of {}", known.join(", ")))
    })
}

const DEPTHS: &[(&str, Depth)] = &[("index", Depth::Index), ("sizes", Depth::Sizes), ("digests", Depth::Digests)];
const DURABILITIES: &[(&str, Durability)] =
    &[("none", Durability::None), ("file", Durability::File), ("full", Durability::Full)];
const CHECKS: &[(&str, Check)] = &[("always", Check::Always), ("sampled", Check::Sampled), ("never", Check::Never)];
const OUTAGES: &[(&str, OnOutage)] = &[("fail", OnOutage::Fail), ("degrade", OnOutage::Degrade)];

/// What is said about new content.
fn put_of(
    timeout: &Bound<'_, PyAny>,
    ttl: Option<&Bound<'_, PyAny>>,
    size: Option<&Bound<'_, PyAny>>,
    content_type: Option<&Bound<'_, PyAny>>,
    user: Option<&Bound<'_, PyAny>>,
) -> PyResult<Put> {
    let mut put = Put {
        timeout: seconds("timeout", timeout)?,
        ttl: optional_seconds("ttl", ttl)?,
        size: optional_count("size", size)?,
        content_type: content_type.map(|value| text("content_type", value)).transpose()?,
        user: BTreeMap::new(),
    };
    if let Some(user) = user {
        let not_a_mapping = |_| PyTypeError::new_err(format!("user maps str to str; it is not a {}", kind_of(user)));
        let mut pairs = BTreeMap::new();
        for pair in user.call_method0(intern!(user.py(), "items")).map_err(not_a_mapping)?.try_iter()? {
            let (name, value) = pair?.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
            pairs.insert(text("a name in user", &name)?, text("a value in user", &value)?);
        }
        put.user = pairs;
    }
    Ok(put)
}

/// Sets bounds by their names; whether there were any.
fn limits_of(limits: &mut Limits, values: &Bound<'_, PyDict>) -> PyResult<bool> {
    let mut any = false;
    let mut get = |name: &str| -> PyResult<Option<Bound<'_, PyAny>>> {
        let value = values.get_item(name)?.filter(|value| !value.is_none());
        any |= value.is_some();
        Ok(value)
    };
    for (name, place) in [
        ("max_bytes", &mut limits.max_bytes),
        ("max_entries", &mut limits.max_entries),
        ("max_entry_bytes", &mut limits.max_entry_bytes),
        ("min_free_bytes", &mut limits.min_free_bytes),
    ] {
        if let Some(value) = get(name)? {
            *place = count(name, &value)?;
        }
    }
    for (name, place) in [("max_age", &mut limits.max_age), ("max_idle", &mut limits.max_idle)] {
        if let Some(value) = get(name)? {
            *place = seconds(name, &value)?;
        }
    }
    if let Some(value) = get("low_mark")? {
        limits.low_mark = value
            .extract()
            .map_err(|_| PyTypeError::new_err(format!("low_mark is a float, not {}", kind_of(&value))))?;
    }
    Ok(any)
}

fn options_of(values: &Bound<'_, PyDict>) -> PyResult<Options> {
    let get = |name: &str| -> PyResult<Bound<'_, PyAny>> {
        values.get_item(name)?.ok_or_else(|| PyRuntimeError::new_err(format!("option {name} is missing")))
    };
    let directory: Vec<u8> = get("directory")?.extract()?;
    let mut options = Options::new(path_of(directory));
    let url = get("url")?;
    options.url = if url.is_none() { None } else { Some(text("url", &url)?) };
    options.namespace = text("namespace", &get("namespace")?)?;
    options.lease = seconds("lease", &get("lease")?)?;
    let mut limits = Limits::default();
    options.limits = limits_of(&mut limits, values)?.then_some(limits);
    options.durability = word("durability", &get("durability")?, DURABILITIES)?;
    options.check = word("check", &get("check")?, CHECKS)?;
    options.file_mode = mode("file_mode", &get("file_mode")?)?;
    options.directory_mode = mode("directory_mode", &get("directory_mode")?)?;
    options.connect_timeout = seconds("connect_timeout", &get("connect_timeout")?)?;
    options.command_timeout = seconds("command_timeout", &get("command_timeout")?)?;
    options.on_outage = word("on_outage", &get("on_outage")?, OUTAGES)?;
    options.adopt = truth("adopt", &get("adopt")?)?;
    options.read_only = truth("read_only", &get("read_only")?)?;
    let maintenance = get("maintenance")?;
    options.maintenance = if maintenance.is_none() { None } else { Some(seconds("maintenance", &maintenance)?) };
    Ok(options)
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;

    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn mode(name: &str, value: &Bound<'_, PyAny>) -> PyResult<u32> {
    let bits = count(name, value)?;
    u32::try_from(bits).ok().filter(|bits| *bits <= 0o7777).ok_or_else(|| {
        bad_config(value.py(), &format!("{name} of 0o{bits:o}; permissions are 0o0 to 0o7777, for instance 0o640"))
    })
}

// -------------------------------------------------------------------------------------------------------------
// Results
// -------------------------------------------------------------------------------------------------------------

fn timestamp(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The fields of `redgrease.filecache.Stat`, in its order.
fn stat_tuple<'py>(py: Python<'py>, stat: &Stat) -> PyResult<Bound<'py, PyTuple>> {
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

fn limits_dict<'py>(py: Python<'py>, limits: &Limits) -> PyResult<Bound<'py, PyDict>> {
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

fn path_text<'py>(py: Python<'py>, path: &Path) -> PyResult<Bound<'py, PyString>> {
    path.as_os_str().into_pyobject(py).map_err(PyErr::from)
}

type PageTuple<'py> = (Vec<Bound<'py, PyTuple>>, Option<FileCacheCursor>);

fn page_tuple<'py>(py: Python<'py>, page: (Vec<Stat>, Option<Cursor>)) -> PyResult<PageTuple<'py>> {
    let stats = page.0.iter().map(|stat| stat_tuple(py, stat)).collect::<PyResult<_>>()?;
    Ok((stats, page.1.map(FileCacheCursor)))
}

fn info_dict<'py>(py: Python<'py>, info: &Info) -> PyResult<Bound<'py, PyDict>> {
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

fn stats_dict(py: Python<'_>, stats: Stats) -> PyResult<Bound<'_, PyDict>> {
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

fn locks_list<'py>(py: Python<'py>, locks: &[Lock]) -> PyResult<Vec<Bound<'py, PyDict>>> {
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

/// What to evict; refuses to choose everything by saying nothing.
fn evict_of(
    py: Python<'_>,
    to_bytes: Option<&Bound<'_, PyAny>>,
    older_than: Option<&Bound<'_, PyAny>>,
    idle_for: Option<&Bound<'_, PyAny>>,
    prefix: Option<&Bound<'_, PyAny>>,
    dry_run: bool,
) -> PyResult<Evict> {
    let what = Evict {
        to_bytes: optional_count("to_bytes", to_bytes)?,
        older_than: optional_seconds("older_than", older_than)?,
        idle_for: optional_seconds("idle_for", idle_for)?,
        prefix: prefix.map(|prefix| key_of("evict", prefix)).transpose()?,
        dry_run,
    };
    if what == (Evict { dry_run, ..Evict::default() }) {
        let mend = "evict: nothing is chosen; give to_bytes, older_than, idle_for or prefix, or call clear()";
        return Err(bad_config(py, mend));
    }
    Ok(what)
}

type EvictedTuple<'py> = (u64, u64, Vec<Bound<'py, PyBytes>>);

fn evicted_tuple<'py>(py: Python<'py>, evicted: &Evicted) -> EvictedTuple<'py> {
    (evicted.entries, evicted.bytes, evicted.keys.iter().map(|key| PyBytes::new(py, key)).collect())
}

fn maintained_dict(py: Python<'_>, done: Maintained) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("unlinked", done.unlinked)?;
    dict.set_item("orphans", done.orphans)?;
    dict.set_item("temporaries", done.temporaries)?;
    Ok(dict)
}

fn verification_dict<'py>(py: Python<'py>, found: &Verification) -> PyResult<Bound<'py, PyDict>> {
    let problems: Vec<_> = found
        .problems
        .iter()
        .map(|problem| (problem.kind.as_str(), &problem.name, &problem.message, problem.mended))
        .collect();
    let dict = PyDict::new(py);
    dict.set_item("entries", found.entries)?;
    dict.set_item("files", found.files)?;
    dict.set_item("bytes", found.bytes)?;
    dict.set_item("problems", problems)?;
    Ok(dict)
}

fn findings_list<'py>(py: Python<'py>, findings: &[Finding]) -> PyResult<Bound<'py, PyList>> {
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

// -------------------------------------------------------------------------------------------------------------
// Waiting
// -------------------------------------------------------------------------------------------------------------

thread_local! {
    /// Whether this thread waits and is the one that gets signals.
    static LISTENS: Cell<bool> = const { Cell::new(false) };
    /// What a signal raised while this thread waited.
    static RAISED: Cell<Option<PyErr>> = const { Cell::new(None) };
}

/// Asked by waits of the cache now and then: whether a signal ends them (Ctrl-C).
fn is_interrupted() -> bool {
    if !LISTENS.get() {
        return false;
    }
    let raised = Python::attach(|py| py.check_signals()).err();
    let came = raised.is_some();
    if came {
        RAISED.set(raised);
    }
    came
}

/// Whether signals come to the calling thread.
fn gets_signals(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import(intern!(py, "threading"))?;
    let main = threading.call_method0(intern!(py, "main_thread"))?.getattr(intern!(py, "ident"))?;
    main.eq(threading.call_method0(intern!(py, "get_ident"))?)
}

// -------------------------------------------------------------------------------------------------------------
// Classes
// -------------------------------------------------------------------------------------------------------------

/// An opened cache.
#[pyclass(frozen, module = "redgrease._native")]
struct FileCacheCore {
    /// There until the object is dropped.
    cache: Option<FileCache>,
}

impl Drop for FileCacheCore {
    fn drop(&mut self) {
        // The session may have to be ended.
        if let Some(cache) = self.cache.take() {
            without_lock(move || drop(cache));
        }
    }
}

impl FileCacheCore {
    fn cache(&self) -> &FileCache {
        self.cache.as_ref().expect("it is there until the object is dropped")
    }

    /// Calls the cache without Python's lock.
    fn call<T: Send>(&self, py: Python<'_>, call: impl FnOnce(&FileCache) -> Result<T, Error> + Send) -> PyResult<T> {
        py.detach(|| call(self.cache())).map_err(|error| raise(py, &error))
    }

    /// Calls what may wait; a signal ends it.
    fn acquire<T: Send>(
        &self,
        py: Python<'_>,
        timeout: Duration,
        attempt: impl FnOnce(&FileCache) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        LISTENS.set(!timeout.is_zero() && gets_signals(py)?);
        let done = py.detach(|| attempt(self.cache()));
        LISTENS.set(false);
        match RAISED.take() {
            None => done.map_err(|error| raise(py, &error)),
            Some(raised) => {
                py.detach(|| drop(done));
                Err(raised)
            }
        }
    }
}

#[pymethods]
impl FileCacheCore {
    #[new]
    fn new(py: Python<'_>, options: &Bound<'_, PyDict>) -> PyResult<FileCacheCore> {
        let options = options_of(options)?;
        let cache = py.detach(|| FileCache::open(options)).map_err(|error| raise(py, &error))?;
        cache.set_interrupt(is_interrupted);
        Ok(FileCacheCore { cache: Some(cache) })
    }

    fn read<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        timeout: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let key = key_of("read", key)?;
        let timeout = seconds("timeout", timeout)?;
        let data = self.acquire(py, timeout, |cache| cache.read(&key, timeout))?;
        Ok(PyBytes::new(py, &data))
    }

    fn open_read(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<FileCacheHandle> {
        let key = key_of("open", key)?;
        let timeout = seconds("timeout", timeout)?;
        Ok(FileCacheHandle::new(self.acquire(py, timeout, |cache| cache.open_read(&key, timeout))?))
    }

    fn exists(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = key_of("exists", key)?;
        self.call(py, |cache| cache.exists(&key))
    }

    fn stat<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let key = key_of("stat", key)?;
        self.call(py, |cache| cache.stat(&key))?.map(|stat| stat_tuple(py, &stat)).transpose()
    }

    #[expect(clippy::too_many_arguments)]
    fn put<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        data: &Bound<'py, PyBytes>,
        replace: bool,
        timeout: &Bound<'py, PyAny>,
        ttl: Option<&Bound<'py, PyAny>>,
        content_type: Option<&Bound<'py, PyAny>>,
        user: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let operation = if replace { "replace" } else { "write" };
        let key = key_of(operation, key)?;
        let put = put_of(timeout, ttl, None, content_type, user)?;
        let data = data.as_bytes();
        let stat = self.acquire(py, put.timeout, |cache| {
            if replace { cache.replace(&key, data, &put) } else { cache.write(&key, data, &put) }
        })?;
        stat_tuple(py, &stat)
    }

    #[expect(clippy::too_many_arguments)]
    fn open_write(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        replace: bool,
        timeout: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        size: Option<&Bound<'_, PyAny>>,
        content_type: Option<&Bound<'_, PyAny>>,
        user: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<FileCacheWriter> {
        let key = key_of("create", key)?;
        let put = put_of(timeout, ttl, size, content_type, user)?;
        let writer = self.acquire(py, put.timeout, |cache| {
            if replace { cache.open_replace(&key, &put) } else { cache.open_write(&key, &put) }
        })?;
        Ok(FileCacheWriter::new(writer))
    }

    /// The outcome with a handle, or with a writer that somebody has to fill.
    #[expect(clippy::too_many_arguments)]
    fn begin(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        timeout: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        size: Option<&Bound<'_, PyAny>>,
        content_type: Option<&Bound<'_, PyAny>>,
        user: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(&'static str, Option<FileCacheHandle>, Option<FileCacheWriter>)> {
        let key = key_of("get_or_create", key)?;
        let put = put_of(timeout, ttl, size, content_type, user)?;
        Ok(begun_parts(self.acquire(py, put.timeout, |cache| cache.begin(&key, &put))?))
    }

    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = key_of("delete", key)?;
        self.call(py, |cache| cache.delete(&key))
    }

    fn touch(&self, py: Python<'_>, key: &Bound<'_, PyAny>, ttl: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let key = key_of("touch", key)?;
        let ttl = optional_seconds("ttl", ttl)?;
        self.call(py, |cache| cache.touch(&key, ttl))
    }

    fn pin(&self, py: Python<'_>, key: &Bound<'_, PyAny>, pinned: bool) -> PyResult<bool> {
        let key = key_of(if pinned { "pin" } else { "unpin" }, key)?;
        self.call(py, |cache| cache.pin(&key, pinned))
    }

    fn list<'py>(
        &self,
        py: Python<'py>,
        cursor: Option<&Bound<'py, FileCacheCursor>>,
        count: usize,
    ) -> PyResult<PageTuple<'py>> {
        let cursor = cursor.map(|cursor| cursor.get().0.clone()).unwrap_or_default();
        page_tuple(py, self.call(py, |cache| cache.list(cursor, count))?)
    }

    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        info_dict(py, &self.call(py, FileCache::info)?)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        stats_dict(py, py.detach(|| self.cache().stats()))
    }

    fn locks<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        locks_list(py, &self.call(py, FileCache::locks)?)
    }

    fn break_lock(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = key_of("break_lock", key)?;
        self.call(py, |cache| cache.break_lock(&key))
    }

    fn evict<'py>(
        &self,
        py: Python<'py>,
        to_bytes: Option<&Bound<'py, PyAny>>,
        older_than: Option<&Bound<'py, PyAny>>,
        idle_for: Option<&Bound<'py, PyAny>>,
        prefix: Option<&Bound<'py, PyAny>>,
        dry_run: bool,
    ) -> PyResult<EvictedTuple<'py>> {
        let what = evict_of(py, to_bytes, older_than, idle_for, prefix, dry_run)?;
        Ok(evicted_tuple(py, &self.call(py, |cache| cache.evict(&what))?))
    }

    fn clear(&self, py: Python<'_>) -> PyResult<u64> {
        self.call(py, FileCache::clear)
    }

    fn configure(&self, py: Python<'_>, limits: &Bound<'_, PyDict>) -> PyResult<()> {
        let mut bounds = Limits::default();
        limits_of(&mut bounds, limits)?;
        self.call(py, |cache| cache.configure(&bounds))
    }

    fn maintain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        maintained_dict(py, self.call(py, FileCache::maintain)?)
    }

    fn verify<'py>(
        &self,
        py: Python<'py>,
        depth: &Bound<'py, PyAny>,
        mend: bool,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let depth = word("depth", depth, DEPTHS)?;
        let mut raised: Option<PyErr> = None;
        let found = py.detach(|| {
            let mut report = |done: u64, total: u64| {
                let told = Python::attach(|py| {
                    py.check_signals()?;
                    progress.as_ref().map_or(Ok(()), |progress| progress.bind(py).call1((done, total)).map(drop))
                });
                raised = told.err();
                raised.is_none()
            };
            if mend { self.cache().repair(depth, &mut report) } else { self.cache().verify(depth, &mut report) }
        });
        if let Some(error) = raised {
            return Err(error);
        }
        let found = found.map_err(|error| raise(py, &error))?;
        verification_dict(py, &found)
    }

    fn doctor<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        findings_list(py, &self.call(py, FileCache::doctor)?)
    }
}

/// Where a listing goes on.
#[pyclass(frozen, module = "redgrease._native")]
struct FileCacheCursor(Cursor);

fn begun_parts(begun: Begun) -> (&'static str, Option<FileCacheHandle>, Option<FileCacheWriter>) {
    match begun {
        Begun::Hit(handle, outcome) => (outcome.as_str(), Some(FileCacheHandle::new(*handle)), None),
        Begun::Create(writer) => (Outcome::Created.as_str(), None, Some(FileCacheWriter::new(*writer))),
    }
}

/// An entry that is being read.
#[pyclass(frozen, module = "redgrease._native")]
struct FileCacheHandle {
    stat: Stat,
    path: PathBuf,
    descriptor: i32,
    process: u32,
    /// Where the cache of a handle for coroutines lives.
    runtime: Option<tokio::runtime::Handle>,
    handle: Mutex<Option<Handle>>,
}

impl FileCacheHandle {
    fn new(handle: Handle) -> FileCacheHandle {
        FileCacheHandle {
            process: std::process::id(),
            runtime: tokio::runtime::Handle::try_current().ok(),
            stat: handle.stat(),
            path: handle.path(),
            descriptor: handle.file().as_raw_fd(),
            handle: Mutex::new(Some(handle)),
        }
    }
}

impl FileCacheHandle {
    /// Reads into a buffer as far as there is something; how much.
    fn fill(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut place = lock(&self.handle);
        let handle = place.as_mut().ok_or_else(|| io::Error::other("this handle is closed"))?;
        if self.process != std::process::id() {
            // A child of a fork shares the place in the file with its parent, and so does not move it.
            return handle.file().read_at(buffer, at);
        }
        let _context = self.runtime.as_ref().map(tokio::runtime::Handle::enter);
        if handle.stream_position()? != at {
            handle.seek(io::SeekFrom::Start(at))?;
        }
        let mut filled = 0;
        while filled < buffer.len() {
            match handle.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl Drop for FileCacheHandle {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.get_mut().ok().and_then(Option::take) {
            without_lock(move || drop(handle));
        }
    }
}

/// Gives Python's lock back while something is dropped that may take long.
fn without_lock(work: impl FnOnce() + Send) {
    let mut work = Some(work);
    let _ = Python::try_attach(|py| py.detach(|| work.take().map(|work| work())));
    if let Some(work) = work {
        work();
    }
}

#[pymethods]
impl FileCacheHandle {
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.stat.key)
    }

    #[getter]
    fn size(&self) -> u64 {
        self.stat.size
    }

    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        path_text(py, &self.path)
    }

    fn fileno(&self) -> i32 {
        self.descriptor
    }

    /// Up to `count` bytes from `at`. All that is read in one go from the beginning to the end is compared with the digest.
    fn read<'py>(&self, py: Python<'py>, at: u64, count: usize) -> PyResult<Bound<'py, PyBytes>> {
        let left = usize::try_from(self.stat.size.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut filled = 0;
        let bytes = PyBytes::new_with(py, count.min(left), |buffer| {
            let read = py.detach(|| self.fill(at, buffer));
            filled = read.map_err(|error| raise_io(py, "read", &self.stat.key, error))?;
            Ok(())
        })?;
        if filled == bytes.as_bytes().len() { Ok(bytes) } else { Ok(PyBytes::new(py, &bytes.as_bytes()[..filled])) }
    }

    fn stat<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        stat_tuple(py, &self.stat)
    }

    fn lease_lost(&self, py: Python<'_>) -> bool {
        py.detach(|| lock(&self.handle).as_ref().is_some_and(Handle::lease_lost))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(lock(&self.handle).take()));
    }
}

/// Refuses what only the process that began to write may do.
fn check_process(py: Python<'_>, operation: &str, key: &[u8], process: u32) -> PyResult<()> {
    if process == std::process::id() {
        return Ok(());
    }
    let name = String::from_utf8_lossy(key);
    let message = format!(
        "{operation} {name:?}: the writer is that of process {process}, which forked this one; create another here"
    );
    Err(exception(py, Code::LeaseLost.as_str(), &message, operation, Some(key), None))
}

fn closed(key: &[u8]) -> PyErr {
    PyValueError::new_err(format!("the writer of {:?} is closed", String::from_utf8_lossy(key)))
}

/// An entry that is being made.
#[pyclass(frozen, module = "redgrease._native")]
struct FileCacheWriter {
    key: Vec<u8>,
    /// Whoever forked has the lease: the child of a fork can only forget the writer.
    process: u32,
    state: Mutex<Option<Filling>>,
}

/// A writer and what it was not given yet.
struct Filling {
    writer: Writer,
    gathered: Vec<u8>,
}

impl Filling {
    fn flush(&mut self) -> io::Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        self.writer.write_all(&gathered)
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        if self.gathered.len() + data.len() <= GATHER_BYTES {
            self.gathered.extend_from_slice(data);
            return Ok(());
        }
        self.flush()?;
        if data.len() < GATHER_BYTES {
            self.gathered.extend_from_slice(data);
            return Ok(());
        }
        self.writer.write_all(data)
    }
}

impl FileCacheWriter {
    fn new(writer: Writer) -> FileCacheWriter {
        FileCacheWriter {
            key: writer.key().to_vec(),
            process: std::process::id(),
            state: Mutex::new(Some(Filling { writer, gathered: Vec::new() })),
        }
    }

    fn take(&self) -> Option<Filling> {
        lock(&self.state).take()
    }

    /// Flushes and takes the writer for its last act.
    fn finish<T: Send>(&self, py: Python<'_>, act: impl FnOnce(Writer) -> Result<T, Error> + Send) -> PyResult<T> {
        check_process(py, "commit", &self.key, self.process)?;
        let done = py.detach(|| {
            let mut filling = self.take()?;
            Some(match filling.flush() {
                Ok(()) => Ok(act(filling.writer)),
                Err(error) => Err(error),
            })
        });
        match done {
            None => Err(closed(&self.key)),
            Some(Err(error)) => Err(raise_io(py, "write", &self.key, error)),
            Some(Ok(done)) => done.map_err(|error| raise(py, &error)),
        }
    }
}

impl Drop for FileCacheWriter {
    fn drop(&mut self) {
        if let Some(filling) = self.take() {
            without_lock(move || drop(filling));
        }
    }
}

#[pymethods]
impl FileCacheWriter {
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.key)
    }

    /// The temporary file, with all that was written so far.
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        check_process(py, "path", &self.key, self.process)?;
        let path = py.detach(|| {
            let mut state = lock(&self.state);
            let filling = state.as_mut()?;
            Some(filling.flush().map(|()| filling.writer.path()))
        });
        match path {
            None => Err(closed(&self.key)),
            Some(Err(error)) => Err(raise_io(py, "write", &self.key, error)),
            Some(Ok(path)) => path_text(py, &path.map_err(|error| raise(py, &error))?),
        }
    }

    fn write(&self, py: Python<'_>, data: &Bound<'_, PyBytes>) -> PyResult<()> {
        let data = data.as_bytes();
        if data.len() < GATHER_BYTES
            && let Ok(mut state) = self.state.try_lock()
            && let Some(filling) = &mut *state
            && filling.gathered.len() + data.len() <= GATHER_BYTES
        {
            filling.gathered.extend_from_slice(data);
            return Ok(());
        }
        check_process(py, "write", &self.key, self.process)?;
        let written = py.detach(|| lock(&self.state).as_mut().map(|filling| filling.write(data)));
        written.ok_or_else(|| closed(&self.key))?.map_err(|error| raise_io(py, "write", &self.key, error))
    }

    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        if self.process != std::process::id() {
            // Closing flushes, and the child of a fork may close what is its parent's.
            return Ok(());
        }
        let flushed = py.detach(|| lock(&self.state).as_mut().map(Filling::flush));
        flushed.ok_or_else(|| closed(&self.key))?.map_err(|error| raise_io(py, "write", &self.key, error))
    }

    fn commit<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let stat = self.finish(py, Writer::commit)?;
        stat_tuple(py, &stat)
    }

    /// Commits, and goes on as a reader.
    fn commit_open(&self, py: Python<'_>) -> PyResult<FileCacheHandle> {
        Ok(FileCacheHandle::new(self.finish(py, Writer::commit_and_open)?))
    }

    fn abort(&self, py: Python<'_>) {
        py.detach(|| match self.take() {
            Some(filling) if self.process == std::process::id() => filling.writer.abort(),
            other => drop(other),
        });
    }

    fn lease_lost(&self, py: Python<'_>) -> bool {
        py.detach(|| lock(&self.state).as_ref().is_some_and(|filling| filling.writer.lease_lost()))
    }
}

/// Never drops an object: what a forked process inherited and must neither use nor end.
#[pyfunction]
fn filecache_forget(inherited: Py<PyAny>) {
    std::mem::forget(inherited);
}

/// Adds everything of this file to the module.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<FileCacheCore>()?;
    module.add_class::<FileCacheCursor>()?;
    module.add_class::<FileCacheHandle>()?;
    module.add_class::<FileCacheWriter>()?;
    module.add_function(wrap_pyfunction!(filecache_forget, module)?)?;
    aio::add_to(module)
}
