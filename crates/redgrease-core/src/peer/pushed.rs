//! A topology that a client or a shard pushes: `RG.CLUSTERSET` and `RG.CLUSTERSETFROMSHARD`.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use thiserror::Error;

use crate::id::ShardId;

/// Position of the receiver's own id, counted from the command's name.
pub const OWN_ID_AT: usize = 6;

/// Position of the number of ranges.
const COUNT_AT: usize = 8;

/// Position of the first range.
const RANGES_AT: usize = 9;

/// Words of a range. The last one may be missing at the end.
const RANGE_LEN: usize = 8;

/// The highest slot.
const SLOT_MAX: u16 = 16383;

/// A shard of a pushed topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedShard {
    /// Its id.
    pub id: ShardId,
    /// Name or IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// A socket in the file system, in place of host and port.
    pub unix_socket: Option<String>,
    /// The password.
    pub password: Option<Vec<u8>>,
    /// First and last slot of each range, ascending.
    pub slots: Vec<(u16, u16)>,
}

/// A pushed topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedTopology {
    /// The receiver's own id.
    pub me: ShardId,
    /// The shards, ordered by their ids.
    pub shards: Vec<PushedShard>,
}

/// The arguments are not a topology. The text is that of RedisGears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("Could not parse cluster set arguments")]
pub struct BadTopology;

impl PushedTopology {
    /// Reads name and arguments of the command. Of a shard with several ranges the first address is valid.
    ///
    /// # Errors
    /// [`BadTopology`]: a word is missing, an id has more than forty characters, a number is not one, an address has no `@` or
    /// no port, or two ranges share a slot.
    pub fn parse(args: &[&[u8]]) -> Result<PushedTopology, BadTopology> {
        let me = args.get(OWN_ID_AT).and_then(|id| ShardId::padded(id)).ok_or(BadTopology)?;
        let count: usize = number(args.get(COUNT_AT)).ok_or(BadTopology)?;
        let mut rest = args.get(RANGES_AT..).ok_or(BadTopology)?;
        if count == 0 || count > rest.len() {
            return Err(BadTopology);
        }
        let mut shards: Vec<PushedShard> = Vec::new();
        for _ in 0..count {
            let (shard, len) = range(rest)?;
            rest = rest.get(len..).unwrap_or_default();
            match shards.binary_search_by_key(&shard.id, |other| other.id) {
                Ok(index) => shards[index].slots.extend(shard.slots),
                Err(index) => shards.insert(index, shard),
            }
        }
        let mut slots: Vec<(u16, u16)> = shards.iter().flat_map(|shard| shard.slots.iter().copied()).collect();
        slots.sort_unstable();
        if slots.windows(2).any(|pair| pair[0].1 >= pair[1].0) {
            return Err(BadTopology);
        }
        shards.iter_mut().for_each(|shard| shard.slots.sort_unstable());
        Ok(PushedTopology { me, shards })
    }
}

/// The range at the front of these words, and how many of them it has.
fn range(words: &[&[u8]]) -> Result<(PushedShard, usize), BadTopology> {
    let id = words.get(1).and_then(|id| ShardId::padded(id)).ok_or(BadTopology)?;
    let first: u16 = number(words.get(3)).ok_or(BadTopology)?;
    let last: u16 = number(words.get(4)).ok_or(BadTopology)?;
    if first > last || last > SLOT_MAX {
        return Err(BadTopology);
    }
    let (password, host, port) = words.get(6).and_then(|address| address_of(address)).ok_or(BadTopology)?;
    let has_socket = words.get(7).is_some_and(|word| word.eq_ignore_ascii_case(b"UNIXADDR"));
    let unix_socket = if has_socket { Some(text(words.get(8)).ok_or(BadTopology)?) } else { None };
    let len = if has_socket { RANGE_LEN + 2 } else { RANGE_LEN };
    Ok((PushedShard { id, host, port, unix_socket, password, slots: vec![(first, last)] }, len))
}

/// Password, host and port of `password@host:port`.
fn address_of(address: &[u8]) -> Option<(Option<Vec<u8>>, String, u16)> {
    let at = address.iter().rposition(|byte| *byte == b'@')?;
    let (password, place) = (&address[..at], &address[at + 1..]);
    let colon = place.iter().rposition(|byte| *byte == b':')?;
    let port: u16 = number(Some(&&place[colon + 1..])).filter(|port| *port > 0)?;
    let host = &place[..colon];
    let bare = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")).unwrap_or(host);
    let host = core::str::from_utf8(bare).ok().filter(|host| !host.is_empty())?.to_owned();
    let password = if password.is_empty() { None } else { Some(password.to_vec()) };
    Some((password, host, port))
}

fn text(word: Option<&&[u8]>) -> Option<String> {
    core::str::from_utf8(word?).ok().filter(|text| !text.is_empty()).map(ToOwned::to_owned)
}

