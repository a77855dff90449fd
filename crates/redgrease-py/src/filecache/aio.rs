//! The file cache for coroutines: operations run on one runtime of this process, and a Python callback delivers their
//! results to the event loop.
//!
//! A runtime does not survive a fork: the child does not touch its parent's and starts its own.

use std::future::Future;
use std::sync::{Arc, Mutex};

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use redgrease_filecache::{Error, FileCache, Limits, Options, Outcome, aio};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;
use tokio::task::AbortHandle;

use super::arguments::{DEPTHS, evict_of, key_of, limits_of, optional_seconds, options_of, put_of, seconds, word};
use super::exceptions::{check_process, closed, raise, warn, within};
use super::handle::FileCacheHandle;
use super::results::{
    FileCacheCursor, evicted_tuple, findings_list, info_dict, locks_list, maintained_dict, page_tuple, stat_tuple,
    stats_dict, verification_dict,
};
use crate::lock::lock;

/// Threads that drive operations; blocking disk access has its own threads.
const WORKERS: usize = 2;
/// Threads for disk access.
const BLOCKING_THREADS: usize = 64;

/// The runtime, and the process that it belongs to.
static RUNTIME: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);

/// Starts `future` on the runtime. The caller holds the GIL, so that no other thread can fork meanwhile.
fn spawn(_py: Python<'_>, future: impl Future<Output = ()> + Send + 'static) -> PyResult<AbortHandle> {
    let here = std::process::id();
    let mut running = lock(&RUNTIME);
    if let Some((_, inherited)) = running.take_if(|(process, _)| *process != here) {
        // Its threads do not exist in this process: waiting for them would never end.
        std::mem::forget(inherited);
    }
    let (_, runtime) = match &mut *running {
        Some(running) => running,
        none => {
            let runtime = Builder::new_multi_thread()
                .worker_threads(WORKERS)
                .max_blocking_threads(BLOCKING_THREADS)
                .thread_name("filecache")
                .enable_all()
                .build()?;
            none.insert((here, runtime))
        }
    };
    Ok(runtime.spawn(future).abort_handle())
}

/// Stops the runtime: none of its threads enters the interpreter afterwards. A later operation starts a new one.
#[pyfunction]
fn filecache_stop_runtime(py: Python<'_>) {
    let here = std::process::id();
    py.detach(|| match lock(&RUNTIME).take() {
        Some((process, runtime)) if process == here => runtime.shutdown_timeout(std::time::Duration::from_secs(1)),
        other => std::mem::forget(other),
    });
}

/// A running operation.
#[pyclass(frozen, module = "redgrease._native")]
struct FileCacheTask(AbortHandle);

#[pymethods]
impl FileCacheTask {
    fn cancel(&self) {
        self.0.abort();
    }
}

/// Why an operation failed.
enum Failure {
    Cache(Error),
    /// The writer of this key is finished.
    Closed(Vec<u8>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Cache(error)
    }
}

impl Failure {
    fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Failure::Cache(error) => raise(py, error),
            Failure::Closed(key) => closed(key),
        }
    }
}

/// Runs an operation and calls `done` with its value or exception.
fn start<T: Send + 'static>(
    py: Python<'_>,
    done: Py<PyAny>,
    operation: impl Future<Output = Result<T, Failure>> + Send + 'static,
    convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
) -> PyResult<FileCacheTask> {
    let task = spawn(py, async move {
        let result = operation.await;
        // At the end of the interpreter there is no recipient.
        let _ = Python::try_attach(|py| {
            let (value, error) = match result.map_err(|failure| failure.raise(py)).and_then(|value| convert(py, value))
            {
                Ok(value) => (value, None),
                Err(error) => (py.None(), Some(error.into_value(py))),
            };
            if let Err(error) = done.call1(py, (value, error)) {
                error.write_unraisable(py, Some(done.bind(py)));
            }
        });
    })?;
    Ok(FileCacheTask(task))
}

fn object<'py, T: IntoPyObject<'py>>(py: Python<'py>, value: T) -> PyResult<Py<PyAny>> {
    value.into_py_any(py)
}

