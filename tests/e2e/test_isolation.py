"""Faults of user code harm its own worker, but never the server.

Each test lets a function misbehave as badly as it can, and then checks three things: the client gets a clear error in
time, the server answers PING throughout, and the next run works.
"""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from .database import text
from .processes import process
from .waiting import wait_until

#: The server may be busy for this long with what a worker does to it. Generous, because test machines are shared.
STALL_LIMIT_S = 0.5

#: Stores its pid and then loops forever in a step that can be recognised by its name.
TELL_AND_LOOP = """
import os, time
def tell(_):
    # Long enough for the worker to have said which step it is in.
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        pass
    execute('set', 'pid', os.getpid())
    while True:
        pass
GB('ShardsIDReader').filter(lambda _: True).map(tell).run()
"""


def assert_healthy(db) -> None:
    """The next runs work as usual."""
    for _ in range(3):
        assert db.results("GB('ShardsIDReader').run()") == ["1"]
    assert db.r.ping()


def misbehave(db, expression: str, before: str = "") -> str:
    """The error of a run whose only step evaluates ``expression``, with the server watched meanwhile."""
    with db.pinging() as pings:
        message = db.failure(f"{before}\nGB('ShardsIDReader').map(lambda _: {expression}).run()")
    pings.assert_never_stalled(STALL_LIMIT_S)
    return message


def test_a_killed_worker_ends_its_run_within_a_second_with_an_error_that_names_everything(db):
    waiting = db.wire()
    with db.pinging() as pings:
        waiting.send("RG.PYEXECUTE", TELL_AND_LOOP)
        pid = int(db.wait_key("pid"))
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        results, errors = waiting.read()
        waited = time.monotonic() - began
    assert waited < 1.0
    assert results == []
    [message] = text(errors)
    assert re.search(r"worker \S+", message)
    assert f"pid {pid}" in message
    assert "signal 9" in message
    assert "step" in message and "map" in message
    pings.assert_never_stalled(STALL_LIMIT_S)
    assert_healthy(db)


def test_a_worker_killed_while_its_script_is_read_is_an_error_reply(db):
    waiting = db.wire()
    waiting.send("RG.PYEXECUTE", "import os\nexecute('set', 'pid', os.getpid())\nwhile True:\n    pass")
    pid = int(db.wait_key("pid"))
    os.kill(pid, signal.SIGKILL)
    message = waiting.read().text
    assert f"pid {pid}" in message and "signal 9" in message
    assert_healthy(db)


def test_a_killed_worker_ends_an_unblocking_run_with_an_error(db):
    execution = db.start(TELL_AND_LOOP)
    os.kill(int(db.wait_key("pid")), signal.SIGKILL)
    db.wait_status(execution, "done", "aborted")
    results, errors = text(db.r.execute_command("RG.GETRESULTS", execution))
    assert results == []
    assert "signal 9" in errors[0]


def test_a_killed_worker_ends_only_the_executions_of_its_own_session(db, tmp_path):
    gate = tmp_path / "open"
    waiting, dying = db.wire(), db.wire()
    waiting.send(
        "RG.PYEXECUTE",
        f"""
import os, time
def wait(_):
    execute('set', 'waiting', '1')
    end = time.monotonic() + 20
    while not os.path.exists({str(gate)!r}) and time.monotonic() < end:
        time.sleep(0.005)
    return 'through'
GB('ShardsIDReader').map(wait).run()
""",
    )
    db.wait_key("waiting")
    dying.send("RG.PYEXECUTE", TELL_AND_LOOP)
    os.kill(int(db.wait_key("pid")), signal.SIGKILL)
    assert dying.read()[1]
    gate.touch()
    assert waiting.read() == [[b"through"], []]


