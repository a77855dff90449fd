//! What an execution returns: results and errors.

use pyo3::prelude::*;
use redgrease_core::codec::Writer;
use redgrease_core::error_text::cut_error;
use redgrease_core::frame::{FromWorker, Records, StartFlags};
use redgrease_core::id::ExecutionNo;

use crate::codec::{Foreign, encode, pickle};

/// Longest result where no server has announced its limit, in bytes.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Size at which results are sent, in bytes.
const OUTPUT_BYTES: usize = 64 << 10;
/// Maximum number of error texts of one execution; the last one counts the omitted ones.
const ERRORS_MAX: usize = 1000;

/// Where the results of an execution go.
pub trait Sink {
    /// Longest result, in bytes.
    fn record_bytes_max(&self) -> usize;

    /// Takes a frame with results; may block, without the GIL.
    fn output(&self, py: Python<'_>, frame: &FromWorker<'_>);

    /// Takes another frame, which need not leave at once; may block, without the GIL.
    fn send(&self, py: Python<'_>, frame: &FromWorker<'_>);
}

/// Results that were not sent yet, and all errors.
#[derive(Debug)]
pub struct Outcome {
    exec: ExecutionNo,
    foreign: Foreign,
    pickled: bool,
    results: Writer,
    count: u64,
    errors: Vec<Vec<u8>>,
    errors_left_out: u64,
}

/// Why a record is no result.
pub enum Refused {
    /// It cannot be encoded.
    Encoding(PyErr),
    /// It is longer than the server takes.
    Length(String),
}

impl Outcome {
    /// Of an execution that has returned nothing yet.
    pub fn new(exec: ExecutionNo, flags: StartFlags) -> Outcome {
        Outcome {
            exec,
            foreign: if flags.has(StartFlags::TAGGED) { Foreign::Pickle } else { Foreign::Opaque },
            pickled: flags.has(StartFlags::PICKLED),
            results: Writer::new(),
            count: 0,
            errors: Vec::new(),
            errors_left_out: 0,
        }
    }

    /// Adds a result, and sends results when there are enough of them.
    pub fn add(&mut self, sink: &dyn Sink, record: &Bound<'_, PyAny>) -> Result<(), Refused> {
        let start = self.results.len();
        if self.pickled {
            self.results.pickle(pickle(record).map_err(Refused::Encoding)?.as_bytes());
        } else {
            encode(&mut self.results, record, self.foreign).map_err(Refused::Encoding)?;
        }
        let (bytes, limit) = (self.results.len() - start, sink.record_bytes_max());
        if bytes > limit {
            self.results.truncate(start);
            return Err(Refused::Length(format!(
                "a result of {bytes} bytes is longer than MaxRecordBytes ({limit}): return less, or raise it"
            )));
        }
        self.count += 1;
        if self.results.len() >= OUTPUT_BYTES {
            let records = Records { count: self.count, bytes: self.results.as_bytes() };
            sink.output(record.py(), &FromWorker::Output { exec: self.exec, records });
            self.results.truncate(0);
            self.count = 0;
        }
        Ok(())
    }

    /// Whether there is no error.
    pub fn is_ok(&self) -> bool {
        self.errors.is_empty()
    }

    /// Adds the text of an error; beyond the maximum it is only counted, and `text` is not called.
    pub fn add_error(&mut self, text: impl FnOnce() -> Vec<u8>) {
        if self.errors.len() >= ERRORS_MAX {
            self.errors_left_out += 1;
            return;
        }
        self.errors.push(cut_error(&text()).into_owned());
    }

    /// The last frame, with the time of each step.
    pub fn done(&mut self, step_micros: Vec<u64>, send: impl FnOnce(&FromWorker<'_>)) {
        if self.errors_left_out > 0 {
            self.errors.push(format!("{} more errors were left out", self.errors_left_out).into_bytes());
        }
        send(&FromWorker::Done {
            exec: self.exec,
            aborted: false,
            records: Records { count: self.count, bytes: self.results.as_bytes() },
            errors: self.errors.iter().map(Vec::as_slice).collect(),
            step_micros,
        });
    }
}
