//! Which shards there are, and which slots they have, as the server knows it.

use core::fmt;

use redgrease_core::id::ShardId;
use redgrease_core::peer::pushed::{PushedShard, PushedTopology};
use redgrease_core::peer::{Route, SlotRange};

use crate::prelude::*;

/// Where clients connect to a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address.
    pub host: String,
    /// The port that it announces.
    pub port: u16,
    /// A socket in the file system, in place of host and port.
    pub unix_socket: Option<String>,
    /// The password that came with a pushed topology.
    pub password: Option<Vec<u8>>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { host, port, unix_socket, .. } = self;
        match unix_socket {
            Some(socket) => f.write_str(socket),
            None if host.contains(':') => write!(f, "[{host}]:{port}"),
            None => write!(f, "{host}:{port}"),
        }
    }
}

impl From<PushedTopology> for Topology {
    fn from(pushed: PushedTopology) -> Topology {
        let shards = pushed.shards.into_iter().map(|shard| {
            let PushedShard { id, host, port, unix_socket, password, slots } = shard;
            Shard { id, address: Address { host, port, unix_socket, password }, slots }
        });
        Topology { me: pushed.me, shards: shards.collect() }
    }
}

/// A shard: a master with slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The node's id.
    pub id: ShardId,
    /// Where it is.
    pub address: Address,
    /// First and last slot of each of its ranges, ascending.
    pub slots: Vec<(u16, u16)>,
}

/// The shards of a cluster as one server knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The node's own id, also if it is a replica.
    pub me: ShardId,
    /// All masters that have slots, ordered by their ids.
    pub shards: Vec<Shard>,
}

impl Topology {
    /// Of a server that is not in cluster mode.
    #[must_use]
    pub fn standalone() -> Topology {
        Topology { me: ShardId::standalone(), shards: Vec::new() }
    }

    /// Whether it is known at all: otherwise the server is not in cluster mode.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.shards.is_empty()
    }

    /// Whether there is more than one shard: otherwise the server behaves as one without a cluster.
    #[must_use]
    pub fn has_several(&self) -> bool {
        self.shards.len() > 1
    }

    /// The id in identifiers.
    #[must_use]
    pub fn shard_id(&self) -> ShardId {
        if self.has_several() { self.me } else { ShardId::standalone() }
    }

    /// The other shards.
    pub fn others(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter(|shard| shard.id != self.me)
    }

    /// The first slot of this shard; 0 on a server that has none, and on one that is not in cluster mode.
    #[must_use]
    pub fn first_slot(&self) -> u16 {
        let own = self.shards.iter().find(|shard| shard.id == self.me);
        own.and_then(|shard| shard.slots.first()).map_or(0, |(first, _)| *first)
    }

    /// Where records go of an execution that this shard begins.
    #[must_use]
    pub fn route(&self) -> Route {
        let mut shards = vec![self.me];
        shards.extend(self.others().map(|shard| shard.id));
        let position = |id: ShardId| shards.iter().position(|other| *other == id).unwrap_or_default() as u64;
        let ranges = self.shards.iter().flat_map(|shard| {
            let owner = position(shard.id);
            shard.slots.iter().map(move |(first, last)| SlotRange { first: *first, last: *last, shard: owner })
        });
        let mut slots: Vec<SlotRange> = ranges.collect();
        slots.sort_by_key(|range| range.first);
        Route { shards, slots }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: &[u8], slots: &[(u16, u16)]) -> Shard {
        let address = Address { host: "h".into(), port: 1, unix_socket: None, password: None };
        Shard { id: ShardId::padded(id).unwrap(), address, slots: slots.to_vec() }
    }

    #[test]
    fn a_cluster_of_one_shard_is_none() {
        let one = Topology { me: ShardId::padded(b"a").unwrap(), shards: vec![shard(b"a", &[(0, 16383)])] };
        assert_eq!((one.has_several(), one.shard_id()), (false, ShardId::standalone()));
    }

    #[test]
    fn an_address_is_shown_as_clients_write_it() {
        let address = |host: &str, socket: Option<&str>| {
            let unix_socket = socket.map(ToOwned::to_owned);
            Address { host: host.into(), port: 7000, unix_socket, password: Some(b"secret".into()) }.to_string()
        };
        let shown = [address("h", None), address("::1", None), address("h", Some("/tmp/s"))];
        assert_eq!(shown, ["h:7000", "[::1]:7000", "/tmp/s"]);
    }

    #[test]
    fn the_route_of_an_execution_begins_with_its_initiator() {
        let shards = vec![shard(b"a", &[(0, 5), (9, 10)]), shard(b"b", &[(6, 8)])];
        let topology = Topology { me: ShardId::padded(b"b").unwrap(), shards };
        let route = topology.route();
        assert_eq!(route.shards, [b"b", b"a"].map(|id| ShardId::padded(id).unwrap()));
        let owners: Vec<_> = [0, 6, 9, 11].map(|slot| route.owner(slot)).into();
        assert_eq!(owners, [Some(1), Some(0), Some(1), None]);
    }
}
