"""Waiting for a condition, with a deadline and the last value.

Tests never sleep for a guessed time: they name the condition and the deadline, and on failure they show the last
value.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two polls: short enough not to slow a test, long enough not to use a core.
POLL_INTERVAL = 0.01


class NotInTimeError(AssertionError):
    """A condition did not become true before its deadline."""


def wait_until(
    look: Callable[[], T],
    what: str,
    *,
    deadline: float = 10.0,
    until: Callable[[T], object] = bool,
) -> T:
    """Call ``look`` until ``until(value)`` is truthy, and return that value.

    ``deadline`` is in seconds. Exceptions of ``look`` are not swallowed, so a dead server ends the wait at once.
    """
    started = time.monotonic()
    while True:
        value = look()
        if until(value):
            return value
        waited = time.monotonic() - started
        if waited > deadline:
            raise NotInTimeError(f"after {waited:.1f} s still not: {what}; last value seen: {value!r}")
        time.sleep(POLL_INTERVAL)
