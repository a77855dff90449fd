"""Regressions: each of these once harmed the server, a client or the data."""

from __future__ import annotations

import os
import re
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


def _pid_of(path) -> int:
    return int(wait_until(lambda: path.exists() and path.read_text().strip(), "the worker told its pid"))


def test_many_large_replies_at_once_neither_stall_the_server_nor_fill_its_memory(db):
    db.r.set("big", "x" * 400_000)
    script = """
from threading import Thread
session = getGearsSession()
def ask():
    setGearsSession(session)
    for _ in range(25):
        execute('get', 'big')
def step(_):
    threads = [Thread(target=ask) for _ in range(40)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return 'done'
GB('ShardsIDReader').map(step).run()
"""
    with db.pinging() as pings:
        assert db.results(script) == ["done"]
    pings.assert_never_stalled(0.3)


#: Sends its own calls and reads no replies.
UNREAD = """
import os, signal, stat
def carrier():
    [fd] = [int(n) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)
            and stat.S_ISSOCK(os.fstat(int(n)).st_mode)]
    return fd
def varint(number):
    return bytes([number]) if number < 128 else bytes([number % 128 | 128]) + varint(number // 128)
def ask(count, after):
    execution, session = here()
    caller = (bytes([0]) if execution is None else bytes([1]) + varint(execution)) + varint(session)
    body = bytes([2]) + caller + bytes([0, 0, 2, 3]) + b'get' + bytes([3]) + b'big'
    data = (len(body).to_bytes(4, 'little') + body) * count
    while data:
        data = data[os.write(carrier(), data):]
    after()
"""


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_calls_of_a_worker_that_reads_no_answers_are_not_served(fresh_server, tmp_path):
    db = fresh_server(load_args={"SharedMemory": 0})
    db.r.set("big", "x" * 400_000)
    pid = tmp_path / "pid"
    script = f"""
{UNREAD}
from redgrease import _native
def here():
    return _native.current_execution(), _native.current_session()
def step(_):
    open({str(pid)!r}, 'w').write(str(os.getpid()))
    ask(500, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    return 'it continues'
GB('ShardsIDReader').map(step).run()
"""
    used = db.r.info("memory")["used_memory"]
    with db.pinging() as pings:
        execution = db.start(script)
        worker = _pid_of(pid)
        wait_until(lambda: _state(worker), "the worker is stopped", until=lambda state: state == "T")
        for _ in range(20):
            assert db.r.info("memory")["used_memory"] - used < 60_000_000
        db.r.execute_command("RG.ABORTEXECUTION", execution)
        db.wait_status(execution, "done", "aborted")
    pings.assert_never_stalled(0.3)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGSTOP)", "it was stopped by a signal"),
        ("os.write(carrier(), bytes([100, 0, 0, 0, 1]))", "a frame that it began was not finished"),
        ("ask(100, lambda: os.kill(os.getpid(), signal.SIGSTOP))", "it left|it was stopped"),
    ],
    ids=["stopped", "unfinished-frame", "unread"],
)
def test_a_worker_that_owes_an_answer_and_does_not_move_is_ended(fresh_server, what, message):
    # The frames of the test are written to the socket.
    db = fresh_server(load_args={"WorkerStallMax": 500, "SharedMemory": 0})
    db.r.set("big", "x" * 400_000)
    script = f"""
{UNREAD}
def here():
    from redgrease import _native
    return _native.current_execution(), _native.current_session()
{what}
while True: pass
"""
    error = db.refused(script)
    assert re.search(message, error), error
    assert "for longer than WorkerStallMax (500 ms)" in error
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


def test_an_idle_worker_that_is_stopped_does_not_keep_the_next_script_waiting(fresh_server):
    db = fresh_server(load_args={"WorkerStallMax": 500})
    [pid] = db.results("import os\nGB('ShardsIDReader').map(lambda _: os.getpid()).run()")
    os.kill(int(pid), signal.SIGSTOP)
    error = db.refused("GB('ShardsIDReader').run()")
    assert "it was stopped by a signal for longer than WorkerStallMax (500 ms)" in error
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


LOOP = "GB('ShardsIDReader').foreach(lambda _: exec('while True: pass')).run()"


def test_endless_executions_of_one_session_do_not_keep_those_of_others_waiting(fresh_server):
    db = fresh_server(load_args={"ExecutionThreads": 2})
    db.ok("GB('CommandReader').foreach(lambda x: exec('while True: pass')).register(trigger='loop', inorder=False)")
    db.ok("GB('CommandReader').map(lambda x: x[1]).register(trigger='other')")
    for _ in range(4):
        db.wire().send("RG.TRIGGER", "loop")
    wait_until(
        lambda: sum(execution.status == "running" for execution in db.executions()),
        "two loops run",
        until=lambda count: count == 2,
    )
    for word in ("a", "b", "c"):
        assert db.trigger("other", word) == [word]


