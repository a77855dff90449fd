//! The codec for Python objects: encodes and decodes them directly, without an intermediate tree.
//!
//! Neighbours: [`redgrease_core::codec`] owns the format; [`crate::run`] encodes results and decodes records here.
//! Both directions stop at [`DEPTH_MAX`], so neither hostile bytes nor a list that holds itself can exhaust the stack.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PyMemoryView, PySet,
    PyString, PyTuple,
};
use redgrease_core::codec::{CodecError, DEPTH_MAX, KeyType, Reader, Token, Writer};

/// Handling of an object without a tag of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// It is pickled: the recipient has requested that.
    Pickle,
    /// It is replaced by its `repr`, and an instance of a subclass is written as its base.
    Opaque,
    /// It is an error.
    Refuse,
}

/// `cloudpickle.dumps` or its replacement, imported once per process.
static PICKLE_DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn malformed(error: CodecError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Text if the bytes are UTF-8, bytes otherwise.
pub fn text_or_bytes<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyAny> {
    match std::str::from_utf8(bytes) {
        Ok(text) => PyString::new(py, text).into_any(),
        Err(_) => PyBytes::new(py, bytes).into_any(),
    }
}

/// Decodes values; `allow_pickle` if their writer is trusted to run arbitrary code.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// Whether pickles are loaded.
    pub allow_pickle: bool,
}

impl Decoder {
    /// The next whole value.
    pub fn value<'py>(self, py: Python<'py>, reader: &mut Reader<'_>) -> PyResult<Bound<'py, PyAny>> {
        self.value_at(py, reader, 0)
    }

    fn value_at<'py>(self, py: Python<'py>, reader: &mut Reader<'_>, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        if depth > DEPTH_MAX {
            return Err(malformed(CodecError::TooDeep));
        }
        Ok(match reader.token().map_err(malformed)? {
            Token::None => py.None().into_bound(py),
            Token::Bool(value) => PyBool::new(py, value).to_owned().into_any(),
            Token::Int(value) => value.into_pyobject(py)?.into_any(),
            Token::BigInt(digits) => py.get_type::<PyInt>().call1((digits,))?,
            Token::Float(value) => PyFloat::new(py, value).into_any(),
            Token::Complex(re, im) => PyComplex::from_doubles(py, re, im).into_any(),
            Token::Str(text) | Token::Opaque(text) => PyString::new(py, text).into_any(),
            Token::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
            Token::ByteArray(bytes) => PyByteArray::new(py, bytes).into_any(),
            Token::Raw(bytes) => text_or_bytes(py, bytes),
            Token::Error(text) => PyString::new(py, &String::from_utf8_lossy(text)).into_any(),
            Token::Pickle(bytes) => self.unpickle(py, bytes)?,
            Token::List(count) => PyList::new(py, self.values_at(py, reader, count, depth)?)?.into_any(),
            Token::Tuple(count) => PyTuple::new(py, self.values_at(py, reader, count, depth)?)?.into_any(),
            Token::Set(count) => PySet::new(py, self.values_at(py, reader, count, depth)?)?.into_any(),
            Token::FrozenSet(count) => PyFrozenSet::new(py, self.values_at(py, reader, count, depth)?)?.into_any(),
            Token::Dict(count) => self.pairs_at(py, reader, count, depth)?.into_any(),
            Token::KeyRecord { key, event, key_type } => {
                let record = PyDict::new(py);
                record.set_item(intern!(py, "key"), text_or_bytes(py, key))?;
                record.set_item(intern!(py, "value"), self.value_at(py, reader, depth + 1)?)?;
                record.set_item(intern!(py, "type"), type_name(py, key_type))?;
                record.set_item(intern!(py, "event"), event.map(|event| text_or_bytes(py, event)))?;
                record.into_any()
            }
            Token::KeyOnlyRecord { key, event } => {
                let record = PyDict::new(py);
                record.set_item(intern!(py, "key"), text_or_bytes(py, key))?;
                record.set_item(intern!(py, "event"), event.map(|event| text_or_bytes(py, event)))?;
                record.into_any()
            }
            Token::StreamRecord { key, id, count } => {
                let record = PyDict::new(py);
                record.set_item(intern!(py, "key"), text_or_bytes(py, key))?;
                record.set_item(intern!(py, "id"), text_or_bytes(py, id))?;
                record.set_item(intern!(py, "value"), self.pairs_at(py, reader, count, depth)?)?;
                record.into_any()
            }
        })
    }

    fn values_at<'py>(
        self,
        py: Python<'py>,
        reader: &mut Reader<'_>,
        count: usize,
        depth: usize,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        (0..count).map(|_| self.value_at(py, reader, depth + 1)).collect()
    }

    fn pairs_at<'py>(
        self,
        py: Python<'py>,
        reader: &mut Reader<'_>,
        count: usize,
        depth: usize,
    ) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for _ in 0..count {
            let key = self.value_at(py, reader, depth + 1)?;
            dict.set_item(key, self.value_at(py, reader, depth + 1)?)?;
        }
        Ok(dict)
    }

    fn unpickle<'py>(self, py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        if !self.allow_pickle {
            return Err(PyValueError::new_err(
                "the data holds a pickle, which can run any code: pass allow_pickle=True only if you trust its writer",
            ));
        }
        py.import("pickle")?.call_method1("loads", (PyBytes::new(py, bytes),))
    }
}