@pytest.mark.parametrize(
    ("expression", "fragment"),
    [
        ("__import__('ctypes').string_at(0)", "signal 11"),
        ("__import__('os').abort()", "signal 6"),
        ("__import__('os').kill(__import__('os').getpid(), 9)", "signal 9"),
        ("__import__('os').kill(__import__('os').getpid(), 15)", "signal 15"),
        ("__import__('os')._exit(0)", "0"),
        ("__import__('os')._exit(7)", "7"),
    ],
)
def test_a_worker_that_ends_itself_is_an_error_that_says_how(db, expression, fragment):
    message = misbehave(db, expression)
    assert "worker" in message.lower()
    assert "pid" in message
    assert fragment in message
    assert "'map'" in message and "of execution" in message, "the script has ended, and its execution has not"
    assert_healthy(db)


def test_a_worker_that_ends_itself_in_a_script_is_an_error_that_says_so(db):
    message = db.failure("import os\nos._exit(7)")
    assert "exited with status 7 while it ran the script" in message
    assert_healthy(db)


def test_a_worker_that_dies_in_the_middle_of_many_records_is_one_error(db):
    script = """
import os
def step(x):
    if x == 5000:
        os._exit(1)
    return x
def feed():
    yield from range(10000)
GB('PythonReader').map(step).run(feed)
"""
    assert len(db.errors(script)) == 1
    assert_healthy(db)


def test_a_worker_that_dies_under_a_keys_scan_is_one_error(db):
    db.r.mset({f"k:{i}": i for i in range(5000)})
    script = "import os\nGB().map(lambda r: os._exit(1) if r['key'] == 'k:2500' else r['key']).run()"
    with db.pinging() as pings:
        assert len(db.errors(script)) == 1
    pings.assert_never_stalled(STALL_LIMIT_S)
    assert_healthy(db)


def test_dying_again_and_again_is_survived(db):
    for _ in range(15):
        assert db.failure("import os\nGB('ShardsIDReader').map(lambda _: os._exit(1)).run()")
    assert_healthy(db)


@pytest.mark.parametrize("expression", ["bytearray(1 << 50)", "[0] * (1 << 60)"])
def test_asking_for_absurd_memory_is_an_ordinary_error(db, expression):
    assert "MemoryError" in misbehave(db, expression)
    assert_healthy(db)


def test_a_memory_hog_ends_alone(db):
    before = """
import resource
def hog(_):
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    hoard = []
    while True:
        hoard.append(bytearray(16 << 20))
"""
    message = misbehave(db, "hog(_)", before)
    assert message
    assert_healthy(db)


def test_a_worker_that_grew_is_replaced(db):
    def memory() -> int:
        return sum(worker.rss() for worker in db.server.workers())

    db.results("GB('ShardsIDReader').run()")
    for _ in range(3):
        script = "import sys\nsys.hoard = getattr(sys, 'hoard', []) + ['x' * 200_000_000]\nGB('ShardsIDReader').run()"
        assert db.results(script) == ["1"]
    db.results("GB('ShardsIDReader').run()")
    wait_until(memory, "the workers are small again", until=lambda total: total < 350_000_000, deadline=20)


def test_endless_recursion_is_an_ordinary_error(db):
    assert "RecursionError" in misbehave(db, "f(0)", "def f(n):\n    return f(n + 1)")
    assert_healthy(db)


def test_a_flood_of_output_does_not_hurt_the_server(db):
    before = """
import sys
def flood(_):
    for i in range(200_000):
        print('flood line', i, 'x' * 100)
        print('flood line', i, 'x' * 100, file=sys.stderr)
    return 'survived'
"""
    script = f"{before}\nGB('ShardsIDReader').map(flood).run()"
    size = db.server.log_path.stat().st_size
    with db.pinging() as pings:
        assert db.results(script) == ["survived"]
    pings.assert_never_stalled(STALL_LIMIT_S)
    assert db.server.log_path.stat().st_size - size < 200_000 * 2 * 100, "the log takes everything that is printed"
    assert_healthy(db)


