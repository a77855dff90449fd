"""Every wait has a deadline and every queue a bound, and the error names the limit that was hit."""

from __future__ import annotations

import pytest
import redis

from .waiting import wait_until


def test_results_beyond_their_limit_end_the_execution_with_an_error_that_names_it(fresh_server):
    db = fresh_server(load_args={"ResultBytesMax": 1_000_000})
    execution = db.start("def many():\n    while True:\n        yield 'x' * 1000\nGB('PythonReader').run(many)")
    db.wait_status(execution, "done")
    errors = db.r.execute_command("RG.GETRESULTS", execution)[1]
    assert b"ResultBytesMax (1000000 bytes)" in errors[0]
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


def test_a_script_that_never_ends_is_ended_with_its_worker(fresh_server):
    db = fresh_server(load_args={"ScriptMaxTime": 300})
    message = db.failure("while True: pass")
    assert "ScriptMaxTime (300 ms)" in message
    assert "WORKERDIED" in message
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


def test_a_flood_of_log_lines_is_cut_and_the_log_says_so(db):
    db.ok("for _ in range(30000): log('f' * 100)")

    def note() -> bool:
        db.ok("log('after the flood')")
        return "bytes were dropped: more than" in db.server.new_log()

    wait_until(note, "the log says how much was dropped")
    assert db.server.new_log().count("f" * 100) < 30000


def test_writes_of_functions_heed_the_number_of_replicas_as_writes_of_clients_do(fresh_server):
    db = fresh_server(conf={"min-replicas-to-write": "1"})
    with pytest.raises(redis.ResponseError, match="NOREPLICAS"):
        db.r.set("k", "v")
    assert "NOREPLICAS" in db.errors("GB('ShardsIDReader').map(lambda _: execute('set', 'k', 'v')).run()")[0]
    assert db.results("GB('ShardsIDReader').map(lambda _: execute('dbsize')).run()") == ["0"]


def test_a_user_without_the_right_to_trigger_gets_it_by_no_detour(db):
    db.ok("GB('CommandReader').map(lambda x: 'secret').register(trigger='t')")
    db.r.execute_command("ACL", "SETUSER", "eve", "on", ">pw", "~*", "+rg.withcodec", "+ping")
    try:
        eve = redis.Redis(port=db.server.port, username="eve", password="pw")
        with pytest.raises(redis.exceptions.NoPermissionError):
            eve.execute_command("RG.TRIGGER", "t")
        with pytest.raises(redis.exceptions.NoPermissionError):
            eve.execute_command("RG.WITHCODEC", "1", "RG.TRIGGER", "t")
        eve.close()
    finally:
        db.r.execute_command("ACL", "DELUSER", "eve")


def test_the_internal_command_does_nothing_for_clients(db):
    with pytest.raises(redis.ResponseError, match="internal"):
        db.r.execute_command("RG.INNERATOMIC")


@pytest.mark.parametrize(
    ("version", "command", "message"),
    [("2", "RG.TRIGGER", "codec version '2'"), ("x", "RG.TRIGGER", "codec version 'x'"), ("1", "GET", "'GET'")],
)
def test_an_unknown_codec_or_command_is_named(db, version, command, message):
    with pytest.raises(redis.ResponseError, match=message):
        db.r.execute_command("RG.WITHCODEC", version, command, "t")


def test_waits_for_functions_are_in_the_latency_monitor_and_the_slow_log(db):
    db.ok("import time\nGB('CommandReader').map(lambda x: time.sleep(0.03)).register(trigger='slow', mode='sync')")
    before = db.r.config_get("latency-monitor-threshold")
    try:
        db.r.config_set("latency-monitor-threshold", 10)
        db.trigger("slow")
    finally:
        db.r.config_set("latency-monitor-threshold", before["latency-monitor-threshold"])
    waits = {event: longest for event, _, _, longest, *_ in db.r.execute_command("LATENCY", "LATEST")}
    assert waits[b"rg-sync"] >= 25
    commands = [entry["command"] for entry in db.r.slowlog_get(10) if entry["duration"] >= 25_000]
    assert b"RG.TRIGGER slow" in commands
