//! Entries opened for writing.

use std::io::{self, Write};
use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use redgrease_filecache::{Error, Writer};

use super::exceptions::{check_process, closed, raise, raise_io};
use super::gil::without_gil;
use super::handle::FileCacheHandle;
use super::results::{path_text, stat_tuple};
use crate::lock::lock;

/// Size of a writer's buffer, in bytes.
const GATHER_BYTES: usize = 128 << 10;

/// An entry opened for writing.
#[pyclass(frozen, module = "redgrease._native")]
pub struct FileCacheWriter {
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
    pub(super) fn new(writer: Writer) -> FileCacheWriter {
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
            without_gil(move || drop(filling));
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