def test_output_without_line_ends_does_not_fill_the_memory(db):
    script = """
import sys
def flood(_):
    for i in range(2000):
        sys.stdout.write('x' * 50_000)
    sys.stdout.flush()
    return 'survived'
GB('ShardsIDReader').map(flood).run()
"""
    used = db.r.info("memory")["used_memory"]
    assert db.results(script) == ["survived"]
    wait_until(
        lambda: db.r.info("memory")["used_memory"] - used,
        "the server's memory is as before",
        until=lambda grown: grown < 20_000_000,
    )
    db.results("GB('ShardsIDReader').foreach(lambda _: print('a line of the next script')).run()")
    db.wait_log("a line of the next script")


def test_an_unfinished_line_of_one_script_does_not_swallow_the_next_script_s_output(db):
    for word in ("unfinished", "next"):
        db.results(f"import os\nGB('ShardsIDReader').foreach(lambda _: os.write(1, b'{word} line')).run()")
    db.wait_log("unfinished line")
    db.wait_log("next line")
    assert not any("unfinished line" in ln and "next line" in ln for ln in db.server.new_log().splitlines())


def test_strange_bytes_in_the_output_are_harmless(db):
    script = """
import os
def step(_):
    os.write(1, b'\\xff\\xfe %s %n \\x00 end of strange output\\n')
    os.write(2, b'\\x1b[2J\\r\\n')
GB('ShardsIDReader').map(step).run()
"""
    db.results(script)
    db.wait_log("end of strange output")
    assert_healthy(db)


def test_a_worker_that_closes_all_its_descriptors_costs_itself_only(db):
    # Its answer may come through the shared memory before the closed connection is noticed, and until then it may be
    # given the next run.
    db.execute("GB('ShardsIDReader').foreach(lambda _: __import__('os').closerange(0, 4096)).run()")
    db.wait_log("WORKERDIED")
    assert_healthy(db)


#: Finds the descriptor that the server gave to this worker.
CARRIER = """
import os, sys
def carrier():
    with open('/proc/self/cmdline', 'rb') as f:
        words = f.read().split(b'\\0')
    return int(words[words.index(b'--fd') + 1])
"""


@pytest.mark.parametrize(
    "payload",
    [
        "b'\\xff' * 1_000_000",
        "b'\\0' * 1_000_000",
        "b'\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x7f' * 4",
        "b'\\xff\\xff\\xff\\x7f' + b'x' * 100",
        "b'\\x01'",
        "os.urandom(1_000_000)",
        "b'*3\\r\\n$3\\r\\nSET\\r\\n$1\\r\\nk\\r\\n$1\\r\\nv\\r\\n'",
    ],
    ids=["ones", "zeros", "huge-length", "long-length", "one-byte", "random", "resp"],
)
def test_a_worker_that_writes_nonsense_to_the_server_costs_itself_only(db, payload):
    before = (
        CARRIER
        + f"""
def scream(_):
    os.set_blocking(carrier(), True)
    os.write(carrier(), {payload})
    while True:
        pass
"""
    )
    execution = db.start(f"{before}\nGB('ShardsIDReader').map(scream).run()")
    with db.pinging() as pings:
        # The server may detect it at once, or (if it still waits for the rest of a frame) only on the abort.
        try:
            db.wait_status(execution, "done", "aborted", deadline=1)
        except AssertionError:
            db.r.execute_command("RG.ABORTEXECUTION", execution)
            db.wait_status(execution, "done", "aborted")
    pings.assert_never_stalled(STALL_LIMIT_S)
    assert db.r.get("k") is None
    assert db.r.execute_command("RG.GETRESULTS", execution)[1]
    assert_healthy(db)


def test_a_worker_that_floods_the_carrier_costs_itself_only(db):
    script = (
        CARRIER
        + """
def flood(_):
    os.set_blocking(carrier(), True)
    while True:
        os.write(carrier(), os.urandom(65536))
GB('ShardsIDReader').map(flood).run()
"""
    )
    with db.pinging() as pings:
        assert db.failure(script)
    pings.assert_never_stalled(STALL_LIMIT_S)
    assert_healthy(db)


