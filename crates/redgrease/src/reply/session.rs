//! Sessions: what one execution of a script or function created.

use std::str::FromStr;

use redis::Value;

use super::fields::{Fields, plain_text};
use super::registration::Registration;
use super::requirement::Requirement;
use crate::error::{Error, Result};
use crate::id::RegistrationId;

const NAME: &str = "RG.PYDUMPSESSIONS";

/// A session.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Session {
    /// Its id.
    pub id: String,
    /// The description that it was given.
    pub description: Option<String>,
    /// Number of its registrations, and of its executions that have not ended.
    pub references: u64,
    /// `primary` if it has registrations.
    pub linked: String,
    /// Whether it only exists until its executions end.
    pub is_dead: bool,
    /// Whether its requirements were installed for it.
    pub installed_requirements: bool,
    /// Its requirements.
    pub requirements: Vec<Linked<String, Requirement>>,
    /// Its registrations.
    pub registrations: Vec<Linked<RegistrationId, Registration>>,
}

/// What belongs to a session: its name, or with `VERBOSE` all that the server knows of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Linked<Name, Row> {
    /// The name or id.
    Name(Name),
    /// All of it.
    Row(Box<Row>),
}

impl Session {
    /// The sessions of a reply. In place of a session that does not exist is a text, which is left out.
    pub(crate) fn list(value: Value) -> Result<Vec<Session>> {
        let rows = super::array(NAME, value)?.into_iter().filter(|row| matches!(row, Value::Array(_) | Value::Map(_)));
        rows.map(|row| Session::from_fields(Fields::new(NAME, row)?)).collect()
    }

    fn from_fields(mut row: Fields) -> Result<Session> {
        Ok(Session {
            id: row.text("ID")?,
            description: row.optional_text("sessionDescription")?,
            references: row.number("refCount")?,
            linked: row.text("linked")?,
            is_dead: row.flag("dead")?,
            installed_requirements: row.flag("requirementInstallationNeeded")?,
            requirements: linked(row.list("requirements")?, Ok, Requirement::from_fields)?,
            registrations: linked(row.list("registrations")?, id, Registration::from_fields)?,
        })
    }
}

fn id(text: String) -> Result<RegistrationId> {
    RegistrationId::from_str(&text).map_err(|error| Error::reply(NAME, error.what()))
}

fn linked<Name, Row>(
    values: Vec<Value>,
    name: impl Fn(String) -> Result<Name>,
    row: impl Fn(Fields) -> Result<Row>,
) -> Result<Vec<Linked<Name, Row>>> {
    let one = |value| match value {
        Value::Array(_) | Value::Map(_) => Ok(Linked::Row(Box::new(row(Fields::new(NAME, value)?)?))),
        other => name(plain_text(NAME, &other)?).map(Linked::Name),
    };
    values.into_iter().map(one).collect()
}
