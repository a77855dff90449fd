//! The arguments of `RG.PYEXECUTE`, and its reply.

use redis::Value;

use crate::call::{Call, Command};
use crate::error::{Error, Result, error_reply};
use crate::id::RegistrationId;
use crate::record::{Executed, Record, Results};
use crate::reply::{array, shown, text_value};
use crate::traceback::PythonError;
use redgrease_core::codec;

/// What `RG.PYEXECUTE` is given.
///
/// ```
/// use redgrease::PyExecute;
///
/// let count = PyExecute::script("GB().count().run()").description("number of keys");
/// ```
#[derive(Debug, Clone, Default)]
pub struct PyExecute {
    script: Vec<u8>,
    function: Option<Function>,
    unblocking: bool,
    id: Option<String>,
    description: Option<String>,
    upgrade: bool,
    replace_with: Option<String>,
    force_reinstall: bool,
    requirements: Vec<String>,
    plain: bool,
}

/// A function in place of a script.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub(crate) action: &'static str,
    pub(crate) plan: Vec<u8>,
    pub(crate) callbacks: Vec<u8>,
}

impl PyExecute {
    /// A Python script, which may run or register functions. The server refuses bytes that are not UTF-8.
    #[must_use]
    pub fn script(source: impl AsRef<[u8]>) -> PyExecute {
        PyExecute { script: source.as_ref().to_vec(), ..PyExecute::default() }
    }

    pub(crate) fn function(header: String, function: Function) -> PyExecute {
        PyExecute { script: header.into(), function: Some(function), ..PyExecute::default() }
    }

    /// Answers with the id of the execution, and does not wait for its end.
    #[must_use]
    pub fn unblocking(mut self) -> PyExecute {
        self.unblocking = true;
        self
    }

    /// The id of the session: letters, digits, `-` and `_`.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> PyExecute {
        self.id = Some(id.into());
        self
    }

    /// A text that lists of sessions show.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> PyExecute {
        self.description = Some(text.into());
        self
    }

    /// Replaces the session with the same id.
    #[must_use]
    pub fn upgrade(mut self) -> PyExecute {
        self.upgrade = true;
        self
    }

    /// Replaces the session with that id.
    #[must_use]
    pub fn replace_session(mut self, id: impl Into<String>) -> PyExecute {
        self.replace_with = Some(id.into());
        self
    }

    /// Replaces that registration.
    #[must_use]
    pub fn replace_registration(mut self, id: &RegistrationId) -> PyExecute {
        self.replace_with = Some(id.to_string());
        self
    }

    /// Installs the requirements again, even if they are there.
    #[must_use]
    pub fn reinstall_requirements(mut self) -> PyExecute {
        self.force_reinstall = true;
        self
    }

    /// Packages that the functions need, as pip names them.
    #[must_use]
    pub fn requirements(mut self, requirements: impl IntoIterator<Item = impl Into<String>>) -> PyExecute {
        self.requirements.extend(requirements.into_iter().map(Into::into));
        self
    }

    /// Asks for results as other clients get them: texts and bytes, whatever Python objects they were. A user may then lack
    /// the permission for `RG.WITHCODEC`.
    #[must_use]
    pub fn plain_results(mut self) -> PyExecute {
        self.plain = true;
        self
    }

    /// The command.
    pub(crate) fn call(self) -> Call<Executed> {
        const NAME: &str = "RG.PYEXECUTE";
        let plain = self.plain;
        let command = if plain { Command::new(NAME) } else { Command::tagged(NAME) };
        let mut command = command.arg(self.script).option("UNBLOCKING", self.unblocking);
        for (word, value) in [("ID", &self.id), ("DESCRIPTION", &self.description)] {
            if let Some(value) = value {
                command = command.arg(word).arg(value);
            }
        }
        command = command.option("UPGRADE", self.upgrade);
        if let Some(id) = &self.replace_with {
            command = command.arg("REPLACE_WITH").arg(id);
        }
        command = command.option("FORCE_REINSTALL_REQUIREMENTS", self.force_reinstall);
        if let Some(function) = self.function {
            command = command.arg(function.action).arg(function.plan).arg(function.callbacks);
        }
        if !self.requirements.is_empty() {
            command = command.arg("REQUIREMENTS").arg(self.requirements);
        }
        let decode = if plain { plain_record } else { record };
        Call::new(command, move |value| executed(NAME, value, decode))
    }
}

