"""What notebooks and terminals show of real executions, registrations and results."""

from __future__ import annotations

import io
import sys
import time
import types

import pytest

redgrease = pytest.importorskip("redgrease")
progress = pytest.importorskip("redgrease.progress")


@pytest.fixture
def r(db):
    """The package's own client."""
    client = redgrease.RedisGears(host="127.0.0.1", port=db.server.port)
    yield client
    client.close()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.01)
    monkeypatch.setattr(progress, "_tqdm", lambda: None)
    terminal = Terminal()
    monkeypatch.setattr(progress, "sys", types.SimpleNamespace(stderr=terminal, modules=sys.modules))
    return terminal


def test_lists_of_the_engine_are_tables(r):
    redgrease.KeysReader(desc="<i>about</i>").foreach(print).register("user:*", mode="sync", on=r)
    redgrease.ShardsIDReader().run().on(r, unblocking=True)
    registrations = r.gears.dumpregistrations()
    assert isinstance(registrations, list)
    shown = registrations._repr_html_()
    assert "&lt;i&gt;about&lt;/i&gt;" in shown and "numTriggered" in shown
    assert "RegistrationData" not in shown
    assert str(registrations[0].id) in registrations[0]._repr_html_()
    executions = r.gears.dumpexecutions()
    assert str(executions[0].executionId) in executions._repr_html_()
    (plan,) = r.gears.getexecution(executions[0]).values()
    assert "steps" in plan._repr_html_()


def test_results_are_tables_of_notebooks_and_of_pandas(r):
    r.mset({"<a>": "1", "b": "2"})
    result = redgrease.KeysReader().run(on=r)
    assert "&lt;a&gt;" in result._repr_html_() and "<a>" not in result._repr_html_()
    pandas = pytest.importorskip("pandas")
    frame = result.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert sorted(frame["key"]) == ["<a>", "b"]
    assert set(frame.columns) == {"event", "key", "type", "value"}
    assert list(redgrease.KeysReader().count().run(on=r).to_pandas()["value"]) == [2]


def test_a_run_with_progress_has_the_results_of_one_without(r, terminal):
    r.mset({f"k{number}": number for number in range(10)})
    values = redgrease.KeysReader("k*").values().map(int)
    for function in (values, values.count(), redgrease.KeysReader("none").count(), values.map(lambda x: 1 // x)):
        plain, shown = function.run(on=r), function.run(on=r, progress=True)
        assert sorted(shown.records) == sorted(plain.records)
        assert shown == plain or len(plain) > 1
        assert [error.type for error in shown.errors] == [error.type for error in plain.errors]
    assert r.gears.dumpexecutions() == []


def slow(record):
    time.sleep(0.3)
    return record


def test_the_state_of_a_run_is_shown(r, terminal):
    r.set("k", "v")
    assert redgrease.KeysReader("k").keys().map(slow).run(on=r, progress=True) == "k"
    assert "run: running" in terminal.getvalue()


def test_early_errors_send_nothing(r):
    before = r.info("commandstats")
    with pytest.raises(TypeError, match="an option of StreamReader"):
        redgrease.KeysReader().register(batch=5, on=r)
    with pytest.raises(ValueError, match="batch must be"):
        redgrease.StreamReader().register(batch=0, on=r)
    with pytest.raises(TypeError, match="close it with register"):
        r.gears.pyexecute(redgrease.CommandReader().apply(len))
    after = r.info("commandstats")
    assert {name for name in after if "rg." in name} == {name for name in before if "rg." in name}