fn type_name(py: Python<'_>, key_type: KeyType) -> &Bound<'_, PyString> {
    match key_type {
        KeyType::Empty => intern!(py, "empty"),
        KeyType::String => intern!(py, "string"),
        KeyType::List => intern!(py, "list"),
        KeyType::Hash => intern!(py, "hash"),
        KeyType::Set => intern!(py, "set"),
        KeyType::ZSet => intern!(py, "zset"),
        KeyType::Module => intern!(py, "module"),
        KeyType::Stream => intern!(py, "stream"),
        KeyType::Unknown => intern!(py, "unknown"),
    }
}

/// Appends one value to `writer`; on an error `writer` is unchanged.
pub fn encode(writer: &mut Writer, value: &Bound<'_, PyAny>, foreign: Foreign) -> PyResult<()> {
    let start = writer.len();
    let result = encode_at(writer, value, foreign, 0);
    if result.is_err() {
        writer.truncate(start);
    }
    result
}

fn encode_at(writer: &mut Writer, value: &Bound<'_, PyAny>, foreign: Foreign, depth: usize) -> PyResult<()> {
    if depth > DEPTH_MAX {
        return Err(PyValueError::new_err(format!(
            "values are nested deeper than {DEPTH_MAX}, or hold themselves: flatten them"
        )));
    }
    // Only exact types have a tag: an instance of a subclass would come back as something else.
    if let Ok(text) = value.cast_exact::<PyString>() {
        return encode_text(writer, text, foreign);
    }
    if value.is_none() {
        writer.none();
        return Ok(());
    }
    if let Ok(int) = value.cast_exact::<PyInt>() {
        return encode_int(writer, int, foreign);
    }
    if let Ok(dict) = value.cast_exact::<PyDict>() {
        return encode_dict(writer, dict, foreign, depth);
    }
    if let Ok(list) = value.cast_exact::<PyList>() {
        writer.list(list.len());
        return encode_items(writer, list.iter(), list.len(), foreign, depth);
    }
    if let Ok(flag) = value.cast_exact::<PyBool>() {
        writer.bool(flag.is_true());
        return Ok(());
    }
    if let Ok(float) = value.cast_exact::<PyFloat>() {
        writer.float(float.value());
        return Ok(());
    }
    if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        writer.bytes(bytes.as_bytes());
        return Ok(());
    }
    if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        writer.tuple(tuple.len());
        return encode_items(writer, tuple.iter(), tuple.len(), foreign, depth);
    }
    if let Ok(set) = value.cast_exact::<PySet>() {
        writer.set(set.len());
        return encode_items(writer, set.iter(), set.len(), foreign, depth);
    }
    if let Ok(set) = value.cast_exact::<PyFrozenSet>() {
        writer.frozen_set(set.len());
        return encode_items(writer, set.iter(), set.len(), foreign, depth);
    }
    if let Ok(array) = value.cast_exact::<PyByteArray>() {
        writer.byte_array(&array.to_vec());
        return Ok(());
    }
    if let Ok(complex) = value.cast_exact::<PyComplex>() {
        writer.complex(complex.real(), complex.imag());
        return Ok(());
    }
    if let Ok(view) = value.cast_exact::<PyMemoryView>() {
        writer.bytes(view.call_method0(intern!(value.py(), "tobytes"))?.cast::<PyBytes>()?.as_bytes());
        return Ok(());
    }
    match foreign {
        Foreign::Pickle => {
            writer.pickle(pickle(value)?.as_bytes());
            Ok(())
        }
        Foreign::Opaque => encode_base(writer, value, depth),
        Foreign::Refuse => Err(PyTypeError::new_err(format!(
            "an object of {} has no form in the codec: return plain values",
            value.get_type()
        ))),
    }
}

