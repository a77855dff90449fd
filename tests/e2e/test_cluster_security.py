"""Links between shards of real clusters: passwords, users, TLS, and who may send what shards send."""

from __future__ import annotations

from pathlib import Path

import pytest

from .certificates import encrypt_key, hash_authority, make_certificates
from .cluster import cluster_info, cluster_with, wait_links
from .resp import Err, Simple
from .servers import ServerKind
from .waiting import wait_until

OK = Simple("OK")
OTHER_ID = "2".rjust(40, "0")


@pytest.fixture
def tls_kind(server_kind: ServerKind) -> ServerKind:
    """The kind of server, if it is built with TLS."""
    if not server_kind.has_tls:
        pytest.skip(f"{server_kind.name} is built without TLS here")
    return server_kind


# -- who may send


INTERNAL = [("RG.HELLO",), ("RG.INNERMSGCOMMAND", OTHER_ID, "r", "f", "p", "0"), ("RG.CLUSTERSETFROMSHARD", "x")]


@pytest.mark.parametrize("command", INTERNAL, ids=lambda command: command[0])
def test_users_of_functions_may_not_send_what_shards_send(db, command):
    # Commands of modules have no categories on Redis 7.0.
    denied = [f"-{name[0].lower()}" for name in INTERNAL] if db.kind.is_redis_7_0 else ["-@admin"]
    db.r.execute_command("ACL", "SETUSER", "alice", "on", ">pw", "~*", "+@all", *denied)
    gears = [] if db.kind.is_redis_7_0 else ["+@gears"]
    db.r.execute_command("ACL", "SETUSER", "bob", "on", ">pw", "~*", "+@read", "+rg.pyexecute", *gears)
    db.r.execute_command("ACL", "SETUSER", "links", "on", ">pw", "+rg.hello", "+rg.innermsgcommand")
    for user in ("alice", "bob"):
        wire = db.wire()
        assert wire("AUTH", user, "pw") == OK
        refusal = wire(*command)
        assert isinstance(refusal, Err) and refusal.text.startswith("NOPERM")
    if command[0] != "RG.CLUSTERSETFROMSHARD":
        wire = db.wire()
        assert wire("AUTH", "links", "pw") == OK
        answer = wire(*command)
        assert not (isinstance(answer, Err) and answer.text.startswith("NOPERM"))


def test_messages_are_answered_while_clients_are_paused(db):
    wire = db.wire()
    wire("CLIENT", "PAUSE", "60000", "WRITE")
    assert not isinstance(wire("RG.HELLO"), Simple)
    assert isinstance(wire("RG.INNERMSGCOMMAND", OTHER_ID, "r", "f", "p", "0"), (Simple, Err))
    assert wire("CLIENT", "UNPAUSE") == OK


# -- passwords and users


def test_links_use_the_password_of_replication(server_kind):
    with cluster_with(server_kind, conf={"requirepass": "pw", "masterauth": "pw"}) as cluster:
        wait_links(*cluster.servers)
        assert all(
            "pw" not in line for server in cluster.servers for line in server.log().splitlines() if "rg:" in line
        )


def test_links_use_the_user_of_replication(server_kind):
    user = ("links", "on", ">pw", "-@all", "+psync", "+replconf", "+ping", "+rg.hello", "+rg.innermsgcommand")
    conf = {"user": user, "requirepass": "other", "masteruser": "links", "masterauth": "pw"}
    with cluster_with(server_kind, conf=conf) as cluster:
        wait_links(*cluster.servers)


