//! Commands about the cluster, of clients and of other shards.

use redgrease_core::peer::link::{NETWORK_TEST_FUNCTION, NETWORK_TEST_PAYLOAD};
use redgrease_core::peer::pushed::PushedTopology;
use redgrease_core::render::Reply;

use crate::clients::Client;
use crate::cluster::receiving::{PeerCommand, Received};
use crate::effect::Effect;
use crate::engine::Engine;
use crate::error::Error;
use crate::input::{Caller, Inside};
use crate::prelude::*;

fn ok() -> Reply {
    Reply::Simple("OK".into())
}

impl Engine {
    /// `RG.INFOCLUSTER`.
    pub(crate) fn info_cluster(&mut self, client: Client) {
        if !self.topology.has_several() {
            return self.reply(client, Reply::bulk("no cluster mode"));
        }
        let links = self.links();
        let nodes = self.topology.shards.iter().map(|shard| {
            let link = links.iter().find(|link| link.shard == shard.id);
            let run = if shard.id == self.topology.me {
                Some(self.run_id.clone().into_bytes())
            } else {
                link.and_then(|link| link.run.clone())
            };
            let (first, last) = shard.slots.first().copied().unwrap_or_default();
            Reply::Array(vec![
                Reply::bulk("id"),
                Reply::bulk(shard.id.as_str()),
                Reply::bulk("ip"),
                Reply::bulk(&shard.address.host),
                Reply::bulk("port"),
                Reply::Int(shard.address.port.into()),
                Reply::bulk("unixSocket"),
                Reply::bulk(shard.address.unix_socket.as_deref().unwrap_or("None")),
                Reply::bulk("runid"),
                run.map_or(Reply::Null, Reply::Bulk),
                Reply::bulk("minHslot"),
                Reply::Int(first.into()),
                Reply::bulk("maxHslot"),
                Reply::Int(last.into()),
                Reply::bulk("pendingMessages"),
                Reply::Int(link.map_or(0, |link| link.pending as i64)),
            ])
        });
        let nodes = Reply::Array(nodes.collect());
        let (id, run) = (Reply::bulk(self.topology.me.as_str()), Reply::bulk(&self.run_id));
        self.reply(client, Reply::Array(vec![Reply::bulk("MyId"), id, Reply::bulk("MyRunId"), run, nodes]));
    }

    /// `RG.REFRESHCLUSTER`.
    pub(crate) fn refresh_cluster(&mut self, client: Client) {
        self.cluster.refreshing = true;
        self.out.push(Effect::ReadTopology);
        self.reply(client, ok());
    }

    /// `RG.CLUSTERSET` and `RG.CLUSTERSETFROMSHARD`.
    pub(crate) fn set_cluster(&mut self, client: Client, args: &[&[u8]], from_shard: bool) {
        let pushed = match PushedTopology::parse(args) {
            Ok(pushed) => pushed,
            Err(error) => return self.refuse(client, error.to_string()),
        };
        if !(from_shard && self.topology.is_known()) {
            self.cluster.pushed = true;
            self.use_topology(pushed.into(), Some(args));
        }
        self.reply(client, ok());
    }

    /// `RG.NETWORKTEST`.
    pub(crate) fn network_test(&mut self, client: Client) {
        let at = self.at_links();
        self.cluster.links.broadcast(at, NETWORK_TEST_FUNCTION, NETWORK_TEST_PAYLOAD);
        self.after_links();
        self.reply(client, ok());
    }

    /// `RG.HELLO`.
    pub(crate) fn peer_hello(&mut self, client: Client) {
        if !self.topology.is_known() {
            return self.refuse(client, Error::HelloWithoutCluster);
        }
        let run_id = Reply::bulk(&self.run_id);
        self.reply(client, run_id);
    }

    /// `RG.INNERMSGCOMMAND`. A message waits to be handled; it is answered at once while there is room for the next one.
    pub(crate) fn peer_command(&mut self, client: Client, caller: &Caller, command: &PeerCommand<'_>) {
        if !self.topology.is_known() {
            return self.refuse(client, Error::MessageWithoutCluster);
        }
        if !self.topology.has_several() {
            return self.refuse(client, Error::MessageToOnlyShard);
        }
        let at = self.at_links();
        match self.cluster.links.receive(at, command) {
            Received::OkLater(shard) if caller.inside == Inside::Nothing => {
                self.out.push(Effect::Block(client.number()));
                self.cluster.unacknowledged.push_back((shard, client));
            }
            Received::Ok | Received::OkLater(_) => self.reply(client, ok()),
            Received::Duplicate => self.reply(client, Reply::Simple("duplicate message ignored".into())),
            Received::Hello(hello) => self.reply(client, Reply::Bulk(hello)),
            Received::Refused(error) => self.refuse(client, error),
        }
        self.after_links();
    }

    /// Acknowledges messages of shards that may send the next one.
    pub(crate) fn acknowledge_late(&mut self) {
        for (shard, client) in core::mem::take(&mut self.cluster.unacknowledged) {
            if self.cluster.links.has_room(shard) {
                self.reply(client, ok());
            } else {
                self.cluster.unacknowledged.push_back((shard, client));
            }
        }
    }
}