def test_endless_executions_of_several_sessions_do_not_keep_others_waiting(fresh_server):
    db = fresh_server(load_args={"ExecutionThreads": 2})
    for execution in [db.start(LOOP) for _ in range(3)]:
        db.wait_status(execution, "running")
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


def test_an_execution_that_runs_longer_than_the_limit_is_aborted(fresh_server):
    db = fresh_server(load_args={"ExecutionMaxTime": 200})
    [error, *_] = db.errors(LOOP)
    assert error == "TOOLONG the execution ran longer than ExecutionMaxTime (200 ms) and was aborted"
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


def test_calls_that_wait_while_clients_are_paused_are_bounded_in_bytes(fresh_server, tmp_path):
    db = fresh_server()
    gate, refused = tmp_path / "open", tmp_path / "refused"
    execution = db.start(f"""
import os, time
from threading import Thread
session = getGearsSession()
errors = []
def write(number):
    setGearsSession(session)
    try:
        execute('set', 'k%d' % number, 'x' * (1 << 20))
    except Exception as error:
        errors.append(str(error))
        open({str(refused)!r}, 'w').close()
def step(_):
    while not os.path.exists({str(gate)!r}): time.sleep(0.002)
    threads = [Thread(target=write, args=(number,)) for number in range(100)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return errors[0]
GB('ShardsIDReader').map(step).run()
""")
    db.wait_status(execution, "running")
    db.r.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
    gate.touch()
    wait_until(refused.exists, "a call is refused")
    assert db.r.info("memory")["used_memory"] > 60_000_000
    db.r.execute_command("CLIENT", "UNPAUSE")
    db.wait_status(execution, "done")
    [result] = text(db.r.execute_command("RG.GETRESULTS", execution)[0])
    assert result.startswith("PAUSED") and result.endswith("the limit is 67108864 bytes for all")
    assert 60 <= db.r.dbsize() < 100
    assert db.r.info("memory")["used_memory_peak"] < 250_000_000


def test_a_function_may_write_again_as_soon_as_clients_may_and_no_longer_than_they(fresh_server):
    db = fresh_server(conf={"save": "3600 1"})
    db.ok("GB('CommandReader').map(lambda x: execute('set', 'k', x[1])).register(trigger='write')")
    db.ok("GB('CommandReader').map(lambda x: execute('get', 'k')).register(trigger='read')")
    # A snapshot cannot replace a directory.
    obstacle = os.path.join(db.r.config_get("dir")["dir"], db.r.config_get("dbfilename")["dbfilename"])
    for number in range(3):
        assert db.trigger("write", number) == ["OK"]
        if os.path.exists(obstacle):
            os.unlink(obstacle)
        os.mkdir(obstacle)
        db.r.bgsave()
        wait_until(lambda: db.r.info("persistence")["rdb_last_bgsave_status"], "it failed", until=lambda s: s == "err")
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            db.r.set("k", "of a client")
        assert "MISCONF" in db.trigger_refused("write", "refused")
        assert db.trigger("read") == [str(number)]
        db.r.config_set("stop-writes-on-bgsave-error", "no")
        assert db.trigger("write", number) == ["OK"]
        db.r.config_set("stop-writes-on-bgsave-error", "yes")
        assert "MISCONF" in db.trigger_refused("write", "refused")
        os.rmdir(obstacle)
        db.r.save()


def test_a_worker_that_is_stopped_and_continued_while_it_is_served_loses_no_answer(db):
    db.r.set("large", "x" * 400_000)
    waiting = db.wire()
    waiting.send(
        "RG.PYEXECUTE",
        """
import os, threading
execute('set', 'pid', os.getpid())
def step(_):
    lengths = []
    def call():
        for _ in range(15):
            lengths.append(len(execute('GET', 'large')))
    threads = [threading.Thread(target=call) for _ in range(40)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return (len(lengths), set(lengths))
GB('ShardsIDReader').map(step).run()
""",
    )
    pid = int(db.wait_key("pid"))
    for _ in range(6):
        os.kill(pid, signal.SIGSTOP)
        # Long enough for the replies to fill the worker's socket.
        db.r.execute_command("DEBUG", "SLEEP", "0.03")
        os.kill(pid, signal.SIGCONT)
        db.r.ping()
    assert waiting.read() == [[b"(600, {400000})"], []]
