"""The runtime functions: their behaviour inside the server, and their errors outside."""

from __future__ import annotations

import pickle

import pytest
import redgrease
import redis
from redgrease import runtime
from redgrease.runtime import OnlyInServerError
from redis.exceptions import NoScriptError, ResponseError

from .conftest import FakeGearsError

# -- outside


@pytest.mark.parametrize(
    "use",
    [
        lambda: runtime.execute("PING"),
        lambda: runtime.log("x"),
        lambda: runtime.hashtag(),
        lambda: runtime.hashtag3(),
        lambda: runtime.atomic(),
        lambda: runtime.gearsFuture(),
        lambda: runtime.configGet("x"),
        lambda: runtime.gearsConfigGet("x", 1),
        lambda: redgrease.cmd.get("x"),
    ],
)
def test_outside_everything_says_where_it_belongs(use):
    with pytest.raises(OnlyInServerError, match="works only inside the server"):
        use()


def test_placeholders_travel_by_name():
    for name in ("execute", "log", "atomic", "hashtag", "gearsFuture"):
        placeholder = getattr(runtime, name)
        assert pickle.loads(pickle.dumps(placeholder)) is placeholder


# -- inside


def test_inside_calls_go_to_the_server(server):
    server.replies["GET"] = "value"
    assert runtime.execute("GET", "k") == "value"
    assert runtime.hashtag3() == "{06S}"
    runtime.log({"a": 1}, level="warning")
    runtime.log(7)
    assert server.logged == [("warning", "{'a': 1}"), ("notice", "7")]
    assert runtime.configGet("MaxExecutions") == "1000"
    assert runtime.configGet("nope") is None
    assert runtime.gearsConfigGet("nope", 1337) == 1337
    assert runtime.gearsConfigGet("MaxExecutions", 1) == "1000"
    assert type(runtime.gearsFuture()) is server.gearsFutureCtx
    with runtime.atomic() as block:
        assert server.depth == 1
        assert isinstance(block, runtime.atomic)
    assert server.depth == 0


# -- cmd


def test_cmd_speaks_redis_py(server):
    cmd = redgrease.cmd
    server.replies.update(
        {
            "SET": "OK",
            "GET": "text",
            "INCRBY": 5,
            "HGETALL": ["a", "1", "b", "2"],
            "SMEMBERS": ["x"],
            "EXPIRE": 1,
            "XRANGE": [["1-0", ["f", "v"]]],
            "SCAN": ["0", ["k"]],
            "ZSCORE": "1.5",
            "ZRANGE": ["m", "1.5"],
        }
    )
    assert cmd.set("k", b"\xff\x00", ex=5) is True
    assert server.commands[-1] == ("SET", "k", b"\xff\x00", "EX", "5")
    assert cmd.get("k") == "text"
    assert cmd.incr("k") == 5
    assert cmd.hgetall("h") == {"a": "1", "b": "2"}
    assert cmd.smembers("s") == {"x"}
    assert cmd.expire("k", 5) is True
    assert cmd.xrange("s") == [("1-0", {"f": "v"})]
    assert list(cmd.scan_iter()) == ["k"]
    assert cmd.zscore("z", "m") == 1.5
    assert cmd.zrange("z", 0, -1, withscores=True) == [("m", 1.5)]
    assert redgrease.cmd is cmd
    assert isinstance(cmd, redgrease.Redis)


def test_a_reply_gives_its_bytes_whether_text_or_not(server):
    server.replies["GET"] = "h\u00e9"
    text = redgrease.cmd.get("k")
    assert isinstance(text, str)
    assert bytes(text) == b"h\xc3\xa9"
    assert type(pickle.loads(pickle.dumps(text))) is str
    server.replies["GET"] = b"\xff\x00"
    assert bytes(redgrease.cmd.get("k")) == b"\xff\x00"
    server.replies["GET"] = None
    assert redgrease.cmd.get("k") is None


def test_any_argument_is_sent_as_its_text(server):
    redgrease.cmd.xadd("s", {"key": "x", "value": {"a": 1}, "event": None})
    assert server.commands[-1] == ("XADD", "s", "*", "key", "x", "value", "{'a': 1}", "event", "None")
    redgrease.cmd.execute_command("SET", "k", 1.5)
    assert server.commands[-1] == ("SET", "k", "1.5")


def test_commands_of_two_words_are_split(server):
    server.replies["CONFIG"] = ["maxmemory", "0"]
    assert redgrease.cmd.config_get("maxmemory") == {"maxmemory": "0"}
    assert server.commands[-1] == ("CONFIG", "GET", "maxmemory")


