//! Registrations as they are saved in data files and sent to replicas.
//!
//! The format is one encoded value ([`crate::codec`]) of nested dicts, so that a reader names the field that is missing or
//! wrong, and a later version may add fields.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
pub use serde_bytes::ByteBuf;
use thiserror::Error;

use crate::codec::Value;
use crate::from_value::{ValueError, from_value};

/// The version of the format.
pub const SAVED_VERSION: u64 = 1;

/// A registration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SavedRegistration {
    /// The number in its identifier.
    pub number: u64,
    /// The shard in its identifier.
    pub shard: Option<String>,
    /// Its plan's number in the workers, as the bits of a signed number.
    pub plan: i64,
    /// Its database.
    pub database: u64,
    /// Its encoded plan: see [`crate::plan::PlanSpec`].
    pub spec: ByteBuf,
    /// The consumer group of a stream registration.
    pub group: ByteBuf,
}

/// A function that a client sent as plan and callbacks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SavedFunction {
    /// The plan's number in the workers, as the bits of a signed number.
    pub plan: i64,
    /// The encoded plan.
    pub spec: ByteBuf,
    /// Pickle of its callbacks.
    pub callbacks: ByteBuf,
}

/// The version of a session: a later one replaces an earlier one on all shards of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SavedVersion {
    /// A time that grows with each change.
    pub time: u64,
    /// The run of the server that made the change.
    pub run: String,
}

/// All changes of a run of a server until that time were seen.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SavedSeen {
    /// The run.
    pub run: String,
    /// The time.
    pub time: u64,
}

/// A session that owns registrations.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SavedSession {
    /// Its id, as users see it.
    pub name: String,
    /// Free text.
    pub description: Option<ByteBuf>,
    /// The user that its functions act as.
    pub user: String,
    /// The database of the client that ran its script.
    pub database: u64,
    /// Source of its script.
    pub source: ByteBuf,
    /// The function that a client sent without a script.
    pub function: Option<SavedFunction>,
    /// Pickles of its plans.
    pub functions: Vec<ByteBuf>,
    /// Version of the interpreter that pickled them.
    pub python: String,
    /// Its requirements.
    pub requirements: Vec<String>,
    /// What the workers of the session share: the set of requirements.
    pub environment: String,
    /// Its version.
    pub version: Option<SavedVersion>,
    /// Its registrations.
    pub registrations: Vec<SavedRegistration>,
}

/// A function that is called again and again, for which a key stands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SavedTimeEvent {
    /// Seconds between the end of a call and the next one.
    pub period_s: u64,
    /// Its plan's number in the workers, as the bits of a signed number.
    pub plan: i64,
    /// Its encoded plan.
    pub spec: ByteBuf,
    /// Its session, without registrations.
    pub session: SavedSession,
}

/// A wheel: an archive with an installable package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SavedWheel {
    /// Its file name.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
}

/// A change of the registrations, or of the requirements that they have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Part of a wheel of a set of requirements.
    WheelPart {
        /// The set.
        environment: String,
        /// The wheel's file name.
        file: String,
        /// Where the part begins, in bytes.
        offset: u64,
        /// The part.
        part: ByteBuf,
    },
    /// The wheels of a set of requirements are complete.
    Wheels {
        /// The set.
        environment: String,
        /// The wheels.
        wheels: Vec<SavedWheel>,
        /// Their contents were too big to be sent: they have to be downloaded, exactly these.
        locked: bool,
    },
    /// These sessions and no others exist.
    All {
        /// The sessions.
        sessions: Vec<SavedSession>,
        /// The number of the next registration.
        next: u64,
        /// What was seen of the changes of all runs: a session with a version that was seen, and that is missing, was removed.
        seen: Vec<SavedSeen>,
    },
    /// A session exists with exactly these registrations, in place of others.
    Session {
        /// The session.
        session: SavedSession,
        /// Ids of the sessions that it replaces, its own among them.
        replaces: Vec<String>,
        /// The time of the change before of the same run.
        after: u64,
    },
    /// A registration was removed.
    Removed {
        /// The number in its identifier.
        registration: u64,
        /// The shard in its identifier.
        shard: Option<String>,
        /// Version of its session after that.
        version: Option<SavedVersion>,
        /// The time of the change before of the same run.
        after: u64,
    },
    /// A key was made that stands for a function that is called again and again.
    TimeEvent {
        /// The key's database.
        database: u64,
        /// The key.
        key: ByteBuf,
        /// The function.
        event: SavedTimeEvent,
    },
}

/// Why a saved change cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SavedError {
    /// It is not a value of the codec, or a field is missing or wrong.
    #[error("saved registrations are not readable: {0}")]
    Value(String),
    /// It was written by a later version.
    #[error(
        "saved registrations have version {0}, this module reads {SAVED_VERSION}: install the module that wrote them"
    )]
    Version(u64),
    /// It is a change of an unknown kind.
    #[error("saved registrations are not readable: field 'kind' is '{0}'")]
    Kind(String),
}

impl From<ValueError> for SavedError {
    fn from(error: ValueError) -> SavedError {
        SavedError::Value(alloc::format!("{error}"))
    }
}

