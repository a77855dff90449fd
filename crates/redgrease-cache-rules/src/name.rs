//! The names of files: safe for any key, and sufficient to rebuild a lost index.
//!
//! `<shard>/<stem>~<fence>~<digest>[~t<ttl>][~m]`, numbers in lower-case hexadecimal. The stem is the key with everything
//! except letters, digits, `_`, `-` and inner `.` written as `%XX`. If that would be longer than [`STEM_BYTES`], the
//! stem is `=` and a prefix of it. `~m` means that a *sidecar*, a file with the same name and the suffix [`SIDECAR`],
//! has the key and the user's metadata. Two generations never share a name, because they never share a fence: neither
//! on case-insensitive file systems nor for keys with a common prefix.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{Digest, Entry, Key, MAX_KEY_BYTES, Micros};

/// Maximum length of a stem in bytes; a name then has at most 235, below the usual limit of 255.
pub const STEM_BYTES: usize = 160;

/// The suffix of a sidecar's name.
pub const SIDECAR: &str = ".meta";

/// Number of shards: the subdirectories that files are distributed over.
pub const SHARDS: u16 = 256;

/// The largest fence and time to live: an index in a server calculates with 53 bits.
pub const MAX_NUMBER: u64 = 1 << 52;

/// A parsed file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The key; `None` if only the sidecar has it.
    pub key: Option<Key>,
    /// The fence of the lease that made it.
    pub fence: u64,
    /// Hash of the content.
    pub digest: Digest,
    /// Time to live given when it was made; 0: unlimited.
    pub ttl: Micros,
    /// Whether there is a sidecar.
    pub sidecar: bool,
}

/// The directory of a key's shard: the first byte of the key's BLAKE3 hash. A change here needs a new format version.
pub fn shard(key: &[u8]) -> String {
    shard_at(u16::from(blake3::hash(key).as_bytes()[0]))
}

/// The directory of the shard with this number, below [`SHARDS`].
pub fn shard_at(number: u16) -> String {
    format!("{number:02x}")
}

/// The stem of all names of a key, and whether the key can be decoded from it.
pub fn stem(key: &[u8]) -> (String, bool) {
    let mut stem = String::with_capacity(key.len() + 8);
    for (at, &byte) in key.iter().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || (byte == b'.' && at > 0);
        if plain {
            stem.push(char::from(byte));
        } else {
            stem.push('%');
            stem.push(char::from(HEX[usize::from(byte >> 4)]).to_ascii_uppercase());
            stem.push(char::from(HEX[usize::from(byte & 15)]).to_ascii_uppercase());
        }
        if stem.len() > STEM_BYTES {
            stem.insert(0, '=');
            stem.truncate(STEM_BYTES);
            return (stem, false);
        }
    }
    (stem, true)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Whether the file of this entry has a sidecar.
pub fn has_sidecar(key: &[u8], entry: &Entry) -> bool {
    !entry.metadata.is_empty() || !stem(key).1
}

/// The name of an entry's file, including its shard's directory.
pub fn file_name(key: &[u8], entry: &Entry) -> String {
    let (stem, readable) = stem(key);
    let mut name = format!("{}/{stem}~{:016x}~", shard(key), entry.fence);
    for byte in entry.digest {
        name.push(char::from(HEX[usize::from(byte >> 4)]));
        name.push(char::from(HEX[usize::from(byte & 15)]));
    }
    if entry.ttl != 0 {
        name.push_str(&format!("~t{:x}", entry.ttl));
    }
    if !entry.metadata.is_empty() || !readable {
        name.push_str("~m");
    }
    name
}

/// Parses a name without its directory; `None` if it is not a name of the cache.
pub fn parse(name: &str) -> Option<Named> {
    let mut parts = name.split('~');
    let key = unescape(parts.next()?)?;
    let fence = parse_hex(parts.next().filter(|part| part.len() == 16)?).filter(|fence| *fence <= MAX_NUMBER)?;
    let digest = parts.next().filter(|part| part.len() == 32)?;
    let [high, low] = [parse_hex(digest.get(..16)?)?, parse_hex(digest.get(16..)?)?];
    let mut named = Named { key, fence, digest: [0; 16], ttl: 0, sidecar: false };
    named.digest[..8].copy_from_slice(&high.to_be_bytes());
    named.digest[8..].copy_from_slice(&low.to_be_bytes());
    for part in parts {
        match part.strip_prefix('t') {
            Some(ttl) if named.ttl == 0 && !named.sidecar => {
                named.ttl = parse_hex(ttl).filter(|ttl| (1..=MAX_NUMBER).contains(ttl))?
            }
            None if part == "m" && !named.sidecar => named.sidecar = true,
            _ => return None,
        }
    }
    (named.sidecar || named.key.is_some()).then_some(named)
}

/// Lower-case digits only, so that each name has one spelling.
fn parse_hex(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|byte| HEX.contains(&byte));
    if canonical { u64::from_str_radix(text, 16).ok() } else { None }
}

