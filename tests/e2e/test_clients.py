"""Gear functions through clients of all kinds: of redis-py and valkey-py, with coroutines, of clusters."""

from __future__ import annotations

import asyncio
import contextlib
import select
import shutil
import ssl
import subprocess
import threading
import time

import pytest
import redgrease
import redgrease.asyncio
import redis
import redis.asyncio
from redgrease.data import ExecID, PySessionInfo, PyStats
from redgrease.exceptions import DuplicateTriggerError, ScriptError
from redgrease.exchange import name_for_pool
from redis.exceptions import ResponseError

from .database import text
from .servers import free_port
from .waiting import wait_until

valkey = pytest.importorskip("valkey")
valkey_asyncio = pytest.importorskip("valkey.asyncio")

# -- clients of a server

OPTIONS = {
    "plain": {},
    "decoded": {"decode_responses": True},
    "resp3": {"protocol": 3},
    "resp3-decoded": {"protocol": 3, "decode_responses": True},
    "single": {"single_connection_client": True},
    "limited": {"socket_timeout": 20, "health_check_interval": 1},
}
LIBRARIES = {"redgrease": redgrease.Redis, "redis": redis.Redis, "valkey": valkey.Valkey}
ASYNC_LIBRARIES = {
    "redgrease": redgrease.asyncio.Redis,
    "redis": redis.asyncio.Redis,
    "valkey": valkey_asyncio.Valkey,
}


def state(client):
    """What a client is made of, as far as others could see a change."""
    pool = client.connection_pool
    callbacks = getattr(client, "response_callbacks", {})
    return dict(callbacks), dict(pool.connection_kwargs), type(pool), set(vars(client)) - {"_gears"}


def uses(client):
    """Run, register, trigger, wait and fail through a client that is not this package's."""
    before = state(client)
    client.set("k", b"\xff\0" if not client.connection_pool.connection_kwargs.get("decode_responses") else "v")
    gears = redgrease.engine.gears_of(client)
    values = redgrease.KeysReader("k").values().map(lambda value: (value, 1.5, None))
    [found] = values.run(on=client).records
    assert found[1:] == (1.5, None)
    assert gears.pyexecute("GB().count().run()") == b"1"

    @redgrease.command(on=client, replace=True)
    def double(number):
        return int(number) * 2

    assert double(21) == 42
    with pytest.raises(DuplicateTriggerError):
        redgrease.command("double", on=client)(len)
    with pytest.raises(ScriptError, match="subcommand not found") as caught:
        gears.trigger("no_such_command")
    execution = redgrease.KeysReader().run().on(client, unblocking=True)
    assert isinstance(execution.value, ExecID)
    assert len(gears.getresultsblocking(execution).records) == 1
    assert gears.getexecution(execution)
    assert gears.dropexecution(execution)
    [registration] = gears.dumpregistrations(trigger="double")
    assert gears.config.get("MaxExecutions") == {"MaxExecutions": 1000}
    assert gears.config.set(MaxExecutions=1000) is True
    with pytest.raises(KeyError):
        gears.config.get_single("Nothing")
    assert isinstance(gears.pystats(), PyStats)
    assert isinstance(gears.pydumpsessions()[0], PySessionInfo)
    assert gears.unregister(registration)
    assert state(client) == before
    return caught.value


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
def test_functions_run_through_any_client_which_is_not_changed(db, library, options):
    client = library(host="127.0.0.1", port=db.server.port, **options)
    error = uses(client)
    assert isinstance(error, ResponseError)
    assert isinstance(error, valkey.exceptions.ResponseError) == isinstance(client, valkey.Valkey)
    client.close()


@pytest.mark.parametrize("pool", [redis.ConnectionPool, redis.BlockingConnectionPool, valkey.BlockingConnectionPool])
def test_functions_run_through_a_pool_and_give_its_connection_back(db, pool):
    library = valkey.Valkey if pool.__module__.startswith("valkey") else redis.Redis
    shared = pool(host="127.0.0.1", port=db.server.port, max_connections=1)
    client = library(connection_pool=shared)
    uses(client)
    uses(redgrease.RedisGears(connection_pool=shared) if library is redis.Redis else client)
    shared.disconnect()


