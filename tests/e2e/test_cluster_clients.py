"""Clients of a cluster whose nodes restart, are replaced, and get slots of others; all kinds of clients."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redgrease
import redgrease.asyncio
import redis
import redis.asyncio
from redgrease import caching
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from .cluster import Cluster, call
from .database import Database
from .waiting import wait_until

valkey = pytest.importorskip("valkey")
valkey_asyncio = pytest.importorskip("valkey.asyncio")

CLIENTS = {
    "redgrease": redgrease.RedisCluster,
    "redis": redis.RedisCluster,
    "valkey": valkey.ValkeyCluster,
    "redgrease-coroutines": redgrease.asyncio.RedisCluster,
    "redis-coroutines": redis.asyncio.RedisCluster,
    "valkey-coroutines": valkey_asyncio.ValkeyCluster,
}
COROUTINES = {name: client for name, client in CLIENTS.items() if name.endswith("coroutines")}
WHERE = """
GB('CommandReader').map(lambda x: execute('CONFIG', 'GET', 'port')[1]).register(trigger='where', mode='async_local')
"""
HERE = "GB('ShardsIDReader').count().run(mode='async_local')"


@pytest.fixture(params=CLIENTS.values(), ids=CLIENTS)
def library(request):
    """A class of clients."""
    return request.param


@pytest.fixture(params=COROUTINES.values(), ids=COROUTINES)
def with_coroutines(request):
    """A class of clients with coroutines."""
    return request.param


@pytest.fixture
def cluster(running_cluster: Cluster, nodes: list[Database]) -> Cluster:
    """A cluster whose nodes know the command `where`, which answers with the port."""
    register(running_cluster, WHERE)
    return running_cluster


@pytest.fixture
def cluster_that_changes(server_kind):
    """A cluster for one test."""
    cluster = Cluster(server_kind)
    register(cluster, WHERE)
    yield cluster
    cluster.stop()


def register(cluster: Cluster, script: str) -> None:
    """Let all nodes know the commands of a script, also if they know them, or have lost their links to each other."""
    wanted = set(re.findall(r"trigger='(\w+)'", script))

    def known() -> list[set[str]]:
        found = []
        for server in cluster.servers:
            with server.client() as client:
                rows = redgrease.Gears(client).dumpregistrations(reader="CommandReader")
                found.append({row.RegistrationData.args["trigger"].decode() for row in rows})
        return found

    with contextlib.suppress(ResponseError):
        call(cluster.servers[0], "RG.PYEXECUTE", script)
    wait_until(known, f"all nodes know {wanted}", until=lambda seen: all(map(wanted.issubset, seen)), deadline=30)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 120))


async def done(value):
    """The value of a call of either kind of client."""
    return await value if inspect.isawaitable(value) else value


async def in_background(library: Any, act: Callable[[], Any]) -> Any:
    """The value of a call of either kind of client, which blocks nothing."""
    return await (act() if library in COROUTINES.values() else asyncio.to_thread(act))


async def opened(library: Any, cluster: Cluster, **options: Any) -> Any:
    """A client that knows all nodes, and has connections to them."""
    client = library(host="127.0.0.1", port=cluster.servers[1].port, **options)
    await done(redgrease.engine.gears_of(client).pystats())
    return client


async def close(client: Any) -> None:
    await done(client.aclose() if hasattr(client, "aclose") else client.close())


def port_of(result: Any) -> int:
    return int(result.value)


# -- restarts


def calls(gears: Any, cluster: Cluster) -> dict[str, Callable[[], Any]]:
    """Calls of all kinds."""
    return {
        **{
            f"key {number}": partial(gears.triggeronkey, "where", cluster.key_of(server))
            for number, server in enumerate(cluster.servers)
        },
        "any, once": partial(gears.pyexecute, HERE),
        "any": gears.dumpregistrations,
        "all": gears.pystats,
        "all, a change": partial(gears.config.set, MaxExecutions=1000),
    }


async def disconnected(client: Any) -> None:
    """Wait until the event loop knows that all connections of a client are closed."""
    free = [connection for node in client.get_nodes() for connection in node._free]
    end = time.monotonic() + 10
    while not all(connection._reader is None or connection._reader.at_eof() for connection in free):
        assert time.monotonic() < end, "the connections are closed"
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("knows_it", [True, False], ids=["known", "unknown"])
def test_connections_that_were_closed_meanwhile_are_opened_again(cluster, library, knows_it):
    """Also if the event loop had no time to see it."""

    async def use():
        client = await opened(library, cluster)
        gears = redgrease.engine.gears_of(client)
        for name, act in calls(gears, cluster).items():
            for _ in range(3):
                await asyncio.gather(*(done(act()) for _ in range(3)))
            for server in cluster.servers:
                call(server, "CLIENT", "KILL", "TYPE", "normal")
            if knows_it and library in COROUTINES.values():
                await disconnected(client)
            try:
                await done(act())
            except Exception as error:
                raise AssertionError(f"{name}: {error!r}") from error
        await close(client)

    run(use())


def test_the_first_call_after_a_restart_works(cluster_that_changes):
    async def use():
        cluster = cluster_that_changes
        clients = {name: await opened(library, cluster) for name, library in CLIENTS.items()}
        called = {name: calls(redgrease.engine.gears_of(client), cluster) for name, client in clients.items()}
        for acts in called.values():
            await asyncio.gather(*(done(act()) for act in acts.values()))
        cluster.restart()
        register(cluster, WHERE)
        for client, acts in called.items():
            for name, act in acts.items():
                try:
                    await done(act())
                except Exception as error:
                    raise AssertionError(f"{client}, {name}: {error!r}") from error
        for client in clients.values():
            await close(client)

    run(use())


# -- nodes that are replaced


@pytest.mark.parametrize("returns", [False, True], ids=["dead", "replica"])
def test_calls_follow_a_failover(cluster_that_changes, returns):
    """The clients are idle meanwhile; the old master is dead, or a replica."""

    async def use():
        cluster = cluster_that_changes
        old = cluster.servers[0]
        new = cluster.add_replica(old)
        key = cluster.key_of(cluster.servers[0])
        clients = [await opened(library, cluster) for library in CLIENTS.values() for _ in range(3)]
        assert port_of(await done(redgrease.engine.gears_of(clients[0]).triggeronkey("where", key))) == old.port
        cluster.take_over(new, old)
        if returns:
            cluster.start_as_replica(old)
        for number, client in enumerate(clients):
            gears = redgrease.engine.gears_of(client)
            # A different first call for each client.
            if number % 3 == 0:
                assert port_of(await done(gears.triggeronkey("where", key))) == new.port
            elif number % 3 == 1:
                assert (await done(gears.pyexecute(HERE))).value == b"1"
            elif not returns:
                assert f"127.0.0.1:{new.port}" in await done(gears.pystats())
            for _ in range(5):
                assert port_of(await done(gears.trigger("where"))) != old.port
            assert port_of(await done(gears.triggeronkey("where", key))) == new.port
            await close(client)

    run(use())


@pytest.mark.parametrize("direct", [False, True])
def test_calls_follow_a_slot_that_was_moved(cluster_that_changes, direct):
    async def use():
        cluster = cluster_that_changes
        old, new = cluster.servers[:2]

        def here(x):
            return redgrease.execute("CONFIG", "GET", "port")[1]

        clients = [(library, await opened(library, cluster)) for library in CLIENTS.values()]
        for library, client in clients:
            command = redgrease.command(on=client, ttl=60, direct=direct, replace=True)(here)
            await done(command(0))
            x = next(x for x in range(1000) if call(old, "CLUSTER", "KEYSLOT", command.key_of(x)) < 5461)
            slot = call(old, "CLUSTER", "KEYSLOT", command.key_of(x))
            cluster.begin_to_move(slot, old, new)
            waits = asyncio.ensure_future(in_background(library, partial(command, x)))
            await asyncio.to_thread(cluster.end_move, slot, old, new)
            assert port_of(await waits) == new.port
            assert (await done(command.get(x))).outcome == "hit"
            cluster.begin_to_move(slot, new, old)
            call(new, "DEL", command.key_of(x))
            cluster.end_move(slot, new, old)
            await close(client)

    run(use())


def test_a_node_that_is_killed_during_calls_is_an_error_of_its_calls_only(cluster_that_changes):
    async def use():
        cluster = cluster_that_changes
        register(cluster, SLOW)
        client = await opened(redgrease.asyncio.RedisCluster, cluster)
        keys = [cluster.key_of(server) for server in cluster.servers]
        waiting = [asyncio.ensure_future(client.gears.triggeronkey("slow", key)) for key in keys * 5]
        for key in keys:
            while int(await client.get(f"begun:{{{key}}}") or 0) < 5:
                await asyncio.sleep(0.001)
        cluster.servers[1].kill()
        for key in keys[::2]:
            await client.set(f"go:{{{key}}}", 1)
        for key, found in zip(keys * 5, await asyncio.gather(*waiting, return_exceptions=True)):
            assert isinstance(found, ConnectionError) if key == keys[1] else found.value == key.encode()
        # A call to no certain node finds a living one, and one to the dead node says so.
        assert [(await client.gears.pyexecute(HERE)).value for _ in range(10)] == [b"1"] * 10
        with pytest.raises(ConnectionError):
            await client.gears.triggeronkey("where", keys[1])
        await client.aclose()

    run(use())


# -- many calls, cancelled calls, slow calls

SLOW = """
import asyncio
async def f(record):
    execute('incr', 'begun:{%s}' % record[1])
    while not execute('exists', 'go:{%s}' % record[1]):
        await asyncio.sleep(0.001)
    return record[1]
