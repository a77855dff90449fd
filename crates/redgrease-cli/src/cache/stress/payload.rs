//! The contents that workers write: a header line and random bytes.
//!
//! A reader that knows only the key can verify the content.

use std::io::Write;

use fastrand::Rng;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8] = b"redgrease-stress ";
/// Digits of the digest, which is filled in after the random bytes.
const DIGEST: usize = 16;

/// Why content is invalid.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not begin with the header.
    NotOurs,
    /// Its header cannot be parsed.
    Header,
    /// It belongs to another key.
    OtherKey,
    /// The length differs from that in the header.
    Length { said: usize, found: usize },
    /// The digest differs from that in the header.
    Digest,
}

/// Replaces the contents of a buffer by new content.
pub fn make(content: &mut Vec<u8>, rng: &mut Rng, pid: u32, key: &[u8], size: usize) {
    content.clear();
    content.extend_from_slice(MAGIC);
    write!(content, "pid={pid} key=").expect("memory takes everything");
    content.extend_from_slice(key);
    write!(content, " uuid={:032x} size={size} digest=", rng.u128(..)).expect("memory takes everything");
    let digest_at = content.len();
    content.resize(digest_at + DIGEST, b'0');
    content.push(b'\n');
    let body_at = content.len();
    content.resize(body_at + size, 0);
    rng.fill(&mut content[body_at..]);
    let digest = xxh3_64(&content[body_at..]);
    write!(&mut content[digest_at..], "{digest:016x}").expect("the buffer has this size");
}

/// Verifies content that was read under a key.
pub fn check(content: &[u8], key: &[u8]) -> Result<(), Fault> {
    let rest = content.strip_prefix(MAGIC).ok_or(Fault::NotOurs)?;
    let end = rest.iter().position(|&byte| byte == b'\n').ok_or(Fault::Header)?;
    let (header, body) = (&rest[..end], &rest[end + 1..]);
    let mut fields = header.split(|&byte| byte == b' ');
    let mut field = |name: &[u8]| fields.next().and_then(|field| field.strip_prefix(name)).ok_or(Fault::Header);
    field(b"pid=")?;
    if field(b"key=")? != key {
        return Err(Fault::OtherKey);
    }
    field(b"uuid=")?;
    let said: usize = number(field(b"size=")?, 10)? as usize;
    if said != body.len() {
        return Err(Fault::Length { said, found: body.len() });
    }
    if number(field(b"digest=")?, 16)? != xxh3_64(body) {
        return Err(Fault::Digest);
    }
    Ok(())
}

/// A fingerprint: equal for equal content, and otherwise different with high probability.
pub fn fingerprint(content: &[u8]) -> u64 {
    xxh3_64(content)
}

fn number(digits: &[u8], radix: u32) -> Result<u64, Fault> {
    std::str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, radix).ok()).ok_or(Fault::Header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(size: usize) -> Vec<u8> {
        let mut content = b"left over".to_vec();
        make(&mut content, &mut Rng::with_seed(3), 41002, b"3fa9.bin", size);
        content
    }

    #[test]
    fn whole_content_is_whole() {
        for size in [0, 1, 200, 70_000] {
            assert_eq!(check(&made(size), b"3fa9.bin"), Ok(()), "{size}");
        }
        assert!(made(1).starts_with(b"redgrease-stress pid=41002 key=3fa9.bin uuid="));
    }

    #[test]
    fn no_byte_can_change_unnoticed() {
        let content = made(40);
        let uuid = content.windows(5).position(|window| window == b"uuid=").unwrap();
        let pid = MAGIC.len();
        for index in 0..content.len() {
            let mut changed = content.clone();
            changed[index] ^= 1;
            // The owner is not verified here; the cache's own digest covers that.
            let tells_who = (pid + 4..pid + 9).contains(&index) || (uuid + 5..uuid + 37).contains(&index);
            assert_eq!(check(&changed, b"3fa9.bin").is_ok(), tells_who, "byte {index}");
        }
    }

    #[test]
    fn no_part_of_content_is_whole() {
        let content = made(40);
        for length in 0..content.len() {
            assert!(check(&content[..length], b"3fa9.bin").is_err(), "{length}");
        }
        let mut longer = content;
        longer.push(0);
        assert_eq!(check(&longer, b"3fa9.bin"), Err(Fault::Length { said: 40, found: 41 }));
    }

    #[test]
    fn content_of_others_is_told_apart() {
        assert_eq!(check(&made(9), b"3fa8.bin"), Err(Fault::OtherKey));
        assert_eq!(check(b"pid=1 key=3fa9.bin", b"3fa9.bin"), Err(Fault::NotOurs));
        assert_ne!(fingerprint(&made(9)), fingerprint(&made(10)));
    }
}
