//! Connections to clusters.
//!
//! Every command goes to the shards that it is for: lists of executions and statistics come from all of them, results from the
//! shard that has the execution, `rg_trigger_on_key` from the one that has the key.
//!
//! redis-rs repeats a command when its connection breaks. A function that must not run twice is triggered on a connection to
//! one server, or checks that itself.

use redis::cluster::{ClusterClient, ClusterConnection};
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, ResponsePolicy, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr,
};
use redis::{Cmd, ProtocolVersion, RedisResult, Value};

use crate::call::{Request, Target};
use crate::client::{self, CONNECT_TIMEOUT};
use crate::connection::GearsConnection;
use crate::error::{Error, Result};

/// Connects to a cluster, of which these addresses are some nodes.
///
/// # Errors
/// As [`Client::connect`](crate::Client::connect).
pub fn connect<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Result<ClusterConnection> {
    let (client, shown) = open(addresses)?;
    client.get_connection().map_err(|error| Error::of_connecting(error, &shown))
}

/// Connects to a cluster for tokio, as [`connect`].
///
/// # Errors
/// As [`Client::connect`](crate::Client::connect).
#[cfg(feature = "aio")]
pub async fn connect_async<'a>(
    addresses: impl IntoIterator<Item = &'a str>,
) -> Result<redis::cluster_async::ClusterConnection> {
    let (client, shown) = open(addresses)?;
    client.get_async_connection().await.map_err(|error| Error::of_connecting(error, &shown))
}

fn open<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Result<(ClusterClient, String)> {
    client::provide_tls();
    let addresses: Vec<&str> = addresses.into_iter().collect();
    let shown = addresses.iter().map(|address| client::shown(address)).collect::<Vec<_>>().join(", ");
    let client = ClusterClient::builder(addresses)
        .use_protocol(ProtocolVersion::RESP3)
        .connection_timeout(CONNECT_TIMEOUT)
        .build()
        .map_err(|error| Error::of_connecting(error, &shown))?;
    Ok((client, shown))
}

impl GearsConnection for ClusterConnection {
    fn send_request(&mut self, request: &Request) -> RedisResult<Value> {
        let routing = match &request.target {
            Target::Shard(id) => to_shard(id, &self.route_command(&nodes(), any())?),
            target => routing(target),
        };
        self.route_command(&request.command, routing)
    }
}

#[cfg(feature = "aio")]
impl crate::connection::AsyncGearsConnection for redis::cluster_async::ClusterConnection {
    async fn send_request(&mut self, request: &Request) -> RedisResult<Value> {
        let routing = match &request.target {
            Target::Shard(id) => to_shard(id, &self.route_command(nodes(), any()).await?),
            target => routing(target),
        };
        self.route_command(request.command.clone(), routing).await
    }
}

fn any() -> RoutingInfo {
    RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary)
}

fn routing(target: &Target) -> RoutingInfo {
    let all = |policy| RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, policy));
    match target {
        Target::Any | Target::Shard(_) => any(),
        Target::AllArrays => all(Some(ResponsePolicy::CombineArrays)),
        Target::AllAlike => all(Some(ResponsePolicy::AllSucceeded)),
        Target::AllByAddress => all(None),
        Target::Key(key) => {
            RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master)))
        }
    }
}

fn nodes() -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("NODES");
    command
}

/// The node with that id in a reply of `CLUSTER NODES`; any if there is none.
fn to_shard(id: &str, nodes: &Value) -> RoutingInfo {
    let text = crate::reply::text_value(nodes).unwrap_or_default();
    match text.lines().find_map(|line| address_of(id, line)) {
        Some((host, port)) => RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host: host.to_owned(), port }),
        None => any(),
    }
}

/// Host and port out of a line such as `id host:port@bus,name flags ...`, if it is that node's.
fn address_of<'a>(id: &str, line: &'a str) -> Option<(&'a str, u16)> {
    let mut words = line.split(' ');
    if words.next() != Some(id) {
        return None;
    }
    let (address, _) = words.next()?.split_once('@')?;
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_found_by_its_id() {
        let lines =
            "aa 10.0.0.1:7000@17000,name myself,master - 0\nbb ::1:7001@17001 master - 0\ncc :7002@17002 master";
        let find = |id: &str| lines.lines().find_map(|line| address_of(id, line));
        assert_eq!(find("aa"), Some(("10.0.0.1", 7000)));
        assert_eq!(find("bb"), Some(("::1", 7001)));
        assert_eq!(find("dd"), None);
        let value = Value::BulkString(lines.as_bytes().to_vec());
        assert_eq!(to_shard("dd", &value), any());
        assert_ne!(to_shard("aa", &value), any());
    }
}