def test_errors_are_redis_py_s_and_the_server_s(server):
    server.replies["GET"] = FakeGearsError("WRONGTYPE Operation against a key")
    with pytest.raises(ResponseError, match="WRONGTYPE") as caught:
        redgrease.cmd.get("k")
    assert isinstance(caught.value, FakeGearsError)
    server.replies["GET"] = FakeGearsError("NOSCRIPT No matching script")
    with pytest.raises(NoScriptError):
        redgrease.cmd.get("k")
    server.replies["GET"] = ValueError("not the server's")
    with pytest.raises(ValueError, match="not the server's"):
        redgrease.cmd.get("k")


def test_pipelines_are_atomic_blocks(server):
    server.replies["INCRBY"] = 1
    with redgrease.cmd.pipeline() as pipe:
        assert pipe.set("a", 1).incr("b") is pipe
        assert len(pipe) == 2
        assert server.commands == []
        assert pipe.execute() == [True, 1]
    assert [command[0] for command in server.commands] == ["(", "SET", "INCRBY", ")"]
    assert pipe.execute() == []

    server.commands.clear()
    server.replies["INCRBY"] = FakeGearsError("ERR not an integer")
    pipe = redgrease.cmd.pipeline(transaction=False).incr("b").set("a", 1)
    with pytest.raises(ResponseError, match="not an integer"):
        pipe.execute()
    assert [command[0] for command in server.commands] == ["INCRBY", "SET"]
    replies = redgrease.cmd.pipeline().incr("b").set("a", 1).execute(raise_on_error=False)
    assert isinstance(replies[0], ResponseError)
    assert replies[1] is True


def test_a_pipeline_is_like_cmd_itself(server):
    server.replies["INCRBY"] = 1
    _ = redgrease.cmd.gears
    pipe = redgrease.cmd.pipeline()
    with pytest.raises(NotImplementedError, match="no subscriptions"):
        pipe.pubsub()
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(pipe)
    other = pipe.pipeline().incr("a")
    assert (len(pipe), len(other)) == (0, 1)
    assert other.execute() == [1]
    del pipe, other
    assert redgrease.cmd.incr("a") == 1


def test_a_pipeline_needs_no_new_client(server, monkeypatch):
    _ = redgrease.cmd.gears
    monkeypatch.setattr(redis.Redis, "__init__", None)
    with redgrease.cmd.pipeline() as pipe:
        assert pipe.set("a", 1).execute() == [True]


def test_names_of_commands_may_be_bytes(server):
    assert redgrease.cmd.execute_command(b"SET", "a", b"1") is True
    assert server.commands == [("SET", "a", b"1")]


def test_transactions_hold_the_server(server):
    server.replies["GET"] = "1"
    server.replies["INCRBY"] = 2

    def move(pipe):
        assert server.depth == 1
        pipe.incr("a")
        return "moved"

    assert redgrease.cmd.transaction(move) == [2]
    assert redgrease.cmd.transaction(move, value_from_callable=True) == "moved"


def test_a_transaction_with_keys_reads_them_before_it_writes(server):
    server.replies["GET"] = "1"

    def add(pipe):
        value = pipe.get("a")
        pipe.multi()
        pipe.set("a", int(value) + 1)

    assert redgrease.cmd.transaction(add, "a") == [True]
    assert server.commands == [("(",), ("GET", "a"), ("SET", "a", "2"), (")",)]


def test_the_pipeline_of_cmd_has_no_commands_of_the_engine(server):
    with pytest.raises(TypeError, match="is a pipeline"):
        redgrease.cmd.pipeline().gears.dumpregistrations()


def test_scripts_work_and_subscriptions_are_refused(server):
    calls = []

    def evalsha(*args):
        calls.append(args)
        if len(calls) == 1:
            raise FakeGearsError("NOSCRIPT No matching script")
        return 7

    server.replies["EVALSHA"] = evalsha
    server.replies["SCRIPT"] = "0" * 40
    assert redgrease.cmd.register_script("return 7")() == 7
    assert ("SCRIPT", "LOAD", "return 7") in server.commands
    with pytest.raises(NotImplementedError, match="no subscriptions"):
        redgrease.cmd.pubsub()


def test_cmd_has_the_engine_s_commands(server):
    server.replies["RG.INFOCLUSTER"] = "no cluster mode"
    server.replies["RG.PYSTATS"] = ["TotalAllocated", 1, "PeakAllocated", 2, "CurrAllocated", 3]
    assert redgrease.cmd.gears.infocluster() is None
    assert redgrease.cmd.gears.pystats().CurrAllocated == 3
    assert pickle.loads(pickle.dumps(redgrease.cmd)) is redgrease.cmd
