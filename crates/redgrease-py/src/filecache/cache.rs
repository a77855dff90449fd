//! The blocking cache. Waits listen to signals.

use std::cell::Cell;
use std::sync::Mutex;
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use redgrease_filecache::{Begun, Error, FileCache, Limits, Outcome};

use super::arguments::{DEPTHS, evict_of, key_of, limits_of, optional_seconds, options_of, put_of, seconds, word};
use super::exceptions::{raise, warn, within};
use super::gil::without_gil;
use super::handle::FileCacheHandle;
use super::results::{
    EvictedTuple, FileCacheCursor, PageTuple, evicted_tuple, findings_list, info_dict, locks_list, maintained_dict,
    page_tuple, stat_tuple, stats_dict, verification_dict,
};
use super::writer::FileCacheWriter;

thread_local! {
    /// Whether this thread waits and receives signals.
    static LISTENS: Cell<bool> = const { Cell::new(false) };
    /// The exception that a signal raised while this thread waited.
    static RAISED: Cell<Option<PyErr>> = const { Cell::new(None) };
}

/// Called periodically by waits of the cache: whether a signal ends them (Ctrl-C).
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

/// Whether the calling thread receives signals.
fn gets_signals(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import(intern!(py, "threading"))?;
    let main = threading.call_method0(intern!(py, "main_thread"))?.getattr(intern!(py, "ident"))?;
    main.eq(threading.call_method0(intern!(py, "get_ident"))?)
}

/// An opened cache.
#[pyclass(frozen, module = "redgrease._native")]
pub struct FileCacheCore {
    /// `Some` until the object is dropped.
    cache: Option<FileCache>,
    /// Reused buffer into which contents are read before they are copied into a Python object.
    buffer: Mutex<Vec<u8>>,
}

/// The largest buffer that is kept. Two new allocations for each large content would cost more than reading it.
const MAX_BUFFER: usize = 16 << 20;

impl Drop for FileCacheCore {
    fn drop(&mut self) {
        // This may end the session.
        if let Some(cache) = self.cache.take() {
            without_gil(move || drop(cache));
        }
    }
}

impl FileCacheCore {
    fn cache(&self) -> &FileCache {
        self.cache.as_ref().expect("it is there until the object is dropped")
    }

    /// Calls the cache without the GIL.
    fn call<T: Send>(&self, py: Python<'_>, call: impl FnOnce(&FileCache) -> Result<T, Error> + Send) -> PyResult<T> {
        py.detach(|| call(self.cache())).map_err(|error| raise(py, &error))
    }

    /// Calls an operation that may wait; a signal ends it.
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
        // The caller of the constructor that opens it.
        if let Err(error) = cache.warnings().iter().try_for_each(|text| warn(py, text, 3)) {
            without_gil(move || drop(cache));
            return Err(error);
        }
        cache.set_interrupt(is_interrupted);
        Ok(FileCacheCore { cache: Some(cache), buffer: Mutex::default() })
    }

    fn read<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        timeout: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let key = key_of("read", key)?;
        let timeout = within(py, "read", Some(&key), seconds("timeout", timeout))?;
        let buffer = self.buffer.try_lock().map(|mut buffer| std::mem::take(&mut *buffer)).unwrap_or_default();
        let content = self.acquire(py, timeout, |cache| cache.read_into(&key, timeout, buffer))?;
        let object = PyBytes::new(py, &content);
        if content.capacity() <= MAX_BUFFER
            && let Ok(mut buffer) = self.buffer.try_lock()
            && buffer.capacity() < content.capacity()
        {
            *buffer = content;
        }
        Ok(object)
    }

    fn open_read(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<FileCacheHandle> {
        let key = key_of("open", key)?;
        let timeout = within(py, "open", Some(&key), seconds("timeout", timeout))?;
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
        let put = put_of(operation, &key, timeout, ttl, None, content_type, user)?;
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
        let put = put_of("create", &key, timeout, ttl, size, content_type, user)?;
        let writer = self.acquire(py, put.timeout, |cache| {
            if replace { cache.open_replace(&key, &put) } else { cache.open_write(&key, &put) }
        })?;
        Ok(FileCacheWriter::new(writer))
    }

    /// The outcome with a handle, or with a writer that the caller has to fill.
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
        let put = put_of("get_or_create", &key, timeout, ttl, size, content_type, user)?;
        Ok(begun_parts(self.acquire(py, put.timeout, |cache| cache.begin(&key, &put))?))
    }

    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = key_of("delete", key)?;
        self.call(py, |cache| cache.delete(&key))
    }

    fn touch(&self, py: Python<'_>, key: &Bound<'_, PyAny>, ttl: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let key = key_of("touch", key)?;
        let ttl = within(py, "touch", Some(&key), optional_seconds("ttl", ttl))?;
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
        let what = within(py, "evict", None, evict_of(py, to_bytes, older_than, idle_for, prefix, dry_run))?;
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
        repair: bool,
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
            if repair { self.cache().repair(depth, &mut report) } else { self.cache().verify(depth, &mut report) }
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

fn begun_parts(begun: Begun) -> (&'static str, Option<FileCacheHandle>, Option<FileCacheWriter>) {
    match begun {
        Begun::Hit(handle, outcome) => (outcome.as_str(), Some(FileCacheHandle::new(*handle)), None),
        Begun::Create(writer) => (Outcome::Created.as_str(), None, Some(FileCacheWriter::new(*writer))),
    }
}