GB('CommandReader').map(f).register(trigger='slow', mode='async_local')
GB('CommandReader').map(lambda record: record[2]).register(trigger='echo', mode='async_local')
"""


def test_a_cancelled_call_leaves_no_reply_to_others(cluster, nodes, with_coroutines):
    async def use():
        client = await opened(with_coroutines, cluster)
        gears = redgrease.engine.gears_of(client)
        key = cluster.key_of(cluster.servers[0])
        calls = [asyncio.ensure_future(gears.triggeronkey("slow", key)) for _ in range(10)]
        while int(await client.get(f"begun:{{{key}}}") or 0) < 10:
            await asyncio.sleep(0.001)
        for each in calls[::2]:
            each.cancel()
        await client.set(f"go:{{{key}}}", 1)
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in found[::2]] == [asyncio.CancelledError] * 5
        assert [each.value for each in found[1::2]] == [key.encode()] * 5
        numbers = range(50)
        echoed = await asyncio.gather(*(gears.triggeronkey("echo", key, number) for number in numbers))
        assert [int(each.value) for each in echoed] == list(numbers)
        node = client.get_node_from_key(key)
        assert len(node._free) == len(node._connections), "a connection was not given back"
        await close(client)

    register(cluster, SLOW)
    run(use())


def test_more_calls_than_connections_are_refused_with_the_reason(cluster, nodes):
    async def use():
        client = await opened(redgrease.asyncio.RedisCluster, cluster, max_connections=3)
        key = cluster.key_of(cluster.servers[0])
        calls = [asyncio.ensure_future(client.gears.triggeronkey("slow", key)) for _ in range(2)]
        while int(await client.get(f"begun:{{{key}}}") or 0) < 2:
            await asyncio.sleep(0.001)
        more = [asyncio.ensure_future(client.gears.triggeronkey("slow", key)) for _ in range(5)]
        done, calls_left = await asyncio.wait([*calls, *more], return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(
            ConnectionError, match=r"all 3 connections to 127\.0\.0\.1:\d+ are in use: give the client max_"
        ):
            await done.pop()
        assert len(done) == 3
        for each in done:
            each.exception()
        nodes[0].r.set(f"go:{{{key}}}", 1)
        assert [each.value for each in await asyncio.gather(*calls_left)] == [key.encode()] * 3
        await client.aclose()

    register(cluster, SLOW)
    run(use())


def test_a_client_waits_for_a_cached_command_as_long_as_it_may_take(cluster, library):
    def late(x):
        time.sleep(0.6)
        return x

    async def use():
        patient, client = await opened(library, cluster), await opened(library, cluster, socket_timeout=0.2)
        registered = redgrease.command(on=patient, ttl=60, replace=True)(late)
        await done(registered.stats())
        gears = redgrease.engine.gears_of(client)
        kind = caching.AsyncCachedCommand if library in COROUTINES.values() else caching.CachedCommand
        assert (await done(kind(gears, "late", late, registered.settings)("x"))).value == "x"
        with pytest.raises(TimeoutError):
            await done(gears.trigger("late", "y"))
        await done(registered.unregister())
        await close(patient)
        await close(client)

    run(use())


def test_a_wrong_password_is_said(cluster, library):
    async def use():
        for server in cluster.servers:
            call(server, "ACL", "SETUSER", "ann", "on", ">old", "~*", "&*", "+@all")
        client = await opened(library, cluster, username="ann", password="old")
        gears = redgrease.engine.gears_of(client)
        for server in cluster.servers:
            call(server, "ACL", "SETUSER", "ann", "resetpass", ">new")
            call(server, "CLIENT", "KILL", "USER", "ann")
        for act in calls(gears, cluster).values():
            with pytest.raises(ConnectionError, match=r"invalid username-password|WRONGPASS"):
                await done(act())
        for server in cluster.servers:
            call(server, "ACL", "SETUSER", "ann", ">old")
        for act in calls(gears, cluster).values():
            await done(act())
        await close(client)
        for server in cluster.servers:
            call(server, "ACL", "DELUSER", "ann")

    run(use())


@pytest.mark.parametrize("options", [{"decode_responses": True}, {"protocol": 3}], ids=str)
def test_replies_are_decoded_by_this_package(cluster, library, options):
    value = {"bytes": b"\xff", "text": "\u00e9", 1: ["x", None]}

    async def use():
        client = await opened(library, cluster, **options)
        for direct in (False, True):
            command = redgrease.command(on=client, ttl=60, direct=direct, replace=True, trigger="give")(lambda x: value)
            for _ in range(2):
                assert (await done(command("x"))).value == value
            assert await done(command.get("x")) == caching.Got(value, "hit")
            assert await done(command.invalidate("x")) is True
        await done(command.unregister())
        await close(client)

    run(use())
