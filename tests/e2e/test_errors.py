"""Error codes that are not tested elsewhere, and the state after a panic in the module."""

import sys

import pytest
import redis
from redis.exceptions import ResponseError

from .database import text
from .waiting import wait_until


def test_a_pattern_that_is_too_long_names_its_limit(db):
    error = db.refused("GB('KeysReader').register('*' + 'x' * 5000 + '*')")
    assert "BADPATTERN a pattern with wildcards has at most" in error


def test_without_an_interpreter_every_script_is_refused_with_the_reason(fresh_server):
    db = fresh_server(load_args={"Python": "/no/such/python3"})
    with pytest.raises(ResponseError, match=r"^NOPYTHON the interpreter /no/such/python3"):
        db.r.execute_command("RG.PYEXECUTE", "1")


def test_an_interpreter_without_the_package_is_named(fresh_server, tmp_path):
    python = tmp_path / "python3"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.exit(\"no such package\")'\n")
    python.chmod(0o755)
    db = fresh_server(load_args={"Python": str(python)})
    with pytest.raises(ResponseError, match=rf"^WORKERSTART worker .* is the package redgrease installed for {python}"):
        db.r.execute_command("RG.PYEXECUTE", "1")


def test_records_and_results_beyond_their_limits_name_the_limit(fresh_server):
    db = fresh_server(load_args={"MaxRecordBytes": 100, "ResultBytesMax": 1000})
    db.r.set("big", "x" * 101)
    _, errors = db.run("GB().run('big')")
    assert "RECORDTOOBIG the value of key 'big' has 101 bytes, more than MaxRecordBytes (100)" in text(errors[0])
    _, errors = db.run("GB('ShardsIDReader').flatmap(lambda _: ['x' * 90] * 20).run()")
    assert "RESULTTOOBIG the results are longer than ResultBytesMax (1000 bytes)" in text(errors[0])


def test_sync_functions_that_start_each_other_end_at_a_depth(db):
    script = """
def again(_):
    try:
        return execute('RG.TRIGGER', 'again')[0]
    except Exception as error:
        return str(error)
GB('CommandReader').map(again).register(trigger='again', mode='sync')
"""
    db.r.execute_command("RG.PYEXECUTE", script)
    [error] = text(db.r.execute_command("RG.TRIGGER", "again"))
    assert error == "SYNCDEPTH sync executions are nested deeper than 16"


def test_a_script_cannot_register_without_limit(db):
    error = db.refused(
        "for number in range(10001): GB('CommandReader').register(trigger='t%d' % number)",
    )
    assert "TOOMANY a session has at most 10000 registrations" in error


@pytest.fixture
def fragile(fresh_server):
    """A server whose module can be made to panic, with a sync and an async function."""
    db = fresh_server(load_args={"InjectPanic": 1})
    db.r.execute_command(
        "RG.PYEXECUTE", "GB('CommandReader').map(lambda x: 'sync').register(trigger='sync', mode='sync')"
    )
    db.r.execute_command("RG.PYEXECUTE", "GB('CommandReader').map(lambda x: 'async').register(trigger='async')")
    db.r.execute_command(
        "RG.PYEXECUTE", "GB('KeysReader').foreach(lambda x: execute('incr', 'events')).register('k*', mode='sync')"
    )
    return db


def _panic(db, place: str) -> None:
    assert text(db.r.execute_command("RG.GETRESULTS", f"rg:panic:{place}")) == "OK"


def _works(db) -> None:
    """All kinds of calls are answered, each once and in order."""
    before = int(db.r.get("events") or 0)
    pipe = db.r.pipeline(transaction=False)
    pipe.execute_command("RG.TRIGGER", "sync")
    pipe.execute_command("RG.TRIGGER", "async")
    pipe.set("k1", 1)
    pipe.echo("last")
    assert [text(reply) for reply in pipe.execute()] == [["sync"], ["async"], True, "last"]
    wait_until(lambda: int(db.r.get("events") or 0) == before + 1, "the event was processed")


def test_a_panic_in_a_command_answers_its_client_and_nobody_else(fragile):
    for name in ["sync", "async"]:
        _panic(fragile, "command")
        pipe = fragile.r.pipeline(transaction=False)
        pipe.execute_command("RG.TRIGGER", name)
        pipe.echo("next")
        replies = pipe.execute(raise_on_error=False)
        assert isinstance(replies[0], redis.ResponseError) and str(replies[0]).startswith("INTERNAL "), replies
        assert text(replies[1]) == "next"
        _works(fragile)


def test_a_panic_in_a_notification_leaves_the_command_and_later_events_alone(fragile):
    _panic(fragile, "notification")
    assert fragile.r.set("k2", 1)
    _works(fragile)
    assert text(fragile.r.get("k2")) == "1"


def test_a_panic_in_a_reply_answers_with_an_error(fragile):
    _panic(fragile, "reply")
    pipe = fragile.r.pipeline(transaction=False)
    pipe.execute_command("RG.TRIGGER", "async")
    pipe.echo("next")
    replies = pipe.execute(raise_on_error=False)
    assert isinstance(replies[0], redis.ResponseError) and str(replies[0]).startswith("INTERNAL "), replies
    assert text(replies[1]) == "next"
    _works(fragile)


def test_a_panic_in_a_timer_leaves_the_server_at_work(fragile):
    _panic(fragile, "timer")
    log = fragile.server.log_path
    wait_until(lambda: "injected in a Timer" in log.read_text(), "a timer has panicked")
    _works(fragile)