def test_a_worker_that_stops_reading_costs_itself_only(db):
    db.r.mset({f"k:{i}": "x" * 10_000 for i in range(5000)})
    execution = db.start(
        """
import os, signal
def stop(r):
    execute('set', 'pid', os.getpid())
    os.kill(os.getpid(), signal.SIGSTOP)
GB().map(stop).run('k:*')
"""
    )
    db.wait_key("pid")
    with db.pinging() as pings:
        assert db.results("GB().count().run('k:*')") == ["5000"]
        db.r.execute_command("RG.ABORTEXECUTION", execution)
        db.wait_status(execution, "done", "aborted")
    pings.assert_never_stalled(STALL_LIMIT_S)
    assert_healthy(db)


def test_a_worker_that_wrecks_its_shared_memory_costs_itself_only(db):
    script = """
import mmap, os
def wreck(_):
    touched = 0
    for name in os.listdir('/proc/self/fd'):
        try:
            target = os.readlink('/proc/self/fd/' + name)
        except OSError:
            continue
        if 'memfd:' in target:
            fd = int(name)
            touched += 1
            try:
                os.ftruncate(fd, 0)
            except OSError:
                pass
            try:
                size = os.fstat(fd).st_size
                if size:
                    with mmap.mmap(fd, size) as memory:
                        memory[:] = b'\\xff' * size
            except (OSError, ValueError):
                pass
    return touched
GB('ShardsIDReader').map(wreck).run()
"""
    db.execute(script)
    assert_healthy(db)
    db.r.mset({f"k:{i}": i for i in range(1000)})
    assert db.results("GB().map(lambda r: r['value']).count().run('k:*')") == ["1000"]


def test_a_function_that_forks_does_not_confuse_the_server(db):
    script = """
import os
def fork(_):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return 'parent'
GB('ShardsIDReader').map(fork).run()
"""
    results, errors = db.run(script)
    assert results == ["parent"] or errors
    assert_healthy(db)


def test_a_function_that_starts_a_program_gets_its_output(db):
    script = "import subprocess\nGB('ShardsIDReader').map(lambda _: subprocess.getoutput('echo hi')).run()"
    assert db.results(script) == ["hi"]


def test_a_worker_inherits_neither_descriptors_nor_secrets_of_the_server(fresh_server):
    db = fresh_server(env={"SECRET_OF_THE_SERVER": "do not tell"})
    script = """
import os
def look(_):
    targets = []
    for name in os.listdir('/proc/self/fd'):
        try:
            targets.append(os.readlink('/proc/self/fd/' + name))
        except OSError:
            pass
    return [os.environ.get('SECRET_OF_THE_SERVER'), [t for t in targets if t.endswith('server.log')]]
GB('ShardsIDReader').map(look).run()
"""
    assert db.results(script) == ["[None, []]"]


def test_a_worker_is_in_a_process_group_of_its_own(db):
    [group] = db.results("import os\nGB('ShardsIDReader').map(lambda _: os.getpgid(0)).run()")
    assert int(group) != os.getpgid(db.server.pid)


def test_user_code_cannot_shadow_what_the_worker_is_made_of(db, tmp_path):
    script = """
import sys, types
for name in ('cloudpickle', 'redgrease.worker', 'json', 'struct', 'pickle'):
    sys.modules[name] = types.ModuleType(name)
GB('CommandReader').map(lambda x: len(x)).register(trigger='t')
"""
    db.execute(script)
    assert db.trigger("t", "a") == ["2"]
    assert_healthy(db)


# -- registrations survive their worker


def _kill_worker_of(db, trigger: str) -> None:
    pid = int(db.trigger(trigger)[0])
    os.kill(pid, signal.SIGKILL)
    db.wait_log(f"(pid {pid}) was killed by signal 9")  # what is sent before the server noticed may fail


PID = "import os\nGB('CommandReader').map(lambda _: os.getpid()).register(trigger='pid')\n"


