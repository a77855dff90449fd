"""Progress of long runs, on a terminal or in a notebook: the state of the execution and the time it takes.

``run(on=client, progress=True)`` shows it when the run takes more than a second. As with tqdm, which is used if it is
installed, nothing is shown where standard error is neither a terminal nor a notebook.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from .data import ExecID, ExecutionResult
    from .gears import ClosedGearFunction

__all__ = ["run_with_progress"]

DELAY = 1.0
"""Seconds after which something is shown."""
INTERVAL = 0.5
"""Seconds between two questions for the state of the execution."""


def run_with_progress(
    function: ClosedGearFunction[Any],
    server: Any,
    requirements: Iterable[Any] | None = None,
    **kwargs: Any,
) -> ExecutionResult[Any]:
    """Run a function and show its progress; arguments and result as of `redgrease.ClosedGearFunction.on`."""
    from redis.exceptions import ResponseError

    from .commands import count_nothing
    from .data import ExecID
    from .engine import execute_function, gears_of

    if not _is_shown(sys.stderr):
        return execute_function(function, server, False, requirements, None, **kwargs)  # type: ignore[no-any-return]
    gears = gears_of(server)
    if inspect.iscoroutinefunction(gears.pyexecute):
        raise TypeError("progress needs a client without coroutines")
    started = execute_function(function, gears, True, requirements, None, **kwargs)
    if not isinstance(started.value, ExecID):
        return started  # type: ignore[no-any-return]
    with _Shown(gears, started.value):
        result = gears.getresultsblocking(started.value)
    with contextlib.suppress(ResponseError):  # it may be removed already
        gears.dropexecution(started.value)
    count_nothing(function, result)
    return result  # type: ignore[no-any-return]


def _is_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def _is_shown(stream: TextIO | None) -> bool:
    return _is_notebook() or (stream is not None and stream.isatty())


class _Shown:
    """Shows an execution from another thread, while this one waits for the results."""

    def __init__(self, gears: Any, execution: ExecID) -> None:
        self._gears, self._execution = gears, execution
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, name="redgrease-progress", daemon=True)

    def __enter__(self) -> _Shown:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join(timeout=10)

    def _show(self) -> None:
        begin = time.monotonic()
        if self._ended.wait(DELAY):
            return
        line = _tqdm() or _Line(sys.stderr)
        try:
            while True:
                done, total, state = self._state()
                line.show(done, total, state, time.monotonic() - begin)
                if self._ended.wait(INTERVAL):
                    return
        finally:
            line.close()

    def _state(self) -> tuple[int, int, str]:
        """Number of shards that have ended, number of shards, and a text."""
        try:
            plans = self._gears.getexecution(self._execution).values()
        except Exception as error:  # such as a lost connection, which the run itself reports
            return 0, 0, type(error).__name__
        ended = sum(str(plan.status) in ("done", "aborted") for plan in plans)
        states = sorted({str(plan.status) for plan in plans})
        read = max((plan.read_duration for plan in plans), default=0)
        return ended, len(plans), ", ".join(states) + (f", read {read / 1000:.1f} s" if read else "")


class _Line:
    """A line of a terminal that is written again and again."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._width = 0

    def show(self, done: int, total: int, state: str, seconds: float) -> None:
        shards = f", {done} of {total} shards" if total > 1 else ""
        text = f"run: {state}{shards} [{int(seconds) // 60:02}:{int(seconds) % 60:02}]"
        self._stream.write(f"\r{text.ljust(self._width)}")
        self._stream.flush()
        self._width = len(text)

    def close(self) -> None:
        self._stream.write(f"\r{' ' * self._width}\r")
        self._stream.flush()


class _Bar:
    """A bar of tqdm."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def show(self, done: int, total: int, state: str, seconds: float) -> None:
        self._bar.total = total or None
        self._bar.n = done
        self._bar.set_postfix_str(state, refresh=True)

    def close(self) -> None:
        self._bar.close()


def _tqdm() -> _Bar | None:
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        return None
    return _Bar(tqdm(desc="run", unit=" shards", leave=False))
