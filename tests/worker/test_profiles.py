"""Profiles of sessions that change while they are measured."""

from __future__ import annotations

import sys

import pytest
from redgrease.worker import sessions


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(sessions, "_sessions", {7: sessions.Session(7, "seven", {})})
    return sessions.Sessions()


def is_profiling():
    monitoring = getattr(sys, "monitoring", None)
    return sys.getprofile() is not None or (monitoring is not None and monitoring.get_tool(2) is not None)


@pytest.mark.parametrize("change", [lambda known: known.profile(7, None), lambda _: sessions._sessions.clear()])
def test_a_session_that_drops_its_profile_does_not_keep_the_profiler_running(known, change):
    assert known.profile_begin(7)
    change(known)
    known.profile_end(7)
    assert not is_profiling()


def test_only_one_thread_is_profiled(known):
    assert known.profile_begin(7)
    assert not known.profile_begin(7)
    known.profile_end(7)
    assert known.profile_begin(7)
    known.profile_end(7)
    assert "function calls" in known.profile(7, "tottime")