def test_a_command_survives_the_death_of_its_worker(db):
    db.ok(PID + "GB('CommandReader').map(lambda x: x[1].upper()).register(trigger='shout')")
    _kill_worker_of(db, "pid")
    assert db.trigger("shout", "hello") == ["HELLO"]
    assert len(db.registrations()) == 2


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_a_trigger_and_a_hook_wait_until_the_session_is_rebuilt(db, mode):
    script = f"""
import os
GB('CommandReader').map(lambda x: os.getpid()).register(trigger='pid', mode={mode!r})
GB('CommandReader').map(lambda x: 'hooked').register(hook='strlen', mode={mode!r})
"""
    db.ok(script)
    for _ in range(3):
        pid = int(db.trigger("pid")[0])
        os.kill(pid, signal.SIGKILL)
        db.wait_log(f"(pid {pid}) was killed by signal 9")
        assert db.wire()("STRLEN", "x") == b"hooked"
        assert int(db.trigger("pid")[0]) != pid


def test_a_session_is_not_given_up_because_another_one_kills_their_worker(fresh_server):
    db = fresh_server(load_args={"MaxWorkers": 1})
    db.ok("GB('CommandReader').map(lambda x: 'here').register(trigger='victim')")
    db.ok("import os\nGB('CommandReader').foreach(lambda x: os.kill(os.getpid(), 9)).register(trigger='killer')")
    for _ in range(10):
        error = db.trigger_refused("killer")
        if "died 5 times" in error:
            break
    else:
        raise AssertionError(f"the session was not given up; the last error was {error}")
    assert db.trigger("victim") == ["here"]


STARTED_ONCE = """
import os
def note(args):
    # No command of the server: the end of the one before is not on its way because of it.
    with open(PATH, 'a') as log:
        log.write(args[1] + ' ')
    if args[1] == 'kill':
        os.kill(os.getpid(), 9)
    return args[1]
GB('CommandReader').map(note).register(trigger='note', mode='sync')
"""


def test_of_sync_commands_that_run_together_each_begins_once_when_their_worker_dies(db, tmp_path):
    db.ok(STARTED_ONCE.replace("PATH", repr(str(tmp_path / "log"))))
    names = [f"n{number}" for number in range(60)]
    names[40] = "kill"
    clients = [db.wire() for _ in names]
    sleeper = db.wire()
    for round_ in range(6):  # groups grow while they are quick
        sleeper.send("DEBUG", "SLEEP", "0.2")
        for name, client in zip(names, clients):
            client.send("RG.TRIGGER", "note", "warm" if round_ < 5 else name)
        sleeper.read()
        replies = [client.read() for client in clients]
    errors = [
        name for name, reply in zip(names, replies) if not (isinstance(reply, list) and reply[0] == name.encode())
    ]
    assert errors == ["kill"], replies
    begun = (tmp_path / "log").read_text().split()
    assert sorted(name for name in begun if name != "warm") == sorted(names)


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_a_sync_event_is_processed_when_the_session_is_rebuilt(db):
    script = """
import os
GB('CommandReader').map(lambda x: os.getpid()).register(trigger='pid')
GB().foreach(lambda r: execute('INCR', 'done')).register('w:*', mode='sync', eventTypes=['set'])
"""
    db.ok(script)
    pid = int(db.trigger("pid")[0])
    os.kill(pid, signal.SIGKILL)
    db.wait_log(f"(pid {pid}) was killed by signal 9")
    for number in range(20):
        db.r.set(f"w:{number}", "v")
    wait_until(lambda: db.r.get("done"), "all events are processed", until=lambda done: done == b"20")


def test_in_a_transaction_a_trigger_fails_while_the_session_is_rebuilt(db):
    db.ok("import os, time\nGB('CommandReader').map(lambda x: os.getpid()).register(trigger='pid', mode='sync')")
    pid = int(db.trigger("pid")[0])
    os.kill(pid, signal.SIGKILL)
    db.wait_log(f"(pid {pid}) was killed by signal 9")
    with db.r.pipeline() as pipeline:
        pipeline.execute_command("RG.TRIGGER", "pid")
        (reply,) = pipeline.execute(raise_on_error=False)
    # It may have been rebuilt meanwhile.
    assert isinstance(reply, list) or "WORKERDOWN" in str(reply)