@pytest.mark.parametrize("library", [redgrease.RedisGears, redis.Redis, valkey.Valkey])
def test_functions_run_through_a_unix_socket(fresh_server, tmp_path, library):
    db = fresh_server(conf={"unixsocket": tmp_path / "s"})
    client = library(unix_socket_path=str(tmp_path / "s"))
    uses(client)
    client.close()
    with redgrease.RedisGears.from_url(f"unix://{tmp_path / 's'}") as client:
        assert client.gears.pyexecute("GB().count().run()") == b"1"
    assert db.r.ping()


@pytest.fixture
def tls_files(tmp_path):
    """Files of a certificate for localhost that signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on PATH")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "s.key", "-out", "s.pem"]
    words = ["req", "-x509", *key, "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", *words], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    return tmp_path / "s.pem", tmp_path / "s.key"


@pytest.mark.parametrize("library", [redgrease.RedisGears, redis.Redis, valkey.Valkey])
def test_functions_run_over_tls(fresh_server, tls_files, library):
    certificate, key = tls_files
    port = free_port()
    conf = {"tls-port": port, "tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": certificate}
    try:
        fresh_server(conf={**conf, "tls-auth-clients": "no"})
    except Exception as reason:
        pytest.skip(f"this server cannot do TLS: {reason}")
    client = library(host="localhost", port=port, ssl=True, ssl_ca_certs=str(certificate))
    uses(client)
    client.close()
    context = ssl.create_default_context(cafile=str(certificate))
    assert context.verify_mode == ssl.CERT_REQUIRED

    async def with_coroutines():
        async with redgrease.asyncio.RedisGears("localhost", port, ssl=True, ssl_ca_certs=str(certificate)) as r:
            return await redgrease.KeysReader().count().run(on=r)

    assert asyncio.run(with_coroutines()).errors == []


def test_a_command_that_takes_longer_than_the_limit_of_its_client_is_not_sent_again(db):
    db.ok(
        "import time\ndef f(_):\n    execute('incr', 'begun')\n    time.sleep(1)\n    return 'late'\n"
        "GB('CommandReader').map(f).register(trigger='slow')"
    )
    for library in (redis.Redis, valkey.Valkey):
        for single in (False, True):
            db.r.mset({"begun": 0, "mark": "of a reply"})
            client = library(port=db.server.port, socket_timeout=0.3, single_connection_client=single)
            with pytest.raises(redis.exceptions.TimeoutError):
                redgrease.Gears(client).trigger("slow")
            assert client.get("mark") == b"of a reply"
            db.wait_value("begun", 1)
            db.wait_quiet()
            assert (db.r.get("begun"), client.get("mark")) == (b"1", b"of a reply")
            client.close()


# -- options of the session, and further commands


@pytest.fixture
def r(db):
    """The package's own client."""
    client = redgrease.RedisGears(host="127.0.0.1", port=db.server.port)
    yield client
    client.close()


def test_sessions_are_named_and_upgraded(r):
    reader = redgrease.CommandReader()
    reader.map(lambda _: 1).register(trigger="a", on=r, id="lib", description="first")
    [session] = r.gears.pydumpsessions()
    assert (session.ID, session.sessionDescription, session.refCount, session.dead) == ("lib", "first", 1, False)
    with pytest.raises(ResponseError, match="Session lib already exists"):
        reader.map(lambda _: 2).register(trigger="b", on=r, id="lib")
    reader.map(lambda _: 2).register(trigger="b", on=r, id="lib", upgrade=True)
    assert [found.RegistrationData.args["trigger"] for found in r.gears.dumpregistrations()] == [b"b"]
    reader.map(lambda _: 3).register(trigger="c", on=r, id="new", replace_with=session)
    [session] = r.gears.pydumpsessions(verbose=True)
    [registration] = session.registrations
    assert (session.ID, registration.RegistrationData.args["trigger"]) == ("new", b"c")
    assert r.gears.pydumpsessions(["none", "new"])[0].ID == "new"
    assert r.gears.pydumpsessions(dead=True) == []


