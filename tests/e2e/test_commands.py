"""Registered CommandReader functions and RG.TRIGGER."""

from __future__ import annotations

import threading

import pytest

from .database import text
from .resp import Err, Simple
from .waiting import wait_until

MODES = ["async", "async_local", "sync"]


#: The same with several shards: `test_cluster_functions`.
EACH_SHARD_ANSWERS = pytest.mark.single(
    "a function in mode async begins on each shard, and answers with the results of all"
)


@EACH_SHARD_ANSWERS
@pytest.mark.parametrize("mode", MODES)
def test_a_trigger_answers_an_array_of_results(db, mode):
    db.ok(f"GB('CommandReader').map(lambda x: len(x)).register(trigger='t', mode='{mode}')")
    assert db.wire()("RG.TRIGGER", "t", "a", "b") == [b"3"]
    assert db.wire()("RG.TRIGGER", "t") == [b"1"]


@EACH_SHARD_ANSWERS
@pytest.mark.parametrize("mode", MODES)
def test_the_record_is_the_name_and_its_arguments(db, mode):
    db.ok(f"GB('CommandReader').register(trigger='t', mode='{mode}')")
    assert db.trigger("t", "a", 7, "") == ["['t', 'a', '7', '']"]


@EACH_SHARD_ANSWERS
def test_native_results_without_conversion(db):
    db.ok("GB('CommandReader').map(lambda x: len(x)).register(trigger='t', convertToStr=False)")
    assert db.wire()("RG.TRIGGER", "t", "a", "b") == [3]


@EACH_SHARD_ANSWERS
def test_zero_and_several_results_are_an_array_too(db):
    db.ok("GB('CommandReader').flatmap(lambda x: x[1:]).sort().register(trigger='t')")
    assert db.trigger("t") == []
    assert db.trigger("t", "c", "a", "b") == ["a", "b", "c"]


@EACH_SHARD_ANSWERS
def test_binary_arguments_arrive_whole(db):
    db.ok(
        "plain = lambda a: bytes(a) if isinstance(a, (bytes, bytearray)) else a\n"
        "GB('CommandReader').map(lambda x: [plain(a) for a in x]).register(trigger='t')"
    )
    assert db.trigger("t", b"\xff\0", b"a\0b") == [str(["t", b"\xff\0", "a\0b"])]


@pytest.mark.parametrize("mode", MODES)
def test_a_failing_function_is_an_error_reply(db, mode):
    db.ok(f"GB('CommandReader').map(lambda x: noexists).register(trigger='t', mode='{mode}')")
    assert "'noexists' is not defined" in db.trigger_refused("t")
    registration = db.registration()
    assert (registration.numTriggered, registration.numFailures) == (1, 1)
    assert "'noexists' is not defined" in registration.lastError


def test_an_unknown_trigger_is_named_as_such(db):
    assert db.wire()("RG.TRIGGER", "nobody") == Err("ERR subcommand not found")


def test_trigger_names_are_case_sensitive(db):
    db.ok("GB('CommandReader').register(trigger='Name')")
    assert db.trigger("Name")
    assert "not found" in db.trigger_refused("name")


def test_a_trigger_needs_a_name(db):
    assert "wrong number of arguments" in db.wire()("RG.TRIGGER").text


@EACH_SHARD_ANSWERS
def test_a_name_is_taken_until_it_is_unregistered(db):
    db.ok("GB('CommandReader').map(lambda _: 'old').register(trigger='t')")
    assert "trigger already registered" in db.refused("GB('CommandReader').register(trigger='t')")
    assert db.trigger("t") == ["old"]
    db.unregister(db.registration().id)
    assert "not found" in db.trigger_refused("t")
    db.ok("GB('CommandReader').map(lambda _: 'new').register(trigger='t')")
    assert db.trigger("t") == ["new"]


def test_a_name_may_be_used_once_in_a_script(db):
    script = "GB('CommandReader').register(trigger='t')\nGB('CommandReader').register(trigger='t')"
    assert "trigger already registered in this session" in db.refused(script)
    assert db.registrations() == []