@pytest.mark.single("its functions on all shards write a key that one shard has")
def test_a_keys_registration_survives_the_death_of_its_worker(db):
    db.ok(PID + "GB().foreach(lambda r: execute('incr', 'n')).register('w:*', readValue=False)")
    db.r.set("w:1", "v")
    db.wait_value("n", 1)
    _kill_worker_of(db, "pid")
    for number in range(20):
        db.r.set(f"w:{number}", "v")
    db.wait_value("n", 21)


def test_a_sync_registration_fires_again_after_the_death_of_its_worker(db):
    db.ok(PID + "GB().foreach(lambda r: execute('incr', 'n')).register('w:*', mode='sync', readValue=False)")
    _kill_worker_of(db, "pid")

    def fires() -> bool:
        assert db.r.set("w:1", "v")
        return db.r.get("n") is not None

    wait_until(fires, "the sync registration fires again")


def test_on_registered_runs_again_on_the_fresh_worker(db):
    db.ok(PID.replace("trigger='pid'", "trigger='pid', onRegistered=lambda: execute('incr', 'registered')"))
    db.wait_value("registered", 1)
    _kill_worker_of(db, "pid")
    db.wait_value("registered", 2)


def test_functions_keep_their_captured_values_on_the_fresh_worker(db):
    db.ok(
        PID
        + """
greeting = 'hello'
def prefix():
    suffix = '!'
    return lambda x: greeting + ' ' + x[1] + suffix
GB('CommandReader').map(prefix()).register(trigger='greet')
"""
    )
    _kill_worker_of(db, "pid")
    assert db.trigger("greet", "you") == ["hello you!"]


def test_stream_entries_that_were_not_acknowledged_are_handled_again(db):
    script = """
import os
def step(r):
    if r['value']['n'] == '3' and execute('incr', 'attempts') == 1:
        os._exit(1)
    execute('sadd', 'handled', r['value']['n'])
GB('StreamReader').foreach(step).register('s', batch=1)
"""
    db.ok(script)
    for number in range(6):
        db.r.xadd("s", {"n": number})
    wait_until(
        lambda: {m.decode() for m in db.r.smembers("handled")},
        "every entry was handled in spite of the death",
        until=lambda handled: handled == {"0", "1", "2", "3", "4", "5"},
        deadline=20,
    )
    assert int(db.r.get("attempts")) >= 2


def test_the_death_of_a_worker_is_counted_at_the_registration(db):
    db.ok("import os\nGB().foreach(lambda r: os._exit(5)).register('w:*')")
    db.r.set("w:1", "v")
    registration = wait_until(db.registration, "the failure is counted", until=lambda r: r.numFailures == 1)
    assert "worker" in registration.lastError.lower()


def test_a_trigger_whose_worker_dies_is_an_error_reply(db):
    db.ok("import os\nGB('CommandReader').map(lambda x: os._exit(5)).register(trigger='die')")
    for _ in range(2):
        message = db.trigger_refused("die")
        assert "worker" in message.lower() and "status 5" in message
    assert_healthy(db)


def test_a_sync_trigger_whose_worker_dies_is_an_error_reply(db):
    db.ok("import os\nGB('CommandReader').map(lambda x: os._exit(5)).register(trigger='die', mode='sync')")
    with db.pinging() as pings:
        assert "worker" in db.trigger_refused("die").lower()
    pings.assert_never_stalled(1.0)
    assert_healthy(db)


def test_a_worker_that_dies_in_an_atomic_block_frees_the_server(db):
    script = """
import os
def step(_):
    with atomic():
        execute('set', 'k', 'v')
        os._exit(1)
GB('ShardsIDReader').map(step).run()
"""
    with db.pinging() as pings:
        assert db.errors(script)
    pings.assert_never_stalled(1.0)
    assert db.r.set("after", "1")
    assert_healthy(db)


