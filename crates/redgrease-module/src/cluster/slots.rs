//! The reply of `CLUSTER SLOTS`: the ranges of slots, each with its master first.

use std::collections::BTreeMap;

use redgrease_core::id::ShardId;
use redgrease_engine::cluster::topology::{Address, Shard, Topology};
use redgrease_ffi::call::ReplyView;

/// Reads the reply. Rows that are not as documented are left out, and fields that are not known are skipped.
pub fn topology(me: ShardId, reply: ReplyView<'_>) -> Topology {
    let mut shards: BTreeMap<ShardId, Shard> = BTreeMap::new();
    for row in reply.elements() {
        if let Some((slots, master)) = range(row) {
            let shard = shards.entry(master.id).or_insert(master);
            match shard.slots.last_mut() {
                Some((_, last)) if slots.0.checked_sub(1) == Some(*last) => *last = slots.1,
                _ => shard.slots.push(slots),
            }
        }
    }
    Topology { me, shards: shards.into_values().collect() }
}

/// A row: first and last slot, and the master, which has no slots yet.
fn range(row: ReplyView<'_>) -> Option<((u16, u16), Shard)> {
    let slot = |index| u16::try_from(row.element(index)?.int()).ok();
    let slots = (slot(0)?, slot(1)?);
    let node = row.element(2)?;
    let id = ShardId::padded(node.element(2)?.bytes())?;
    let address = Address {
        host: host(node),
        port: u16::try_from(node.element(1)?.int()).ok()?,
        unix_socket: None,
        password: None,
    };
    Some((slots, Shard { id, address, slots: Vec::new() }))
}

/// The IP address of a node, which the other nodes use, too; else the name that it announces; else nothing.
fn host(node: ReplyView<'_>) -> String {
    let known = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        (!text.is_empty() && text != "?").then_some(text)
    };
    let preferred = node.element(0).and_then(|endpoint| known(endpoint.bytes()));
    let metadata = |name: &[u8]| {
        let fields: Vec<&[u8]> = node.element(3)?.elements().map(|field| field.bytes()).collect();
        fields.chunks_exact(2).find(|pair| pair[0] == name).and_then(|pair| known(pair[1]))
    };
    metadata(b"ip").or(preferred).or_else(|| metadata(b"hostname")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn bulk(text: &str) -> String {
        format!("${}\r\n{text}\r\n", text.len())
    }

    fn node(endpoint: &str, port: i64, id: &str, metadata: &[&str]) -> String {
        let fields: String = metadata.iter().map(|field| bulk(field)).collect();
        format!("*4\r\n{endpoint}:{port}\r\n{}*{}\r\n{fields}", bulk(id), metadata.len())
    }

    fn row(first: i64, last: i64, nodes: &[String]) -> String {
        format!("*{}\r\n:{first}\r\n:{last}\r\n{}", 2 + nodes.len(), nodes.concat())
    }

    fn read(rows: &[String]) -> Topology {
        let reply = format!("*{}\r\n{}", rows.len(), rows.concat());
        topology(ShardId::padded(A.as_bytes()).unwrap(), ReplyView::new(reply.as_bytes()))
    }

    #[test]
    fn ranges_belong_to_their_masters_and_replicas_are_left_out() {
        let (a, b) = (node(&bulk("10.0.0.1"), 1, A, &[]), node(&bulk("::1"), 2, B, &["hostname", "b", "new", "x"]));
        let rows = [
            row(0, 99, &[b.clone(), a.clone()]),
            row(100, 100, std::slice::from_ref(&b)),
            row(102, 200, std::slice::from_ref(&b)),
            row(201, 16383, &[a]),
        ];
        let found = read(&rows);
        assert_eq!(found.me.as_str(), A);
        let shards: Vec<_> = found.shards.iter().map(|s| (s.id.as_str(), s.address.port, s.slots.clone())).collect();
        assert_eq!(shards, [(A, 1, vec![(201, 16383)]), (B, 2, vec![(0, 100), (102, 200)])]);
        assert_eq!(found.shards[1].address.host, "::1");
    }

    #[test]
    fn the_address_is_the_ip_address_or_else_the_announced_name() {
        let host = |endpoint: &str, metadata: &[&str]| {
            read(&[row(0, 1, &[node(endpoint, 1, A, metadata)])]).shards[0].address.host.clone()
        };
        assert_eq!(host(&bulk("10.0.0.1"), &["hostname", "name"]), "10.0.0.1");
        assert_eq!(host(&bulk("name"), &["availability-zone", "z", "ip", "10.0.0.1"]), "10.0.0.1");
        assert_eq!(host("$-1\r\n", &["ip", "10.0.0.1", "hostname", "name"]), "10.0.0.1");
        assert_eq!(host(&bulk("?"), &["hostname", "name"]), "name");
        assert_eq!(host(&bulk(""), &[]), "");
    }

    #[test]
    fn rows_that_are_not_as_documented_are_left_out() {
        let good = row(5, 6, &[node(&bulk("h"), 1, A, &[])]);
        let bad = [
            row(-1, 4, &[node(&bulk("h"), 1, A, &[])]),
            row(0, 4, &[]),
            row(0, 4, &[node(&bulk("h"), 1 << 20, A, &[])]),
            row(0, 4, &[node(&bulk("h"), 1, &A.repeat(2), &[])]),
            bulk("row"),
        ];
        for bad in bad {
            assert_eq!(read(&[bad, good.clone()]).shards[0].slots, [(5, 6)]);
        }
        assert!(topology(ShardId::standalone(), ReplyView::new(b"-ERR no\r\n")).shards.is_empty());
    }
}
