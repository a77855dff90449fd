"""The client with coroutines, without a server: the same requests and results as of the other one."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import pickle
from types import SimpleNamespace

import pytest
import redgrease
import redgrease.asyncio
import redis.asyncio
from redgrease import calls, engine
from redgrease.asyncio import Gears, Redis, RedisCluster, RedisGears
from redgrease.data import ExecID, ExecutionResult
from redgrease.exceptions import DuplicateTriggerError, ScriptError
from redis.exceptions import MovedError, ResponseError

from .test_client import DUPLICATE, PREFIX, Z, command_entry, extension, replaced, tagged

__all__ = ["extension"]  # the fixture that stands for the compiled extension


class Server:
    """Answers commands with the given replies, and records them."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.sent = []

    async def execute_command(self, *args, **options):
        assert options == {"NEVER_DECODE": True}
        await asyncio.sleep(0)
        self.sent.append(args)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def run(coroutine):
    async def limited():
        return await asyncio.wait_for(coroutine, 20)

    return asyncio.run(limited())


def test_every_method_of_the_other_client_is_a_coroutine_with_the_same_arguments():
    def methods(owner):
        return {name: method for name, method in vars(owner).items() if callable(method) and name[:1] != "_"}

    ours, theirs = methods(engine.Gears), methods(Gears)
    assert list(ours) == list(theirs)
    for name, method in theirs.items():
        assert inspect.iscoroutinefunction(method), name
        assert inspect.signature(method).parameters == inspect.signature(ours[name]).parameters, name


def test_requests_and_results_are_the_same():
    server = Server(f"{Z}-3".encode(), [[tagged(3)], []], [tagged(1)], ResponseError("['Traceback', 'ValueError: no']"))

    async def use():
        gears = Gears(server)
        execution = await gears.pyexecute(redgrease.KeysReader().run(), unblocking=True, id="lib")
        assert execution.value == ExecID(sequence=3)
        assert await gears.getresultsblocking(execution) == 3
        assert await gears.triggeronkey("t", "key", 5) == 1
        with pytest.raises(ScriptError, match="ValueError: no"):
            await gears.trigger("x")

    run(use())
    assert [command[2] for command in server.sent] == [
        "RG.PYEXECUTE", "RG.GETRESULTSBLOCKING", "RG.TRIGGERONKEY", "RG.TRIGGER",
    ]  # fmt: skip
    assert server.sent[0][4:8] == ("UNBLOCKING", "ID", "lib", "RUN")


def test_functions_run_on_a_client_with_coroutines_are_awaited():
    async def use():
        server = Server([[tagged(5)], []], b"OK", [[tagged(6)], []])
        count = redgrease.KeysReader().count()
        assert await count.run(on=server) == 5
        assert (await redgrease.KeysReader().register("a*", on=server)).value is True
        assert await count.run().on(Gears(server)) == 6

    run(use())


def test_a_command_is_registered_by_its_first_call():
    async def use():
        server = Server(b"OK", [tagged(7)], [tagged(8)])

        @redgrease.command(on=server)
        def add(a, b=2):
            """Add."""

        assert server.sent == []
        assert await add(5) == 7
        assert await add(a=6, b=2) == 8
        assert [command[2] for command in server.sent] == ["RG.PYEXECUTE", "RG.TRIGGER", "RG.TRIGGER"]
        assert server.sent[2] == (*PREFIX, "RG.TRIGGER", "add", 6, 2)
        assert (add.__name__, add.__doc__) == ("add", "Add.")
        with pytest.raises(TypeError, match="missing a required argument"):
            add()
        again = pickle.loads(pickle.dumps(add))
        assert (again.trigger, again._gears) == ("add", None)

    run(use())


def test_calls_at_the_same_time_register_a_command_once():
    async def use():
        server = Server(b"OK", *[[tagged(1)]] * 5)
        command = redgrease.command("t", on=server)(len)
        assert await asyncio.gather(*(command("x") for _ in range(5))) == [1] * 5
        assert [command[2] for command in server.sent].count("RG.PYEXECUTE") == 1

    run(use())


def test_a_command_that_could_not_be_registered_is_registered_by_the_next_call():
    async def use():
        server = Server(DUPLICATE, b"OK", [tagged(1)])
        command = redgrease.command("t", on=server)(len)
        with pytest.raises(DuplicateTriggerError) as caught:
            await command("x")
        assert caught.value.trigger == "t"
        assert await command("x") == 1

    run(use())


