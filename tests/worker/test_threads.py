"""Scheduling: lanes, limits, sync starts, aborts, batches, and no deadlocks.

Times are generous bounds, never sleeps for synchronisation: executions that must overlap wait for each other.
"""

# ruff: noqa: E501 (scripts and tables read better in one line)

import os
import threading
import time

import pytest

from . import frames
from .server import Server, encoded

SPIN = "def spin(x):\n    while True:\n        pass\n"
BARRIER = """
import threading
barrier = threading.Barrier({})
GB().map(lambda r: barrier.wait(5) is not None).run(convertToStr=False)
"""
TRIGGER = "GB('CommandReader').map({}).register(trigger='t', convertToStr=False)"


def meet(server, names=("meet",)):
    """Commands that are answered when the test releases them."""
    for name in names:
        server.commands[name] = lambda *args: Ellipsis


# ---- several at once ----


def test_two_that_wait_overlap():
    with Server(threads=2) as server:
        meet(server)
        plan = server.plan(TRIGGER.format("lambda r: execute('meet')"))
        first, second = server.start(plan, [["t"]]), server.start(plan, [["t"]])
        calls = [server.held.get(timeout=5) for _ in range(2)]
        assert {call["exec"] for call in calls} == {first, second}
        # Answered in the reverse order.
        for call in reversed(calls):
            server.send(frames.reply(call["call"], value=encoded(call["exec"])))
        for exec_ in (first, second):
            assert server.done(exec_)[:2] == ([exec_], [])


def test_two_that_sleep_overlap():
    with Server(threads=2) as server:
        # Each waits until the other has come.
        plan = server.plan(BARRIER.format(2))
        for exec_ in [server.start(plan, [["t"]]) for _ in range(2)]:
            assert server.done(exec_)[:2] == ([True], [])


def test_one_thread_serialises():
    with Server(threads=1) as server:
        meet(server)
        plan = server.plan(TRIGGER.format("lambda r: execute('meet')"))
        execs = [server.start(plan, [["t"]]) for _ in range(3)]
        for exec_ in execs:
            call = server.held.get(timeout=5)
            assert call["exec"] == exec_
            time.sleep(0.02)
            assert server.held.empty(), "a second one began"
            server.send(frames.reply(call["call"], value=encoded(1)))
            assert server.done(exec_)[1] == []


def test_more_threads_may_be_given_later():
    with Server(threads=1) as server:
        plan = server.plan(BARRIER.format(3))
        execs = [server.start(plan, [["t"]]) for _ in range(3)]
        server.send(frames.threads(3))
        for exec_ in execs:
            assert server.done(exec_)[:2] == ([True], [])


def test_a_lane_is_served_in_order_and_one_at_a_time():
    with Server(threads=4) as server:
        source = """
import threading, time
inside = threading.Lock()
order = []
def f(r):
    assert inside.acquire(blocking=False), 'two at once'
    order.append(r[1])
    time.sleep(0.003)
    inside.release()
    return list(order)
"""
        plan = server.plan(source + "GB().map(f).run(convertToStr=False)")
        execs = [server.start(plan, [["t", number]], lane=7) for number in range(12)]
        for number, exec_ in enumerate(execs):
            assert server.done(exec_)[:2] == ([list(range(number + 1))], [])


def test_a_short_one_is_served_beside_one_that_computes():
    with Server(threads=2) as server:
        plan = server.plan(SPIN + TRIGGER.format("spin"))
        endless = server.start(plan, [["t"]])
        short = server.plan(TRIGGER.format("len"), session=2)
        started = time.monotonic()
        assert server.done(server.start(short, [["t"]]))[:2] == ([1], [])
        assert time.monotonic() - started < 1
        server.send(frames.abort(endless))
        assert len(server.done(endless)[1]) == 1