/// Decodes the key in a stem: `None` if the stem is invalid, `Some(None)` if it has only a prefix of the key.
fn unescape(stem: &str) -> Option<Option<Key>> {
    if stem.starts_with('=') {
        return (stem.len() == STEM_BYTES).then_some(None);
    }
    let mut key = Vec::with_capacity(stem.len());
    let mut bytes = stem.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_lowercase());
            key.push((digit(bytes.next()?)? * 16 + digit(bytes.next()?)?) as u8);
        } else {
            key.push(byte);
        }
    }
    // Each key has one spelling, and overlong stems are invalid.
    (!key.is_empty() && key.len() <= MAX_KEY_BYTES && self::stem(&key) == (stem.to_owned(), true)).then_some(Some(key))
}

/// The name of a writer's temporary file.
pub fn temporary(token: crate::protocol::Token) -> String {
    format!("{:016x}-{:016x}", token.session, token.number)
}

/// The session that a temporary file belongs to; `None` if it is not a name of the cache.
pub fn session_of_temporary(name: &str) -> Option<u64> {
    let (session, number) = name.strip_suffix(SIDECAR).unwrap_or(name).split_once('-')?;
    (session.len() == 16 && number.len() == 16 && parse_hex(number).is_some()).then(|| parse_hex(session))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn entry(fence: u64, digest: Digest, ttl: Micros, metadata: Vec<u8>) -> Entry {
        Entry { fence, size: 1, created: 2, expires: 3, ttl, pinned: false, digest, metadata }
    }

    proptest! {
        #[test]
        fn a_name_says_what_was_put_into_it(
            key in proptest::collection::vec(any::<u8>(), 1..300), fence in 0..=MAX_NUMBER, digest: Digest, ttl in 0..=MAX_NUMBER,
            metadata in proptest::collection::vec(any::<u8>(), 0..2),
        ) {
            let path = file_name(&key, &entry(fence, digest, ttl, metadata.clone()));
            let (directory, name) = path.split_once('/').unwrap();
            prop_assert_eq!(directory, shard(&key));
            prop_assert!(name.len() + SIDECAR.len() <= 255 && !name.contains('/') && !name.starts_with('.'));
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
            let named = parse(name).unwrap();
            let readable = stem(&key).1;
            prop_assert_eq!(&named.key, &readable.then_some(key));
            prop_assert_eq!((named.fence, named.digest, named.ttl), (fence, digest, ttl));
            prop_assert_eq!(named.sidecar, !metadata.is_empty() || !readable);
        }

        #[test]
        fn whatever_lies_in_the_directory_is_read_without_panic(name: String) {
            let _ = parse(&name);
            let _ = session_of_temporary(&name);
        }

        #[test]
        fn a_name_that_is_read_is_the_one_we_would_write(name in "[a%=A0~.]{0,6}~[0-9a-f]{16}~[0-9a-f]{32}(~t[0-9a-f]{1,3})?(~m)?") {
            if let Some(Named { key: Some(key), fence, digest, ttl, sidecar }) = parse(&name) {
                let metadata = if sidecar { vec![1] } else { vec![] };
                let path = file_name(&key, &entry(fence, digest, ttl, metadata));
                // `t0` and `t01` are refused or written as they were; long spellings of a number are never accepted.
                prop_assert_eq!(path.split_once('/').unwrap().1.len() <= name.len(), true);
            }
        }
    }

    #[test]
    fn hostile_keys_stay_inside() {
        for (key, expected) in [
            (&b".."[..], "%2E."),
            (b".hidden", "%2Ehidden"),
            (b"a/../b", "a%2F..%2Fb"),
            (b"nul\0", "nul%00"),
            (b"new\nline", "new%0Aline"),
            ("Ā".as_bytes(), "%C4%80"),
            (b"a~b%=", "a%7Eb%25%3D"),
            (b"CON", "CON"),
        ] {
            assert_eq!(stem(key), (expected.to_owned(), true));
        }
        let (long, readable) = stem(&[b'/'; 4096]);
        assert!(long.len() == STEM_BYTES && long.starts_with("=%2F") && !readable);
    }

    #[test]
    fn the_shard_of_a_key_is_part_of_the_format_on_disk() {
        // The first byte that `b3sum` prints.
        for (key, expected) in [(&b""[..], "af"), (b"k", "5c"), (&[0xff, 0], "e7")] {
            assert_eq!(shard(key), expected, "{key:?}");
        }
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for name in [
            "",
            "a",
            "a~1~2",
            ".nfs0001",
            "a~0000000000000001~short",
            "a~000000000000000G~0",
            "~~",
            "=x~1~2~m",
            "h~ffffffffffffffff~00000000000000000000000000000000",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
        assert_eq!(session_of_temporary("0000000000000001-0000000000000002"), Some(1));
        assert_eq!(session_of_temporary("0000000000000001-0000000000000002.meta"), Some(1));
        for name in ["", "1-2", "000000000000000x-0000000000000002"] {
            assert_eq!(session_of_temporary(name), None, "{name}");
        }
    }
}
