"""The execution list: UNBLOCKING runs, their results, aborting and dropping."""

from __future__ import annotations

import threading

import pytest
import redis

from .database import text
from .resp import Err, Simple
from .waiting import wait_until

UNKNOWN = "0" * 40 + "-999999"

ENDLESS = "GB('ShardsIDReader').map(lambda _: exec('while True: pass')).run()"

#: Loops forever and catches every exception.
STUBBORN = """
def loop(_):
    execute('set', 'started', '1')
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
GB('ShardsIDReader').map(loop).run()
"""

#: Continues when the key `gate` exists; ends by itself after a while otherwise.
GATED = """
import os, time
def wait(_):
    execute('set', 'started', '1')
    gate, end = execute('get', 'gate'), time.monotonic() + 30
    while not os.path.exists(gate) and time.monotonic() < end:
        time.sleep(0.005)
    return 'through'
GB('ShardsIDReader').map(wait).run()
"""


@pytest.fixture
def gate(db, tmp_path):
    path = tmp_path / "open"
    db.r.set("gate", str(path))
    yield path
    path.touch()


def test_the_results_of_an_unblocking_run_can_be_fetched_again_and_again(db):
    db.r.mset({"a": 1, "b": 2})
    execution = db.start("GB('KeysOnlyReader').sort().run()")
    db.wait_status(execution, "done")
    for _ in range(3):
        assert text(db.r.execute_command("RG.GETRESULTS", execution)) == [["a", "b"], []]
    assert db.wire()("RG.DROPEXECUTION", execution) == Simple("OK")
    # Other shards drop it when they hear of it.
    wait_until(db.executions, "it is dropped", until=lambda left: left == [])


def test_results_of_a_running_execution_are_not_there_yet(db, gate):
    execution = db.start(GATED)
    db.wait_key("started")
    assert db.wire()("RG.GETRESULTS", execution) == Err("execution is still running")
    gate.touch()
    assert text(db.r.execute_command("RG.GETRESULTSBLOCKING", execution)) == [["through"], []]


def test_getresultsblocking_waits_and_several_clients_may_wait(db, gate):
    execution = db.start(GATED)
    answers = []

    def fetch():
        with db.server.client() as client:
            answers.append(text(client.execute_command("RG.GETRESULTSBLOCKING", execution)))

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    db.wait_key("started")
    assert answers == []
    gate.touch()
    for thread in threads:
        thread.join(10)
    assert answers == [[["through"], []]] * 3


def test_a_client_that_leaves_while_waiting_harms_nobody(db, gate):
    execution = db.start(GATED)
    leaving = db.wire()
    leaving.send("RG.GETRESULTSBLOCKING", execution)
    other = db.wire()
    other.send("RG.PYEXECUTE", "GB('ShardsIDReader').map(lambda _: execute('get', 'gate')).run()")
    db.wait_key("started")
    leaving.close()
    other.close()
    gate.touch()
    db.wait_status(execution, "done")
    assert text(db.r.execute_command("RG.GETRESULTS", execution)) == [["through"], []]


def test_a_blocking_run_whose_client_left_disappears_from_the_list(db, gate):
    leaving = db.wire()
    leaving.send("RG.PYEXECUTE", GATED)
    db.wait_key("started")
    assert [e.status for e in db.executions()] == ["running"]
    leaving.close()
    gate.touch()
    db.wait_quiet()
    assert db.executions() == []


def test_the_list_shows_id_status_and_whether_a_registration_started_it(db):
    execution = db.start("GB('ShardsIDReader').run()")
    db.wait_status(execution, "done")
    assert db.wire()("RG.DUMPEXECUTIONS") == [
        [b"executionId", execution.encode(), b"status", b"done", b"registered", 0]
    ]


def test_executions_of_a_registration_are_marked(db):
    db.ok("GB().register('watched:*')")
    db.r.set("watched:1", "v")
    db.wait_quiet()
    marks = {e.registered for e in db.executions()}
    assert True in marks


@pytest.mark.parametrize("command", ["RG.GETRESULTS", "RG.GETRESULTSBLOCKING", "RG.DROPEXECUTION"])
@pytest.mark.parametrize("name", [UNKNOWN, "nonsense", "", "0-0", "-" * 60])
def test_an_unknown_execution_is_named_as_such(db, command, name):
    assert db.wire()(command, name) == Err("execution plan does not exist")


