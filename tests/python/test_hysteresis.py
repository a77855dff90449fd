"""Timers that signals restart."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import pytest
from redgrease import hysteresis
from redgrease.hysteresis import HysteresisHandlerIndex, ResettableTimer, nop

SOON, LATER = 0.01, 3600.0


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "redgrease-hysteresis"]


def test_nop():
    assert nop(1, x=2) is None


def test_a_timer_calls_its_handler_on_one_daemon_thread():
    called = threading.Event()
    timers = [ResettableTimer() for _ in range(50)]
    for timer in timers:
        timer.set(LATER, nop)
    timers[0].set(SOON, called.set)
    assert called.wait(10)
    assert [thread.daemon for thread in threads()] == [True]


def test_a_timer_is_reset_cancelled_and_triggered():
    calls = []
    timer = ResettableTimer()
    assert timer.cancel() is False
    timer.trigger()
    timer.set(LATER, calls.append, "first")
    timer.set(LATER, calls.append, "second")
    timer.trigger()
    assert calls == ["second"]
    timer.set(LATER, calls.append, "third")
    assert timer.cancel() is True
    assert timer.cancel() is False
    assert calls == ["second"]


def test_a_handler_that_exits_ends_no_other_timer(caplog):
    exited, called = HysteresisHandlerIndex(SOON), threading.Event()
    exited.signal("x", sys.exit, 1)
    assert exited.join(10)
    timer = ResettableTimer()
    timer.set(SOON, called.set)
    assert called.wait(10)
    assert "a handler failed" in caplog.text


@pytest.mark.parametrize("timeout", [None, 0])
def test_the_default_is_a_second(monkeypatch, timeout):
    monkeypatch.setattr(hysteresis, "DEFAULT_TIMEOUT", SOON)
    called = threading.Event()
    timer = ResettableTimer()
    timer.set(timeout, called.set)
    assert called.wait(10)


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), 1e30])
def test_impossible_times_are_refused(timeout):
    with pytest.raises(ValueError, match="seconds"):
        ResettableTimer().set(timeout, nop)
    with pytest.raises(ValueError, match="seconds"):
        HysteresisHandlerIndex(timeout)


def test_a_forgotten_timer_is_cancelled():
    calls = []
    timer = ResettableTimer()
    timer.set(LATER, calls.append, 1)
    call = timer._call
    del timer
    gc.collect()
    assert call.function is None


def test_an_exception_is_kept_and_logged_and_the_thread_lives(caplog):
    timer, other, called = ResettableTimer(), ResettableTimer(), threading.Event()
    timer.set(SOON, int, "x")
    other.set(2 * SOON, called.set)
    assert called.wait(10)
    assert isinstance(timer.error, ValueError)
    assert "a handler failed" in caplog.text


def test_a_burst_of_signals_is_one_call_for_each_id():
    calls = []
    index = HysteresisHandlerIndex(0.05)
    for number in range(20):
        index.signal("a", calls.append, ("a", number))
        index.signal("b", calls.append, ("b", number))
    assert index.pending == 2
    assert index.join(10)
    assert sorted(calls) == [("a", 19), ("b", 19)]
    assert index.pending == 0
    assert index.join(0)


def test_signals_of_a_running_handler_run_it_again():
    calls, index = [], HysteresisHandlerIndex(SOON)

    def handler(left):
        calls.append(left)
        if left:
            index.signal("a", handler, left - 1)

    index.signal("a", handler, 2)
    assert index.join(10)
    assert calls == [2, 1, 0]


def test_a_call_that_is_late_for_the_next_signal_is_dropped():
    calls, index = [], HysteresisHandlerIndex(LATER)
    index.signal("a", calls.append, 1)
    token, _ = index._calls["a"]
    index.signal("a", calls.append, 2)
    index._run("a", token, lambda: calls.append("late"))
    assert (calls, index.pending) == ([], 1)


def test_exceptions_of_handlers_are_kept_in_bounds(caplog):
    index = HysteresisHandlerIndex(SOON)
    for number in range(hysteresis.ERRORS_MAX + 5):
        index.signal(number, int, "x")
    assert index.join(10)
    assert len(index.errors) == hysteresis.ERRORS_MAX
    assert index.errors[-1][0] == hysteresis.ERRORS_MAX + 4
    assert isinstance(index.errors[-1][1], ValueError)


def test_waiting_ids_are_bounded():
    index = HysteresisHandlerIndex(LATER, pending_max=2)
    for handler_id in ("a", "b", "a", "b"):
        index.signal(handler_id, nop)
    with pytest.raises(RuntimeError, match="2 handlers wait"):
        index.signal("c", nop)
    assert index.join(0) is False


def test_many_signals_do_not_accumulate():
    index = HysteresisHandlerIndex(LATER)
    for _ in range(5000):
        index.signal("a", nop)
    assert len(hysteresis._clock._calls) < 1000


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_has_timers_of_its_own():
    timer = ResettableTimer()
    timer.set(LATER, nop)
    child = os.fork()
    if not child:
        called = threading.Event()
        timer.cancel()
        timer.set(SOON, called.set)
        os._exit(0 if called.wait(10) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_process_ends_while_a_timer_waits() -> None:
    """The thread of the clock may have been stopped while it held the lock."""
    program = (
        "from redgrease.hysteresis import ResettableTimer, _clock\n"
        "timer = ResettableTimer()\n"
        "timer.set(60, print, 'called')\n"
        "_clock._changed.acquire()\n"
        "def f(): timer\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