fn plain<T: for<'py> IntoPyObject<'py>>(py: Python<'_>, value: T) -> PyResult<Py<PyAny>> {
    object(py, value)
}

/// A cache for coroutines; opened by its first operation.
#[pyclass(frozen, module = "redgrease._native")]
struct FileCacheAioCore {
    opening: Arc<Opening>,
}

struct Opening {
    options: Options,
    cache: OnceCell<aio::FileCache>,
}

impl Opening {
    async fn open(&self) -> Result<&aio::FileCache, Error> {
        let open = async || {
            let cache = aio::FileCache::open(self.options.clone()).await?;
            let warnings = cache.warnings();
            if !warnings.is_empty() {
                Python::try_attach(|py| {
                    for error in warnings.iter().filter_map(|text| warn(py, text, 1).err()) {
                        // A warning filter turned it into an exception, which is not an error of the operation.
                        error.write_unraisable(py, None);
                    }
                });
            }
            Ok(cache)
        };
        self.cache.get_or_try_init(open).await
    }
}

impl FileCacheAioCore {
    /// Runs an operation of the cache, which is opened first.
    fn start<T, F>(
        &self,
        py: Python<'_>,
        done: Py<PyAny>,
        operation: impl FnOnce(aio::FileCache) -> F + Send + 'static,
        convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<FileCacheTask>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let opening = Arc::clone(&self.opening);
        let run = async move {
            let cache = opening.open().await?.clone();
            Ok(operation(cache).await?)
        };
        start(py, done, run, convert)
    }

    /// Runs an operation of the blocking API, in a thread and with a separately opened cache.
    fn start_blocking<T: Send + 'static>(
        &self,
        py: Python<'_>,
        done: Py<PyAny>,
        operation: impl FnOnce(&FileCache) -> Result<T, Error> + Send + 'static,
        convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<FileCacheTask> {
        let mut options = self.opening.options.clone();
        options.maintenance = None;
        // Adopt only once.
        let opening = Arc::clone(&self.opening);
        options.adopt = false;
        let run = async move {
            opening.open().await?;
            let work = tokio::task::spawn_blocking(move || operation(&FileCache::open(options)?));
            match work.await {
                Ok(result) => Ok(result?),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        };
        start(py, done, run, convert)
    }
}

#[pymethods]
impl FileCacheAioCore {
    #[new]
    fn new(options: &Bound<'_, PyDict>) -> PyResult<FileCacheAioCore> {
        let opening = Opening { options: options_of(options)?, cache: OnceCell::new() };
        Ok(FileCacheAioCore { opening: Arc::new(opening) })
    }

    fn connect(&self, py: Python<'_>, done: Py<PyAny>) -> PyResult<FileCacheTask> {
        self.start(py, done, |_| async { Ok(()) }, plain)
    }

    fn read(
        &self,
        py: Python<'_>,
        done: Py<PyAny>,
        key: &Bound<'_, PyAny>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<FileCacheTask> {
        let key = key_of("read", key)?;
        let timeout = within(py, "read", Some(&key), seconds("timeout", timeout))?;
        self.start(
            py,
            done,
            move |cache| async move { cache.read(&key, timeout).await },
            |py, data| object(py, PyBytes::new(py, &data)),
        )
    }

    fn open_read(
        &self,
        py: Python<'_>,
        done: Py<PyAny>,
        key: &Bound<'_, PyAny>,
        timeout: &Bound<'_, PyAny>,
    ) -> PyResult<FileCacheTask> {
        let key = key_of("open", key)?;
        let timeout = within(py, "open", Some(&key), seconds("timeout", timeout))?;
        self.start(
            py,
            done,
            move |cache| async move { cache.open_read(&key, timeout).await },
            |py, handle| object(py, FileCacheHandle::new(handle)),
        )
    }

    fn exists(&self, py: Python<'_>, done: Py<PyAny>, key: &Bound<'_, PyAny>) -> PyResult<FileCacheTask> {
        let key = key_of("exists", key)?;
        self.start(py, done, move |cache| async move { cache.exists(&key).await }, plain)
    }

