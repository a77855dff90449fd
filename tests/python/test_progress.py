"""The progress of runs: what is written, and when."""

from __future__ import annotations

import io
import sys
import threading
import types

import pytest
from redgrease import KeysReader, data, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Gears:
    """Stands for the commands of an engine whose execution runs until it has been asked for its state `asked` times."""

    def __init__(self, asked=0, total=1, failing=False):
        self.calls, self.enough = [], threading.Event()
        self._asked, self._total, self._failing = asked, total, failing
        if not asked:
            self.enough.set()

    def pyexecute(self, function, unblocking=False, requirements=None, **kwargs):
        self.calls.append(("pyexecute", unblocking, requirements, kwargs))
        return data.ExecutionResult(data.ExecID("a", 1)) if unblocking else data.ExecutionResult([], [], [])

    def getresultsblocking(self, execution):
        assert self.enough.wait(20)
        return data.ExecutionResult([], [], [])

    def dropexecution(self, execution):
        self.calls.append(("dropexecution", execution))

    def getexecution(self, execution):
        self._asked -= 1
        if self._asked <= 0:
            self.enough.set()
        if self._failing:
            raise ConnectionError
        plan = {"status": "running", "read_duration": 1500}
        return {str(n): data.ExecutionPlan.from_redis(plan) for n in range(self._total)}


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.01)
    monkeypatch.setattr(progress, "_tqdm", lambda: None)
    terminal = Terminal()
    monkeypatch.setattr(progress, "sys", types.SimpleNamespace(stderr=terminal, modules=sys.modules))
    return terminal


FUNCTION = KeysReader().count()


def test_nothing_is_shown_and_nothing_is_changed_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    gears = Gears()
    FUNCTION.run(on=gears, progress=True)
    assert gears.calls == [("pyexecute", False, None, {})]
    monkeypatch.setattr(sys, "stderr", None)
    FUNCTION.run(on=gears, progress=True)
    monkeypatch.setattr(sys, "stderr", Terminal())
    FUNCTION.run(on=gears)
    assert {call[1] for call in gears.calls} == {False}


def test_a_fast_run_shows_nothing(terminal, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 60.0)
    gears = Gears()
    assert FUNCTION.run(on=gears, progress=True, requirements=["x"]) == 0
    assert gears.calls == [("pyexecute", True, None, {}), ("dropexecution", data.ExecID("a", 1))]
    assert terminal.getvalue() == ""


def test_the_state_and_the_time_are_shown_and_removed(terminal):
    assert FUNCTION.run(on=Gears(3), progress=True) == 0
    assert "\rrun: running, read 1.5 s [00:00]" in terminal.getvalue()
    assert terminal.getvalue().endswith(" \r")
    FUNCTION.run(on=Gears(3, total=4), progress=True)
    assert "0 of 4 shards" in terminal.getvalue()


def test_questions_that_fail_do_not_disturb_the_run(terminal):
    assert FUNCTION.run(on=Gears(3, failing=True), progress=True) == 0
    assert "ConnectionError" in terminal.getvalue()


def test_tqdm_is_used_if_it_is_installed(terminal, monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.undo()
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.01)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert FUNCTION.run(on=Gears(3), progress=True) == 0
    assert "running" in terminal.getvalue()


def test_a_registration_has_no_progress(terminal):
    gears = Gears()
    KeysReader().register().on(gears, progress=True)
    assert gears.calls[0][1] is False


def test_a_notebook_is_recognized(monkeypatch):
    class ZMQInteractiveShell:
        pass

    class TerminalInteractiveShell:
        pass

    for shell, expected in ((ZMQInteractiveShell, True), (TerminalInteractiveShell, False)):
        ipython = types.SimpleNamespace(get_ipython=shell)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        assert progress._is_shown(io.StringIO()) is expected
