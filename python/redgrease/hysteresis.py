"""Timers that are restarted by each signal, so that a burst of signals causes one call.

All timers share one background thread, which calls one handler after the other and ends with the program. What a
handler raises is logged, and kept with the timer.

>>> done = HysteresisHandlerIndex(hysteresis_duration=0.01)
>>> for text in ("first", "second", "last"):
...     done.signal("file.py", print, text)
>>> done.join(timeout=10)
last
True
"""

from __future__ import annotations

import collections
import functools
import heapq
import itertools
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Hashable
from typing import Any, Callable

__all__ = ["HysteresisHandlerIndex", "ResettableTimer", "nop"]

_log = logging.getLogger(__name__)
#: Modules are emptied at the end of the program, and functions stay.
_is_finalizing = sys.is_finalizing

DEFAULT_TIMEOUT = 1.0
"""Seconds after which a timer runs if no other time is given."""
PENDING_MAX = 100_000
"""Number of ids of an index that may wait at the same time."""
ERRORS_MAX = 100
"""Number of exceptions that an index keeps."""


def nop(*_args: Any, **_kwargs: Any) -> None:
    """Do nothing."""


class _Call:
    """A call that waits for its time. It is cancelled by taking its function away."""

    __slots__ = ("clock", "function")

    def __init__(self, clock: _Clock, function: Callable[[], None]) -> None:
        self.clock = clock
        self.function: Callable[[], None] | None = function


class _Clock:
    """Calls functions at their times, on one thread that is started when it is needed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: list[tuple[float, int, _Call]] = []
        self._cancelled = 0
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def after(self, seconds: float, function: Callable[[], None]) -> _Call:
        """Call `function`, which must not raise, after some time."""
        call = _Call(self, function)
        entry = (time.monotonic() + seconds, next(self._numbers), call)
        with self._changed:
            if self._cancelled > 64 and 2 * self._cancelled > len(self._calls):
                self._calls = [waiting for waiting in self._calls if waiting[2].function is not None]
                heapq.heapify(self._calls)
                self._cancelled = 0
            heapq.heappush(self._calls, entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="redgrease-hysteresis", daemon=True)
                self._thread.start()
            self._changed.notify()
        return call

    def cancel(self, call: _Call) -> bool:
        """Take a call back; `False` if it has begun, or was cancelled before, or belongs to the parent process."""
        if call.clock is not self:
            return False
        with self._changed:
            if call.function is None:
                return False
            call.function = None
            self._cancelled += 1
            return True

    def _run(self) -> None:
        while True:
            try:
                self._next()()
            except BaseException:  # such as `sys.exit()` in a handler: the thread serves all other timers, too
                _log.exception("a handler failed")

    def _next(self) -> Callable[[], None]:
        """Wait for the next call that is due, remove it, and return its function."""
        with self._changed:
            while True:
                if not self._calls:
                    self._changed.wait()
                elif self._calls[0][2].function is None:
                    heapq.heappop(self._calls)
                    self._cancelled -= 1
                elif self._calls[0][0] > time.monotonic():
                    self._changed.wait(min(self._calls[0][0] - time.monotonic(), threading.TIMEOUT_MAX))
                else:
                    call = heapq.heappop(self._calls)[2]
                    function, call.function = call.function, None
                    if function is not None:
                        return function


_clock = _Clock()


def _renew_clock() -> None:
    """A child process has no thread, and begins without calls."""
    global _clock
    _clock = _Clock()


os.register_at_fork(after_in_child=_renew_clock)


def _seconds(timeout: float | None) -> float:
    seconds = timeout or DEFAULT_TIMEOUT
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ValueError(f"a time must be from 0 to {threading.TIMEOUT_MAX:.0f} seconds, got {timeout!r}")
    return seconds


class ResettableTimer:
    """Calls a handler after some time, unless it is set again, or cancelled, before.

    A timer that is not referenced any more is cancelled.

    Attributes:
        error: what the last handler on the background thread raised, or `None`.

    >>> timer = ResettableTimer()
    >>> timer.set(60, print, "called")
    >>> timer.trigger()
    called
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._call: _Call | None = None
        self._handler: Callable[[], Any] = nop

    def set(self, timeout: float | None, handler: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call ``handler(*args, **kwargs)`` after `timeout` seconds (1 if it is `None` or 0), in place of what waits.

        Raises:
            ValueError: `timeout` is negative, or no number.
        """
        seconds = _seconds(timeout)
        called = functools.partial(handler, *args, **kwargs)
        timer = weakref.ref(self)  # the clock must not keep the timer alive

        def run() -> None:
            error = None
            try:
                called()
            except Exception as raised:
                _log.exception("a handler failed")
                error = raised
            alive = timer()
            if alive is not None:
                alive.error = error

        self.cancel()
        self._handler = called
        self._call = _clock.after(seconds, run)

    def cancel(self) -> bool:
        """Cancel what waits; return whether something did."""
        call, self._call = self._call, None
        return call is not None and _clock.cancel(call)

    def trigger(self) -> None:
        """Cancel what waits, and call the handler that was set last now, on this thread."""
        self.cancel()
        self._handler()

    def __del__(self) -> None:
        # At the end of the program, the thread of the clock may have been stopped with the lock.
        if not _is_finalizing() and getattr(self, "_call", None) is not None:
            self.cancel()


class HysteresisHandlerIndex:
    """Calls a handler for each id when there was no signal for that id for some time.

    Args:
        hysteresis_duration: the time, in seconds.
        pending_max: number of ids that may wait at the same time.

    Attributes:
        errors: the last exceptions of handlers, as pairs of an id and the exception.
    """

    def __init__(self, hysteresis_duration: float = DEFAULT_TIMEOUT, pending_max: int = PENDING_MAX) -> None:
        self.errors: collections.deque[tuple[Hashable, Exception]] = collections.deque(maxlen=ERRORS_MAX)
        self._duration = _seconds(hysteresis_duration)
        self._pending_max = pending_max
        self._ended = threading.Condition()
        self._calls: dict[Hashable, tuple[object, _Call]] = {}
        self._running = 0

    @property
    def pending(self) -> int:
        """Number of ids that wait."""
        return len(self._calls)

    def signal(self, handler_id: Hashable, handler: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call ``handler(*args, **kwargs)`` when no other signal for `handler_id` comes in time.

        Raises:
            RuntimeError: too many other ids wait.
        """
        token = object()
        with self._ended:
            _, previous = self._calls.pop(handler_id, (None, None))
            if previous is not None:
                _clock.cancel(previous)
            if len(self._calls) >= self._pending_max:
                raise RuntimeError(f"{self._pending_max} handlers wait, which is the limit (pending_max)")
            run = functools.partial(self._run, handler_id, token, functools.partial(handler, *args, **kwargs))
            self._calls[handler_id] = token, _clock.after(self._duration, run)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all handlers have run, at most `timeout` seconds; return whether they have."""
        with self._ended:
            return self._ended.wait_for(lambda: not self._calls and not self._running, timeout)

    def _run(self, handler_id: Hashable, token: object, called: Callable[[], Any]) -> None:
        with self._ended:
            if self._calls.get(handler_id, (None,))[0] is not token:
                return  # there was another signal when this call was about to begin
            del self._calls[handler_id]
            self._running += 1
        try:
            called()
        except Exception as error:
            _log.exception("the handler of %r failed", handler_id)
            self.errors.append((handler_id, error))
        finally:
            with self._ended:
                self._running -= 1
                self._ended.notify_all()
