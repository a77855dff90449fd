//! The file beside a content file, for data that does not fit into its name.

use redgrease_cache_rules::{Key, MAX_KEY_BYTES, name};
use serde::{Deserialize, Serialize};

use crate::edge::Disk;
use crate::options::MAX_METADATA_BYTES;

/// The contents of a sidecar: data that does not fit into the file's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sidecar {
    pub key: Key,
    pub metadata: Vec<u8>,
}

impl Sidecar {
    pub fn pack(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("bytes can always be written")
    }
}

/// Reads the sidecar of a file; `None` if it is missing or damaged. A failed read is an error.
pub(crate) fn sidecar_of<D: Disk>(disk: &D, name: &str) -> std::io::Result<Option<Sidecar>> {
    let (mut file, size) = match disk.open(&format!("{name}{}", name::SIDECAR)) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidData) => {
            return Ok(None);
        }
        opened => opened?,
    };
    let most = (MAX_KEY_BYTES + MAX_METADATA_BYTES + 64) as u64;
    let bytes = disk.read(&mut file, most, Vec::new())?;
    Ok((size <= most).then(|| postcard::from_bytes(&bytes).ok()).flatten())
}
