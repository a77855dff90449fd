"""Commands that show and change the state of the engine: executions, sessions, configuration, statistics, profiles."""

from __future__ import annotations

import pytest
import redis

from .database import flat_map, text
from .resp import Err, Simple
from .waiting import wait_until

ZERO = "0" * 40


def execution_map(db, identifier: str, *words: str) -> dict[str, object]:
    [entry] = db.r.execute_command("RG.GETEXECUTION", identifier, *words)
    shard = flat_map(entry)
    assert text(shard["shard_id"]) == ZERO
    return flat_map(shard["execution_plan"])


@pytest.mark.single("it compares identifiers or replies of one server")
def test_an_execution_is_shown_with_its_steps_from_the_last_to_the_first(db):
    db.r.mset({"a": 1, "b": 2, "c": 3})
    execution = db.start("GB('KeysOnlyReader').map(lambda x: x).run()")
    db.wait_status(execution, "done")
    [entry] = db.r.execute_command("RG.GETEXECUTION", execution)
    plan = entry[3]
    assert [text(name) for name in plan[::2]] == [
        "status", "shards_received", "shards_completed", "results", "errors", "total_duration", "read_duration",
        "steps",
    ]  # fmt: skip
    assert (text(plan[1]), plan[7], plan[9]) == ("done", 3, [])
    steps = [flat_map(step) for step in plan[15]]
    assert [text(step["type"]) for step in steps] == ["collect", "map", "map", "map"]
    assert all(len(step) == 8 for step in plan[15])
    assert sum(step["duration"] for step in steps) == 0


@pytest.mark.single("it compares identifiers or replies of one server")
def test_an_execution_that_runs_shows_no_results(db):
    execution = db.start("GB('ShardsIDReader').map(lambda _: exec('while True: pass')).run()")
    db.wait_status(execution, "running")
    shown = execution_map(db, execution, "ShArD")
    assert (shown["results"], shown["errors"]) == (-1, [])
    db.r.execute_command("RG.ABORTEXECUTION", execution)
    assert execution_map(db, execution)["results"] == 0


@pytest.mark.single("it compares identifiers or replies of one server")
def test_wrong_arguments_of_getexecution_are_refused(db):
    wire = db.wire()
    execution = db.start("GB('ShardsIDReader').run()")
    db.wait_status(execution, "done")
    assert wire("RG.GETEXECUTION", f"{ZERO}-999") == Err("execution plan does not exist")
    assert wire("RG.GETEXECUTION", execution, "ALL") == Err("unknown subcommand")
    expected = "no cluster detected - use `RG.GETEXECUTION <id> [SHARD]` instead"
    assert wire("RG.GETEXECUTION", execution, "cluster") == Err(expected)


@pytest.mark.single("it compares identifiers or replies of one server")
def test_a_profiled_execution_shows_the_time_of_its_steps(db):
    try:
        db.r.execute_command("RG.CONFIGSET", "ProfileExecutions", 1)
        execution = db.start(
            "import time\nGB('ShardsIDReader').map(lambda x: time.sleep(0.05)).filter(lambda x: True).run()"
        )
        db.wait_status(execution, "done")
        steps = [flat_map(step) for step in execution_map(db, execution)["steps"]]
        by_name = {text(step["name"]): step["duration"] for step in steps}
        assert by_name["map"] >= 50
        assert by_name["filter"] < 50
    finally:
        db.r.execute_command("RG.CONFIGSET", "ProfileExecutions", 0)