def test_a_duplicate_at_the_end_of_a_mixed_script_registers_nothing(db):
    db.ok("GB('CommandReader').register(trigger='t')")
    script = """
GB().register('w:*', readValue=False)
GB('StreamReader').register('s')
GB('CommandReader').register(trigger='t')
"""
    assert "trigger already registered" in db.refused(script)
    assert len(db.registrations()) == 1


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ("", "no trigger or hook argument was given"),
        ("'t'", "no trigger or hook argument was given"),
        ("trigger=7", "trigger argument is not string"),
        ("trigger='t', inorder=7", "inorder argument is be boolean"),
        ("trigger='t', keyprefix='p'", "trigger argument can not be given with keyprefix or hook"),
        ("trigger='t', mode='whenever'", "unknown execution mode"),
    ],
)
def test_a_wrong_argument_of_a_command_registration_is_named(db, arguments, fragment):
    assert fragment in db.refused(f"GB('CommandReader').register({arguments})")


@EACH_SHARD_ANSWERS
@pytest.mark.parametrize("mode", MODES)
def test_no_state_leaks_between_executions(db, mode):
    db.ok(
        f"GB('CommandReader').flatmap(lambda x: x[1:]).countby()"
        f".map(lambda d: (d['key'], d['value'])).sort().register(trigger='t', mode='{mode}')"
    )
    for _ in range(10):
        assert db.trigger("t", "a", "b", "a") == ["('a', 2)", "('b', 1)"]


@EACH_SHARD_ANSWERS
@pytest.mark.parametrize("mode", MODES)
def test_a_command_may_write(db, mode):
    db.ok(f"GB('CommandReader').map(lambda x: execute('set', x[1], x[2])).register(trigger='put', mode='{mode}')")
    assert db.trigger("put", "k", "v") == ["OK"]
    assert db.r.get("k") == b"v"


def test_commands_are_not_kept_in_the_execution_list(db):
    db.ok("GB('CommandReader').register(trigger='t')")
    for _ in range(5):
        db.trigger("t")
    db.wait_quiet()
    assert not [e for e in db.executions() if e.registered]


@EACH_SHARD_ANSWERS
def test_many_clients_may_trigger_at_once(db):
    db.ok("GB('CommandReader').map(lambda x: execute('incr', 'n')).register(trigger='t')")
    failures: list[Exception] = []

    def call():
        try:
            with db.server.client() as client:
                for _ in range(50):
                    client.execute_command("RG.TRIGGER", "t")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert db.r.get("n") == b"500"
    assert db.registration().numSuccess == 500


@EACH_SHARD_ANSWERS
def test_pipelined_triggers_are_answered_in_their_order(db):
    db.ok("GB('CommandReader').map(lambda x: x[1]).register(trigger='t')")
    pipeline = db.r.pipeline(transaction=False)
    for number in range(200):
        pipeline.execute_command("RG.TRIGGER", "t", number)
    assert [text(reply) for reply in pipeline.execute()] == [[str(n)] for n in range(200)]


@EACH_SHARD_ANSWERS
def test_inorder_commands_start_one_after_the_other(db):
    script = """
import time
def step(x):
    execute('rpush', 'order', 'begin ' + x[1])
    time.sleep(0.02)
    execute('rpush', 'order', 'end ' + x[1])
GB('CommandReader').foreach(step).register(trigger='t', inorder=True)
"""
    db.ok(script)
    connections = [db.wire() for _ in range(4)]
    for number, connection in enumerate(connections):
        connection.send("RG.TRIGGER", "t", number)
        wait_until(
            lambda: db.registration().numTriggered, "the trigger arrived", until=lambda n, want=number + 1: n == want
        )
    for connection in connections:
        assert isinstance(connection.read(), list)
    expected = [f"{word} {number}" for number in range(4) for word in ("begin", "end")]
    assert text(db.r.lrange("order", 0, -1)) == expected


def test_the_dump_of_a_command_registration_has_its_fixed_positions(db):
    db.ok("GB('CommandReader').register(trigger='t', inorder=True, mode='async_local')")
    db.trigger("t")
    registration = db.registration()
    assert registration.reader == "CommandReader"
    assert len(registration.positions[7]) == 20
    assert registration.args == {"trigger": "t", "inorder": 1}
    assert (registration.mode, registration.numTriggered, registration.numSuccess) == ("async_local", 1, 1)