# -- processes that a function starts


def _alive(pid: int) -> bool:
    found = process(pid)
    return found is not None and found.alive()


FORKS = {
    "interpreter": "os.fork()",
    # The interpreter does not detect it. Its child may wait forever for a thread that only its parent has, as in any
    # CPython program; it ends with the worker.
    "library": "__import__('ctypes').PyDLL(None).fork()",
}


@pytest.mark.parametrize("fork", FORKS.values(), ids=FORKS)
def test_a_function_that_forks_and_returns_twice_gives_one_result_and_harms_no_later_script(db, fork, tmp_path):
    child = tmp_path / "child"
    script = f"""
import os
def fork(_):
    pid = {fork}
    if pid == 0:
        open({str(child)!r}, 'w').write(str(os.getpid()) + '\\n')
    return 'once'
GB('ShardsIDReader').map(fork).run()
"""
    for _ in range(3):
        assert db.results(script) == ["once"]
        began = time.monotonic()
        for _ in range(4):
            assert db.results("GB('ShardsIDReader').run()") == ["1"]
        assert time.monotonic() - began < 5
        pid = int(wait_until(lambda: child.exists() and child.read_text().strip(), "the child ran"))
        if fork == FORKS["interpreter"]:
            wait_until(lambda pid=pid: not _alive(pid), "the child has ended")
        child.unlink()
    assert "Traceback" not in db.server.new_log()


def test_the_child_of_a_fork_loses_the_connection_and_keeps_its_own_descriptors(db):
    script = """
import os
def sockets():
    names = [f'/proc/self/fd/{fd}' for fd in os.listdir('/proc/self/fd')]
    return sum(os.readlink(name).startswith('socket:') for name in names if os.path.islink(name))
def fork(_):
    pipes = [os.pipe() for _ in range(20)]
    pid = os.fork()
    if pid == 0:
        for reader, writer in pipes:
            os.write(writer, b'x')
        os._exit(sockets())
    before = sockets()
    left = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return before, left, [os.read(reader, 9) for reader, writer in pipes] == 20 * [b'x']
GB('ShardsIDReader').map(fork).run()
"""
    assert db.results(script) == ["(1, 0, True)"]


def test_a_pool_of_processes_works_in_a_function(db):
    script = """
import multiprocessing
def pool(_):
    with multiprocessing.Pool(2) as processes:
        return processes.map(abs, [-1, 2, -3])
GB('ShardsIDReader').map(pool).run()
"""
    assert db.results(script) == ["[1, 2, 3]"]


def test_a_script_that_forks_is_answered_once(db):
    assert db.execute("import os\npid = os.fork()\nGB('ShardsIDReader').run() if pid else None") == [[b"1"], []]
    assert_healthy(db)


def test_the_child_of_a_fork_cannot_call_the_server(db, tmp_path):
    answer = tmp_path / "answer"
    script = f"""
import os
def fork(_):
    pid = os.fork()
    if pid == 0:
        try:
            text = str(execute('set', 'k', 'child'))
        except Exception as error:
            text = str(error)
        open({str(answer)!r}, 'w').write(text)
        os._exit(0)
    os.waitpid(pid, 0)
    return execute('get', 'k')
GB('ShardsIDReader').map(fork).run()
"""
    assert db.results(script) == ["None"]
    assert answer.read_text().startswith("FORKED the child of a fork has no connection to the server")


def test_a_forked_child_that_fails_prints_its_error_and_ends(db):
    script = """
import os
def fork(_):
    pid = os.fork()
    if pid == 0:
        raise ValueError('in the child')
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
GB('ShardsIDReader').map(fork).run()
"""
    assert db.results(script) == ["1"]
    db.wait_log("ValueError: in the child")


