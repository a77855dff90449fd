"""Links between shards: their greeting, messages that arrive once and in order, and peers that fail."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from .certificates import make_certificates
from .cluster import cluster_info, cluster_with, wait_links
from .database import Database
from .mock_peer import MockPeer, Script, Talk, pushed_topology
from .processes import process
from .resp import Simple
from .servers import free_port
from .waiting import wait_until

ME, OTHER = "1", "2"
OWN_ID, OTHER_ID = ME.rjust(40, "0"), OTHER.rjust(40, "0")
OK = Simple("OK")
DUPLICATE = Simple("duplicate message ignored")


@pytest.fixture
def shard(fresh_server: Callable[..., Database]) -> Database:
    """A server that the tests make a shard, by a pushed topology."""
    return fresh_server()


@pytest.fixture
def peer() -> Iterator[MockPeer]:
    with MockPeer() as peer:
        yield peer


def push(shard: Database, address: str, *, unix: str | None = None) -> None:
    """Tell a shard that it has one peer, at this address."""
    shards = [(ME, f"@127.0.0.1:{shard.server.port}"), (OTHER, address)]
    shard.r.execute_command(*pushed_topology(ME, shards, unix=[None, unix]))


def at(peer: MockPeer, password: str = "") -> str:
    return f"{password}@{peer.host}:{peer.port}"


def ask_network_test(shard: Database) -> None:
    """Have a shard send a message to all others."""
    assert shard.wire()("RG.NETWORKTEST") == OK


def greeted(peer: MockPeer) -> Talk:
    """The next connection, after its greeting."""
    talk = peer.next_talk()
    assert talk.next()[0].upper() == b"RG.HELLO"
    return talk


def pending(shard: Database) -> int:
    info = cluster_info(shard.server)
    assert info is not None
    return next(node.pending for node in info.nodes if node.id == OTHER_ID)


def wait_pending(shard: Database, count: int) -> None:
    wait_until(lambda: pending(shard), f"{count} messages wait", until=lambda seen: seen == count)


# -- messages, as shards of RedisGears see them


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_messages_follow_authentication_and_greeting(shard, family):
    try:
        peer = MockPeer(family=family)
    except OSError as error:
        pytest.skip(f"this machine has no such addresses: {error}")
    with peer:
        push(shard, at(peer, "pw"))
        talk = peer.next_talk()
        assert talk.next() == [b"AUTH", b"pw"]
        assert talk.next()[0].upper() == b"RG.HELLO"
        ask_network_test(shard)
        ask_network_test(shard)
        messages = [talk.message(), talk.message()]
        info = cluster_info(shard.server)
        assert info is not None and info.me == OWN_ID
        for message in messages:
            assert (message.sender.decode(), message.run.decode()) == (OWN_ID, info.run)
            assert message.function
        assert [message.number for message in messages] == [0, 1]
        wait_pending(shard, 0)


def test_a_message_without_an_answer_is_sent_again(shard, peer):
    peer.answer = Script(innermsgcommand=None)
    push(shard, at(peer))
    talk = greeted(peer)
    ask_network_test(shard)
    first = talk.message()
    ask_network_test(shard)
    second = talk.message()
    talk.close()
    talk = greeted(peer)
    for sent in (first, second):
        again = talk.message()
        assert (again.number, again.function, again.payload) == (sent.number, sent.function, sent.payload)
    # Both are acknowledged, in this way too.
    talk.say(b"+duplicate message ignored\r\n+OK\r\n")
    wait_pending(shard, 0)
    talk.close()
    talk = greeted(peer)
    ask_network_test(shard)
    assert talk.message().number == 2


def test_a_peer_that_has_restarted_gets_no_old_messages(shard, peer):
    peer.answer = Script(innermsgcommand=None)
    push(shard, at(peer))
    talk = greeted(peer)
    ask_network_test(shard)
    assert talk.message().number == 0
    peer.answer = Script(run=b"s" * 40)
    talk.close()
    talk = greeted(peer)
    wait_pending(shard, 0)
    ask_network_test(shard)
    assert talk.message().number == 0, "numbers begin again"


def test_a_peer_without_a_topology_gets_it(shard, peer):
    peer.answer = Script(innermsgcommand=b"-ERRCLUSTER NULL cluster state\r\n")
    push(shard, at(peer, "pw"))
    talk = peer.next_talk()
    ask_network_test(shard)
    first = talk.message()
    talk.wait_end()
    peer.answer = Script()
    talk = peer.next_talk()
    assert talk.next() == [b"AUTH", b"pw"]
    relayed = talk.next()
    shards = [(ME, f"@127.0.0.1:{shard.server.port}"), (OTHER, at(peer, "pw"))]
    expected = pushed_topology(OTHER_ID, shards, name="RG.CLUSTERSETFROMSHARD")
    assert [word.decode().upper() for word in relayed] == [str(word).upper() for word in expected]
    assert talk.next()[0].upper() == b"RG.HELLO"
    assert talk.message().number == first.number


def test_a_message_for_a_peer_that_is_down_is_kept(shard):
    with MockPeer() as peer:
        push(shard, at(peer))
        talk = greeted(peer)
        ask_network_test(shard)
        assert talk.message().number == 0
        wait_pending(shard, 0)
        port = peer.port
    ask_network_test(shard)
    wait_pending(shard, 1)
    with MockPeer(port=port) as peer:
        talk = greeted(peer)
        assert talk.message().number == 1
        wait_pending(shard, 0)


def test_a_message_is_handled_once(shard, peer):
    push(shard, at(peer))
    talk = greeted(peer)
    ask_network_test(shard)
    sample = talk.message()

    def send(number: int, run: str = "a" * 40) -> object:
        words = ("RG.INNERMSGCOMMAND", OTHER_ID, run, sample.function, sample.payload, number)
        return shard.wire()(*words)

    assert [send(0), send(0), send(1), send(0)] == [OK, DUPLICATE, OK, DUPLICATE]
    assert send(0, run="b" * 40) == OK, "another run of the same shard"


def test_a_message_before_the_greeting_is_answered_is_sent_after_it(shard, peer):
    peer.answer = Script(hello=None)
    push(shard, at(peer))
    talk = greeted(peer)
    ask_network_test(shard)
    wait_pending(shard, 1)
    talk.say(b"$40\r\n" + b"r" * 40 + b"\r\n")
    assert talk.message().number == 0


def test_a_greeting_that_is_refused_is_sent_again(shard, peer):
    peer.answer = Script(hello=b"-ERR not now\r\n")
    push(shard, at(peer))
    talk = greeted(peer)
    peer.answer = Script()
    assert talk.next()[0].upper() == b"RG.HELLO"
    ask_network_test(shard)
    assert talk.message().number == 0


def test_a_topology_without_the_peer_ends_its_link(shard, peer):
    peer.answer = Script(hello=b"-ERR not now\r\n")
    push(shard, at(peer))
    talk = greeted(peer)
    alone = pushed_topology(ME, [(ME, f"@127.0.0.1:{shard.server.port}")])
    assert shard.wire()(*alone) == OK
    talk.wait_end()
    assert peer.has_no_talk(1.5), "the greeting that was to be repeated is not"
    assert cluster_info(shard.server) is None


def test_a_topology_right_after_the_end_of_a_link_makes_another_one(shard, peer):
    push(shard, at(peer))
    for _ in range(3):
        greeted(peer).close()
        push(shard, at(peer))
    talk = greeted(peer)
    ask_network_test(shard)
    assert talk.message()


def test_a_thousand_topologies_in_a_row(shard, peer):
    pid = process(shard.server.pid)
    assert pid is not None
    shards = [(ME, f"@127.0.0.1:{shard.server.port}"), (OTHER, at(peer))]
    others = [(ME, f"@127.0.0.1:{shard.server.port}"), ("3", f"@127.0.0.1:{free_port()}")]
    pipeline = shard.r.pipeline(transaction=False)
    for number in range(1000):
        pipeline.execute_command(*pushed_topology(ME, others if number % 7 == 3 else shards))
    pipeline.execute_command(*pushed_topology(ME, shards))
    assert set(pipeline.execute()) <= {b"OK", True}
    talk = peer.next_talk()
    ask_network_test(shard)

    def newest() -> Talk | None:
        nonlocal talk
        with contextlib.suppress(AssertionError):
            talk = peer.next_talk(deadline=0.2)
        return talk if b"INNERMSGCOMMAND" in talk.raw else None

    wait_until(newest, "the message arrives on the last link", deadline=30)
    wait_until(lambda: pid.descriptors(), "all other connections are closed", until=lambda count: count < 60)


# -- peers that fail


def wait_problem(shard: Database, fragment: str) -> None:
    """Wait for a line of the log about a link."""
    shard.wait_log(fragment, deadline=20)


def test_a_peer_that_refuses_connections_is_named(shard):
    port = free_port()
    push(shard, f"@127.0.0.1:{port}")
    wait_problem(shard, "refused")
    assert str(port) in shard.server.new_log()


def test_a_peer_that_is_no_server_is_named(shard, peer):
    peer.answer = lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n"
    push(shard, at(peer))
    wait_problem(shard, str(peer.port))
    wait_until(
        lambda: "byte 0x48" in shard.server.new_log() or "not" in shard.server.new_log(), "the log says what it said"
    )
    assert shard.r.ping()


def test_a_peer_that_speaks_tls_is_named(shard, tmp_path):
    make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "s.pem", tmp_path / "s.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
                    pass

    threading.Thread(target=accept, daemon=True).start()
    try:
        push(shard, f"@127.0.0.1:{listener.getsockname()[1]}")
        wait_problem(shard, "TLS")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_wrong_password_is_named_and_not_shown(shard, fresh_server):
    other = fresh_server(conf={"requirepass": "correct"})
    push(shard, f"sesame@127.0.0.1:{other.server.port}")
    wait_problem(shard, "WRONGPASS")
    assert "sesame" not in shard.server.log()
    push(shard, f"@127.0.0.1:{other.server.port}")
    wait_problem(shard, "NOAUTH")


def test_a_peer_that_never_answers_costs_no_threads_and_no_time(shard):
    """An address whose packets get lost, and a process that is stopped."""
    mine = process(shard.server.pid)
    assert mine is not None
    push(shard, "@192.0.2.1:6379")
    with shard.pinging() as pings:
        wait_problem(shard, "192.0.2.1")
        threads, descriptors = mine.threads(), mine.descriptors()
        shard.server.mark_log()
        push(shard, "pw@192.0.2.2:6379")
        wait_problem(shard, "192.0.2.2")
    pings.assert_never_stalled(0.5)
    assert mine.threads() <= threads
    assert mine.descriptors() <= descriptors + 2


def test_a_stopped_peer_is_told_from_a_slow_one(fresh_server):
    shard = fresh_server(load_args={"ExecutionMaxIdleTime": 3000})
    other = fresh_server()
    push(shard, f"@127.0.0.1:{other.server.port}")
    wait_links(shard.server)
    os.kill(other.server.pid, signal.SIGSTOP)
    try:
        shard.server.mark_log()
        with shard.pinging() as pings:
            wait_problem(shard, str(other.server.port))
        pings.assert_never_stalled(0.5)
    finally:
        os.kill(other.server.pid, signal.SIGCONT)
    wait_links(shard.server)


def test_a_name_that_is_not_known_is_named(shard):
    push(shard, "@no-such-host.invalid:6379")
    wait_problem(shard, "no-such-host.invalid")


def test_a_socket_in_the_file_system_is_used(shard, tmp_path):
    path = tmp_path / "peer.sock"
    with MockPeer(path=path) as peer:
        push(shard, "@127.0.0.1:1", unix=str(path))
        talk = greeted(peer)
        ask_network_test(shard)
        assert talk.message().number == 0


# -- real clusters


def test_shards_find_each_other(server_kind):
    with cluster_with(server_kind) as cluster:
        wait_links(*cluster.servers)
        runs = []
        for server in cluster.servers:
            info = cluster_info(server)
            assert info is not None
            runs.append({node.id: node.run for node in info.nodes})
        assert runs[0] == runs[1] == runs[2] and len(set(runs[0].values())) == 3


def test_a_cut_link_is_made_again(server_kind):
    with cluster_with(server_kind, proxied=True) as cluster:
        wait_links(*cluster.servers)
        first, second = cluster.servers[:2]
        cluster.isolate(second)
        first.mark_log()
        wait_until(lambda: str(cluster.proxy(second).port) in first.new_log(), "the first shard notices", deadline=20)
        cluster.heal()
        wait_links(*cluster.servers)
        for server in cluster.servers:
            # Shards send something each second.
            wait_until(
                lambda server=server: cluster_info(server),
                "all messages are acknowledged",
                until=lambda info: info is not None and all(node.pending == 0 for node in info.nodes),
            )


def test_the_end_of_a_link_is_seen_while_data_is_saved(shard, peer):
    """The process that saves has copies of all connections; the peer must not wait for its end."""
    shard.r.mset({f"k:{number}": "v" * 100 for number in range(20000)})
    shard.r.config_set("rdb-key-save-delay", 1000)
    push(shard, at(peer))
    talk = greeted(peer)
    shard.r.bgsave()
    wait_until(lambda: shard.r.info("persistence")["rdb_bgsave_in_progress"], "data is being saved")
    shard.r.execute_command(*pushed_topology(ME, [(ME, f"@127.0.0.1:{shard.server.port}")]))
    talk.wait_end(deadline=5)
    assert shard.r.info("persistence")["rdb_bgsave_in_progress"] == 1
    shard.r.config_set("rdb-key-save-delay", 0)
