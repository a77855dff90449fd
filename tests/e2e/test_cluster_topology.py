"""What a shard knows of its cluster, without RG.REFRESHCLUSTER: failovers, slots that move, nodes that come and go."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from .cluster import Cluster, cluster_info
from .servers import Server, ServerKind
from .waiting import wait_until

#: Longest time between a change in the server's own reply and ours.
NOTICED_S = 2.0


@pytest.fixture(scope="module")
def formed(server_kind: ServerKind) -> Iterator[Cluster]:
    """Three masters, and a replica of the first one. Tests leave it with three masters and a replica."""
    # A master that loses its last slot stays a master.
    conf = {"cluster-node-timeout": 3000, "cluster-allow-replica-migration": "no"}
    cluster = Cluster(server_kind, conf=conf)
    replica = cluster.start_server()
    cluster.meet(replica, cluster.servers[:3])
    cluster.wait_known()
    cluster.replicate(replica, cluster.servers[0])
    cluster.wait_served()
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(formed: Cluster) -> Cluster:
    """The first three servers are masters: on a busy machine, the replica may have taken over from the first one."""
    for server in formed.servers[:3]:
        formed.fail_over(server)
    # A node that is still said to have failed would be replaced again.
    wait_until(
        lambda: [flag for server in formed.running() for flag in failed_nodes(server)],
        "no node is said to have failed",
        until=lambda failed: not failed,
        deadline=30,
    )
    formed.wait_served()
    return formed


def failed_nodes(server: Server) -> list[str]:
    """The nodes that have failed, as one server sees it."""
    with server.client() as client:
        nodes = client.execute_command("CLUSTER NODES")
    return [address for address, node in nodes.items() if "fail" in node["flags"]]


#: Port, first and last slot of the first range of each master, by its id.
View = dict[str, tuple[int, int, int]]


def own_view(server: Server) -> View:
    """What the server says."""
    with server.client() as client:
        rows = client.execute_command("CLUSTER", "SLOTS")
    found: View = {}
    for first, last, master, *_ in rows:
        found.setdefault(master[2].decode(), (master[1], first, last))
    return found


def our_view(server: Server) -> View:
    """What RG.INFOCLUSTER says."""
    info = cluster_info(server)
    return {} if info is None else {node.id: (node.port, node.first, node.last) for node in info.nodes}


def wait_own(server: Server, what: str, until: Callable[[View], bool]) -> None:
    """Wait for the server's own view."""
    wait_until(lambda: own_view(server), what, until=until, deadline=30)


def wait_ours(server: Server, what: str, until: Callable[[View], bool]) -> None:
    """Wait for ours."""
    wait_until(lambda: our_view(server), what, until=until, deadline=30)


def wait_same(server: Server) -> None:
    """Wait, not for long, until ours is that of the server."""
    wait_until(
        lambda: (our_view(server), own_view(server)),
        "both views are the same",
        until=lambda views: views[0] == views[1],
        deadline=NOTICED_S,
    )


def wait_views(cluster: Cluster, *, shards: int) -> None:
    """Wait until each server has so many shards in its own view, and then that ours is the same soon."""
    for server in cluster.running():
        wait_own(server, f"{shards} shards have slots", lambda view: len(view) == shards)
    for server in cluster.running():
        wait_same(server)


def test_each_node_knows_all_masters_and_itself(cluster):
    wait_views(cluster, shards=3)
    ids = sorted(cluster.id_of(server) for server in cluster.servers[:3])
    for server in cluster.servers:
        info = cluster_info(server)
        assert info is not None
        assert info.me == cluster.id_of(server)
        assert [node.id for node in info.nodes] == ids


def test_slots_that_move_are_noticed_everywhere(cluster):
    first, second, _ = cluster.servers[:3]
    for source, target in [(first, second), (second, first), (first, second), (second, first)]:
        cluster.move_slots(source, target, [0])
        # Epochs do not show it: a shard that has the highest one keeps it when it gets another slot.
        new_id = cluster.id_of(target)
        for server in cluster.running():
            wait_ours(server, "slot 0 has moved", lambda view, new_id=new_id: view[new_id][1] == 0)
    wait_views(cluster, shards=3)


