//! Conversion of Python arguments. Wrong types are a `TypeError`, wrong values an error of the cache; both name the
//! argument, the value seen and the allowed values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyString};
use redgrease_filecache::{Check, Code, Depth, Durability, Evict, Limits, OnOutage, Options, Put};

use super::exceptions::{bad_config, exception, within};

pub(super) fn kind_of(value: &Bound<'_, PyAny>) -> String {
    value.get_type().qualname().map_or_else(|_| "that".to_owned(), |name| name.to_string())
}

/// A key's bytes.
pub(super) fn key_of(operation: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
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
    let fix =
        if value.hasattr(intern!(py, "__fspath__"))? { ": give str(path) if that is to name the entry" } else { "" };
    Err(PyTypeError::new_err(format!("a key is str or bytes, not {}{fix}", kind_of(value))))
}

/// Allowed range of a duration.
fn range_of(name: &str) -> &'static str {
    match name {
        "ttl" => "a time to live is above 0 and up to 142 years (4.5e9 seconds)",
        _ => "it is a finite number of seconds, 0 to 1e19",
    }
}

/// The longest value that an error shows whole, in bytes.
const MAX_SHOWN: usize = 40;

/// A value for an error message, shortened if it is long.
fn shown(value: &Bound<'_, PyAny>) -> String {
    let Ok(text) = value.repr() else { return format!("a very large {}", kind_of(value)) };
    let text = text.to_string_lossy();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}... ({} characters)", &text[..at], text.chars().count()),
        None => text.into_owned(),
    }
}

/// A duration: seconds or a `timedelta`.
pub(super) fn seconds(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let py = value.py();
    let number = if value.is_instance_of::<PyBool>() { None } else { Some(value.extract::<f64>()) };
    let number = match number {
        Some(Ok(number)) => number,
        // An int beyond the range of a float.
        Some(Err(error)) if error.is_instance_of::<PyOverflowError>(py) => {
            return Err(bad_config(py, &format!("{name} of {} seconds; {}", shown(value), range_of(name))));
        }
        _ => value.getattr(intern!(py, "total_seconds")).and_then(|total| total.call0()?.extract::<f64>()).map_err(
            |_| PyTypeError::new_err(format!("{name} is a number of seconds or a timedelta, not {}", kind_of(value))),
        )?,
    };
    Duration::try_from_secs_f64(number)
        .map_err(|_| bad_config(py, &format!("{name} of {number:?} seconds; {}", range_of(name))))
}

pub(super) fn optional_seconds(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    value.map(|value| seconds(name, value)).transpose()
}

/// A number of bytes or entries.
pub(super) fn count(name: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if value.is_instance_of::<PyBool>() || !value.hasattr(intern!(value.py(), "__index__"))? {
        return Err(PyTypeError::new_err(format!("{name} is an int, not {}", kind_of(value))));
    }
    value.extract().map_err(|_| {
        bad_config(value.py(), &format!("{name} of {}; it is 0 or more, and less than 2^64", shown(value)))
    })
}

pub(super) fn optional_count(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<u64>> {
    value.map(|value| count(name, value)).transpose()
}

pub(super) fn text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = value
        .cast::<PyString>()
        .map_err(|_| PyTypeError::new_err(format!("{name} is a str, not {}", kind_of(value))))?;
    text.extract().map_err(|_| bad_config(value.py(), &format!("{name} has no UTF-8 form (half of a surrogate pair)")))
}

pub(super) fn truth(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.extract().map_err(|_| PyTypeError::new_err(format!("{name} is a bool, not {}", kind_of(value))))
}

/// One of several words.
pub(super) fn word<T: Copy>(name: &str, value: &Bound<'_, PyAny>, words: &[(&str, T)]) -> PyResult<T> {
    let given = text(name, value)?;
    words.iter().find(|(word, _)| *word == given).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let known: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        bad_config(value.py(), &format!("{name} of {given:?}; it is one of {}", known.join(", ")))
    })
}

pub(super) const DEPTHS: &[(&str, Depth)] =
    &[("index", Depth::Index), ("sizes", Depth::Sizes), ("digests", Depth::Digests)];
pub(super) const DURABILITIES: &[(&str, Durability)] =
    &[("none", Durability::None), ("file", Durability::File), ("full", Durability::Full)];
pub(super) const CHECKS: &[(&str, Check)] =
    &[("always", Check::Always), ("sampled", Check::Sampled), ("never", Check::Never)];
pub(super) const OUTAGES: &[(&str, OnOutage)] = &[("fail", OnOutage::Fail), ("degrade", OnOutage::Degrade)];

/// Metadata of new content.
pub(super) fn put_of(
    operation: &str,
    key: &[u8],
    timeout: &Bound<'_, PyAny>,
    ttl: Option<&Bound<'_, PyAny>>,
    size: Option<&Bound<'_, PyAny>>,
    content_type: Option<&Bound<'_, PyAny>>,
    user: Option<&Bound<'_, PyAny>>,
) -> PyResult<Put> {
    let put = || {
        Ok(Put {
            timeout: seconds("timeout", timeout)?,
            ttl: optional_seconds("ttl", ttl)?,
            size: optional_count("size", size)?,
            content_type: content_type.map(|value| text("content_type", value)).transpose()?,
            user: user.map_or_else(|| Ok(BTreeMap::new()), user_of)?,
        })
    };
    within(timeout.py(), operation, Some(key), put())
}

fn user_of(user: &Bound<'_, PyAny>) -> PyResult<BTreeMap<String, String>> {
    let not_a_mapping = |_| PyTypeError::new_err(format!("user maps str to str; it is not a {}", kind_of(user)));
    let mut pairs = BTreeMap::new();
    for pair in user.call_method0(intern!(user.py(), "items")).map_err(not_a_mapping)?.try_iter()? {
        let (name, value) = pair?.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
        pairs.insert(text("a name in user", &name)?, text("a value in user", &value)?);
    }
    Ok(pairs)
}

/// Sets limits by name; returns whether there were any.
pub(super) fn limits_of(limits: &mut Limits, values: &Bound<'_, PyDict>) -> PyResult<bool> {
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
        limits.low_mark = value.extract().map_err(|error: PyErr| {
            if error.is_instance_of::<PyOverflowError>(value.py()) {
                return bad_config(value.py(), &format!("low_mark of {}; it is a share from 0 to 1", shown(&value)));
            }
            PyTypeError::new_err(format!("low_mark is a float, not {}", kind_of(&value)))
        })?;
    }
    Ok(any)
}

pub(super) fn options_of(values: &Bound<'_, PyDict>) -> PyResult<Options> {
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

pub(super) fn path_of(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;

    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

pub(super) fn mode(name: &str, value: &Bound<'_, PyAny>) -> PyResult<u32> {
    let bits = count(name, value)?;
    u32::try_from(bits).ok().filter(|bits| *bits <= 0o7777).ok_or_else(|| {
        bad_config(value.py(), &format!("{name} of 0o{bits:o}; permissions are 0o0 to 0o7777, for instance 0o640"))
    })
}

/// The conditions of an eviction; refuses an empty set of conditions, which would evict everything.
pub(super) fn evict_of(
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
        let fix = "nothing is chosen; give to_bytes, older_than, idle_for or prefix, or call clear()";
        return Err(bad_config(py, fix));
    }
    Ok(what)
}
