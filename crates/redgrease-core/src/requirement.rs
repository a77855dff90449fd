//! A requirement with its wheels, as `RG.PYEXPORTREQ` gives it and `RG.PYIMPORTREQ` takes it.
//!
//! One encoded value ([`crate::codec`]), cut into pieces of at most [`PIECE_BYTES_MAX`] by the commands.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_bytes::ByteBuf;
use thiserror::Error;

use crate::codec::Value;
use crate::from_value::from_value;

/// Bytes of one piece of an exported requirement.
pub const PIECE_BYTES_MAX: usize = 10 << 20;

/// The version of the format.
pub const REQUIREMENT_VERSION: u64 = 2;

/// A wheel with its content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct WheelFile {
    /// Its file name.
    pub file: String,
    /// Its content.
    pub data: ByteBuf,
}

/// A requirement and the wheels that it needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Requirement {
    /// The requirement as given, such as `redis>=4`.
    pub name: String,
    /// The platform that the wheels were made on, such as `linux-x86_64`.
    pub platform: String,
    /// The wheels.
    pub wheels: Vec<WheelFile>,
}

/// Why an exported requirement cannot be used. Programs know the beginnings of these texts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequirementError {
    /// It is not a value of the codec, or a field is missing or wrong.
    #[error("Bad serialization format on reading requirement: {0}")]
    Format(String),
    /// It was written by another version.
    #[error("Requirement version is not compatible, upgrade to newer RedisGears.")]
    Version,
    /// The name of a file is not that of a wheel.
    #[error("Bad serialization format on reading wheel file name: '{0}' is not the name of a wheel")]
    FileName(String),
}

#[derive(Deserialize)]
struct Head {
    version: u64,
}

/// Whether a text is the name of a wheel's file, and nothing else: no path.
#[must_use]
pub fn is_wheel_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '!');
    name.ends_with(".whl") && !name.starts_with('.') && name.len() <= 255 && name.chars().all(allowed)
}

impl Requirement {
    /// Its encoded form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let dict = |pairs: Vec<(&str, Value)>| {
            Value::Dict(pairs.into_iter().map(|(name, value)| (Value::text(name), value)).collect())
        };
        let wheel = |wheel: &WheelFile| {
            dict(alloc::vec![("file", Value::text(wheel.file.as_str())), ("data", Value::Bytes(wheel.data.to_vec())),])
        };
        dict(alloc::vec![
            ("version", Value::Int(REQUIREMENT_VERSION as i64)),
            ("name", Value::text(self.name.as_str())),
            ("platform", Value::text(self.platform.as_str())),
            ("wheels", Value::List(self.wheels.iter().map(wheel).collect())),
        ])
        .encode()
    }

    /// Reads an encoded requirement.
    ///
    /// # Errors
    /// [`RequirementError`], which names the field.
    pub fn decode(encoded: &[u8]) -> Result<Requirement, RequirementError> {
        let format = |error: &dyn core::fmt::Display| RequirementError::Format(alloc::format!("{error}"));
        let value = Value::decode(encoded).map_err(|error| format(&error))?;
        let Head { version } = from_value(&value).map_err(|error| format(&error))?;
        if version != REQUIREMENT_VERSION {
            return Err(RequirementError::Version);
        }
        let requirement: Requirement = from_value(&value).map_err(|error| format(&error))?;
        match requirement.wheels.iter().find(|wheel| !is_wheel_name(&wheel.file)) {
            Some(wrong) => Err(RequirementError::FileName(wrong.file.clone())),
            None => Ok(requirement),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn requirement(file: &str) -> Requirement {
        let wheels = vec![WheelFile { file: file.into(), data: ByteBuf::from(b"PK\x03\x04".to_vec()) }];
        Requirement { name: "a>=1".into(), platform: "linux-x86_64".into(), wheels }
    }

    #[test]
    fn a_requirement_survives_the_round_trip() {
        let one = requirement("a-1.0-py3-none-any.whl");
        assert_eq!(Requirement::decode(&one.encode()), Ok(one));
    }

    #[test]
    fn a_cut_or_changed_one_is_refused() {
        let encoded = requirement("a-1.0-py3-none-any.whl").encode();
        for len in 0..encoded.len() {
            let error = Requirement::decode(&encoded[..len]).unwrap_err().to_string();
            assert!(error.starts_with("Bad serialization format on reading"), "{error}");
        }
        for byte in 0..=255 {
            let mut changed = encoded.clone();
            let middle = changed.len() / 2;
            changed[middle] = byte;
            let _ = Requirement::decode(&changed);
        }
    }

    #[test]
    fn names_with_a_path_are_refused() {
        for name in ["../a.whl", "/etc/a.whl", "a/b.whl", ".a.whl", "a.txt", "a.whl\0.whl", "ä.whl", ""] {
            assert!(Requirement::decode(&requirement(name).encode()).is_err(), "{name}");
        }
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let other = Value::Dict(vec![(Value::text("version"), Value::Int(1))]).encode();
        assert_eq!(Requirement::decode(&other), Err(RequirementError::Version));
    }
}