#: Starts a process like a daemon: outside the worker's parent, group and session, with a bare environment.
DAEMON = """
import os, subprocess, sys
def daemon(_):
    program = "import os, time; os.setsid() if os.fork() == 0 else os._exit(0); "
    program += "open(%r, 'w').write(str(os.getpid()) + chr(10)); time.sleep(600)"
    subprocess.Popen([sys.executable, '-c', program % {path!r}], env={{}}, start_new_session=True).wait()
    execute('set', 'worker', os.getpid())
"""


def _start_daemon(db, path, after: str = "") -> int:
    db.execute(DAEMON.format(path=str(path)) + f"\nGB('ShardsIDReader').foreach(daemon){after}.run()")
    return int(wait_until(lambda: path.exists() and path.read_text().strip(), "the daemon runs"))


def test_a_process_in_a_session_of_its_own_ends_with_the_worker(db, tmp_path):
    daemon = _start_daemon(db, tmp_path / "pid")
    assert _alive(daemon)
    os.kill(int(db.r.get("worker")), signal.SIGKILL)
    wait_until(lambda: not _alive(daemon), "the daemon has ended")
    assert_healthy(db)


def test_a_process_in_a_session_of_its_own_ends_when_the_server_ends_the_worker(db, tmp_path):
    loop = f"\nwhile not __import__('os').path.exists({str(tmp_path / 'pid')!r}): pass\nwhile True: pass"
    execution = db.start(
        DAEMON.format(path=str(tmp_path / "pid")) + f"\ndef loop(_):\n    daemon(_)\n    exec({loop!r})\n"
        "GB('ShardsIDReader').foreach(loop).run()"
    )
    daemon = int(wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), "it runs"))
    worker = int(db.wait_key("worker"))
    os.kill(worker, signal.SIGSTOP)  # ignores aborts
    db.r.execute_command("RG.ABORTEXECUTION", execution)
    db.wait_status(execution, "done", "aborted")
    wait_until(lambda: not _alive(daemon) and not _alive(worker), "the daemon and the worker have ended")


def test_a_process_in_a_session_of_its_own_ends_when_the_server_is_killed(fresh_server, tmp_path):
    db = fresh_server()
    daemon = _start_daemon(db, tmp_path / "pid")
    worker = int(db.r.get("worker"))
    os.kill(db.server.pid, signal.SIGKILL)
    wait_until(lambda: not _alive(daemon) and not _alive(worker), "the daemon and the worker have ended")


def test_workers_that_close_their_connection_all_at_once_do_not_stall_the_server(fresh_server, tmp_path):
    db = fresh_server(load_args={"MaxWorkers": 8, "ExecutionThreads": 8})
    gate = tmp_path / "open"
    close = f"""
import os, socket, stat, time
def close(_):
    execute('incr', 'waiting')
    while not os.path.exists({str(gate)!r}): time.sleep(0.001)
    for name in os.listdir('/proc/self/fd'):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                socket.socket(fileno=os.dup(int(name))).shutdown(socket.SHUT_WR)
        except OSError:
            pass
    while True: time.sleep(1)
GB('ShardsIDReader').foreach(close).run()
"""
    executions = [db.start(close) for _ in range(6)]
    db.wait_value("waiting", 6)
    with db.pinging() as pings:
        gate.touch()
        for execution in executions:
            db.wait_status(execution, "done", "aborted")
            # A worker that detects first that it cannot write exits.
            error = text(db.r.execute_command("RG.GETRESULTS", execution)[1][0])
            assert "WORKERDIED" in error and ("closed its connection" in error or "signal 9" in error)
    pings.assert_never_stalled(0.15)


def test_the_text_of_an_error_is_cut_with_a_note(db):
    for script in ("raise Exception('x' * 50_000_000)", "raise flat_error('x' * 50_000_000)"):
        with db.pinging() as pings:
            message = db.refused(script)
        pings.assert_never_stalled(STALL_LIMIT_S)
        assert len(message) < 66_000
        assert "more bytes: error texts are cut to 65536" in message
    [message] = db.errors("def f(_): raise Exception('x' * 50_000_000)\nGB('ShardsIDReader').map(f).run()")
    assert len(message) < 66_000 and "error texts are cut to 65536" in message
