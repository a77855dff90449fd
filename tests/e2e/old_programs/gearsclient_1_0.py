"""Checks with the client gearsclient 1.0: ``python gearsclient_1_0.py PORT [CHECK...]``, as ``redgrease_0_3.py``."""

import json
import os
import sys
import time
import traceback

import gearsclient
import redis
from gearsclient import GearsRemoteBuilder

FACTOR = 3


def until(condition):
    end = time.monotonic() + 15
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.01)


def numbers(r):
    for name, value in (("x", 1), ("y", 1), ("z", 2), ("t", 2)):
        r.set(name, value)


def values(r):
    return GearsRemoteBuilder("KeysReader", r=r, requirements=[]).map(lambda record: int(record["value"]))


def check_run(r):
    numbers(r)
    results, errors = values(r).run()
    assert sorted(results) == [1, 1, 2, 2] and errors == []


def check_run_with_a_pattern(r):
    numbers(r)
    assert values(r).run("x")[0] == [1]


def check_without_the_client_s_requirement(r):
    numbers(r)
    builder = GearsRemoteBuilder("KeysReader", r=r, requirements=[], addClientToRequirements=False)
    assert builder.count().run() == ([4], [])


def check_closures_and_globals(r):
    numbers(r)
    offset = 10
    assert sorted(values(r).map(lambda x: x * FACTOR + offset).run()[0]) == [13, 13, 16, 16]


def check_operations(r):
    numbers(r)
    assert values(r).count().run()[0] == [4]
    assert values(r).avg().run()[0] == [1.5]
    assert sorted(values(r).distinct().run()[0]) == [1, 2]
    assert values(r).sort().run()[0] == [1, 1, 2, 2]
    assert values(r).sort(reverse=False).run()[0] == [2, 2, 1, 1]
    assert values(r).sort().limit(2).run()[0] == [1, 1]
    assert values(r).sort().limit(2, 1).run()[0] == [1, 2]
    assert values(r).filter(lambda x: x > 1).run()[0] == [2, 2]
    assert sorted(values(r).flatmap(lambda x: [x, -x]).run()[0]) == [-2, -2, -1, -1, 1, 1, 2, 2]
    assert values(r).aggregate(0, lambda a, x: a + x, lambda a, x: a + x).run()[0] == [6]
    assert values(r).accumulate(lambda a, x: (a or 0) + x).run()[0] == [6]
    assert sorted(values(r).repartition(lambda x: str(x)).run()[0]) == [1, 1, 2, 2]


def check_groups(r):
    numbers(r)

    def pairs(builder):
        results, errors = builder.run()
        assert errors == []
        return {each["key"]: each["value"] for each in results}

    assert pairs(values(r).countby()) == {1: 2, 2: 2} or pairs(values(r).countby()) == {"1": 2, "2": 2}
    assert pairs(values(r).aggregateby(lambda x: x, 0, lambda k, a, x: a + x, lambda k, a, x: a + x)) == {
        "1": 2,
        "2": 4,
    }
    assert pairs(values(r).localgroupby(lambda x: x, lambda k, a, x: (a or 0) + x)) == {"1": 2, "2": 4}


def check_foreach_and_runtime_functions(r):
    numbers(r)

    def move(record):
        with gearsclient.atomic():
            gearsclient.execute("INCRBY", "sum", record["value"])
        gearsclient.log("moved " + record["key"])

    assert len(GearsRemoteBuilder("KeysReader", r=r, requirements=[]).foreach(move).run("[xyzt]")[0]) == 4
    assert r.get("sum") == b"6"
    facts = GearsRemoteBuilder("ShardsIDReader", r=r, requirements=[]).map(
        lambda _: (gearsclient.hashtag(), gearsclient.gearsConfigGet("missing", 7))
    )
    assert facts.run()[0] == [("06S", 7)]


def check_values_of_every_kind(r):
    made = [None, True, 2.5, "ü", b"\xff", (1, (2,)), {"a": [1]}, {1}]
    assert GearsRemoteBuilder("ShardsIDReader", r=r, requirements=[]).map(lambda _: made).run()[0] == [made]


def check_errors(r):
    numbers(r)
    results, errors = values(r).map(lambda x: x / 0).run()
    assert results == [] and b"ZeroDivisionError" in errors[0]


def check_register_command(r):
    builder = GearsRemoteBuilder("CommandReader", r=r, requirements=[]).map(lambda args: " ".join(args))
    assert builder.register(trigger="join") == b"OK"
    assert r.execute_command("RG.TRIGGER", "join", "a", "b") == [b"join a b"]


def check_register_keys(r):
    builder = GearsRemoteBuilder("KeysReader", r=r, requirements=[])
    builder.foreach(lambda record: gearsclient.execute("SET", "seen", record["key"]))
    assert builder.register("person:*", eventTypes=["set"]) == b"OK"
    r.set("person:1", "x")
    assert until(lambda: r.get("seen")) == b"person:1"


def check_register_stream(r):
    builder = GearsRemoteBuilder("StreamReader", r=r, requirements=[])
    builder.foreach(lambda record: gearsclient.execute("HSET", "copy", record["id"], record["value"]["a"]))
    assert builder.register("st:*", batch=1) == b"OK"
    r.xadd("st:1", {"a": "1"})
    assert until(lambda: r.hvals("copy")) == [b"1"]


def main(port):
    r = redis.Redis("127.0.0.1", port)
    failures = {}
    for name in sys.argv[2:]:
        for row in r.execute_command("RG.DUMPREGISTRATIONS"):
            r.execute_command("RG.UNREGISTER", row[1])
        r.flushall()
        try:
            globals()[name](r)
        except Exception:
            failures[name] = traceback.format_exc()
        else:
            failures[name] = None
    json.dump(failures, sys.stdout)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