def test_a_script_runs_beside_executions_at_their_limit():
    with Server(threads=1) as server:
        endless = server.start(server.plan(SPIN + "GB().map(spin).run()"), [1])
        assert server.script("x = 1", session=2)["error"] is None
        server.send(frames.abort(endless))
        server.done(endless)


# ---- sync ----


def test_sync_starts_do_not_count_and_do_not_wait():
    with Server(threads=1) as server:
        endless = server.start(server.plan(SPIN + "GB().map(spin).run()"), [1])
        sync = server.plan("GB().map(lambda x: x + 1).register('x', mode='sync', convertToStr=False)", session=2)
        queued = server.start(sync, [1])
        for _ in range(20):
            started = time.monotonic()
            exec_ = server.start(sync, [1], flags=frames.LAST | frames.SYNC)
            assert server.done(exec_)[:2] == ([2], [])
            assert time.monotonic() - started < 1
        assert not any(frame["kind"] == "done" and frame["exec"] == queued for frame in server.frames)
        server.send(frames.abort(endless))
        server.done(endless)
        assert server.done(queued)[:2] == ([2], [])


def test_a_sync_start_is_served_while_its_cause_waits_for_the_answer():
    """execute -> event -> sync function of the same session, which executes itself; three deep."""
    with Server(threads=1) as server:
        source = """
def f(r):
    return execute('fire', r['n'] - 1) if r['n'] else 'bottom'
GB().map(f).register('x', mode='sync', convertToStr=False)
"""
        plan = server.plan(source)

        def fire(number):
            # A thread of the server's would block here; this one must continue to read.
            def answer(call):
                inner = server.start(plan, [{"n": int(number)}], flags=frames.LAST | frames.SYNC)
                results, errors, _ = server.done(inner)
                assert not errors, errors
                server.send(frames.reply(call["call"], value=encoded(results[0])))

            threading.Thread(target=lambda: answer(server.held.get(timeout=5))).start()
            return Ellipsis

        server.commands["fire"] = fire
        assert server.done(server.start(plan, [{"n": 3}]))[:2] == (["bottom"], [])


# ---- input in batches ----


def test_an_execution_that_waits_for_input_occupies_nothing():
    with Server(threads=1) as server:
        plan = server.plan("GB().accumulate(lambda a, x: (a or 0) + x).run(convertToStr=False)")
        waiting = [server.start(plan, [1], flags=frames.TRACEBACK) for _ in range(5)]
        assert server.done(server.start(plan, [1, 2]))[:2] == ([3], [])
        for exec_ in reversed(waiting):
            server.feed(exec_, [10], last=False)
        for exec_ in waiting:
            server.feed(exec_, [], last=True)
            assert server.done(exec_)[:2] == ([11], [])


def test_feeds_of_one_execution_stay_in_order():
    with Server(threads=3) as server:
        plan = server.plan("GB().map(lambda x: x).run(convertToStr=False)")
        execs = [server.start(plan, [], flags=0) for _ in range(4)]
        for number in range(50):
            for exec_ in execs:
                server.feed(exec_, [number], last=number == 49)
        for exec_ in execs:
            assert server.done(exec_)[:2] == (list(range(50)), [])


# ---- abort ----


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "while True:\n        try:\n            while True: pass\n        except Exception: pass",
        "import time\n    while True:\n        try: time.sleep(0.01)\n        except Exception: pass",
        "return [0 for _ in iter(int, 1)]",
        "execute('meet')",
        "try: execute('meet')\n    except Exception: pass\n    while True: pass",
    ],
)
def test_what_runs_is_interrupted(server, body):
    meet(server)
    plan = server.plan(f"def f(x):\n    {body}\nGB().map(f).run()")
    exec_ = server.start(plan, [1, 2])
    server.wait_for("progress", exec=exec_)
    server.send(frames.abort(exec_))
    results, errors, done = server.done(exec_)
    assert (results, len(errors), done["aborted"]) == ([], 1, False)
    assert "Execution was aborted" in errors[0]
    # Nothing of the interruption affects the next execution.
    for _ in range(20):
        assert server.run("GB().map(lambda x: sum(range(2000))).run()", [1])[1] == []


