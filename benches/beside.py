"""Rows about what another client feels while functions call the server all the time: a PING loop beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import events
import load
from calm import Pings, pinging
from judge import Bars, Measured
from rounds import Run, words
from server import Server, run_script

P999_MAX_MS = 3.0
SECONDS = 2.0
CONNECTIONS = 50

ROWS = {
    "ping-get-50": "p99.9 of PING beside triggers with one execute('get') over 50 connections",
    "ping-sync-50": "p99.9 of PING beside sync triggers over 50 connections",
    "ping-xadd-each": "p99.9 of PING beside XADD that are processed one by one",
    "ping-execute": "p99.9 of PING beside one function that calls the server all the time",
}


def measure(run: Run, chosen: list[str]) -> Iterator[Measured]:
    """Measures the chosen rows, each on a server of its own."""
    for name in chosen:
        with Server(run.server) as server:
            yield _measure_row(run, name, server)


def _measure_row(run: Run, name: str, server: Server) -> Measured:
    work = WORKS[name](run, name, server)
    beside, idle = Pings(), Pings()
    p999: dict[str, list[float]] = {"beside": [], "idle": []}
    for number in run.rounds(name):
        works = [("beside", beside, work), ("idle", idle, lambda: time.sleep(0.3))]
        for who, pings, load_of in works if number % 2 else reversed(works):
            seen = Pings()
            with pinging(server, seen):
                load_of()
            pings.merge(seen)
            p999[who].append(seen.quantiles()["p99.9"])
    return Measured(
        row=name,
        question=ROWS[name],
        ratios=p999["beside"],
        yardstick=p999["idle"],
        ours=p999["beside"],
        yardstick_name="idle",
        unit="ms",
        bars=Bars(final=P999_MAX_MS, less_is_better=True),
        ratio_unit="ms",
        is_noise_judged=False,
        notes=[f"p50/p99/p99.9/max ms: {beside.text()}, idle {idle.text()}"],
        extra={"beside_pings": beside.as_json(), "idle_pings": idle.as_json()},
    )


def _triggers(expression: str, mode: str, run: Run, name: str, server: Server) -> Callable[[], object]:
    trigger, key, value = words(run.rng(name), 3)
    server.redis.set(key, value)
    registration = f"register(trigger={trigger!r}, mode={mode!r})"
    run_script(server.redis, f"GB('CommandReader').map(lambda r: {expression}).{registration}")
    command = ("RG.TRIGGER", trigger, key)
    requests = load.requests_for(SECONDS * run.scale, server.port, CONNECTIONS, *command)
    return lambda: load.drive(server.port, CONNECTIONS, requests, *command)


def _messages(run: Run, name: str, server: Server) -> Callable[[], object]:
    stem, rest, counter, field = words(run.rng(name), 4)
    row = events.ROWS["xadd-each"]
    run_script(server.redis, row.script.format(prefix=f"{stem}:*", counter=counter, record="r"))
    count = max(1000, round(run.size(row.count, run.rng(name)), -3))
    commands = [["XADD", f"{stem}:{rest}", "*", field, str(number)] for number in range(count)]

    def work() -> None:
        server.redis.delete(counter, f"{stem}:{rest}")
        events.send_packed(server, commands)()
        events.wait_for_count(server, counter, count)

    return work


def _calls(run: Run, name: str, server: Server) -> Callable[[], object]:
    trigger, key, value = words(run.rng(name), 3)
    server.redis.set(key, value)
    run_script(
        server.redis,
        f"""
import time
def calls(record):
    end, number = time.monotonic() + float(record[1]), 0
    while time.monotonic() < end:
        execute('get', {key!r})
        number += 1
    return number
GB('CommandReader').map(calls).register(trigger={trigger!r}, mode='async')
""",
    )
    return lambda: server.command("RG.TRIGGER", trigger, str(SECONDS * run.scale))


WORKS: dict[str, Callable[[Run, str, Server], Callable[[], object]]] = {
    "ping-get-50": partial(_triggers, "execute('get', r[1])", "async"),
    "ping-sync-50": partial(_triggers, "r[1]", "sync"),
    "ping-xadd-each": _messages,
    "ping-execute": _calls,
}