def test_the_profile_of_a_session_names_its_functions(db):
    db.ok(
        "def costly(x):\n    return sum(range(1000))\nGB('CommandReader').map(costly).register(trigger='t')", "ID", "p"
    )
    wire = db.wire()
    with pytest.raises(redis.ResponseError, match="nothing was profiled"):
        db.r.execute_command("RG.PYPROFILE", "STATS", "p")
    try:
        db.r.execute_command("RG.CONFIGSET", "ProfileExecutions", 1)
        db.trigger("t")
    finally:
        db.r.execute_command("RG.CONFIGSET", "ProfileExecutions", 0)
    assert "costly" in text(db.r.execute_command("RG.PYPROFILE", "STATS", "p"))
    assert "Ordered by: cumulative time" in text(db.r.execute_command("RG.PYPROFILE", "stats", "p", "cumulative"))
    with pytest.raises(redis.ResponseError, match="unknown order of statistics: 'fun'"):
        db.r.execute_command("RG.PYPROFILE", "STATS", "p", "fun")
    assert wire("RG.PYPROFILE", "RESET", "p") == Simple("OK")
    with pytest.raises(redis.ResponseError, match="nothing was profiled"):
        db.r.execute_command("RG.PYPROFILE", "STATS", "p")
    assert wire("RG.PYPROFILE", "STATS", "nobody") == Err("session does not exists")
    assert wire("RG.PYPROFILE", "OTHER", "p") == Err("Wrong subcommand given to RG.PYPROFILE")
    assert "wrong number of arguments" in str(wire("RG.PYPROFILE", "STATS"))


def test_the_configuration_can_be_read_and_changed(db):
    before = db.r.execute_command("RG.CONFIGGET", "MaxExecutions")
    assert before == [1000]
    try:
        replies = db.wire()("RG.CONFIGSET", "maxexecutions", "7", "mine", "test", "ExecutionThreads", "4")
        assert replies[:2] == [Simple("OK"), Simple("OK - value was saved in extra config dictionary")]
        assert replies[2] == Err("(error) Config value ExecutionThreads not modifiable at runtime")
        values = db.wire()("RG.CONFIGGET", "MaxExecutions", "mine", "nothing")
        assert (values[0], text(values[1])) == (7, "test")
        assert values[2] == Err("(error) Unsupported config parameter: nothing")
        assert db.results("GB('ShardsIDReader').map(lambda _: configGet('mine')).run()") == ["test"]
    finally:
        db.r.execute_command("RG.CONFIGSET", "MaxExecutions", *before)


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (("MaxExecutions", "many"), "(error) Failed setting config value MaxExecutions"),
        (("MaxExecutions",), "(error) Failed setting config value MaxExecutions"),
        (("Other",), "(error) Value was not given to Other"),
        (("DependenciesSha256", "x"), "(error) DependenciesSha256 is not configurable at runtime"),
        (
            ("PythonAttemptTraceback", "x"),
            "(error) Failed setting config value for key 'PythonAttemptTraceback' with value 'x'",
        ),
    ],
)
def test_a_bad_value_of_the_configuration_is_an_error_element(db, words, reply):
    [found] = db.wire()("RG.CONFIGSET", *words)
    assert found == Err(reply)


def test_tracebacks_can_be_turned_off(db):
    source = "GB('ShardsIDReader').map(lambda x: notexists).run()"
    assert "Traceback" in db.errors(source)[0]
    try:
        db.r.execute_command("RG.CONFIGSET", "PythonAttemptTraceback", 0)
        [error] = db.errors(source)
        assert "Traceback" not in error and "name 'notexists' is not defined" in error
    finally:
        db.r.execute_command("RG.CONFIGSET", "PythonAttemptTraceback", 1)


def test_a_smaller_list_of_executions_loses_the_oldest(db):
    started = []
    for _ in range(5):  # one after the other: the oldest is the one that ended first
        started.append(db.start("GB('ShardsIDReader').run()"))
        db.wait_quiet()
    try:
        db.r.execute_command("RG.CONFIGSET", "MaxExecutions", 2)
        assert [execution.id for execution in db.executions()] == started[-2:]
    finally:
        db.r.execute_command("RG.CONFIGSET", "MaxExecutions", 1000)