def test_code_that_catches_everything_for_a_while_is_interrupted_again(server):
    source = """
caught = []
def f(x):
    while len(caught) < 5:
        try: spin(x)
        except BaseException: caught.append(1)
    return 'survived'
GB().map(f).run()
"""
    exec_ = server.start(server.plan(SPIN + source), [1, 2])
    server.wait_for("progress", exec=exec_)
    server.send(frames.abort(exec_))
    results, errors, done = server.done(exec_)
    assert (results, len(errors), done["aborted"]) == (["survived"], 1, False), errors


def test_what_has_not_begun_is_taken_back(server):
    plan = server.plan(SPIN + "GB().map(spin).run()")
    running, queued, other = (server.start(plan, [1], lane=lane) for lane in (1, 1, 0))
    server.wait_for("progress", exec=running)
    for exec_ in (other, queued):
        server.send(frames.abort(exec_, begun=False))
        results, errors, done = server.done(exec_)
        assert (results, errors, done["aborted"]) == ([], [], True)
    server.send(frames.abort(running, begun=False))
    server.send(frames.abort(12345))
    # Frames are handled in order: what ends now was aborted after the others.
    last = server.start(plan, [1], lane=1)
    server.send(frames.abort(last, begun=False))
    assert server.done(last)[2]["aborted"]
    assert not any(frame["kind"] == "done" for frame in server.frames), "what had begun was touched"
    server.send(frames.abort(running))
    assert len(server.done(running)[1]) == 1


def test_what_waits_for_input_ends_with_what_it_had(server):
    plan = server.plan("GB().map(lambda x: x).run(convertToStr=False)")
    exec_ = server.start(plan, [1, 2], flags=frames.TRACEBACK)
    server.wait_for("consumed", exec=exec_)
    server.send(frames.abort(exec_))
    results, errors, done = server.done(exec_)
    assert (results, errors, done["aborted"]) == ([1, 2], ["Execution was aborted"], False)
    # Input in transit is not an error.
    server.feed(exec_, [3], last=True)
    assert server.run("GB().run()", [1]) == (["1"], [])


def test_the_next_of_a_lane_begins_after_an_abort(server):
    spin = server.plan(SPIN + "GB().map(spin).run()")
    plan = server.plan("GB().map(lambda x: x).run()")
    first, second = server.start(spin, [1], lane=3), server.start(plan, [5], lane=3)
    server.wait_for("progress", exec=first)
    server.send(frames.abort(first))
    assert server.done(second)[:2] == (["5"], [])


# ---- frames to the server meanwhile ----


def test_a_long_step_is_named(server):
    source = (
        "import time\nGB().map(lambda x: x).foreach(lambda x: time.sleep(0.1)).map(lambda x: time.sleep(0.1)).run()"
    )
    exec_ = server.start(server.plan(source), [1])
    assert [server.wait_for("progress", exec=exec_)["step"] for _ in range(2)] == [1, 2]
    server.done(exec_)
    quick = server.start(server.plan("GB().run()"), [1])
    server.done(quick)
    assert not any(frame["kind"] == "progress" and frame["exec"] == quick for frame in server.frames)


def test_a_result_does_not_wait_for_the_next_execution(server):
    plan = server.plan(SPIN + TRIGGER.format("lambda r: spin(r) if r[1] else 'short'"))
    short, endless = server.start(plan, [["t", 0]]), None
    endless = server.start(plan, [["t", 1]])
    started = time.monotonic()
    assert server.done(short)[:2] == (["short"], [])
    assert time.monotonic() - started < 1
    server.send(frames.abort(endless))
    server.done(endless)