/// For recipients without Python: subclasses as their base, everything else as text.
fn encode_base(writer: &mut Writer, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
    let foreign = Foreign::Opaque;
    if let Ok(text) = value.cast::<PyString>() {
        return encode_text(writer, text, foreign);
    }
    if let Ok(int) = value.cast::<PyInt>() {
        return encode_int(writer, int, foreign);
    }
    if let Ok(float) = value.cast::<PyFloat>() {
        writer.float(float.value());
        return Ok(());
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        writer.bytes(bytes.as_bytes());
        return Ok(());
    }
    if let Ok(list) = value.cast::<PyList>() {
        writer.list(list.len());
        return encode_items(writer, list.iter(), list.len(), foreign, depth);
    }
    if let Ok(tuple) = value.cast::<PyTuple>() {
        writer.tuple(tuple.len());
        return encode_items(writer, tuple.iter(), tuple.len(), foreign, depth);
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        return encode_dict(writer, dict, foreign, depth);
    }
    let repr = value.repr()?;
    match repr.encode_utf8() {
        Ok(utf8) => writer.opaque(&String::from_utf8_lossy(utf8.as_bytes())),
        Err(_) => writer.opaque(&repr.to_string_lossy()),
    }
    Ok(())
}

fn encode_text(writer: &mut Writer, text: &Bound<'_, PyString>, foreign: Foreign) -> PyResult<()> {
    match text.encode_utf8() {
        Ok(utf8) => {
            let utf8 = std::str::from_utf8(utf8.as_bytes()).map_err(|e| PyValueError::new_err(e.to_string()))?;
            writer.str(utf8);
        }
        // Lone surrogates: text only for Python. They usually represent bytes that were not UTF-8.
        Err(error) => match foreign {
            Foreign::Pickle => writer.pickle(pickle(text.as_any())?.as_bytes()),
            Foreign::Opaque => writer.raw(bytes_of_text(text)?.as_bytes()),
            Foreign::Refuse => return Err(error),
        },
    }
    Ok(())
}

/// UTF-8 of a text; lone surrogates become the bytes that they escape, or are encoded as they are.
pub fn bytes_of_text<'py>(text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(utf8) = text.encode_utf8() {
        return Ok(utf8);
    }
    let encode = |errors: &str| text.call_method1("encode", ("utf-8", errors));
    let bytes = encode("surrogateescape").or_else(|_| encode("surrogatepass"))?;
    Ok(bytes.cast_into::<PyBytes>()?)
}