def test_further_commands(r, db):
    @redgrease.command(on=r, id="profiled")
    def costly(*args):
        return len(args)

    assert r.gears.triggeronkey("costly", "key", "a", "b") == 3
    with pytest.raises(ResponseError, match="nothing was profiled"):
        r.gears.pyprofile_stats("profiled")
    r.gears.config.ProfileExecutions = True
    try:
        costly(1)
        assert "costly" in r.gears.pyprofile_stats("profiled", order="cumulative")
        assert r.gears.pyprofile_reset(r.gears.pydumpsessions()[0]) is True
    finally:
        r.gears.config.ProfileExecutions = False
    assert [plugin.name for plugin in r.gears.dumpplugins()] == ["GearsPythonPlugin"]
    assert r.gears.networktest() is True
    assert r.gears.clearregistrationsstats() is True
    assert r.gears.dumpregistrations()[0].RegistrationData.numSuccess == 0
    redgrease.StreamReader().foreach(lambda _: redgrease.execute("incr", "seen")).register("s", on=r)
    [stream] = r.gears.dumpregistrations(reader="StreamReader")
    assert r.gears.pauseregistrations(stream) is True
    r.xadd("s", {"a": 1})
    [stream] = r.gears.dumpregistrations(reader="StreamReader")
    assert stream.RegistrationData.status == "PAUSED"
    assert r.gears.unpauseregistrations(stream.id) is True
    db.wait_value("seen", "1")
    assert r.gears.unregister(stream, abort_pending=True) is True
    with pytest.raises(ResponseError, match="requirement does not exists"):
        r.gears.pyexportreq("no-such-package")


# -- replacing a command


class Callers:
    """Threads that trigger a command all the time, and record results and errors."""

    def __init__(self, db, name, threads=3):
        self.results, self.errors, self.stop = [], [], threading.Event()
        self.threads = [threading.Thread(target=self.call, args=(db, name)) for _ in range(threads)]

    def call(self, db, name):
        with redgrease.RedisGears(host="127.0.0.1", port=db.server.port) as client:
            while not self.stop.is_set():
                try:
                    self.results.append(client.gears.trigger(name).value)
                except Exception as error:
                    self.errors.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.stop.set()
        for thread in self.threads:
            thread.join(30)

    def wait_for(self, value):
        """Wait until calls return a value, and no longer another one."""
        seen = len(self.results)
        wait_until(lambda: self.results[seen:], f"calls return {value}", until=lambda found: value in found)


@pytest.mark.parametrize("mode", ["async", "async_local", "sync"])
def test_a_command_is_replaced_while_it_is_called_and_no_call_fails(r, db, mode):
    def version(number):
        redgrease.command("version", on=r, replace=True, mode=mode)(lambda: number)

    version(0)
    with Callers(db, "version") as callers:
        callers.wait_for(0)
        for number in range(1, 15):
            version(number)
            callers.wait_for(number)
    assert callers.errors == []
    assert set(callers.results) == set(range(15))
    assert len(r.gears.pydumpsessions()) == len(r.gears.dumpregistrations()) == 1


def test_clients_that_replace_a_command_at_the_same_time_all_succeed(r, db):
    redgrease.command("version", on=r)(lambda: -1)
    failures = []

    def replace(number):
        with redgrease.RedisGears(host="127.0.0.1", port=db.server.port) as client:
            try:
                for _ in range(5):
                    redgrease.command("version", on=client, replace=True)(lambda: number)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=replace, args=(number,)) for number in range(3)]
    with Callers(db, "version", threads=1) as callers:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert (failures, callers.errors) == ([], [])
    assert r.gears.trigger("version").value in range(3)


def test_a_command_stays_if_its_replacement_cannot_be_registered(r, db):
    redgrease.command("stays", on=r)(lambda: "old")
    before = r.gears.dumpregistrations()[0].id
    with Callers(db, "stays", threads=1) as callers, pytest.raises(ResponseError):
        callers.wait_for("old")
        redgrease.command("stays", on=r, replace=True, requirements=["no-such-package-of-anybody==1"])(lambda: "new")
    assert (callers.errors, set(callers.results)) == ([], {"old"})
    assert r.gears.dumpregistrations()[0].id == before


