//! The cluster as one of its shards sees it.

use redis::Value;

use super::fields::{Fields, rows, text_value};
use crate::error::{Error, Result};

const NAME: &str = "RG.INFOCLUSTER";

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cluster {
    /// The id of the shard that answered.
    pub my_id: String,
    /// The id of its process.
    pub my_run_id: Option<String>,
    /// All shards.
    pub shards: Vec<Shard>,
}

/// A shard of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shard {
    /// Its id.
    pub id: String,
    /// Its address.
    pub ip: String,
    /// Its port.
    pub port: u64,
    /// The path of its socket, if it has one.
    pub unix_socket: Option<String>,
    /// The id of its process.
    pub run_id: Option<String>,
    /// The first of its hash slots.
    pub first_slot: u64,
    /// The last of its hash slots.
    pub last_slot: u64,
    /// Messages to it that wait.
    pub pending_messages: u64,
}

impl Cluster {
    /// `None` without a cluster.
    pub(crate) fn from_value(value: Value) -> Result<Option<Cluster>> {
        if text_value(&value).is_some() {
            return Ok(None);
        }
        let (value, shards) = match value {
            // The list of shards has no name.
            Value::Array(mut items) if items.len() % 2 == 1 => {
                let shards = items.pop();
                (Value::Array(items), shards)
            }
            other => (other, None),
        };
        let mut row = Fields::new(NAME, value)?;
        let shards =
            shards.or_else(|| row.take("shards")).ok_or_else(|| Error::reply(NAME, "it has no list of shards"))?;
        Ok(Some(Cluster {
            my_id: row.text("MyId")?,
            my_run_id: row.optional_text("MyRunId")?,
            shards: rows(NAME, shards, Shard::from_fields)?,
        }))
    }
}

impl Shard {
    fn from_fields(mut row: Fields) -> Result<Shard> {
        Ok(Shard {
            id: row.text("id")?,
            ip: row.text("ip")?,
            port: row.number("port")?,
            unix_socket: row.optional_text("unixSocket")?.filter(|path| path != "None"),
            run_id: row.optional_text("runid")?,
            first_slot: row.number("minHslot")?,
            last_slot: row.number("maxHslot")?,
            pending_messages: row.number("pendingMessages")?,
        })
    }
}