def test_sessions_are_listed(db):
    db.ok("GB('CommandReader').register(trigger='a')", "ID", "one", "DESCRIPTION", "first")
    db.ok("GB('CommandReader').register(trigger='b')\nGB().register('x')", "ID", "two")
    rows = [flat_map(row) for row in db.r.execute_command("RG.PYDUMPSESSIONS")]
    assert [text(row["ID"]) for row in rows] == ["one", "two"]
    assert [text(row["sessionDescription"]) for row in rows] == ["first", None]
    assert [row["refCount"] for row in rows] == [1, 2]
    assert [text(row["linked"]) for row in rows] == ["primary", "primary"]
    assert [text(row["dead"]) for row in rows] == ["false", "false"]
    ids = {registration.id for registration in db.registrations()}
    assert {text(each) for row in rows for each in row["registrations"]} == ids
    two, none, one = db.r.execute_command("RG.PYDUMPSESSIONS", "SESSIONS", "two", "none", "one")
    assert (text(two[1]), text(none), text(one[1])) == ("two", "Session none does not exists", "one")
    [row] = db.r.execute_command("RG.PYDUMPSESSIONS", "verbose", "sessions", "one")
    [registration] = flat_map(row)["registrations"]
    assert text(registration[3]) == "CommandReader" and len(registration) == 10
    with pytest.raises(redis.ResponseError, match="Unknown option X"):
        db.r.execute_command("RG.PYDUMPSESSIONS", "X")
    assert db.r.execute_command("RG.PYDUMPSESSIONS", "DEAD") == db.r.execute_command("RG.PYDUMPSESSIONS", "TS") == []


def test_statistics_are_cleared(db):
    db.ok(
        "GB('CommandReader').map(lambda x: 1 / int(x[1])).register(trigger='t')\nGB().register('k', eventTypes=['set'])"
    )
    db.trigger("t", "1")
    with pytest.raises(redis.ResponseError):
        db.trigger("t", "0")
    db.r.set("k", 1)
    wait_until(lambda: [r.numSuccess for r in db.registrations()], "the event was handled", until=lambda n: n == [1, 1])
    assert db.wire()("RG.CLEARREGISTRATIONSSTATS") == Simple("OK")
    for row in db.r.execute_command("RG.DUMPREGISTRATIONS"):
        data = flat_map(flat_map(row)["RegistrationData"])
        assert [data[f"num{name}"] for name in ("Triggered", "Success", "Failures", "Aborted")] == [0, 0, 0, 0]
        assert data["lastError"] is None
        assert text(data["avgRunDurationMS"]) in ("0", 0.0)


@pytest.mark.single("it compares identifiers or replies of one server")
def test_a_paused_stream_registration_reads_nothing_until_it_is_unpaused(db):
    db.ok("GB('StreamReader').foreach(lambda x: execute('incr', 'seen')).register('s*')\nGB().register('other')")
    stream, keys = db.registrations()
    db.r.xadd("s1", {"a": 1})
    db.wait_value("seen", "1")
    wire = db.wire()
    assert wire("RG.PAUSEREGISTRATIONS", stream.id) == Simple("OK")
    assert wire("RG.PAUSEREGISTRATIONS", "ABORTPENDING", stream.id) == Simple("OK")
    db.r.xadd("s1", {"a": 2})
    db.r.xadd("s2", {"a": 3})
    db.ok("GB('CommandReader').register(trigger='later')")
    assert text(db.r.get("seen")) == "1"
    data = flat_map(flat_map(db.r.execute_command("RG.DUMPREGISTRATIONS")[0])["RegistrationData"])
    assert text(data["status"]) == "PAUSED"
    assert wire("RG.UNPAUSEREGISTRATIONS", stream.id) == Simple("OK")
    db.wait_value("seen", "3")
    shard = f"shard {ZERO}"
    assert wire("RG.PAUSEREGISTRATIONS", "nope") == Err(f"Execution nope does not exists on {shard}")
    assert wire("RG.PAUSEREGISTRATIONS", keys.id) == Err("Reader KeysReader does not support pause")
    assert wire("RG.UNPAUSEREGISTRATIONS", keys.id) == Err("Reader KeysReader does not support unpause")
    assert wire("RG.PAUSEREGISTRATIONS", "ABORTPENDING") == Err("ERR no registration to pause")
    assert wire("RG.PAUSEREGISTRATIONS", stream.id, keys.id) == Err("Reader KeysReader does not support pause")
    data = flat_map(flat_map(db.r.execute_command("RG.DUMPREGISTRATIONS")[0])["RegistrationData"])
    assert text(data["status"]) == "OK"