def test_a_client_that_leaves_does_not_stop_its_command(db, tmp_path):
    gate = tmp_path / "open"
    script = """
import os, time
def step(x):
    execute('set', 'started', '1')
    end = time.monotonic() + 20
    while not os.path.exists(GATE) and time.monotonic() < end:
        time.sleep(0.005)
    execute('set', 'finished', '1')
GB('CommandReader').foreach(step).register(trigger='t')
""".replace("GATE", repr(str(gate)))
    db.ok(script)
    leaving = db.wire()
    leaving.send("RG.TRIGGER", "t")
    db.wait_key("started")
    leaving.close()
    gate.touch()
    db.wait_key("finished")


@EACH_SHARD_ANSWERS
def test_unregistering_while_a_command_runs_still_answers_its_client(db, tmp_path):
    gate = tmp_path / "open"
    script = """
import os, time
def step(x):
    execute('set', 'started', '1')
    end = time.monotonic() + 20
    while not os.path.exists(GATE) and time.monotonic() < end:
        time.sleep(0.005)
    return 'answered'
GB('CommandReader').map(step).register(trigger='t')
""".replace("GATE", repr(str(gate)))
    db.ok(script)
    waiting = db.wire()
    waiting.send("RG.TRIGGER", "t")
    db.wait_key("started")
    db.unregister(db.registration().id)
    gate.touch()
    assert waiting.read() == [b"answered"]


def test_ten_thousand_registrations_are_listed_without_stalling_the_server(fresh_server):
    db = fresh_server()
    count = 10_000
    db.ok(f"for i in range({count}): GB().map(lambda x: 1).register('q%d' % i, readValue=False)")
    with db.longest_ping() as longest:
        rows = text(db.r.execute_command("RG.DUMPREGISTRATIONS"))
    assert longest.ms < 100
    names = {row[7][row[7].index("args") + 1][1] for row in rows}
    assert names == {f"q{number}" for number in range(count)}
    ids = [row[1] for row in rows]
    # The session's list is in its first row; the other rows of so large a session name only themselves.
    assert all(f"'{name}'" in rows[0][9] for name in ids[:: count // 50])
    assert f"'registrationsList':['{ids[7]}']" in rows[7][9]
    # A client cannot be blocked inside a transaction: the reply is the same.
    assert len(db.r.pipeline().execute_command("RG.DUMPREGISTRATIONS").execute()[0]) == count
    with db.longest_ping() as longest:
        pipeline = db.r.pipeline(transaction=False)
        for name in ids:
            pipeline.execute_command("RG.UNREGISTER", name)
        pipeline.execute()
    assert longest.ms < 250
    assert db.r.execute_command("RG.DUMPREGISTRATIONS") == []


def test_a_client_that_leaves_while_its_answer_is_written_harms_nothing(fresh_server):
    db = fresh_server()
    db.ok("for i in range(3000): GB().map(lambda x: 1).register('q%d' % i, readValue=False)")
    for _ in range(20):
        wire = db.wire()
        wire.send("RG.DUMPREGISTRATIONS")
        wire.close()
    assert len(db.r.execute_command("RG.DUMPREGISTRATIONS")) == 3000


def test_the_server_describes_all_commands_for_users(db):
    wire = db.wire()
    names = [name for name in wire("COMMAND", "LIST") if name.startswith(b"rg.")]
    internal = {
        f"rg.{name}".encode()
        for name in ("innerregister", "innerhook", "innercontext", "innermsgcommand", "clustersetfromshard")
    }
    assert len(names) > 30
    for name in set(names) - internal:
        (_, facts) = wire("COMMAND", "DOCS", name)
        facts = dict(zip(facts[::2], facts[1::2]))
        assert facts[b"summary"] and facts[b"complexity"] and facts[b"since"] == b"1.0.0", name


def test_the_arguments_of_a_command_are_described(db):
    (_, facts) = db.wire()("COMMAND", "DOCS", "rg.getexecution")
    facts = dict(zip(facts[::2], facts[1::2]))
    identifier, scope = (dict(zip(one[::2], one[1::2])) for one in facts[b"arguments"])
    assert identifier[b"name"] == b"id"
    assert scope[b"type"] == Simple("oneof") or scope[b"type"] == b"oneof"
    tokens = [dict(zip(one[::2], one[1::2]))[b"token"] for one in scope[b"arguments"]]
    assert tokens == [b"SHARD", b"CLUSTER"]
