"""The program that loads scripts, on clusters and replicas: scripts go to a master, keys of the index to their node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from .cluster import Cluster
from .database import Database
from .loading import Loading, command
from .waiting import wait_until

#: Enough that each node has keys of some of them, whatever the directory of the test is called.
COUNT = 24


@pytest.fixture
def loading(nodes: list[Database], tmp_path: Path) -> Loading:
    return Loading(tmp_path, nodes[0].server.port)


def names(server: Database | redis.Redis) -> set[str]:
    """The names of the commands that are registered on a server."""
    client = server.r if isinstance(server, Database) else server
    rows = client.execute_command("RG.DUMPREGISTRATIONS")
    return {row[7][row[7].index(b"args") + 1][1].decode() for row in rows}


def index_keys(nodes: list[Database]) -> list[set[str]]:
    """The keys of the index on each node."""
    return [{key.decode() for key in node.r.keys("/redgrease/*")} for node in nodes]


def test_keys_of_the_index_are_on_their_nodes_and_scripts_on_the_named_one(nodes, loading):
    scripts = [loading.write(f"{number}.py", command(f"c{number}", number)) for number in range(COUNT)]
    said = loading.run(loading.scripts)
    assert f"{COUNT} files loaded into localhost:{loading.port}" in said
    assert names(nodes[0]) == {f"c{number}" for number in range(COUNT)}
    keys = index_keys(nodes)
    assert all(keys) and set.union(*keys) == {loading.index_key(script) for script in scripts}
    with redis.RedisCluster(host="127.0.0.1", port=loading.port) as client:
        for script in scripts:
            assert client.hexists(loading.index_key(script), "registration_id")
    with loading.watch() as watching:
        for script in scripts[1:]:
            script.unlink()
        watching.wait_for("removed (1 registration)", count=COUNT - 1)
    assert names(nodes[0]) == {"c0"}
    assert set.union(*index_keys(nodes)) == {loading.index_key(scripts[0])}


def test_a_slot_that_moves(nodes, loading):
    """A node that imports a slot takes a command for it only if it is told that it was redirected."""
    script = loading.write("a.py", command("a", 1))
    key = loading.index_key(script)
    slot = nodes[0].r.execute_command("CLUSTER", "KEYSLOT", key)
    owner = next(node for node in nodes if not redirects(node, key))
    importer = next(node for node in nodes if node is not owner)
    ids = {node: node.r.execute_command("CLUSTER MYID").decode() for node in (owner, importer)}
    importer.r.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[owner])
    owner.r.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[importer])
    try:
        loading.run(loading.scripts)
        assert [key.encode() in node.r.keys("*") for node in (owner, importer)] == [False, True]
        script.write_text("x = 1\n")
        loading.run(loading.scripts)
        assert importer.r.keys("*") == []
    finally:
        for node in (owner, importer):
            node.r.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")


def redirects(node: Database, key: str) -> bool:
    try:
        node.r.exists(key)
    except redis.exceptions.MovedError:
        return True
    return False


@pytest.fixture(scope="module")
def cluster_with_replica(server_kind) -> Iterator[tuple[Cluster, int]]:
    """A cluster whose master has a replica, and the port of the replica."""
    cluster = Cluster(server_kind, masters=1, replicas=1)
    replica = cluster.servers[1]
    with replica.client() as client:
        wait_until(
            lambda: client.info("replication"),
            "the replica is in sync",
            until=lambda seen: seen.get("master_link_status") == "up",
            deadline=30,
        )
    yield cluster, replica.port
    cluster.stop()


def test_a_replica_sends_scripts_to_its_master_and_becomes_one(cluster_with_replica, tmp_path):
    cluster, port = cluster_with_replica
    loading = Loading(tmp_path, port)
    script = loading.write("a.py", command("a", 1))
    with cluster.servers[0].client() as first, redis.Redis(port=port) as second, loading.watch() as watching:
        assert f"loaded into 127.0.0.1:{cluster.servers[0].port}" in watching.log()
        assert names(first) == {"a"}
        second.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
        wait_until(lambda: second.role()[0], "it is a master", until=lambda role: role == b"master")
        wait_until(lambda: first.role()[0], "the other one is not", until=lambda role: role == b"slave")
        script.write_text(command("b", 1))
        watching.wait_for("a.py: loaded", count=2)
        assert names(second) == {"b"}


# -- without a cluster


def test_a_replica_of_a_server(fresh_server, tmp_path):
    master = fresh_server()
    replica = fresh_server(conf={"replicaof": f"127.0.0.1 {master.server.port}"})
    loading = Loading(tmp_path, replica.server.port)
    script = loading.write("a.py", command("a", 1))
    assert f"loaded into 127.0.0.1:{master.server.port}" in loading.run(loading.scripts)
    assert names(master) == {"a"}
    assert master.r.keys("*") == [loading.index_key(script).encode()]
    # Without the permission to ask for the role, a replica is only known by its refusal.
    for server in (master, replica):
        server.r.execute_command("ACL SETUSER ada on >pw ~* +@all -role")
    said = loading.run("--user", "ada", loading.scripts, code=1, REDISCLI_AUTH="pw")
    assert "is a replica: READONLY" in said and "fix: name its master with --server and --port" in said
