//! Hash slots of a cluster: which one a key belongs to.

use alloc::string::String;

/// Number of slots.
pub const SLOTS: u16 = 16384;

/// Remainder of each byte in the CRC of the servers (XMODEM: polynomial 0x1021, begins with 0, most significant bit first).
const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| crc << 8 ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

/// The slot of a key: that of the text between its first `{` and the next `}`, if there is one that is not empty; else of
/// all of it.
#[must_use]
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let behind = &key[open + 1..];
        behind.iter().position(|byte| *byte == b'}').map(|len| &behind[..len])
    });
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key)) % SLOTS
}

/// Characters of hash tags.
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Letters of a hash tag: so many that there is one for each slot.
const TAG_LEN: u32 = 3;

/// A text of three letters and digits that belongs to a slot: the first one in alphabetical order.
#[must_use]
pub fn tag_of(slot: u16) -> String {
    let base = LETTERS.len();
    let tag = |number: usize| [number / base / base, number / base % base, number % base].map(|digit| LETTERS[digit]);
    let found = (0..base.pow(TAG_LEN)).map(tag).find(|tag| slot_of(tag) == slot % SLOTS);
    String::from_utf8_lossy(&found.unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_servers() {
        // Answers of CLUSTER KEYSLOT.
        let table: [(&[u8], u16); 15] = [
            (b"", 0),
            (b"foo", 12182),
            (b"bar", 5061),
            (b"hello", 866),
            (b"123456789", 12739),
            (b"user", 5474),
            (b"{user}.x", 5474),
            (b"user1000", 3443),
            (b"{user1000}.following", 3443),
            (b"foo{bar}{zap}", 5061),
            (b"foo{{bar}}zap", 4015),
            (b"foo{}{bar}", 8363),
            (b"foo{bar", 15278),
            (b"foo}bar{", 11073),
            (b"\xff\xfe", 3374),
        ];
        let slots: [u16; 15] = table.map(|(key, _)| slot_of(key));
        assert_eq!(slots, table.map(|(_, slot)| slot));
    }

    #[test]
    fn each_slot_has_a_tag() {
        assert_eq!(tag_of(0), "06S", "as on servers with RedisGears");
        for slot in (0..SLOTS).step_by(97).chain([SLOTS - 1]) {
            assert_eq!(slot_of(tag_of(slot).as_bytes()), slot);
        }
        // All others are found in the same way: each slot has a text of three letters.
        let mut found = alloc::vec![false; usize::from(SLOTS)];
        for first in LETTERS {
            for second in LETTERS {
                for third in LETTERS {
                    found[usize::from(slot_of(&[*first, *second, *third]))] = true;
                }
            }
        }
        assert!(found.into_iter().all(|found| found));
    }
}