def test_results_of_a_burst_leave_together():
    with Server(threads=1) as server:
        plan = server.plan(TRIGGER.format("len"))
        server.done(server.start(plan, [["t"]]))
        execs = range(1 << 20, (1 << 20) + 50)
        before = _writes(server.process.pid)
        server.send(b"".join(frames.start(exec_, plan, [encoded(["t"])]) for exec_ in execs))
        for exec_ in execs:
            assert server.done(exec_)[:2] == ([1], [])
        assert _writes(server.process.pid) - before < 15


def _writes(pid):
    with open(f"/proc/{pid}/io") as counters:
        return next(int(line.split()[1]) for line in counters if line.startswith("syscw"))


def test_an_unknown_plan_is_an_error_and_not_the_end(server):
    assert server.done(server.start(99, [1]))[1] == [
        "Error type: <class 'gears.error'>, Value: plan 99 is unknown in this worker: its session has ended"
    ]
    plan = server.plan("GB().run()")
    server.send(frames.forget_plans([plan]))
    assert server.script("")["error"] is None
    assert "is unknown" in server.done(server.start(plan, [1]))[1][0]


def test_objects_that_act_when_they_go_do_so_before_the_end(server):
    source = """
class Loud:
    def __init__(self, x): self.x = x
    def __del__(self): execute('ping', self.x)
GB().map(Loud).accumulate(lambda a, x: x).filter(lambda x: False).run()
"""
    exec_ = server.start(server.plan(source), [1, 2])
    assert server.done(exec_)[:2] == ([], [])
    calls = [call for call in server.calls if call["op"] == "execute"]
    assert len(calls) == 2 and all(call["exec"] == exec_ for call in calls)


# ---- everything at once ----


def test_many_of_all_kinds_at_once():
    """Sync and async, I/O and computation, batches and aborts, with additional user threads: each ends as expected."""
    seconds = float(os.environ.get("REDGREASE_TEST_SECONDS", "3"))
    with Server(threads=3) as server:
        chatty = server.plan(
            "GB('CommandReader').map(lambda r: [execute('get', str(i)) for i in range(20)][-1]).register(trigger='a')",
            session=1,
        )
        busy = server.plan("GB('CommandReader').map(lambda r: sum(range(20000))).register(trigger='b')", session=2)
        bulk = server.plan(
            "GB().map(lambda x: len(execute('get', str(x)))).aggregate(0, lambda a, x: a + x, lambda a, x: a + x).run()",
            session=3,
        )
        spin = server.plan(SPIN + "GB().map(spin).run()", session=4)
        users = """
import threading
stop = False
session = getGearsSession()
def work():
    setGearsSession(session)
    while not stop:
        execute('ping')
threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
for thread in threads: thread.start()
def end(r):
    global stop
    stop = True
    for thread in threads: thread.join(5)
    return [thread.is_alive() for thread in threads]
GB().map(end).run(convertToStr=False)
"""
        end = server.plan(users, session=5)
        until = time.monotonic() + seconds
        rounds = 0
        while time.monotonic() < until:
            rounds += 1
            flags = frames.LAST | (frames.SYNC if rounds % 3 == 0 else 0)
            open_ = [server.start(chatty, [["a"]], flags=flags) for _ in range(4)]
            open_ += [server.start(busy, [["b"]], flags=flags, lane=rounds % 2) for _ in range(4)]
            fed = server.start(bulk, [1], flags=0)
            endless = server.start(spin, [1], lane=9)
            for number in range(5):
                server.feed(fed, [number] * 3, last=number == 4)
            server.send(frames.abort(endless))
            for exec_ in open_:
                results, errors, _ = server.done(exec_)
                assert not errors and results in (["b'value of 19'"], [str(sum(range(20000)))])
            assert server.done(fed)[:2] == ([str(16 * len("value of 1"))], [])
            results, errors, done = server.done(endless)
            assert not results and (done["aborted"] or len(errors) == 1)
            server.frames.clear()
        assert server.done(server.start(end, [["end"]]))[:2] == ([[False, False]], [])
        assert rounds > 2
