"""Object rows: the time that the package adds to a run, of function objects and of texts, over the text by redis-py."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import redgrease
from judge import Bars, Measured, Spread
from rounds import Run, WrongResultError, in_turn, words
from server import Server

#: Runs of each form in a round; the median of a round counts.
RUNS = 200
KEYS = 5

#: In milliseconds for each run.
BAR = Bars(final=1, less_is_better=True)
ROWS: dict[str, str] = {
    "object-run": "a function object, built and run",
    "object-closed": "a function object that was built before",
    "object-text": "a text, run by the package",
}


def measure(run: Run, chosen: list[str]) -> Iterator[Measured]:
    """Measures the chosen rows on one server."""
    with ExitStack() as stack:
        server = stack.enter_context(Server(run.server))
        client = stack.enter_context(redgrease.Redis(port=server.port))
        for name in chosen:
            yield _measure_row(run, name, server, client)


def _measure_row(run: Run, name: str, server: Server, client: Any) -> Measured:
    prefix, offset = words(run.rng(name), 1)[0], run.rng(name).randint(1, 9)
    for number in range(KEYS):
        server.redis.set(f"{prefix}:{number}", number)
    expected = sum(range(KEYS)) + KEYS * offset
    script = (
        f"add = lambda a, x: a + x\n"
        f"GB().map(lambda x: int(x['value']) + {offset}).aggregate(0, add, add).run('{prefix}:*')"
    )

    def function() -> Any:
        steps = redgrease.KeysReader(f"{prefix}:*").map(lambda x: int(x["value"]) + offset)
        return steps.aggregate(0, lambda a, x: a + x, lambda a, x: a + x)

    closed = function().run()
    forms: dict[str, Callable[[], Any]] = {
        "object-run": lambda: function().run(on=client).value,
        "object-closed": lambda: closed.on(client).value,
        "object-text": lambda: int(client.gears.pyexecute(script).value),
    }

    def by_client() -> int:
        return int(client.execute_command("RG.PYEXECUTE", script)[0][0])

    runs = run.size(RUNS, run.rng(name))
    plain, ours = [], []
    for number in run.rounds(name):
        took = in_turn(
            number, *(lambda form=form: _median_ms(form, runs, expected) for form in (by_client, forms[name]))
        )
        plain.append(took[0])
        ours.append(took[1])
    spread = Spread.of(ours)
    return Measured(
        row=name,
        question=f"{ROWS[name]}, more than the text by redis-py",
        ratios=[mine - theirs for mine, theirs in zip(ours, plain)],
        yardstick=plain,
        ours=ours,
        yardstick_name="text by redis-py",
        unit="ms",
        bars=BAR,
        notes=[f"a run takes {spread.median:.2f} [{spread.q1:.2f}..{spread.q3:.2f}] ms"],
        ratio_unit="ms",
    )


def _median_ms(form: Callable[[], Any], runs: int, expected: int) -> float:
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        result = form()
        took.append(time.perf_counter() - start)
        if result != expected:
            raise WrongResultError(f"the result is {result!r}, not {expected}")
    return statistics.median(took) * 1000
