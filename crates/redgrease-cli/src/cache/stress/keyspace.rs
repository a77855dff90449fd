//! The keys of a run. Workers and records identify a key by its number.

use std::fmt;
use std::io::Write;

use fastrand::Rng;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySpace {
    /// Only random hex digits: all workers use the same keys and collide.
    Shared { digits: u32 },
    /// The process number and random hex digits: workers rarely collide.
    Own { digits: u32 },
    /// This number of keys.
    Numbered { count: u32 },
}

impl KeySpace {
    /// A random key for a process to create.
    pub fn draw(self, rng: &mut Rng, pid: u32) -> u64 {
        match self {
            Self::Shared { digits } => rng.u64(..1 << (4 * digits)),
            Self::Own { digits } => u64::from(pid) << 32 | rng.u64(..1 << (4 * digits)),
            Self::Numbered { count } => rng.u64(..u64::from(count)),
        }
    }

    /// Writes the key's bytes into an empty buffer.
    pub fn write(self, number: u64, key: &mut Vec<u8>) {
        key.clear();
        let written = match self {
            Self::Shared { digits } => write!(key, "{number:0width$x}.bin", width = digits as usize),
            Self::Own { digits } => {
                let (pid, suffix) = (number >> 32, number & 0xffff_ffff);
                write!(key, "{pid}-{suffix:0width$x}.bin", width = digits as usize)
            }
            Self::Numbered { .. } => write!(key, "key-{number}.bin"),
        };
        written.expect("memory takes everything");
    }

    /// The number of a key; `None` if it is not in this key space.
    pub fn number(self, key: &[u8]) -> Option<u64> {
        let stem = std::str::from_utf8(key).ok()?.strip_suffix(".bin")?;
        let number = match self {
            Self::Shared { .. } => u64::from_str_radix(stem, 16).ok()?,
            Self::Own { .. } => {
                let (pid, suffix) = stem.split_once('-')?;
                u64::from(pid.parse::<u32>().ok()?) << 32 | u64::from(u32::from_str_radix(suffix, 16).ok()?)
            }
            Self::Numbered { .. } => stem.strip_prefix("key-")?.parse().ok()?,
        };
        // Other notations of a number, and numbers that are too large, are foreign keys.
        let mut written = Vec::new();
        self.write(number, &mut written);
        (written == key && self.holds(number)).then_some(number)
    }

    fn holds(self, number: u64) -> bool {
        match self {
            Self::Shared { digits } => number < 1 << (4 * digits),
            Self::Own { digits } => number & 0xffff_ffff < 1 << (4 * digits),
            Self::Numbered { count } => number < u64::from(count),
        }
    }
}

impl fmt::Display for KeySpace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared { digits } => write!(formatter, "{} shared keys", 1_u64 << (4 * digits)),
            Self::Own { digits } => write!(formatter, "own keys with {digits} digits"),
            Self::Numbered { count } => write!(formatter, "{count} keys"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACES: [KeySpace; 5] = [
        KeySpace::Shared { digits: 4 },
        KeySpace::Shared { digits: 8 },
        KeySpace::Own { digits: 8 },
        KeySpace::Own { digits: 1 },
        KeySpace::Numbered { count: 7 },
    ];

    fn text(space: KeySpace, number: u64) -> String {
        let mut key = Vec::new();
        space.write(number, &mut key);
        String::from_utf8(key).unwrap()
    }

    #[test]
    fn keys_have_the_format_of_the_proof_of_concept() {
        assert_eq!(text(KeySpace::Shared { digits: 4 }, 0x3fa), "03fa.bin");
        assert_eq!(text(KeySpace::Own { digits: 8 }, 41002 << 32 | 0xbeef), "41002-0000beef.bin");
        assert_eq!(text(KeySpace::Numbered { count: 9 }, 8), "key-8.bin");
    }

    #[test]
    fn every_key_is_found_again_by_its_number() {
        let mut rng = Rng::with_seed(7);
        for space in SPACES {
            for _ in 0..1000 {
                let number = space.draw(&mut rng, 41002);
                assert_eq!(space.number(text(space, number).as_bytes()), Some(number), "{space:?}");
            }
        }
    }

    #[test]
    fn other_keys_have_no_number() {
        let shared = KeySpace::Shared { digits: 4 };
        for key in ["", ".bin", "3fa.bin", "003fa.bin", "+3fa.bin", "03FA.bin", "03fa.txt", "zzzz.bin", "1-03fa.bin"] {
            assert_eq!(shared.number(key.as_bytes()), None, "{key}");
        }
        assert_eq!(KeySpace::Numbered { count: 7 }.number(b"key-7.bin"), None);
        assert_eq!(KeySpace::Own { digits: 8 }.number(b"41002-beef.bin"), None);
        assert_eq!(shared.number(b"\xff.bin"), None);
    }

    #[test]
    fn a_shared_space_is_used_to_its_ends() {
        let space = KeySpace::Shared { digits: 1 };
        let mut rng = Rng::with_seed(1);
        let drawn: std::collections::BTreeSet<u64> = (0..1000).map(|_| space.draw(&mut rng, 9)).collect();
        assert_eq!(drawn.len(), 16);
    }
}