def test_a_slot_without_a_shard_is_noticed(cluster):
    owner = cluster.servers[0]
    for command in ("DELSLOTS", "ADDSLOTS"):
        with owner.client() as client:
            client.execute_command("CLUSTER", command, 5)
        wait_same(owner)
    cluster.wait_served()


def test_a_new_node_and_its_end_are_noticed(cluster):
    added = cluster.start_server()
    cluster.meet(added, cluster.servers[:4])
    cluster.wait_known()
    # It has no slots yet.
    wait_views(cluster, shards=3)
    cluster.move_slots(cluster.servers[2], added, [16383])
    wait_views(cluster, shards=4)
    cluster.move_slots(added, cluster.servers[2], [16383])
    wait_views(cluster, shards=3)
    before = cluster.id_of(added)
    cluster.forget(added)
    wait_until(
        lambda: cluster_info(added), "a node that was reset has no cluster", until=lambda info: info is None, deadline=5
    )
    assert cluster.id_of(added) != before
    cluster.servers.remove(added)
    added.stop()
    cluster.wait_served()


def test_a_failover_is_noticed(cluster):
    old, new = cluster.servers[0], cluster.servers[3]
    cluster.fail_over(new)
    new_id = cluster.id_of(new)
    for server in cluster.running():
        wait_own(server, "the replica has the slots", lambda view: new_id in view)
    wait_views(cluster, shards=3)
    assert cluster.id_of(old) not in our_view(old)
    info = cluster_info(old)
    assert info is not None and info.me == cluster.id_of(old), "a replica knows itself"
    cluster.fail_over(old)
    wait_views(cluster, shards=3)


def test_the_end_of_a_master_is_noticed_when_its_replica_takes_over(cluster):
    old, new = cluster.servers[0], cluster.servers[3]
    old_id, new_id = cluster.id_of(old), cluster.id_of(new)
    # One that has no data yet takes over nothing.
    with new.client() as client:
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", "the replica has the data")
    old.process.send_signal(signal.SIGSTOP)
    try:
        for server in cluster.servers[1:]:
            wait_own(server, "the replica has the slots", lambda view: new_id in view)
            wait_same(server)
    finally:
        old.process.send_signal(signal.SIGCONT)
    wait_own(old, "it is a replica", lambda view: old_id not in view)
    cluster.fail_over(old)
    wait_views(cluster, shards=3)


def test_a_refresh_answers_ok_and_shows_what_is_there_at_once(cluster):
    first, second = cluster.servers[:2]
    with second.client() as client:
        cluster.move_slots(first, second, [1])
        assert client.execute_command("RG.REFRESHCLUSTER") in (b"OK", True, "OK")
        assert our_view(second) == own_view(second)
        cluster.move_slots(second, first, [1])
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command("RG.REFRESHCLUSTER").execute_command("RG.REFRESHCLUSTER").execute()
        assert our_view(second) == own_view(second)


def test_a_restarted_node_knows_the_cluster_before_it_serves_clients(cluster):
    server = cluster.servers[1]
    server.restart()
    assert our_view(server) == own_view(server)
    cluster.wait_served()


@pytest.mark.parametrize("kind_of_endpoint", ["hostname", "unknown-endpoint"])
def test_nodes_that_announce_names_are_found_by_their_addresses(cluster, kind_of_endpoint):
    for server in cluster.servers:
        with server.client() as client:
            client.config_set("cluster-announce-hostname", f"node-{server.port}.invalid")
            client.config_set("cluster-preferred-endpoint-type", kind_of_endpoint)
    wait_views(cluster, shards=3)
    for server in cluster.servers:
        info = cluster_info(server)
        assert info is not None
        others = [node for node in info.nodes if node.id != info.me]
        assert {node.host for node in others} == {"127.0.0.1"}
    for server in cluster.servers:
        with server.client() as client:
            client.config_set("cluster-announce-hostname", "")
            client.config_set("cluster-preferred-endpoint-type", "ip")