def test_triggeronkey_names_its_key(db):
    db.ok("GB('CommandReader').register(trigger='t', convertToStr=False)")
    assert text(db.r.execute_command("RG.TRIGGERONKEY", "t", "key", "a")) == [["t", "key", "a"]]
    wire = db.wire()
    assert text(wire("COMMAND", "GETKEYS", "RG.TRIGGERONKEY", "t", "key", "a")) == ["key"]
    assert text(wire("COMMAND", "GETKEYS", "RG.WITHCODEC", 1, "RG.TRIGGERONKEY", "t", "key", "a")) == ["key"]


def test_commands_inside_commands_have_no_keys_however_many_there_are(db):
    for words in (["RG.WITHCODEC", 1], ["RG.INNERHOOK"]):
        reply = db.wire()("COMMAND", "GETKEYS", *words * 100_000, "SET", "key", "a")
        assert isinstance(reply, Err), reply


@pytest.mark.single("it compares identifiers or replies of one server")
def test_what_shards_send_to_each_other_is_answered(db):
    wire = db.wire()
    assert wire("RG.HELLO") == Err("ERRCLUSTER NULL cluster state on hello msg")
    assert wire("RG.NETWORKTEST") == Simple("OK")
    [[_, name, _, version]] = wire("RG.DUMPPLUGINS")
    assert text(name) == "GearsPythonPlugin" and isinstance(version, int)


def section(db, name: str) -> dict[str, str]:
    lines = db.wire()("INFO", name)
    pairs = [line.split(":", 1) for line in text(lines).splitlines() if ":" in line]
    return {name.removeprefix("rg_"): value for name, value in pairs}


def test_info_shows_registrations_sessions_plugins_and_memory(db):
    source = "def one(x):\n    return x\nGB('KeysReader', desc='a, b').map(one).register('p*', eventTypes=['set'])\n"
    db.ok(source + "GB('StreamReader').register('s')\nGB('CommandReader').register(trigger='t')", "ID", "mine")
    rows = section(db, "rg_regisrations")
    readers = {row.split("reader=")[1].split(",")[0] for row in rows.values()}
    assert readers == {"KeysReader", "StreamReader", "CommandReader"}
    [keys] = [row for row in rows.values() if "reader=KeysReader" in row]
    assert "desc=a| b" in keys and "args=regex|p*|eventTypes|set|keyTypes|None" in keys and "PD={" in keys
    fields = dict(pair.split("=", 1) for pair in keys.split(","))
    assert (fields["mode"], fields["numTriggered"], fields["lastError"]) == ("async", "0", "None")
    assert section(db, "rg_plugins") == {"GearsPythonPlugin": "version=10206"}
    memory = section(db, "rg_python_stats")
    assert 0 < int(memory["python_CurrAllocated"]) <= int(memory["python_PeakAllocated"])
    sessions = section(db, "rg_python_sessions")
    assert "refCount=3" in sessions["mine"]
    workers = section(db, "rg_workers")
    assert any(name.startswith("worker_") and "pid=" in row for name, row in workers.items())


@pytest.mark.parametrize("words", ["a:b\r\nrg_fake:1", "%s%n", "x" * 100_000, b"\xff\x00"])
def test_a_hostile_description_stays_on_its_line_of_info(db, words):
    db.ok("GB('CommandReader').register(trigger='t')", "DESCRIPTION", words)
    assert "rg_fake" not in section(db, "rg_python_sessions")
    assert len(section(db, "rg_python_sessions")) == 1


def test_the_servers_configuration_has_the_settings(db):
    wire = db.wire()
    try:
        assert wire("CONFIG", "SET", "rg.MaxExecutions", "7") == Simple("OK")
        assert db.r.execute_command("RG.CONFIGGET", "MaxExecutions") == [7]
        db.r.execute_command("RG.CONFIGSET", "MaxExecutions", 8)
        assert [text(part) for part in wire("CONFIG", "GET", "rg.maxexecutions")][1] == "8"
    finally:
        db.r.execute_command("RG.CONFIGSET", "MaxExecutions", 1000)
    assert "immutable" in str(wire("CONFIG", "SET", "rg.MaxWorkers", "3"))
    assert "immutable" in str(wire("CONFIG", "SET", "rg.Python", "/usr/bin/python3"))
    for value in ("-1", "many", str(1 << 62)):
        assert "CONFIG SET failed" in str(wire("CONFIG", "SET", "rg.AbortGrace", value))