/// A decimal number without sign.
fn number<T: core::str::FromStr>(word: Option<&&[u8]>) -> Option<T> {
    let text = core::str::from_utf8(word?).ok()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn head(me: &str, count: usize) -> Vec<String> {
        format!("RG.CLUSTERSET HASHFUNC CRC16 NUMSLOTS 16384 MYID {me} RANGES {count}")
            .split(' ')
            .map(ToString::to_string)
            .collect()
    }

    fn parse(words: &[String]) -> Result<PushedTopology, BadTopology> {
        PushedTopology::parse(&words.iter().map(String::as_bytes).collect::<Vec<_>>())
    }

    /// A topology of these ranges, each as `id first last address further...`.
    fn pushed(me: &str, ranges: &[&str]) -> Result<PushedTopology, BadTopology> {
        let mut words = head(me, ranges.len());
        for range in ranges {
            let mut parts = range.split(' ');
            for name in ["SHARD", "SLOTRANGE", "", "ADDR"] {
                words.extend((!name.is_empty()).then(|| name.to_string()));
                words.extend(parts.next().map(ToString::to_string));
            }
            words.extend(parts.map(ToString::to_string));
        }
        parse(&words)
    }

    #[test]
    fn shards_are_ordered_and_ids_are_padded() {
        let topology =
            pushed("1", &["2 8192 16383 secret@localhost:10000 MASTER", "1 0 8191 @127.0.0.1:6379"]).unwrap();
        assert_eq!(topology.me, ShardId::padded(b"1").unwrap());
        let shard = |id: &[u8], host: &str, port, password: Option<&[u8]>, slots| PushedShard {
            id: ShardId::padded(id).unwrap(),
            host: host.into(),
            port,
            unix_socket: None,
            password: password.map(<[u8]>::to_vec),
            slots: vec![slots],
        };
        let one = shard(b"1", "127.0.0.1", 6379, None, (0, 8191));
        let two = shard(b"2", "localhost", 10_000, Some(b"secret"), (8192, 16383));
        assert_eq!(topology.shards, [one, two]);
    }

    #[test]
    fn an_address_may_be_of_ipv6_and_the_password_may_have_any_character() {
        let table = [
            ("pw@::1:7000", (Some("pw"), "::1", 7000)),
            ("pw@[::1]:7000", (Some("pw"), "::1", 7000)),
            ("@[fe80::1%eth0]:1", (None, "fe80::1%eth0", 1)),
            ("p@s:w@host:65535", (Some("p@s:w"), "host", 65535)),
        ];
        for (address, (password, host, port)) in table {
            let expected = (password.map(|text: &str| text.as_bytes().to_vec()), host.to_string(), port);
            assert_eq!(address_of(address.as_bytes()), Some(expected), "{address}");
        }
        for bad in ["", "host:1", "@host", "@:1", "@[]:1", "@h:0", "@h:65536", "@h:-1", "@h:+1", "@h:", "pw@"] {
            assert_eq!(address_of(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(address_of(b"@\xff:1"), None);
    }

    #[test]
    fn a_socket_makes_a_range_longer() {
        let topology = pushed("a", &["a 0 1 @h:1 UNIXADDR /tmp/a MASTER", "b 2 3 @h:2 unixaddr /tmp/b"]).unwrap();
        let sockets: Vec<_> = topology.shards.iter().map(|shard| shard.unix_socket.clone().unwrap()).collect();
        assert_eq!(sockets, ["/tmp/a", "/tmp/b"]);
        assert_eq!(pushed("a", &["a 0 1 @h:1 UNIXADDR"]), Err(BadTopology));
    }

    #[test]
    fn ranges_of_one_shard_are_put_together() {
        let topology = pushed("a", &["a 10 20 @h:1 -", "b 21 30 @h:2 -", "a 0 9 @other:9 -"]).unwrap();
        assert_eq!(topology.shards.len(), 2);
        assert_eq!((topology.shards[0].port, &topology.shards[0].slots), (1, &vec![(0, 9), (10, 20)]));
    }

    #[test]
    fn what_is_not_a_topology_is_refused() {
        let long = "x".repeat(41);
        let bad = [
            pushed("a", &["a 0 16384 @h:1 -"]),
            pushed("a", &["a 2 1 @h:1 -"]),
            pushed("a", &["a -1 1 @h:1 -"]),
            pushed("a", &["a x 1 @h:1 -"]),
            pushed("a", &["a 0 1 h:1 -"]),
            pushed("a", &["a 0 5 @h:1 -", "b 5 6 @h:2 -"]),
            pushed(&long, &["a 0 1 @h:1 -"]),
            pushed("a", &[&format!("{long} 0 1 @h:1 -")]),
            parse(&head("a", 0)),
            parse(&head("a", 1)),
            parse(&head("a", usize::MAX)),
            parse(&[]),
        ];
        for (index, bad) in bad.iter().enumerate() {
            assert_eq!(bad, &Err(BadTopology), "{index}");
        }
        assert_eq!(BadTopology.to_string(), "Could not parse cluster set arguments");
        let mut two = head("a", 2);
        two.extend("SHARD a SLOTRANGE 0 1 ADDR @h:1 MASTER".split(' ').map(ToString::to_string));
        assert_eq!(parse(&two), Err(BadTopology), "there is one range");
    }

    proptest! {
        #[test]
        fn any_words_are_a_topology_or_an_error(
            mut words in prop::collection::vec("(SHARD|UNIXADDR|[0-9]{1,6}|[a-z]?@[a-z:\\[\\]]{0,4}:[0-9]{1,6})", 0..40),
            count in 0u8..5,
        ) {
            if let Some(word) = words.get_mut(COUNT_AT) {
                *word = count.to_string();
            }
            if let Ok(topology) = parse(&words) {
                prop_assert!(topology.shards.iter().all(|shard| !shard.host.is_empty() && shard.port > 0));
                prop_assert!(topology.shards.windows(2).all(|pair| pair[0].id < pair[1].id));
            }
        }
    }
}
