//! Requirements: packages that functions need.

use redis::Value;

use super::fields::{Fields, array, shown};
use crate::error::{Error, Result};

/// A requirement that the server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requirement {
    /// It, as it was asked for.
    pub name: String,
    /// Version of its form.
    pub version: u64,
    /// Whether its wheels are there.
    pub is_downloaded: bool,
    /// Whether it is installed.
    pub is_installed: bool,
    /// The platform of its wheels.
    pub platform: Option<String>,
    /// The names of its wheels; none while it is not installed.
    pub wheels: Vec<String>,
    /// The directory that it is installed in.
    pub path: Option<String>,
    /// Number of sessions that use it.
    pub references: u64,
}

impl Requirement {
    pub(crate) fn from_fields(mut row: Fields) -> Result<Requirement> {
        Ok(Requirement {
            name: row.text("Name")?,
            version: row.number("GearReqVersion")?,
            is_downloaded: row.flag("IsDownloaded")?,
            is_installed: row.flag("IsInstalled")?,
            platform: row.optional_text("CompiledOs")?,
            // In place of the wheels there may be a text that says why there are none.
            wheels: match row.take("Wheels") {
                Some(Value::Array(wheels)) => {
                    wheels.iter().map(|wheel| super::plain_text("RG.PYDUMPREQS", wheel)).collect::<Result<_>>()?
                }
                _ => Vec::new(),
            },
            path: row.optional_text("Path")?.filter(|path| !path.is_empty()),
            references: row.number("RefCount")?,
        })
    }
}

/// A requirement with its wheels, as one server exports and another one imports it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportedRequirement {
    /// What the server knows of it.
    pub requirement: Requirement,
    /// Its wheels in a form for `RG.PYIMPORTREQ`, each piece at most 10 MiB.
    pub pieces: Vec<Vec<u8>>,
}

impl ExportedRequirement {
    pub(crate) fn from_value(value: Value) -> Result<ExportedRequirement> {
        const NAME: &str = "RG.PYEXPORTREQ";
        let [row, pieces] = <[Value; 2]>::try_from(array(NAME, value)?)
            .map_err(|items| Error::reply(NAME, format!("expected two elements, got {}", items.len())))?;
        let piece = |value| match value {
            Value::BulkString(bytes) => Ok(bytes),
            other => Err(Error::reply(NAME, format!("expected bytes, got {}", shown(&other)))),
        };
        Ok(ExportedRequirement {
            requirement: Requirement::from_fields(Fields::new(NAME, row)?)?,
            pieces: array(NAME, pieces)?.into_iter().map(piece).collect::<Result<_>>()?,
        })
    }
}