def test_a_command_is_replaced_alone_and_the_rest_of_its_session_stays(r, db):
    db.ok(
        "for name in ('one', 'two'):\n    GB('CommandReader').map(lambda _: 'old').register(trigger=name)\n"
        "GB().foreach(lambda _: execute('incr', 'events')).register('watched', eventTypes=['set'])",
        "ID",
        "lib",
    )
    with Callers(db, "one", threads=1) as callers:
        redgrease.command("one", on=r, replace=True, id="mine")(lambda: "new")
        callers.wait_for("new")
    assert callers.errors == []
    assert r.gears.trigger("two") == b"old"
    r.set("watched", 1)
    db.wait_value("events", "1")
    sessions = {session.ID: len(session.registrations) for session in r.gears.pydumpsessions()}
    assert sessions == {"lib": 2, "mine": 1}
    with pytest.raises(ResponseError, match="does not exists"):
        redgrease.CommandReader().register(trigger="x", on=r, replace_with="0" * 40 + "-99999")


def test_calls_that_wait_are_answered_by_the_command_they_called(r, db):
    gate = "import asyncio\nasync def f(_):\n    execute('incr', 'begun')\n    while not execute('exists', 'gate'):\n"
    gate += "        await asyncio.sleep(0.01)\n    return 'old'\n"
    db.ok(gate + "GB('CommandReader').map(f).register(trigger='slow', mode='async_local')")
    waiting = [db.wire() for _ in range(20)]
    for wire in waiting:
        wire.send("RG.TRIGGER", "slow")
    db.wait_key("begun")
    redgrease.command("slow", on=r, replace=True)(lambda: "new")
    assert r.gears.trigger("slow") == "new"
    db.r.set("gate", 1)
    assert [wire.read() for wire in waiting] == [[b"old"]] * 20


def test_another_user_s_command_is_not_replaced(r, db):
    redgrease.command("mine", on=r)(lambda: "mine")
    db.r.execute_command("ACL", "SETUSER", "ann", "on", ">pw", "~*", "+@all", "-rg.administer")
    other = redgrease.RedisGears(host="127.0.0.1", port=db.server.port, username="ann", password="pw")
    with pytest.raises(ResponseError, match="may not replace the session"):
        redgrease.command("mine", on=other, replace=True)(lambda: "hers")
    assert r.gears.trigger("mine") == "mine"
    other.close()


# -- coroutines


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def uses_with_coroutines(client):
    before = state(client)
    await client.set("k", "v")
    gears = redgrease.engine.gears_of(client)
    assert await redgrease.KeysReader("k").values().map(lambda value: (value, 1.5)).run(on=client) == ("v", 1.5)
    assert await gears.pyexecute("GB().count().run()") == b"1"

    @redgrease.command(on=client, replace=True)
    def double(number):
        return int(number) * 2

    assert await double(21) == 42
    assert await asyncio.gather(*(double(number) for number in range(20))) == [2 * number for number in range(20)]
    with pytest.raises(DuplicateTriggerError):
        await redgrease.command("double", on=client)(len)
    with pytest.raises(ScriptError) as caught:
        await gears.trigger("no_such_command")
    execution = await redgrease.KeysReader().run().on(client, unblocking=True)
    assert len((await gears.getresultsblocking(execution)).records) == 1
    assert await gears.dropexecution(execution)
    [registration] = await gears.dumpregistrations(trigger="double")
    assert await gears.config.get_single("MaxExecutions") == 1000
    assert (await gears.pydumpsessions(verbose=True))[0].registrations[0].id == registration.id
    assert (await gears.gears_version()) and (await gears.python_version())[0] == 3
    assert await gears.unregister(registration)
    after = state(client)
    assert after[:3] == before[:3]
    return caught.value


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("library", ASYNC_LIBRARIES.values(), ids=ASYNC_LIBRARIES)
def test_functions_run_through_any_client_with_coroutines(db, library, options):
    async def use():
        client = library(host="127.0.0.1", port=db.server.port, **options)
        error = await uses_with_coroutines(client)
        assert isinstance(error, valkey.exceptions.ResponseError) == isinstance(client, valkey_asyncio.Valkey)
        await client.aclose()

    run(use())


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("library", ASYNC_LIBRARIES.values(), ids=ASYNC_LIBRARIES)
def test_a_cancelled_call_leaves_no_reply_to_others(db, library, single):
    db.ok(
        "import time\ndef f(x):\n    execute('incr', 'begun')\n    time.sleep(0.3)\n    return 'late'\n"
        "GB('CommandReader').map(f).register(trigger='slow')\n"
        "GB('CommandReader').map(lambda x: x[1]).register(trigger='echo')"
    )

    async def use():
        one = {"single_connection_client": True} if single else {"max_connections": 1}
        client = library(host="127.0.0.1", port=db.server.port, socket_timeout=30, **one)
        gears = redgrease.asyncio.Gears(client)
        for number in range(5):
            db.r.delete("begun")
            call = asyncio.ensure_future(gears.trigger("slow"))
            await asyncio.get_running_loop().run_in_executor(None, db.wait_key, "begun")
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await gears.trigger("echo", number) == str(number).encode()
            assert await client.get("begun") == b"1"
        await client.aclose()

    run(use())