/// Makes a record of an element of a reply.
type Decode = fn(&'static str, Value) -> Result<Record>;

fn executed(name: &'static str, value: Value, decode: Decode) -> Result<Executed> {
    match value {
        Value::Okay => Ok(Executed::Nothing),
        // A script that failed: its error is the only element.
        Value::Array(items) if matches!(items.first(), Some(Value::ServerError(_))) => match &items[0] {
            Value::ServerError(error) => Err(error_reply(error, name)),
            _ => Ok(Executed::Nothing),
        },
        Value::Array(_) => results_with(name, value, decode).map(Executed::Results),
        other => match text_value(&other).and_then(|text| text.parse().ok()) {
            Some(id) => Ok(Executed::Started(id)),
            None => Err(Error::reply(name, format!("expected OK, results or an id, got {}", shown(&other)))),
        },
    }
}

/// An array of results and errors.
pub(crate) fn results(name: &'static str, value: Value) -> Result<Results> {
    results_with(name, value, record)
}

fn results_with(name: &'static str, value: Value, decode: Decode) -> Result<Results> {
    let [records, errors] = <[Value; 2]>::try_from(array(name, value)?)
        .map_err(|items| Error::reply(name, format!("expected results and errors, got {} elements", items.len())))?;
    let error = |value: &Value| match value {
        Value::ServerError(error) => Ok(PythonError::new(error_text(error))),
        other => text_value(other).map(PythonError::new).ok_or_else(|| Error::reply(name, "an error is not a text")),
    };
    Ok(Results {
        records: array(name, records)?.into_iter().map(|value| decode(name, value)).collect::<Result<_>>()?,
        errors: array(name, errors)?.iter().map(error).collect::<Result<_>>()?,
    })
}

/// What a triggered function answered: its only result, or an array of them.
pub(crate) fn triggered(name: &'static str, value: Value) -> Result<Results> {
    let values = match value {
        Value::Array(values) => values,
        value => vec![value],
    };
    let records = values.into_iter().map(|value| record(name, value)).collect::<Result<_>>()?;
    Ok(Results { records, errors: Vec::new() })
}

fn error_text(error: &redis::ServerError) -> String {
    match error.details() {
        Some(details) if error.code() == "ERR" => details.to_owned(),
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

/// A result: an encoded value, or what a function chose as its reply.
fn record(name: &'static str, value: Value) -> Result<Record> {
    match value {
        Value::BulkString(bytes) => Record::decode(&bytes),
        other => as_it_is(name, other, record),
    }
}

/// A result that is what it is on the wire.
fn plain_record(name: &'static str, value: Value) -> Result<Record> {
    match value {
        Value::BulkString(bytes) => Ok(Record::new(codec::Value::Raw(bytes))),
        other => as_it_is(name, other, plain_record),
    }
}

fn as_it_is(name: &'static str, value: Value, element: Decode) -> Result<Record> {
    let value = match value {
        Value::ServerError(error) => return Err(error_reply(&error, name)),
        Value::Nil => codec::Value::None,
        Value::Int(number) => codec::Value::Int(number),
        Value::Double(number) => codec::Value::Float(number),
        Value::Boolean(flag) => codec::Value::Bool(flag),
        Value::Array(items) => {
            let items = items.into_iter().map(|item| element(name, item).map(|record| record.value().clone()));
            codec::Value::List(items.collect::<Result<_>>()?)
        }
        other => match text_value(&other) {
            Some(text) => codec::Value::Str(text),
            None => return Err(Error::reply(name, format!("a result of an unknown kind: {}", shown(&other)))),
        },
    };
    Ok(Record::new(value))
}