#[derive(Deserialize)]
struct Head {
    version: u64,
    kind: String,
}

#[derive(Deserialize)]
struct All {
    sessions: Vec<SavedSession>,
    next: u64,
    seen: Vec<SavedSeen>,
}

#[derive(Deserialize)]
struct One {
    session: SavedSession,
    replaces: Vec<String>,
    after: u64,
}

#[derive(Deserialize)]
struct OfKey {
    database: u64,
    key: ByteBuf,
    event: SavedTimeEvent,
}

#[derive(Deserialize)]
struct Part {
    environment: String,
    file: String,
    offset: u64,
    part: ByteBuf,
}

#[derive(Deserialize)]
struct Wheels {
    environment: String,
    wheels: Vec<SavedWheel>,
    locked: bool,
}

#[derive(Deserialize)]
struct Removed {
    registration: u64,
    shard: Option<String>,
    changed: Option<SavedVersion>,
    after: u64,
}

fn dict(pairs: Vec<(&str, Value)>) -> Value {
    Value::Dict(pairs.into_iter().map(|(name, value)| (Value::text(name), value)).collect())
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

fn number(number: u64) -> Value {
    Value::Int(number as i64)
}

fn optional<T>(value: Option<&T>, of: impl Fn(&T) -> Value) -> Value {
    value.map_or(Value::None, of)
}

impl SavedRegistration {
    fn value(&self) -> Value {
        dict(alloc::vec![
            ("number", number(self.number)),
            ("shard", optional(self.shard.as_ref(), |shard| Value::text(shard.as_str()))),
            ("plan", Value::Int(self.plan)),
            ("database", number(self.database)),
            ("spec", bytes(&self.spec)),
            ("group", bytes(&self.group)),
        ])
    }
}

impl SavedVersion {
    fn value(&self) -> Value {
        dict(alloc::vec![("time", number(self.time)), ("run", Value::text(self.run.as_str()))])
    }
}

impl SavedSeen {
    fn value(&self) -> Value {
        dict(alloc::vec![("run", Value::text(self.run.as_str())), ("time", number(self.time))])
    }
}

impl SavedSession {
    fn value(&self) -> Value {
        let texts = |texts: &[String]| Value::List(texts.iter().map(|text| Value::text(text.as_str())).collect());
        let function = |function: &SavedFunction| {
            dict(alloc::vec![
                ("plan", Value::Int(function.plan)),
                ("spec", bytes(&function.spec)),
                ("callbacks", bytes(&function.callbacks)),
            ])
        };
        dict(alloc::vec![
            ("name", Value::text(self.name.as_str())),
            ("description", optional(self.description.as_ref(), |text| bytes(text))),
            ("user", Value::text(self.user.as_str())),
            ("database", number(self.database)),
            ("source", bytes(&self.source)),
            ("function", optional(self.function.as_ref(), function)),
            ("functions", Value::List(self.functions.iter().map(|pickle| bytes(pickle)).collect())),
            ("python", Value::text(self.python.as_str())),
            ("requirements", texts(&self.requirements)),
            ("environment", Value::text(self.environment.as_str())),
            ("version", optional(self.version.as_ref(), SavedVersion::value)),
            ("registrations", Value::List(self.registrations.iter().map(SavedRegistration::value).collect())),
        ])
    }
}

impl SavedWheel {
    fn value(&self) -> Value {
        dict(alloc::vec![
            ("file", Value::text(self.file.as_str())),
            ("bytes", number(self.bytes)),
            ("sha256", Value::text(self.sha256.as_str())),
        ])
    }
}

impl Change {
    /// Its encoded form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, mut fields) = match self {
            Change::All { sessions, next, seen } => {
                let sessions = Value::List(sessions.iter().map(SavedSession::value).collect());
                let seen = Value::List(seen.iter().map(SavedSeen::value).collect());
                ("all", alloc::vec![("sessions", sessions), ("next", number(*next)), ("seen", seen)])
            }
            Change::Session { session, replaces, after } => {
                let replaces = Value::List(replaces.iter().map(|name| Value::text(name.as_str())).collect());
                (
                    "session",
                    alloc::vec![("session", session.value()), ("replaces", replaces), ("after", number(*after))],
                )
            }
            Change::TimeEvent { database, key, event } => {
                let event = dict(alloc::vec![
                    ("period_s", number(event.period_s)),
                    ("plan", Value::Int(event.plan)),
                    ("spec", bytes(&event.spec)),
                    ("session", event.session.value()),
                ]);
                ("time event", alloc::vec![("database", number(*database)), ("key", bytes(key)), ("event", event)])
            }
            Change::WheelPart { environment, file, offset, part } => (
                "wheel part",
                alloc::vec![
                    ("environment", Value::text(environment.as_str())),
                    ("file", Value::text(file.as_str())),
                    ("offset", number(*offset)),
                    ("part", bytes(part)),
                ],
            ),
            Change::Wheels { environment, wheels, locked } => (
                "wheels",
                alloc::vec![
                    ("environment", Value::text(environment.as_str())),
                    ("wheels", Value::List(wheels.iter().map(SavedWheel::value).collect())),
                    ("locked", Value::Bool(*locked)),
                ],
            ),
            Change::Removed { registration, shard, version, after } => (
                "removed",
                alloc::vec![
                    ("registration", number(*registration)),
                    ("shard", optional(shard.as_ref(), |shard| Value::text(shard.as_str()))),
                    ("changed", optional(version.as_ref(), SavedVersion::value)),
                    ("after", number(*after)),
                ],
            ),
        };
        fields.insert(0, ("kind", Value::text(kind)));
        fields.insert(0, ("version", number(SAVED_VERSION)));
        dict(fields).encode()
    }

    /// Reads an encoded change.
    ///
    /// # Errors
    /// [`SavedError`], which names the field.
    pub fn decode(encoded: &[u8]) -> Result<Change, SavedError> {
        let value = Value::decode(encoded).map_err(|error| SavedError::Value(alloc::format!("{error}")))?;
        let Head { version, kind } = from_value(&value)?;
        if version > SAVED_VERSION {
            return Err(SavedError::Version(version));
        }
        match kind.as_str() {
            "all" => {
                let All { sessions, next, seen } = from_value(&value)?;
                Ok(Change::All { sessions, next, seen })
            }
            "session" => {
                let One { session, replaces, after } = from_value(&value)?;
                Ok(Change::Session { session, replaces, after })
            }
            "time event" => {
                let OfKey { database, key, event } = from_value(&value)?;
                Ok(Change::TimeEvent { database, key, event })
            }
            "wheel part" => {
                let Part { environment, file, offset, part } = from_value(&value)?;
                Ok(Change::WheelPart { environment, file, offset, part })
            }
            "wheels" => {
                let Wheels { environment, wheels, locked } = from_value(&value)?;
                Ok(Change::Wheels { environment, wheels, locked })
            }
            "removed" => {
                let Removed { registration, shard, changed: version, after } = from_value(&value)?;
                Ok(Change::Removed { registration, shard, version, after })
            }
            other => Err(SavedError::Kind(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn session(name: &str) -> SavedSession {
        SavedSession {
            name: name.into(),
            description: Some(ByteBuf::from(b"what \xff it does".to_vec())),
            user: "default".into(),
            database: 3,
            source: ByteBuf::from(b"GB()".to_vec()),
            function: Some(SavedFunction {
                plan: i64::MIN,
                spec: ByteBuf::from(b"s".to_vec()),
                callbacks: ByteBuf::from(b"c".to_vec()),
            }),
            functions: vec![ByteBuf::from(b"pickle".to_vec())],
            python: "3.11.7".into(),
            requirements: vec!["a>=1".into()],
            environment: "a>=1".into(),
            version: Some(SavedVersion { time: 7, run: "a".into() }),
            registrations: vec![SavedRegistration {
                number: 5,
                shard: Some("0".repeat(40)),
                plan: -1,
                database: 3,
                spec: ByteBuf::from(b"\0".to_vec()),
                group: ByteBuf::new(),
            }],
        }
    }

    #[test]
    fn each_change_survives_the_round_trip() {
        let changes = [
            Change::All {
                sessions: vec![session("a"), session("b")],
                next: 9,
                seen: vec![SavedSeen { run: "a".into(), time: 7 }],
            },
            Change::Session { session: session("a"), replaces: vec!["a".into(), "b".into()], after: 6 },
            Change::Removed {
                registration: 7,
                shard: Some("a".into()),
                version: Some(SavedVersion { time: 8, run: "a".into() }),
                after: 7,
            },
            Change::WheelPart {
                environment: "a".into(),
                file: "a-1-py3-none-any.whl".into(),
                offset: 1 << 40,
                part: ByteBuf::from(b"\0\xff".to_vec()),
            },
            Change::Wheels {
                environment: "a".into(),
                wheels: vec![SavedWheel { file: "a-1-py3-none-any.whl".into(), bytes: 2, sha256: "0f".into() }],
                locked: true,
            },
            Change::TimeEvent {
                database: 1,
                key: ByteBuf::from(b"k".to_vec()),
                event: SavedTimeEvent {
                    period_s: 3,
                    plan: -5,
                    spec: ByteBuf::from(b"s".to_vec()),
                    session: session("a"),
                },
            },
        ];
        for change in changes {
            assert_eq!(Change::decode(&change.encode()), Ok(change));
        }
    }

    #[test]
    fn a_broken_change_names_what_is_wrong() {
        let encoded = Change::All { sessions: vec![session("a")], next: 9, seen: vec![] }.encode();
        for len in 0..encoded.len() {
            assert!(Change::decode(&encoded[..len]).is_err(), "{len} bytes");
        }
        let error = |fields: Vec<(&str, Value)>| Change::decode(&dict(fields).encode()).unwrap_err().to_string();
        assert!(error(vec![("version", number(2)), ("kind", Value::text("all"))]).contains("version 2"));
        assert!(error(vec![("version", number(1)), ("kind", Value::text("other"))]).contains("'kind' is 'other'"));
        let missing = error(vec![("version", number(1)), ("kind", Value::text("removed"))]);
        assert!(missing.contains("registration"), "{missing}");
    }
}