def close_others(db):
    """Close the connections of all other clients, as a server does at its restart, or at its option `timeout`."""
    me = db.r.client_id()
    for client in db.r.client_list():
        if int(client["id"]) != me:
            db.r.client_kill_filter(_id=client["id"])


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
def test_a_connection_that_was_closed_meanwhile_is_opened_again(db, library, single):
    client = library(host="127.0.0.1", port=db.server.port, single_connection_client=single)
    connection = client.connection or client.connection_pool.get_connection(
        *name_for_pool(client.connection_pool, "PING")
    )
    if not single:
        client.connection_pool.release(connection)
    client.ping()
    close_others(db)
    readable, _, _ = select.select([connection._sock], [], [], 10)
    assert readable, "the connection is closed"
    assert redgrease.KeysReader().count().run(on=client) == 0
    close_others(db)
    assert redgrease.engine.gears_of(client).dumpregistrations() == []
    client.close()


@pytest.mark.parametrize("knows_it", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("library", ASYNC_LIBRARIES.values(), ids=ASYNC_LIBRARIES)
def test_a_connection_with_coroutines_that_was_closed_meanwhile_is_opened_again(db, library, single, knows_it):
    """Also if the event loop had no time to see it."""

    async def use():
        client = library(host="127.0.0.1", port=db.server.port, single_connection_client=single)
        await client.ping()
        pool = client.connection_pool
        connection = client.connection if single else await pool.get_connection(*name_for_pool(pool, "PING"))
        if not single:
            await client.connection_pool.release(connection)
        close_others(db)
        end = time.monotonic() + 10
        while knows_it and not connection._reader.at_eof():
            assert time.monotonic() < end, "the connection is closed"
            await asyncio.sleep(0.001)
        assert await redgrease.KeysReader().count().run(on=client) == 0
        close_others(db)
        assert await redgrease.engine.gears_of(client).dumpregistrations() == []
        await client.aclose()

    run(use())


def test_calls_wait_at_the_same_time(db):
    db.ok(
        "import time\nGB('CommandReader').map(lambda _: time.sleep(0.3)).register(trigger='slow', mode='async_local')"
    )

    async def use():
        ticks = 0
        async with redgrease.asyncio.RedisGears("127.0.0.1", db.server.port) as r:
            calls = asyncio.gather(*(r.gears.trigger("slow") for _ in range(3)))
            while not calls.done():
                await asyncio.sleep(0.01)
                ticks += 1
            await calls
        assert ticks > 5

    run(use())


def test_a_client_with_coroutines_replaces_a_command_while_it_is_called(db):
    async def use():
        async with redgrease.asyncio.RedisGears("127.0.0.1", db.server.port) as r:
            for number in range(10):
                await redgrease.command("version", on=r, replace=True)(lambda number=number: number)
                callers.wait_for(number) if number else None

    with contextlib.ExitStack() as stack:
        with redgrease.RedisGears(host="127.0.0.1", port=db.server.port) as r:
            redgrease.command("version", on=r)(lambda: 0)
        callers = stack.enter_context(Callers(db, "version", threads=1))
        run(use())
    assert callers.errors == []


# -- clusters


@pytest.fixture
def nodes(fresh_server):
    """The nodes of a cluster."""
    buses = [free_port() for _ in range(3)]
    servers = [fresh_server(conf={"cluster-enabled": "yes", "cluster-port": bus}) for bus in buses]
    for number, db in enumerate(servers):
        first, last = number * 5461, 16383 if number == 2 else number * 5461 + 5460
        db.r.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        db.r.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for db, bus in zip(servers[1:], buses[1:]):
        servers[0].r.execute_command("CLUSTER", "MEET", "127.0.0.1", db.server.port, bus)

    def states():
        found = [db.r.execute_command("CLUSTER INFO") for db in servers]
        return [(one["cluster_state"], one["cluster_known_nodes"]) for one in found]

    wait_until(states, "all nodes are in the cluster", until=lambda seen: seen == [("ok", "3")] * 3, deadline=30)
    return servers


def key_of(nodes, node):
    """A key that a node holds."""
    for number in range(10_000):
        slot = nodes[0].r.execute_command("CLUSTER", "KEYSLOT", f"key:{number}")
        if min(slot // 5461, 2) == nodes.index(node):
            return f"key:{number}"
    raise AssertionError("no key")


@pytest.mark.parametrize("library", ["redgrease", "redis", "valkey"])
def test_on_a_cluster_commands_go_where_they_mean_something(nodes, library):
    port = nodes[1].server.port
    if library == "redgrease":
        client = redgrease.RedisGears(port=port)
        assert type(client) is redgrease.RedisCluster and isinstance(client, redgrease.RedisGears)
    elif library == "redis":
        client = redis.RedisCluster(host="localhost", port=port)
    else:
        client = valkey.ValkeyCluster(host="localhost", port=port)
    gears = redgrease.engine.gears_of(client)
    assert gears.config.set(MaxExecutions=77) is True
    assert [node.r.execute_command("RG.CONFIGGET", "MaxExecutions") for node in nodes] == [[77]] * 3
    assert len(gears.pystats()) == 3
    where = "GB('CommandReader').map(lambda x: execute('CONFIG', 'GET', 'port')[1])"
    nodes[0].ok(f"{where}.register(trigger='where', mode='async_local')", "ID", "where")
    for node in nodes:
        for _ in range(3):
            assert text(gears.triggeronkey("where", key_of(nodes, node)).records) == [str(node.server.port)]
    [session] = gears.pydumpsessions()
    assert gears.clearregistrationsstats() is True
    assert session.ID == "where"
    client.close()


def test_with_coroutines_commands_go_where_they_mean_something_on_a_cluster(nodes):
    async def use():
        async with redgrease.asyncio.RedisGears(port=nodes[2].server.port) as r:
            assert type(r) is redgrease.asyncio.RedisCluster
            assert await r.gears.config.set(MaxExecutions=78) is True
            for node in nodes:
                assert node.r.execute_command("RG.CONFIGGET", "MaxExecutions") == [78]
            assert len(await r.gears.pystats()) == 3
            run_here = redgrease.ShardsIDReader().count().run(mode="async_local")
            assert await r.gears.pyexecute(run_here) == 1
        async with redgrease.asyncio.RedisGears.from_url(f"redis://localhost:{nodes[0].server.port}") as r:
            assert type(r) is redgrease.asyncio.RedisCluster
            assert await r.gears.pydumpsessions() == []

    run(use())


def test_detection_asks_the_server_once(db, nodes):
    node = nodes[0].server.port
    for make in (
        lambda: redgrease.RedisGears(port=node),
        lambda: redgrease.RedisGears.from_url(f"redis://localhost:{node}/0"),
    ):
        with make() as client:
            assert type(client) is redgrease.RedisCluster
    before = db.r.info("stats")["total_connections_received"]
    started = time.monotonic()
    with redgrease.RedisGears(port=db.server.port) as client:
        assert type(client) is redgrease.Redis
        assert client.ping()
    assert db.r.info("stats")["total_connections_received"] - before == 2
    with redgrease.RedisGears(startup_nodes=[{"host": "localhost", "port": db.server.port}]) as client:
        assert type(client) is redgrease.Redis and client.ping()
    with redgrease.RedisGears.from_url("redis://localhost:1") as client, pytest.raises(redis.ConnectionError):
        assert type(client) is redgrease.Redis
        client.gears.trigger("x")
    assert time.monotonic() - started < 30
