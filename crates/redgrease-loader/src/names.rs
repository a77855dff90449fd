//! Names that are derived from the path of a script: of its index key and of its session.

use std::path::Path;

/// Hexadecimal digits of the digest in the id of a session.
const DIGEST_DIGITS: usize = 16;
/// Characters of the file's name in the id of a session.
const STEM_MAX: usize = 40;

/// The key of the hash that records a script: prefix, a slash, and the absolute path.
pub fn index_key(prefix: &str, path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut key = prefix.trim_end_matches('/').as_bytes().to_vec();
    let path = path.as_os_str().as_bytes();
    if !path.starts_with(b"/") {
        key.push(b'/');
    }
    key.extend_from_slice(path);
    key
}

/// The id of a script's session: the same for the same index key. Ids have only letters, digits, `-` and `_`.
pub fn session_id(index_key: &[u8]) -> String {
    let digest = blake3::hash(index_key).to_hex();
    let name = index_key.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let name = String::from_utf8_lossy(name);
    let stem = name.rsplit_once('.').map_or(&*name, |(stem, _)| stem);
    let allowed = |each: char| if each.is_ascii_alphanumeric() || each == '_' { each } else { '-' };
    let stem: String = stem.chars().take(STEM_MAX).map(allowed).collect();
    format!("{stem}-{}", &digest[..DIGEST_DIGITS])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_index_key_has_one_slash_after_the_prefix() {
        for (prefix, path, key) in [
            ("/redgrease/scripts", "/abs/x.py", "/redgrease/scripts/abs/x.py"),
            ("mine/", "/abs/x.py", "mine/abs/x.py"),
            ("mine", "x.py", "mine/x.py"),
            ("", "/abs/x.py", "/abs/x.py"),
        ] {
            assert_eq!(index_key(prefix, Path::new(path)), key.as_bytes());
        }
    }

    #[test]
    fn a_session_has_the_name_of_the_script_in_its_id() {
        let id = session_id(b"/redgrease/scripts/abs/count words.v2.py");
        assert!(id.starts_with("count-words-v2-"), "{id}");
        assert_ne!(id, session_id(b"/other/abs/count words.v2.py"));
    }

    proptest! {
        #[test]
        fn ids_have_only_letters_digits_and_dashes(key in proptest::collection::vec(any::<u8>(), 0..80)) {
            let id = session_id(&key);
            prop_assert!(id.chars().all(|each| each.is_ascii_alphanumeric() || each == '-' || each == '_'), "{}", id);
            prop_assert!(id.len() <= STEM_MAX + 1 + DIGEST_DIGITS);
        }
    }
}
