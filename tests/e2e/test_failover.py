"""A replica takes over, on request and by Sentinel, while streams, registrations and saves keep both servers busy."""

from __future__ import annotations

import itertools
import subprocess
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress

import pytest
import redis

from .chaos import LOG_ALARMS
from .servers import Server, free_port
from .waiting import wait_until

#: Notes each entry of a stream; runs in mode `async`.
READ_STREAMS = """
GB('StreamReader').foreach(
    lambda r: execute('SADD', 'seen', r['value']['n'])
).register('stream:*', batch=5, duration=20, onFailedPolicy='retry', onFailedRetryInterval=1)
"""
REGISTRARS = 8
PRODUCERS = 2
CONF = {"appendonly": "yes", "repl-diskless-sync-delay": 0, "repl-timeout": 60}


class Pair:
    """Two servers, of which one is the master."""

    def __init__(self, servers: tuple[Server, Server]) -> None:
        self.servers = servers

    def roles(self) -> list[str]:
        """The role of each server; empty for one that does not answer."""
        found = []
        for server in self.servers:
            try:
                with server.client(socket_timeout=5) as client:
                    found.append(client.info("replication")["role"])
            except redis.ConnectionError:
                found.append("")
        return found

    def master(self) -> Server | None:
        roles = self.roles()
        return self.servers[roles.index("master")] if roles.count("master") == 1 else None


