//! Records that leave for another shard, and those that arrive from one.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use redgrease_core::codec::{Reader, Token, Writer};
use redgrease_core::plan::Exchange;

use crate::codec::{Decoder, Foreign, bytes_of_text, encode, pickle};
use crate::plan::Op;

use super::outcome::Refused;
use super::{Ctx, Run};

/// Characters of a key that an error shows.
const SHOWN_CHARS: usize = 100;

impl Run {
    /// Decides where a record goes: it continues here, or is written down for another shard.
    pub(super) fn move_record<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        op: usize,
        exchange: &Exchange<Py<PyAny>>,
        record: Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = ctx.py;
        let Some(stages) = &self.stages else { return Ok(Some(record)) };
        let here = stages.route().here;
        let (shard, key) = match exchange {
            Exchange::Collect => (Some(0), None),
            Exchange::ByExtractedKey => match self.key.take() {
                Some(key) => (self.shard_of(key.bind(py))?, None),
                None => return Err(PyValueError::new_err("a record without key")),
            },
            Exchange::ByRecordKey => match record.cast::<PyDict>()?.get_item(intern!(py, "key"))? {
                Some(key) => (self.shard_of(key.cast::<PyString>()?)?, None),
                None => return Err(PyValueError::new_err("a record without key")),
            },
            Exchange::ByKeyOf(extractor) => {
                let key = self.key(ctx, op, extractor, &record)?;
                (self.shard_of(&key)?, Some(key))
            }
        };
        match shard {
            None => Ok(None),
            Some(shard) if shard == here => {
                if self.is_op_closed(op + 1) {
                    return Ok(None);
                }
                self.key = key.map(Bound::unbind);
                Ok(Some(record))
            }
            Some(shard) => {
                match self.send_away(ctx, op, shard, key.as_ref(), &record) {
                    Ok(()) => {}
                    Err(Refused::Encoding(error)) => return Err(error),
                    Err(Refused::Length(text)) => self.add_error(|| text.into_bytes()),
                }
                Ok(None)
            }
        }
    }

    /// The shard of a key; `None`: there is none, and the error was added.
    fn shard_of(&mut self, key: &Bound<'_, PyString>) -> PyResult<Option<usize>> {
        let Some(stages) = &self.stages else { return Ok(None) };
        let text = bytes_of_text(key)?;
        let (slot, shard) = stages.route().of_key(text.as_bytes());
        if shard.is_none() {
            let shown: String = String::from_utf8_lossy(text.as_bytes()).chars().take(SHOWN_CHARS).collect();
            self.add_error(|| {
                format!("the key {shown:?} belongs to slot {slot}, which no shard has: the cluster does not cover it (CLUSTER INFO: cluster_slots_assigned)")
                    .into_bytes()
            });
        }
        Ok(shard)
    }

    /// Writes a record, with its key if it takes it along, for another shard.
    fn send_away(
        &mut self,
        ctx: Ctx<'_, '_>,
        op: usize,
        shard: usize,
        key: Option<&Bound<'_, PyString>>,
        record: &Bound<'_, PyAny>,
    ) -> Result<(), Refused> {
        ctx.code.enter_step(self.step(op));
        let Some(gathered) = self.stages.as_mut().map(|stages| stages.outgoing(op).take(shard)) else { return Ok(()) };
        let before = gathered.len();
        let mut writer = Writer::append_to(gathered);
        let mut result = self.timed(op, || write(&mut writer, key, record)).map_err(|error| {
            if ctx.code.is_aborted() {
                Refused::Encoding(error)
            } else {
                Refused::Encoding(self.unmovable(op, record, &error))
            }
        });
        let (bytes, limit) = (writer.len() - before, ctx.results.record_bytes_max());
        if bytes > limit {
            writer.truncate(before);
            result = Err(Refused::Length(format!(
                "a record of {bytes} bytes, which moves to another shard, is longer than MaxRecordBytes ({limit}): make it smaller, or raise it"
            )));
        }
        let send = self.sender(ctx, self.row.stage_of(op) + 1);
        if let Some(stages) = &mut self.stages {
            stages.outgoing(op).put(shard, writer.into_bytes(), before, send);
        }
        result
    }

    fn unmovable(&self, op: usize, record: &Bound<'_, PyAny>, cause: &PyErr) -> PyErr {
        let kind = record.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        let step = self.plan.steps[self.step(op) as usize];
        PyValueError::new_err(format!(
            "unmarshallable object: a record of type {kind} cannot be pickled to move to another shard ({}): make plain values of it before {step}",
            cause.value(record.py())
        ))
    }

    /// The next record of the input of a stage, which enters at an operator.
    pub(super) fn read_arrived<'py>(
        &mut self,
        ctx: Ctx<'_, 'py>,
        stage: usize,
        entry: usize,
        reader: &mut Reader<'_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let decoder = Decoder { allow_pickle: true };
        let has_key = stage > 0 && matches!(self.row.ops[entry - 1].0, Op::Move(Exchange::ByKeyOf(_)));
        if !has_key {
            return decoder.value(ctx.py, reader);
        }
        match reader.token() {
            Ok(Token::Tuple(2)) => {
                let key = decoder.value(ctx.py, reader)?.cast_into::<PyString>()?;
                let record = decoder.value(ctx.py, reader)?;
                self.key = Some(key.unbind());
                Ok(record)
            }
            Ok(_) => Err(PyValueError::new_err("a record from another shard has no key")),
            Err(error) => Err(PyValueError::new_err(error.to_string())),
        }
    }
}

/// Writes a record; what has no form in the codec is pickled. On an error `writer` is unchanged.
fn write(writer: &mut Writer, key: Option<&Bound<'_, PyString>>, record: &Bound<'_, PyAny>) -> PyResult<()> {
    let start = writer.len();
    let result = write_parts(writer, key, record);
    if result.is_err() {
        writer.truncate(start);
    }
    result
}

fn write_parts(writer: &mut Writer, key: Option<&Bound<'_, PyString>>, record: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Some(key) = key {
        writer.tuple(2);
        encode(writer, key.as_any(), Foreign::Pickle)?;
    }
    encode(writer, record, Foreign::Pickle).or_else(|_| {
        // It is nested too deep for the codec, or holds itself: pickles can hold that.
        writer.pickle(pickle(record)?.as_bytes());
        Ok(())
    })
}