    fn stat(&self, py: Python<'_>, done: Py<PyAny>, key: &Bound<'_, PyAny>) -> PyResult<FileCacheTask> {
        let key = key_of("stat", key)?;
        self.start(
            py,
            done,
            move |cache| async move { cache.stat(&key).await },
            |py, stat| object(py, stat.map(|stat| stat_tuple(py, &stat)).transpose()?),
        )
    }

    #[expect(clippy::too_many_arguments)]
    fn put(
        &self,
        py: Python<'_>,
        done: Py<PyAny>,
        key: &Bound<'_, PyAny>,
        data: Vec<u8>,
        replace: bool,
        timeout: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        content_type: Option<&Bound<'_, PyAny>>,
        user: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<FileCacheTask> {
        let key = key_of(if replace { "replace" } else { "write" }, key)?;
        let put = put_of(if replace { "replace" } else { "write" }, &key, timeout, ttl, None, content_type, user)?;
        self.start(
            py,
            done,
            move |cache| async move {
                if replace { cache.replace(&key, data, &put).await } else { cache.write(&key, data, &put).await }
            },
            |py, stat| object(py, stat_tuple(py, &stat)?),
        )
    }

    #[expect(clippy::too_many_arguments)]
    fn open_write(
        &self,
        py: Python<'_>,
        done: Py<PyAny>,
        key: &Bound<'_, PyAny>,
        replace: bool,
        timeout: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        size: Option<&Bound<'_, PyAny>>,
        content_type: Option<&Bound<'_, PyAny>>,
        user: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<FileCacheTask> {
        let key = key_of("create", key)?;
        let put = put_of("create", &key, timeout, ttl, size, content_type, user)?;
        self.start(
            py,
            done,
            move |cache| async move {
                if replace { cache.open_replace(&key, &put).await } else { cache.open_write(&key, &put).await }
            },
            |py, writer| object(py, FileCacheAioWriter::new(writer)),
        )
    }

    #[expect(clippy::too_many_arguments)]
    fn begin(
        &self,
        py: Python<'_>,
        done: Py<PyAny>,
        key: &Bound<'_, PyAny>,
        timeout: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        size: Option<&Bound<'_, PyAny>>,
        content_type: Option<&Bound<'_, PyAny>>,
        user: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<FileCacheTask> {
        let key = key_of("get_or_create", key)?;
        let put = put_of("get_or_create", &key, timeout, ttl, size, content_type, user)?;
        self.start(
            py,
            done,
            move |cache| async move { cache.begin(&key, &put).await },
            |py, begun| match begun {
                aio::Begun::Hit(handle, outcome) => {
                    object(py, (outcome.as_str(), Some(FileCacheHandle::new(*handle)), None::<FileCacheAioWriter>))
                }
                aio::Begun::Create(writer) => object(
                    py,
                    (Outcome::Created.as_str(), None::<FileCacheHandle>, Some(FileCacheAioWriter::new(*writer))),
                ),
            },
        )
    }

    fn delete(&self, py: Python<'_>, done: Py<PyAny>, key: &Bound<'_, PyAny>) -> PyResult<FileCacheTask> {
        let key = key_of("delete", key)?;
        self.start(py, done, move |cache| async move { cache.delete(&key).await }, plain)
    }

    fn touch(
        &self,
        py: Python<'_>,
        done: Py<PyAny>,
        key: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<FileCacheTask> {
        let key = key_of("touch", key)?;
        let ttl = within(py, "touch", Some(&key), optional_seconds("ttl", ttl))?;
        self.start(py, done, move |cache| async move { cache.touch(&key, ttl).await }, plain)
    }

    fn pin(&self, py: Python<'_>, done: Py<PyAny>, key: &Bound<'_, PyAny>, pinned: bool) -> PyResult<FileCacheTask> {
        let key = key_of(if pinned { "pin" } else { "unpin" }, key)?;
        self.start(py, done, move |cache| async move { cache.pin(&key, pinned).await }, plain)
    }

    fn list(
        &self,
        py: Python<'_>,
        done: Py<PyAny>,
        cursor: Option<&Bound<'_, FileCacheCursor>>,
        count: usize,
    ) -> PyResult<FileCacheTask> {
        let cursor = cursor.map(|cursor| cursor.get().0.clone()).unwrap_or_default();
        self.start(
            py,
            done,
            move |cache| async move { cache.list(cursor, count).await },
            |py, page| object(py, page_tuple(py, page)?),
        )
    }

    fn info(&self, py: Python<'_>, done: Py<PyAny>) -> PyResult<FileCacheTask> {
        self.start(py, done, |cache| async move { cache.info().await }, |py, info| object(py, info_dict(py, &info)?))
    }

    fn stats(&self, py: Python<'_>, done: Py<PyAny>) -> PyResult<FileCacheTask> {
        self.start(py, done, |cache| async move { Ok(cache.stats()) }, |py, stats| object(py, stats_dict(py, stats)?))
    }

    fn locks(&self, py: Python<'_>, done: Py<PyAny>) -> PyResult<FileCacheTask> {
        self.start(
            py,
            done,
            |cache| async move { cache.locks().await },
            |py, locks| object(py, locks_list(py, &locks)?),
        )
    }

    fn break_lock(&self, py: Python<'_>, done: Py<PyAny>, key: &Bound<'_, PyAny>) -> PyResult<FileCacheTask> {
        let key = key_of("break_lock", key)?;
        self.start_blocking(py, done, move |cache| cache.break_lock(&key), plain)
    }

    #[expect(clippy::too_many_arguments)]
    fn evict(
        &self,
        py: Python<'_>,
        done: Py<PyAny>,
        to_bytes: Option<&Bound<'_, PyAny>>,
        older_than: Option<&Bound<'_, PyAny>>,
        idle_for: Option<&Bound<'_, PyAny>>,
        prefix: Option<&Bound<'_, PyAny>>,
        dry_run: bool,
    ) -> PyResult<FileCacheTask> {
        let what = within(py, "evict", None, evict_of(py, to_bytes, older_than, idle_for, prefix, dry_run))?;
        self.start(
            py,
            done,
            move |cache| async move { cache.evict(&what).await },
            |py, evicted| object(py, evicted_tuple(py, &evicted)),
        )
    }

    fn clear(&self, py: Python<'_>, done: Py<PyAny>) -> PyResult<FileCacheTask> {
        self.start(py, done, |cache| async move { cache.clear().await }, plain)
    }

    fn configure(&self, py: Python<'_>, done: Py<PyAny>, limits: &Bound<'_, PyDict>) -> PyResult<FileCacheTask> {
        let mut bounds = Limits::default();
        limits_of(&mut bounds, limits)?;
        self.start_blocking(py, done, move |cache| cache.configure(&bounds), plain)
    }

    fn maintain(&self, py: Python<'_>, done: Py<PyAny>) -> PyResult<FileCacheTask> {
        self.start(
            py,
            done,
            |cache| async move { cache.maintain().await },
            |py, maintained| object(py, maintained_dict(py, maintained)?),
        )
    }

    fn verify(
        &self,
        py: Python<'_>,
        done: Py<PyAny>,
        depth: &Bound<'_, PyAny>,
        repair: bool,
    ) -> PyResult<FileCacheTask> {
        let depth = word("depth", depth, DEPTHS)?;
        self.start_blocking(
            py,
            done,
            move |cache| {
                let mut report = |_: u64, _: u64| true;
                if repair { cache.repair(depth, &mut report) } else { cache.verify(depth, &mut report) }
            },
            |py, found| object(py, verification_dict(py, &found)?),
        )
    }

    fn doctor(&self, py: Python<'_>, done: Py<PyAny>) -> PyResult<FileCacheTask> {
        self.start_blocking(py, done, FileCache::doctor, |py, findings| object(py, findings_list(py, &findings)?))
    }

    /// Ends the session at the end of the interpreter, within `patience`.
    fn end(&self, py: Python<'_>, patience: &Bound<'_, PyAny>) -> PyResult<()> {
        let patience = seconds("patience", patience)?;
        let opening = Arc::clone(&self.opening);
        let (done, ended) = std::sync::mpsc::channel();
        spawn(py, async move {
            if let Some(cache) = opening.cache.get() {
                cache.end(patience / 4).await;
            }
            let _ = done.send(());
        })?;
        // If it takes longer, its leases expire.
        let _ = py.detach(move || ended.recv_timeout(patience));
        Ok(())
    }

    /// Ends the session, if there is one.
    fn close(&self, py: Python<'_>, done: Py<PyAny>) -> PyResult<FileCacheTask> {
        let opening = Arc::clone(&self.opening);
        let close = async move {
            if let Some(cache) = opening.cache.get() {
                cache.close().await;
            }
            Ok(())
        };
        start(py, done, close, plain)
    }
}

/// An entry opened for writing by a coroutine.
#[pyclass(frozen, module = "redgrease._native")]
struct FileCacheAioWriter {
    key: Vec<u8>,
    process: u32,
    /// `None` while an operation uses it, so that cancelling the operation drops the writer.
    writer: Arc<tokio::sync::Mutex<Option<aio::Writer>>>,
}

impl FileCacheAioWriter {
    fn new(writer: aio::Writer) -> FileCacheAioWriter {
        FileCacheAioWriter {
            key: writer.key().to_vec(),
            process: std::process::id(),
            writer: Arc::new(tokio::sync::Mutex::new(Some(writer))),
        }
    }

    /// Finishes the writer.
    fn finish<T, F>(
        &self,
        py: Python<'_>,
        done: Py<PyAny>,
        act: impl FnOnce(aio::Writer) -> F + Send + 'static,
        convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<FileCacheTask>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        check_process(py, "commit", &self.key, self.process)?;
        let (writer, key) = (Arc::clone(&self.writer), self.key.clone());
        let end = async move {
            let writer = writer.lock().await.take().ok_or(Failure::Closed(key))?;
            // Once begun it runs to its end, even if its task is cancelled: half a commit is of no use.
            match tokio::spawn(act(writer)).await {
                Ok(result) => Ok(result?),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        };
        start(py, done, end, convert)
    }
}

#[pymethods]
impl FileCacheAioWriter {
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.key)
    }

    fn write(&self, py: Python<'_>, done: Py<PyAny>, data: Vec<u8>) -> PyResult<FileCacheTask> {
        check_process(py, "write", &self.key, self.process)?;
        let (writer, key) = (Arc::clone(&self.writer), self.key.clone());
        let write = async move {
            let mut place = writer.lock().await;
            let mut writer = place.take().ok_or(Failure::Closed(key))?;
            let written = writer.write(&data).await;
            *place = Some(writer);
            Ok(written?)
        };
        start(py, done, write, plain)
    }

    fn commit(&self, py: Python<'_>, done: Py<PyAny>) -> PyResult<FileCacheTask> {
        self.finish(py, done, aio::Writer::commit, |py, stat| object(py, stat_tuple(py, &stat)?))
    }

    /// Commits and opens the entry for reading.
    fn commit_open(&self, py: Python<'_>, done: Py<PyAny>) -> PyResult<FileCacheTask> {
        self.finish(py, done, aio::Writer::commit_and_open, |py, handle| object(py, FileCacheHandle::new(handle)))
    }

    fn abort(&self, py: Python<'_>, done: Py<PyAny>) -> PyResult<FileCacheTask> {
        let (writer, is_ours) = (Arc::clone(&self.writer), self.process == std::process::id());
        let abort = async move {
            match writer.lock().await.take() {
                Some(writer) if is_ours => writer.abort().await,
                other => drop(other),
            }
            Ok(())
        };
        start(py, done, abort, plain)
    }

    /// Aborts without waiting.
    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        if let Ok(mut place) = self.writer.try_lock() {
            drop(place.take());
            return Ok(());
        }
        let writer = Arc::clone(&self.writer);
        spawn(py, async move { drop(writer.lock().await.take()) }).map(drop)
    }

    fn lease_lost(&self) -> bool {
        self.writer.try_lock().is_ok_and(|writer| writer.as_ref().is_some_and(aio::Writer::lease_lost))
    }
}

/// Adds everything of this file to the module.
pub(super) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<FileCacheAioCore>()?;
    module.add_class::<FileCacheAioWriter>()?;
    module.add_class::<FileCacheTask>()?;
    module.add_function(wrap_pyfunction!(filecache_stop_runtime, module)?)
}
