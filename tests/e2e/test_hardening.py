"""What a review of the module found: each of these once hurt the server, a client or the data."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import redis

from .database import text
from .waiting import wait_until


@pytest.mark.parametrize("command", ["RG.GETRESULTSBLOCKING", "RG.ABORTEXECUTION"])
def test_a_function_that_calls_a_command_which_waits_gets_an_error(db, command, tmp_path):
    gate = tmp_path / "open"
    execution = db.start(
        "import os, time\n"
        f"def wait(_):\n    while not os.path.exists({str(gate)!r}): time.sleep(0.005)\n"
        "GB('ShardsIDReader').foreach(wait).run()"
    )
    errors = db.errors(f"GB('ShardsIDReader').map(lambda _: execute('{command}', '{execution}')).run()")
    assert "blocking is not allowed" in errors[0]
    gate.touch()
    db.wait_status(execution, "done")


def test_a_sync_function_writes_nothing_while_clients_are_paused_not_even_by_a_script(fresh_server):
    db = fresh_server(conf={"appendonly": "yes"})
    db.ok(
        "GB().foreach(lambda r: execute('eval', \"redis.call('set', 'w', '1')\", 0))"
        ".register('*', eventTypes=['keymiss'], mode='sync', readValue=False)"
    )
    db.r.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
    assert db.r.get("missing") is None
    assert "PAUSED" in (db.registration().lastError or "")
    db.r.execute_command("CLIENT", "UNPAUSE")
    assert db.r.exists("w") == 0


def test_a_queued_run_whose_worker_dies_before_it_began_is_answered(fresh_server):
    db = fresh_server(load_args={"ExecutionThreads": 1})
    long = db.start("import time\nGB('ShardsIDReader').foreach(lambda _: time.sleep(60)).run()")
    db.wait_status(long, "running")
    answer: list[str] = []

    def run() -> None:
        try:
            db.client().execute_command("RG.PYEXECUTE", "execute('set', 'pid', __import__('os').getpid())\nGB().run()")
        except redis.ResponseError as error:
            answer.append(str(error))
        else:
            answer.append("results")

    thread = threading.Thread(target=run)
    thread.start()
    pid = int(db.wait_key("pid"))
    wait_until(lambda: len(db.executions()), "the second run is queued", until=lambda count: count == 2)
    os.kill(pid, signal.SIGKILL)
    thread.join(10)
    assert answer
    db.r.execute_command("RG.ABORTEXECUTION", long)


def test_a_run_that_is_aborted_while_its_script_goes_on_is_answered(db):
    answer: list[object] = []
    script = "import time\nGB('ShardsIDReader').run()\nexecute('set', 'started', 1)\ntime.sleep(0.3)"
    thread = threading.Thread(target=lambda: answer.append(db.client().execute_command("RG.PYEXECUTE", script)))
    thread.start()
    db.wait_key("started")
    [execution] = db.executions()
    db.r.execute_command("RG.ABORTEXECUTION", execution.id)
    thread.join(10)
    assert text(answer) == [[[], []]]
    db.wait_quiet()
    assert db.r.info("rg_workers")["rg_sessions"] == 0


def test_one_oversized_entry_of_a_batch_does_not_take_the_others_with_it(fresh_server):
    db = fresh_server(load_args={"MaxRecordBytes": 1000})
    db.ok("GB('StreamReader').foreach(lambda r: execute('rpush', 'seen', r['value']['n'])).register('s', batch=5)")
    for number in range(5):
        db.r.xadd("s", {"n": number, "pad": "x" * (5000 if number == 2 else 1)})
    wait_until(
        lambda: text(db.r.lrange("seen", 0, -1)), "the others were seen", until=lambda s: s == ["0", "1", "3", "4"]
    )
    assert "MaxRecordBytes" in (db.registration().lastError or "")
    wait_until(
        lambda: db.r.xpending("s", "__gears_consumer_group__")["pending"], "none is left", until=lambda n: n == 0
    )


def test_the_module_cannot_be_unloaded_while_its_code_is_in_use(db):
    with pytest.raises(redis.ResponseError):
        db.r.execute_command("MODULE", "UNLOAD", "rg")
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


def test_a_worker_inherits_nothing_even_while_the_server_writes_its_log(db):
    for _ in range(20):
        script = (
            "import os\nGB('ShardsIDReader').map(lambda _: sorted(int(n) for n in os.listdir('/proc/self/fd'))"
            ".__len__() < 12).run()\nlog('x' * 500)"
        )
        assert db.results(script) == ["True"]


def test_of_two_scripts_that_take_the_same_name_at_once_one_fails(db, tmp_path):
    gate = tmp_path / "open"
    script = (
        "import os, time\n"
        "GB('CommandReader').map(lambda x: 1).register(trigger='t')\n"
        "execute('incr', 'asked')\n"
        f"while not os.path.exists({str(gate)!r}): time.sleep(0.005)\n"
    )
    answers: list[object] = []

    def run() -> None:
        try:
            answers.append(db.client().execute_command("RG.PYEXECUTE", script))
        except redis.ResponseError as error:
            answers.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    db.wait_value("asked", 2)
    gate.touch()
    for thread in threads:
        thread.join(10)
    assert sorted(map(str, answers)) == ["b'OK'", "trigger already registered"]
    assert len(db.registrations()) == 1