def test_links_use_their_own_settings_if_there_are_some(server_kind):
    user = ("links", "on", ">pw", "-@all", "+rg.hello", "+rg.innermsgcommand")
    conf = {"user": user, "requirepass": "other", "masterauth": "wrong"}
    args = {"ClusterUser": "links", "ClusterPassword": "pw"}
    with cluster_with(server_kind, conf=conf, load_args=args) as cluster:
        wait_links(*cluster.servers)
        first = cluster.servers[0]
        with first.client() as client:
            (hidden,) = client.execute_command("RG.CONFIGGET", "ClusterPassword")
            assert "not shown" in str(hidden)
            assert client.config_get("rg.ClusterPassword") == {"rg.ClusterPassword": "pw"}
            # It is changed while the server runs, and used by the next connection.
            client.config_set("rg.ClusterPassword", "wrong")
            first.mark_log()
            client.execute_command("CLIENT", "KILL", "USER", "links", "SKIPME", "no")
        for other in cluster.servers[1:]:
            with other.client() as client:
                client.execute_command("CLIENT", "KILL", "USER", "links")
        wait_until(lambda: "WRONGPASS" in first.new_log(), "the password is refused", deadline=20)
        with first.client() as client:
            client.config_set("rg.ClusterPassword", "pw")
        wait_links(*cluster.servers)


def test_a_user_without_permission_is_named(server_kind):
    user = ("links", "on", ">pw", "-@all", "+psync", "+replconf", "+ping")
    conf = {"user": user, "requirepass": "other", "masteruser": "links", "masterauth": "pw"}
    with cluster_with(server_kind, conf=conf) as cluster:
        wait_until(lambda: "NOPERM" in cluster.servers[0].log(), "the log names the reason", deadline=20)


# -- TLS


def tls_conf(folder: Path, **others: object) -> dict[str, object]:
    """Options of servers whose cluster uses TLS, with certificates for both sides."""
    return {
        "tls-cluster": "yes",
        "tls-replication": "yes",
        "tls-auth-clients": "yes",
        "tls-cert-file": folder / "s.pem",
        "tls-key-file": folder / "s.key",
        "tls-ca-cert-file": folder / "ca.pem",
        **others,
    }


@pytest.mark.parametrize("variant", ["plain key", "encrypted key", "directory", "client certificate"])
def test_links_use_tls_as_the_cluster_does(tls_kind, tmp_path, variant):
    make_certificates(tmp_path)
    conf = tls_conf(tmp_path, requirepass="pw", masterauth="pw")
    if variant == "encrypted key":
        encrypt_key(tmp_path, "key-password")
        conf.update({"tls-key-file": tmp_path / "e.key", "tls-key-file-pass": "key-password"})
    elif variant == "directory":
        del conf["tls-ca-cert-file"]
        conf["tls-ca-cert-dir"] = hash_authority(tmp_path)
    elif variant == "client certificate":
        conf.update({"tls-client-cert-file": tmp_path / "s.pem", "tls-client-key-file": tmp_path / "s.key"})
    with cluster_with(tls_kind, conf=conf, tls=True) as cluster:
        wait_links(*cluster.servers)
        for server in cluster.servers:
            info = cluster_info(server)
            assert info is not None
            assert sorted(node.port for node in info.nodes) == sorted(s.conf["tls-port"] for s in cluster.servers)
            with server.client() as client:
                # It is asked on a connection without TLS, and servers tell such clients the other ports.
                client.execute_command("RG.REFRESHCLUSTER")
            assert cluster_info(server) == info
        assert "key-password" not in "".join(server.log() for server in cluster.servers)


def test_a_certificate_of_another_authority_is_refused(tls_kind, tmp_path):
    """A shard that trusts another authority than its peers, as far as links are concerned."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        make_certificates(folder)
    with cluster_with(tls_kind, conf=tls_conf(ours), tls=True) as cluster:
        wait_links(*cluster.servers)
        first = cluster.servers[0]
        first.mark_log()
        # Links read the files for each connection; the server itself only when it is told to.
        (ours / "ca.pem").write_bytes((theirs / "ca.pem").read_bytes())
        for server in cluster.servers[1:]:
            with server.client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal")
        wait_until(lambda: "invalid peer certificate" in first.new_log(), "the log names the reason", deadline=20)