@pytest.mark.parametrize("name", [UNKNOWN, "nonsense"])
def test_aborting_an_unknown_execution_is_an_error(db, name):
    assert db.wire()("RG.ABORTEXECUTION", name) == Err("execution does not exist")


@pytest.mark.parametrize("command", ["RG.GETRESULTS", "RG.GETRESULTSBLOCKING", "RG.DROPEXECUTION", "RG.ABORTEXECUTION"])
@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_a_wrong_number_of_arguments_is_refused(db, command, arguments):
    reply = db.wire()(command, *arguments)
    assert isinstance(reply, Err)
    assert "wrong number of arguments" in reply.text


def test_a_running_execution_cannot_be_dropped(db, gate):
    execution = db.start(GATED)
    db.wait_key("started")
    assert db.wire()("RG.DROPEXECUTION", execution) == Err("can not drop a not yet finished execution, abort it first.")
    gate.touch()


def test_aborting_a_running_execution_ends_it_with_one_error(db):
    execution = db.start(ENDLESS)
    db.wait_status(execution, "running")
    assert db.wire()("RG.ABORTEXECUTION", execution) == Simple("OK")
    db.wait_status(execution, "done")
    results, errors = db.r.execute_command("RG.GETRESULTS", execution)
    assert results == []
    assert len(errors) == 1
    assert db.r.execute_command("RG.DROPEXECUTION", execution)


def test_aborting_releases_the_client_that_waits_for_it(db):
    waiting = db.wire()
    waiting.send("RG.PYEXECUTE", ENDLESS)
    [execution] = wait_until(db.executions, "the run is listed")
    db.wait_status(execution.id, "running")
    db.r.execute_command("RG.ABORTEXECUTION", execution.id)
    results, errors = waiting.read()
    assert results == []
    assert len(errors) == 1
    db.wait_quiet()
    assert db.executions() == []


def test_aborting_a_finished_execution_changes_nothing(db):
    execution = db.start("GB('ShardsIDReader').run()")
    db.wait_status(execution, "done")
    assert db.wire()("RG.ABORTEXECUTION", execution) == Simple("OK")
    assert text(db.r.execute_command("RG.GETRESULTS", execution)) == [["1"], []]


def test_aborting_keeps_the_results_that_were_there(db):
    script = """
def feed():
    yield 'first'
    execute('set', 'started', '1')
    while True:
        pass
GB('PythonReader').run(feed)
"""
    execution = db.start(script)
    db.wait_key("started")
    db.r.execute_command("RG.ABORTEXECUTION", execution)
    db.wait_status(execution, "done")
    results, errors = text(db.r.execute_command("RG.GETRESULTS", execution))
    assert len(errors) == 1
    assert results in ([], ["first"])


def test_a_loop_that_catches_every_exception_is_ended_too(fresh_server):
    db = fresh_server(load_args={"AbortGrace": 200})
    execution = db.start(STUBBORN)
    db.wait_key("started")
    assert db.wire()("RG.ABORTEXECUTION", execution) == Simple("OK")
    db.wait_status(execution, "done", deadline=5)
    [error] = text(db.r.execute_command("RG.GETRESULTS", execution))[1]
    assert "abort" in error.lower()
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


def test_a_sleeping_execution_is_ended_after_the_grace_time(fresh_server):
    db = fresh_server(load_args={"AbortGrace": 200})
    execution = db.start("import time\nGB('ShardsIDReader').map(lambda _: time.sleep(600)).run()")
    db.wait_status(execution, "running")
    db.r.execute_command("RG.ABORTEXECUTION", execution)
    db.wait_status(execution, "done", deadline=5)
    assert len(db.r.execute_command("RG.GETRESULTS", execution)[1]) == 1


def test_an_abort_does_not_harm_other_executions(db, gate):
    steady = db.start(GATED)
    db.wait_key("started")
    loop = db.start(ENDLESS)
    db.wait_status(loop, "running")
    db.r.execute_command("RG.ABORTEXECUTION", loop)
    db.wait_status(loop, "done")
    assert db.status(steady) == "running"
    gate.touch()
    db.wait_status(steady, "done")
    assert text(db.r.execute_command("RG.GETRESULTS", steady)) == [["through"], []]


