//! The workers' memory, and the plugins of RedisGears.

use redis::Value;

use super::fields::Fields;
use crate::error::Result;

/// Memory of the worker processes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PyStats {
    /// All that was ever allocated.
    pub total_bytes: u64,
    /// The most at one time.
    pub peak_bytes: u64,
    /// What is allocated now.
    pub current_bytes: u64,
}

impl PyStats {
    /// The sum over the shards of a reply.
    pub(crate) fn from_value(value: Value) -> Result<PyStats> {
        let of_shards = match value {
            Value::Map(pairs) if pairs.iter().all(|(_, value)| matches!(value, Value::Array(_) | Value::Map(_))) => {
                pairs.into_iter().map(|(_, value)| value).collect()
            }
            value => vec![value],
        };
        let mut sum = PyStats::default();
        for value in of_shards {
            let mut row = Fields::new("RG.PYSTATS", value)?;
            sum.total_bytes = sum.total_bytes.saturating_add(row.number("TotalAllocated")?);
            sum.peak_bytes = sum.peak_bytes.saturating_add(row.number("PeakAllocated")?);
            sum.current_bytes = sum.current_bytes.saturating_add(row.number("CurrAllocated")?);
        }
        Ok(sum)
    }
}

/// A plugin of RedisGears that the module stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// Its version: 10206 is 1.2.6.
    pub version: u64,
}

impl Plugin {
    pub(crate) fn from_fields(mut row: Fields) -> Result<Plugin> {
        Ok(Plugin { name: row.text("name")?, version: row.number("version")? })
    }
}