class Busy:
    """Threads that send commands to whichever server is the master, until the block ends."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.acknowledged: set[str] = set()
        self.switches = 0
        self.requests = 0
        self._ending = threading.Event()
        self._numbers = itertools.count()
        self._broken: list[BaseException] = []

    @contextmanager
    def working(self):
        jobs = [self._produce] * PRODUCERS + [self._register] * REGISTRARS + [self._disturb]
        threads = [threading.Thread(target=self._repeat, args=(job, number)) for number, job in enumerate(jobs)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ending.set()
            for thread in threads:
                thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "a client is stuck"
        assert not self._broken, self._broken

    def _repeat(self, job: Callable[[redis.Redis, int], None], number: int) -> None:
        try:
            while not self._ending.is_set():
                master = self.pair.master()
                if master is None:
                    self._ending.wait(0.01)
                    continue
                # It does not retry: what was not answered is not counted.
                with master.client(socket_timeout=30) as client:
                    self._on_one_master(job, client, number)
        except BaseException as error:
            self._broken.append(error)
            raise

    def _on_one_master(self, job: Callable[[redis.Redis, int], None], client: redis.Redis, number: int) -> None:
        while not self._ending.is_set():
            try:
                job(client, number)
            except (redis.ConnectionError, redis.ResponseError) as error:
                if isinstance(error, redis.TimeoutError) or not _is_of_a_failover(error):
                    raise
                return
            self.requests += 1

    def _produce(self, client: redis.Redis, number: int) -> None:
        entry = f"{next(self._numbers)}"
        client.xadd(f"stream:{number}", {"n": entry})
        self.acknowledged.add(entry)

    def _register(self, client: redis.Redis, number: int) -> None:
        script = f"GB('CommandReader').map(lambda _: 1).register(trigger='t{number}')"
        client.execute_command("RG.PYEXECUTE", script, "ID", f"s{number}", "UPGRADE")
        client.execute_command("RG.TRIGGER", f"t{number}")
        rows = client.execute_command("RG.DUMPREGISTRATIONS")
        assert rows
        if next(self._numbers) % 3 == 0:
            for row in rows:
                fields = dict(zip(row[::2], row[1::2]))
                if f"'s{number}'".encode() in fields[b"PD"]:
                    client.execute_command("RG.UNREGISTER", fields[b"id"])

    def _disturb(self, client: redis.Redis, _: int) -> None:
        client.execute_command("CLIENT", "PAUSE", 30, "WRITE")
        for command in ("BGSAVE", "BGREWRITEAOF"):
            with suppress(redis.ResponseError):  # one is running
                client.execute_command(command)
        self._ending.wait(0.1)


def _is_of_a_failover(error: Exception) -> bool:
    """Whether a client must expect it while the roles of servers change."""
    kinds = (redis.ConnectionError, redis.exceptions.ReadOnlyError)
    return isinstance(error, kinds) or str(error).startswith("UNBLOCKED") or "gears.error: READONLY" in str(error)


@pytest.fixture
def pair(fresh_server) -> Pair:
    """A master whose streams are read, and a replica that has caught up."""
    master = fresh_server(conf=CONF)
    master.ok(READ_STREAMS, "ID", "streams")
    replica = fresh_server(conf={**CONF, "replicaof": ("127.0.0.1", master.server.port)})
    _wait_linked(replica.server)
    return Pair((master.server, replica.server))


def _wait_linked(server: Server) -> None:
    with server.client() as client:
        wait_until(
            lambda: client.info("replication").get("master_link_status"),
            "the replica is connected",
            until=lambda status: status == "up",
            deadline=60,
        )


def _registered(server: Server) -> list[tuple[str, str]]:
    with server.client() as client:
        rows = [dict(zip(row[::2], row[1::2])) for row in client.execute_command("RG.DUMPREGISTRATIONS")]
    return sorted((row[b"id"].decode().lstrip("0"), row[b"PD"].decode().split("'")[3]) for row in rows)


def _wait_same_registrations(master: Server, replica: Server) -> None:
    wait_until(
        lambda: set(_registered(master)) ^ set(_registered(replica)),
        "the replica has the registrations of the master",
        until=lambda different: not different,
    )


def _check_nothing_lost(servers: list[Server], master: Server, acknowledged: set[str]) -> None:
    with master.client() as client:
        client.execute_command("CLIENT", "UNPAUSE")
        wait_until(
            lambda: acknowledged - {n.decode() for n in client.smembers("seen")},
            "each acknowledged entry was processed",
            until=lambda missing: not missing,
            deadline=60,
        )
    for server in servers:
        assert not [line for line in server.log().splitlines() if any(alarm in line for alarm in LOG_ALARMS)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("switches", [4, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_a_failover_on_request_loses_no_entry_and_no_registration(pair, switches):
    with Busy(pair).working() as busy:
        for _ in range(switches):
            done = busy.requests + 50
            wait_until(lambda done=done: busy.requests > done, "the clients work", deadline=60)
            old = wait_until(pair.master, "one server is the master", deadline=60)
            [new] = [server for server in pair.servers if server is not old]
            _wait_linked(new)
            with old.client() as client:
                client.execute_command("FAILOVER", "TIMEOUT", 30_000)
            wait_until(lambda new=new: pair.master() is new, "the replica has taken over", deadline=60)
    master = wait_until(pair.master, "one server is the master", deadline=60)
    [replica] = [server for server in pair.servers if server is not master]
    _check_nothing_lost(list(pair.servers), master, busy.acknowledged)
    _wait_linked(replica)
    _wait_same_registrations(master, replica)
    assert "streams" in dict(_registered(master)).values()


def test_a_paused_replica_takes_changes_of_registrations_when_it_may(pair):
    master, replica = pair.servers
    with master.client() as client, replica.client() as paused:
        paused.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        client.execute_command("RG.PYEXECUTE", "GB('CommandReader').register(trigger='t')", "ID", "t")
        client.execute_command("RG.UNREGISTER", next("0" * 40 + id for id, name in _registered(master) if name == "t"))
        client.execute_command("RG.PYEXECUTE", "GB('CommandReader').register(trigger='u')", "ID", "u")
        client.set("later", 1)
        assert client.wait(1, 200) == 0, "the replica takes nothing while it is paused"
        paused.execute_command("CLIENT", "UNPAUSE")
        assert client.wait(1, 10_000) == 1
    _wait_same_registrations(master, replica)


@pytest.fixture
def sentinel(pair, server_kind, tmp_path):
    """A Sentinel that watches the pair and acts alone."""
    port = free_port()
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nlogfile {tmp_path}/log\n"
        f"sentinel monitor pair 127.0.0.1 {pair.servers[0].port} 1\n"
        "sentinel down-after-milliseconds pair 500\nsentinel failover-timeout pair 5000\n"
    )
    process = subprocess.Popen([server_kind.binary(), conf, "--sentinel"], stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    try:
        wait_until(lambda: _knows_replica(client), "Sentinel knows the replica", deadline=60)
        yield client
    finally:
        client.close()
        process.kill()
        process.wait()


def _knows_replica(client: redis.Redis) -> bool:
    try:
        return len(client.sentinel_slaves("pair")) == 1
    except redis.ConnectionError:
        return False


@pytest.mark.timeout(200)
def test_after_kill_9_the_server_that_sentinel_promotes_fires(pair, sentinel):
    old, new = pair.servers
    with old.client() as client:
        for n in range(20):
            client.xadd("stream:0", {"n": f"before-{n}"})
        assert client.wait(1, 10_000) == 1
    old.kill()
    wait_until(lambda: pair.master() is new, "Sentinel has promoted the replica", deadline=60)
    wait_until(lambda: sentinel.sentinel_master("pair")["port"] == new.port, "Sentinel names it", deadline=60)
    with new.client() as client:
        for n in range(20):
            client.xadd("stream:1", {"n": f"after-{n}"})
    _check_nothing_lost([new], new, {f"{when}-{n}" for when in ("before", "after") for n in range(20)})
    # It would make the old master a replica some 10 seconds later, unless it takes a slow new master for dead.
    sentinel.shutdown()
    old.start_again()
    with old.client() as client:
        client.replicaof("127.0.0.1", str(new.port))
    _wait_linked(old)
    _wait_same_registrations(new, old)
