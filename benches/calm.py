"""Calm rows: what other clients feel while a run goes over all keys, idle, and beside a client's SCAN and MGET."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import load
from batch import value_pages
from judge import Bars, Measured, Spread
from rounds import Run, WrongResultError, word, words
from server import Server, run_script

ROWS = {
    "ping-map-sum": "PING beside map + sum over 1,000,000 keys: longest pause",
    "ping-count": "PING beside a count of 1,000,000 keys: longest pause",
    "get-p99": "p99 of GETs over 20 connections beside map + sum over 1,000,000 keys",
}
PAUSE_MAX_MS = 10.0
GET_P99_MAX_MS = 1.0
CONNECTIONS = 20


@dataclass
class Pings:
    """What a PING loop saw in all rounds of one situation; all times in ms."""

    durations: list[float] = field(default_factory=list)
    pauses: list[dict[str, float]] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)
    worst_caused: list[float] = field(default_factory=list)

    def add(self, seen: dict[str, Any]) -> None:
        durations = [nanoseconds / 1e6 for nanoseconds in seen["durations"]]
        pauses = seen["pauses"]
        self.durations += durations
        self.pauses += pauses
        self.worst.append(max(durations))
        short = min(max(durations), 1.0)  # pauses below a millisecond are not explained
        self.worst_caused.append(max([short, *(pause["caused_ms"] for pause in pauses)]))

    def merge(self, other: Pings) -> None:
        """Adds what another loop saw."""
        self.durations += other.durations
        self.pauses += other.pauses
        self.worst += other.worst
        self.worst_caused += other.worst_caused

    def quantiles(self) -> dict[str, float]:
        durations = sorted(self.durations)
        last = len(durations) - 1
        named = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
        return {name: durations[round(last * part)] for name, part in named.items()}

    def as_json(self) -> dict[str, Any]:
        return {"quantiles_ms": self.quantiles(), "pings": len(self.durations), "pauses": self.pauses}

    def text(self) -> str:
        return "/".join(f"{value:.2g}" for value in self.quantiles().values())


class Data:
    """A million short strings."""

    def __init__(self, run: Run, rng: random.Random, server: Server) -> None:
        self.prefix = word(rng)
        self.count = run.size(1_000_000, rng)
        values = [word(rng, 5, 40) for _ in range(997)]
        pipeline = server.redis.pipeline(transaction=False)
        for start in range(0, self.count, 1000):
            numbers = range(start, min(start + 1000, self.count))
            pipeline.mset({f"{self.prefix}:{number}": values[number % 997] for number in numbers})
            if len(pipeline) >= 20:
                pipeline.execute()
        pipeline.execute()


def _gear(server: Server, data: Data, rng: random.Random, *, native: bool) -> Callable[[], int]:
    pattern = f"{data.prefix}:*"
    record, left, right = words(rng, 3)
    script = f"GB('KeysReader').count().run({pattern!r})"
    if not native:
        script = f"""
