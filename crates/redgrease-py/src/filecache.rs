//! Python bindings of the file cache: arguments in, plain values and exceptions out.
//!
//! # Layout
//! - this file: the blocking cache, its handles and writers;
//! - [`aio`]: the same for coroutines;
//! - [`arguments`], [`results`], [`exceptions`]: conversion of arguments, results and errors.
//!
//! Neighbours: [`redgrease_filecache`] does the work; the package `redgrease.filecache` gives these classes their documented
//! names and is the only caller. The GIL is released while the cache works, and no lock of this file is held while waiting
//! for the GIL.

mod aio;
mod arguments;
mod exceptions;
mod results;

use std::cell::Cell;
use std::ffi::CString;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeWarning;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use redgrease_filecache::{Begun, Cursor, Error, FileCache, Handle, Limits, Outcome, Stat, Writer};

use self::arguments::{DEPTHS, evict_of, key_of, limits_of, optional_seconds, options_of, put_of, seconds, word};
use self::exceptions::{check_process, closed, raise, raise_io, within};
use self::results::{
    EvictedTuple, PageTuple, evicted_tuple, findings_list, info_dict, locks_list, maintained_dict, page_tuple,
    path_text, stat_tuple, stats_dict, verification_dict,
};
use crate::lock::lock;

/// Size of a writer's buffer, in bytes.
const GATHER_BYTES: usize = 128 << 10;

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

/// Issues a warning of Python; `level`: how many of Python's frames are this package's, and one.
fn warn(py: Python<'_>, text: &str, level: i32) -> PyResult<()> {
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, level)
}

/// An opened cache.
#[pyclass(frozen, module = "redgrease._native")]
struct FileCacheCore {
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
            without_lock(move || drop(cache));
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
            without_lock(move || drop(cache));
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

/// Cursor of a listing.
#[pyclass(frozen, module = "redgrease._native")]
struct FileCacheCursor(Cursor);

fn begun_parts(begun: Begun) -> (&'static str, Option<FileCacheHandle>, Option<FileCacheWriter>) {
    match begun {
        Begun::Hit(handle, outcome) => (outcome.as_str(), Some(FileCacheHandle::new(*handle)), None),
        Begun::Create(writer) => (Outcome::Created.as_str(), None, Some(FileCacheWriter::new(*writer))),
    }
}

/// An entry opened for reading.
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
    /// Reads into a buffer until it is full or the file ends; returns the number of bytes.
    fn fill(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut place = lock(&self.handle);
        let handle = place.as_mut().ok_or_else(|| io::Error::other("this handle is closed"))?;
        if self.process != std::process::id() {
            // A forked child shares the file position with its parent, so it must not move it.
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

/// Releases the GIL while dropping a value, which may take long.
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

    /// Up to `count` bytes from `at`. Content that is read in one go from beginning to end is compared with its digest.
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

/// An entry opened for writing.
#[pyclass(frozen, module = "redgrease._native")]
struct FileCacheWriter {
    key: Vec<u8>,
    /// The process that has the lease: a forked child can only forget the writer.
    process: u32,
    state: Mutex<Option<Filling>>,
}

/// A writer and its buffer.
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

    /// Flushes and takes the writer to finish it.
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

    /// The temporary file, with everything written so far.
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
            // Closing flushes, and a forked child may close a writer of its parent.
            return Ok(());
        }
        let flushed = py.detach(|| lock(&self.state).as_mut().map(Filling::flush));
        flushed.ok_or_else(|| closed(&self.key))?.map_err(|error| raise_io(py, "write", &self.key, error))
    }

    fn commit<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let stat = self.finish(py, Writer::commit)?;
        stat_tuple(py, &stat)
    }

    /// Commits and opens the entry for reading.
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

/// Leaks an object that a forked process inherited and must neither use nor end.
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
