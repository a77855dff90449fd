"""Functions that are called again and again."""

from __future__ import annotations

import pytest
import redis

from .database import text
from .waiting import wait_until

TICK = """
n = 0
def tick():
    global n
    n += 1
    execute('incr', 'ticks')
    execute('set', 'n', n)
"""


def ticks(db) -> int:
    return int(db.r.get("ticks") or 0)


def wait_ticks(db, at_least: int) -> None:
    wait_until(lambda: ticks(db), f"{at_least} calls", until=lambda count: count >= at_least, deadline=15)


def test_a_function_is_called_again_and_again(db):
    db.ok(f"{TICK}\nassert registerTE(1, tick, 'te')\nassert not registerTE(1, tick, 'te')")
    assert text(db.r.type("te")) == "rg_timeev"
    wait_ticks(db, 2)
    assert b"te" in list(db.r.scan_iter("te"))
    db.r.delete("te")
    before = ticks(db)
    # Another one of the same period is the clock.
    db.ok("assert registerTE(1, lambda: execute('incr', 'clock'))")
    wait_until(lambda: int(db.r.get("clock") or 0), "the clock", until=lambda count: count >= 3, deadline=15)
    assert ticks(db) <= before + 1


def test_a_function_may_start_executions(db):
    db.r.mset({"a1": 0, "a2": 0})
    db.ok("registerTE(1, lambda: GB('KeysOnlyReader').foreach(lambda key: execute('incr', key)).run('a*'), 'te')")
    for key in ("a1", "a2"):
        wait_until(lambda key=key: int(db.r.get(key)), "it was counted", until=lambda count: count > 0)
    db.r.delete("te")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("1", "not enough arguments for time event"),
        ("1, 2", "callback must be a function"),
        ("'1', print", "time argument must be a long"),
        ("1.5, print", "time argument must be a long"),
        ("0, print", "time argument must be from 1 to"),
        ("10**400, print", "time argument must be from 1 to"),
        ("1, print, 3", "key argument must be a string"),
    ],
)
def test_wrong_arguments_are_refused(db, arguments, error):
    assert error in db.refused(f"registerTE({arguments})")


def test_a_function_that_fails_is_not_called_again(db):
    db.ok("registerTE(1, lambda: execute('incr', 'ticks') and 1 / 0, 'te')")
    db.wait_log("a time event failed and is not called again")
    assert ticks(db) == 1
    assert db.r.exists("te")


@pytest.mark.parametrize("how", ["RELOAD", "LOADAOF", "rewritten LOADAOF"])
def test_a_time_event_is_saved_with_its_key(fresh_server, how):
    conf = {"enable-debug-command": "yes", "appendonly": "no" if how == "RELOAD" else "yes"}
    if "rewritten" in how:
        conf["aof-use-rdb-preamble"] = "no"
    db = fresh_server(conf=conf)
    db.ok(f"{TICK}\nregisterTE(1, tick, 'te')")
    wait_ticks(db, 1)
    if "rewritten" in how:
        db.r.execute_command("BGREWRITEAOF")
        wait_until(
            lambda: db.r.info("persistence"),
            "the file is rewritten",
            until=lambda info: not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"],
        )
    db.r.execute_command("DEBUG", how.split()[-1])
    wait_ticks(db, ticks(db) + 1)


def test_time_events_run_on_masters_only(fresh_server):
    db = fresh_server(conf={"repl-diskless-sync-delay": "0"})
    replica = fresh_server(conf={"replicaof": f"127.0.0.1 {db.server.port}"})
    wait_until(lambda: replica.r.info("replication")["master_link_status"], "it is a replica", until="up".__eq__)
    db.ok("import os\nregisterTE(1, lambda: execute('sadd', 'pids', os.getpid()), 'te')")
    wait_until(lambda: replica.r.scard("pids"), "a call arrived", until=lambda count: count == 1)
    assert text(replica.r.type("te")) == "rg_timeev"
    db.r.execute_command("REPLICAOF", "127.0.0.1", str(replica.server.port))
    replica.r.execute_command("REPLICAOF", "NO", "ONE")
    wait_until(lambda: replica.r.scard("pids"), "it runs there now", until=lambda count: count == 2, deadline=15)


def test_a_key_that_a_user_may_not_write_is_refused(db):
    db.r.execute_command("ACL", "SETUSER", "limited", "on", ">p", "~a*", "+@all")
    limited = db.client(username="limited", password="p")
    with pytest.raises(redis.ResponseError, match="no permission"):
        limited.execute_command("RG.PYEXECUTE", "registerTE(1, print, 'b')")
    assert not db.r.exists("b")