def test_with_one_execution_thread_a_waiting_execution_is_aborted_and_a_running_one_done(fresh_server):
    db = fresh_server(load_args={"ExecutionThreads": 1})
    first = db.start(ENDLESS)
    db.wait_status(first, "running")
    second = db.start(ENDLESS)
    assert db.status(second) == "created"
    db.r.execute_command("RG.ABORTEXECUTION", second)
    assert db.wait_status(second, "aborted") == "aborted"
    db.r.execute_command("RG.ABORTEXECUTION", first)
    db.wait_status(first, "done")
    assert len(db.r.execute_command("RG.GETRESULTS", first)[1]) == 1
    for execution in (first, second):
        assert db.wire()("RG.DROPEXECUTION", execution) == Simple("OK")
    assert db.executions() == []


def test_a_waiting_execution_starts_when_a_thread_is_free(fresh_server):
    db = fresh_server(load_args={"ExecutionThreads": 1})
    first = db.start(ENDLESS)
    db.wait_status(first, "running")
    second = db.start("GB('ShardsIDReader').run()")
    assert db.status(second) == "created"
    db.r.execute_command("RG.ABORTEXECUTION", first)
    db.wait_status(second, "done")
    assert text(db.r.execute_command("RG.GETRESULTS", second)) == [["1"], []]


def test_max_executions_drops_the_oldest(fresh_server):
    db = fresh_server(load_args={"MaxExecutions": 3})
    started = []
    for _ in range(5):
        started.append(db.start("GB('ShardsIDReader').run()"))
        db.wait_status(started[-1], "done")
    assert sorted(e.id for e in db.executions()) == sorted(started[2:])
    assert db.wire()("RG.GETRESULTS", started[0]) == Err("execution plan does not exist")


def test_max_executions_counts_the_executions_of_registrations(fresh_server):
    db = fresh_server(load_args={"MaxExecutions": 3})
    db.ok("GB().register('watched:*')")
    for number in range(3):
        db.r.set(f"watched:{number}", "v")
        db.wait_quiet()
    first = {int(e.id.rpartition("-")[2]) for e in db.executions()}
    assert len(first) == 3
    db.r.set("watched:more", "v")
    db.wait_quiet()
    assert {int(e.id.rpartition("-")[2]) for e in db.executions()} == {n + 1 for n in first}


def test_more_runs_than_threads_all_finish(db):
    executions = [db.start("GB('ShardsIDReader').map(lambda _: sum(range(10000))).run()") for _ in range(30)]
    for execution in executions:
        db.wait_status(execution, "done", deadline=30)
        assert text(db.r.execute_command("RG.GETRESULTS", execution)) == [[str(sum(range(10000)))], []]


def test_execution_ids_are_never_used_twice(db):
    executions = [db.start("GB('ShardsIDReader').run()") for _ in range(20)]
    assert len(set(executions)) == 20


def test_a_slow_run_appears_in_the_slow_log_with_the_client_s_own_command(db):
    db.r.config_set("slowlog-log-slower-than", 100_000)
    db.r.slowlog_reset()
    script = "import time\nGB('ShardsIDReader').map(lambda _: time.sleep(0.2)).run()"
    db.results(script)
    commands = [entry["command"] for entry in db.r.slowlog_get()]
    db.r.config_set("slowlog-log-slower-than", 10_000)
    assert any(command.startswith(b"RG.PYEXECUTE") for command in commands), commands


def test_pyexecute_inside_execute_says_that_blocking_is_not_allowed(db):
    script = """GB('ShardsIDReader').map(lambda _: execute('RG.PYEXECUTE', "GB('ShardsIDReader').run()")).run()"""
    assert "blocking is not allowed" in db.errors(script)[0]


def test_the_connection_still_works_after_a_refused_command(db):
    client = db.client(single_connection_client=True)
    with pytest.raises(redis.ResponseError):
        client.execute_command("RG.GETRESULTS", UNKNOWN)
    assert client.ping()
