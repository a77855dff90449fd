//! The configuration at run time: `RG.CONFIGGET`, `RG.CONFIGSET`, and the server's `CONFIG SET rg.*`.

use redgrease_core::render::Reply;

use crate::clients::Client;
use crate::config::{Key, Part, Setting, key};
use crate::engine::Engine;
use crate::prelude::*;

/// What RedisGears answered for a key that it did not know.
const SAVED: &str = "OK - value was saved in extra config dictionary";

impl Engine {
    /// `RG.CONFIGGET`.
    pub(crate) fn config_get(&mut self, client: Client, names: &[&[u8]]) {
        let values = names.iter().map(|name| match key(name) {
            Some(key) if key.is_secret() => error(&format!("{} is not shown", key.name)),
            Some(key) => match self.config.get(key) {
                Setting::Number(number) => Reply::Int(number as i64),
                Setting::Text(text) => Reply::Bulk(text),
                Setting::List(texts) => Reply::Array(texts.into_iter().map(Reply::Bulk).collect()),
            },
            None => match self.config.extra.get(*name) {
                Some(value) => Reply::bulk(value),
                None => error(&format!("Unsupported config parameter: {}", String::from_utf8_lossy(name))),
            },
        });
        let values = Reply::Array(values.collect());
        self.reply(client, values);
    }

    /// `RG.CONFIGSET`: one element for each pair.
    pub(crate) fn config_set(&mut self, client: Client, words: &[&[u8]]) {
        let replies = words.chunks(2).map(|pair| self.set_one(pair[0], pair.get(1).copied())).collect();
        self.reply(client, Reply::Array(replies));
    }

    fn set_one(&mut self, name: &[u8], value: Option<&[u8]>) -> Reply {
        let found = key(name);
        let shown = found.map_or_else(|| String::from_utf8_lossy(name).into_owned(), |key| key.name.to_owned());
        let Some(value) = value else {
            return match found.map(|key| key.part) {
                Some(Part::Core) => error(&format!("Failed setting config value {shown}")),
                _ => error(&format!("Value was not given to {shown}")),
            };
        };
        let Some(key) = found else {
            self.config.extra.insert(name.to_vec(), value.to_vec());
            return Reply::Simple(SAVED.to_owned());
        };
        match (self.set_key(key, value), key.part) {
            (Ok(()), Part::Core) => Reply::Simple("OK".to_owned()),
            (Ok(()), Part::Python) => {
                self.config.extra.insert(key.name.as_bytes().to_vec(), value.to_vec());
                Reply::Simple(SAVED.to_owned())
            }
            (Err(NotSet::Fixed), Part::Core) => error(&format!("Config value {shown} not modifiable at runtime")),
            (Err(NotSet::Fixed), Part::Python) => error(&format!("{shown} is not configurable at runtime")),
            (Err(NotSet::Value(_)), Part::Core) => error(&format!("Failed setting config value {shown}")),
            (Err(NotSet::Value(_)), Part::Python) => {
                let value = String::from_utf8_lossy(value);
                error(&format!("Failed setting config value for key '{shown}' with value '{value}'"))
            }
        }
    }

    /// Changes the value of a key at run time, for the server's `CONFIG SET`.
    ///
    /// # Errors
    /// It can only be set when the module is loaded, or the value is out of range; the text says which.
    pub fn change_setting(&mut self, key: &'static Key, value: &[u8]) -> Result<(), String> {
        self.set_key(key, value).map_err(|reason| match reason {
            NotSet::Fixed => format!("'{}' can only be set when the module is loaded", key.name),
            NotSet::Value(expected) => {
                format!("'{}' wants {expected}, got '{}'", key.name, String::from_utf8_lossy(value))
            }
        })
    }

    /// Changes the value of a key at run time.
    fn set_key(&mut self, key: &'static Key, value: &[u8]) -> Result<(), NotSet> {
        if !key.at_runtime {
            return Err(NotSet::Fixed);
        }
        self.config.set(key, value).map_err(NotSet::Value)?;
        self.executions.set_max(self.config.executions_max);
        self.pending.set_max(self.config.pending_event_bytes_max);
        Ok(())
    }
}

/// Why a key was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotSet {
    /// It can only be set when the module is loaded.
    Fixed,
    /// The value is not in its range; what is expected.
    Value(String),
}

fn error(text: &str) -> Reply {
    Reply::Error(redgrease_core::render::one_line(format!("(error) {text}").as_bytes()))
}
