"""Registrations survive restarts, data files of each kind, and failovers."""

from __future__ import annotations

import pytest
import redis

from .database import Database, text
from .waiting import wait_until

SCRIPT = """
import functools
calls = 5
def count(_):
    global calls
    calls += 1
    return calls
GB('CommandReader', desc='counts').map(count).register(trigger='count')
GB('CommandReader').map(lambda x: call_next(*x[1:]) or 'none').register(hook='get', keyprefix='hooked', mode='sync')
GB().foreach(lambda x: execute('rpush', 'keys', x['key'])).register('k*', eventTypes=['set'])
GB('StreamReader').foreach(lambda x: execute('rpush', 'entries', x['id'])).register('s*', trimStream=False)
"""


def check(db, *, keys: int, entries: int) -> None:
    """All functions work, and each fires once for each event."""
    wait_until(lambda: answers(db), "the session is rebuilt", until=lambda found: found == [6], deadline=20)
    db.r.set("k1", 1)
    db.r.xadd("s1", {"a": 1})
    wait_until(lambda: db.r.llen("keys"), "the key was seen", until=lambda count: count == keys)
    wait_until(lambda: db.r.llen("entries"), "the entry was seen", until=lambda count: count == entries)
    assert text(db.r.get("hooked")) == "none"


def answers(db) -> object:
    try:
        return [int(text(value)) for value in db.trigger("count")]
    except redis.ResponseError as error:
        return str(error)


def shown(db) -> list:
    return sorted((r.id, r.reader, r.desc, str(r.args)) for r in db.registrations())


@pytest.fixture
def saved(fresh_server):
    def start(**conf):
        db = fresh_server(conf={"enable-debug-command": "yes", **conf})
        db.ok(SCRIPT, "ID", "mine", "DESCRIPTION", "what it does")
        check(db, keys=1, entries=1)
        return db

    return start


def test_data_is_loaded_again_while_its_functions_run(saved):
    db = saved()
    slow = """
import time
GB().foreach(lambda x: execute('rpush', 'began', x['key'])).foreach(lambda _: time.sleep(0.3)).register('w*')
"""
    db.ok(SCRIPT + slow, "ID", "mine", "UPGRADE")
    for round_ in range(2, 6):
        db.r.set(f"w{round_}", 1)
        wait_until(
            lambda: db.r.llen("began"), "the slow function runs", until=lambda count, want=round_ - 1: count == want
        )
        db.r.execute_command("DEBUG", "RELOAD")
        check(db, keys=round_, entries=round_)


def test_registrations_survive_a_reload(saved):
    db = saved()
    before = shown(db)
    for round_ in range(2, 5):
        db.r.execute_command("DEBUG", "RELOAD")
        assert shown(db) == before
        check(db, keys=round_, entries=round_)
    [row] = db.r.execute_command("RG.PYDUMPSESSIONS")
    assert (text(row[1]), text(row[3])) == ("mine", "what it does")


@pytest.mark.parametrize("preamble", ["yes", "no"])
def test_registrations_survive_the_append_only_file(saved, preamble):
    db = saved(appendonly="yes", **{"aof-use-rdb-preamble": preamble})
    before = shown(db)
    db.r.execute_command("DEBUG", "LOADAOF")
    assert shown(db) == before
    check(db, keys=2, entries=2)
    db.r.execute_command("BGREWRITEAOF")
    wait_until(
        lambda: db.r.info("persistence"),
        "the file is rewritten",
        until=lambda info: not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"],
    )
    db.r.execute_command("DEBUG", "LOADAOF")
    assert shown(db) == before
    check(db, keys=3, entries=3)
    db.unregister(db.registrations()[0].id)
    db.r.execute_command("DEBUG", "LOADAOF")
    assert len(shown(db)) == 3


def test_registrations_survive_a_kill_of_the_server(saved):
    db = saved(appendonly="yes", appendfsync="always")
    before = shown(db)
    db.server.kill()
    db.server.start_again()
    db = Database(db.server)
    assert shown(db) == before
    check(db, keys=2, entries=2)


def test_an_upgrade_and_a_removal_are_saved(fresh_server):
    db = fresh_server(conf={"enable-debug-command": "yes", "appendonly": "yes"})
    for number in range(3):
        db.ok(f"GB('CommandReader').map(lambda _: {number}).register(trigger='t')", "ID", "mine", "UPGRADE")
    db.ok("GB('CommandReader').map(lambda _: 'x').register(trigger='gone')")
    db.unregister(next(r.id for r in db.registrations() if text(r.args["trigger"]) == "gone"))
    highest = max(int(r.id.rsplit("-", 1)[1]) for r in db.registrations())
    for how in ("RELOAD", "LOADAOF"):
        db.r.execute_command("DEBUG", how)
        assert len(db.registrations()) == 1
        wait_until(lambda: answers_of(db, "t"), "it is rebuilt", until=lambda found: found == ["2"])
    db.ok("GB('CommandReader').register(trigger='new')")
    assert max(int(r.id.rsplit("-", 1)[1]) for r in db.registrations()) > highest


def answers_of(db, trigger: str) -> object:
    try:
        return db.trigger(trigger)
    except redis.ResponseError as error:
        return str(error)


def test_a_file_without_registrations_removes_them(saved, fresh_server):
    db = saved()
    other = fresh_server()
    other.ok(SCRIPT)
    db.unregister(db.registrations()[0].id)
    other.r.execute_command("REPLICAOF", "127.0.0.1", str(db.server.port))
    wait_until(lambda: len(other.registrations()), "the replica has loaded", until=lambda count: count == 3)


def test_replicas_have_the_registrations_and_stay_silent_until_they_are_promoted(saved, fresh_server):
    db = saved(**{"repl-diskless-sync-delay": "0"})
    replica = fresh_server(conf={"replicaof": f"127.0.0.1 {db.server.port}"})
    wait_until(lambda: shown(replica), "the replica has loaded", until=lambda found: found == shown(db))
    db.ok("GB('CommandReader').map(lambda _: 1).register(trigger='later')")
    wait_until(lambda: shown(replica), "the replica heard of it", until=lambda found: found == shown(db))
    db.r.set("k2", 1)
    wait_until(lambda: replica.r.llen("keys"), "the effect arrived", until=lambda count: count == 2)
    assert all(r.numTriggered == 0 for r in replica.registrations())
    with pytest.raises(redis.ResponseError, match="read-only replica"):
        replica.trigger("count")
    replica.r.execute_command("REPLICAOF", "NO", "ONE")
    check(replica, keys=3, entries=2)


def test_a_saved_file_that_is_broken_is_refused_with_a_reason(saved):
    db = saved()
    assert "internal" in str(db.wire()("RG.INNERREGISTER", "broken"))
    db.r.execute_command("SAVE")


def test_onregistered_runs_again_after_a_load(fresh_server):
    db = fresh_server(conf={"enable-debug-command": "yes"})
    db.ok(
        "GB('CommandReader').map(lambda _: ready).register(trigger='t', "
        "onRegistered=lambda: globals().__setitem__('ready', 'yes'))"
    )
    wait_until(lambda: answers_of(db, "t"), "it was called", until=lambda found: found == ["yes"])
    db.r.execute_command("DEBUG", "RELOAD")
    wait_until(lambda: answers_of(db, "t"), "it was called again", until=lambda found: found == ["yes"])