def test_a_command_can_be_registered_without_a_call():
    async def use():
        server = Server(b"OK", [tagged(1)])
        command = redgrease.CommandReader().apply(len).register(trigger="t").on(server)
        registered = await command
        assert isinstance(registered, ExecutionResult) and len(server.sent) == 1
        assert await command is registered
        assert await registered("x") == 1

    run(use())


def test_a_command_is_replaced():
    async def use():
        server = Server(DUPLICATE, [command_entry(2, b"t")], b"OK")
        await redgrease.command("t", on=server, replace=True)(len)
        assert replaced(server.sent[2]) == f"{Z}-2"

    run(use())


@pytest.mark.parametrize("options", [{}, {"ttl": 5}], ids=str)
def test_a_cancelled_call_does_not_cancel_the_registration_for_others(options):
    async def use():
        began, go = asyncio.Event(), asyncio.Event()

        class Slow(Server):
            async def execute_command(self, *args, **options):
                if not self.sent:
                    began.set()
                    await go.wait()
                return await super().execute_command(*args, **options)

        server = Slow(b"OK", [tagged(1)])
        command = redgrease.command("t", on=server, **options)(len)
        first = asyncio.ensure_future(command("x"))
        await began.wait()
        second = asyncio.ensure_future(command("x"))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go.set()
        assert await second == 1
        assert [command[2] for command in server.sent] == ["RG.PYEXECUTE", "RG.TRIGGER"]

    run(use())


def test_a_command_is_registered_on_the_loop_of_its_caller():
    server = Server(b"OK", [tagged(1)])
    began = []

    class Never(Server):
        async def execute_command(self, *args, **options):
            if began:
                return await server.execute_command(*args, **options)
            began.append(args)
            await asyncio.Event().wait()

    command = redgrease.command("t", on=Never())(len)
    first = asyncio.new_event_loop()
    waiting = first.create_task(command("x"))
    while not began:
        first.run_until_complete(asyncio.sleep(0))
    assert run(command("x")) == 1
    left = asyncio.all_tasks(first)
    assert waiting in left
    for task in left:
        task.cancel()
    first.run_until_complete(asyncio.wait(left))
    first.close()


# -- commands whose results are kept


def test_a_cached_command_registers_itself():
    async def use():
        server = Server(b"OK", [tagged(7)], [tagged([b"hit", 8])], [tagged(1)])

        @redgrease.command(on=server, ttl=5)
        def area(width, height=1):
            """An area."""

        assert type(area) is redgrease.caching.AsyncCachedCommand
        assert (area.__name__, area.__doc__) == ("area", "An area.")
        assert area.key_of(2) == "cached:{area('2', 1)}"
        with pytest.raises(TypeError, match="missing a required argument"):
            area()
        assert server.sent == []
        assert await area(2) == 7
        assert await area.get(2) == (8, "hit")
        assert await area.invalidate_key("cached:{area('2', 1)}") is True
        assert [command[2:5] for command in server.sent[1:]] == [
            ("RG.TRIGGER", "area", "2"),
            ("RG.TRIGGER", "area", "redgrease:cache"),
            ("RG.TRIGGER", "area", "redgrease:cache"),
        ]
        assert server.sent[3][5:] == ("invalidate-key", "area('2', 1)")
        there = pickle.loads(pickle.dumps(area))
        assert type(there) is redgrease.caching.CachedCommand
        assert (there.trigger, there.settings) == ("area", area.settings)

    run(use())


def test_a_cached_command_can_be_registered_without_a_call():
    async def use():
        server = Server(b"OK", [tagged(1)])
        area = redgrease.command("area", on=server, ttl=5)(len)
        registered = await area
        assert isinstance(registered, ExecutionResult) and len(server.sent) == 1
        assert (await area).value is registered.value is area
        assert await registered("x") == 1
        assert len(server.sent) == 2

    run(use())


def test_a_cached_command_that_exists_is_refused_kept_or_replaced():
    kept = redgrease.caching.settings.CacheSettings(ttl=7, namespace="old", typed=True)
    there = [*command_entry(2, b"t"), b"desc", f"redgrease cached command {kept.dumps()}".encode()]

    async def use():
        server = Server(DUPLICATE, DUPLICATE, [there], [tagged(1)], DUPLICATE, [there], b"OK")
        with pytest.raises(DuplicateTriggerError):
            await redgrease.command("t", on=server, ttl=5)(len)
        old = redgrease.command("t", on=server, ttl=5, replace=False)(len)
        assert old.settings.ttl == 5
        assert await old(7) == 1
        assert server.sent[-1][4:] == (calls.pack([7], {}),)
        assert old.settings == kept
        new = await redgrease.command("t", on=server, ttl=5, replace=True)(len)
        assert replaced(server.sent[-1]) == f"{Z}-2"
        assert new.settings.ttl == 5

    run(use())


