//! Entries opened for reading.

use std::io::{self, Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use redgrease_filecache::{Handle, Stat};

use super::exceptions::raise_io;
use super::gil::without_gil;
use super::results::{path_text, stat_tuple};
use crate::lock::lock;

/// An entry opened for reading.
#[pyclass(frozen, module = "redgrease._native")]
pub struct FileCacheHandle {
    stat: Stat,
    path: PathBuf,
    descriptor: i32,
    process: u32,
    /// Where the cache of a handle for coroutines lives.
    runtime: Option<tokio::runtime::Handle>,
    handle: Mutex<Option<Handle>>,
}

impl FileCacheHandle {
    pub(super) fn new(handle: Handle) -> FileCacheHandle {
        FileCacheHandle {
            process: std::process::id(),
            runtime: tokio::runtime::Handle::try_current().ok(),
            stat: handle.stat(),
            path: handle.path(),
            descriptor: handle.file().as_raw_fd(),
            handle: Mutex::new(Some(handle)),
        }
    }

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
            without_gil(move || drop(handle));
        }
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