fn encode_int(writer: &mut Writer, int: &Bound<'_, PyInt>, foreign: Foreign) -> PyResult<()> {
    if let Ok(value) = int.extract::<i64>() {
        writer.int(value);
        return Ok(());
    }
    // `int.__repr__` and not `str`: a subclass (an enum) may print its name.
    match int.py().get_type::<PyInt>().call_method1("__repr__", (int,)) {
        Ok(digits) => writer.big_int(&digits.extract::<String>()?),
        // Python refuses to print integers of thousands of digits.
        Err(_) if foreign == Foreign::Pickle => writer.pickle(pickle(int.as_any())?.as_bytes()),
        Err(error) => return Err(error),
    }
    Ok(())
}

fn encode_dict(writer: &mut Writer, dict: &Bound<'_, PyDict>, foreign: Foreign, depth: usize) -> PyResult<()> {
    let count = dict.len();
    writer.dict(count);
    // A `repr` below may change the dictionary: then its iterator panics, so iterate over a copy if one may run.
    let pairs = if foreign == Foreign::Refuse { dict.clone() } else { dict.copy()? };
    let mut written = 0;
    for (key, value) in pairs.iter() {
        encode_at(writer, &key, foreign, depth + 1)?;
        encode_at(writer, &value, foreign, depth + 1)?;
        written += 1;
    }
    unchanged(written, count)
}

fn encode_items<'py>(
    writer: &mut Writer,
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    count: usize,
    foreign: Foreign,
    depth: usize,
) -> PyResult<()> {
    let mut written = 0;
    for item in items {
        encode_at(writer, &item, foreign, depth + 1)?;
        written += 1;
    }
    unchanged(written, count)
}

fn unchanged(written: usize, announced: usize) -> PyResult<()> {
    if written == announced {
        Ok(())
    } else {
        Err(PyValueError::new_err("a container changed its size while it was being encoded"))
    }
}

/// A cloudpickle of protocol 4; falls back to the standard library's if cloudpickle is not installed.
pub fn pickle<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = value.py();
    let dumps = PICKLE_DUMPS.get_or_try_init(py, || -> PyResult<_> {
        let module = py.import("cloudpickle").or_else(|_| py.import("pickle"))?;
        Ok(module.getattr("dumps")?.unbind())
    })?;
    Ok(dumps.bind(py).call1((value, 4))?.cast_into::<PyBytes>()?)
}

/// Reads one value from `data`.
#[pyfunction]
#[pyo3(signature = (data, allow_pickle=false))]
pub fn loads<'py>(py: Python<'py>, data: &Bound<'py, PyAny>, allow_pickle: bool) -> PyResult<Bound<'py, PyAny>> {
    let owned: Vec<u8>;
    let bytes = if let Ok(bytes) = data.cast::<PyBytes>() {
        bytes.as_bytes()
    } else if let Ok(array) = data.cast::<PyByteArray>() {
        owned = array.to_vec();
        &owned
    } else if data.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err("loads() needs bytes, got str: connect without decode_responses"));
    } else {
        owned = py.get_type::<PyBytes>().call1((data,))?.extract()?;
        &owned
    };
    let mut reader = Reader::new(bytes);
    let value = Decoder { allow_pickle }.value(py, &mut reader)?;
    if !reader.is_empty() {
        return Err(PyValueError::new_err(format!("{} bytes follow the value", reader.rest().len())));
    }
    Ok(value)
}

/// Writes one value; an object without a tag is pickled if `pickle`, and a `TypeError` otherwise.
#[pyfunction]
#[pyo3(signature = (obj, pickle=true))]
pub fn dumps<'py>(obj: &Bound<'py, PyAny>, pickle: bool) -> PyResult<Bound<'py, PyBytes>> {
    let mut writer = Writer::new();
    encode(&mut writer, obj, if pickle { Foreign::Pickle } else { Foreign::Refuse })?;
    Ok(PyBytes::new(obj.py(), writer.as_bytes()))
}