add = lambda {left}, {right}: {left} + {right}
GB('KeysReader').map(lambda {record}: len({record}['value'])).aggregate(0, add, add).run({pattern!r})
"""
    client = server.connect()
    return lambda: int(run_script(client, script)[0])


def _client(server: Server, data: Data) -> Callable[[], int]:
    client = server.connect(decode=True)

    def work() -> int:
        return sum(len(value) for _, values in value_pages(client, f"{data.prefix}:*") for value in values)

    return work


def measure(run: Run, chosen: list[str]) -> Iterator[Measured]:
    with Server(run.server) as server:
        run.progress.show("loading the keys of the calm rows")
        data = Data(run, run.rng("calm data"), server)
        for name in chosen:
            rng = run.rng(name)
            gear = _gear(server, data, rng, native=name == "ping-count")
            client = _client(server, data)
            right = data.count if name == "ping-count" else client()
            if gear() != right:
                raise WrongResultError(f"ours gave {gear()}, not {right}")
            if name == "get-p99":
                yield _gets(run, name, server, data, gear, client)
            else:
                yield _pings(run, name, server, gear, client)


@contextlib.contextmanager
def pinging(server: Server, pings: Pings) -> Iterator[None]:
    path = server.directory / "pings.json"
    command = [sys.executable, str(Path(__file__).with_name("pinger.py")), str(server.port), str(server.pid), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pinger:
        assert pinger.stdout is not None
        try:
            if pinger.stdout.readline() != "ready\n":
                raise RuntimeError("the PING loop did not start")
            yield
        finally:
            pinger.terminate()
    pings.add(json.loads(path.read_text()))


def _pings(run: Run, name: str, server: Server, gear: Callable[[], int], client: Callable[[], int]) -> Measured:
    idle, beside_ours, beside_client = Pings(), Pings(), Pings()
    for number in run.rounds(name):
        works = [(beside_ours, gear), (beside_client, client), (idle, lambda: time.sleep(max(0.2, run.scale)))]
        for pings, work in works if number % 2 else reversed(works):
            with pinging(server, pings):
                work()
    worst, caused = max(beside_ours.worst), max(beside_ours.worst_caused)
    verdict = "bar reached" if caused <= PAUSE_MAX_MS else "missed"
    if caused <= PAUSE_MAX_MS < worst:
        verdict += f" (longest {worst:.1f} ms, the rest waited for a core)"
    if caused > PAUSE_MAX_MS and (at_rest := max(idle.worst_caused)) > PAUSE_MAX_MS:
        verdict = f"too noisy (a pause of {at_rest:.0f} ms without any run)"
    return Measured(
        row=name,
        question=ROWS[name],
        ratios=beside_ours.worst_caused,
        yardstick=beside_client.worst_caused,
        ours=beside_ours.worst_caused,
        yardstick_name="beside client",
        unit="ms",
        bars=Bars(final=PAUSE_MAX_MS, less_is_better=True),
        own_verdict=verdict,
        ratio_unit="ms",
        is_noise_judged=False,
        notes=[f"p50/p99/p99.9/max ms: ours {beside_ours.text()}, client {beside_client.text()}, idle {idle.text()}"],
        extra={
            "ours_pings": beside_ours.as_json(),
            "client_pings": beside_client.as_json(),
            "idle_pings": idle.as_json(),
        },
    )


@contextlib.contextmanager
def _repeating(work: Callable[[], int]) -> Iterator[None]:
    """Does the work again and again in a thread, begun before the body and ended after it."""
    stopped = threading.Event()
    failures: list[BaseException] = []

    def loop() -> None:
        try:
            while not stopped.is_set():
                work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    time.sleep(0.02)
    try:
        yield
    finally:
        stopped.set()
        thread.join()
    if failures:
        raise failures[0]


def _gets(
    run: Run, name: str, server: Server, data: Data, gear: Callable[[], int], client: Callable[[], int]
) -> Measured:
    get = ["GET", f"{data.prefix}:{data.count // 2}"]
    seconds = 1.0 if run.scale == 1 else 0.3
    requests = load.requests_for(seconds, server.port, CONNECTIONS, *get)
    seen: dict[str, list[load.Load]] = {"ours": [], "client": [], "idle": []}
    for number in run.rounds(name):
        works: list[tuple[str, contextlib.AbstractContextManager[None]]]
        works = [("ours", _repeating(gear)), ("client", _repeating(client)), ("idle", contextlib.nullcontext())]
        for who, beside in works if number % 2 else reversed(works):
            with beside:
                seen[who].append(load.drive(server.port, CONNECTIONS, requests // (1 if who == "idle" else 3), *get))
    p99 = {who: [one.p99_ms for one in loads] for who, loads in seen.items()}
    rate = {who: Spread.of([one.per_second for one in loads]).median for who, loads in seen.items()}
    return Measured(
        row=name,
        question=ROWS[name],
        ratios=p99["ours"],
        yardstick=p99["idle"],
        ours=p99["ours"],
        yardstick_name="idle",
        unit="ms",
        bars=Bars(final=GET_P99_MAX_MS, less_is_better=True),
        ratio_unit="ms",
        notes=[
            f"beside client {Spread.of(p99['client']).median:.2f} ms; GETs/s: "
            f"ours {rate['ours']:,.0f}, client {rate['client']:,.0f}, idle {rate['idle']:,.0f}"
        ],
        extra={"p99_ms": p99, "median_per_second": rate},
    )