def test_options_of_the_engine():
    async def use():
        server = Server([b"500"], [b"OK"], [ResponseError("Unsupported")])
        config = Gears(server).config
        assert await config.get("MaxExecutions") == {"MaxExecutions": 500}
        assert await config.set(MaxExecutions=5) is True
        with pytest.raises(KeyError):
            await config.get_single("Nope")

    run(use())


def test_each_client_has_its_commands():
    with pytest.raises(TypeError, match=r"use redgrease\.asyncio\.Gears"):
        engine.Gears(Server())
    with pytest.raises(TypeError, match=r"use redgrease\.Gears"):
        Gears(redis.Redis())

    async def use():
        client = Redis(port=1)
        assert type(client.gears) is Gears and client.gears is client.gears
        assert type(engine.gears_of(client)) is Gears
        assert type(engine.gears_of(redis.asyncio.Redis())) is Gears
        with pytest.raises(TypeError, match=r"redgrease\.cmd"):
            pickle.dumps(client)

    run(use())


# -- connections


class Connection:
    """A connection whose reply never arrives."""

    socket_timeout = None
    is_connected = False

    def __init__(self, error=None):
        self.sent, self.closed, self.error = [], False, error
        self.waits = asyncio.Event()

    async def connect(self):
        self.is_connected = True

    async def send_command(self, *args):
        self.sent.append(args)

    async def read_response(self, disable_decoding):
        assert disable_decoding
        self.waits.set()
        if self.error is not None:
            raise self.error
        await asyncio.Event().wait()

    async def disconnect(self, nowait):
        assert nowait
        self.closed = True


class Pool:
    def __init__(self, connection):
        self.connection, self.released = connection, []

    async def get_connection(self):
        return self.connection

    async def release(self, connection):
        self.released.append(connection)


def client_of(connection, single=False):
    pool = Pool(connection)

    async def nothing(*args, **options):
        pass

    client = SimpleNamespace(
        connection_pool=pool, single_connection_client=single, connection=connection, initialize=nothing,
        execute_command=nothing, _single_conn_lock=asyncio.Lock(),
    )  # fmt: skip
    return client, pool


@pytest.mark.parametrize("single", [False, True])
def test_a_cancelled_call_closes_its_connection(single):
    async def use():
        connection = Connection()
        client, pool = client_of(connection, single)
        call = asyncio.ensure_future(Gears(client).trigger("t"))
        await connection.waits.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert connection.closed and len(connection.sent) == 1
        assert pool.released == ([] if single else [connection])
        assert not client._single_conn_lock.locked()

    run(use())


def test_what_starts_something_is_sent_once_and_its_connection_closed():
    async def use():
        connection = Connection(redis.exceptions.TimeoutError("no answer"))
        client, _ = client_of(connection)
        with pytest.raises(redis.exceptions.TimeoutError):
            await Gears(client).pyexecute("x")
        assert connection.closed and len(connection.sent) == 1

    run(use())


@pytest.mark.parametrize("method", ["connect", "send_command", "read_response"])
def test_a_connection_that_another_task_closes_is_an_error_of_connections(method):
    class Closed(Connection):
        async def disconnect(self, nowait):
            await super().disconnect(nowait)
            self.is_connected = False

    async def use():
        async def close(*args, **options):
            connection.is_connected = False
            return connection._writer.nothing

        connection = Closed()
        connection._writer = None
        setattr(connection, method, close)
        client, _ = client_of(connection)
        with pytest.raises(redis.exceptions.ConnectionError, match="closed by another task"):
            await Gears(client).trigger("x")
        assert connection.closed

    run(use())


def test_an_error_reply_keeps_the_connection():
    async def use():
        connection = Connection(ResponseError("no"))
        client, pool = client_of(connection)
        with pytest.raises(ResponseError):
            await Gears(client).trigger("x")
        assert not connection.closed and pool.released == [connection]

    run(use())


def test_a_client_waits_for_a_command_as_long_as_it_may_take():
    class Slow(Connection):
        socket_timeout = 1

        async def read_response(self, disable_decoding):
            assert self.socket_timeout == 15
            raise redis.exceptions.TimeoutError("slow")

    async def use():
        connection = Slow()
        client, _ = client_of(connection)
        with pytest.raises(redis.exceptions.TimeoutError, match=r"no reply to RG\.WITHCODEC within 15 s: 10 s for"):
            gears = Gears(client)
            await gears._run(gears._commands.trigger("t", (), patience=10))
        assert connection.socket_timeout == 1

    run(use())


# -- cluster


class Node(Server):
    def __init__(self, number):
        super().__init__()
        self.name, self.id = f"127.0.0.1:3000{number}", f"node{number}"


class Cluster:
    """Stands for the cluster client of redis.asyncio."""

    def __init__(self):
        self.nodes = [Node(1), Node(2), Node(3)]
        self.nodes_manager = SimpleNamespace(initialize=self.refresh, startup_nodes={})
        self.holder, self.ready = self.nodes[0], False

    async def initialize(self):
        self.ready = True

    async def refresh(self):
        self.holder = self.nodes[1]

    def get_primaries(self):
        assert self.ready
        return self.nodes

    def get_node_from_key(self, key):
        assert self.ready and key == "user:1"
        return self.holder

    def get_node(self, host, port):
        return next((node for node in self.nodes if node.name == f"{host}:{port}"), None)

    async def execute_command(self, *args, **options):
        raise AssertionError("commands go to nodes")


def test_on_a_cluster_requests_go_where_they_mean_something():
    async def use():
        cluster = Cluster()
        gears = Gears(cluster)
        for node in cluster.nodes:
            node.replies = [node.id.encode(), [b"OK"]]
        owner = cluster.nodes[1]
        owner.replies.insert(1, [[b"1"], []])
        assert await gears.getresults(ExecID("node2", 5, is_plain=True)) == b"1"
        assert owner.sent[-1] == ("RG.GETRESULTS", b"node2-5")
        assert await gears.config.set(MaxExecutions=1) is True
        assert all(node.sent[-1] == ("RG.CONFIGSET", "MaxExecutions", 1) for node in cluster.nodes)
        cluster.nodes[0].replies = [MovedError("1 127.0.0.1:30002")]
        cluster.nodes[1].replies = [[tagged(1)]]
        assert await gears.triggeronkey("t", "user:1") == 1
        for node in cluster.nodes:
            node.replies = [[b"TotalAllocated", 1]]
        assert list(await gears.pystats()) == [node.name for node in cluster.nodes]

    run(use())


# -- clients


def test_the_factory_is_awaited(monkeypatch):
    asked = []

    async def asks(make, options):
        asked.append(make(options).connection_pool.connection_kwargs["port"])
        return False

    monkeypatch.setattr("redgrease.asyncio._asks_cluster", asks)

    async def use():
        client = await RedisGears(port=7000, password="p", init_slot_cache=True)
        assert type(client) is Redis and isinstance(client, RedisGears)
        options = client.connection_pool.connection_kwargs
        assert (options["host"], options["port"], options["socket_timeout"]) == ("localhost", 7000, None)
        async with RedisGears.from_url("redis://localhost:7001/0?socket_timeout=2") as client:
            assert client.connection_pool.connection_kwargs["socket_timeout"] == 2
        async with RedisGears(db=3) as client:
            assert repr(client) == "<Redis localhost:6379, db 3>"

    run(use())
    assert asked == [7000, 7001]
    assert issubclass(RedisCluster, RedisGears) and redgrease.asyncio.RedisMods is RedisGears


def test_the_factory_gives_a_client_of_a_cluster(monkeypatch):
    made = []

    async def asks(make, options):
        return True

    monkeypatch.setattr("redgrease.asyncio._asks_cluster", asks)
    monkeypatch.setattr(RedisCluster, "__init__", lambda self, **options: made.append(options))
    monkeypatch.setattr(RedisCluster, "__del__", lambda self: None, raising=False)

    async def use():
        assert type(await RedisGears(port=30001, db=0, password="p")) is RedisCluster
        assert type(await RedisGears.from_url("redis://localhost:30001", password="p")) is RedisCluster

    run(use())
    assert [(options["host"], options["port"], options["password"]) for options in made] == [
        ("localhost", 30001, "p")
    ] * 2


def test_the_factory_says_that_it_is_awaited():
    with pytest.raises(AttributeError, match=r"'set' belongs to the client.*only when awaited"):
        RedisGears().set("a", 1)


def test_a_server_that_is_not_there_gives_a_client_that_complains_late():
    async def use():
        async with RedisGears(host="127.0.0.1", port=1) as client:
            assert type(client) is Redis
            with contextlib.suppress(redis.exceptions.ConnectionError):
                await client.gears.trigger("x")
                raise AssertionError("there is no server")

    run(use())
